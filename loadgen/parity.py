"""Do the replicas hold what the leader holds?

The leader compares (`GET /admin/replica-status`), so a load generator needs no route to the
followers; but where full values came along, they are compared here once more, and the leader is not
believed on its word. A follower *matches* when both say so. A key *lags* when a follower has not
what the leader has.

Three questions are asked after the writes of each quorum:

    look()                  at the last answer: how many keys of how many followers lag behind?
    copies_under_way()      how many should, going by the lags that the writes drew?
    settle(), lost_writes() once deliveries have settled: is everything equal, and does the leader
                            hold the newest confirmed value of every key?

Settled means that every follower matches and nothing is outstanding on any link. The wait for it
is bounded; what is found at its end counts.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import trio

from loadgen.api import FollowerReplica, Leader, LeaderReplica, ReplicaStatus, version_order
from loadgen.workload import Sample

# Every look costs the leader a comparison with each follower.
POLL_S = 0.1
# Beyond this many records, full values would be hundreds of megabytes: digests must do.
FULL_VALUES_UP_TO = 100_000
# As many keys as the leader lists; a difference in values is shown for fewer, for the eye.
KEYS_LISTED = 100
VALUES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Difference:
    """A key as the leader and a follower hold it; None is for a key that is not there."""

    key: str
    leader: str | None
    follower: str | None


@dataclass(frozen=True, slots=True)
class FollowerParity:
    """One follower against the leader. `compared` is "values" or "digests"."""

    url: str
    node_id: str | None
    status: str
    compared: str
    records: int | None
    lag_records: int | None
    differing_keys: list[str]
    differing_keys_total: int
    differences: list[Difference] = field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """All followers against the leader, at one moment, and how long the looking took."""

    followers: list[FollowerParity]
    leader_records: int
    took_ms: float

    @property
    def all_match(self) -> bool:
        """Whether every follower matches."""
        return all(follower.status == "match" for follower in self.followers)

    @property
    def matching(self) -> int:
        """How many followers match."""
        return sum(follower.status == "match" for follower in self.followers)

    @property
    def lagging_followers(self) -> int:
        """How many followers lack at least one key's newest value."""
        return len(self.followers) - self.matching

    @property
    def lagging_keys(self) -> int:
        """How many different keys lag on at least one follower (of those listed)."""
        return len({key for follower in self.followers for key in follower.differing_keys})

    @property
    def lagging_copies(self) -> int:
        """Keys that lag, counted once for each follower that they lag on."""
        return sum(follower.differing_keys_total for follower in self.followers)


@dataclass(frozen=True, slots=True)
class Settled:
    """The settled parity: the last look, how long it took to get there, what was lost if any."""

    look: Look
    waited_ms: float
    in_time: bool
    lost_writes: list[str]

    @property
    def ok(self) -> bool:
        """Whether all is as it must be."""
        return self.look.all_match and not self.lost_writes


def compare(status: ReplicaStatus) -> list[FollowerParity]:
    """Every follower of `status` against the leader, values included where they came along."""
    return [_compare_one(_whole(status.leader), follower) for follower in status.followers]


def _whole(replica: LeaderReplica | FollowerReplica) -> dict[str, Any] | None:
    """What it holds, if all of it is shown."""
    return None if replica.data_left_out else replica.data


def _compare_one(leader: dict[str, Any] | None, follower: FollowerReplica) -> FollowerParity:
    differences: list[Difference] = []
    compared = "digests"
    if leader is not None and (held := _whole(follower)) is not None:
        compared = "values"
        differences = _differences(leader, held)
    own = [difference.key for difference in differences]
    keys = list(dict.fromkeys([*follower.differing_keys, *own]))
    status, error = follower.status, follower.error
    if status == "match" and differences:
        status, error = "mismatch", "the leader reported a match, but the values differ"
    return FollowerParity(
        url=follower.url,
        node_id=follower.node_id,
        status=status,
        compared=compared,
        records=follower.records,
        lag_records=follower.lag_records,
        differing_keys=keys[:KEYS_LISTED],
        differing_keys_total=max(follower.differing_keys_total, len(keys)),
        differences=differences[:VALUES_SHOWN],
        error=error,
    )


