"""One patience for many waits: events that are set at the latest after a time that is the same for all.

A deadline of its own for each wait (`trio.move_on_after`) costs more than most waits do. Here one task
looks at them in their order, which is the order in which they run out.
"""

from __future__ import annotations

from collections import deque

import trio


class Patience:
    """`run` must run, or nothing runs out."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._waits: deque[tuple[float, trio.Event]] = deque()
        self._wake = trio.Event()

    def limit(self, event: trio.Event) -> None:
        """Set this event in `timeout_s`, unless it is set by then."""
        while self._waits and self._waits[0][1].is_set():
            self._waits.popleft()
        if not self._waits:
            self._wake.set()
        self._waits.append((trio.current_time() + self._timeout_s, event))

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            while not self._waits:
                self._wake = trio.Event()
                await self._wake.wait()
            due, event = self._waits[0]
            await trio.sleep_until(due)
            if self._waits and self._waits[0] == (due, event):
                self._waits.popleft()
                event.set()
