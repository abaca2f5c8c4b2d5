"""How much of something there was per second, of late: for who looks now and then, not for counting.

It remembers what was noted within its window, and no more. What only grows is counted by `tally`.
"""

from __future__ import annotations

from collections import deque

#: A rate that is shown is the mean of so many seconds.
RATE_WINDOW_S = 5.0


class Rate:
    def __init__(self) -> None:
        self._noted: deque[tuple[float, int]] = deque()  # when, how much

    def note(self, now: float, count: int) -> None:
        """So much more; `now` never falls. In seconds."""
        self._noted.append((now, count))
        self._forget(now)

    def per_s(self, now: float) -> float:
        self._forget(now)
        return sum(count for _, count in self._noted) / RATE_WINDOW_S

    def _forget(self, now: float) -> None:
        while self._noted and self._noted[0][0] < now - RATE_WINDOW_S:
            self._noted.popleft()