def _differences(leader: dict[str, Any], follower: dict[str, Any]) -> list[Difference]:
    # As canonical text: to Python 1, 1.0 and True are equal, to a key-value store they are not.
    ours = {key: _canonical(value) for key, value in leader.items()}
    theirs = {key: _canonical(value) for key, value in follower.items()}
    return [
        Difference(key, ours.get(key), theirs.get(key))
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]


def _canonical(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def copies_under_way(samples: Iterable[Sample], at_s: float) -> int:
    """How many copies of newest values were still on their way at `at_s`, by the lags alone.

    A copy arrives at its write's start, plus the leader's commit, plus the lag drawn. The way to
    the follower and its commit come on top, so this is the least that lagged at that moment.
    """
    newest: dict[str, tuple[tuple[int, int], Sample]] = {}
    for sample in samples:
        if sample.answer is None:
            continue
        order = version_order(sample.answer.version)
        key = sample.write.key
        if key not in newest or newest[key][0] < order:
            newest[key] = (order, sample)
    return sum(
        sample.started_s + (sample.answer.trace.commit_ms + follower.lag_ms) / 1000 > at_s
        for _, sample in newest.values()
        if sample.answer is not None
        for follower in sample.answer.trace.followers
    )


def lost_writes(
    samples: Sequence[Sample], leader_data: dict[str, Any] | None, run_id: str
) -> list[str]:
    """One line for each key whose newest confirmed value the leader no longer holds.

    A value of another client may have replaced ours rightly, and so may a write of ours whose
    outcome is unknown; an older value of this run, or none at all, may not.
    """
    if leader_data is None:
        return []
    failed = {sample.write.value for sample in samples if sample.answer is None}
    newest: dict[str, tuple[tuple[int, int], str]] = {}
    for sample in samples:
        if sample.answer is None:
            continue
        candidate = (version_order(sample.answer.version), sample.write.value)
        newest[sample.write.key] = max(newest.get(sample.write.key, candidate), candidate)
    lines = []
    for key, (_, confirmed) in sorted(newest.items()):
        held = leader_data.get(key)
        of_this_run = isinstance(held, str) and held.startswith(f"{run_id}/")
        if held == confirmed or held in failed or (key in leader_data and not of_this_run):
            continue
        lines.append(f"{key}: confirmed {confirmed}, but the leader holds {held!r}")
    return lines


async def look(leader: Leader, *, all_data: bool = False) -> tuple[Look, ReplicaStatus]:
    """Compare once. Raises ApiError if the leader cannot tell."""
    started_s = trio.current_time()
    status = await leader.replica_status(all_data=all_data)
    took_ms = (trio.current_time() - started_s) * 1000
    return Look(compare(status), status.leader.records, took_ms), status


async def settle(
    leader: Leader,
    samples: Sequence[Sample],
    *,
    run_id: str,
    timeout_s: float,
    on_look: Callable[[Look], None],
) -> Settled:
    """Wait until every follower matches and no link has anything outstanding, then compare all.

    After `timeout_s` whatever is found then is the result. `on_look` is told of each look.
    """
    started_s = trio.current_time()
    in_time = False
    with trio.move_on_after(timeout_s):
        while True:
            current, _ = await look(leader)
            on_look(current)
            in_time = current.all_match and not any(f.lag_records for f in current.followers)
            if in_time:
                break
            await trio.sleep(POLL_S)
    waited_ms = (trio.current_time() - started_s) * 1000
    # The last word: full values, however many keys there are (up to a bound).
    final, status = await look(leader)
    if status.leader.data is None and status.leader.records <= FULL_VALUES_UP_TO:
        final, status = await look(leader, all_data=True)
    on_look(final)
    return Settled(final, waited_ms, in_time, lost_writes(samples, _whole(status.leader), run_id))
