"""One node: THE nurseries, what runs in them, and in what order they start and stop.

Start   store → committer → ready for requests; a leader then takes over, and starts its links
Stop    change streams end, no more writes begin → what is in flight, background deliveries included,
        within a deadline → links → committer, with what still waits for it → store

Nurseries, one inside the other, make that order: a leader's background nursery has its deliveries; the
one around it the takeover, the links' tasks and the timer of simulated lag; the outer one the committer,
on which they rely. A task that crashes takes the node down with its traceback; nothing is started and
forgotten.

A node does not know HTTP. The web layer gets a `Node` and calls `leader` or `follower` on it, whichever
it has.
"""

from __future__ import annotations

import random
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Hashable,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import trio

from trikv.budget import BodyBudget
from trikv.config import Config
from trikv.counters import RequestTally
from trikv.errors import NotFollower, NotLeader, NotReady, SettingError, StorageFailed
from trikv.model.node_state import NodeState
from trikv.model.record import Record
from trikv.model.version import Epoch, Version
from trikv.network.peers import Candidate
from trikv.network.simulated_lag import SimulatedLag, Wires
from trikv.network.timer import Sleeper, Timer
from trikv.network.transport import Transport
from trikv.node import readiness
from trikv.node.readiness import DiskProbe
from trikv.observe.change_stream import Watches
from trikv.observe.dashboard_feed import Feed
from trikv.observe.shared import Shared
from trikv.observe.store_size import LoopDelay, Survey
from trikv.protocol.messages import LeaderName
from trikv.replication.follower import Follower, promise
from trikv.replication.leader import Leader
from trikv.storage.database import DatabaseFault
from trikv.storage.digest import EMPTY_DIGEST, Digest
from trikv.storage.group_commit import Committer, DiskWatch, RunBlocking
from trikv.storage.store import Store
from trikv.takeover.leadership import Leadership
from trikv.takeover.takeover import Takeover

T = TypeVar("T")

#: Background deliveries that take longer than this at a stop are left to the next start, which reads
#: them from the map again. Below the 10 s after which container engines kill.
DRAIN_S = 5.0

#: A page of a scan: some milliseconds of reading, then others get their turn.
SCAN_RECORDS = 2_000
SCAN_BYTES = 2 * 2**20

#: Dumps that are read and sent at a time; more wait for their turn, with no page in memory.
MAX_DUMPS = 8

#: A write buffer that no large write has come to for so long is emptied.
REST_S = 5.0


def wall_clock_us() -> int:
    return time.time_ns() // 1000


