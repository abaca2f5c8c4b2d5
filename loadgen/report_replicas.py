"""What `report.md` says of the replicas: at the last answer, and once they have settled.

As in `report`, nothing is said unless this run shows it.
"""

from itertools import pairwise

from loadgen.parity import FollowerParity
from loadgen.results import QuorumResult, Run
from loadgen.wording import listed, plural

# Enough for the eye; the rest is in summary.json.
VALUES_SHOWN = 3


def at_the_last_answer(run: Run) -> list[str]:
    """The section on what lagged when the last write was answered, and why."""
    n = run.followers
    lines = [
        "## Replicas at the moment of the last answer",
        "",
        "An answer says that k followers have the write, not that all have. The other deliveries "
        "were still on their way when the last answer came, and reading from one of those "
        "followers would have given an old value. A *copy* is one key on one follower.",
        "",
        "| quorum | copies behind | keys behind | followers behind | on their way by drawn lag "
        "| comparison took |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for result in run.results:
        look = result.at_last_answer
        lines.append(
            f"| {result.quorum} | {look.lagging_copies} of {look.leader_records * n} "
            f"| {look.lagging_keys} of {look.leader_records} | {look.lagging_followers} of {n} "
            f"| {result.under_way} | {look.took_ms:.0f} ms |"
        )
    lines += ["", _lag_trend(run)]
    if any(result.under_way > result.at_last_answer.lagging_copies for result in run.results):
        lines += [
            "",
            "Where fewer copies were found behind than were on their way by the lags drawn, the "
            "rest arrived while the leader was asking its followers: the comparison is not "
            "instantaneous, and replication goes on.",
        ]
    return lines


def _lag_trend(run: Run) -> str:
    n = run.followers
    by_quorum = sorted(run.results, key=lambda result: result.quorum)
    counts = [result.under_way for result in by_quorum]
    each = ", ".join(f"{result.under_way} at quorum {result.quorum}" for result in by_quorum)
    why = (
        f"With quorum k, up to {n} - k followers may lack a write when it is answered, and the "
        "higher the quorum, the longer the answer waits and the more of the others arrive meanwhile"
    )
    full = [r for r in by_quorum if r.quorum == n and not r.failed]
    whole = ""
    if full:
        whole = (
            f" With quorum {n} nothing can be behind once all writes are answered, and nothing was."
            if full[0].at_last_answer.all_match
            else f" With quorum {n} nothing should be behind, **yet something was**."
        )
    if len(counts) < 2 or max(counts) == 0:
        return f"{why}. By the lags drawn: {each}.{whole}"
    if all(a >= b for a, b in pairwise(counts)):
        return f"{why}: by the lags drawn, {each}. It falls with the quorum, as it should.{whole}"
    risen = [
        str(later.quorum)
        for earlier, later in pairwise(by_quorum)
        if later.under_way > earlier.under_way
    ]
    return (
        f"{why}. By the lags drawn: {each}. That it rose at quorum {listed(risen)} is chance: "
        f"only the newest write of each key counts, a handful of draws.{whole}"
    )


def once_settled(run: Run) -> list[str]:
    """The section on the replicas after the wait: why they match, or what does not."""
    lines = ["## Replicas once the background deliveries had settled", ""]
    waits = [result.settled.waited_ms for result in run.results]
    if run.settled_ok:
        records = run.results[-1].settled.look.leader_records
        how = {follower.compared for follower in run.final_parity}
        by = "in full values" if how == {"values"} else "by digest (too many for full values)"
        lines += [
            f"After every quorum, at most {max(waits):.0f} ms after the last answer, all "
            f"{run.followers} followers matched the leader: {records} "
            f"{plural('key', records)} each, compared {by}; and the leader held the newest "
            "confirmed value of every key. Why they match, although each follower got the writes "
            "at other times and in another order:",
            "",
            "- The leader alone issues versions, and no two writes share one. A follower keeps, of "
            "two records of a key, the one with the greater version: the same one everywhere, "
            "whatever came first.",
            "- Merging a record twice changes nothing, so a delivery may be retried safely.",
            "- The deliveries that the answer did not wait for went on in the background until "
            "they had arrived.",
        ]
    else:
        lines.append("**The replicas do not match.** What differed at the end of the wait:")
        for result in run.results:
            lines += _unsettled(result)
        lines += [
            "",
            "A follower that cannot be reached, or that still had deliveries outstanding when "
            "the wait ended, catches up later; one that is reachable, has nothing outstanding, and "
            "still differs has lost a write.",
        ]
    lines += ["", "| follower | status | records | differing keys |", "|---|---|---:|---|"]
    for follower in run.final_parity:
        lines.append(
            f"| {follower.url} ({follower.node_id or 'unknown'}) | {follower.status} "
            f"| {'-' if follower.records is None else follower.records} "
            f"| {', '.join(follower.differing_keys) or '-'} |"
        )
    return lines


def _unsettled(result: QuorumResult) -> list[str]:
    lines = []
    if not result.settled.look.all_match:
        waited_s = result.settled.waited_ms / 1000
        lines += ["", f"After quorum {result.quorum}, having waited {waited_s:.1f} s:", ""]
    for follower in result.settled.look.followers:
        if follower.status != "match":
            lines.append(f"- {_difference_sentence(follower)}")
            lines += [
                f"    - `{d.key}`: leader {_held(d.leader)}, follower {_held(d.follower)}"
                for d in follower.differences[:VALUES_SHOWN]
            ]
            if len(follower.differences) > VALUES_SHOWN:
                lines.append("    - and more, in `summary.json`")
    if result.settled.lost_writes:
        lines += ["", f"**Confirmed writes of quorum {result.quorum} that are lost**:", ""]
        lines += [f"- {line}" for line in result.settled.lost_writes]
    return lines


def _difference_sentence(follower: FollowerParity) -> str:
    reason = f" ({follower.error})" if follower.error else ""
    keys = ""
    if follower.differing_keys_total:
        names = ", ".join(f"`{key}`" for key in follower.differing_keys)
        keys = f", {follower.differing_keys_total} keys differ: {names}"
    return f"{follower.url} ({follower.node_id or 'unknown'}): {follower.status}{reason}{keys}."


def _held(value: str | None) -> str:
    return "nothing" if value is None else f"`{value}`"
