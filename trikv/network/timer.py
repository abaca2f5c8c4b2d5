"""The timer that simulated lag is waited out with: one for all sleeps, more exact than trio's own.

The sleeps lie in a heap; one task waits until the earliest is over, and a new one may move its timer.

Trio's own timers are epoll's on Linux, which counts in whole milliseconds and rounds up: a sleep ends
up to a millisecond late, half of one in the mean, and lag is drawn to a fraction of that. A timer of the
kernel's that is waited for as a file descriptor (timerfd_create(2)) is exact. Where there is none, and
in simulated time, it is trio's.
"""

from __future__ import annotations

import ctypes
import heapq
import math
import os
import sys
import time
from contextlib import suppress
from functools import cache
from itertools import count

import trio


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


# From Python 3.13 on both are in `os`.


def _timerfd_create() -> int:
    """Raises OSError."""
    if sys.platform != "linux":
        raise OSError("timers that are file descriptors are Linux's")
    return _checked(_libc().timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))


def _timerfd_settime(fd: int, delay_s: float) -> None:
    """Have it go off once, after so long; never after infinity. Raises OSError."""
    spec = _Itimerspec()
    if delay_s < math.inf:
        nanoseconds = max(int(delay_s * 1e9), 1)  # 0 would be never
        spec.value = _Timespec(*divmod(nanoseconds, 1_000_000_000))
    _checked(_libc().timerfd_settime(fd, 0, ctypes.byref(spec), None))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class Timer:
    """Wakes one task at a time of trio's clock, which may be changed while it waits."""

    def __init__(self) -> None:
        self._due = math.inf
        self._scope = trio.CancelScope()

    def set(self, due: float) -> None:
        """Wake it then."""
        self._due = self._scope.deadline = due

    async def wait(self) -> None:
        """Until it is due, or a little later."""
        self._scope = trio.CancelScope(deadline=self._due)
        with self._scope:
            await trio.sleep_forever()

    def close(self) -> None:
        """It is not needed any more."""


class KernelTimer(Timer):
    """The same, to a fraction of a millisecond, for real time on Linux."""

    def __init__(self) -> None:
        """Raises OSError where the system has no such timers, or no file descriptors left."""
        super().__init__()
        self._fd: int | None = _timerfd_create()

    def set(self, due: float) -> None:
        if self._fd is not None:
            _timerfd_settime(self._fd, max(due - trio.current_time(), 0.0))

    async def wait(self) -> None:
        assert self._fd is not None
        await trio.lowlevel.wait_readable(self._fd)
        with suppress(BlockingIOError):  # it was set again meanwhile
            os.read(self._fd, 8)  # how often it went off

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None


def best_timer() -> Timer:
    """A timer for real time, as exact as the system has one."""
    try:
        return KernelTimer()
    except OSError:
        return Timer()


class Sleeper:
    """Sleeps that are exact to a fraction of a millisecond. `run` must run, or none of them ends."""

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._sleeps: list[tuple[float, int, trio.Event]] = []  # a heap
        self._numbers = count()  # those that end together end in the order in which they began

    async def sleep(self, delay_s: float) -> None:
        """Wait until so long has passed."""
        due, over = trio.current_time() + delay_s, trio.Event()
        heapq.heappush(self._sleeps, (due, next(self._numbers), over))
        if self._sleeps[0][0] == due:
            self._timer.set(due)
        await over.wait()

    async def run(self) -> None:
        """End each sleep in its time. Runs until it is cancelled."""
        try:
            while True:
                while self._sleeps and self._sleeps[0][0] <= trio.current_time():
                    _, _, over = heapq.heappop(self._sleeps)
                    over.set()
                self._timer.set(self._sleeps[0][0] if self._sleeps else math.inf)
                await self._timer.wait()
        finally:
            self._timer.close()
