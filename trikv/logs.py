"""Structured logs: one line an event, `TIME LEVEL event key=value …`, on standard error.

An event has a name (`link.down`) and fields; a value with spaces or quotes is written as JSON. INFO is
for what an operator wants to know of a quiet or a busy node alike: nothing is logged at INFO for each
request or write. What is logged while a request is worked on bears its id.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

logger = logging.getLogger("trikv")

#: The id of the request that is worked on; "" if none is.
request_id: ContextVar[str] = ContextVar("request_id", default="")

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
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def set_up(level: str) -> None:
    """Send all log lines of this process to standard error in this form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logger.setLevel(level)
