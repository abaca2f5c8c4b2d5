"""Commands run in this process, on simulated time, against nodes that say what a test wants.

`Console` is what a test calls instead of a shell: the arguments go in, the exit code and both streams
come out. Standard output is a pipe unless the test wants a terminal of so many columns.
"""

from __future__ import annotations

import functools
import io
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trio.testing

from tests.unit.client.wires import A, Answers, Asked, AsyncWire, Wire
from trikv.cli import options
from trikv.cli.main import main
from trikv.client.admin import AdminClient

URLS = ("--url", A)


class Stream(io.TextIOWrapper):
    """One of a process's streams, kept in memory."""

    def __init__(self, *, terminal: bool = False, encoding: str = "utf-8") -> None:
        self.kept = io.BytesIO()
        super().__init__(self.kept, encoding=encoding, newline="\n")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def text(self) -> str:
        self.flush()
        return self.kept.getvalue().decode(self.encoding)


@dataclass(frozen=True)
class Ended:
    """What a command has come to."""

    code: int
    out: str
    err: str
    seen: list[Asked]

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def documents(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        """The one JSON document on standard error."""
        (line,) = self.err.splitlines()
        return json.loads(line)["error"]


@dataclass
class Console:
    patch: pytest.MonkeyPatch
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(
        self,
        *arguments: str,
        answers: Answers | None = None,
        columns: int | None = None,
        stdin: bytes = b"",
        encoding: str = "utf-8",
        watched: bool = False,
    ) -> Ended:
        """`columns`: standard output is a terminal so wide. `watched`: standard error is one, too."""
        wire = Wire(answers or _nobody)
        out = Stream(terminal=columns is not None, encoding=encoding)
        err = Stream(terminal=watched, encoding=encoding)
        with self.patch.context() as patch:
            for name in ("NO_COLOR", "TERM", "TRIKV_URLS", "COLUMNS", "LINES", "_TRIKV_COMPLETE"):
                patch.delenv(name, raising=False)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            if columns is not None:
                patch.setenv("COLUMNS", str(columns))
            patch.setattr("sys.stdout", out)
            patch.setattr("sys.stderr", err)
            patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            patch.setattr(
                options, "AdminClient", functools.partial(AdminClient, transport=AsyncWire(wire))
            )
            patch.setattr(trio, "run", _run_on_simulated_time)
            code = main(arguments)
        return Ended(int(code), out.text, err.text, wire.seen)


_trio_run = trio.run


def _run_on_simulated_time(function: Any, *arguments: Any) -> Any:
    clock = trio.testing.MockClock(autojump_threshold=0)
    return _trio_run(function, *arguments, clock=clock)


def _nobody(asked: Asked) -> Exception:
    raise AssertionError(f"nobody was to be asked: {asked}")
