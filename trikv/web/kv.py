"""What clients do with keys: write, read, dump."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from trikv import jsonvalue
from trikv.errors import NotFound, TooLarge
from trikv.leader import Trace
from trikv.messages import PutBody, decode_body, encode_map
from trikv.node import Node
from trikv.version import Record
from trikv.web.exchange import Answer, Request, boolean, parameters


async def put_key(node: Node, request: Request) -> Answer:
    """`PUT /kv/{key}[?trace=true]`"""
    leader = node.require_leader()
    asked = parameters(request, trace=boolean)
    value = jsonvalue.encode(decode_body(request.body, PutBody).value, "value")
    check_value_size(node, value)
    confirmed = await leader.put(request.key, value)
    more = f',"follower_acks":{confirmed.follower_acks},"quorum_met":true'
    if asked.get("trace"):
        more += f',"trace":{jsonvalue.encode(_rounded(confirmed.trace), "trace")}'
    return _record_answer(confirmed.record, more)


async def get_key(node: Node, request: Request) -> Answer:
    """`GET /kv/{key}`: what this node holds."""
    parameters(request)
    record = node.store.get(request.key)
    if record is None or record.deleted:
        raise NotFound(f"there is no key {request.key!r} here", key=request.key)
    return _record_answer(record)


async def dump(node: Node, request: Request) -> Answer:
    """`GET /dump`: every key and value that this node holds, streamed."""
    parameters(request)

    async def chunks() -> AsyncIterator[bytes]:
        opening = "{"
        async for page in node.pages_by_key():
            if pairs := encode_map(page):
                yield f"{opening}{pairs}".encode()
                opening = ","
        yield b"{}" if opening == "{" else b"}"

    return Answer(chunks())


def check_value_size(node: Node, value: str) -> None:
    """Raises TooLarge if the encoded value is over MAX_VALUE_BYTES."""
    size, most = len(value.encode()), node.config.max_value_bytes
    if size > most:
        raise TooLarge(f"value: expected at most {most} bytes of JSON, got {size}", field="value")


def _record_answer(record: Record, more: str = "") -> Answer:
    key = jsonvalue.encode_string(record.key)
    text = f'{{"key":{key},"value":{record.value},"version":"{record.version}"{more}}}'
    return Answer(text.encode(), headers={"ETag": f'"{record.version}"'})


def _rounded(trace: Trace) -> Any:
    """A trace with its times to the microsecond."""

    def rounded(value: Any) -> Any:
        match value:
            case float():
                return round(value, 3)
            case dict():
                return {name: rounded(item) for name, item in value.items()}
            case list():
                return [rounded(item) for item in value]
        return value

    return rounded(asdict(trace))
