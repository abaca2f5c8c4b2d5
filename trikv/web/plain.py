"""The plain form of a request: what the fast lane understands, to the last byte. Pure.

Rules
- A request is plain if there is one way only to read it: HTTP/1.1, a target and headers of printable
  ASCII, each header at most once and known by name, a length of digits or none. Whatever else it is, it
  is for Hypercorn to judge: `NotPlain` is no verdict.
- So nothing that could be framed in two ways (a length twice, or beside a transfer coding; a folded
  line, a bare line feed, a NUL) is read here at all.
- The head is read by httptools, too, which must agree that it is one, and nothing behind it: where a
  body ends is said by its length alone.

How it works. What changes from request to request is the target; the rest of a head is mostly the same.
So the first line is read here, and what the lines behind it say is kept for those who send them again.
(With another target they say the same: no header that is known here has to do with it.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import httptools

#: Heads of requests: an API of short paths and few headers.
MAX_HEAD_BYTES = 16 * 2**10

#: The headers that are read here. Those that change how a message is framed, or what becomes of its
#: connection, are not among them, but for `content-length` and a `connection` that is kept.
KNOWN_HEADERS = frozenset(
    {
        *("host", "user-agent", "accept", "accept-encoding", "accept-language", "cache-control"),
        *("connection", "content-type", "content-length", "if-match", "if-none-match", "pragma"),
        "x-request-id",
    }
)

#: So many texts of header lines are kept, of so many bytes each at most.
KEPT_FIELDS = 256
KEPT_FIELDS_BYTES = 1024

_PRINTABLE = bytes(range(0x20, 0x7F)) + b"\r\n"
_FIRST_LINE = re.compile(
    rb"([A-Z]{1,20}) (/[A-Za-z0-9._~%!$&'()*+,;=:@/-]*)"
    rb"(?:\?([A-Za-z0-9._~%!$&'()*+,;=:@/?-]*))? HTTP/1\.1\r\n"
)
_LENGTH = re.compile(r"[0-9]{1,9}")


class NotPlain(Exception):
    """Not for the fast lane."""


class Head(NamedTuple):
    """A request without its body, which has `length` bytes and begins at `size`."""

    method: str
    path: bytes
    query_string: bytes
    headers: Mapping[str, str]
    length: int
    size: int


class _Fields(NamedTuple):
    """What the header lines say."""

    headers: Mapping[str, str]
    length: int


class _Told:
    """What httptools calls back."""

    __slots__ = ("complete", "headers")

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.complete = False

    def on_header(self, raw_name: bytes, value: bytes) -> None:
        name = raw_name.decode("ascii").lower()
        if name not in KNOWN_HEADERS or name in self.headers:
            raise NotPlain
        self.headers[name] = value.decode("ascii").strip(" ")

    def on_headers_complete(self) -> None:
        self.complete = True


def read_head(buffer: bytes | bytearray) -> Head | None:
    """The head at the beginning of the buffer; None if it is not complete yet. Raises NotPlain."""
    if not buffer:
        return None
    end = buffer.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
    if end < 0:
        if len(buffer) >= MAX_HEAD_BYTES or not buffer[:1].isupper():
            raise NotPlain
        _check_lines(bytes(buffer).removesuffix(b"\r"))
        return None
    size = end + 4
    first = _FIRST_LINE.match(buffer, 0, size)
    if first is None:
        raise NotPlain
    method, path, query_string = first.groups()
    lines = bytes(buffer[first.end() : size])
    read = _fields if len(lines) <= KEPT_FIELDS_BYTES else _read_fields
    fields = read(method, lines)
    return Head(
        method.decode("ascii"), path, query_string or b"", fields.headers, fields.length, size
    )


def _read_fields(method: bytes, lines: bytes) -> _Fields:
    """What header lines say, of a request of that method. Raises NotPlain."""
    head = b"%b / HTTP/1.1\r\n%b" % (method, lines)
    _check_lines(head)
    told = _Told()
    parser = httptools.HttpRequestParser(told)
    try:
        parser.feed_data(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        raise NotPlain from None
    headers = told.headers
    length = headers.get("content-length", "0")
    if (
        not told.complete
        or "host" not in headers
        or headers.get("connection", "keep-alive").lower() != "keep-alive"
        or _LENGTH.fullmatch(length) is None
    ):
        raise NotPlain
    return _Fields(MappingProxyType(headers), int(length))


_fields = lru_cache(maxsize=KEPT_FIELDS)(_read_fields)


def _check_lines(head: bytes) -> None:
    """Raises NotPlain unless all is printable ASCII, in lines that each end in CR LF."""
    lines = head.count(b"\r\n")
    if (
        head.translate(None, _PRINTABLE)
        or not lines == head.count(b"\n") == head.count(b"\r")
        or b"\r\n " in head
    ):
        raise NotPlain
