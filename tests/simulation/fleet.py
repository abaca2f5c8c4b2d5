"""Nodes in one process that crash, stop, start again in another role, lose their disks, are cut off.

The nodes are the real ones; what is around them is simulated, and drawn from one seed: the network (see
`network`), the disks (see `disk`), the clocks, the ids, the lags. Time is a mock clock's.

A crash first freezes the node's store and wires, so that no `finally` of its can tidy anything up or
tell anyone, and then cancels its tasks. The next start finds what the disk has kept. It can be set to
happen after so many further steps of the node's tasks: at any checkpoint there is.

`trace` tells everything that happened: the same seed gives the same lines.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
import outcome
import trio

from tests.simulation.disk import Disk, SimulatedStore
from tests.simulation.network import OWNER, Network
from tests.support import Clock, dump, lone_leaf, until
from trikv.config import Config
from trikv.errors import PeerFailed, SettingError
from trikv.model.node_state import NodeState
from trikv.network.simulated_lag import LagRange
from trikv.network.transport import Reply
from trikv.node.node import Node, open_node
from trikv.storage.group_commit import DiskWatch, run_inline

T = TypeVar("T")

#: How long a node that was told to stop lets its requests go on.
GRACE_S = 3.0

#: No client of a test waits so long.
FOR_EVER_S = 10**6

Answered = tuple[int, dict[str, Any]]


class Life:
    """One run of a node, from its start to its stop or its crash. Its end of the network."""

    def __init__(self, name: str, store: SimulatedStore) -> None:
        self.name = name
        self.store = store
        self.scope = trio.CancelScope()
        self.told_to_stop = trio.Event()
        self.dead = self.started = False
        self.steps_left: int | None = None
        """After so many steps of its tasks it crashes."""
        self.requests: trio.Nursery

    async def check_lives(self) -> None:
        """Once it has crashed, none of its tasks gets any further."""
        if self.dead:
            await trio.sleep_forever()


class Fleet(trio.abc.Instrument):
    """Nodes by their names; each is at `http://NAME`."""

    def __init__(self, nursery: trio.Nursery, names: list[str], seed: int) -> None:
        self.names = names
        self.nursery = nursery
        self.rng = random.Random(seed)
        self.trace: list[str] = []
        self.network = Network(nursery, self.rng, self.note)
        self.cut = self.network.cut
        self.nodes: dict[str, Node] = {}
        self.disks = {name: Disk() for name in names}
        self.stores = {name: SimulatedStore(self.disks[name]) for name in names}
        """As they are on the disks; of a node that is up, its own."""
        self.clocks = {name: Clock() for name in names}
        self.disk_s = 0.0
        """How long a transaction takes, at most."""
        self.power_fails = True
        self._lives: dict[str, Life] = {}
        trio.lowlevel.add_instrument(self)

    # -- what happened ------------------------------------------------------------------------------

    def note(self, what: str, body: bytes | None = None) -> None:
        told = "" if body is None else f" {len(body)} B {zlib.crc32(body):08x}"
        self.trace.append(f"{trio.current_time():.6f} {what}{told}")

    # -- starts and ends ----------------------------------------------------------------------------

    async def start(self, name: str, *, leads: bool = False, **settings: Any) -> Node:
        """Start a node that is down; a leader has all the others as its followers.

        Raises SettingError if its disk does not let it.
        """
        others = [
            f"http://{other}" for other in settings.pop("others", self.names) if other != name
        ]
        config = Config(
            role="leader" if leads else "follower",
            node_id=name,
            follower_urls=tuple(others) if leads else (),
            lag=LagRange(0, 0),
            lag_seed=self.rng.randrange(2**31),
            **{"write_quorum": 0, "request_timeout_s": 1.0, "write_timeout_s": 5.0, **settings},
        )
        self.note(f"start {name} as {config.role}, quorum {config.write_quorum}")
        life = Life(name, SimulatedStore(self.disks[name], config.durability))
        self.stores[name] = life.store
        try:
            node: Node = await self.nursery.start(self._run, life, config)
        except BaseException:
            self._end(life)
            raise
        return node

    async def _run(self, life: Life, config: Config, *, task_status: trio.TaskStatus[Node]) -> None:
        OWNER.set(life)
        self._lives[life.name] = life
        try:
            with life.scope:
                async with open_node(
                    config,
                    store=life.store,
                    transport=_From(self.network, life),
                    run_blocking=_Threads(self, life),
                    disk=_FitfulDisk(self, self.disks[life.name]),
                    url=f"http://{life.name}",
                    now_us=self.clocks[life.name],
                    rng=random.Random(self.rng.randrange(2**32)),
                ) as node:
                    await self._serve(life, node, task_status)
        except BaseExceptionGroup as group:
            error = lone_leaf(group)
            if not (isinstance(error, SettingError) and life.started):
                raise error from None
            self.note(f"{life.name} ends itself: {error}")
        finally:
            self._end(life)

    async def _serve(self, life: Life, node: Node, task_status: trio.TaskStatus[Node]) -> None:
        """As the server does: requests, until it is told to stop, and then what is in flight."""
        async with trio.open_nursery() as life.requests:
            self.nodes[life.name] = self.network.nodes[f"http://{life.name}"] = node
            self.network.ends[id(node)] = life
            life.started = True
            task_status.started(node)
            await life.told_to_stop.wait()
            node.begin_stop()
            self._take_off(life.name)
            life.requests.cancel_scope.deadline = trio.current_time() + GRACE_S

    def _take_off(self, name: str) -> None:
        """Nobody reaches it any more."""
        if (node := self.nodes.pop(name, None)) is not None:
            urls = [url for url, there in self.network.nodes.items() if there is node]
            for url in urls:
                del self.network.nodes[url]

    def _end(self, life: Life) -> None:
        if not life.dead:
            life.dead = True
            self._take_off(life.name)
            life.store.close()
            if self._lives.get(life.name) is life:
                del self._lives[life.name]
            self.stores[life.name] = SimulatedStore(self.disks[life.name])
            self.note(f"ended {life.name}")

    def crash(self, name: str, *, power_fails: bool | None = None) -> None:
        """Kill it, at once. If the power fails, too, what its disk had not synced may be lost."""
        life = self._lives.pop(name)
        self.note(f"crash {name}")
        life.dead = life.store.frozen = True
        self._take_off(name)
        disk = self.disks[name]
        if self.power_fails if power_fails is None else power_fails:
            disk.power_lost(self.rng)
        else:
            disk.write_back()
        self.stores[name] = SimulatedStore(disk)
        life.scope.cancel()

    def crash_after(self, name: str, steps: int) -> None:
        """Crash it after so many further steps of its tasks."""
        self._lives[name].steps_left = steps

    def disarm(self) -> None:
        """What was to crash later does not."""
        for life in self._lives.values():
            life.steps_left = None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        life: Life | None = task.context.get(OWNER)
        if life is not None and life.steps_left is not None and not life.dead:
            life.steps_left -= 1
            if life.steps_left <= 0:
                self.crash(life.name)

    def stop(self, name: str) -> None:
        """Tell it to stop in order; it is gone a little later."""
        self.note(f"stop {name}")
        self._lives[name].told_to_stop.set()

    def is_up(self, name: str) -> bool:
        """Whether its process lives, be it about to stop."""
        return name in self._lives

    def wipe(self, name: str) -> None:
        """Empty the disk of a node that is down."""
        self.note(f"wipe {name}")
        self.disks[name].wipe()
        self.stores[name] = SimulatedStore(self.disks[name])

    def put_back(self, name: str) -> None:
        """Let a node that is down have the copy of its disk again."""
        self.note(f"put back {name}")
        self.disks[name].put_back()
        self.stores[name] = SimulatedStore(self.disks[name])

    def states(self) -> dict[str, NodeState]:
        """What each node knows of itself, on its disk."""
        return {name: store.state for name, store in self.stores.items()}

    # -- waiting ------------------------------------------------------------------------------------

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

    # -- asking -------------------------------------------------------------------------------------

    async def ask(
        self,
        name: str,
        method: str,
        target: str,
        content: Any = None,
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        """One request of a client's; status 0 if the node is down, or goes down meanwhile."""
        body = b"" if content is None else msgspec.json.encode(content)
        try:
            reply = await self.network.request(
                "client",
                method,
                f"http://{name}{target}",
                body,
                timeout_s=FOR_EVER_S,
                key=key,
                headers=headers,
                may_double=False,
            )
        except PeerFailed:
            return 0, {}
        return reply.status, msgspec.json.decode(reply.body)

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
    """The network as one node sees it. Of a dead one, nothing travels any more."""

    def __init__(self, network: Network, life: Life) -> None:
        self._network = network
        self._life = life

    async def request(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        *,
        timeout_s: float,
        last_on_connection: bool = False,
    ) -> Reply:
        await self._life.check_lives()
        reply = await self._network.request(self._life.name, method, url, body, timeout_s=timeout_s)
        await self._life.check_lives()
        return reply


