"""Standard error, written by a thread: whoever logs never waits for whoever reads.

Rules
- Lines wait in a queue of so many bytes at most. One that finds it full is lost, and counted.
- What was lost is said in a line of its own as soon as there is room again, before what comes next.
- The lines come out whole, and in order.
- At the end of the process what waits is still written, within a deadline.

The thread writes to the file descriptor, not to `sys.stderr`: at its end the interpreter wants the lock
of that, and would not get it from a thread that waits for a pipe that nobody empties.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

#: Lines that wait to be written: some thousand. A reader that is so far behind reads no more.
MAX_QUEUED_BYTES = 2**20

#: How long the end of a process waits for its last lines to be taken.
FLUSH_S = 1.0

#: A descriptor that is full and does not block is tried again after so long at most.
RETRY_S = 0.1

_STDERR = 2


def _write_all(data: bytes) -> None:
    """Write to standard error, however long that takes. Raises OSError."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(_STDERR, rest) :]
        except BlockingIOError:
            select.select([], [_STDERR], [], RETRY_S)


class LineWriter:
    """Writes lines in a thread of its own, which dies with the process.

    `write` may wait, and raise OSError: then its line is lost. `say_lost` makes the line that tells how
    many lines were.
    """

    def __init__(
        self, say_lost: Callable[[int], str], write: Callable[[bytes], None] = _write_all
    ) -> None:
        self.lost = 0
        """Lines that nobody will read."""
        self._say_lost = say_lost
        self._write = write
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._unsaid = 0  # lost, and not told yet
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="stderr", daemon=True).start()

    def put(self, line: str) -> None:
        """Have a line written. Returns at once."""
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        with self._changed:
            if self._queued_bytes + len(data) > MAX_QUEUED_BYTES:
                self._lose()
                return
            self._tell_lost()
            self._append(data)

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until all is written, but no longer; whether it is."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._queued_bytes > 0:
                if (left_s := deadline - time.monotonic()) <= 0:
                    return False
                self._changed.wait(left_s)
        return True

    def _append(self, data: bytes) -> None:
        self._queue.append(data)
        self._queued_bytes += len(data)
        self._changed.notify_all()

    def _lose(self) -> None:
        self.lost += 1
        self._unsaid += 1

    def _tell_lost(self) -> None:
        if self._unsaid:
            count, self._unsaid = self._unsaid, 0
            self._append(f"{self._say_lost(count)}\n".encode())

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.wait()
                data = self._queue.popleft()
            try:
                self._write(data)
                failed = False
            except OSError:  # nobody reads any more
                failed = True
            with self._changed:
                if failed:
                    self._lose()
                elif not self._queue:
                    self._tell_lost()
                self._queued_bytes -= len(data)
                self._changed.notify_all()
