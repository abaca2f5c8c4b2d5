"""What clients do with keys: write, delete, read, list, dump."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from functools import partial
from typing import Any

import msgspec

from trikv.errors import InvalidBody, InvalidParameter, NotFound, TooLarge
from trikv.model.operation import ABSENT, ANYTHING, PRESENT, Operation, Precondition, match_versions
from trikv.model.record import MAX_KEY_BYTES, Record
from trikv.model.version import Version
from trikv.node.node import SCAN_BYTES, Node
from trikv.protocol import canonical, json_value
from trikv.protocol.json_value import least_encoded_bytes, size_of
from trikv.protocol.messages import MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, check_key, encode_map
from trikv.protocol.requests import OperationBody, OperationsBody, decode_body, decode_value
from trikv.replication.write import Trace, Write
from trikv.storage.store import reaches_end
from trikv.web import timing
from trikv.web.exchange import (
    NO_CACHE,
    NO_STORE,
    Answer,
    Request,
    boolean,
    parameters,
    unless_held,
    version,
    whole,
)

#: Keys in a page of a list, and how many unless it is asked for.
MAX_LIST_KEYS = 1_000
LIST_KEYS = 100

#: Brackets, commas, colons and quotes around a value in a body, and around each operation of a batch.
FRAME_BYTES = 64

#: How long a read waits for what it asked for, unless it says, and at most.
READ_TIMEOUT_MS = 5_000
MAX_READ_TIMEOUT_MS = 600_000


async def put_key(node: Node, request: Request) -> Answer:
    """`PUT /kv/{key}[?trace=true]`, with `If-Match` or `If-None-Match: *`"""
    leader = node.require_leader()
    asked = parameters(request, trace=boolean)
    most = node.config.max_value_bytes
    _check_least_size(request.body, "value", most, most + FRAME_BYTES)
    value = decode_value(request.body)
    check_value_size(node, value, "value")
    operation = Operation(request.key, value, precondition_of(request))
    confirmed = await leader.write([operation])
    return _write_answer(_pair_text(request.key, value), confirmed, asked)


async def delete_key(node: Node, request: Request) -> Answer:
    """`DELETE /kv/{key}[?trace=true]`, with `If-Match`"""
    leader = node.require_leader()
    asked = parameters(request, trace=boolean)
    operation = Operation(request.key, "", precondition_of(request), must_exist=True)
    confirmed = await leader.write([operation])
    key = json_value.encode_string(request.key)
    return _write_answer(f'{{"key":{key},"deleted":true', confirmed, asked)


async def batch(node: Node, request: Request) -> Answer:
    """`POST /batch[?trace=true]`: all of it or nothing."""
    leader = node.require_leader()
    asked = parameters(request, trace=boolean)
    for name in ("If-Match", "If-None-Match"):
        if name.lower() in request.headers:
            raise InvalidParameter(
                f"{name}: expected none with a batch: its operations have if_version", field=name
            )
    most = max(MAX_BATCH_BYTES, node.config.max_value_bytes + MAX_KEY_BYTES)
    frames = FRAME_BYTES * (MAX_BATCH_OPERATIONS + 1)
    _check_least_size(request.body, "operations", most, most + frames)
    operations = _operations(node, request.body)
    places: dict[str, int] = {}
    for index, operation in enumerate(operations):
        first = places.setdefault(operation.key, index)
        if first != index:
            raise InvalidBody(
                f"operations[{index}].key: {operation.key!r} is in operations[{first}] already",
                field=f"operations[{index}].key",
            )
    size = sum(size_of(one.key) + size_of(one.value) for one in operations)
    if size > most:
        raise TooLarge(
            f"operations: expected at most {most} bytes of keys and values, got {size}",
            field="operations",
        )
    confirmed = await leader.write(operations)
    return _write_answer(f'{{"operations":{len(operations)}', confirmed, asked)


async def get_key(node: Node, request: Request) -> Answer:
    """`GET /kv/{key}?consistency=&min_version=&timeout_ms=`, with `If-None-Match`"""
    asked = parameters(
        request, consistency=_consistency, min_version=version, timeout_ms=_timeout_ms
    )
    timeout_s = asked.get("timeout_ms", READ_TIMEOUT_MS) / 1000
    read = partial(node.store.get, request.key)
    record = read()
    least: Version | None = asked.get("min_version")
    if least is not None and (record is None or record.version < least):
        await node.until_caught_up(least, timeout_s)
        record = read()
    linearizable = asked.get("consistency") == "linearizable"
    if linearizable:
        record = await node.require_leader().confirm_read(read, timeout_s)
    if record is None or record.deleted:
        raise NotFound(f"there is no key {request.key!r} here", key=request.key)
    headers = {
        "ETag": f'"{record.version}"',
        "Cache-Control": NO_STORE if linearizable else NO_CACHE,
    }
    return unless_held(request, Answer(_record_text(record).encode(), headers=headers))


async def list_keys(node: Node, request: Request) -> Answer:
    """`GET /kv?prefix=&after=&limit=&min_version=&timeout_ms=`: keys in order, a page at a time."""
    asked = parameters(
        request,
        prefix=key_text,
        after=key_text,
        limit=whole(1, MAX_LIST_KEYS),
        min_version=version,
        timeout_ms=_timeout_ms,
    )
    if (least := asked.get("min_version")) is not None:
        await node.until_caught_up(least, asked.get("timeout_ms", READ_TIMEOUT_MS) / 1000)
    limit: int = asked.get("limit", LIST_KEYS)
    page = await node.scan(
        partial(
            node.store.page_by_key,
            asked.get("after", ""),
            limit + 1,
            SCAN_BYTES,
            live_only=True,
            prefix=asked.get("prefix", ""),
        )
    )
    whole_page = reaches_end(page, limit + 1, SCAN_BYTES)
    page = page[:limit]
    following = "null" if whole_page else json_value.encode_string(page[-1].key)
    items = ",".join(map(_record_text, page))
    body = f'{{"items":[{items}],"next":{following}}}'.encode()
    return Answer(body, headers={"Cache-Control": NO_CACHE})


async def dump(node: Node, request: Request) -> Answer:
    """`GET /dump`: every key and value that this node holds, streamed."""
    parameters(request)

    async def chunks() -> AsyncIterator[bytes]:
        opening = "{"
        async with node.dumps:
            async for page in node.pages_by_key():
                if pairs := encode_map(page):
                    yield f"{opening}{pairs}".encode()
                    opening = ","
        yield b"{}" if opening == "{" else b"}"

    return Answer(chunks(), headers={"Cache-Control": NO_CACHE})


def _check_least_size(body: bytes, field: str, most: int, with_frame: int) -> None:
    """Raises TooLarge if what is in the body is larger for certain, without decoding it."""
    if len(body) > with_frame and least_encoded_bytes(body) > with_frame:
        raise TooLarge(f"{field}: expected at most {most} bytes of JSON, got more", field=field)


def check_value_size(node: Node, value: str, field: str) -> None:
    """Raises TooLarge if the encoded value is over MAX_VALUE_BYTES."""
    size, most = size_of(value), node.config.max_value_bytes
    if size > most:
        raise TooLarge(f"{field}: expected at most {most} bytes of JSON, got {size}", field=field)


def precondition_of(request: Request) -> Precondition:
    """What `If-Match` and `If-None-Match` ask for. Raises InvalidParameter."""
    match, none_match = (request.headers.get(name) for name in ("if-match", "if-none-match"))
    if match is not None and none_match is not None:
        raise InvalidParameter("expected If-Match or If-None-Match, got both", field="If-Match")
    if none_match is not None:
        if none_match.strip() != "*":
            raise InvalidParameter("If-None-Match: expected *", field="If-None-Match")
        return ABSENT
    if match is None:
        return ANYTHING
    if match.strip() == "*":
        return PRESENT
    # A weak tag is taken for the version that it names: proxies that compress make one of a strong one,
    # and here no two writes share a tag, so nothing else can be meant.
    tags = [re.fullmatch(r'\s*(?:W/)?"([^"]*)"\s*', tag) for tag in match.split(",")]
    try:
        return match_versions([Version.parse(tag[1] if tag else "") for tag in tags])
    except ValueError:
        raise InvalidParameter(
            'If-Match: expected * or versions in quotes, like "3.0f4c2a9d81e7-1700000000000000"',
            field="If-Match",
        ) from None


def _operations(node: Node, body: bytes) -> list[Operation]:
    """The operations of a batch. Raises MalformedJson, InvalidBody, InvalidKey, TooLarge."""
    plain = canonical.operations(body)
    if plain is None:
        bodies = decode_body(body, OperationsBody).operations
        _check_count(len(bodies))
        return [_operation(node, one, f"operations[{i}]") for i, one in enumerate(bodies)]
    _check_count(len(plain))
    if len(body) > node.config.max_value_bytes:  # else no value in it is
        for index, (_, value) in enumerate(plain):
            check_value_size(node, value, f"operations[{index}].value")
    return [Operation(key, value) for key, value in plain]


def _check_count(count: int) -> None:
    """Raises InvalidBody."""
    if not 1 <= count <= MAX_BATCH_OPERATIONS:
        raise InvalidBody(
            f"operations: expected 1 to {MAX_BATCH_OPERATIONS}, got {count}", field="operations"
        )


def _operation(node: Node, body: OperationBody, field: str) -> Operation:
    check_key(body.key, f"{field}.key")
    if (body.op == "put") is (body.value is msgspec.UNSET):
        expected = "a value" if body.op == "put" else "no value with delete"
        raise InvalidBody(f"{field}.value: expected {expected}", field=f"{field}.value")
    value = ""
    if body.op == "put":
        value = json_value.encode(body.value, f"{field}.value")
        check_value_size(node, value, f"{field}.value")
    if body.if_version is msgspec.UNSET:
        return Operation(body.key, value)
    if body.if_version is None:
        return Operation(body.key, value, ABSENT)
    try:
        return Operation(body.key, value, match_versions([Version.parse(str(body.if_version))]))
    except ValueError as error:
        name = f"{field}.if_version"
        raise InvalidBody(f"{name}: {error}", field=name) from None


def _consistency(text: str) -> str:
    if text not in ("local", "linearizable"):
        raise ValueError("local or linearizable")
    return text


def _timeout_ms(text: str) -> int:
    return whole(1, MAX_READ_TIMEOUT_MS)(text)


def key_text(text: str) -> str:
    if len(text.encode()) > MAX_KEY_BYTES:
        raise ValueError(f"at most {MAX_KEY_BYTES} bytes of UTF-8")
    return text


def _pair_text(key: str, value: str) -> str:
    """An object with a key and a value in it, its end left open."""
    return f'{{"key":{json_value.encode_string(key)},"value":{value}'


def _record_text(record: Record) -> str:
    return f'{_pair_text(record.key, record.value)},"version":"{record.version}"}}'


def _write_answer(text: str, confirmed: Write, asked: dict[str, Any]) -> Answer:
    """The answer to a confirmed write, from an object whose end is left open."""
    issued = str(confirmed.version)
    headers = {"ETag": f'"{issued}"'}
    text += f',"version":"{issued}","follower_acks":{confirmed.confirmed_by},"quorum_met":true'
    if asked.get("trace"):
        headers[timing.HEADER] = timing.server_timing(confirmed.trace)
        text += f',"trace":{json_value.encode(_rounded(confirmed.trace), "trace")}'
    return Answer(f"{text}}}".encode(), headers=headers)


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
