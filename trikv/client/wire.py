"""Requests as they are sent, and what an answer means.

Rules
- What cannot be sent faithfully is refused here, before anything is sent: InvalidRequest.
- What an answer means is read from `trikv.errors`, the table that the nodes themselves answer by:
  whether a write may have happened is said in one place only.
- An answer that is none of trikv's (a proxy's page, a code from the future) says nothing. A write that
  is answered so may have happened.

Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from trikv import errors as told
from trikv.client.errors import InvalidRequest, OutcomeUnknown, Refused, VersionConflict
from trikv.client.model import Delete, Item, Operation, Put
from trikv.errors import TrikvError
from trikv.model.version import Version
from trikv.protocol import json_value
from trikv.protocol.messages import (
    LARGEST_VALUE_BYTES,
    MAX_BATCH_BYTES,
    check_key,
    check_key_bytes,
)

#: No answer is larger: a page of a list is bounded well below, and a value to 16 MiB.
MAX_ANSWER_BYTES = 64 * 2**20

#: No node takes a larger batch: one value beyond its bound, and the frames of 1000 operations.
MAX_BATCH_BODY_BYTES = MAX_BATCH_BYTES + LARGEST_VALUE_BYTES


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    """Path and query."""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    """The key that it is about, if it is about one: an answer that names another belongs elsewhere."""


class Answer(NamedTuple):
    """A complete answer of something that speaks HTTP."""

    status: int
    headers: Mapping[str, str]
    """With small names."""
    body: bytes


class Failure(NamedTuple):
    """No complete answer. `sent`: whether any of the request may have left."""

    sent: bool
    detail: str


class Meaning(Enum):
    DONE = auto()
    REFUSED = auto()
    """No, and no again if asked again. Nothing was written."""
    ELSEWHERE = auto()
    """Not by this node. Nothing was written."""
    LATER = auto()
    """Not now. Nothing was written."""
    UNKNOWN = auto()
    """If it was a write, it may have happened."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer, or its lack, means. `code` and `detail` are "" if it is done."""

    meaning: Meaning
    node: str
    document: Mapping[str, Any] = field(default_factory=dict)
    status: int | None = None
    code: str = ""
    detail: str = ""
    retry_after_s: float = 0.0

    @property
    def leader_url(self) -> str | None:
        """The leader that a `not_leader` names."""
        named = self.document.get("leader")
        url = named.get("url") if isinstance(named, dict) else None
        return url if isinstance(url, str) else None

    def text(self, name: str) -> str | None:
        """A field of the document, if it is a text."""
        found = self.document.get(name)
        return found if isinstance(found, str) else None

    @property
    def version(self) -> str | None:
        """The version that the document tells, if it is one."""
        version = self.text("version")
        return version if version is not None and parse_version(version) is not None else None


def _codes(*roots: type[TrikvError]) -> Iterator[tuple[str, type[TrikvError]]]:
    for root in roots:
        if "code" in vars(root):
            yield root.code, root
        yield from _codes(*root.__subclasses__())


#: Every code that a node answers with.
CODES: Mapping[str, type[TrikvError]] = dict(
    _codes(told.BadRequest, told.Refused, told.Unavailable, told.OutcomeUnknown)
)


def meaning_of(code: str) -> Meaning:
    """What a problem's code says about the write that it answers."""
    kind = CODES.get(code)
    if kind is None or kind.may_have_written:
        return Meaning.UNKNOWN
    if issubclass(kind, told.NotLeader | told.NotReady):
        return Meaning.ELSEWHERE
    if issubclass(kind, told.Unavailable | told.RequestTimeout):
        return Meaning.LATER
    return Meaning.REFUSED


def read(node: str, given: Answer | Failure, key: str | None = None) -> Reading:
    """What came of asking a node, about a key if it was about one."""
    if isinstance(given, Failure):
        if given.sent:
            return Reading(Meaning.UNKNOWN, node, code="no_answer", detail=given.detail)
        return Reading(Meaning.ELSEWHERE, node, code="unreachable", detail=given.detail)
    document = _document(given.body)
    about = None if document is None else document.get("key")
    if key is not None and about is not None and about != key:
        why = f"{node} answered about key {about!r:.80}, and was asked about {key!r:.80}"
        return strange(node, given.status, why)
    content_type = given.headers.get("content-type", "").partition(";")[0].strip()
    if document is not None and given.status == 200 and content_type == "application/json":
        return Reading(Meaning.DONE, node, document, 200)
    code = None if document is None else document.get("code")
    if (
        document is None
        or content_type != "application/problem+json"
        or not isinstance(code, str)
        or document.get("type") != f"urn:trikv:problem:{code}"
    ):
        return strange(node, given.status, f"{node} answered {given.status}, not as trikv does")
    detail = document.get("detail")
    after = document.get("retry_after_s")
    return Reading(
        meaning_of(code),
        node,
        document,
        given.status,
        code,
        detail if isinstance(detail, str) else code,
        float(after) if isinstance(after, int | float) and 0 <= after < 1e6 else 0.0,
    )


