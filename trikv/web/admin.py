"""What operators and teachers ask and change: health, quorum, lag, the state of the replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio

from trikv import __version__, jsonvalue, logs
from trikv.errors import InvalidBody
from trikv.lag import LagRange, lag_problem
from trikv.leader import Leader
from trikv.link import Link
from trikv.messages import LagBody, QuorumBody, decode_body, encode_map
from trikv.node import Node
from trikv.parity import SHOWN_KEYS, Replica, compare
from trikv.quorum import write_quorum_problem
from trikv.version import Record
from trikv.web.exchange import Answer, Request, answer, boolean, parameters


async def health(node: Node, request: Request) -> Answer:
    """`GET /health[?ready=true]`: alive, and on request whether it can serve."""
    asked = parameters(request, ready=boolean)
    ready = node.leader is None or node.leader.ready
    told: dict[str, Any] = {
        "status": "ok",
        "role": node.config.role,
        "node_id": node.config.node_id,
        "url": node.url,
        "ready": ready,
        "software_version": __version__,
        "epoch": str(node.epoch),
    }
    if (leader := node.leader) is not None:
        told |= {
            "write_quorum": leader.write_quorum,
            "followers": len(leader.links),
            "live_links": leader.live_links,
            "inflight_writes": leader.inflight_writes,
            "lag": _lag(leader),
        }
    elif node.follower is not None and node.follower.leader is not None:
        told["leader"] = node.follower.leader
    return answer(told, 503 if asked.get("ready") and not ready else 200)


async def set_quorum(node: Node, request: Request) -> Answer:
    """`POST /admin/quorum`: for all writes that begin from now on."""
    leader = node.require_leader()
    parameters(request)
    asked = decode_body(request.body, QuorumBody).write_quorum
    if problem := write_quorum_problem(asked, len(leader.links)):
        raise InvalidBody(f"write_quorum: {problem}, got {asked}", field="write_quorum")
    previous, leader.write_quorum = leader.write_quorum, asked
    logs.info("quorum.changed", write_quorum=asked, previous_write_quorum=previous)
    return answer({"write_quorum": asked, "previous_write_quorum": previous})


async def set_lag(node: Node, request: Request) -> Answer:
    """`POST /admin/lag`: for all followers, or for one by node id or URL."""
    leader = node.require_leader()
    parameters(request)
    asked = decode_body(request.body, LagBody)
    lag = LagRange(asked.min_delay_ms, asked.max_delay_ms)
    if problem := lag_problem(lag):
        raise InvalidBody(f"min_delay_ms, max_delay_ms: {problem}", field="max_delay_ms")
    link = None if asked.follower is None else _find_link(leader, asked.follower)
    leader.lag.set(lag, None if link is None else link.url)
    logs.info("lag.changed", follower=link.url if link else "all", **lag._asdict())
    return answer(_lag(leader))


async def replica_status(node: Node, request: Request) -> Answer:
    """`GET /admin/replica-status[?data=true]`: every follower beside the leader."""
    leader = node.require_leader()
    show: bool = parameters(request, data=boolean).get("data", False)
    own = await node.digest()
    timeout_s = node.config.request_timeout_s
    replicas: dict[str, Replica] = {}

    async def look_at(link: Link) -> None:
        replicas[link.url] = await compare(node, own, link, timeout_s, show)

    async with trio.open_nursery() as nursery:
        for link in leader.links:
            nursery.start_soon(look_at, link)
    data = await _own_data(node) if show or own.records <= SHOWN_KEYS else None
    head = jsonvalue.encode(
        {
            "node_id": node.config.node_id,
            "epoch": str(leader.epoch),
            "write_quorum": leader.write_quorum,
            "records": own.records,
            "digest": own.text,
        },
        "leader",
    )
    followers = ",".join(_follower(link, replicas[link.url]) for link in leader.links)
    return Answer(f'{{"leader":{_with_data(head, data)},"followers":[{followers}]}}'.encode())


async def _own_data(node: Node) -> list[Record]:
    return [record async for page in node.pages_by_key() for record in page]


def _follower(link: Link, replica: Replica) -> str:
    told = {
        "url": link.url,
        "node_id": link.node_id,
        "status": replica.status,
        "link": link.state,
        "link_reason": link.reason,
        "lag_records": link.held_records,
        "lag_ms": round(link.lag_ms, 3),
        "records": replica.records,
        "digest": replica.digest,
        "differing_keys": list(replica.differing_keys),
        "differing_keys_total": replica.differing_keys_total,
        "error": replica.error,
    }
    return _with_data(jsonvalue.encode(told, "follower"), replica.data)


def _with_data(encoded: str, data: Sequence[Record] | None) -> str:
    """An encoded object with a field `data` more: values are encoded already."""
    shown = "null" if data is None else f"{{{encode_map(data)}}}"
    return f'{encoded[:-1]},"data":{shown}}}'


def _lag(leader: Leader) -> dict[str, Any]:
    followers = [
        {"url": link.url, "node_id": link.node_id, **leader.lag.of[link.url]._asdict()}
        for link in leader.links
    ]
    return {**leader.lag.default._asdict(), "followers": followers}


def _find_link(leader: Leader, name: str) -> Link:
    """The link to a follower, by node id or URL. Raises InvalidBody."""
    for link in leader.links:
        if name in (link.url, link.node_id):
            return link
    known = ", ".join(link.node_id or link.url for link in leader.links) or "none"
    raise InvalidBody(f"follower: expected one of {known}, got {name!r}", field="follower")