@dataclass
class Node:
    """What the web layer sees of a node. A leader has a `takeover`, and a `leadership` once it leads."""

    config: Config
    url: str | None
    store: Store
    committer: Committer
    wires: Wires
    run_blocking: RunBlocking
    now_us: Callable[[], int] = wall_clock_us
    takeover: Takeover | None = None
    leadership: Leadership | None = None
    follower: Follower | None = None

    def __post_init__(self) -> None:
        self._one_scan_at_a_time = trio.Lock()
        self._shared: dict[Hashable, Shared[Any]] = {}
        self.dumps = trio.Semaphore(MAX_DUMPS)
        """Held while a page of a dump is in memory."""
        self.watches = Watches(self.store)
        self.stopping = trio.Event()
        """Set when a stop begins: what would go on for ever is to end."""
        self.tally = RequestTally()
        self.bodies = BodyBudget()
        self.feed = Feed(self, self.now_us)
        self.survey = Survey(self.store, self.scan, self.run_blocking)
        self.loop_delay = LoopDelay()
        self.disk = DiskProbe(self.committer, self.store, self.run_blocking)

    @property
    def leader(self) -> Leader | None:
        return None if self.leadership is None else self.leadership.leader

    def require_leader(self) -> Leader:
        """The leader's half. Raises NotLeader, which names the leader where it is known, or NotReady."""
        return self.require_leadership().leader

    def require_leadership(self) -> Leadership:
        """The same with all that belongs to it."""
        if self.leadership is not None:
            self.leadership.leader.check_leads()
            return self.leadership
        if self.takeover is not None:
            missing = self.takeover.waiting_for
            raise NotReady(
                f"this node does not lead yet; it waits for {'; '.join(missing)}",
                waiting_for=missing,
            )
        known = self.follower.leader if self.follower is not None else None
        where = f" is {known.node_id}" if known else ", which has not been heard of yet"
        raise NotLeader(
            f"this node follows; the leader{where}",
            leader={"node_id": known.node_id, "url": known.url} if known else None,
        )

    def begin_stop(self) -> None:
        """Let those end that would go on for ever, and no write begin; all else goes on yet."""
        self.stopping.set()
        self.feed.wake()
        if self.leader is not None:
            self.leader.begin_stop()
        if self.follower is not None:
            self.follower.wake()

    def require_follower(self) -> Follower:
        """The follower's half. Raises NotFollower."""
        if self.follower is None:
            raise NotFollower(
                f"{self.config.node_id} was started with ROLE=leader and takes no records from others"
            )
        return self.follower

    @property
    def epoch(self) -> Epoch:
        """The epoch that this node leads or follows."""
        return self.store.state.promised

    @property
    def waiting_for(self) -> list[str]:
        """What keeps the node from doing its work, in words; [] if nothing does."""
        return readiness.reasons(self)

    async def promise(self, candidate: Candidate) -> NodeState:
        """Promise a candidate's epoch, whatever this node's role: see `follower.promise`."""
        # A candidate that leaves does not take back what is on disk: this node must know of it.
        with trio.CancelScope(shield=True):
            state = await promise(self.committer, candidate)
        if self.follower is not None:
            self.follower.learn(state)
        if (leader := self.leader) is not None and candidate.epoch != leader.epoch:
            leader.superseded(f"{candidate.name.node_id} leads with epoch {candidate.epoch}")
        return state

    async def until_caught_up(self, version: Version, timeout_s: float) -> None:
        """Wait until this node holds all that was written up to a version. Raises ReadTimeout."""
        what = f"{version} was not reached"
        if self.follower is not None:
            follower = self.follower
            await follower.until(lambda: follower.caught_up(version), timeout_s, what)
        else:
            leader = self.require_leader()
            await leader.until_resolved(version, timeout_s, what)

    async def page_by_version(
        self, after: Version | None, limit: int, max_bytes: int
    ) -> Sequence[Record]:
        """A page of the map in version order: see `Store.page_by_version`. Raises StorageFailed."""
        return await self.scan(partial(self.store.page_by_version, after, limit, max_bytes))

    async def pages_by_key(self) -> AsyncGenerator[Sequence[Record]]:
        """The map in key order, page by page; no read transaction outlives a page."""
        after = ""
        while page := await self.scan(
            partial(self.store.page_by_key, after, SCAN_RECORDS, SCAN_BYTES)
        ):
            yield page
            after = page[-1].key

    async def share(self, name: Hashable, run: Callable[[], Awaitable[T]]) -> T:
        """A run of something costly, for all who ask for that name at the same time: see `shared`."""
        shared: Shared[T] = self._shared.setdefault(name, Shared())
        return await shared.get(run)

    async def digest(self) -> Digest:
        """The digest of the whole map, read after this call; exact if nothing is written meanwhile."""
        return await self.share("digest", self._read_digest)

    async def _read_digest(self) -> Digest:
        digest, after = EMPTY_DIGEST, ""

        def read(after: str, digest: Digest) -> tuple[str | None, Digest]:
            page = self.store.page_by_key(after, SCAN_RECORDS, SCAN_BYTES)
            return (page[-1].key if page else None), digest.add(page)

        while True:
            last, digest = await self.scan(partial(read, after, digest))
            if last is None:
                return digest
            after = last

    async def scan(self, work: Callable[[], T]) -> T:
        """Read with the pages' connection, one page at a time: the map, with all that was buffered.

        Raises StorageFailed; NotReady once the node has stopped.
        """
        async with self._one_scan_at_a_time:
            with self.store.shut_buffer():
                try:
                    while self.store.buffers:
                        await self._empty_buffer_a_little()
                except StorageFailed:  # a full disk can be read yet
                    work = partial(self.store.as_if_emptied, work)
                async with self.committer.reading:
                    return await self.run_blocking(work)

    async def empty_buffer_at_rest(self) -> None:
        """Have the buffer emptied where no large write has come for a while.

        So scans seldom have to, and tombstones can be purged. Runs until it is cancelled.
        """
        before = None
        while True:
            await trio.sleep(REST_S)
            newest = self.store.buffered_up_to
            if newest == before:
                with suppress(StorageFailed):  # it is tried again
                    while newest is not None and self.store.buffered_up_to == newest:
                        await self._empty_buffer_a_little()
            before = newest

    async def _empty_buffer_a_little(self) -> None:
        """Raises StorageFailed, NotReady."""
        await self.committer.commit(partial(Store.empty_buffer, limit=SCAN_RECORDS))