class _Threads:
    """Blocking work takes a while before and after, in which the node may crash. Not cancellable.

    It runs at one moment, but for what two threads can do to each other: before any statement but the
    first, outside a transaction, the work of another thread may come, a commit between two reads.
    """

    def __init__(self, fleet: Fleet, life: Life) -> None:
        self._fleet = fleet
        self._life = life
        self._waiting: list[_Work] = []  # that has not begun
        self._statements = 0  # that the work has come to which runs

    async def __call__(self, work: Callable[[], T]) -> T:
        slow_s = self._fleet.disks[self._life.name].slow_s
        disk_s, rng = max(self._fleet.disk_s, slow_s), self._fleet.rng
        if not disk_s:
            return await run_inline(work)
        mine = _Work(work)
        self._waiting.append(mine)
        await self._take_s(rng.uniform(0, disk_s))
        if mine.ended is None and self._waiting == [mine]:  # a little longer, for company
            await self._take_s(rng.uniform(0, disk_s))
        if mine.ended is None:
            self._waiting.remove(mine)
            self._statements = 0
            connection = self._life.store.database.writer
            connection.exec_trace = self._between if self._waiting else None
            try:
                mine.run()
            finally:
                connection.exec_trace = None
        await self._take_s(rng.uniform(0, disk_s))
        assert mine.ended is not None
        returned: T = mine.ended.unwrap()
        return returned

    def _between(self, cursor: object, sql: str, bindings: object) -> bool:
        connection = self._life.store.database.writer
        self._statements += 1
        may = self._waiting and self._statements > 1 and not connection.in_transaction
        if may and self._fleet.rng.random() < 0.5:
            self._waiting.pop(0).run()
        return True

    async def _take_s(self, disk_s: float) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(disk_s)
        await self._life.check_lives()


