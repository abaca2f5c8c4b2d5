"""The write path: version, commit, fan out, count, answer. And the reads that only a leader can answer.

Rules
- A write outlives its request: it runs in the node's nursery, and its caller only waits for the
  outcome. A caller that goes away changes nothing.
- It is refused, unwritten, where too few links are live, or too many writes are in flight.
- The leader commits first, and fans out only what it has committed. Each commit looks at the promise in
  its own transaction: once this node has promised a higher epoch, no write of its own slips in after
  what the next leader has read here.
- Each delivery holds one clone of the send channel and closes it when it ends; the leader's own end is
  closed once all are started. So the receiver ends when the quorum is reached, when time runs out, or
  when every delivery has ended: a quorum that has become impossible is known at once.
- Late acknowledgements meet a closed channel: the writer has left, and nothing is waiting.
- A read is confirmed once the record that it shows is known to be on as many followers as the quorum
  asks for, and as many have answered a request that was begun after the read: then no other leadership
  had begun before it. Reads that wait at the same time share these requests.
- A leader that is refused by a higher epoch, or that promises one itself, leads no more: see
  `superseded`. Nothing makes it lead again but a new start.

What it does not know: HTTP, how a link brings records across, how it came to lead (see `takeover`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from trikv import logs
from trikv.committer import Committer
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
from trikv.lag import SimulatedLag
from trikv.link import Link
from trikv.operations import Operation
from trikv.parcel import Encoded, Parcel
from trikv.quorum import AckCount, Voters, all_met_by
from trikv.store import Store
from trikv.trace import Confirmed, FollowerTrace, Trace
from trikv.version import Epoch, Record, Version, VersionClock
from trikv.watermark import Issued

T = TypeVar("T")

#: What `Retry-After` says to a client whose write was one too many: by then most in flight are done.
RETRY_AFTER_S = 1


class _Write:
    """A write on its way, and what becomes of it."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = operations
        self.voters: tuple[Voters, ...] = ()
        """Those in force when its version was issued."""
        self.began = trio.current_time()
        self.trace = Trace()
        self.version: Version | None = None
        """Known once it is committed."""
        self.done = trio.Event()
        self.outcome: Confirmed | TrikvError | None = None

    def elapsed_ms(self) -> float:
        return (trio.current_time() - self.began) * 1000


@dataclass
class _Flight:
    """One write's deliveries that have not ended yet, and who has acknowledged it."""

    deliveries: int = 0
    holders: set[str] = field(default_factory=set)


def name_of(link: Link) -> str:
    """A follower's node id, or its URL as long as it has not told."""
    return link.node_id or link.url


class _Refused(TrikvError):
    """Carries a refusal, and the record that it tells of, out of a transaction."""

    def __init__(self, refusal: TrikvError, told: Record | None) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal
        self.told = told