@asynccontextmanager
async def open_node(
    config: Config,
    *,
    store: Store,
    transport: Transport,
    run_blocking: RunBlocking,
    disk: DiskWatch | None = None,
    url: str | None = None,
    now_us: Callable[[], int] = wall_clock_us,
    rng: random.Random | None = None,
    timer: Callable[[], Timer] = Timer,
) -> AsyncIterator[Node]:
    """A running node, stopped in order at the end of the block. Closes the store.

    `url` is where clients reach it. `run_blocking`, `now_us`, `rng` and `timer` are the seams for
    simulated time: how blocking work runs, the wall clock in microseconds, where ids and backoffs come
    from, and what simulated lag is waited out with. With a `disk`, commits run as that allows.
    """
    rng = rng or random.SystemRandom()
    try:
        committer = Committer(store, run_blocking, disk)
        async with trio.open_nursery() as services:
            services.start_soon(committer.run)
            async with trio.open_nursery() as wires:
                with _database_at_fault(store):
                    identify = partial(_identify, node_id=config.node_id, rng=rng)
                    state = await committer.commit(identify)
                node = Node(config, url, store, committer, Wires(transport), run_blocking, now_us)
                wires.start_soon(node.survey.run)
                wires.start_soon(node.feed.run)
                wires.start_soon(node.disk.run)
                wires.start_soon(node.empty_buffer_at_rest)
                if config.role == "leader":
                    node.takeover = _takeover(node, now_us, rng)
                    wires.start_soon(_lead, node, node.takeover, timer, rng)
                else:
                    node.follower = Follower(committer, state)
                drain_s = 0.0  # where the block ends by an error, nothing is waited for
                try:
                    yield node
                    drain_s = DRAIN_S
                finally:
                    node.begin_stop()
                    if node.leader is not None:
                        await node.leader.drain(drain_s)
                wires.cancel_scope.cancel()
            committer.close()
    finally:
        store.close()


@contextmanager
def _database_at_fault(store: Store) -> Iterator[None]:
    """What a start cannot read or write is a setting to mend: raises SettingError."""
    try:
        yield
    except (StorageFailed, *DatabaseFault) as error:
        path = store.database.path
        where = ":memory:" if path is None else str(path.parent)
        raise SettingError(
            f"DATA_DIR={where!r}: expected a database that can be read and written: {error}"
        ) from None


def _identify(store: Store, *, node_id: str, rng: random.Random) -> NodeState:
    """The node's state; its instance is drawn when the data directory is new. Raises SettingError."""
    state = store.state
    if state.node_id not in ("", node_id):
        raise SettingError(
            f"NODE_ID={node_id!r}: expected {state.node_id!r}, whose data DATA_DIR holds: a node that "
            "takes another's name needs an empty directory"
        )
    store.set_state(
        state._replace(node_id=node_id, instance=state.instance or rng.randbytes(6).hex())
    )
    return store.state


def _takeover(node: Node, now_us: Callable[[], int], rng: random.Random) -> Takeover:
    config = node.config
    return Takeover(
        name=LeaderName(config.node_id, node.url),
        urls=config.follower_urls,
        write_quorum=config.write_quorum,
        store=node.store,
        committer=node.committer,
        transport=node.wires,
        request_timeout_s=config.request_timeout_s,
        now_us=now_us,
        rng=rng,
    )


async def _lead(
    node: Node, takeover: Takeover, timer: Callable[[], Timer], rng: random.Random
) -> None:
    """Come to lead, and then keep the followers supplied."""
    config = node.config
    term, clock = await takeover.run()
    # No checkpoint from here until the leadership is visible: see `Takeover.run`.
    lag = SimulatedLag(config.lag, config.follower_urls, config.lag_seed)
    sleeper = Sleeper(timer())
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as background:
            leader = Leader(
                clock=clock,
                committer=node.committer,
                store=node.store,
                lag=lag,
                write_timeout_s=config.write_timeout_s,
                max_inflight_writes=config.max_inflight_writes,
                background=background,
                sleep=sleeper.sleep,
                node_id=config.node_id,
            )
            node.leadership = Leadership(
                term,
                leader,
                urls=config.follower_urls,
                wires=node.wires,
                lag=lag,
                request_timeout_s=config.request_timeout_s,
                scan=node.scan,
                run_blocking=node.run_blocking,
                rng=rng,
            )
            nursery.start_soon(sleeper.run)
            nursery.start_soon(node.leadership.run)
            await leader.keep_background_open()
        leader.background_is_closed()
