"""A program at a terminal that a test holds: a pseudo-terminal, its keys, and what it was left like."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self


class Terminal:
    """`command` at a terminal of so many columns and rows; killed, if it must be, with the block."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 80,
        rows: int = 24,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        # The test holds both ends: so it sees what the terminal is like after the program has left.
        self.keyboard, self._tty = pty.openpty()
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._tty, termios.TIOCSWINSZ, size)
        self.before = self.mode()
        self.shown = ""
        self.process = subprocess.Popen(
            command,
            stdin=self._tty,
            stdout=self._tty,
            stderr=self._tty,
            env={**os.environ, "TERM": "xterm", **(environment or {})},
            start_new_session=True,
        )

    def mode(self) -> list[Any]:
        return termios.tcgetattr(self._tty)

    def press(self, keys: str) -> None:
        os.write(self.keyboard, keys.encode())

    def read(self, timeout_s: float) -> str:
        """What comes next; "" if nothing does."""
        if not select.select([self.keyboard], [], [], timeout_s)[0]:
            return ""
        text = os.read(self.keyboard, 65536).decode("utf-8", "replace")
        self.shown += text
        return text

    def until(self, text: str, timeout_s: float = 60) -> str:
        """Until this is shown, from now on; all that came. Raises TimeoutError."""
        came, deadline = "", time.monotonic() + timeout_s
        while text not in came:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise TimeoutError(f"{text!r} was not shown; the end of it: {self.shown[-3000:]}")
            came += self.read(0.1)
        return came

    def end(self, timeout_s: float = 60) -> int:
        """Until it ends by itself; its exit code."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"it does not end; the end of it: {self.shown[-3000:]}")
            self.read(0.1)
        while self.read(0.1):
            pass
        return self.process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        for end in (self.keyboard, self._tty):
            os.close(end)
