"""What operators and teachers ask and change: health, quorum, lag, the state of the replicas."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

import trio

from trikv import __version__, log
from trikv.errors import InvalidBody, StorageFailed
from trikv.model.quorum import write_quorum_problem
from trikv.network.simulated_lag import LagRange, SimulatedLag, lag_problem
from trikv.node.node import Node
from trikv.observe.compare import (
    SHOWN_BYTES,
    SHOWN_UNASKED_BYTES,
    Replica,
    Shown,
    compare,
    is_small,
)
from trikv.protocol import json_value
from trikv.protocol.messages import encode_map
from trikv.protocol.requests import AdmitBody, LagBody, PartitionBody, QuorumBody, decode_body
from trikv.replication.leader import Leader
from trikv.replication.link import Link
from trikv.web.exchange import (
    NO_STORE,
    RETRY_AFTER_S,
    Answer,
    Request,
    answer,
    boolean,
    parameters,
)


async def health(node: Node, request: Request) -> Answer:
    """`GET /health[?ready=true][&leads=true]`: alive, and on request whether it can serve, or leads.

    Other parameters are ignored: some health checks add one.
    """
    known = {name: text for name, text in request.query.items() if name in ("ready", "leads")}
    asked = parameters(request._replace(query=known), ready=boolean, leads=boolean)
    waiting_for = node.waiting_for
    ready = not waiting_for
    told: dict[str, Any] = {
        "status": "ok",
        "role": node.config.role,
        "node_id": node.config.node_id,
        "url": node.url,
        "ready": ready,
        "waiting_for": waiting_for,
        "software_version": __version__,
        "cluster": node.store.state.cluster or None,
        "epoch": str(node.epoch),
    }
    if (leadership := node.leadership) is not None:
        leader = leadership.leader
        told |= {
            "leads": leader.deposed is None,
            "write_quorum": leader.write_quorum,
            "pending_write_quorum": leadership.reconfiguration.pending,
            "settled": leadership.reconfiguration.settled,
            "environment_write_quorum": node.config.write_quorum,
            "followers": len(leader.links),
            "live_links": leader.live_links,
            "inflight_writes": leader.inflight_writes,
            "lag": _lag(leader.lag, _names(leader)),
        }
    elif node.takeover is not None:
        told |= {
            "leads": False,
            "write_quorum": node.config.write_quorum,
            "pending_write_quorum": None,
            "settled": False,
            "environment_write_quorum": node.config.write_quorum,
            "followers": len(node.config.follower_urls),
            "live_links": 0,
            "inflight_writes": 0,
            "lag": _lag(SimulatedLag(node.config.lag, node.config.follower_urls, None), {}),
        }
    elif node.follower is not None and node.follower.leader is not None:
        told["leader"] = node.follower.leader
        heard_at = node.follower.heard_at or trio.current_time()
        told["leader_heard_ms"] = round((trio.current_time() - heard_at) * 1000)
    lacks = (asked.get("ready") and not ready) or (asked.get("leads") and not told.get("leads"))
    if lacks:
        return answer(told, 503, **{"Retry-After": str(RETRY_AFTER_S)})
    return answer(told)


async def set_quorum(node: Node, request: Request) -> Answer:
    """`POST /admin/quorum`: for all writes that begin from now on."""
    leadership = node.require_leadership()
    parameters(request)
    body = decode_body(request.body, QuorumBody)
    asked = body.write_quorum
    if problem := write_quorum_problem(asked, len(leadership.links)):
        raise InvalidBody(f"write_quorum: {problem}, got {asked}", field="write_quorum")
    previous = await leadership.reconfiguration.change(asked, force=body.force)
    told: dict[str, Any] = {"write_quorum": asked, "previous_write_quorum": previous}
    if body.force:
        told["warning"] = (
            f"in force at once, without the {previous} confirmations that it should have: if this "
            "leader is lost before its followers have the change, a takeover goes by the old quorum, "
            "and may miss what was confirmed under the new one"
        )
    return answer(told)


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
    log.info("lag.changed", follower=link.url if link else "all", **lag._asdict())
    return answer(_lag(leader.lag, _names(leader)))


async def partition(node: Node, request: Request) -> Answer:
    """`POST /admin/partition`: cut or heal the wire to one follower."""
    leadership = node.require_leadership()
    parameters(request)
    asked = decode_body(request.body, PartitionBody)
    link = _find_link(leadership.leader, asked.follower)
    (leadership.wires.cut if asked.cut else leadership.wires.heal)(link.url)
    link.nudge()
    log.info("wire.cut" if asked.cut else "wire.healed", follower=link.url)
    return answer({"url": link.url, "node_id": link.node_id, "cut": asked.cut})


async def admit(node: Node, request: Request) -> Answer:
    """`POST /admin/admit`: bring in a new node that waits for others to answer."""
    leadership = node.require_leadership()
    parameters(request)
    link = _find_link(leadership.leader, decode_body(request.body, AdmitBody).follower)
    leadership.admit_anyway(link)
    return answer({"url": link.url, "node_id": link.node_id, "admitted": True})


async def replica_status(node: Node, request: Request) -> Answer:
    """`GET /admin/replica-status[?data=true]`: every follower beside the leader."""
    node.require_leadership()
    show: bool = parameters(request, data=boolean).get("data", False)
    return await node.share(("replica-status", show), partial(_compare_all, node, show))


async def _compare_all(node: Node, show: bool) -> Answer:
    """Every follower beside the leader; with the data that there is room for, if `show`."""
    leadership = node.require_leadership()
    leader = leadership.leader
    own = await node.digest()
    show_bytes = SHOWN_BYTES // (len(leader.links) + 1) if show else None
    timeout_s = node.config.request_timeout_s
    replicas: dict[str, Replica] = {}

    failures: list[StorageFailed] = []

    async def look_at(link: Link) -> None:
        try:
            replicas[link.url] = await compare(node, own, link, timeout_s, show_bytes)
        except StorageFailed as failure:
            failures.append(failure)

    async with trio.open_nursery() as nursery:
        for link in leader.links:
            nursery.start_soon(look_at, link)
    if failures:
        raise failures[0]
    if show_bytes is None and is_small(own.records, own.size_bytes):
        show_bytes = SHOWN_UNASKED_BYTES
    data = None if show_bytes is None else await _own_data(node, show_bytes)
    head = json_value.encode(
        {
            "node_id": node.config.node_id,
            "epoch": str(leader.epoch),
            "write_quorum": leader.write_quorum,
            "records": own.records,
            "digest": own.text,
            "data_left_out": 0 if data is None else data.left_out(own.records),
        },
        "leader",
    )
    behind = {link.url: await leadership.lag_records(link) for link in leader.links}
    followers = ",".join(
        _follower(link, replicas[link.url], behind[link.url]) for link in leader.links
    )
    body = f'{{"leader":{_with_data(head, data)},"followers":[{followers}]}}'.encode()
    return Answer(body, headers={"Cache-Control": NO_STORE})


async def _own_data(node: Node, max_bytes: int) -> Shown:
    shown = Shown(max_bytes)
    async with aclosing(node.pages_by_key()) as pages:
        async for page in pages:
            for record in page:
                if not record.deleted:
                    shown.add(record)
            if shown.full:
                break
    return shown


def _follower(link: Link, replica: Replica, behind: int) -> str:
    told = {
        "url": link.url,
        "node_id": link.node_id,
        "status": replica.status,
        "link": link.state,
        "link_reason": link.reason,
        "lag_records": behind,
        "lag_ms": round(link.lag_ms, 3),
        "rate_records_s": round(link.rate_records_s, 1),
        "records": replica.records,
        "digest": replica.digest,
        "differing_keys": list(replica.differing_keys),
        "differing_keys_total": replica.differing_keys_total,
        "error": replica.error,
        "data_left_out": 0 if replica.data is None else replica.data.left_out(replica.records or 0),
    }
    return _with_data(json_value.encode(told, "follower"), replica.data)


def _with_data(encoded: str, data: Shown | None) -> str:
    """An encoded object with a field `data` more: values are encoded already."""
    shown = "null" if data is None else f"{{{encode_map(data.records.values())}}}"
    return f'{encoded[:-1]},"data":{shown}}}'


def _names(leader: Leader) -> dict[str, str | None]:
    return {link.url: link.node_id for link in leader.links}


def _lag(lag: SimulatedLag, names: Mapping[str, str | None]) -> dict[str, Any]:
    followers = [
        {"url": url, "node_id": names.get(url), **one._asdict()} for url, one in lag.of.items()
    ]
    return {**lag.default._asdict(), "followers": followers}


def _find_link(leader: Leader, name: str) -> Link:
    """The link to a follower, by node id or URL. Raises InvalidBody."""
    for link in leader.links:
        if name in (link.url, link.node_id):
            return link
    known = ", ".join(link.name for link in leader.links) or "none"
    raise InvalidBody(f"follower: expected one of {known}, got {name!r}", field="follower")
