"""The network of a simulation: delays, losses, duplicates, cuts, and ends that die meanwhile.

A request travels to a node, is served there in a task of that node, and its answer travels back. Each
way takes a while of its own, so that requests overtake each other; each can be lost, noticed or not. A
sender that waits no longer leaves its request behind: the other end may notice, and stop, or may not.
A request can come a second time, up to `LATE_S` later. Nodes may be cut off in one direction only.

`before` and `after` let a test look at each request at its arrival, and at its answer.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol
from urllib.parse import urlsplit

import trio

from tests.support import call, read_body
from trikv.errors import PeerFailed
from trikv.network.transport import Reply
from trikv.node.node import Node

#: How late a request may come a second time.
LATE_S = 8.0

Hook = Callable[[str, str, bytes | None], Awaitable[None]]
Note = Callable[[str, bytes | None], None]


class End(Protocol):
    """A node's end of its wires, for as long as it lives."""

    @property
    def dead(self) -> bool: ...
    @property
    def requests(self) -> trio.Nursery: ...


#: Whose task this is.
OWNER: ContextVar[Any] = ContextVar("OWNER", default=None)


@dataclass
class _Served:
    """A request that a node works on."""

    done: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    reply: Reply | None = None


class Network:
    def __init__(self, nursery: trio.Nursery, rng: random.Random, note: Note) -> None:
        self.nodes: dict[str, Node] = {}
        """Who answers at a URL."""
        self.ends: dict[int, End] = {}
        """By `id` of the node."""
        self.seen: list[tuple[str, str, bytes | None]] = []
        self.before: Hook | None = None
        self.after: Hook | None = None
        self.cut: set[frozenset[str]] = set()
        """Pairs of names between which nothing travels."""
        self.cut_one_way: set[tuple[str, str]] = set()
        self.blocked: set[tuple[str, str]] = set()
        """Pairs of which the first reaches the second with answers only, as behind a firewall."""
        self.rejects = False
        """Whether a cut is noticed at once."""
        self.held: dict[tuple[str, str], trio.Event] = {}
        """Requests wait at a node for these events, by the node and how their targets begin."""
        self.loss = 0.0
        self.silence = 0.0
        """How many of the losses nobody notices until time is up."""
        self.delay_s = 0.0
        self.doubling = 0.0
        self.requests = 0
        self.faults = 0
        """Requests and answers that were lost, came to a cut, or twice."""
        self._nursery = nursery
        self._rng = rng
        self._note = note
        self._numbers = count()

    async def request(
        self,
        sender: str,
        method: str,
        url: str,
        body: bytes | None = None,
        *,
        timeout_s: float,
        key: str = "",
        headers: Mapping[str, str] | None = None,
        may_double: bool = True,
    ) -> Reply:
        """One request and its answer. Raises PeerFailed."""
        parts = urlsplit(url)
        base = f"{parts.scheme}://{parts.netloc}"
        target, name = url.removeprefix(base), parts.netloc
        number = next(self._numbers)
        self.requests += 1
        self.seen.append((base, target, body))
        self._note(f"#{number} {sender} > {name} {method} {target} {key}", body)
        try:
            with trio.fail_after(timeout_s):
                if (sender, name) in self.blocked:
                    await self._meet_cut(name)
                await self._travel(sender, name)
                await self._wait_if_held(name, target)
                if self.before is not None:
                    await self.before(base, target, body)
                if may_double and self.doubling and self._rng.random() < self.doubling:
                    self.faults += 1
                    self._nursery.start_soon(self._again, method, base, target, body)
                reply = await self._deliver(method, base, target, body, key, headers)
                if self.after is not None:
                    await self.after(base, target, body)
                await self._travel(name, sender)
        except trio.TooSlowError:
            self._note(f"#{number} no answer", None)
            raise PeerFailed(f"{url}: no answer within {timeout_s:g} s") from None
        except PeerFailed as failure:
            self._note(f"#{number} failed: {failure.detail}", None)
            raise
        self._note(f"#{number} answered {reply.status}", reply.body)
        return reply

    async def _travel(self, sender: str, receiver: str) -> None:
        if self.delay_s:
            await trio.sleep(self._rng.uniform(0, self.delay_s))
        if frozenset((sender, receiver)) in self.cut or (sender, receiver) in self.cut_one_way:
            await self._meet_cut(receiver)
        if self.loss and self._rng.random() < self.loss:
            self.faults += 1
            await self._lose(f"{receiver}: lost")

    async def _meet_cut(self, receiver: str) -> None:
        self.faults += 1
        if self.rejects:
            raise PeerFailed(f"{receiver}: connection refused")
        await trio.sleep_forever()

    async def _wait_if_held(self, name: str, target: str) -> None:
        for (node, beginning), released in list(self.held.items()):
            if node == name and target.startswith(beginning):
                await released.wait()

    def hold(self, name: str, beginning: str) -> None:
        """Let requests wait before this node, until `release`, or until their senders give up."""
        self.held.setdefault((name, beginning), trio.Event())

    def release(self, name: str, beginning: str = "") -> None:
        for node, held in [*self.held]:
            if node == name and held.startswith(beginning):
                self.held.pop((node, held)).set()

    def heal(self) -> None:
        """Nothing is cut, blocked or held."""
        self.cut.clear()
        self.cut_one_way.clear()
        self.blocked.clear()
        for name, _ in [*self.held]:
            self.release(name)

    async def _lose(self, what: str) -> None:
        if self.silence and self._rng.random() < self.silence:
            await trio.sleep_forever()
        raise PeerFailed(what)

    async def _deliver(
        self,
        method: str,
        base: str,
        target: str,
        body: bytes | None,
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        node = self.nodes.get(base)
        if node is None:
            raise PeerFailed(f"{base}{target}: nobody listens")
        end, served = self.ends[id(node)], _Served()
        end.requests.start_soon(self._serve, node, served, method, target, body, key, headers)
        try:
            await served.done.wait()
        except trio.Cancelled:
            if self._rng.random() < 0.5:
                served.scope.cancel()
            raise
        if served.reply is None:
            await self._lose(f"{base}{target}: the other end is gone")
        assert served.reply is not None
        return served.reply

    async def _serve(
        self,
        node: Node,
        served: _Served,
        method: str,
        target: str,
        body: bytes | None,
        key: str,
        headers: Mapping[str, str] | None,
    ) -> None:
        end = self.ends[id(node)]
        OWNER.set(end)
        try:
            with served.scope:
                given = await call(node, method, target, body, key, headers)
                reply = Reply(given.status, await read_body(given))
                if not end.dead:
                    served.reply = reply
        finally:
            served.done.set()

    async def _again(self, method: str, base: str, target: str, body: bytes | None) -> None:
        await trio.sleep(self._rng.uniform(0, LATE_S))
        self._note(f"again {base} {method} {target}", body)
        with suppress(PeerFailed), trio.move_on_after(5):
            await self._deliver(method, base, target, body)
