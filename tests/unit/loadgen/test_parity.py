"""Parity: the leader is not believed on its word, and what lags is counted right."""

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from loadgen import parity
from loadgen.api import (
    FollowerReplica,
    FollowerTrace,
    Leader,
    LeaderReplica,
    ReplicaStatus,
    Trace,
    WriteAnswer,
)
from loadgen.parity import Difference, Look, compare, copies_under_way, lost_writes
from loadgen.workload import Sample, Write
from tests.unit.loadgen.fakes import URL, FakeCluster

ALL_FOLLOWERS = range(1, 6)


def status(leader: dict[str, Any] | None, *followers: FollowerReplica) -> ReplicaStatus:
    records = 0 if leader is None else len(leader)
    return ReplicaStatus(LeaderReplica("leader", records, "d", leader), list(followers))


def replica(data: dict[str, Any] | None, state: str = "match", **more: Any) -> FollowerReplica:
    return FollowerReplica(url="http://f", status=state, node_id="f", data=data, **more)


def sample(
    key: str, value: str, version: int = 1, *, lags_ms: list[float] | None = None, at_s: float = 0
) -> Sample:
    lags = lags_ms or [0.0]
    followers = [FollowerTrace(f"http://f{i}", lag_ms) for i, lag_ms in enumerate(lags)]
    answer = WriteAnswer(key, value, f"1.ab-{version}", 1, True, Trace(0, followers))
    return Sample(Write(0, key, value), 1, at_s, 1.0, answer)


def failed(key: str, value: str) -> Sample:
    return Sample(Write(0, key, value), 1, 0.0, 1.0, None, "quorum_not_met")


def test_equal_values_match() -> None:
    (found,) = compare(status({"a": 1}, replica({"a": 1})))
    assert (found.status, found.compared, found.differing_keys) == ("match", "values", [])


def test_a_match_that_the_values_contradict_is_a_mismatch() -> None:
    (found,) = compare(status({"a": "new", "b": 1}, replica({"a": "old", "c": 2})))
    assert found.status == "mismatch"
    assert found.error == "the leader reported a match, but the values differ"
    assert found.differing_keys == ["a", "b", "c"]
    assert found.differing_keys_total == 3
    assert found.differences == [
        Difference("a", '"new"', '"old"'),
        Difference("b", "1", None),
        Difference("c", None, "2"),
    ]


@pytest.mark.parametrize(("ours", "theirs"), [(1, 1.0), (1, True), (0, False), ("1", 1), (None, 0)])
def test_values_that_python_takes_for_equal_may_still_differ(ours: object, theirs: object) -> None:
    (found,) = compare(status({"a": ours}, replica({"a": theirs})))
    assert found.status == "mismatch"


def test_the_order_of_an_objects_members_makes_no_difference() -> None:
    ours, theirs = {"a": {"x": 1, "y": [2]}}, {"a": {"y": [2], "x": 1}}
    assert compare(status(ours, replica(theirs)))[0].status == "match"


def test_a_null_is_not_a_missing_key() -> None:
    (found,) = compare(status({"a": None}, replica({})))
    assert found.differences == [Difference("a", "null", None)]


def test_without_values_the_leaders_digests_count() -> None:
    more = {"differing_keys": ["a"], "differing_keys_total": 512}
    (found,) = compare(status(None, replica(None, "mismatch", **more)))
    assert (found.compared, found.status) == ("digests", "mismatch")
    assert (found.differing_keys, found.differing_keys_total) == (["a"], 512)


def test_an_unreachable_follower_stays_unreachable() -> None:
    (found,) = compare(status({"a": 1}, replica(None, "unreachable", error="refused")))
    assert (found.status, found.error) == ("unreachable", "refused")


json_values = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=2))


