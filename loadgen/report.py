"""`report.md`: the run's figures, its plot, and what they mean, in words computed from this run.

Nothing here is said unless this run shows it: a mean that misses the theory is called a miss,
a quorum at which more copies lagged than at the one before it is named, replicas that differ are
listed with their keys. Each section is a function from a run to lines of Markdown.
"""

import math
from itertools import pairwise
from pathlib import Path

from loadgen import report_replicas, summary, theory
from loadgen.results import (
    LAB_MEANS_MS,
    Latency,
    QuorumResult,
    Run,
)
from loadgen.wording import listed, ms, ms_range, ordinal, plural

#: Two clocks, and figures that are told with three digits: less than this is no difference.
EARLY_MS = 0.1


def write_report(run: Run, folder: Path) -> None:
    """Write `report.md`."""
    summary.write_file(folder / summary.REPORT_FILE, report_text(run).encode())


def report_text(run: Run) -> str:
    """The whole report."""
    sections = (
        _head(run),
        _figures(run),
        _why_latency_grows(run),
        _measured_against_theory(run),
        _what_failed(run),
        report_replicas.at_the_last_answer(run),
        report_replicas.once_settled(run),
        _how_it_was_run(run),
    )
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _head(run: Run) -> list[str]:
    plan = run.plan
    verdict = (
        "All writes were confirmed, and after every quorum all replicas matched the leader."
        if run.settled_ok and not run.failed
        else f"**Not all is well**: {_verdict(run)}."
    )
    each = "" if len(plan.quorums) == 1 else "each "
    lag = f"drawn uniformly from {plan.lag}" if plan.lag.range_ms > 0 else str(plan.lag)
    lines = [
        "# Write quorum and write latency",
        "",
        f"For {each}write quorum {listed([str(q) for q in plan.quorums])}: "
        f"{plan.writes} {plural('write', plan.writes)}, "
        f"{plan.concurrency} at a time, on {plan.keys} {plural('key', plan.keys)}, to a leader "
        f"with {run.followers} {plural('follower', run.followers)}. The simulated lag of each "
        f"delivery is {lag}. {verdict}",
        "",
    ]
    if run.leader.live_links < run.followers:
        lines += [
            f"**Only {run.leader.live_links} of {run.followers} followers were linked to the "
            "leader when the run began.** The theory below is that of all of them.",
            "",
        ]
    for problem in run.problems:
        lines += [f"**Problem**: {problem}", ""]
    return [*lines, f"![Write latency against the write quorum]({summary.PLOT_FILE})"]


def _verdict(run: Run) -> str:
    parts = []
    if run.failed:
        parts.append(f"{run.failed} {plural('write', run.failed)} failed")
    bad = [str(result.quorum) for result in run.results if not result.settled.ok]
    if bad:
        parts.append(f"the replicas did not come to match after quorum {listed(bad)}")
    return " and ".join(parts)


def _figures(run: Run) -> list[str]:
    lab = run.like_the_lab
    lines = [
        "## Figures",
        "",
        "Milliseconds, measured at the client from sending the request to having the parsed "
        "answer. *Ideal* is what the lag alone makes of the mean; *overhead* is what a write took "
        "beyond the lag that it drew itself.",
        "",
        "| quorum | mean | s.e. | ideal | min | p5 | p50 | p95 | p99 | max | overhead p50 "
        "| overhead p99 | failed |" + (" the lab's mean |" if lab else ""),
        "|---:" * (13 + lab) + "|",
    ]
    for result in run.results:
        latency = result.latency
        cells = [str(result.quorum)]
        if latency is None:
            cells += ["-", "-", ms(result.statistic.mean_ms)] + ["-"] * 8
        else:
            cells += [
                f"**{ms(latency.mean_ms)}**",
                ms(latency.standard_error_ms),
                ms(result.statistic.mean_ms),
                *(ms(v) for v in (latency.min_ms, latency.p5_ms, latency.p50_ms)),
                *(ms(v) for v in (latency.p95_ms, latency.p99_ms, latency.max_ms)),
                ms(latency.overhead_p50_ms),
                ms(latency.overhead_p99_ms),
            ]
        cells.append(str(result.failed))
        if lab:
            cells.append(ms(LAB_MEANS_MS.get(result.quorum)))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _why_latency_grows(run: Run) -> list[str]:
    plan, n = run.plan, run.followers
    low, spread = plan.lag.min_ms, plan.lag.range_ms
    lines = [
        "## Why latency grows with the quorum",
        "",
        f"The leader sends each write to all {n} followers at once, each after a lag of its own, "
        f"and answers at the acknowledgement that completes the quorum. With quorum k that is the "
        f"k-th to arrive, so a write waits for the *k-th smallest* of {n} random lags: the k-th "
        f"order statistic. Of {n} draws that are uniform on an interval, the k-th smallest lies on "
        f"average k/{n + 1} of the way up:",
        "",
        f"    E[k-th of n] = min + (max - min) · k / (n + 1) = {low:g} + {spread:g} · k / {n + 1}",
        "",
    ]
    for result in run.results:
        lines.append(f"- {_mean_sentence(result, n)}")
    steps = _steps(run)
    if steps:
        lines += [
            "",
            f"So each further confirmation costs {spread:g} / {n + 1} = {spread / (n + 1):.1f} ms "
            f"on average, and the line in the plot is straight. Measured: {'; '.join(steps)}.",
        ]
    by_quorum = {result.quorum: result.latency for result in run.results}
    first, last = by_quorum.get(1), by_quorum.get(n)
    if spread > 0 and n > 1 and first is not None and last is not None:
        lines += ["", _ends_sentence(first, last, n)]
    return lines


