"""Server-sent events, read as they come:
https://html.spec.whatwg.org/multipage/server-sent-events.html

Bytes go in, in whatever pieces the network makes of them; events come out once their empty line has
come. An event that the end of the stream cuts short is dropped, as the standard asks. What is not
UTF-8 becomes U+FFFD; fields that the standard does not know are passed over.

Pure.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple

#: One event: a value may have 16 MiB, and every character of it may come escaped.
MAX_EVENT_BYTES = 128 * 2**20


class Event(NamedTuple):
    """`id` is the last one that the stream has told, "" if none."""

    kind: str
    data: str
    id: str


class TooLong(ValueError):
    """An event has no end."""


class EventParser:
    """Reads one stream, from its beginning."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.last_id = ""
        self._most = max_event_bytes
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._begun = False
        self._after_cr = False
        self._line: list[str] = []  # the pieces of the line that has not ended
        self._kind = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """What the next bytes complete. Raises TooLong."""
        text = self._decode(chunk)
        if text and not self._begun:
            self._begun = True
            text = text.removeprefix("\ufeff")
        events = []
        for piece, ended in self._pieces(text):
            self._size += len(piece)
            if self._size > self._most:
                raise TooLong(f"an event of more than {self._most} bytes")
            self._line.append(piece)
            if ended:
                line = "".join(self._line)
                self._line.clear()
                if line:
                    self._field(line)
                elif (event := self._end()) is not None:
                    events.append(event)
        return events

    def _pieces(self, text: str) -> list[tuple[str, bool]]:
        """Pieces of lines, and whether a line ends there: at CR, LF, or both, which may be torn
        apart."""
        if self._after_cr and text:
            text = text.removeprefix("\n")
            self._after_cr = False
        self._after_cr = text.endswith("\r") or (self._after_cr and not text)
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        return [*((line, True) for line in lines[:-1]), (lines[-1], False)]

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._kind = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self.last_id = value
            case "":  # a comment keeps a stream alive, and is no part of an event
                self._size -= len(line)

    def _end(self) -> Event | None:
        """The event that an empty line ends, if there is one."""
        kind, data = self._kind, self._data
        self._kind, self._data, self._size = "", [], 0
        return Event(kind or "message", "\n".join(data), self.last_id) if data else None
