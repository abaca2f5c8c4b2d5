"""Sleeps end in their time, in their order, by one timer that can be set again."""

from __future__ import annotations

import os
import sys

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trikv.network import timer as timers
from trikv.network.timer import KernelTimer, Sleeper, Timer, best_timer

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="timers that are descriptors are Linux's"
)


class Sleeps:
    """Which sleeps have ended, and when."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.ended: list[tuple[str, float]] = []
        self.sleeper = Sleeper(Timer())
        self._began = trio.current_time()
        self._nursery = nursery

    def begin(self, delay_s: float, name: str) -> None:
        self._nursery.start_soon(self._sleep, delay_s, name)

    async def _sleep(self, delay_s: float, name: str) -> None:
        await self.sleeper.sleep(delay_s)
        self.ended.append((name, trio.current_time() - self._began))


async def test_sleeps_end_when_they_are_due(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    sleeps = Sleeps(nursery)
    sleeps.begin(3, "before it runs")
    await wait_all_tasks_blocked()
    nursery.start_soon(sleeps.sleeper.run)
    await trio.sleep(1)
    sleeps.begin(1, "before what came first")
    sleeps.begin(9, "last")
    await trio.sleep(60)
    assert sleeps.ended == [("before what came first", 2), ("before it runs", 3), ("last", 10)]
    sleeps.begin(0.5, "after a rest")
    await trio.sleep(60)
    assert sleeps.ended[3:] == [("after a rest", 61.5)]
    nursery.cancel_scope.cancel()


async def test_sleeps_that_are_due_together_end_together(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    sleeps = Sleeps(nursery)
    nursery.start_soon(sleeps.sleeper.run)
    names = [f"{number:02}" for number in range(50)]
    for name in names:
        sleeps.begin(2, name)
    await trio.sleep(60)
    assert sorted(sleeps.ended) == [(name, 2) for name in names]
    nursery.cancel_scope.cancel()


async def test_a_sleep_that_is_cancelled_disturbs_no_other(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    sleeps = Sleeps(nursery)
    nursery.start_soon(sleeps.sleeper.run)
    sleeps.begin(5, "long")
    with trio.move_on_after(1) as scope:
        await sleeps.sleeper.sleep(3)
    assert scope.cancelled_caught
    await trio.sleep(60)
    assert sleeps.ended == [("long", 5)]
    nursery.cancel_scope.cancel()


async def test_nothing_is_done_while_nobody_sleeps(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = 0
    wait = Timer.wait

    async def counted(timer: Timer) -> None:
        nonlocal waits
        waits += 1
        await wait(timer)

    monkeypatch.setattr(Timer, "wait", counted)
    sleeps = Sleeps(nursery)
    nursery.start_soon(sleeps.sleeper.run)
    await trio.sleep(3600)
    sleeps.begin(1, "one")
    await trio.sleep(3600)
    assert len(sleeps.ended) == 1
    assert waits == 2
    nursery.cancel_scope.cancel()


@linux
def test_the_kernels_timer_goes_off_in_its_time_and_when_it_is_set_again() -> None:
    """In real time, but nobody sleeps: it is set to go off at once, or never."""

    async def main() -> None:
        timer = KernelTimer()
        try:
            now = trio.current_time()
            timer.set(now - 1)  # due already
            await timer.wait()
            timer.set(now + 3600)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(timer.wait)
                await wait_all_tasks_blocked()
                timer.set(trio.current_time() + 0.001)  # earlier, while somebody waits
            assert trio.current_time() >= now + 0.001
            timer.set(trio.current_time())
            timer.set(float("inf"))
            with trio.move_on_after(0.01) as scope:
                await timer.wait()
            assert scope.cancelled_caught
        finally:
            timer.close()

    trio.run(main)


@linux
async def test_a_kernels_timer_that_is_set_again_before_its_reader_has_its_turn_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def was_readable(_: int) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(trio.lowlevel, "wait_readable", was_readable)
    timer = KernelTimer()
    timer.set(trio.current_time() + 3600)
    await timer.wait()
    timer.close()


@linux
def test_the_kernels_timer_is_closed_with_what_it_was_for() -> None:
    async def main() -> int:
        timer = KernelTimer()
        fd = timer._fd
        assert fd is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Sleeper(timer).run)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        return fd

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(trio.run(main))


@linux
async def test_the_best_timer_is_the_kernels_or_else_trios(monkeypatch: pytest.MonkeyPatch) -> None:
    timer = best_timer()
    assert isinstance(timer, KernelTimer)
    timer.close()
    with monkeypatch.context() as patched:
        patched.setattr(timers, "_timerfd_create", lambda: timers._checked(-1))
        assert type(best_timer()) is Timer
    with monkeypatch.context() as patched:
        patched.setattr(sys, "platform", "darwin")
        assert type(best_timer()) is Timer
    with pytest.raises(OSError, match="Bad file descriptor"):
        timers._timerfd_settime(-1, 1.0)


@linux
async def test_a_kernels_timer_that_is_closed_is_not_set_any_more() -> None:
    """A delivery may still begin to sleep while its leadership is torn down."""
    timer = KernelTimer()
    timer.close()
    timer.set(trio.current_time() + 1)
    timer.close()
