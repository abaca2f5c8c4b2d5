"""How far a follower is: what is on its way to it, and the watermark that follows from it.

The watermark of a follower is a version V such that *of every write that this epoch's leader has issued
up to V, the follower holds its record or a newer one of its key*. It is not enough that it holds what
the leader's map shows up to V: a key that was overwritten meanwhile has moved to a higher version, and
the follower may have neither.

Rules
- `Issued`, one for a leader: a write is *resolved* once it is committed and handed to every link that
  takes records, or has failed. `resolved_us` is the greatest timestamp up to which every write is.
- `Outstanding`, one for a link: the writes that it has taken and the follower has not acknowledged. What
  travels together is one entry, as it arrives together.
- watermark = `resolved_us`, or the moment before the first outstanding write if that is less. What the
  link did not take, because it was not up, its follower gets from the map before it counts as live.

Timestamps (microseconds) stand for versions: all writes here are of one epoch. Pure.
"""

from __future__ import annotations

import heapq
from collections import deque


class Issued:
    """The writes of one leadership, in the order in which they were issued."""

    def __init__(self, resolved_us: int = 0) -> None:
        """`resolved_us`: what was issued before is in the map."""
        self.resolved_us = resolved_us
        self._open: deque[int] = deque()
        self._resolved: set[int] = set()

    def issue(self, timestamp_us: int) -> None:
        """A write has been issued. Raises AssertionError unless timestamps increase."""
        last_us = self._open[-1] if self._open else self.resolved_us
        if timestamp_us <= last_us:
            raise AssertionError(f"{timestamp_us} was issued after {last_us}")
        self._open.append(timestamp_us)

    def resolve(self, timestamp_us: int) -> None:
        """It is committed and handed to the links, or has failed."""
        self._resolved.add(timestamp_us)
        while self._open and self._open[0] in self._resolved:
            self.resolved_us = self._open.popleft()
            self._resolved.remove(self.resolved_us)


class Outstanding:
    """The writes on their way to one follower. They may come and be settled in any order."""

    def __init__(self) -> None:
        self._unsettled: dict[int, int] = {}  # the first and the last of what travels together
        self._heap: list[int] = []  # settled ones are dropped from it once they come first

    def __len__(self) -> int:
        return len(self._unsettled)

    def add(self, first_us: int, last_us: int) -> None:
        """Writes from one to the other are on their way together."""
        self._unsettled[first_us] = last_us
        heapq.heappush(self._heap, first_us)

    def settle(self, first_us: int) -> None:
        """The follower has what begins with this one."""
        self._unsettled.pop(first_us, None)

    def settle_up_to(self, timestamp_us: int) -> None:
        """The follower has all of them up to this one. What ends beyond it stays, and all after that."""
        while (first := self._first()) is not None and self._unsettled[first] <= timestamp_us:
            del self._unsettled[first]

    def clear(self) -> None:
        """Nothing is on its way any more."""
        self._unsettled.clear()
        self._heap.clear()

    def watermark_us(self, resolved_us: int) -> int:
        """How far the follower is, if all that it was not sent is up to `resolved_us` with it."""
        first = self._first()
        return resolved_us if first is None else min(resolved_us, first - 1)

    def _first(self) -> int | None:
        while self._heap and self._heap[0] not in self._unsettled:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None