class _Work:
    """What a thread does, and what came of it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self.ended: outcome.Outcome[Any] | None = None

    def run(self) -> None:
        self.ended = outcome.capture(self._work)


class _FitfulDisk(DiskWatch):
    """Where blocking work takes a while at all, every other commit takes none."""

    def __init__(self, fleet: Fleet, disk: Disk) -> None:
        super().__init__()
        self._fleet = fleet
        self._disk = disk
        self._quick = False

    @property
    def quick(self) -> bool:
        return self._quick and not self._disk.slow_s

    def timed(self, work: Callable[[], T]) -> T:
        self._quick = self._fleet.disk_s > 0 and self._fleet.rng.random() < 0.5
        return work()


@asynccontextmanager
async def open_fleet(
    followers: int = 5, *, write_quorum: int = 3, seed: int = 0, started: bool = True
) -> AsyncIterator[Fleet]:
    """Nodes n0, n1, …; n0 leads, and all links are live, unless they are not to be started."""
    names = [f"n{i}" for i in range(followers + 1)]
    try:
        async with trio.open_nursery() as nursery:
            fleet = Fleet(nursery, names, seed)
            try:
                if started:
                    for name in names[1:]:
                        await fleet.start(name)
                    await fleet.start(names[0], leads=True, write_quorum=write_quorum)
                    await fleet.wait_live(names[0], followers)
                yield fleet
            finally:
                trio.lowlevel.remove_instrument(fleet)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise lone_leaf(group) from None