def strange(node: str, status: int | None, detail: str) -> Reading:
    """An answer that no node of trikv gives."""
    return Reading(Meaning.UNKNOWN, node, status=status, code="unexpected_answer", detail=detail)


def _document(body: bytes) -> dict[str, Any] | None:
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return decoded if isinstance(decoded, dict) else None


def refusal(reading: Reading) -> Refused:
    """The exception for what was refused for good."""
    kind: type[Refused] = Refused
    if reading.code == told.VersionConflict.code:
        kind = VersionConflict
    elif issubclass(CODES.get(reading.code, TrikvError), told.BadRequest):
        kind = InvalidRequest
    return kind(
        reading.detail,
        code=reading.code,
        status=reading.status,
        version=reading.version,
        key=reading.text("key"),
        field=reading.text("field"),
        node=reading.node,
    )


def outcome_unknown(reading: Reading, detail: str = "") -> OutcomeUnknown:
    """The exception for a write that may have happened."""
    return OutcomeUnknown(
        detail or reading.detail,
        code=reading.code,
        status=reading.status,
        version=reading.version,
        key=reading.text("key"),
        node=reading.node,
    )


def item_of(document: Mapping[str, Any]) -> Item | None:
    """A record as answers hold it; None if this is none."""
    match document:
        case {"key": str(key), "value": value, "version": str(version)}:
            return Item(key, value, version) if parse_version(version) is not None else None
    return None


# -- requests -----------------------------------------------------------------------------------------


def parse_version(text: str) -> Version | None:
    """A version, or None if that is not one."""
    try:
        return Version.parse(text)
    except ValueError:
        return None


def checked_version(text: str, name: str) -> str:
    """Raises InvalidRequest."""
    try:
        return str(Version.parse(text))
    except (ValueError, TypeError):
        raise InvalidRequest(
            f"{name}: a version looks like 3.0f4c2a9d81e7-1700000000000000, not {text!r:.80}",
            code=told.InvalidParameter.code,
            field=name,
        ) from None


def encoded(value: Any) -> str:
    """A value as compact JSON. Raises InvalidRequest if JSON cannot carry it, or no node takes it."""
    try:
        check_comes_back(value)
        text = json_value.encode(value, "value")
    except told.TrikvError as error:
        raise InvalidRequest(error.detail, code=told.InvalidBody.code, field="value") from None
    except (TypeError, ValueError) as error:
        detail = f"value: JSON cannot carry it: {error}"
        raise InvalidRequest(detail, code=told.InvalidBody.code, field="value") from None
    if len(text) > LARGEST_VALUE_BYTES or json_value.size_of(text) > LARGEST_VALUE_BYTES:
        raise _too_large("value", LARGEST_VALUE_BYTES, json_value.size_of(text))
    return text


def check_comes_back(value: Any) -> None:
    """Raise ValueError unless JSON gives back something equal: json takes tuples for lists, makes text
    of the keys of a dict, and drops what an enumeration is.

    How deep it nests, and surrogates, are the business of `jsonvalue.encode`.
    """
    level = [("", value)]
    for _ in range(json_value.MAX_DEPTH + 1):
        nested: list[tuple[str, Any]] = []
        for place, one in level:
            if isinstance(one, Enum) or not isinstance(one, _CARRIED):
                kind = type(one).__name__
                expected = "expected None, bool, int, float, str, or a list or dict of them"
                raise ValueError(f"value{place}: {expected}, not {kind}")
            if isinstance(one, float) and not math.isfinite(one):
                raise ValueError(f"value{place}: expected a finite number, not {one}")
            if isinstance(one, dict):
                for key in one:
                    if not isinstance(key, str) or isinstance(key, Enum):
                        kind = type(key).__name__
                        raise ValueError(f"value{place}: expected str as keys, not {kind}")
                nested += ((f"{place}[{key!r:.40}]", child) for key, child in one.items())
            elif isinstance(one, list):
                nested += ((f"{place}[{index}]", child) for index, child in enumerate(one))
        level = nested


