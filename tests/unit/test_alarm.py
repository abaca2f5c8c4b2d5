"""What is to be done later is done in its time, in its order, by one timer that can be set again."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trikv import alarm
from trikv.alarm import Alarms, KernelTimer, Timer, best_timer

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="timers that are descriptors are Linux's"
)


class Made:
    """What calls were made, and when."""

    def __init__(self) -> None:
        self.began = trio.current_time()
        self.calls: list[tuple[str, float]] = []

    def call(self, name: str) -> Callable[[], None]:
        return partial(self._note, name)

    def _note(self, name: str) -> None:
        self.calls.append((name, trio.current_time() - self.began))


async def test_calls_are_made_when_they_are_due(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    made, alarms = Made(), Alarms(Timer())
    alarms.after(3, made.call("before it runs"))
    nursery.start_soon(alarms.run)
    await trio.sleep(1)
    alarms.after(1, made.call("before what came first"))
    alarms.after(9, made.call("last"))
    await trio.sleep(60)
    assert made.calls == [("before what came first", 2), ("before it runs", 3), ("last", 10)]
    alarms.after(0.5, made.call("after a rest"))
    await trio.sleep(60)
    assert made.calls[3:] == [("after a rest", 61.5)]
    nursery.cancel_scope.cancel()


async def test_calls_that_are_due_together_are_made_in_the_order_in_which_they_came(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    made, alarms = Made(), Alarms(Timer())
    nursery.start_soon(alarms.run)
    names = [f"{number}" for number in range(50)]
    for name in names:
        alarms.after(2, made.call(name))
    await trio.sleep(60)
    assert made.calls == [(name, 2) for name in names]
    nursery.cancel_scope.cancel()


async def test_a_call_may_ask_for_another(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    made, alarms = Made(), Alarms(Timer())
    nursery.start_soon(alarms.run)
    alarms.after(1, lambda: alarms.after(0, made.call("at once")))
    alarms.after(2, lambda: alarms.after(5, made.call("later")))
    await trio.sleep(60)
    assert made.calls == [("at once", 1), ("later", 7)]
    nursery.cancel_scope.cancel()


async def test_nothing_is_done_while_nothing_is_due(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = 0
    wait = Timer.wait

    async def counted(timer: Timer) -> None:
        nonlocal waits
        waits += 1
        await wait(timer)

    monkeypatch.setattr(Timer, "wait", counted)
    made, alarms = Made(), Alarms(Timer())
    nursery.start_soon(alarms.run)
    await trio.sleep(3600)
    alarms.after(1, made.call("one"))
    await trio.sleep(3600)
    assert len(made.calls) == 1
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
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Alarms(timer).run)
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
        patched.setattr(alarm, "_timerfd_create", lambda: alarm._checked(-1))
        assert type(best_timer()) is Timer
    with monkeypatch.context() as patched:
        patched.setattr(sys, "platform", "darwin")
        assert type(best_timer()) is Timer
    with pytest.raises(OSError, match="Bad file descriptor"):
        alarm._timerfd_settime(-1, 1.0)
