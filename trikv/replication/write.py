"""One write, from its beginning to its outcome, and the group in which it travels to the followers.

Rules
- Writes that were committed together travel together, as one commit group, and one count says for all of
  them which followers have them: most of what replication costs is paid once for a group. With simulated
  lag each write is a group by itself, as each has a delay of its own to each follower.
- A write is confirmed by the voters that were in force when its version was issued: writes with other
  voters are in another group.
- A group is bounded, as a link sends whole groups: no request becomes larger by it.

What it does not know: links, how acknowledgements come (see `replicate`), what a client is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import trio

from trikv.errors import TrikvError
from trikv.model.quorum import AckCount, Voters
from trikv.model.record import Pair
from trikv.model.version import NO_VERSION
from trikv.replication.outbox import Encoded

#: Writes travel together up to so many records and bytes: small beside a request.
MAX_GROUP_RECORDS = 1_000
MAX_GROUP_BYTES = 2**20


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


class Write:
    """One write, from its beginning to its outcome."""

    def __init__(self, voters: Sequence[Voters], records: int = 0, size: int = 0) -> None:
        self.voters = tuple(voters)
        """In force when its version was issued."""
        self.records, self.size = records, size
        """What links will be asked to take."""
        self.began = trio.current_time()
        self.version = NO_VERSION
        """Once it was issued."""
        self.written: Sequence[Pair] = ()
        """What it made of each key, once that is committed."""
        self.error: TrikvError | None = None
        """Why it was not committed."""
        self.committed: trio.Event | None = None
        """Set once it is, or cannot be, where somebody waits for that alone."""
        self.commit_ms: float | None = None
        self.quorum_ms: float | None = None
        self.decided = trio.Event()
        """Set: it is confirmed, or cannot be any more, or time is up."""
        self.confirmed_by: int | None = None
        """How many followers had acknowledged it when it was confirmed."""
        self.group: CommitGroup | None = None
        """Once it is committed."""
        self.abandoned = False
        """Whoever asked for it has left before it was committed."""

    def elapsed_ms(self) -> float:
        return (trio.current_time() - self.began) * 1000

    @property
    def acks(self) -> int:
        """How many followers have acknowledged it by now."""
        return 0 if self.group is None else self.group.count.acks

    @property
    def deliveries_in_progress(self) -> int:
        return 0 if self.group is None else self.group.deliveries_in_progress

    @property
    def trace(self) -> Trace:
        """Its story up to now."""
        deliveries = () if self.group is None else self.group.deliveries
        followers = [delivery.trace(self.began) for delivery in deliveries]
        return Trace(self.commit_ms, self.quorum_ms, followers)


class Delivery:
    """The way of a commit group to one follower."""

    __slots__ = ("acked_at", "lag_ms", "node_id", "url")

    def __init__(self, url: str, node_id: str | None, lag_ms: float) -> None:
        self.url = url
        self.node_id = node_id
        self.lag_ms = lag_ms
        """The simulated lag that was drawn for it."""
        self.acked_at: float | None = None

    def trace(self, began: float) -> FollowerTrace:
        """Return its story, as seen from a write that began then."""
        ack_ms = None if self.acked_at is None else (self.acked_at - began) * 1000
        return FollowerTrace(self.url, self.node_id, self.lag_ms, ack_ms)


class Ack(NamedTuple):
    """A follower, by its node id, has the records of a group on its disk."""

    delivery: Delivery
    node_id: str
    at: float


class CommitGroup:
    """Committed writes on their way together, and which followers have acknowledged them."""

    def __init__(self, writes: Sequence[Write], content: Encoded) -> None:
        self.writes = writes
        self.content = content
        self.confirmed = False
        self.deliveries: Sequence[Delivery] = ()
        """One for each follower, whether its link took the group or not, once they have begun."""
        self.received: trio.MemoryReceiveChannel[Ack] | None = None
        for write in writes:
            write.group = self

    @cached_property
    def count(self) -> AckCount:
        names = [delivery.node_id or delivery.url for delivery in self.deliveries]
        return AckCount(self.writes[0].voters, names)

    @property
    def deliveries_in_progress(self) -> int:
        """Each holds a clone of the channel's sending end."""
        return 0 if self.received is None else self.received.statistics().open_send_channels

    def add(self, ack: Ack) -> None:
        """Count one acknowledgement. Raises ValueError for a node that is no follower here."""
        self.count.add(ack.node_id)
        ack.delivery.node_id, ack.delivery.acked_at = ack.node_id, ack.at
        self.check_quorum()

    def check_quorum(self) -> None:
        """Confirm the writes if enough have acknowledged them by now."""
        if not self.confirmed and self.count.met:
            self.confirmed = True
            for write in self.writes:
                write.confirmed_by = self.count.acks
                write.quorum_ms = write.elapsed_ms()

    def decide(self) -> None:
        """Wake those who wait for the writes: nothing that comes later changes the outcome."""
        for write in self.writes:
            write.decided.set()


def commit_groups(
    committed: Iterable[tuple[Write, Encoded]], *, apart: bool
) -> Iterator[CommitGroup]:
    """Put the writes of one transaction together to groups, in their order; `apart`: each to its own."""
    writes: list[Write] = []
    contents: list[Encoded] = []
    records = size = 0
    for write, content in committed:
        records += content.records
        size += content.size
        if writes and (
            apart
            or write.voters != writes[0].voters
            or records > MAX_GROUP_RECORDS
            or size > MAX_GROUP_BYTES
        ):
            yield CommitGroup(writes, Encoded.joined(contents))
            writes, contents = [], []
            records, size = content.records, content.size
        writes.append(write)
        contents.append(content)
    if writes:
        yield CommitGroup(writes, Encoded.joined(contents))
