"""The write path: version, commit, fan out, count, answer.

Rules
- A write outlives its request: it runs in the node's nursery, and its caller only waits for the
  outcome. A caller that goes away changes nothing.
- The leader commits first, and fans out only what it has committed.
- Each delivery holds one clone of the send channel and closes it when it ends; the leader's own end is
  closed once all are started. So the receiver ends when the quorum is reached, when time runs out, or
  when every delivery has ended: a quorum that has become impossible is known at once.
- Late acknowledgements meet a closed channel: the writer has left, and nothing is waiting.
- Writes in flight (until their outcome is known) are bounded; one too many is refused, unwritten.

What it does not know: HTTP, how a link brings records across.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from trikv.committer import Committer
from trikv.errors import NotReady, Overloaded, QuorumNotMet, TrikvError
from trikv.lag import SimulatedLag
from trikv.link import Encoded, Link, LinkState
from trikv.quorum import AckCount
from trikv.version import Epoch, Record, VersionClock

#: What `Retry-After` says to a client whose write was one too many: by then most in flight are done.
RETRY_AFTER_S = 1


@dataclass
class FollowerTrace:
    """What happened to one write on its way to one follower; times in ms since the write began."""

    url: str
    node_id: str | None
    lag_ms: float
    ack_ms: float | None = None


@dataclass
class Trace:
    """A write's story: times in milliseconds since it began; None: not yet, or never."""

    commit_ms: float | None = None
    quorum_ms: float | None = None
    followers: list[FollowerTrace] = field(default_factory=list)


@dataclass(frozen=True)
class Confirmed:
    """A write on disk at the leader and at `follower_acks` followers, at least the quorum."""

    record: Record
    follower_acks: int
    trace: Trace


class _Write:
    """A write on its way, and what becomes of it."""

    def __init__(self, key: str, value: str, required: int) -> None:
        self.key = key
        self.value = value
        self.required = required
        self.began = trio.current_time()
        self.trace = Trace()
        self.done = trio.Event()
        self.outcome: Confirmed | TrikvError | None = None

    def elapsed_ms(self) -> float:
        return (trio.current_time() - self.began) * 1000


class Leader:
    """Takes writes while it leads `epoch`. Its tasks run in `nursery`, the node's."""

    def __init__(
        self,
        *,
        clock: VersionClock,
        committer: Committer,
        links: Sequence[Link],
        lag: SimulatedLag,
        write_quorum: int,
        write_timeout_s: float,
        max_inflight_writes: int,
        nursery: trio.Nursery,
    ) -> None:
        self.links = links
        self.lag = lag
        self.write_quorum = write_quorum
        self._clock = clock
        self._committer = committer
        self._write_timeout_s = write_timeout_s
        self._max_inflight_writes = max_inflight_writes
        self._nursery = nursery
        self._stopping = False
        self.inflight_writes = 0

    @property
    def epoch(self) -> Epoch:
        return self._clock.epoch

    @property
    def live_links(self) -> int:
        return sum(link.state is LinkState.LIVE for link in self.links)

    @property
    def ready(self) -> bool:
        """Whether a write that came now would find followers enough."""
        return not self._stopping and self.live_links >= self.write_quorum

    def stop(self) -> None:
        """Take no more writes; those in flight go on."""
        self._stopping = True

    async def put(self, key: str, value: str) -> Confirmed:
        """Write an encoded value, and wait until it is confirmed.

        Raises Overloaded or NotReady (nothing was written), QuorumNotMet or StorageFailed (outcome
        unknown).
        """
        if self._stopping:
            raise NotReady("this node is stopping")
        if self.inflight_writes >= self._max_inflight_writes:
            raise Overloaded(
                f"{self.inflight_writes} writes are in flight already", retry_after_s=RETRY_AFTER_S
            )
        self.inflight_writes += 1
        write = _Write(key, value, self.write_quorum)
        self._nursery.start_soon(self._carry, write)
        await write.done.wait()
        if isinstance(write.outcome, Confirmed):
            return write.outcome
        raise write.outcome or NotReady("this node is stopping")

    async def _carry(self, write: _Write) -> None:
        """One write from its version to its outcome."""
        try:
            write.outcome = await self._replicate(write)
        except TrikvError as refusal:
            write.outcome = refusal
        finally:
            self.inflight_writes -= 1
            write.done.set()

    async def _replicate(self, write: _Write) -> Confirmed:
        # No checkpoint between the two: versions are committed in the order they were issued in.
        record = Record(write.key, write.value, self._clock.issue())
        await self._committer.commit(lambda store: store.merge([record]))
        write.trace.commit_ms = write.elapsed_ms()

        count = AckCount(write.required, (link.url for link in self.links))
        encoded = Encoded(record)
        send, receive = trio.open_memory_channel[FollowerTrace](len(self.links))
        with receive:
            with send:
                for link in self.links:
                    step = FollowerTrace(link.url, link.node_id, self.lag.draw_ms(link.url))
                    write.trace.followers.append(step)
                    clone = send.clone()
                    self._nursery.start_soon(self._deliver, write, encoded, link, step, clone)
            await self._count_acks(count, receive)
        if not count.met:
            raise QuorumNotMet(
                f"{count.acks} of {count.required} required followers confirmed the write in time; "
                "it stays at the leader and is still being replicated",
                version=str(record.version),
                follower_acks=count.acks,
                required=count.required,
            )
        write.trace.quorum_ms = write.elapsed_ms()
        return Confirmed(record, count.acks, write.trace)

    async def _count_acks(
        self, count: AckCount, receive: trio.MemoryReceiveChannel[FollowerTrace]
    ) -> None:
        """Until the quorum is met, cannot be met any more, or time is up."""
        with trio.move_on_after(self._write_timeout_s), suppress(trio.EndOfChannel):
            while not count.met:
                step = await receive.receive()
                count.add(step.url)

    async def _deliver(
        self,
        write: _Write,
        encoded: Encoded,
        link: Link,
        step: FollowerTrace,
        acks: trio.MemorySendChannel[FollowerTrace],
    ) -> None:
        """One record to one follower. Goes on after the write's answer has left."""
        with acks:
            if await link.deliver(encoded, step.lag_ms / 1000):
                step.node_id = link.node_id
                step.ack_ms = write.elapsed_ms()
                with suppress(trio.BrokenResourceError):  # late: the writer has left
                    acks.send_nowait(step)
