"""A program at a terminal that a test holds: a pseudo-terminal, its keys, and what it was left like.

Between the test and the program stands a process that plays the shell: it owns the terminal, so that
Ctrl-C comes as a signal, and outlives the program, so that what the program left behind can be seen.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

#: Says the program's process id and then its exit code, on a pipe; then stays.
SHELL = """
import fcntl, os, signal, subprocess, sys, termios, time
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
for name in ("SIGINT", "SIGQUIT", "SIGTSTP", "SIGHUP"):
    signal.signal(getattr(signal, name), lambda *_: None)
program = subprocess.Popen(sys.argv[2:])
os.write(int(sys.argv[1]), f"{program.pid}\\n".encode())
os.write(int(sys.argv[1]), f"{program.wait()}\\n".encode())
time.sleep(600)
"""


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
        self.keyboard, tty = pty.openpty()
        fcntl.ioctl(tty, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = self.mode()
        self.shown = ""
        told, tells = os.pipe()
        self._shell = subprocess.Popen(
            [sys.executable, "-c", SHELL, str(tells), *command],
            stdin=tty,
            stdout=tty,
            stderr=tty,
            pass_fds=[tells],
            env={**os.environ, "TERM": "xterm", **(environment or {})},
            start_new_session=True,
        )
        os.close(tty)
        os.close(tells)
        self._told = os.fdopen(told)
        self.pid = int(self._told.readline())
        self._code: int | None = None
        self._is_closed = False

    def mode(self) -> list[Any]:
        return termios.tcgetattr(self.keyboard)

    def press(self, keys: str) -> None:
        os.write(self.keyboard, keys.encode())

    def close(self) -> None:
        """The window is closed, or the line is cut: nothing can be seen any more."""
        os.close(self.keyboard)
        self._is_closed = True

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    @property
    def has_ended(self) -> bool:
        if self._code is None and select.select([self._told], [], [], 0)[0]:
            self._code = int(self._told.readline())
        return self._code is not None

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
            came += (more := self.read(0.1))
            if time.monotonic() > deadline or (self.has_ended and not more):
                raise TimeoutError(f"{text!r} was not shown; the end of it: {self.shown[-3000:]}")
        return came

    def end(self, timeout_s: float = 60) -> int:
        """Until it ends by itself; its exit code."""
        deadline = time.monotonic() + timeout_s
        while not self.has_ended:
            if time.monotonic() > deadline:
                raise TimeoutError(f"it does not end; the end of it: {self.shown[-3000:]}")
            self.read(0.1)
        while self.read(0.1):
            pass
        assert self._code is not None
        return self._code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.has_ended:
            self.send_signal(signal.SIGKILL)
        self._shell.kill()
        self._shell.wait(10)
        self._told.close()
        if not self._is_closed:
            self.close()
