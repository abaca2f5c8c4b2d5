"""A request and an answer, as the handlers see them.

A handler is an async function from a node and a `Request` to an `Answer`. It knows no web framework, so
the in-memory network of the tests calls the same functions as the server does. Whatever a handler
cannot do it raises as a TrikvError, which `problem` turns into an RFC 9457 document.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import msgspec

from trikv import log
from trikv.errors import InvalidKey, InvalidParameter, NotLeader, TrikvError
from trikv.model.version import Version
from trikv.node.node import Node
from trikv.protocol.json_value import clip
from trikv.protocol.messages import check_key

T = TypeVar("T")

JSON = "application/json"
PROBLEM_JSON = "application/problem+json"

#: `Cache-Control` of what may be stale when it is sent: a cache may keep it, and asks before each use.
NO_CACHE = "no-cache"

#: `Cache-Control` of what holds at the moment it is sent, and of every error: no cache may keep it.
NO_STORE = "no-store"

#: `Retry-After` of a 503 that does not say: by then a link may be up again, or a takeover over.
RETRY_AFTER_S = 1

_NONE: Mapping[str, str] = MappingProxyType({})


class Request(NamedTuple):
    """What came in: `key` is decoded and checked, `body` is complete, header names are small."""

    key: str = ""
    query: Mapping[str, str] = _NONE
    headers: Mapping[str, str] = _NONE
    body: bytes = b""


class Answer(NamedTuple):
    """What goes out. A body that is an iterator is streamed."""

    body: bytes | AsyncIterator[bytes]
    status: int = 200
    headers: Mapping[str, str] = _NONE
    content_type: str = JSON


Handler = Callable[[Node, Request], Awaitable[Answer]]


def unless_held(request: Request, answer: Answer) -> Answer:
    """An answer with an `ETag`; 304 for a client that says, with `If-None-Match`, that it has it.

    Tags are compared weakly (RFC 9110, 8.8.3.2): proxies that compress make `W/"…"` of `"…"`.
    """
    held = request.headers.get("if-none-match")
    if held is None:
        return answer
    tags = [one.strip().removeprefix("W/") for one in held.split(",")]
    if answer.headers["ETag"] in tags or tags == ["*"]:
        return Answer(b"", 304, answer.headers, answer.content_type)
    return answer


def answer(content: Any, status: int = 200, **headers: str) -> Answer:
    """An answer in JSON that no cache keeps; `ETag="…"` and the like become headers."""
    return Answer(msgspec.json.encode(content), status, {"Cache-Control": NO_STORE, **headers})


def problem(error: TrikvError, target: str = "") -> Answer:
    """The problem document for an error, with the headers that belong to it.

    `target` is the path and query of the request: where the error names the leader, `Location` is the
    same at the leader.
    """
    document = {
        "type": f"urn:trikv:problem:{error.code}",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        **error.extra,
    }
    headers = {"Cache-Control": NO_STORE}
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(error.extra.get("retry_after_s", RETRY_AFTER_S))
    if isinstance(error, NotLeader) and target:
        leader = error.extra.get("leader") or {}
        if (url := leader.get("url")) is not None:
            headers["Location"] = url.rstrip("/") + target
    return Answer(msgspec.json.encode(document), error.status, headers, PROBLEM_JSON)


def refusal(
    node: Node, error: TrikvError, method: str, path: str, query_string: bytes = b""
) -> Answer:
    """The answer to a request that is refused; counted, and at DEBUG in the log.

    `path` is the raw one.
    """
    node.tally.problem(error.code)
    log.event(
        logging.DEBUG,
        "request.refused",
        method=clip(method),
        path=clip(path),
        status=error.status,
        code=error.code,
    )
    query = f"?{query_string.decode('latin-1')}" if query_string else ""
    return problem(error, path + query)


def failure(node: Node, error: Exception, method: str, path: str) -> Answer:
    """The answer where something went wrong that nobody foresaw; the log has its traceback."""
    node.tally.problem("internal_error")
    log.logger.error(
        "request.failed", exc_info=error, extra={"fields": {"method": method, "path": path}}
    )
    told = {"title": "Internal Server Error", "status": 500, "code": "internal_error"}
    document = {
        "type": "urn:trikv:problem:internal_error",
        **told,
        "request_id": log.request_id.get(),
    }
    headers = {"Cache-Control": NO_STORE}
    return Answer(msgspec.json.encode(document), 500, headers, PROBLEM_JSON)


def key_of(raw_path: bytes, prefix: bytes) -> str:
    """The key in a raw path: what follows the prefix, percent-decoded once, never normalised.

    Raises InvalidKey.
    """
    raw = raw_path.removeprefix(prefix)
    parts = raw.split(b"%")
    decoded = [parts[0]]
    for part in parts[1:]:
        try:
            decoded.append(bytes.fromhex(part[:2].decode("ascii")) + part[2:])
        except ValueError:
            raise InvalidKey("key: expected two hexadecimal digits after %", field="key") from None
        if len(part) < 2:
            raise InvalidKey("key: expected two hexadecimal digits after %", field="key")
    try:
        key = b"".join(decoded).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidKey("key: expected UTF-8 behind the percent-encoding", field="key") from None
    check_key(key)
    return key


def query_of(query_string: bytes) -> dict[str, str]:
    """The parameters of a query. Raises InvalidParameter: not UTF-8, or one given twice."""
    if not query_string:
        return {}
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise InvalidParameter("the query is not percent-encoded UTF-8", field="query") from None
    query: dict[str, str] = {}
    for name, value in pairs:
        if name in query:
            raise InvalidParameter(
                f"{clip(name)!r}: expected once, given more than once", field=clip(name)
            )
        query[name] = value
    return query


def boolean(text: str) -> bool:
    """true or false. Raises ValueError with what was expected."""
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text == "true"


def whole(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers in a range; it raises ValueError with what was expected."""

    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def version(text: str) -> Version:
    """Raises ValueError with what was expected."""
    try:
        return Version.parse(text)
    except ValueError:
        raise ValueError("a version like 3.0f4c2a9d81e7-1700000000000000") from None


def parameters(request: Request, **known: Callable[[str], Any]) -> dict[str, Any]:
    """The query's parameters, parsed; a parser raises ValueError with what it expected.

    Raises InvalidParameter, which names the parameter, for a bad or an unknown one.
    """
    parsed = {}
    for name, text in request.query.items():
        if name not in known:
            expected = f"known here: {', '.join(known)}" if known else "none is known here"
            raise InvalidParameter(
                f"{clip(name)!r}: unknown parameter; {expected}", field=clip(name)
            )
        try:
            parsed[name] = known[name](text)
        except ValueError as error:
            raise InvalidParameter(
                f"{name}: expected {error}, got {clip(text)!r}", field=name
            ) from None
    return parsed