def _mean_sentence(result: QuorumResult, n: int) -> str:
    k = result.quorum
    waits = {1: "the fastest follower", n: "the slowest follower"}.get(
        k, f"the {ordinal(k)} fastest follower"
    )
    if n == 1:
        waits = "the only follower"
    ideal = f"{result.statistic.mean_ms:.1f} ms in theory"
    latency = result.latency
    if latency is None:
        return f"Quorum {k} waits for {waits}: {ideal}; no write succeeded."
    return (
        f"Quorum {k} waits for {waits}: {ideal}, measured {_with_error(latency)}, of which "
        f"{latency.drawn_ideal_mean_ms:.1f} ms is the lag that these very writes drew and "
        f"{latency.overhead_mean_ms:.1f} ms everything else."
    )


def _steps(run: Run) -> list[str]:
    steps = []
    for before, after in pairwise(run.results):
        if before.latency and after.latency and after.quorum == before.quorum + 1:
            step_ms = after.latency.mean_ms - before.latency.mean_ms
            steps.append(f"from {before.quorum} to {after.quorum} {step_ms:+.1f} ms")
    return steps


def _ends_sentence(first: Latency, last: Latency, n: int) -> str:
    return (
        f"The shapes differ, too (right-hand panel). Quorum 1 needs only one of {n} lags to be "
        f"short, so most of its writes are quick and a few are not: half took at most "
        f"{ms(first.p50_ms)} ms, the slowest {ms(first.max_ms)} ms. Quorum {n} needs all of them "
        f"to be short, and one slow follower holds up everything: half took at least "
        f"{ms(last.p50_ms)} ms, the quickest {ms(last.min_ms)} ms. The quorums between wait for "
        "a lag from the middle of the field and spread to both sides."
    )


def _measured_against_theory(run: Run) -> list[str]:
    measured = [(result, result.latency) for result in run.results if result.latency is not None]
    if not measured:
        return []
    lines = [
        "## Measured against the theory",
        "",
        "A latency is the lag that a write drew, and the overhead. Two things could be otherwise than "
        "the theory has it: the lags that were drawn, and that a write waits for the k-th of them.",
        "",
        *_drawn_lags(run),
        "",
        _waited_sentence(run),
    ]
    if (large := large_overheads(run)) is not None:
        lines += ["", f"But {large}"]
    p50 = [latency.overhead_p50_ms for _, latency in measured]
    p99 = [latency.overhead_p99_ms for _, latency in measured]
    lines += [
        "",
        f"The overhead, taken write by write against the lag that it drew, has a median of "
        f"{ms_range(p50)} and a 99th percentile of {ms_range(p99)}, according to quorum. It is what "
        "the system itself costs: HTTP from client to leader and from leader to follower, a commit "
        "to disk at the leader and one at the follower, and the wait for a processor that all "
        f"nodes and {_clients(run)} share.{_busy_sentence(run)}",
    ]
    return lines


def _clients(run: Run) -> str:
    return f"{run.plan.concurrency} {plural('client', run.plan.concurrency)}"


def _busy_sentence(run: Run) -> str:
    by_quorum = sorted(run.results, key=lambda result: result.quorum)
    low, high = by_quorum[0], by_quorum[-1]
    if low.latency is None or high.latency is None or low.quorum == high.quorum:
        return ""
    more = low.latency.overhead_p50_ms > high.latency.overhead_p50_ms
    return (
        f" Each client sends its next write when it has its answer, so {_clients(run)} made "
        f"{low.writes_per_s:.0f} writes a second at quorum {low.quorum} and "
        f"{high.writes_per_s:.0f} at quorum {high.quorum}"
        + (
            ": the shorter the wait, the busier the machine, and the greater the overhead."
            if more and low.writes_per_s > high.writes_per_s
            else "."
        )
    )


