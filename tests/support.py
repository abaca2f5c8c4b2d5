"""Whole clusters in one process: the real nodes on an in-memory network, for tests on a mock clock.

`MemoryNetwork` is a real implementation of the transport's seam: it calls the same handlers that the
server calls, looked up in the same table of routes. It can delay, drop and duplicate requests, lose
answers, and take nodes off the network; `seen` records what was asked of whom.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio
import trio.testing

from tests.answers import check_answer
from trikv.config import Config
from trikv.errors import PeerFailed, TrikvError
from trikv.model.node_state import NodeState
from trikv.model.version import Epoch, Version
from trikv.network.simulated_lag import LagRange
from trikv.network.transport import Reply
from trikv.node.node import Node, open_node
from trikv.replication.follower import Follower
from trikv.replication.leader import Leader
from trikv.storage.group_commit import Committer, run_inline
from trikv.storage.store import Store
from trikv.web.exchange import Answer, Request, problem, query_of
from trikv.web.routes import ROUTES

LEADER_URL = "http://leader"

_HANDLERS = {(route.method, route.path): route.handler for route in ROUTES}

Weather = Callable[[str, str, bytes | None], Awaitable[None]]


async def call(
    node: Node,
    method: str,
    target: str,
    body: bytes | None = None,
    key: str = "",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Ask a node as the server would: an answer or a problem document."""
    parts = urlsplit(target)
    query = query_of(parts.query.encode())
    request = Request(key=key, query=query, headers=headers or {}, body=body or b"")
    try:
        answer = await _HANDLERS[method, parts.path](node, request)
    except TrikvError as error:
        answer = problem(error)
    check_answer(method, parts.path, answer)
    return answer


async def read_body(answer: Answer) -> bytes:
    if isinstance(answer.body, bytes):
        return answer.body
    return b"".join([chunk async for chunk in answer.body])


async def put(node: Node, key: str, value: Any, query: str = "") -> tuple[int, dict[str, Any]]:
    """`PUT /kv/{key}`: the status and the decoded answer."""
    body = msgspec.json.encode({"value": value})
    given = await call(node, "PUT", f"/kv/{{key}}{query}", body, key)
    return given.status, msgspec.json.decode(await read_body(given))


async def dump(node: Node) -> Any:
    return msgspec.json.decode(await read_body(await call(node, "GET", "/dump")))


@asynccontextmanager
async def open_follower(epoch: Epoch) -> AsyncIterator[Follower]:
    """A follower in memory, by itself, established in that epoch, at timestamp 5."""
    with closing(Store.open(None)) as store:
        state = NodeState(
            "n1", "one", "c", promised=epoch, established=epoch, watermark=Version(epoch, 5)
        )
        with store.transaction():
            store.set_state(state)
        committer = Committer(store, run_inline)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(committer.run)
            yield Follower(committer, state)
            committer.close()


@dataclass
class MemoryNetwork:
    """Requests between nodes of one process. `weather` is awaited before and after each."""

    nodes: dict[str, Node] = field(default_factory=dict)
    seen: list[tuple[str, str, bytes | None]] = field(default_factory=list)
    before: Weather | None = None
    after: Weather | None = None

    async def request(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        *,
        timeout_s: float,
        last_on_connection: bool = False,
    ) -> Reply:
        parts = urlsplit(url)
        base, target = (
            f"{parts.scheme}://{parts.netloc}",
            url.removeprefix(f"{parts.scheme}://{parts.netloc}"),
        )
        self.seen.append((base, target, body))
        try:
            with trio.fail_after(timeout_s):
                if self.before is not None:
                    await self.before(base, target, body)
                if base not in self.nodes:
                    raise PeerFailed(f"{url}: nobody listens")
                given = await call(self.nodes[base], method, target, body)
                reply = Reply(given.status, await read_body(given))
                if self.after is not None:
                    await self.after(base, target, body)
                return reply
        except trio.TooSlowError:
            raise PeerFailed(f"{url}: no answer within {timeout_s:g} s") from None


@dataclass
class Cluster:
    network: MemoryNetwork
    node: Node
    followers: dict[str, Node]

    @property
    def leader(self) -> Leader:
        return self.node.require_leader()

    @property
    def urls(self) -> list[str]:
        return list(self.followers)

    async def all_live(self) -> None:
        """Until every link is live."""
        await until(lambda: self.leader.live_links == len(self.leader.links), timeout_s=60)

    async def settled(self) -> None:
        """Until, at one moment, every link is live and nothing is on its way."""
        await trio.testing.wait_all_tasks_blocked()  # deliveries that have not begun yet do
        links = self.leader.links
        await until(
            lambda: (
                self.leader.live_links == len(links) and not any(ln.outbox.records for ln in links)
            )
        )

    async def settled_but(self, *away: str) -> None:
        """The same of the links to all others than these."""
        await trio.testing.wait_all_tasks_blocked()
        links = [link for link in self.leader.links if link.url not in away]
        await until(lambda: all(link.live and not link.outbox.records for link in links))


async def until(true: Callable[[], bool], timeout_s: float = 600) -> None:
    """Look again and again, in simulated time. Raises trio.TooSlowError."""
    with trio.fail_after(timeout_s):
        while not true():  # noqa: ASYNC110 - a test looks from outside, at state that has no event
            await trio.sleep(0.05)


class Clock:
    """A wall clock that tells simulated time, and can be set."""

    def __init__(self) -> None:
        self.offset_us = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.offset_us + int(trio.current_time() * 1e6)


def lone_leaf(group: BaseExceptionGroup[Any]) -> BaseException:
    """The one exception in a group of groups, so that a failed assertion reads as one."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup) and len(first.exceptions) == 1:
        first = first.exceptions[0]
    return first


@asynccontextmanager
async def open_cluster(
    followers: int = 5,
    *,
    network: MemoryNetwork | None = None,
    lag: LagRange | None = None,
    seed: int = 0,
    **settings: Any,
) -> AsyncIterator[Cluster]:
    """A leader and its followers, all links live."""
    network = network or MemoryNetwork()
    urls = tuple(f"http://follower{i + 1}" for i in range(followers))
    settings.setdefault("write_quorum", min(3, followers))
    config = Config(
        node_id="leader", follower_urls=urls, lag=lag or LagRange(0, 0), lag_seed=seed, **settings
    )
    try:
        async with AsyncExitStack() as stack:
            nodes = {}
            for url in urls:
                role = replace(config, role="follower", node_id=url.removeprefix("http://"))
                nodes[url] = await stack.enter_async_context(open_memory_node(role, network, url))
            node = await stack.enter_async_context(
                open_memory_node(config, network, LEADER_URL, seed=seed)
            )
            cluster = Cluster(network, node, nodes)
            await cluster.all_live()
            yield cluster
    except BaseExceptionGroup as group:
        raise lone_leaf(group) from None


@asynccontextmanager
async def open_memory_node(
    config: Config,
    network: MemoryNetwork,
    url: str,
    *,
    store: Store | None = None,
    seed: int = 0,
    leads: bool = True,
) -> AsyncIterator[Node]:
    """One node on the network, its blocking work inline; a leader leads, unless it is not awaited."""
    async with open_node(
        config,
        store=store or Store.open(None),
        transport=network,
        run_blocking=run_inline,
        url=url,
        now_us=Clock(),
        rng=random.Random(seed),
    ) as node:
        network.nodes[url] = node
        try:
            if config.role == "leader" and leads:
                await until(lambda: node.leader is not None, timeout_s=60)
            yield node
        finally:
            if network.nodes.get(url) is node:
                del network.nodes[url]