_CARRIED = (str, int, float, bool, type(None), list, dict)


def _too_large(field: str, most: int, size: int) -> InvalidRequest:
    detail = f"{field}: expected at most {most} bytes of JSON, got {size}"
    return InvalidRequest(detail, code=told.TooLarge.code, field=field)


def checked_key(key: str) -> str:
    """Raises InvalidRequest unless it can be a key, TypeError if it is no text."""
    if not isinstance(key, str):
        raise TypeError(f"key: expected a str, got {type(key).__name__}")
    try:
        check_key(key)
    except told.InvalidKey as error:
        detail = error.detail
        raise InvalidRequest(detail, code=error.code, field="key", key=key) from None
    return key


def checked_prefix(prefix: str) -> str:
    """Raises InvalidRequest unless a key may begin so, TypeError if it is no text."""
    if not isinstance(prefix, str):
        raise TypeError(f"prefix: expected a str, got {type(prefix).__name__}")
    try:
        if prefix:
            check_key_bytes(prefix, "prefix")
    except told.InvalidKey as error:
        code = told.InvalidParameter.code
        raise InvalidRequest(error.detail, code=code, field="prefix") from None
    return prefix


def key_path(key: str) -> str:
    """`/kv/{key}` so that nobody on the way tidies it up. Raises InvalidRequest."""
    steps = quote(checked_key(key), safe="/").split("/")
    return "/kv/" + "/".join("%2E" * len(s) if s in (".", "..") else s for s in steps)


def put_request(
    key: str, text: str, *, if_version: str | None, if_absent: bool, if_present: bool
) -> Request:
    """`PUT` of an encoded value. Raises InvalidRequest."""
    headers = {"content-type": "application/json"}
    headers |= preconditions(if_version, if_absent, if_present)
    return Request("PUT", key_path(key), f'{{"value":{text}}}'.encode(), headers, key)


def delete_request(key: str, *, if_version: str | None) -> Request:
    """Raises InvalidRequest."""
    headers = preconditions(if_version, False, False)
    return Request("DELETE", key_path(key), headers=headers, key=key)


def preconditions(if_version: str | None, if_absent: bool, if_present: bool) -> dict[str, str]:
    """As headers. Raises InvalidRequest."""
    if (if_version is not None) + if_absent + if_present > 1:
        raise InvalidRequest(
            "if_version, if_absent, if_present: expected one at most",
            code=told.InvalidParameter.code,
            field="if_version",
        )
    if if_version is not None:
        return {"if-match": f'"{checked_version(if_version, "if_version")}"'}
    if if_absent:
        return {"if-none-match": "*"}
    return {"if-match": "*"} if if_present else {}


def operation_text(operation: Operation) -> str:
    """One operation of a batch as JSON. Raises InvalidRequest, TypeError."""
    if not isinstance(operation, Put | Delete):
        raise TypeError(f"expected a Put or a Delete, got {type(operation).__name__}")
    key = json_value.encode_string(checked_key(operation.key))
    version: str | None = None
    if operation.if_version is not None:
        version = f'"{checked_version(operation.if_version, "if_version")}"'
    if isinstance(operation, Put) and operation.if_absent:
        if version is not None:
            preconditions(operation.if_version, True, False)
        version = "null"
    condition = "" if version is None else f',"if_version":{version}'
    if isinstance(operation, Delete):
        return f'{{"op":"delete","key":{key}{condition}}}'
    return f'{{"op":"put","key":{key},"value":{encoded(operation.value)}{condition}}}'


def batch_request(texts: Sequence[str]) -> Request:
    """`POST /batch` of operations as JSON. Raises InvalidRequest."""
    body = f'{{"operations":[{",".join(texts)}]}}'.encode()
    if len(body) > MAX_BATCH_BODY_BYTES:
        raise _too_large("operations", MAX_BATCH_BODY_BYTES, len(body))
    return Request("POST", "/batch", body, {"content-type": "application/json"})


def get_request(path: str, **parameters: str | int | None) -> Request:
    """`GET`, with those parameters that are not None or empty."""
    given = {name: value for name, value in parameters.items() if value not in (None, "")}
    return Request("GET", f"{path}?{urlencode(given)}" if given else path)


def get_key_request(key: str, **parameters: str | int | None) -> Request:
    """`GET` of one key. Raises InvalidRequest."""
    return replace(get_request(key_path(key), **parameters), key=key)
