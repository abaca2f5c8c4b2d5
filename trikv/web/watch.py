"""`GET /watch`: the change stream as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from trikv.errors import InvalidParameter, Overloaded
from trikv.model.version import Version
from trikv.node.node import Node
from trikv.observe.change_stream import (
    Change,
    End,
    Heartbeat,
    Message,
    Reset,
    Watch,
    check_watchable,
)
from trikv.protocol import json_value
from trikv.protocol.json_value import clip
from trikv.protocol.messages import encode_record
from trikv.web import sse
from trikv.web.exchange import Answer, Request, parameters, version
from trikv.web.kv import key_text


async def watch(node: Node, request: Request) -> Answer:
    """`GET /watch?prefix=&after=`, with `Last-Event-ID`"""
    asked = parameters(request, prefix=key_text, after=version)
    after = _last_event_id(request.headers) or asked.get("after")
    check_watchable(node)
    return sse.stream(_events(node, Watch(node, asked.get("prefix", ""), after)))


def _last_event_id(headers: Mapping[str, str]) -> Version | None:
    """Where a browser resumes by itself: it repeats the address that it began with, `after` and all."""
    text = headers.get("last-event-id", "")
    try:
        return version(text) if text else None
    except ValueError as error:
        raise InvalidParameter(
            f"Last-Event-ID: expected {error}, got {clip(text)!r}", field="Last-Event-ID"
        ) from None


async def _events(node: Node, watching: Watch) -> AsyncIterator[bytes]:
    """Ends with its last message, or is closed; what is entered here is left in any case."""
    try:  # others may have come since it was looked
        node.watches.check_room()
    except Overloaded as error:
        yield _encoded([End(error.code, error.detail)])
        return
    with node.watches.entered(watching):
        yield sse.OPENING
        while messages := await watching.next():
            yield _encoded(messages)


def _encoded(messages: Sequence[Message]) -> bytes:
    return b"".join(map(_event, messages))


def _event(message: Message) -> bytes:
    match message:
        case Change(record, resume):
            return sse.event("change", encode_record(record), _text(resume))
        case Reset(reason):
            return sse.event("reset", _object(reason=reason), "")  # no place to resume from
        case Heartbeat(resume):
            return sse.event("heartbeat", _object(version=_text(resume)), _text(resume))
        case End(code, reason):
            return sse.event("end", _object(reason=reason, code=code))


def _text(version: Version | None) -> str | None:
    return None if version is None else str(version)


def _object(**fields: str | None) -> str:
    return json_value.encode(fields, "event")
