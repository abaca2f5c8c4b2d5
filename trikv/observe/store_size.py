"""What takes a look at the disk or at the clock to know: how large the store is, how late tasks run.

Rules
- Who asks for the store's size never waits for the disk, but a moment: a disk that hangs must not make
  silent what would tell of it. A task of its own looks, when somebody has asked; what it found last is
  what is told, with its age.
- To count the records an index is read from end to end. That is done so seldom that it takes a
  thousandth of the time, however many there are, and in the way that scans are run.
- How late tasks come to their turn is told by one that does nothing but sleep and look at the clock.

What it does not know: who asks, HTTP.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from contextlib import suppress

import trio

from trikv.counters import DELAY_S, Histogram
from trikv.errors import StorageFailed
from trikv.storage.database import log_of
from trikv.storage.group_commit import RunBlocking
from trikv.storage.store import Store

#: Who asks waits at most so long for an answer that is fresh.
FRESH_S = 0.2

#: Records are counted again after so many times what it took.
COUNT_PAUSE = 1_000

#: How often the event loop's delay is measured.
DELAY_EVERY_S = 0.25

#: The largest delay is that of the last one to two windows of so many seconds.
DELAY_WINDOW_S = 30.0


class Survey:
    """How large a store is, as far as is known."""

    def __init__(
        self,
        store: Store,
        scan: RunBlocking,
        run_blocking: RunBlocking,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.records: int | None = None
        """Tombstones included; None: not counted yet."""
        self.tombstones = 0
        self.file_bytes: dict[str, int] = {}
        """The database and its write-ahead log; empty for a store in memory."""
        self.free_bytes: int | None = None
        """What is free on its disk."""
        self._store = store
        self._scan = scan
        self._run_blocking = run_blocking
        self._clock_s = clock_s
        self._counted_s = 0.0
        self._count_again_s = -math.inf
        self._asked = trio.Event()
        self._looked = trio.Event()

    @property
    def count_age_s(self) -> float:
        """How long ago the records were counted."""
        return self._clock_s() - self._counted_s

    async def ask(self) -> None:
        """Have it looked at, and wait a moment for that."""
        looked = self._looked
        self._asked.set()
        with trio.move_on_after(FRESH_S):
            await looked.wait()

    async def run(self) -> None:
        """Look when somebody asks. Runs until it is cancelled."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            with suppress(StorageFailed, OSError):  # what is known stays, and grows old
                if self._clock_s() >= self._count_again_s:
                    await self._scan(self._count)
                await self._run_blocking(self._measure)
            looked, self._looked = self._looked, trio.Event()
            looked.set()

    def _count(self) -> None:
        """Raises StorageFailed."""
        began_s = self._clock_s()
        self.records, self.tombstones = self._store.count()
        self._counted_s = self._clock_s()
        self._count_again_s = self._counted_s + COUNT_PAUSE * (self._counted_s - began_s)

    def _measure(self) -> None:
        """Raises OSError."""
        path = self._store.database.path
        if path is not None:
            names = {"database": path, "wal": log_of(path)}
            self.file_bytes = {name: file.stat().st_size for name, file in names.items()}
            self.free_bytes = shutil.disk_usage(path.parent).free


class LoopDelay:
    """How much later than it asked for a task comes to its turn."""

    def __init__(self) -> None:
        self.delays_s = Histogram(DELAY_S)
        self._largest_s = self._before_s = 0.0
        self._window_ends = -math.inf

    @property
    def largest_s(self) -> float:
        """The largest of late."""
        return max(self._largest_s, self._before_s)

    def note(self, now: float, delay_s: float) -> None:
        self.delays_s.observe(delay_s)
        if now >= self._window_ends:
            self._before_s, self._largest_s = self._largest_s, 0.0
            self._window_ends = now + DELAY_WINDOW_S
        self._largest_s = max(self._largest_s, delay_s)

    async def run(self) -> None:
        """Measure. Runs until it is cancelled."""
        while True:
            due = trio.current_time() + DELAY_EVERY_S
            await trio.sleep_until(due)
            now = trio.current_time()
            self.note(now, max(now - due, 0.0))
