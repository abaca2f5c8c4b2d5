"""The write path: version, commit, fan out, count, answer. And the reads that only a leader can answer.

Rules
- A write outlives its request: the committer commits it, whoever waits; at that moment, with no chance
  to be cancelled between, it is with the links; from there on its caller only waits for the outcome.
- It is refused, unwritten, where too few links are live, or too many writes are in flight.
- The leader commits first, and fans out only what it has committed. Each commit looks at the promise in
  its own transaction: once this node has promised a higher epoch, no write of its own slips in after
  what the next leader has read here.
- Who has a write, and when it is confirmed or cannot be any more: see `replicate`.
- A read is confirmed once the record that it shows is known to be on as many followers as the quorum
  asks for, and as many have answered a request that was begun after the read: then no other leadership
  had begun before it. Reads that wait at the same time share these requests.
- What is confirmed can be told by a version, too: up to `confirmed`, all is on enough followers. What
  was is so for good, so it never falls.
- A leader that is refused by a higher epoch, or that promises one itself, leads no more: see
  `superseded`. Nothing makes it lead again but a new start.

What it does not know: HTTP, how a link brings records across, how it came to lead (see `takeover`).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence, Set
from typing import TypeVar

import trio

from trikv import log
from trikv.counters import WriteTally
from trikv.errors import (
    InvalidParameter,
    NotEnoughFollowers,
    NotReady,
    Overloaded,
    QuorumNotMet,
    ReadTimeout,
    StorageFailed,
    TrikvError,
)
from trikv.model.operation import Operation
from trikv.model.progress import Issued
from trikv.model.quorum import Voters, all_met_by
from trikv.model.record import Entry, Pair, Record
from trikv.model.version import Epoch, Version, VersionClock
from trikv.network.simulated_lag import SimulatedLag
from trikv.replication import pacing
from trikv.replication.link import Link
from trikv.replication.outbox import Encoded
from trikv.replication.replicate import Replication
from trikv.replication.write import Write, commit_groups
from trikv.storage.group_commit import Committer
from trikv.storage.store import Store

T = TypeVar("T")

#: What a record takes beside its key and value while it travels: names, version, escapes.
FRAME_BYTES = 100

#: What `Retry-After` says to a client whose write was one too many: by then most in flight are done.
RETRY_AFTER_S = 1


class _Refused(TrikvError):
    """Carries a refusal, and the record that it tells of, out of a transaction."""

    def __init__(self, refusal: TrikvError, told: Record | None) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal
        self.told = told


class Leader:
    """Takes writes while it leads `epoch`, and replicates them in the `background` nursery.

    `sleep` waits out simulated lag. The links, and the voters in force, are set once they are made: both
    need the leader.
    """

    def __init__(
        self,
        *,
        clock: VersionClock,
        committer: Committer,
        store: Store,
        lag: SimulatedLag,
        write_timeout_s: float,
        max_inflight_writes: int,
        background: trio.Nursery,
        sleep: Callable[[float], Awaitable[None]],
        node_id: str,
    ) -> None:
        self.node_id = node_id
        self.links: Sequence[Link] = ()
        self.in_force: tuple[Voters, ...] = ()
        """Each of these must confirm a write; more than one right after a takeover only."""
        self.lag = lag
        self.write_timeout_s = write_timeout_s
        self.committer = committer
        self.store = store
        self.deposed: str | None = None
        """Why it does not lead any more; None while it leads."""
        self.inflight_writes = 0
        self.tally = WriteTally()
        self.seen: Callable[[Write], None] | None = None
        """Is told of each write that is with the links, if anybody looks: see `dashboard_feed`."""
        self._clock = clock
        self._issued = Issued(clock.last_us)
        self._max_inflight_writes = max_inflight_writes
        self._takes_writes = True
        self._stopping = False
        self._waits_for_room = trio.Lock()
        self._coming_writes = 0  # that are being committed,
        self._coming_records = self._coming_bytes = 0  # and what they are
        self._hurried: set[Link] = set()
        self._hurried_until = -math.inf
        self._progress = trio.Event()
        self._awaited = False
        self._confirmed_us = -1
        self._committed: list[Write] = []  # of this group
        self._background = background
        self._replication: Replication | None = Replication(
            background, lag, sleep, write_timeout_s=write_timeout_s, progress=self.progress
        )
        self._told_to_stop = trio.Event()
        self._drained = trio.Event()
        committer.after = self._replicate_committed

    @property
    def epoch(self) -> Epoch:
        return self._clock.epoch

    @property
    def resolved_us(self) -> int:
        return self._issued.resolved_us

    @property
    def issued_us(self) -> int:
        """The timestamp of the last version that was issued."""
        return self._clock.last_us

    @property
    def write_quorum(self) -> int:
        """The quorum in force."""
        return max((voters.write_quorum for voters in self.in_force), default=0)

    @property
    def alone(self) -> bool:
        """Whether this node is the only member, so that what it holds is all there is."""
        return not self.links and {len(voters.members) for voters in self.in_force} == {1}

    def enough(self, followers: Set[str]) -> bool:
        """Whether these followers, by node id, can confirm a write."""
        return all_met_by(self.in_force, followers)

    @property
    def confirmed(self) -> Version | None:
        """Up to this version all that the map holds is on as many followers as confirm a write.

        Or a newer record of its key is. None as long as too few have been brought in: then nothing is,
        not even what was here before. It never falls.
        """
        ahead: set[str] = set()
        reached_us = self.resolved_us if self.enough(ahead) else -1
        if reached_us < 0:
            known = [(us, link) for link in self.links if (us := link.watermark_us) is not None]
            for us, link in sorted(known, key=lambda one: one[0], reverse=True):
                ahead.add(link.name)
                if self.enough(ahead):
                    reached_us = us
                    break
        self._confirmed_us = max(self._confirmed_us, reached_us)
        return None if self._confirmed_us < 0 else Version(self.epoch, self._confirmed_us)

    @property
    def live_followers(self) -> set[str]:
        return {link.name for link in self.links if link.live}

    @property
    def live_links(self) -> int:
        return sum(link.live for link in self.links)

    def spare(self, link: Link) -> bool:
        """Whether no quorum waits for this link: see `pacing`.

        With simulated lag none is spare, as it is to be seen whose delay was the longest; nor with
        quorum 0: what nobody confirms should not stay here alone for longer than it must.
        """
        if (now := trio.current_time()) >= self._hurried_until:
            self._hurried_until = now + pacing.PAUSE_S
            live = [one for one in self.links if one.live]
            if self.lag.is_on or self.write_quorum == 0:
                self._hurried = set(live)
            else:
                self._hurried = pacing.hurried(live, self._hurried, self.enough)
        return link not in self._hurried

    def superseded(self, why: str) -> None:
        """Another leadership has begun: confirm nothing any more."""
        if self.deposed is None:
            self.deposed = why
            log.warning("leader.deposed", epoch=self.epoch, reason=why)
            for link in self.links:
                link.retire()
            self.progress()

    def begin_stop(self) -> None:
        """Take no more writes, nor let any wait for room; all that has begun goes on."""
        self._takes_writes = False
        self.progress()

    def _check_takes_writes(self) -> None:
        """Raises NotReady."""
        self.check_leads()
        if not self._takes_writes:
            raise NotReady("this node is stopping", waiting_for=[])

    def check_leads(self) -> None:
        """Raises NotReady."""
        if self.deposed is not None:
            raise NotReady(
                f"this node does not lead any more: {self.deposed}; start it again as a follower",
                waiting_for=["a new start as a follower"],
            )
        if self._stopping:
            raise NotReady("this node is stopping", waiting_for=[])

    # -- writes -------------------------------------------------------------------------------------

    async def write(self, operations: Sequence[Operation]) -> Write:
        """Do all of it or nothing, and wait until it is confirmed.

        Raises NotReady, Overloaded, NotEnoughFollowers, VersionConflict or NotFound (nothing was
        written), QuorumNotMet or StorageFailed (outcome unknown).
        """
        try:
            confirmed = await self._write(operations)
        except BaseException as error:
            self.tally.failed(error)
            raise
        self.tally.confirmed(confirmed.quorum_ms or 0.0, operations)
        return confirmed

    async def _write(self, operations: Sequence[Operation]) -> Write:
        self._check_takes_writes()
        if self.inflight_writes >= self._max_inflight_writes:
            raise Overloaded(
                f"{self.inflight_writes} writes are in flight already", retry_after_s=RETRY_AFTER_S
            )
        size = sum(len(one.key) + len(one.value) + FRAME_BYTES for one in operations)
        # Then enough links are live, too. Nobody overtakes those who wait for room.
        room = not self._waits_for_room.locked() and self._has_room(len(operations), size)
        if not room:
            self.check_links()
        self.inflight_writes += 1
        try:
            if not room:
                await self._wait_for_room(len(operations), size)
            return await self._replicate(operations, size)
        except _Refused as refused:
            raise await self._confirm_refusal(refused) from None
        finally:
            self.inflight_writes -= 1
            if self._stopping:
                self.progress()

    def _has_room(self, records: int, size: int) -> bool:
        """Return whether a quorum of links, and all that keep up, could take so much.

        That is beside what is being committed. See `pace` for who keeps up.
        """
        records += self._coming_records
        size += self._coming_bytes
        live = [link for link in self.links if link.live]
        batches = 1 + self._coming_writes if self.lag.is_on else 1  # with lag each is a group
        roomy = {link.name for link in live if link.outbox.has_room(records, size, batches)}
        if not self.enough(roomy):
            return False
        if len(roomy) == len(live):
            return True
        for link in live:
            link.idle.look(trio.current_time(), link.busy_s)
        return pacing.quorum_is_idle(live, self.enough)

    async def _wait_for_room(self, records: int, size: int) -> None:
        """Wait, each in turn, until followers have taken enough: else their links would fall back.

        Raises NotReady, NotEnoughFollowers, Overloaded.
        """
        with trio.move_on_after(self.write_timeout_s):
            async with self._waits_for_room:  # first come, first served
                while not self._has_room(records, size):
                    self.check_links()
                    # One that stalls brings nothing about.
                    with trio.move_on_after(pacing.ROOM_LOOK_S):
                        await self.until_progress()
                    self._check_takes_writes()
            return
        raise Overloaded(
            f"followers have not taken what came before within {self.write_timeout_s:g} s",
            retry_after_s=RETRY_AFTER_S,
        )

    def check_links(self) -> None:
        """Raises NotEnoughFollowers."""
        if not self.enough(self.live_followers):
            raise NotEnoughFollowers(
                f"{self.live_links} of {self.write_quorum} required followers can be reached; "
                "nothing was written",
                live_links=self.live_links,
                required=self.write_quorum,
            )

    async def _confirm_refusal(self, refused: _Refused) -> TrikvError:
        """A refusal tells what the map holds: it is a read, and must be as sure as one."""
        if self.write_quorum == 0 and not self.alone:
            return refused.refusal
        try:
            await self.confirm_read(lambda: refused.told, self.write_timeout_s)
        except TrikvError as error:
            return error
        return refused.refusal

    async def _replicate(self, operations: Sequence[Operation], size: int) -> Write:
        def make(store: Store) -> Sequence[Pair]:
            for index, operation in enumerate(operations):
                if operation.unconditional:
                    continue
                place = f"operations[{index}]: " if len(operations) > 1 else ""
                if refused := operation.refusal(store.current(operation.key), place):
                    raise _Refused(*refused)
            return [(operation.key, operation.value) for operation in operations]

        # No checkpoint before the version is issued.
        write = Write(self.in_force, len(operations), size)
        self._submit(make, write)
        try:
            await write.decided.wait()
        except trio.Cancelled:
            if write.commit_ms is None:  # its change waits for the disk yet, and keeps its place
                write.abandoned = True
                self.inflight_writes += 1
            raise
        if write.error is not None:
            raise write.error
        if write.confirmed_by is None:
            raise self._not_met(write)
        return write

    def _not_met(self, write: Write) -> QuorumNotMet:
        """The outcome of a write that may be confirmed yet."""
        acks, required = write.acks, max(voters.write_quorum for voters in write.voters)
        when = "before this node stopped" if self._stopping else "in time"
        return QuorumNotMet(
            f"{acks} of {required} required followers confirmed the write {when}; "
            "it stays at the leader and is still being replicated",
            version=str(write.version),
            follower_acks=acks,
            required=required,
        )

    def _submit(self, make: Callable[[Store], Sequence[Pair]], write: Write) -> None:
        """Issue a version, and have what `make` wants to write committed and sent to the followers.

        Where nothing is, the write is decided at once, and `write.error` tells why.
        """
        # No checkpoint between the two: versions are committed in the order they were issued in.
        try:
            write.version = version = self._clock.issue()
        except OverflowError as error:
            raise NotReady(f"this node can't issue versions: {error}", waiting_for=[]) from None
        self._issued.issue(version.timestamp_us)

        def change(store: Store) -> Sequence[Pair]:
            if store.state.promised != self.epoch:
                raise NotReady(f"this node has promised {store.state.promised} meanwhile")
            pairs = make(store)
            store.merge([Entry(version, pairs)])
            return pairs

        def then(pairs: Sequence[Pair] | None, error: TrikvError | None) -> None:
            self._coming_writes -= 1
            self._coming_records -= write.records
            self._coming_bytes -= write.size
            self.inflight_writes -= write.abandoned
            write.commit_ms = write.elapsed_ms()
            if pairs:
                self.tally.commit_ms.observe(write.commit_ms)
                write.written = pairs
                self._committed.append(write)
            else:
                write.error = error
                write.decided.set()
                self._issued.resolve(version.timestamp_us)
                self.progress()
            if write.committed is not None:
                write.committed.set()
            if (
                isinstance(error, NotReady)
                and (promised := self.store.state.promised) != self.epoch
            ):
                self.superseded(f"this node has promised {promised}")

        self._coming_writes += 1
        self._coming_records += write.records
        self._coming_bytes += write.size
        try:
            self.committer.submit(change, then)
        except NotReady as error:
            then(None, error)

    async def spread(self, make: Callable[[Store], Sequence[Pair]]) -> Version:
        """Commit and send a write of the leader's own, without waiting for anyone.

        Raises NotReady, StorageFailed.
        """
        write = Write(self.in_force)
        write.committed = trio.Event()
        self._submit(make, write)
        await write.committed.wait()
        if write.error is not None:
            raise write.error
        return write.version

    def _replicate_committed(self) -> None:
        """Send what was committed together to all followers. Goes on after the answers have left."""
        if not self._committed:
            return
        committed, self._committed = self._committed, []
        encoded = [
            (write, Encoded.of([Entry(write.version, write.written)], write.version.timestamp_us))
            for write in committed
        ]
        for group in commit_groups(encoded, apart=self.lag.is_on):
            if self._replication is None:  # nobody delivers any more: the next start does
                group.decide()
            else:
                self._replication.begin(group, self.links)
        for write in committed:
            if self.seen is not None:
                self.seen(write)
            self._issued.resolve(write.version.timestamp_us)
        self.progress()

    async def keep_background_open(self) -> None:
        """Wait until the last write has begun its way: the body of the background nursery."""
        try:
            await self._told_to_stop.wait()
            while self.inflight_writes:
                await self.until_progress()
        finally:  # a commit may end between now and the moment when the nursery has closed
            self._replication = None

    def background_is_closed(self) -> None:
        """Note that no delivery is on its way any more."""
        self._drained.set()

    def stop(self) -> None:
        """Take no more writes; those in flight go on, and wait out no lag that nobody would see."""
        self._stopping = True
        if self._replication is not None:
            self._replication.waits_out_lag = False

    async def drain(self, timeout_s: float) -> None:
        """Take no more writes, and wait until nothing is on its way, or time is up."""
        self.stop()
        self._background.cancel_scope.deadline = trio.current_time() + timeout_s
        self._told_to_stop.set()
        await self._drained.wait()

    # -- reads --------------------------------------------------------------------------------------

    async def confirm_read(
        self, read: Callable[[], Record | None], timeout_s: float
    ) -> Record | None:
        """What `read` shows, once it is confirmed and this node is known to lead still.

        Raises NotReady, InvalidParameter (quorum 0 has nothing to confirm with), ReadTimeout.
        """
        self.check_leads()
        if self.write_quorum == 0 and not self.alone:
            raise InvalidParameter(
                "consistency: linearizable needs a write quorum of 1 at least, and it is 0",
                field="consistency",
            )
        begun = {link: link.rounds_begun for link in self.links}
        for link in self.links:
            link.nudge()
        record = read()

        def known() -> bool:
            fresh = {
                link.name for link in self.links if link.live and link.rounds_answered > begun[link]
            }
            return self.enough(fresh) and (
                record is None or self.enough(self.holders(record.version))
            )

        with trio.move_on_after(timeout_s):
            await self.until(known)
            # A promise of its own may be on the disk already, and not have deposed it yet.
            if (promised := self.store.state.promised) != self.epoch:
                raise NotReady(f"this node has promised {promised} meanwhile", waiting_for=[])
            return record
        raise ReadTimeout(
            f"what this node holds was not confirmed within {timeout_s:g} s",
            live_links=self.live_links,
            required=self.write_quorum,
        )

    def holders(self, version: Version) -> Set[str]:
        """The followers that are known to hold a committed write, or newer records of its keys."""
        below = version.epoch != self.epoch  # such a one was there when this epoch began
        acknowledged = self._replication.acknowledged(version) if self._replication else set()
        return acknowledged | {
            link.name
            for link in self.links
            if (us := link.watermark_us) is not None and (below or us >= version.timestamp_us)
        }

    async def until_resolved(self, version: Version, timeout_s: float, what: str) -> None:
        """Wait until all that was written up to a version is in the map. Raises ReadTimeout."""
        with trio.move_on_after(timeout_s):
            await self.until(lambda: version <= Version(self.epoch, self.resolved_us))
            return
        raise ReadTimeout(f"{what} within {timeout_s:g} s")

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for something that links bring about. Raises NotReady if the leadership ends."""
        await trio.lowlevel.checkpoint()
        while True:
            self.check_leads()
            if true():
                return
            await self.until_progress()

    def progress(self) -> None:
        """Let those look again who wait for the links."""
        if self._awaited:
            self._awaited = False
            self._progress.set()
            self._progress = trio.Event()

    async def until_progress(self) -> None:
        """Wait until links have brought something about, or the leadership ends."""
        self._awaited = True
        await self._progress.wait()

    async def settled_change(self, change: Callable[[Store], T]) -> T | None:
        """A change of the node's own state; None if the disk refused."""
        try:
            return await self.committer.commit(change)
        except StorageFailed:
            return None
