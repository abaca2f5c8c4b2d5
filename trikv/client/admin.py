"""`AdminClient`: what operators ask and change, with the client's ways of finding who can do it.

It is a `Client` that also speaks the routes under `/admin` and `/health`. The command line is built
on it; it is not among the client's public names, since what it gives are the documents of docs/api.md
as they come.

Rules
- What sets something to a state (a lag, a wire) is asked again whatever happened to the request: twice
  is as good as once.
- A change of the quorum is a write: one whose answer was lost may be in force, or come into force.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trikv.client import wire
from trikv.client.aio import Client
from trikv.client.calls import READ_ATTEMPT_S, Call, Steps, ask_leader
from trikv.client.errors import Unavailable
from trikv.client.nodes import node_url
from trikv.client.wire import Meaning, Reading, Request
from trikv.protocol import json_value

Document = Mapping[str, Any]


class AdminClient(Client):
    """A client for operators. Each call may take `timeout_s` seconds, retries included."""

    @property
    def urls(self) -> tuple[str, ...]:
        """The nodes that it was given, each in one form."""
        return self._plans.nodes.urls

    async def health(self, url: str, *, timeout_s: float | None = None) -> Document:
        """One node's `GET /health`, asked once. Raises Unavailable, Refused, ValueError."""
        call = self._plans.call(timeout_s)
        return await self._run(ask_node(call, node_url(url), wire.get_request("/health")))

    async def replica_status(self, *, timeout_s: float | None = None) -> Document:
        """The leader's `GET /admin/replica-status`. Raises Refused, Unavailable."""
        request = wire.get_request("/admin/replica-status")
        return await self._ask_leader(request, timeout_s, repeatable=True)

    async def set_quorum(
        self, write_quorum: int, *, force: bool = False, timeout_s: float | None = None
    ) -> Document:
        """Change the write quorum. Raises Refused, Unavailable (nothing was changed),
        OutcomeUnknown."""
        body: dict[str, Any] = {"write_quorum": write_quorum}
        if force:
            body["force"] = True
        return await self._ask_leader(_post("quorum", body), timeout_s, repeatable=False)

    async def set_lag(
        self,
        min_ms: float,
        max_ms: float,
        *,
        follower: str | None = None,
        timeout_s: float | None = None,
    ) -> Document:
        """Change the simulated lag, of all followers or of one. Raises Refused, Unavailable."""
        body: dict[str, Any] = {"min_delay_ms": min_ms, "max_delay_ms": max_ms}
        if follower is not None:
            body["follower"] = follower
        return await self._ask_leader(_post("lag", body), timeout_s, repeatable=True)

    async def set_cut(
        self, follower: str, cut: bool, *, timeout_s: float | None = None
    ) -> Document:
        """Cut the wire to a follower, or heal it. Raises Refused, Unavailable."""
        body = {"follower": follower, "cut": cut}
        return await self._ask_leader(_post("partition", body), timeout_s, repeatable=True)

    async def _ask_leader(
        self, request: Request, timeout_s: float | None, *, repeatable: bool
    ) -> Document:
        return await self._run(administer(self._plans.call(timeout_s), request, repeatable))


def _post(route: str, body: dict[str, Any]) -> Request:
    text = json_value.encode(body, "body")
    return Request("POST", f"/admin/{route}", text.encode(), {"content-type": "application/json"})


def ask_node(call: Call, node: str, request: Request) -> Steps[Document]:
    """What this node says, asked once. Raises Unavailable, Refused."""
    reading = yield from call.send(node, lambda *_: request)
    if reading.meaning in (Meaning.DONE, Meaning.REFUSED):
        return _done(reading)
    raise Unavailable(reading.detail, code=reading.code, status=reading.status, node=node)


def administer(call: Call, request: Request, repeatable: bool) -> Steps[Document]:
    """What the leader says. Raises Refused, Unavailable, and unless `repeatable` OutcomeUnknown."""
    # Comparing replicas may take as long as the leader waits for a follower that hangs.
    attempt_s = max(READ_ATTEMPT_S, call.left_s / 2) if repeatable else None
    reading = yield from ask_leader(call, lambda *_: request, attempt_s, read=repeatable)
    if reading.meaning is Meaning.UNKNOWN:
        raise wire.outcome_unknown(reading)
    return _done(reading)


def _done(reading: Reading) -> Document:
    if reading.meaning is Meaning.REFUSED:
        raise wire.refusal(reading)
    return reading.document
