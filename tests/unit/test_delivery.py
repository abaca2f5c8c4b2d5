"""What travels together, and what becomes of it."""

from __future__ import annotations

import re

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from trikv.delivery import (
    MAX_TOGETHER_BYTES,
    MAX_TOGETHER_RECORDS,
    Delivery,
    Leg,
    Write,
    together,
)
from trikv.messages import encode_entry
from trikv.parcel import Encoded
from trikv.quorum import Voters
from trikv.version import Entry, Epoch, Version

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
        return [list(one.timestamps_us) for _, one in together(made, apart=apart)]

    assert parts() == []
    assert parts((1, 1, THREE), (2, 1, THREE), (1, 1, THREE)) == [[1, 2, 3]]
    assert parts((1, 1, THREE), (2, 1, THREE), apart=True) == [[1], [2]]
    assert parts((1, 1, THREE), (1, 1, FOUR), (1, 1, FOUR), (1, 1, THREE)) == [[1], [2, 3], [4]]
    half, most = MAX_TOGETHER_RECORDS // 2, MAX_TOGETHER_RECORDS
    assert parts((half, 1, THREE), (half, 1, THREE), (1, 1, THREE)) == [[1, 2], [3]]
    assert parts((1, 1, THREE), (most, 1, THREE), (1, 1, THREE)) == [[1], [2], [3]]
    assert parts((1, MAX_TOGETHER_BYTES, THREE), (1, 1, THREE)) == [[1], [2]]


@given(st.lists(st.tuples(st.integers(1, 700), st.sampled_from([THREE, FOUR])), max_size=12))
def test_nothing_is_lost_or_changes_its_place(sizes: list[tuple[int, Voters]]) -> None:
    async def look() -> None:
        made = group(*((records, 1, voters) for records, voters in sizes))
        parts = list(together(made, apart=False))
        assert [write for writes, _ in parts for write in writes] == [write for write, _ in made]
        assert ",".join(one.text for _, one in parts) == ",".join(one.text for _, one in made)
        for writes, one in parts:
            assert one.records <= MAX_TOGETHER_RECORDS
            assert one.size == len(one.text)
            assert len(re.findall(r'"k\d', one.text)) == one.records
            assert len(one.timestamps_us) == len(writes)
            assert len({write.voters for write in writes}) == 1

    trio.run(look)


async def test_one_count_confirms_all_of_a_delivery_each_with_its_own_times(
    autojump_clock: MockClock,
) -> None:
    first = Write((THREE,))
    await trio.sleep(0.01)
    second = Write((THREE,))
    assert (first.out, first.acks, first.trace.followers) == (0, 0, [])
    legs = [Leg(f"http://{name}", name, 0.0) for name in "abc"]
    delivery = Delivery([first, second], legs)
    delivery.out = 3
    await trio.sleep(0.02)
    delivery.told(legs[2], "c", True)
    assert not first.decided.is_set()
    assert first.acks == second.acks == 1
    await trio.sleep(0.03)
    delivery.told(legs[0], "a", True)
    for write, began_ms in ((first, 0), (second, 10)):
        assert write.decided.is_set()
        assert write.confirmed_by == 2
        assert write.out == 1
        assert write.quorum_ms == pytest.approx(60 - began_ms)
        acks_ms = [step.ack_ms for step in write.trace.followers]
        assert acks_ms == [pytest.approx(60 - began_ms), None, pytest.approx(30 - began_ms)]
    await trio.sleep(1)
    delivery.told(legs[1], "b", True)
    assert (first.confirmed_by, first.acks) == (2, 3)  # what came late changes no outcome
    assert first.quorum_ms == pytest.approx(60)


async def test_a_delivery_that_cannot_reach_its_quorum_decides_its_writes_at_once() -> None:
    writes = [Write((THREE,)), Write((THREE,))]
    legs = [Leg(f"http://{name}", name, 0.0) for name in "ab"]
    delivery = Delivery(writes, legs)
    delivery.out = 2
    for leg, counts in zip(legs, (True, False), strict=True):
        delivery.told(leg, leg.node_id, counts)
    assert all(write.decided.is_set() for write in writes)
    assert [write.confirmed_by for write in writes] == [None, None]
    with pytest.raises(ValueError, match="'d' is not among the followers"):
        delivery.told(legs[0], "d", True)


def test_what_is_joined_reads_like_its_parts() -> None:
    pairs = [("a", "1"), ("b", ""), ("c", "2")]
    entries = [Entry(Version(Epoch(1, "x"), i), pairs[i:]) for i in range(3)]
    joined = Encoded.joined([Encoded.of(entries[:2], 0, 1), Encoded.of(entries[2:], 2)])
    assert joined.text == ",".join(map(encode_entry, entries))
    assert (joined.records, list(joined.timestamps_us)) == (6, [0, 1, 2])
    alone = Encoded.of(entries, 0)
    assert Encoded.joined([alone]) is alone
