"""Which writes travel together, and what becomes of them."""

from __future__ import annotations

import re

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from trikv.model.quorum import Voters
from trikv.model.record import Entry
from trikv.model.version import Epoch, Version
from trikv.protocol.messages import encode_entry
from trikv.replication.outbox import Encoded
from trikv.replication.write import (
    MAX_GROUP_BYTES,
    MAX_GROUP_RECORDS,
    Ack,
    CommitGroup,
    Delivery,
    Write,
    commit_groups,
)

THREE = Voters(frozenset({"boss", "a", "b", "c"}), 2)
FOUR = Voters(frozenset({"boss", "a", "b", "c", "d"}), 2)


def content(timestamp_us: int, records: int = 1, size: int = 1) -> Encoded:
    version = Version(Epoch(1, "x"), timestamp_us)
    pairs = [(f"k{timestamp_us}-{i}", "1" * size) for i in range(records)]
    return Encoded.of([Entry(version, pairs)], timestamp_us)


def group(*sizes: tuple[int, int, Voters]) -> list[tuple[Write, Encoded]]:
    return [
        (Write((voters,)), content(us, records, size))
        for us, (records, size, voters) in enumerate(sizes, 1)
    ]


async def test_writes_travel_together_up_to_a_bound_and_with_voters_of_their_own_apart() -> None:
    def parts(*sizes: tuple[int, int, Voters], apart: bool = False) -> list[list[int]]:
        made = group(*sizes)
        return [list(one.content.timestamps_us) for one in commit_groups(made, apart=apart)]

    assert parts() == []
    assert parts((1, 1, THREE), (2, 1, THREE), (1, 1, THREE)) == [[1, 2, 3]]
    assert parts((1, 1, THREE), (2, 1, THREE), apart=True) == [[1], [2]]
    assert parts((1, 1, THREE), (1, 1, FOUR), (1, 1, FOUR), (1, 1, THREE)) == [[1], [2, 3], [4]]
    half, most = MAX_GROUP_RECORDS // 2, MAX_GROUP_RECORDS
    assert parts((half, 1, THREE), (half, 1, THREE), (1, 1, THREE)) == [[1, 2], [3]]
    assert parts((1, 1, THREE), (most, 1, THREE), (1, 1, THREE)) == [[1], [2], [3]]
    assert parts((1, MAX_GROUP_BYTES, THREE), (1, 1, THREE)) == [[1], [2]]


@given(st.lists(st.tuples(st.integers(1, 700), st.sampled_from([THREE, FOUR])), max_size=12))
def test_nothing_is_lost_or_changes_its_place(sizes: list[tuple[int, Voters]]) -> None:
    async def look() -> None:
        made = group(*((records, 1, voters) for records, voters in sizes))
        parts = list(commit_groups(made, apart=False))
        assert [write for part in parts for write in part.writes] == [write for write, _ in made]
        texts = [part.content.text for part in parts]
        assert ",".join(texts) == ",".join(one.text for _, one in made)
        for part in parts:
            writes, one = part.writes, part.content
            assert one.records <= MAX_GROUP_RECORDS
            assert one.size == len(one.text)
            assert len(re.findall(r'"k\d', one.text)) == one.records
            assert len(one.timestamps_us) == len(writes)
            assert len({write.voters for write in writes}) == 1

    trio.run(look)


async def test_one_count_confirms_all_of_a_group_each_write_with_its_own_times(
    autojump_clock: MockClock,
) -> None:
    first = Write((THREE,))
    await trio.sleep(0.01)
    second = Write((THREE,))
    assert (first.deliveries_in_progress, first.acks, first.trace.followers) == (0, 0, [])
    group = CommitGroup([first, second], content(1))
    group.deliveries = [Delivery(f"http://{name}", name, 0.0) for name in "abc"]
    await trio.sleep(0.02)
    group.add(Ack(group.deliveries[2], "c", trio.current_time()))
    assert not group.confirmed
    assert first.acks == second.acks == 1
    await trio.sleep(0.03)
    group.add(Ack(group.deliveries[0], "a", trio.current_time()))
    assert first.confirmed_by == 2
    for write, began_ms in ((first, 0), (second, 10)):
        assert write.confirmed_by == 2
        assert write.quorum_ms == pytest.approx(60 - began_ms)
        acks_ms = [step.ack_ms for step in write.trace.followers]
        assert acks_ms == [pytest.approx(60 - began_ms), None, pytest.approx(30 - began_ms)]
    await trio.sleep(1)
    group.add(Ack(group.deliveries[1], "b", trio.current_time()))
    assert (first.confirmed_by, first.acks) == (2, 3)  # what came late changes no outcome
    assert first.quorum_ms == pytest.approx(60)


async def test_an_acknowledgement_of_a_node_that_is_no_follower_here_is_refused() -> None:
    group = CommitGroup([Write((THREE,))], content(1))
    group.deliveries = [Delivery("http://a", "a", 0.0)]
    with pytest.raises(ValueError, match="'d' is not among the followers"):
        group.add(Ack(group.deliveries[0], "d", 0.0))


def test_what_is_joined_reads_like_its_parts() -> None:
    pairs = [("a", "1"), ("b", ""), ("c", "2")]
    entries = [Entry(Version(Epoch(1, "x"), i), pairs[i:]) for i in range(3)]
    joined = Encoded.joined([Encoded.of(entries[:2], 0, 1), Encoded.of(entries[2:], 2)])
    assert joined.text == ",".join(map(encode_entry, entries))
    assert (joined.records, list(joined.timestamps_us)) == (6, [0, 1, 2])
    alone = Encoded.of(entries, 0)
    assert Encoded.joined([alone]) is alone
