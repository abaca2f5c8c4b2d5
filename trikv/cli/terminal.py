"""The terminal as an instrument: single keys, a screen of its own, and all of it given back.

Rules
- However the block is left, the terminal is as it was found: its line mode, its cursor, and what stood
  on it before.
- Ctrl-C stays a signal, and comes to whoever heeds those. Ctrl-Z and Ctrl-\\ do nothing: they would
  leave the screen as it is.

What differs between systems (termios here, msvcrt there) is in this module alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

import trio

_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[?25h\x1b[?1049l"

#: What terminals send for keys that are no character; of both modes that they may be in.
_SEQUENCES = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\t": "down",
    "\x1b[Z": "up",
    "\r": "enter",
    "\n": "enter",
}

#: The keyboard's end: the terminal is gone.
HUNG_UP = "hung up"

_POLL_S = 0.05


def can_show() -> bool:
    """Whether there is a terminal at both ends: one to draw on, and one to press keys at."""
    try:
        return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    except (ValueError, AttributeError):  # closed, or none at all
        return False


def keys_in(text: str) -> Iterator[str]:
    """The keys in what a terminal has sent: characters, and names such as `up`."""
    while text:
        name = next((name for name in _SEQUENCES if text.startswith(name)), None)
        if name is not None:
            yield _SEQUENCES[name]
            text = text[len(name) :]
        elif text[0] == "\x1b" and len(text) > 1 and text[1] in "[O":
            end = next((i for i, c in enumerate(text[2:], 2) if "@" <= c <= "~"), len(text) - 1)
            text = text[end + 1 :]  # a key that nothing is done with
        else:
            if text[0].isprintable():
                yield text[0]
            text = text[1:]


def draw(lines: list[str]) -> None:
    """Show these lines and nothing else."""
    frame = "\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in lines[:-1])
    _write(frame + (lines[-1] if lines else "") + "\x1b[K\x1b[J")


def _write(text: str) -> None:
    # A terminal that is gone is told by its keys, or by a signal.
    with suppress(OSError, ValueError):
        sys.stdout.write(text)
        sys.stdout.flush()


if sys.platform == "win32":
    import ctypes
    import msvcrt

    @contextmanager
    def taken() -> Iterator[None]:
        """Keys one by one, and a screen of its own, inside."""
        kernel = ctypes.windll.kernel32
        handle, mode = kernel.GetStdHandle(-11), ctypes.c_ulong()
        kernel.GetConsoleMode(handle, ctypes.byref(mode))
        kernel.SetConsoleMode(handle, mode.value | 4)  # obey control sequences
        _write(_ENTER)
        try:
            yield
        finally:
            _write(_LEAVE)
            kernel.SetConsoleMode(handle, mode.value)

    async def pressed() -> AsyncIterator[str]:
        """Keys as they are pressed."""
        arrows = {"H": "up", "P": "down"}
        while True:
            while msvcrt.kbhit():
                key = msvcrt.getwch()
                if key in "\x00\xe0":
                    name = arrows.get(msvcrt.getwch())
                    if name is not None:
                        yield name
                else:
                    for name in keys_in(key):
                        yield name
            await trio.sleep(_POLL_S)

else:
    import termios
    import tty

    @contextmanager
    def taken() -> Iterator[None]:
        """Keys one by one, and a screen of its own, inside."""
        keyboard = sys.stdin.fileno()
        before = termios.tcgetattr(keyboard)
        try:
            tty.setcbreak(keyboard, termios.TCSANOW)
            quiet = termios.tcgetattr(keyboard)
            for name in ("VSUSP", "VQUIT"):
                quiet[6][getattr(termios, name)] = b"\0"
            termios.tcsetattr(keyboard, termios.TCSANOW, quiet)
            _write(_ENTER)
            yield
        finally:
            _write(_LEAVE)
            with suppress(termios.error):
                termios.tcsetattr(keyboard, termios.TCSANOW, before)

    async def pressed() -> AsyncIterator[str]:
        """Keys as they are pressed; `HUNG_UP` at their end."""
        keyboard = sys.stdin.fileno()
        while True:
            try:
                await trio.lowlevel.wait_readable(keyboard)
                data = os.read(keyboard, 1024)
            except OSError:
                data = b""
            if not data:
                yield HUNG_UP
                return
            for key in keys_in(data.decode("utf-8", "replace")):
                yield key