class Leader:
    """Takes writes while it leads `epoch`. Its tasks run in `nursery`, the node's.

    The links, and the voters in force, are set once they are made: both need the leader.
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
        nursery: trio.Nursery,
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
        self.nursery = nursery
        self.deposed: str | None = None
        """Why it does not lead any more; None while it leads."""
        self.inflight_writes = 0
        self._clock = clock
        self._issued = Issued(clock.last_us)
        self._max_inflight_writes = max_inflight_writes
        self._stopping = False
        self._progress = trio.Event()
        self._flights: dict[Version, _Flight] = {}  # of writes that are still being delivered

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

    def enough(self, followers: Set[str]) -> bool:
        """Whether these followers, by node id, can confirm a write."""
        return all_met_by(self.in_force, followers)

    @property
    def live_followers(self) -> set[str]:
        return {name_of(link) for link in self.links if link.live}

    @property
    def live_links(self) -> int:
        return sum(link.live for link in self.links)

    def stop(self) -> None:
        """Take no more writes; those in flight go on."""
        self._stopping = True

    def superseded(self, why: str) -> None:
        """Another leadership has begun: confirm nothing any more."""
        if self.deposed is None:
            self.deposed = why
            logs.warning("leader.deposed", epoch=self.epoch, reason=why)
            for link in self.links:
                link.retire()
            self.progress()

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

    async def write(self, operations: Sequence[Operation]) -> Confirmed:
        """Do all of it or nothing, and wait until it is confirmed.

        Raises NotReady, Overloaded, NotEnoughFollowers, VersionConflict or NotFound (nothing was
        written), QuorumNotMet or StorageFailed (outcome unknown).
        """
        self.check_leads()
        if self.inflight_writes >= self._max_inflight_writes:
            raise Overloaded(
                f"{self.inflight_writes} writes are in flight already", retry_after_s=RETRY_AFTER_S
            )
        self.check_links()
        self.inflight_writes += 1
        write = _Write(operations)
        self.nursery.start_soon(self._carry, write)
        await write.done.wait()
        if isinstance(write.outcome, Confirmed):
            return write.outcome
        # No outcome: a stop has cut it short, after its version was issued. It may be on disk.
        raise write.outcome or self._not_met(write, 0, "before this node stopped")

    def check_links(self) -> None:
        """Raises NotEnoughFollowers."""
        if not self.enough(self.live_followers):
            raise NotEnoughFollowers(
                f"{self.live_links} of {self.write_quorum} required followers can be reached; "
                "nothing was written",
                live_links=self.live_links,
                required=self.write_quorum,
            )

    def _not_met(self, write: _Write, acks: int, when: str = "in time") -> QuorumNotMet:
        """The outcome of a write that may be there, and may be confirmed yet."""
        required = max((voters.write_quorum for voters in write.voters), default=0)
        return QuorumNotMet(
            f"{acks} of {required} required followers confirmed the write {when}; "
            "it stays at the leader and is still being replicated",
            version=None if write.version is None else str(write.version),
            follower_acks=acks,
            required=required,
        )

    async def _carry(self, write: _Write) -> None:
        """One write from its version to its outcome."""
        try:
            write.outcome = await self._replicate(write)
        except _Refused as refused:
            write.outcome = await self._confirm_refusal(refused)
        except TrikvError as refusal:
            write.outcome = refusal
        finally:
            self.inflight_writes -= 1
            write.done.set()

    async def _confirm_refusal(self, refused: _Refused) -> TrikvError:
        """A refusal tells what the map holds: it is a read, and must be as sure as one."""
        if self.write_quorum == 0:
            return refused.refusal
        try:
            await self.confirm_read(lambda: refused.told, self.write_timeout_s)
        except TrikvError as error:
            return error
        return refused.refusal

    async def _replicate(self, write: _Write) -> Confirmed:
        def make(store: Store, version: Version) -> Sequence[Record]:
            for index, operation in enumerate(write.operations):
                place = f"operations[{index}]: " if len(write.operations) > 1 else ""
                if operation.unconditional:
                    continue
                if refused := operation.refusal(store.current(operation.key), place):
                    raise _Refused(*refused)
            return [operation.record(version) for operation in write.operations]

        write.voters = self.in_force  # no checkpoint before the version is issued
        version, records, parcels = await self.commit(make)
        write.version = version
        write.trace.commit_ms = write.elapsed_ms()
        count = AckCount(write.voters, map(name_of, self.links))
        send, receive = trio.open_memory_channel[FollowerTrace](len(self.links))
        with receive:
            with send:
                for link, parcel in parcels:
                    step = FollowerTrace(link.url, link.node_id, self.lag.draw_ms(link.url))
                    write.trace.followers.append(step)
                    if parcel is not None:
                        self._start_delivery(version, link, parcel, step, send.clone(), write)
            await self._count_acks(count, receive)
        if not count.met:
            raise self._not_met(write, count.acks)
        write.trace.quorum_ms = write.elapsed_ms()
        return Confirmed(version, records, count.acks, write.trace)

    async def commit(
        self, make: Callable[[Store, Version], Sequence[Record]]
    ) -> tuple[Version, Sequence[Record], list[tuple[Link, Parcel | None]]]:
        """Issue a version, commit what `make` makes of it, hand that to the links.

        A parcel is on its way once it is delivered; None where a link did not take it.
        """
        # No checkpoint between the two: versions are committed in the order they were issued in.
        try:
            version = self._clock.issue()
        except OverflowError as error:
            raise NotReady(f"this node can't issue versions: {error}", waiting_for=[]) from None
        self._issued.issue(version.timestamp_us)

        def change(store: Store) -> Sequence[Record]:
            if store.state.promised != self.epoch:
                raise NotReady(f"this node has promised {store.state.promised} meanwhile")
            records = make(store, version)
            store.merge(records)
            return records

        parcels: list[tuple[Link, Parcel | None]] = []
        try:
            # A caller that leaves in the middle would leave a write that is committed, and that no link
            # has heard of. The wait is the disk's: the committer ends whatever waits when it ends.
            with trio.CancelScope(shield=True):
                records = await self.committer.commit(change)
            if records:
                content = Encoded(records, version.timestamp_us)
                parcels = [(link, link.accept(content)) for link in self.links]
        except NotReady:
            if (promised := self.store.state.promised) != self.epoch:
                self.superseded(f"this node has promised {promised}")
            raise
        finally:
            self._issued.resolve(version.timestamp_us)
            self.progress()
        return version, records, parcels

    async def spread(self, make: Callable[[Store, Version], Sequence[Record]]) -> Version:
        """Commit and deliver a write of the leader's own, without waiting for anyone."""
        version, _, parcels = await self.commit(make)
        for link, parcel in parcels:
            if parcel is not None and not self._stopping:  # the nursery may be closed by then
                step = FollowerTrace(link.url, link.node_id, self.lag.draw_ms(link.url))
                self._start_delivery(version, link, parcel, step)
        return version

    def _start_delivery(
        self,
        version: Version,
        link: Link,
        parcel: Parcel,
        step: FollowerTrace,
        acks: trio.MemorySendChannel[FollowerTrace] | None = None,
        write: _Write | None = None,
    ) -> None:
        """One write to one follower. Goes on after the write's answer has left."""
        flight = self._flights.setdefault(version, _Flight())
        flight.deliveries += 1

        def told(counts: bool) -> None:
            if counts:
                flight.holders.add(name_of(link))
                if write is not None and acks is not None:
                    step.node_id = link.node_id
                    step.ack_ms = write.elapsed_ms()
                    with suppress(trio.BrokenResourceError):  # late: the writer has left
                        acks.send_nowait(step)
            if acks is not None:
                acks.close()
            flight.deliveries -= 1
            if flight.deliveries == 0:
                del self._flights[version]
            self.progress()

        parcel.told = told
        if step.lag_ms > 0:
            self.nursery.start_soon(link.send_after, step.lag_ms / 1000, parcel)
        else:
            link.send(parcel)

    async def drained(self) -> None:
        """Wait until nothing is on its way any more."""
        while self._flights:
            await self._progress.wait()

    async def _count_acks(
        self, count: AckCount, receive: trio.MemoryReceiveChannel[FollowerTrace]
    ) -> None:
        """Until the quorum is met, cannot be met any more, or time is up."""
        with trio.move_on_after(self.write_timeout_s), suppress(trio.EndOfChannel):
            while not count.met:
                try:
                    step = receive.receive_nowait()
                except trio.WouldBlock:
                    step = await receive.receive()
                count.add(step.node_id or step.url)

    # -- reads --------------------------------------------------------------------------------------

    async def confirm_read(
        self, read: Callable[[], Record | None], timeout_s: float
    ) -> Record | None:
        """What `read` shows, once it is confirmed and this node is known to lead still.

        Raises NotReady, InvalidParameter (quorum 0 has nothing to confirm with), ReadTimeout.
        """
        self.check_leads()
        if self.write_quorum == 0:
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
                name_of(link)
                for link in self.links
                if link.live and link.rounds_answered > begun[link]
            }
            return self.enough(fresh) and (
                record is None or self.enough(self.holders(record.version))
            )

        with trio.move_on_after(timeout_s):
            await self.until(known)
            return record
        raise ReadTimeout(
            f"what this node holds was not confirmed within {timeout_s:g} s",
            live_links=self.live_links,
            required=self.write_quorum,
        )

    def holders(self, version: Version) -> set[str]:
        """The followers that are known to hold a committed write, or newer records of its keys."""
        flight = self._flights.get(version)
        acknowledged = set() if flight is None else flight.holders
        below = version.epoch != self.epoch  # such a one was there when this epoch began
        return acknowledged | {
            name_of(link)
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
            await self._progress.wait()

    def progress(self) -> None:
        """Let those look again who wait for the links."""
        self._progress.set()
        self._progress = trio.Event()

    async def settled_change(self, change: Callable[[Store], T]) -> T | None:
        """A change of the node's own state; None if the disk refused, which is said in the log."""
        try:
            return await self.committer.commit(change)
        except StorageFailed as error:
            logs.warning("storage.failed", reason=error.detail)
            return None
