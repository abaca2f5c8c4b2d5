"""Ctrl-C and SIGTERM end the work, and never its cleanup, nor the moment between starting a process
and writing down that it was started.

`heeded` makes both signals raise Stopped. Within `held` they wait until its block is left.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from benchmarks.errors import Stopped

_held = 0
_waiting: list[int] = []


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _held:
        _waiting.append(number)
    else:
        raise Stopped(number)


@contextmanager
def heeded() -> Iterator[None]:
    """Within: the first signal raises Stopped, in the main thread."""
    before = {number: signal.signal(number, _on_signal) for number in _signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signals() -> list[signal.Signals]:
    found = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # which is how nohup asks to go on
        found.append(signal.SIGHUP)
    return found


@contextmanager
def held() -> Iterator[None]:
    """Within: signals wait."""
    global _held
    _held += 1
    try:
        yield
    finally:
        _held -= 1
    if _waiting and not _held:
        number = _waiting[0]
        _waiting.clear()
        raise Stopped(number)