@given(
    st.dictionaries(st.text(max_size=2), json_values),
    st.dictionaries(st.text(max_size=2), json_values),
)
def test_exactly_the_keys_that_differ_are_listed(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    (found,) = compare(status(ours, replica(theirs)))

    def typed(data: dict[str, Any], key: str) -> tuple[bool, type, object]:
        return key in data, type(data.get(key)), data.get(key)

    expected = {key for key in ours | theirs if typed(ours, key) != typed(theirs, key)}
    assert set(found.differing_keys) == expected
    assert (found.status == "match") == (not expected)


def test_lag_is_counted_in_keys_followers_and_copies() -> None:
    found = compare(
        status(
            {"a": 1, "b": 2, "c": 3},
            replica({"a": 1, "b": 2, "c": 3}),
            replica({"a": 0, "b": 0, "c": 3}, "mismatch"),
            replica({"a": 0, "b": 2, "c": 3}, "mismatch"),
        )
    )
    look = Look(found, leader_records=3, took_ms=1)
    assert (look.lagging_keys, look.lagging_followers, look.lagging_copies) == (2, 2, 3)
    assert (look.matching, look.all_match) == (1, False)


def test_a_copy_is_under_way_until_its_lag_is_over() -> None:
    samples = [sample("a", "1", lags_ms=[100, 200, 300], at_s=10)]
    assert copies_under_way(samples, 10.05) == 3
    assert copies_under_way(samples, 10.15) == 2
    assert copies_under_way(samples, 10.4) == 0


def test_only_the_newest_write_of_a_key_can_lag() -> None:
    old = sample("a", "old", 1, lags_ms=[900, 900], at_s=10)
    new = sample("a", "new", 2, lags_ms=[10, 500], at_s=10)
    other = sample("b", "other", 3, lags_ms=[900, 10], at_s=10)
    assert copies_under_way([new, old, other, failed("a", "x")], 10.2) == 2


def test_a_confirmed_value_that_is_there_is_not_lost() -> None:
    samples = [sample("a", "r/1", 1), sample("a", "r/2", 2)]
    assert lost_writes(samples, {"a": "r/2"}, "r") == []


@pytest.mark.parametrize("held", [{"a": "r/1"}, {"a": "r/from-the-quorum-before"}, {}])
def test_a_newest_confirmed_value_that_is_gone_is_lost(held: dict[str, Any]) -> None:
    samples = [sample("a", "r/2", 2), sample("a", "r/1", 1)]
    (line,) = lost_writes(samples, held, "r")
    assert line.startswith("a: confirmed r/2, but the leader holds")


def test_what_may_have_replaced_a_value_rightly_loses_nothing() -> None:
    samples = [sample("a", "r/1", 1), failed("a", "r/2")]
    assert lost_writes(samples, {"a": "r/2"}, "r") == []  # outcome unknown
    assert lost_writes(samples, {"a": "somebody else's"}, "r") == []
    assert lost_writes(samples, {"a": 5}, "r") == []
    assert lost_writes(samples, None, "r") == []  # too many to tell


def settle(fake: FakeCluster, timeout_s: float = 5) -> tuple[parity.Settled, list[int]]:
    """Ten writes at quorum 1, and what settling found; with how many matched at each look."""
    matching: list[int] = []

    async def main() -> parity.Settled:
        leader = Leader(URL, timeout_s=10, transport=fake)
        for i in range(10):
            await leader.write(f"k{i}", "v")
        return await parity.settle(
            leader,
            [],
            run_id="r",
            timeout_s=timeout_s,
            on_look=lambda look: matching.append(look.matching),
        )

    return trio.run(main, clock=MockClock(autojump_threshold=0)), matching


def test_replicas_settle_when_their_deliveries_have_arrived() -> None:
    settled, matching = settle(FakeCluster(write_quorum=1))
    assert settled.ok
    assert settled.in_time
    assert 0 < settled.waited_ms < 1000
    assert matching == sorted(matching)
    assert matching[-1] == 5


def test_the_wait_for_a_follower_that_never_matches_is_bounded() -> None:
    fake = FakeCluster(write_quorum=1)
    fake.deaf.add(fake.urls[2])
    settled, _ = settle(fake, timeout_s=5)
    assert not settled.ok
    assert not settled.in_time
    assert settled.waited_ms == pytest.approx(5000)
    states = [follower.status for follower in settled.look.followers]
    assert states == ["match", "match", "mismatch", "match", "match"]
    assert settled.look.followers[2].differing_keys == [f"k{i}" for i in range(10)]


def test_full_values_are_asked_for_where_there_were_too_many_to_come_by_themselves() -> None:
    asked: list[bool] = []

    class Many(Leader):
        async def replica_status(self, *, all_data: bool = False) -> ReplicaStatus:
            await trio.lowlevel.checkpoint()
            asked.append(all_data)
            data = {"a": 1} if all_data else None
            return ReplicaStatus(LeaderReplica("leader", 5000, "d", data), [replica(data)])

    async def main() -> parity.Settled:
        leader = Many(URL, timeout_s=1, transport=FakeCluster())
        return await parity.settle(leader, [], run_id="r", timeout_s=1, on_look=lambda look: None)

    settled = trio.run(main, clock=MockClock(autojump_threshold=0))
    assert asked == [False, False, True]
    assert settled.look.followers[0].compared == "values"
