"""One node: THE nursery, what runs in it, and in what order it starts and stops.

Start   store → committer → (leader: a new epoch, on disk) → links → ready for requests
Stop    no more writes → what is in flight, background deliveries included, within a deadline → links →
        committer, with what still waits for it → store

Three nurseries, one inside the other, make that order. The innermost owns the writes and their
deliveries (the *background nursery*); leaving it waits for them, up to the deadline. Around it lies the
one with the links' tasks, and outermost the committer's, on which both rely. A task that crashes takes
the node down with its traceback; nothing is started and forgotten.

A node does not know HTTP. The web layer gets a `Node` and calls `leader` or `follower` on it, whichever
it has.
"""

from __future__ import annotations

import random
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import trio

from trikv.committer import Committer, RunBlocking
from trikv.config import Config
from trikv.errors import NotFollower, NotLeader, SettingError, StorageFailed
from trikv.follower import Follower
from trikv.lag import SimulatedLag
from trikv.leader import Leader
from trikv.link import Link
from trikv.messages import LeaderName
from trikv.store import EMPTY_DIGEST, Digest, Store
from trikv.transport import Transport
from trikv.version import Epoch, Record, Version, VersionClock

T = TypeVar("T")

#: Background deliveries that take longer than this at a stop are left to the next start, which sends
#: the whole map again. Below the 10 s after which container engines kill.
DRAIN_S = 5.0

#: A page of a scan: some milliseconds of reading, then others get their turn.
SCAN_RECORDS = 2_000
SCAN_BYTES = 2 * 2**20


def wall_clock_us() -> int:
    return time.time_ns() // 1000


@dataclass
class Node:
    """What the web layer sees of a node. `leader` or `follower` is there, by its role."""

    config: Config
    url: str | None
    instance: str
    store: Store
    transport: Transport
    run_blocking: RunBlocking
    leader: Leader | None = None
    follower: Follower | None = None

    def __post_init__(self) -> None:
        self._one_scan_at_a_time = trio.Lock()

    def require_leader(self) -> Leader:
        """The leader's half. Raises NotLeader, which names the leader where it is known."""
        if self.leader is not None:
            return self.leader
        known = self.follower.leader if self.follower is not None else None
        where = f" is {known.node_id}" if known else ", which has not been heard of yet"
        raise NotLeader(
            f"this node follows; the leader{where}",
            leader={"node_id": known.node_id, "url": known.url} if known else None,
        )

    def require_follower(self) -> Follower:
        """The follower's half. Raises NotFollower."""
        if self.follower is None:
            raise NotFollower(f"{self.config.node_id} leads and takes no records from others")
        return self.follower

    @property
    def epoch(self) -> Epoch:
        """The epoch that this node leads or follows."""
        if self.leader is not None:
            return self.leader.epoch
        return self.require_follower().promised

    async def page_by_version(
        self, after: Version | None, limit: int, max_bytes: int
    ) -> Sequence[Record]:
        """A page of the map in version order: see `Store.page_by_version`."""
        return await self._scan(partial(self.store.page_by_version, after, limit, max_bytes))

    async def pages_by_key(self) -> AsyncIterator[Sequence[Record]]:
        """The map in key order, page by page; no read transaction outlives a page."""
        after = ""
        while page := await self._scan(
            partial(self.store.page_by_key, after, SCAN_RECORDS, SCAN_BYTES)
        ):
            yield page
            after = page[-1].key

    async def digest(self) -> Digest:
        """The digest of the whole map; exact if nothing is written meanwhile."""
        digest, after = EMPTY_DIGEST, ""

        def read(after: str, digest: Digest) -> tuple[str | None, Digest]:
            page = self.store.page_by_key(after, SCAN_RECORDS, SCAN_BYTES)
            return (page[-1].key if page else None), digest.add(page)

        while True:
            last, digest = await self._scan(partial(read, after, digest))
            if last is None:
                return digest
            after = last

    async def _scan(self, work: Callable[[], T]) -> T:
        async with self._one_scan_at_a_time:
            return await self.run_blocking(work)


@asynccontextmanager
async def open_node(
    config: Config,
    *,
    store: Store,
    transport: Transport,
    run_blocking: RunBlocking,
    url: str | None = None,
    now_us: Callable[[], int] = wall_clock_us,
    jitter: random.Random | None = None,
) -> AsyncIterator[Node]:
    """A running node, stopped in order at the end of the block. Closes the store.

    `url` is where clients reach it. `run_blocking`, `now_us` and `jitter` are the seams for simulated
    time: how blocking work runs, the wall clock in microseconds, and the randomness of backoffs.
    """
    try:
        committer = Committer(store, run_blocking)
        async with trio.open_nursery() as services:
            services.start_soon(committer.run)
            async with trio.open_nursery() as wires:
                async with trio.open_nursery() as background:
                    with _database_at_fault(store):
                        identify = partial(_identify, node_id=config.node_id)
                        instance = await committer.commit(identify)
                        node = Node(config, url, instance, store, transport, run_blocking)
                        if config.role == "leader":
                            rng = jitter or random.Random()
                            node.leader = await _lead(node, committer, background, now_us, rng)
                        else:
                            promised = await committer.commit(Store.promised)
                            node.follower = Follower(committer, promised)
                    for link in node.leader.links if node.leader is not None else ():
                        wires.start_soon(link.run)
                    yield node
                    if node.leader is not None:
                        node.leader.stop()
                    background.cancel_scope.deadline = trio.current_time() + DRAIN_S
                wires.cancel_scope.cancel()
            committer.close()
    finally:
        store.close()


@contextmanager
def _database_at_fault(store: Store) -> Iterator[None]:
    """What a start cannot read or write is a setting to mend: raises SettingError."""
    try:
        yield
    except (StorageFailed, sqlite3.Error) as error:
        where = ":memory:" if store.path is None else str(store.path.parent)
        raise SettingError(
            f"DATA_DIR={where!r}: expected a database that can be read and written: {error}"
        ) from None


def _identify(store: Store, *, node_id: str) -> str:
    """The instance of this data directory, drawn when it is new."""
    instance = store.fact("instance")
    if instance is None:
        instance = secrets.token_hex(6)
        store.set_fact("instance", instance)
    store.set_fact("node_id", node_id)
    return instance


def _begin_epoch(store: Store, *, instance: str) -> Epoch:
    """A leader counts its starts: above everything that this node ever promised or led."""
    promised = store.promised()
    epoch = Epoch(promised.number + 1, instance)
    store.promise(epoch)
    return epoch


async def _lead(
    node: Node,
    committer: Committer,
    background: trio.Nursery,
    now_us: Callable[[], int],
    jitter: random.Random,
) -> Leader:
    config = node.config
    epoch = await committer.commit(partial(_begin_epoch, instance=node.instance))
    lag = SimulatedLag(config.lag, config.follower_urls, config.lag_seed)
    known: dict[str, str] = {}
    links = [
        Link(
            url,
            leader=LeaderName(config.node_id, node.url),
            epoch=epoch,
            transport=node.transport,
            read_page=node.page_by_version,
            page_lag_s=partial(lag.draw_s, url),
            request_timeout_s=config.request_timeout_s,
            jitter=jitter,
            known=known,
        )
        for url in config.follower_urls
    ]
    return Leader(
        clock=VersionClock(epoch, now_us, node.store.greatest_timestamp_us()),
        committer=committer,
        links=links,
        lag=lag,
        write_quorum=config.write_quorum,
        write_timeout_s=config.write_timeout_s,
        max_inflight_writes=config.max_inflight_writes,
        nursery=background,
    )