def large_overheads(run: Run) -> str | None:
    """Say which overheads are so large that the lag, and so the theory, explains little."""
    step_ms = run.plan.lag.range_ms / (run.followers + 1)
    large = [
        f"{result.latency.overhead_mean_ms:.1f} ms at quorum {result.quorum}"
        for result in run.results
        if result.latency is not None and result.latency.overhead_mean_ms > step_ms / 2
    ]
    if not large:
        return None
    return (
        f"the mean overhead is large beside the {step_ms:.1f} ms that one more confirmation "
        f"costs: {listed(large)}. There, writes waited noticeably for something other than the "
        "lag: a busy machine, or followers that did not answer. A longer lag (`--lag`) or fewer "
        "clients (`--concurrency`) would show the order statistics better."
    )


def _drawn_lags(run: Run) -> list[str]:
    """The k-th smallest lags that were drawn, beside those of theory; what chance may do to them."""
    lines, squares = [], []
    for result in run.results:
        if result.latency is None:
            continue
        found_ms, statistic = result.latency.drawn_ideal_mean_ms, result.statistic
        confirmed = len(result.samples) - result.failed
        error_ms = statistic.standard_deviation_ms / math.sqrt(confirmed)
        line = (
            f"- Quorum {result.quorum}: the mean of {confirmed} drawn is {found_ms:.1f} ms, in theory "
            f"{statistic.mean_ms:.1f} ± {error_ms:.1f} ms"
        )
        if error_ms > 0:
            deviation = (found_ms - statistic.mean_ms) / error_ms
            squares.append(deviation**2)
            line += f": {abs(deviation):.1f} times that {'above' if deviation > 0 else 'below'} it"
        lines.append(f"{line}.")
    if squares:
        total, bound = math.fsum(squares), theory.chi_square_bound(len(squares))
        verdict = (
            "as good as uniform, and as asked for."
            if total <= bound
            else "**not what chance explains**. If it happens again with another seed, they are not "
            "uniform, or not what was asked for."
        )
        lines += [
            "",
            f"The squares of these deviations add up to {total:.1f}. Chance alone makes that "
            f"{len(squares)} on average, and more than {bound:.1f} in one run of a hundred: the lags "
            f"were {verdict}",
        ]
    return lines


def _waited_sentence(run: Run) -> str:
    """Compare each write's latency with the lag that it had to wait for."""
    overheads = [
        overhead
        for result in run.results
        for sample in result.samples
        if (overhead := sample.overhead_ms) is not None
    ]
    early = [overhead for overhead in overheads if overhead < -EARLY_MS]
    if early:
        return (
            f"**{len(early)} of {len(overheads)} writes were answered before the k-th of their own "
            f"lags had passed**, by up to {-min(early):.1f} ms: with fewer confirmations than the "
            "quorum asks for, or without the lag."
        )
    return (
        f"None of {len(overheads)} writes was answered before the k-th of its own lags had passed; the "
        f"closest came {max(min(overheads), 0):.1f} ms after it."
    )


def _what_failed(run: Run) -> list[str]:
    if not run.failed:
        return []
    lines = ["## Failed writes", "", "They are counted here and are in no latency figure.", ""]
    for result in run.results:
        for code, count in sorted(result.failures.items()):
            lines.append(
                f"- Quorum {result.quorum}: {count} of {len(result.samples)} with `{code}`."
            )
    return lines


def _how_it_was_run(run: Run) -> list[str]:
    plan = run.plan
    where = "a cluster of its own on loopback" if run.own_cluster else "a cluster that was up"
    of_lag = " and of the leader's lags" if run.own_cluster else ""
    found = ", ".join(
        f"{name} {version}" for name, version in summary.versions(run).items() if version
    )
    return [
        "## How it was run",
        "",
        f"On {where} (leader {run.leader_url}), {run.started_at:%Y-%m-%d %H:%M:%S} UTC, "
        f"{run.duration_s:.1f} s. Seed {plan.seed} of the order of the keys{of_lag}; which write "
        "meets which lag depends on the order in which they arrive. Writes are dealt out evenly to "
        f"the keys and shuffled; every value is unique (run {plan.run_id}). Exactly "
        f"{plan.concurrency} workers, each on a connection of its own that was used once before "
        "measuring. Every single write, with the lags it drew, is in "
        f"`{summary.WRITES_FILE}`.",
        "",
        f"Versions: {found}.",
    ]


def _with_error(latency: Latency) -> str:
    if latency.standard_error_ms is None:
        return f"{latency.mean_ms:.1f} ms"
    return f"{latency.mean_ms:.1f} ± {latency.standard_error_ms:.1f} ms"
