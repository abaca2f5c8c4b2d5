"""A watermark never claims a write that the follower has not got, and claims all that it has."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trikv.watermark import Issued, Outstanding


class WatermarkIsTrue(RuleBasedStateMachine):
    """Writes are issued, resolved and acknowledged in any order; beside them plain sets."""

    def __init__(self) -> None:
        super().__init__()
        self.issued = Issued(10)
        self.outstanding = Outstanding()
        self.all: list[int] = []
        self.unresolved: set[int] = set()
        self.unacknowledged: set[int] = set()
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
        one = data.draw(st.sampled_from(sorted(self.unresolved)))
        if sent:
            self.outstanding.add(one)
            self.unacknowledged.add(one)
        self.issued.resolve(one)
        self.unresolved.remove(one)

    @precondition(lambda self: self.unacknowledged)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(sorted(self.unacknowledged)))
        self.outstanding.settle(one)
        self.unacknowledged.remove(one)

    @rule(back=st.integers(0, 10))
    def settle_up_to(self, back: int) -> None:
        bound = self.now - back
        self.outstanding.settle_up_to(bound)
        self.unacknowledged = {one for one in self.unacknowledged if one > bound}

    @rule()
    def clear(self) -> None:
        self.outstanding.clear()
        self.unacknowledged.clear()

    @invariant()
    def exact(self) -> None:
        resolved_us = self.issued.resolved_us
        missing = self.unresolved | self.unacknowledged
        assert not any(one <= resolved_us for one in self.unresolved)
        watermark_us = self.outstanding.watermark_us(resolved_us)
        assert not any(one <= watermark_us for one in missing)
        # And it lags behind nothing: all writes before the first that is missing are claimed.
        first = min(missing, default=None)
        claimed = [one for one in self.all if first is None or one < first]
        assert all(one <= watermark_us for one in claimed)
        assert len(self.outstanding) == len(self.unacknowledged)


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
