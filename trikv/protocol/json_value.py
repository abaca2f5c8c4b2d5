"""JSON that is carried faithfully or refused: never bent.

What a client sends must come back as the same JSON value from every replica, also to a client in
another language. Python's decoder is more generous than that, so this module refuses what it would
bend:

- bodies that are not UTF-8, or carry a byte order mark; NaN and Infinity, which are not JSON
- numbers that overflow to infinity, or underflow to zero without being zero; integers beyond 4,300
  digits, Python's own limit
- a name that stands twice in one object (one of the two would be lost), lone surrogates (no UTF-8 has
  them), nesting deeper than `MAX_DEPTH`

An accepted value is encoded in one compact form, once; the text then travels and is stored as it is.
Decoding and encoding that text again gives the same text, so replicas agree byte for byte.

Pure: nothing here knows where a body came from or what its fields mean.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from trikv.errors import InvalidBody, MalformedJson

#: How deep a value may nest: deep enough for people, shallow enough for every recursive parser.
MAX_DEPTH = 64

_encode_text = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode


#: A string as JSON, in quotes.
encode_string: Callable[[str], str] = json.encoder.encode_basestring

#: A text that is the one form of its value, as is seen at a glance: no escapes, no fraction.
PLAIN = r'"[^"\\\x00-\x1f]*"|0|-?[1-9][0-9]{0,17}|true|false|null'
SPACE = r"[ \t\n\r]*"
_PLAIN_FIELD = re.compile(rf'{SPACE}\{{{SPACE}"([a-z]+)"{SPACE}:{SPACE}({PLAIN}){SPACE}\}}{SPACE}')


def _parse_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise InvalidBody(
            f"the number {clip(text)} is too large: a number must fit a 64-bit float", field="$"
        )
    if number == 0 and any(c in "123456789" for c in text.lower().partition("e")[0]):
        raise InvalidBody(
            f"the number {clip(text)} is too close to zero: a 64-bit float would make it 0",
            field="$",
        )
    return number


def _parse_constant(text: str) -> NoReturn:
    raise MalformedJson(f"{text} is not JSON: a number must be finite")


def _parse_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidBody(f"the name {clip(name)!r} stands twice in one object", field="$")
            seen.add(name)
    return built


_decoder = json.JSONDecoder(
    parse_float=_parse_float, parse_constant=_parse_constant, object_pairs_hook=_parse_object
)


def decode(body: bytes) -> Any:
    """The JSON value in `body`.

    Raises MalformedJson where it is not JSON, InvalidBody where it is JSON that would be bent. Depth
    and surrogates are the business of `encode`, which every value that is kept goes through.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedJson(
            f"the body is not UTF-8: {error.reason} at byte {error.start}"
        ) from None
    if text.startswith("\ufeff"):
        raise MalformedJson("the body begins with a byte order mark, which is not JSON")
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise MalformedJson(
            f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from None
    except RecursionError:
        raise InvalidBody(f"the body nests deeper than {MAX_DEPTH} levels", field="$") from None
    except ValueError:  # the one left: Python's limit on the digits of an integer
        raise InvalidBody("an integer may have at most 4300 digits", field="$") from None


def plain_field(body: bytes) -> tuple[str, str] | None:
    """The name and the text of the value, if the body is an object of one plain field."""
    try:
        found = _PLAIN_FIELD.fullmatch(body.decode("utf-8"))
    except UnicodeDecodeError:
        return None
    return None if found is None else (found[1], found[2])


def least_encoded_bytes(body: bytes) -> int:
    """Return a lower bound of what the value in `body` takes once it is encoded.

    Brackets, commas, colons and quotes stay as they are, inside strings and outside. It costs a
    hundredth of `decode`, which makes an object of, for example, every two brackets: so what is too
    large for certain can be refused before.
    """
    return len(body) - len(body.translate(None, b'[]{},:"'))


def size_of(text: str) -> int:
    """How many bytes it has in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def encode(value: Any, field: str) -> str:
    """The one text form of a decoded value; `field` is its name in errors.

    Raises InvalidBody if it nests deeper than MAX_DEPTH or holds a lone surrogate.
    """
    text: str
    if type(value) is str and value.isascii():
        return encode_string(value)
    try:
        text = _encode_text(value)
    except RecursionError:
        text = "[" * (MAX_DEPTH + 1)
    # Each level opens a bracket, so few brackets (strings may hold some, too) settle it cheaply.
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise InvalidBody(f"{field} nests deeper than {MAX_DEPTH} levels", field=field)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidBody(
            f"{field} holds a lone surrogate (half of a \\uD800-\\uDFFF pair)", field=field
        ) from None
    return text


def _depth(value: Any) -> int:
    """How deep lists and objects nest: 0 for a scalar. Stops counting just past MAX_DEPTH."""
    depth, level = 0, [value]
    while depth <= MAX_DEPTH:
        nested = [item for item in level if isinstance(item, dict | list)]
        if not nested:
            break
        depth += 1
        level = [
            child
            for item in nested
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


def clip(text: str) -> str:
    """The beginning of a text, for an error message."""
    return text if len(text) <= 40 else text[:37] + "..."
