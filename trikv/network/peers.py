"""What one node asks of another, beside sending it batches: a promise, a look at its state, its map.

A node that is down, slow, cut off or babbling is one error, PeerFailed; one that has promised a higher
epoch than the one that asks is another, Superseded.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple

import msgspec

from trikv.errors import BadRequest, PeerFailed, Superseded
from trikv.model.membership import KEY, Configuration, decode
from trikv.model.node_state import NodeState
from trikv.model.record import Record
from trikv.model.version import NO_VERSION, Epoch, Version
from trikv.network.transport import Reply, Transport
from trikv.protocol.messages import (
    LeaderName,
    PromiseAnswer,
    PromiseBody,
    RecordsAnswer,
    ReplicaAnswer,
    decode_record,
)
from trikv.protocol.requests import S, decode_body

#: What a node answers is cut to this length where it is quoted.
EXCERPT_BYTES = 300


class Candidate(NamedTuple):
    """Who asks for promises, and for which epoch."""

    name: LeaderName
    instance: str
    cluster: str
    epoch: Epoch


class Promised(NamedTuple):
    """A node that has promised: what it is, and the configuration that it knows."""

    state: NodeState
    follows: bool
    configuration: tuple[Version, Configuration] | None


class Remote:
    """Another node. Each call raises PeerFailed, and Superseded where it asks for an epoch."""

    def __init__(self, transport: Transport, url: str, timeout_s: float) -> None:
        self.url = url
        self._transport = transport
        self._timeout_s = timeout_s

    async def promise(self, candidate: Candidate) -> Promised:
        """Have it promise the candidate's epoch. The connection is not used again after."""
        name, instance, cluster, epoch = candidate
        body = msgspec.json.encode(PromiseBody(name, instance, cluster, str(epoch)))
        url = f"{self.url}/replica/promise"
        reply = await self._transport.request(
            "POST", url, body, timeout_s=self._timeout_s, last_on_connection=True
        )
        answer = decode_reply(url, reply, PromiseAnswer)
        try:
            state = answer.state()
            configuration = None
            if answer.configuration is not None:
                record = decode_record(answer.configuration, "configuration")
                configuration = (record.version, decode(record.value))
        except (ValueError, BadRequest) as error:
            raise PeerFailed(f"{url}: not a node's answer: {error}") from None
        if state.promised != epoch:
            raise PeerFailed(f"{url}: asked to promise {epoch}, it promised {state.promised}")
        return Promised(state, answer.follows, configuration)

    async def summary(self) -> ReplicaAnswer:
        return await self._get("/replica", ReplicaAnswer)

    async def pages(
        self, after: Version = NO_VERSION, epoch: Epoch | None = None
    ) -> AsyncGenerator[list[Record]]:
        """Its records after a version, in version order, page by page.

        With an `epoch`, only as long as that is what it has promised.
        """
        fixed = "" if epoch is None else f"&epoch={epoch}"
        while True:
            path = f"/replica/records?after={after}{fixed}"
            page = await self._get(path, RecordsAnswer)
            try:
                records = [decode_record(record, "record") for record in page.records]
                following = None if page.next is None else Version.parse(page.next)
            except (ValueError, BadRequest) as error:
                raise PeerFailed(f"{self.url}{path}: {error}") from None
            if records:
                yield records
            if following is None:
                return
            if following <= after:
                raise PeerFailed(f"{self.url}{path}: it goes on after {following}, not further")
            after = following

    async def _get(self, path: str, kind: type[S]) -> S:
        url = self.url + path
        return decode_reply(
            url, await self._transport.request("GET", url, timeout_s=self._timeout_s), kind
        )


class _Refusal(msgspec.Struct):
    """The fields of a problem document that matter between nodes."""

    code: str = ""
    promised: str = ""
    detail: str = ""


def decode_reply(url: str, reply: Reply, kind: type[S]) -> S:
    """What a node answered. Raises Superseded or PeerFailed if it refused, PeerFailed if it babbled."""
    if reply.status != 200:
        try:
            refusal = msgspec.json.decode(reply.body, type=_Refusal)
            if refusal.code == "stale_epoch":
                promised = Epoch.parse(refusal.promised)
                raise Superseded(f"{url}: {refusal.detail}", promised=promised)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
        raise PeerFailed(f"{url}: answered {reply.status}: {excerpt(reply.body)}")
    try:
        return decode_body(reply.body, kind)
    except BadRequest as error:
        raise PeerFailed(f"{url}: not a node's answer: {error.detail}") from None


def excerpt(body: bytes) -> str:
    return body[:EXCERPT_BYTES].decode("utf-8", "replace")


def configuration_in(record: Record | None) -> tuple[Version, Configuration] | None:
    """What a node's record of the configuration says. Raises ValueError if it is none."""
    if record is None or record.deleted:
        return None
    assert record.key == KEY
    return record.version, decode(record.value)
