"""Batches that are read at a glance: in the form in which nodes write theirs, and most clients.

Rules
- What is read here is what `messages` would read, or it is not read at all: None is no verdict. Then
  `messages` reads it, or says what is wrong with it.
- A value is taken where its text is the one form that it has (see `json_value`), a name or a key where
  nothing in it is escaped, and a key only if it is so short that its bytes cannot be too many.

How it works. One regular expression for each kind of item, with the comma behind it. If what it finds
one after the other adds up to the whole text, there is nothing else in it. An item begins with its
brace, never with space, which would be read again from each of its characters where there is much of
it. Pure.

Where all values of an entry are texts msgspec reads them, in half the time, and again the lengths must
add up to the whole: with an escape, a space, or a key that comes twice there is more of it.
"""

from __future__ import annotations

import re

import msgspec

from trikv.model.record import Entry, Pair
from trikv.model.version import Version
from trikv.protocol.json_value import PLAIN, SPACE

_KEY_LENGTH = 128  # of 512 bytes at most
_KEY = rf'"([^"\\\x00-\x1f]{{1,{_KEY_LENGTH}}})"'
_RECORD = re.compile(
    rf'(,\{{"key":{_KEY},"version":"([0-9a-z.]{{1,43}}-[0-9]{{1,16}})",(?:"value":({PLAIN})|"deleted":true)\}})'
)
_VALUE = re.compile(rf"(,{_KEY}:({PLAIN}))")
_TEXTS = msgspec.json.Decoder(dict[str, str])
_SHORT = ',{"version":"'  # values of one write, in short
_VALUES = '","values":{'


def _spaced(tokens: str) -> str:
    """A pattern of these tokens, and any space between them."""
    return SPACE.join(tokens.split()).replace("KEY", _KEY).replace("VALUE", f"({PLAIN})")


_PUT = _spaced(r'\{ "op" : "put" , "key" : KEY , "value" : VALUE \}')
_DELETE = _spaced(r'\{ "op" : "delete" , "key" : KEY \}')
_OPERATION = re.compile(rf"((?:{_PUT}|{_DELETE}){SPACE}(?:,{SPACE}(?=\{{)|\Z))")
_OPERATIONS = re.compile(SPACE + _spaced(r'\{ "operations" : \[') + SPACE)
_END = re.compile(_spaced(r"\] \}") + SPACE)


def entries(text: str) -> list[Entry] | None:
    """The entries in the inside of an array, as `messages.encode_entry` writes them, and commas."""
    if not text:
        return []
    # With a comma before the first, too, each begins alike. What is read here has no quote inside its
    # strings, so that this parts it where an entry in short begins, and nowhere else.
    singles, *shorts = f",{text}".split(_SHORT)
    try:
        read = _singles(singles)
        for short in shorts:
            version, _, rest = short.partition(_VALUES)
            end = max(rest.rfind("}}"), 0)
            pairs = _texts(f"{{{rest[:end]}}}") or _values(f",{rest[:end]}")
            read.append(Entry(Version.parse(version), pairs))
            read += _singles(rest[end + 2 :])
    except ValueError:
        return None
    return read


def _texts(text: str) -> list[Pair] | None:
    """The pairs of an object, if all its values are plain texts. None is no verdict."""
    try:
        found: dict[str, str] = _TEXTS.decode(text)
    except msgspec.DecodeError:
        return None
    # Each with four quotes, a colon, and but for the last a comma; and the braces.
    length = sum(map(len, found)) + sum(map(len, found.values())) + 6 * len(found) + 1
    if length != len(text):
        return None
    if "" in found or max(map(len, found), default=0) > _KEY_LENGTH:
        return None
    return [(key, f'"{value}"') for key, value in found.items()]


def _values(text: str) -> list[Pair]:
    """Pairs with plain values of any kind. Raises ValueError if there is more, or a key comes twice."""
    pairs = [(key, value) for _, key, value in _items(_VALUE, text)]
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key twice")
    return pairs


def _singles(text: str) -> list[Entry]:
    """Records that stand alone. Raises ValueError if that is not all."""
    parse = Version.parse
    return [
        Entry(parse(version), [(key, value)]) for _, key, version, value in _items(_RECORD, text)
    ]


def operations(body: bytes) -> list[Pair] | None:
    """Keys and encoded values, "" for a delete, of a client's batch without conditions."""
    try:
        text = body.decode("utf-8")
        begin = _OPERATIONS.match(text)
        end = text.rfind("]")
        if begin is None or _END.fullmatch(text, end) is None:
            return None
        found = _items(_OPERATION, text[begin.end() : end])
    except ValueError:
        return None
    return [(put or deleted, value) for _, put, value, deleted in found]


def _items(pattern: re.Pattern[str], text: str) -> list[tuple[str, ...]]:
    """The groups of all items in a text. Raises ValueError if there is anything else in it."""
    found: list[tuple[str, ...]] = pattern.findall(text)
    if sum([len(item[0]) for item in found]) != len(text):
        raise ValueError("not of these items alone")
    return found
