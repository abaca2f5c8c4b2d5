"""What nodes ask of each other: replicate, compare."""

from __future__ import annotations

import re

from trikv.messages import (
    ReplicaAnswer,
    ReplicateAnswer,
    decode_replicate,
    encode_records_page,
)
from trikv.node import SCAN_BYTES, SCAN_RECORDS, Node
from trikv.version import Record, Version
from trikv.web.exchange import Answer, Request, answer, parameters


async def replicate(node: Node, request: Request) -> Answer:
    """`POST /replicate`: a leader's batch, or the lab's plain form; answered once on disk."""
    follower = node.require_follower()
    parameters(request)
    message = decode_replicate(request.body)
    if isinstance(message, Record):
        await follower.merge_plain(message)
        return answer({"status": "ok"})
    epoch = await follower.merge_batch(message)
    return answer(ReplicateAnswer("ok", node.config.node_id, str(epoch)))


async def replica(node: Node, request: Request) -> Answer:
    """`GET /replica`: what this node holds, in short."""
    parameters(request)
    digest = await node.digest()
    return answer(ReplicaAnswer(node.config.node_id, str(node.epoch), digest.records, digest.text))


async def replica_records(node: Node, request: Request) -> Answer:
    """`GET /replica/records?after=&limit=`: the map in version order, a page at a time."""
    asked = parameters(request, after=_version, limit=_limit)
    limit: int = asked.get("limit", SCAN_RECORDS)
    page = await node.page_by_version(asked.get("after"), limit, SCAN_BYTES)
    return Answer(encode_records_page(page, page[-1].version if page else None))


def _version(text: str) -> Version:
    try:
        return Version.parse(text)
    except ValueError:
        raise ValueError("a version like 3.0f4c2a9d81e7-1700000000000000") from None


def _limit(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= SCAN_RECORDS:
        raise ValueError(f"a whole number from 1 to {SCAN_RECORDS}")
    return int(text)
