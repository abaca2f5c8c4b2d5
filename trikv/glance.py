"""Batches that are read at a glance: in the form in which nodes write theirs, and most clients.

Rules
- What is read here is what `messages` would read, or it is not read at all: None is no verdict. Then
  `messages` reads it, or says what is wrong with it.
- A value is taken where its text is the one form that it has (see `jsonvalue`), a name or a key where
  nothing in it is escaped, and a key only if it is so short that its bytes cannot be too many.

How it works. One regular expression for each kind of item, with the comma behind it. If what it finds
one after the other adds up to the whole text, there is nothing else in it. An item begins with its
brace, never with space, which would be read again from each of its characters where there is much of
it. Pure.
"""

from __future__ import annotations

import re

from trikv.jsonvalue import PLAIN, SPACE
from trikv.version import Record, Version

_KEY = r'"([^"\\\x00-\x1f]{1,128})"'  # of 512 bytes at most
_RECORD = re.compile(
    rf'(\{{"key":{_KEY},"version":"([0-9a-z.]{{1,43}}-[0-9]{{1,16}})",(?:"value":({PLAIN})|"deleted":true)\}}'
    r"(?:,(?=\{)|\Z))"
)


def _spaced(tokens: str) -> str:
    """A pattern of these tokens, and any space between them."""
    return SPACE.join(tokens.split()).replace("KEY", _KEY).replace("VALUE", f"({PLAIN})")


_PUT = _spaced(r'\{ "op" : "put" , "key" : KEY , "value" : VALUE \}')
_DELETE = _spaced(r'\{ "op" : "delete" , "key" : KEY \}')
_OPERATION = re.compile(rf"((?:{_PUT}|{_DELETE}){SPACE}(?:,{SPACE}(?=\{{)|\Z))")
_OPERATIONS = re.compile(SPACE + _spaced(r'\{ "operations" : \[') + SPACE)
_END = re.compile(_spaced(r"\] \}") + SPACE)


def records(text: str) -> list[Record] | None:
    """The records in the inside of an array, as `messages.encode_record` writes them, and commas."""
    found = _items(_RECORD, text, 0, len(text))
    if found is None:
        return None
    parse = Version.parse
    try:
        return [Record(key, value, parse(version)) for _, key, version, value in found]
    except ValueError:
        return None


def operations(body: bytes) -> list[tuple[str, str]] | None:
    """Keys and encoded values, "" for a delete, of a client's batch without conditions."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return None
    begin = _OPERATIONS.match(text)
    end = text.rfind("]")
    if begin is None or _END.fullmatch(text, end) is None:
        return None
    found = _items(_OPERATION, text, begin.end(), end)
    return None if found is None else [(put or deleted, value) for _, put, value, deleted in found]


def _items(
    pattern: re.Pattern[str], text: str, begin: int, end: int
) -> list[tuple[str, ...]] | None:
    """The groups of all items from one place to another, if there is nothing else between the two."""
    found: list[tuple[str, ...]] = pattern.findall(text, begin, end)
    return found if sum([len(item) for item, *_ in found]) == end - begin else None
