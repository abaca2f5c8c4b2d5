"""Structured logs: one line an event, `TIME LEVEL event key=value …`, on standard error.

An event has a name (`link.down`) and fields; a value with spaces, quotes or characters that a terminal
would obey or not show is written as JSON, these escaped. INFO is for what an operator wants to know of a
quiet or a busy node alike: nothing is logged at INFO for each request or write. What is logged while a
request is worked on bears its id.

Nobody waits for a line to be written: see `stderr`.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Hashable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from trikv.stderr import LineWriter

logger = logging.getLogger("trikv")

#: The id of the request that is worked on; "" if none is.
request_id: ContextVar[str] = ContextVar("request_id", default="")

#: A trouble that goes on is logged again after so long.
REPEAT_S = 600.0

#: Different lines about one trouble that are remembered; with more it is logged as if it were new.
KEPT_LINES = 32

_PLAIN = re.compile(r"[^\s\"'=\\]+")


def event(level: int, name: str, **fields: Any) -> None:
    """Log one event."""
    if logger.isEnabledFor(level):
        logger.log(level, name, extra={"fields": fields})


def info(name: str, **fields: Any) -> None:
    event(logging.INFO, name, **fields)


def warning(name: str, **fields: Any) -> None:
    event(logging.WARNING, name, **fields)


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        parts = [f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z", record.levelname]
        fields: dict[str, Any] | None = getattr(record, "fields", None)
        if fields is None:  # a library's own line
            fields = {"logger": record.name, "message": record.getMessage()}
            parts.append("log")
        else:
            parts.append(record.getMessage())
        if of := request_id.get():
            fields = {**fields, "request_id": of}
        if record.exc_info:
            fields = {**fields, "exception": self.formatException(record.exc_info)}
        parts += [f"{name}={_text(value)}" for name, value in fields.items()]
        return " ".join(parts)


def _text(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if _PLAIN.fullmatch(text) and text.isprintable():
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    if quoted.isprintable():
        return quoted
    # The rest could end or hide a line, or turn its direction: C1, DEL, U+202E and the like.
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in quoted)


class Trouble:
    """What is logged of something that keeps failing: each line once, and again every ten minutes."""

    def __init__(self) -> None:
        self._logged_s: dict[Hashable, float] = {}

    @property
    def goes_on(self) -> bool:
        """Whether anything was logged of it."""
        return bool(self._logged_s)

    def is_news(self, *line: Hashable) -> bool:
        """Whether to log this line now; it counts as logged then."""
        now_s = time.monotonic()
        if now_s < self._logged_s.get(line, -REPEAT_S) + REPEAT_S:
            return False
        if len(self._logged_s) >= KEPT_LINES:
            self._logged_s.clear()
        self._logged_s[line] = now_s
        return True

    def over(self) -> None:
        """It works again: what fails next is another trouble."""
        self._logged_s.clear()


class _Handler(logging.Handler):
    """Formats a line where it is logged, and leaves it to the writer."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self.setFormatter(_Line())
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except (
            Exception
        ) as error:  # a library's line with the wrong arguments must not take us down
            line = f"log.failed error={_text(repr(error))}"
        self._writer.put(line)


def _say_lost(count: int) -> str:
    fields = {"fields": {"lines": count, "hint": "standard error was not read fast enough"}}
    record = logger.makeRecord(
        logger.name, logging.WARNING, "", 0, "log.lost", (), None, extra=fields
    )
    return _Line().format(record)


_writer: LineWriter | None = None


def set_up(level: str) -> None:
    """Send all log lines of this process, and Python's warnings, to standard error in this form."""
    global _writer
    if sys.__stderr__ is None:  # closed: its number may be that of another file by now
        handler: logging.Handler = logging.NullHandler()
    else:
        _writer = _writer or LineWriter(_say_lost)
        handler = _Handler(_writer)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logger.setLevel(level)


def unraisable(failed: sys.UnraisableHookArgs) -> None:
    """Log what cannot be raised, as in a finalizer; Python's own hook would wait for whoever reads."""
    told = {"fields": {"where": repr(failed.object)}}
    logger.error("unraisable", exc_info=failed.exc_value, extra=told)


def lost_lines() -> int:
    """How many lines were lost, as standard error was not read fast enough."""
    return 0 if _writer is None else _writer.lost


def say(text: str) -> None:
    """Write a text to standard error as it is, after all that was logged."""
    if _writer is None:
        print(text, file=sys.stderr)
    else:
        _writer.put(text)


def flush() -> None:
    """Wait a moment until what was logged is written: before the process ends."""
    if _writer is not None:
        _writer.flush()
