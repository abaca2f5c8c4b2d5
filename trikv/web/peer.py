"""What nodes ask of each other: replicate, compare."""

from __future__ import annotations

from trikv.errors import InvalidBody
from trikv.model.membership import KEY
from trikv.model.node_state import facts_of
from trikv.model.record import Record
from trikv.model.version import Epoch, is_instance
from trikv.network.peers import Candidate
from trikv.node.node import SCAN_BYTES, SCAN_RECORDS, Node
from trikv.protocol.messages import (
    PromiseAnswer,
    PromiseBody,
    ReplicaAnswer,
    ReplicateAnswer,
    decode_epoch,
    decode_replicate,
    encode_records_page,
    wire_record,
)
from trikv.protocol.requests import decode_body
from trikv.replication.follower import check_promised
from trikv.web.exchange import NO_STORE, Answer, Request, answer, parameters, version, whole


async def replicate(node: Node, request: Request) -> Answer:
    """`POST /replicate`: a leader's batch, or the lab's plain form; answered once on disk."""
    follower = node.require_follower()
    parameters(request)
    message = decode_replicate(request.body)
    if isinstance(message, Record):
        await follower.merge_plain(message)
        return answer({"status": "ok"})
    epoch = await follower.merge_batch(message)
    watched = len(node.watches) > 0 or follower.waiting > 0
    return answer(ReplicateAnswer("ok", node.config.node_id, str(epoch), watched))


async def replica(node: Node, request: Request) -> Answer:
    """`GET /replica`: what this node holds, in short."""
    parameters(request)
    digest = await node.digest()
    facts = facts_of(node.store.state)
    told = ReplicaAnswer(
        records=digest.records, digest=digest.text, size_bytes=digest.size_bytes, **facts
    )
    return answer(told)


async def promise(node: Node, request: Request) -> Answer:
    """`POST /replica/promise`: take no lower epoch from now on; what this node is and knows."""
    parameters(request)
    body = decode_body(request.body, PromiseBody)
    epoch = decode_epoch(body.epoch)
    for field, text in (("instance", body.instance), ("cluster", body.cluster)):
        if not is_instance(text) and (text or field == "instance"):
            raise InvalidBody(f"{field}: expected 1 to 32 digits and small letters", field=field)
    state = await node.promise(Candidate(body.leader, body.instance, body.cluster, epoch))
    record = node.store.get(KEY)
    configuration = None if record is None else wire_record(record)
    return answer(
        PromiseAnswer(
            **facts_of(state), follows=node.follower is not None, configuration=configuration
        )
    )


async def replica_records(node: Node, request: Request) -> Answer:
    """`GET /replica/records?after=&limit=&epoch=`: the map in version order, a page at a time.

    With an epoch, only while that is what this node has promised: nobody else has written then, and
    its disk was not emptied since.
    """
    asked = parameters(request, after=version, limit=whole(1, SCAN_RECORDS), epoch=_epoch)
    limit: int = asked.get("limit", SCAN_RECORDS)
    page = await node.page_by_version(asked.get("after"), limit, SCAN_BYTES)
    if (epoch := asked.get("epoch")) is not None:
        check_promised(node.store.state, epoch)
    body = encode_records_page(page, page[-1].version if page else None)
    return Answer(body, headers={"Cache-Control": NO_STORE})


def _epoch(text: str) -> Epoch:
    try:
        return Epoch.parse(text)
    except ValueError:
        raise ValueError("an epoch like 3.0f4c2a9d81e7") from None
