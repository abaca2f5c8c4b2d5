"""The figures of a run as data: `summary.json`, and `writes.csv` with every single write.

`summary.json` has the original lab's fields under the lab's names (`leader_url`, `results` with
`quorum` and `avg_latency_ms`, `parity` with `url` and `status`, `plot`) and everything else beside
them. Every latency is in milliseconds and says so in its name; what could not be computed is null.
Files are written beside their place and moved there, so that none is ever half there.
"""

import csv
import io
import json
import os
import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from loadgen.errors import OutputError
from loadgen.parity import FollowerParity, Look
from loadgen.results import LAB_MEANS_MS, QuorumResult, Run

SUMMARY_FILE = "summary.json"
WRITES_FILE = "writes.csv"
REPORT_FILE = "report.md"
PLOT_FILE = "quorum_vs_latency.png"
FILES = (SUMMARY_FILE, REPORT_FILE, WRITES_FILE, PLOT_FILE)

PACKAGES = ("trikv", "trio", "httpx", "msgspec", "rich", "matplotlib", "numpy")


def prepare_folder(folder: Path) -> None:
    """Make the output folder and try to write to it, before anything else is done.

    Raises OutputError if that fails.
    """
    probe = folder / f".loadgen-probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"cannot write to the output folder {folder} ({error.strerror or error}): "
            "expected a folder, or a place where one can be made"
        ) from None


def write_file(path: Path, content: bytes) -> None:
    """Write a report, whole or not at all. Raises OutputError if it cannot be written."""
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path} ({error.strerror or error})") from None


def versions(run: Run) -> dict[str, str | None]:
    """The versions of everything that had a part in the figures; None for what is not installed."""
    found: dict[str, str | None] = {
        "node": run.leader.software_version,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def summary_of(run: Run, folder: Path) -> dict[str, Any]:
    """The content of `summary.json`."""
    plan = run.plan
    return {
        "leader_url": run.leader_url,
        "results": [_result(run, result) for result in run.results],
        "parity": [_parity(follower) for follower in run.final_parity],
        "plot": str(folder / PLOT_FILE),
        "report": str(folder / REPORT_FILE),
        "writes": str(folder / WRITES_FILE),
        "ok": run.ok,
        "problems": run.problems,
        "seed": plan.seed,
        "run_id": plan.run_id,
        "settings": {
            "quorums": list(plan.quorums),
            "writes_per_quorum": plan.writes,
            "concurrency": plan.concurrency,
            "keys": plan.keys,
            "min_delay_ms": plan.lag.min_ms,
            "max_delay_ms": plan.lag.max_ms,
        },
        "cluster": {
            "started_by_loadgen": run.own_cluster,
            "leader_node_id": run.leader.node_id,
            "epoch": run.leader.epoch,
            "followers": run.leader.followers,
            "live_links": run.leader.live_links,
        },
        "started_at": run.started_at.isoformat(timespec="milliseconds"),
        "duration_s": _rounded(run.duration_s),
        "machine": {"cpus": os.cpu_count(), "architecture": platform.machine()},
        "versions": versions(run),
    }


def _result(run: Run, result: QuorumResult) -> dict[str, Any]:
    latency = result.latency
    figures: dict[str, float | None] = {}
    if latency is not None:
        figures = {
            "min_latency_ms": latency.min_ms,
            "p5_latency_ms": latency.p5_ms,
            "p50_latency_ms": latency.p50_ms,
            "p95_latency_ms": latency.p95_ms,
            "p99_latency_ms": latency.p99_ms,
            "max_latency_ms": latency.max_ms,
            "standard_deviation_ms": latency.standard_deviation_ms,
            "standard_error_ms": latency.standard_error_ms,
            "drawn_ideal_mean_ms": latency.drawn_ideal_mean_ms,
            "overhead_mean_ms": latency.overhead_mean_ms,
            "overhead_p50_ms": latency.overhead_p50_ms,
            "overhead_p99_ms": latency.overhead_p99_ms,
            "expected_mean_ms": latency.expected_mean_ms,
            "deviation_standard_errors": latency.deviation,
        }
    return {
        "quorum": result.quorum,
        "avg_latency_ms": None if latency is None else _rounded(latency.mean_ms),
        "ideal_mean_ms": _rounded(result.statistic.mean_ms),
        **{name: _rounded(value) for name, value in figures.items()},
        "within_three_standard_errors": None if latency is None else latency.as_expected,
        "lab_avg_latency_ms": LAB_MEANS_MS.get(result.quorum) if run.like_the_lab else None,
        "writes": len(result.samples),
        "writes_per_s": _rounded(result.writes_per_s),
        "failures": result.failed,
        "failures_by_code": result.failures,
        "parity_at_last_answer": {
            **_look(result.at_last_answer, values=False),
            "copies_under_way_by_drawn_lag": result.under_way,
        },
        "parity_settled": {
            **_look(result.settled.look, values=True),
            "settled_in_time": result.settled.in_time,
            "waited_ms": _rounded(result.settled.waited_ms),
            "lost_writes": result.settled.lost_writes,
        },
    }


def _look(look: Look, *, values: bool) -> dict[str, Any]:
    followers = [_parity(follower) for follower in look.followers]
    if not values:  # what lags is expected to differ: its keys say it all
        for follower in followers:
            del follower["differences"]
    return {
        "all_match": look.all_match,
        "leader_records": look.leader_records,
        "lagging_followers": look.lagging_followers,
        "lagging_keys": look.lagging_keys,
        "lagging_copies": look.lagging_copies,
        "comparison_took_ms": _rounded(look.took_ms),
        "followers": followers,
    }


def _parity(follower: FollowerParity) -> dict[str, Any]:
    return asdict(follower)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def write_summary(run: Run, folder: Path) -> None:
    """Write `summary.json`."""
    text = json.dumps(summary_of(run, folder), indent=2, ensure_ascii=False, allow_nan=False)
    write_file(folder / SUMMARY_FILE, (text + "\n").encode())


def write_samples(run: Run, folder: Path) -> None:
    """Write `writes.csv`: a line for every write, with each follower's drawn lag and ACK time."""
    stream = io.StringIO(newline="")
    table = csv.writer(stream, lineterminator="\n")
    first_s = min(sample.started_s for result in run.results for sample in result.samples)
    urls = [follower.url for follower in run.final_parity]
    names = [follower.node_id or follower.url for follower in run.final_parity]
    table.writerow(
        ["quorum", "index", "key", "value", "outcome", "version", "started_ms", "latency_ms"]
        + ["ideal_ms", "overhead_ms"]
        + [f"{name} {what}" for what in ("lag_ms", "ack_ms") for name in names]
    )
    for result in run.results:
        for sample in sorted(result.samples, key=lambda one: one.started_s):
            answer = sample.answer
            traces = {} if answer is None else {f.url: f for f in answer.trace.followers}
            table.writerow(
                [
                    sample.quorum,
                    sample.write.index,
                    sample.write.key,
                    sample.write.value,
                    sample.failure or "confirmed",
                    "" if answer is None else answer.version,
                    _rounded((sample.started_s - first_s) * 1000),
                    _rounded(sample.latency_ms),
                    _rounded(sample.ideal_ms),
                    _rounded(sample.overhead_ms),
                    *[_rounded(traces[url].lag_ms) if url in traces else None for url in urls],
                    *[_rounded(traces[url].ack_ms) if url in traces else None for url in urls],
                ]
            )
    write_file(folder / WRITES_FILE, stream.getvalue().encode())
