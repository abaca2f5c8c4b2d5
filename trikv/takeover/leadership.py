"""What a leader has besides its writes: links, admission, overruling, floor and purge, configuration.

A leadership begins with what a takeover found (`Term`) and ends with its node, or when another one has
begun. It is the `Host` of its links.

- **Admission.** A new node may have forgotten a promise with its disk, and another leadership may have
  been built on that promise. It is brought in once as many other followers as the write quorum says, or
  all that are not new themselves, have answered a request that was begun after it appeared: so there is
  no such leadership. An operator can admit it without.
- **Overruling.** See `handshake`. A copy of what is overruled is appended to `overruled.jsonl` in the
  data directory before it is.
- **Floor.** The lowest watermark that all members have on their disks; it never falls, and rises only
  while the configuration is settled, so that all who may lead or vote have a link here. Tombstones up to
  it are purged here first, then by the followers, whom the floor reaches with the next batch.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import trio

from trikv import log
from trikv.errors import InvalidBody, PeerFailed, StorageFailed
from trikv.model.membership import Configuration
from trikv.model.node_state import NodeState
from trikv.model.quorum import Voters
from trikv.model.record import Pair, Record, wins
from trikv.model.version import NO_VERSION, Version
from trikv.network.peers import Candidate, Promised
from trikv.network.simulated_lag import SimulatedLag, Wires
from trikv.protocol.messages import encode_record
from trikv.replication.leader import Leader
from trikv.replication.link import Link
from trikv.storage.group_commit import RunBlocking
from trikv.storage.reverse_scan import PageBack, Place, read_back
from trikv.storage.store import Store
from trikv.takeover.quorum_change import Reconfiguration

#: How often a leader looks whether the floor has risen: a purge is not urgent.
FLOOR_S = 1.0

#: Tombstones purged in one transaction: some milliseconds.
PURGE_RECORDS = 2_000

#: What a link is behind is counted up to here.
MAX_COUNTED_RECORDS = 1_000_000

OVERRULED_NAME = "overruled.jsonl"


class Term(NamedTuple):
    """What a takeover found, and a leadership begins with."""

    candidate: Candidate
    configuration: Configuration
    version: Version
    in_force: tuple[Voters, ...]
    heard: dict[str, NodeState]  # by URL


class Leadership:
    def __init__(
        self,
        term: Term,
        leader: Leader,
        *,
        urls: Sequence[str],
        wires: Wires,
        lag: SimulatedLag,
        request_timeout_s: float,
        scan: RunBlocking,
        run_blocking: RunBlocking,
        rng: random.Random,
    ) -> None:
        self.candidate = term.candidate
        self.leader = leader
        self.wires = wires
        self.links = [
            Link(
                url,
                self,
                wires=wires,
                page_lag_s=partial(lag.draw_s, url),
                request_timeout_s=request_timeout_s,
                rng=rng,
            )
            for url in urls
        ]
        leader.links = self.links
        known = {url: node_id for node_id, url in term.configuration.members.items()}
        for link in self.links:
            link.node_id = known.get(link.url)
            if (state := term.heard.get(link.url)) is not None:
                link.new = state.new
        self.reconfiguration = Reconfiguration(
            leader, term.configuration, term.version, term.in_force
        )
        self.floor = leader.store.state.floor
        self._scan = scan
        self._run_blocking = run_blocking
        self._admitted: set[str] = set()
        self._waiting: set[Link] = set()
        self._known: dict[str, Link] = {}  # node ids, and which link reaches them

    async def run(self) -> None:
        """Everything that goes on while this node leads."""
        async with trio.open_nursery() as nursery:
            for link in self.links:
                nursery.start_soon(link.run)
            nursery.start_soon(self.reconfiguration.run)
            nursery.start_soon(self._keep_floor)

    async def lag_records(self, link: Link) -> int:
        """How many records its follower lacks, at most; of a link that is live, those on their way."""
        if link.live:
            return link.outbox.records
        known_us = link.watermark_us
        after = NO_VERSION if known_us is None else Version(self.candidate.epoch, known_us)
        count = partial(self.leader.store.count_after, after, MAX_COUNTED_RECORDS)
        return await self._scan(count)

    # -- the host of the links ----------------------------------------------------------------------

    @property
    def resolved_us(self) -> int:
        return self.leader.resolved_us

    @property
    def confirmed(self) -> Version | None:
        return self.leader.confirmed

    def progress(self) -> None:
        self.leader.progress()

    def spare(self, link: Link) -> bool:
        return self.leader.spare(link)

    def superseded(self, why: str) -> None:
        self.leader.superseded(why)

    def recognise(self, link: Link, told: Promised) -> None:
        """Raises PeerFailed if it is not the link's follower that answered."""
        node_id = told.state.node_id
        if link.node_id not in (None, node_id):
            raise PeerFailed(f"{link.url}: {node_id} answers here, where {link.node_id} did")
        if node_id == self.candidate.name.node_id:
            raise PeerFailed(f"{link.url}: a node with this one's NODE_ID, {node_id}, answers here")
        holder = self._known.setdefault(node_id, link)
        if holder is not link:
            raise PeerFailed(f"{link.url}: {node_id} answers here and at {holder.url}")
        if node_id not in self.reconfiguration.configuration.members:
            raise PeerFailed(f"{link.url}: {node_id} answers here, and is no member")
        link.node_id = node_id
        if not told.follows:
            raise PeerFailed(
                f"{link.url}: {node_id} was started with ROLE=leader: start it again as a follower"
            )

    async def read_back(
        self, after: Version, place: Place | None, limit: int, max_bytes: int
    ) -> PageBack:
        return await self._scan(
            partial(read_back, self.leader.store, after, place, limit, max_bytes)
        )

    async def admit(self, link: Link) -> None:
        leader = self.leader
        others = [other for other in self.links if other is not link]
        begun = {other: other.rounds_begun for other in others}

        def admissible() -> bool:
            old = [other for other in others if other.new is not True]
            answered = [other for other in old if other.rounds_answered > begun[other]]
            return (
                link.url in self._admitted
                or leader.enough({other.name for other in answered})
                or len(answered) == len(old)
            )

        self._admitted.discard(
            link.url
        )  # what was said of an earlier disk does not hold for this one
        if not admissible():
            link.waits(
                "a new node: it is brought in once enough others have answered again, so that it can't "
                "have forgotten a promise to another leader"
            )
        for other in others:
            other.nudge()
        self._waiting.add(link)
        try:
            await leader.until(admissible)
        finally:
            self._waiting.discard(link)

    def admit_anyway(self, link: Link) -> None:
        """An operator knows that it has promised nothing, or wants it all the same.

        Raises InvalidBody unless it waits to be brought in.
        """
        if link not in self._waiting:
            raise InvalidBody(
                f"follower: expected one that waits to be brought in, and {link.name} is {link.state}",
                field="follower",
            )
        log.warning("follower.admitted", follower=link.url, node_id=link.node_id)
        self._admitted.add(link.url)
        self.leader.progress()

    async def overrule(self, follower: str, held: Sequence[Record]) -> None:
        for record in held:
            if record.version.epoch > self.candidate.epoch:
                raise PeerFailed(
                    f"{follower} holds {record.version}, beyond {self.candidate.epoch}"
                )
        store = self.leader.store
        strays = await self._scan(lambda: [r for r in held if _is_stray(r, store.peek(r.key))])
        if not strays:
            return
        await self._run_blocking(partial(keep_copy, store, follower, strays))

        def make(store: Store) -> Sequence[Pair]:
            ours = [(r, store.current(r.key)) for r in strays]
            return [
                (r.key, "" if own is None else own.value) for r, own in ours if _is_stray(r, own)
            ]

        await self.leader.spread(make)

    # -- the floor ----------------------------------------------------------------------------------

    async def _keep_floor(self) -> None:
        purged = 0
        while True:
            await trio.sleep(FLOOR_S if purged < PURGE_RECORDS else 0)
            if self.leader.deposed is not None:
                return
            stored = [link.stored_us for link in self.links]
            lowest_us = min((us or 0 for us in stored), default=self.resolved_us)
            reached = Version(self.candidate.epoch, min(lowest_us, self.resolved_us))
            # A member that was left out is a voter until that is settled, has no link, and may yet lead.
            may_rise = lowest_us > 0 and self.reconfiguration.settled
            floor = max(self.floor, reached) if may_rise else self.floor
            if floor == self.floor and purged < PURGE_RECORDS:
                continue
            change = partial(self._raise_floor, floor=floor, resolved_us=self.resolved_us)
            count = await self.leader.settled_change(change)
            if count is None:
                purged = 0
            else:
                purged, self.floor = count, floor

    def _raise_floor(self, store: Store, *, floor: Version, resolved_us: int) -> int:
        if store.state.promised != self.candidate.epoch:
            return 0
        watermark = Version(self.candidate.epoch, resolved_us)
        store.set_state(
            store.state._replace(floor=floor, watermark=max(store.state.watermark, watermark))
        )
        return store.purge(PURGE_RECORDS)


def _is_stray(held: Record, own: Record | None) -> bool:
    """Whether a follower's record is beyond the leader's. A tombstone of what is not there is none."""
    return wins(held, own) and not (held.deleted and own is None)


def keep_copy(store: Store, node_id: str, strays: Sequence[Record]) -> None:
    """Append what will be overruled to a file in the data directory, on disk before this returns.

    A line of JSON each: when, whose (`node_id`), and the record. Raises StorageFailed.
    """
    log.warning("strays.overruled", held_by=node_id, records=len(strays))
    if (path := store.database.path) is None:
        return
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    head = f'{{"at":"{at}","node_id":{json.dumps(node_id)},"record":'
    try:
        with path.with_name(OVERRULED_NAME).open("a", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{head}{encode_record(record)}}}\n" for record in strays)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageFailed(f"no copy of what is overruled could be kept: {error}") from None
