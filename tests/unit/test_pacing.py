"""Which links hurry: the quickest that make a quorum, and they change places for a reason only."""

from __future__ import annotations

from collections.abc import Collection, Set
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trikv.replication.pacing import IDLE_SHARE, MARGIN, Idle, hurried, mean, quorum_is_idle


@dataclass(frozen=True)
class Wire:
    name: str
    slowness_s: float
    idle: Idle = field(default_factory=Idle, compare=False)


def quickest(live: Collection[Wire], before: Collection[Wire], quorum: int) -> set[str]:
    def enough(names: Set[str]) -> bool:
        return len(names) >= quorum

    return {wire.name for wire in hurried(live, before, enough)}


def test_the_quickest_that_make_a_quorum_hurry() -> None:
    wires = [Wire("a", 3), Wire("b", 1), Wire("c", 5), Wire("d", 2), Wire("e", 4)]
    assert quickest(wires, [], 3) == {"a", "b", "d"}
    assert quickest(wires, [], 5) == {"a", "b", "c", "d", "e"}
    assert quickest(wires, [], 0) == set()


def test_all_hurry_where_they_are_not_enough() -> None:
    wires = [Wire("a", 3), Wire("b", 1)]
    assert quickest(wires, [], 3) == {"a", "b"}
    assert quickest([], wires, 3) == set()


def test_a_link_hurries_on_unless_another_is_much_quicker() -> None:
    before = Wire("a", 1.9)
    assert quickest([before, Wire("b", 1)], [before], 1) == {"a"}
    before = Wire("a", MARGIN + 0.1)
    assert quickest([before, Wire("b", 1)], [before], 1) == {"b"}


@given(
    st.lists(st.floats(0, 10), max_size=8).map(
        lambda all_s: [Wire(str(i), s) for i, s in enumerate(all_s)]
    ),
    st.integers(0, 5),
    st.data(),
)
def test_as_many_hurry_as_a_quorum_needs_and_the_choice_stands(
    wires: list[Wire], quorum: int, data: st.DataObject
) -> None:
    before = data.draw(st.sets(st.sampled_from(wires))) if wires else set()
    chosen = quickest(wires, before, quorum)
    assert len(chosen) == min(quorum, len(wires))
    again = [wire for wire in wires if wire.name in chosen]
    assert quickest(wires, again, quorum) == chosen


def test_how_slow_a_link_is_follows_its_requests() -> None:
    assert mean(0.0, 0.5) == 0.5  # the first
    slowness_s = 0.001
    slowness_s = mean(slowness_s, 0.1)
    assert slowness_s == pytest.approx(0.0109)  # slow once
    for _ in range(100):
        slowness_s = mean(slowness_s, 0.1)
    assert slowness_s == pytest.approx(0.1, rel=0.01)


def test_a_link_is_idle_for_the_share_of_the_time_in_which_a_writer_waits_and_it_has_nothing() -> (
    None
):
    idle = Idle()
    for tenth in range(200):  # busy for a third of the time
        idle.look(tenth / 10, tenth / 30)
    assert idle.share == pytest.approx(2 / 3, abs=0.01)


def test_a_link_that_stalls_leaves_the_others_idle_within_a_second() -> None:
    idle = Idle()
    shares = []
    for tenth in range(10):
        idle.look(tenth / 10, 5.0)
        shares.append(idle.share > IDLE_SHARE)
    assert shares == [False] * 7 + [True] * 3  # 0.7 s: ln 2 of the window


def test_time_in_which_nobody_waited_does_not_count() -> None:
    idle = Idle()
    for second in range(100):
        idle.look(second, 0.0)
    assert idle.share == 0


def test_a_quorum_is_idle_if_enough_links_are() -> None:
    wires = [Wire(name, 0) for name in "abcd"]
    for wire, share in zip(wires, [0.1, 0.4, 0.8, 0.9], strict=True):
        wire.idle.share = share

    def idle(quorum: int) -> bool:
        return quorum_is_idle(wires, lambda names: len(names) >= quorum)

    assert [idle(quorum) for quorum in range(6)] == [True, True, True, False, False, False]
    assert quorum_is_idle([], lambda names: True)  # quorum 0, and nobody live


def test_a_session_that_ended_with_a_request_in_flight_makes_no_link_idle() -> None:
    idle = Idle()
    for tenth in range(100):
        idle.look(tenth / 10, tenth / 10)
    idle.look(10.0, 2.0)  # what was in flight does not count any more
    assert 0 <= idle.share <= 0.1
