"""A watermark never claims a write that the follower has not got, and claims all that it has."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trikv.model.progress import Issued, Outstanding


class WatermarkIsTrue(RuleBasedStateMachine):
    """Writes are issued, resolved and acknowledged in any order; beside them plain sets."""

    def __init__(self) -> None:
        super().__init__()
        self.issued = Issued(10)
        self.outstanding = Outstanding()
        self.all: list[int] = []
        self.unresolved: set[int] = set()
        self.on_their_way: dict[int, list[int]] = {}
        self.now = 10

    @rule(step=st.integers(1, 5))
    def issue(self, step: int) -> None:
        self.now += step
        self.issued.issue(self.now)
        self.all.append(self.now)
        self.unresolved.add(self.now)

    @precondition(lambda self: self.unresolved)
    @rule(data=st.data(), sent=st.booleans())
    def resolve(self, data: st.DataObject, sent: bool) -> None:
        """One write, wherever it is, or some that follow each other and travel together."""
        waiting = sorted(self.unresolved)
        begin = data.draw(st.integers(0, len(waiting) - 1))
        some = waiting[begin : begin + data.draw(st.integers(1, 3))]
        if sent:
            self.outstanding.add(some[0], some[-1])
            self.on_their_way[some[0]] = some
        for one in some:
            self.issued.resolve(one)
            self.unresolved.remove(one)

    @precondition(lambda self: self.on_their_way)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        first = data.draw(st.sampled_from(sorted(self.on_their_way)))
        self.outstanding.settle(first)
        del self.on_their_way[first]

    @rule(back=st.integers(0, 10))
    def settle_up_to(self, back: int) -> None:
        bound = self.now - back
        self.outstanding.settle_up_to(bound)
        for first in sorted(self.on_their_way):
            if self.on_their_way[first][-1] > bound:
                break
            del self.on_their_way[first]

    @rule()
    def clear(self) -> None:
        self.outstanding.clear()
        self.on_their_way.clear()

    @invariant()
    def exact(self) -> None:
        resolved_us = self.issued.resolved_us
        missing = self.unresolved | {one for some in self.on_their_way.values() for one in some}
        assert not any(one <= resolved_us for one in self.unresolved)
        watermark_us = self.outstanding.watermark_us(resolved_us)
        assert not any(one <= watermark_us for one in missing)
        # And it lags behind nothing: all writes before the first that is missing are claimed.
        first = min(missing, default=None)
        claimed = [one for one in self.all if first is None or one < first]
        assert all(one <= watermark_us for one in claimed)
        assert len(self.outstanding) == len(self.on_their_way)


TestWatermarkIsTrue = WatermarkIsTrue.TestCase


def test_what_was_issued_before_is_resolved() -> None:
    assert Issued(7).resolved_us == 7


@pytest.mark.parametrize("late", [5, 7])
def test_timestamps_that_do_not_increase_are_a_bug(late: int) -> None:
    issued = Issued(5)
    if late == 7:
        issued.issue(7)
    with pytest.raises(AssertionError):
        issued.issue(late)
