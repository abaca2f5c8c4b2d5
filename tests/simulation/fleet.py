"""Nodes in one process that can crash, start again in another role, lose their disks, be cut off.

What a node has committed outlives it: its store is in memory and is handed to its next start. A crash
takes the node off the network at once and cancels all its tasks.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import trio

from tests.support import MemoryNetwork, call, dump, lone_leaf, open_memory_node, read_body, until
from trikv.config import Config
from trikv.errors import PeerFailed
from trikv.lag import LagRange
from trikv.node import Node
from trikv.store import Store

#: How late a request may come a second time.
LATE_S = 8.0

Answered = tuple[int, dict[str, Any]]


class KeptStore(Store):
    """A store in memory that outlives its node."""

    def __init__(self) -> None:
        super().__init__(None, "fsync")

    def close(self) -> None:
        """It is kept."""

    def throw_away(self) -> None:
        super().close()


class Fleet:
    """Nodes by their names; each is at `http://NAME`."""

    def __init__(self, nursery: trio.Nursery, names: list[str], seed: int) -> None:
        self.names = names
        self.network = MemoryNetwork(before=self._carry, after=self._carry)
        self.nodes: dict[str, Node] = {}
        self.stores = {name: KeptStore() for name in names}
        self.cut: set[frozenset[str]] = set()
        """Pairs of names between which nothing travels."""
        self.rng = random.Random(seed)
        self.loss = 0.0
        self.delay_s = 0.0
        self.doubling = 0.0
        """How many requests come a second time, up to `LATE_S` later."""
        self.nursery = nursery
        self._scopes: dict[str, trio.CancelScope] = {}

    async def _carry(self, url: str, target: str, body: bytes | None) -> None:
        if self.delay_s:
            await trio.sleep(self.rng.uniform(0, self.delay_s))
        if self.rng.random() < self.loss:
            raise PeerFailed(f"{url}{target}: lost")

    async def start(self, name: str, *, leads: bool = False, **settings: Any) -> Node:
        """Start a node that is down; a leader has all the others as its followers."""
        others = [
            f"http://{other}" for other in settings.pop("others", self.names) if other != name
        ]
        config = Config(
            role="leader" if leads else "follower",
            node_id=name,
            follower_urls=tuple(others) if leads else (),
            lag=LagRange(0, 0),
            **{"write_quorum": 0, "request_timeout_s": 1.0, "write_timeout_s": 5.0, **settings},
        )
        node: Node = await self.nursery.start(self._run, name, config)
        return node

    async def _run(self, name: str, config: Config, *, task_status: trio.TaskStatus[Node]) -> None:
        network = _From(self, name)
        try:
            with trio.CancelScope() as scope:
                self._scopes[name] = scope
                async with open_memory_node(
                    config,
                    network,  # type: ignore[arg-type]
                    f"http://{name}",
                    store=self.stores[name],
                    seed=self.rng.randrange(2**32),
                    leads=False,
                ) as node:
                    self.nodes[name] = node
                    task_status.started(node)
                    await trio.sleep_forever()
        except BaseExceptionGroup as group:
            raise lone_leaf(group) from None

    def crash(self, name: str) -> None:
        """Kill it: no `finally` of its reaches anyone."""
        self.nodes.pop(name, None)
        self.network.nodes.pop(f"http://{name}", None)
        self._scopes.pop(name).cancel()

    def wipe(self, name: str) -> None:
        """Empty the disk of a node that is down."""
        self.stores[name].throw_away()
        self.stores[name] = KeptStore()

    async def wait_leads(self, name: str, timeout_s: float = 60) -> None:
        await until(lambda: self.nodes[name].leader is not None, timeout_s)

    async def wait_live(self, name: str, links: int, timeout_s: float = 60) -> None:
        await self.wait_leads(name, timeout_s)
        await until(lambda: self.nodes[name].require_leader().live_links == links, timeout_s)

    async def wait_quiet(self, name: str, timeout_s: float = 60) -> None:
        """Until every link of this leader is live, and all that there is has arrived."""

        def quiet() -> bool:
            leader = self.nodes[name].leader
            return leader is not None and all(
                link.live and link.stored_us == leader.resolved_us for link in leader.links
            )

        await until(quiet, timeout_s)

    async def ask(
        self, name: str, method: str, target: str, content: Any = None, key: str = ""
    ) -> Answered:
        """One request of a client's; status 0 if the node is down, or goes down meanwhile."""
        node = self.nodes.get(name)
        if node is None:
            return 0, {}
        body = b"" if content is None else msgspec.json.encode(content)
        scope = self._scopes[name]
        given = None
        with trio.CancelScope() as client:
            async with trio.open_nursery() as nursery:

                async def watch() -> None:
                    await until(lambda: scope.cancel_called, 10**6)
                    client.cancel()

                nursery.start_soon(watch)
                given = await call(node, method, target, body, key)
                nursery.cancel_scope.cancel()
        if given is None:
            return 0, {}
        return given.status, msgspec.json.decode(await read_body(given))

    async def put(self, name: str, key: str, value: Any) -> Answered:
        return await self.ask(name, "PUT", "/kv/{key}", {"value": value}, key)

    async def dumps(self) -> dict[str, Any]:
        return {name: await dump(node) for name, node in sorted(self.nodes.items())}

    async def assert_equal(self) -> None:
        """All nodes that are up hold the same live records."""
        dumps = await self.dumps()
        digests = {name: await node.digest() for name, node in self.nodes.items()}
        assert len(set(digests.values())) == 1, (digests, dumps)


class _From:
    """The network as one node sees it: it knows who asks."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self._fleet = fleet
        self._name = name

    @property
    def nodes(self) -> dict[str, Node]:
        return self._fleet.network.nodes

    async def request(self, method: str, url: str, body: bytes | None = None, **how: Any) -> Any:
        other = url.split("/")[2]
        fleet = self._fleet
        if frozenset((self._name, other)) in fleet.cut:
            await trio.sleep(how["timeout_s"])
            raise PeerFailed(f"{url}: no answer")
        if fleet.rng.random() < fleet.doubling:
            fleet.nursery.start_soon(self._again, method, url, body)
        reply = await fleet.network.request(method, url, body, **how)
        if frozenset((self._name, other)) in fleet.cut or self._name not in fleet.nodes:
            raise PeerFailed(f"{url}: the answer is lost")
        return reply

    async def _again(self, method: str, url: str, body: bytes | None) -> None:
        await trio.sleep(self._fleet.rng.uniform(0, LATE_S))
        with suppress(PeerFailed):
            await self._fleet.network.request(method, url, body, timeout_s=5)


@asynccontextmanager
async def open_fleet(
    followers: int = 5, *, write_quorum: int = 3, seed: int = 0, started: bool = True
) -> AsyncIterator[Fleet]:
    """Nodes n0, n1, …; n0 leads, and all links are live, unless they are not to be started."""
    names = [f"n{i}" for i in range(followers + 1)]
    try:
        async with trio.open_nursery() as nursery:
            fleet = Fleet(nursery, names, seed)
            if started:
                for name in names[1:]:
                    await fleet.start(name)
                await fleet.start(names[0], leads=True, write_quorum=write_quorum)
                await fleet.wait_live(names[0], followers)
            yield fleet
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise lone_leaf(group) from None
