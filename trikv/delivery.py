"""Writes, and their way to the followers: who has acknowledged them, and what is still out.

Rules
- Writes that were committed together travel together, and one count says for all of them who has them:
  most of what a delivery costs is paid once for a group. With simulated lag each write travels alone, as
  each has a delay of its own to each follower.
- A write is confirmed by the voters that were in force when its version was issued: those with others
  travel apart.
- A link tells, once, what became of its delivery. A write is decided, and its caller woken, when the
  quorum is reached, or when every delivery has ended, so that a quorum that has become impossible is
  known at once.
- What travels together is bounded, as a link sends whole parcels: no batch becomes larger by it.

What it does not know: links, how records are brought across, what a client is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import trio

from trikv.errors import TrikvError
from trikv.parcel import Encoded
from trikv.quorum import AckCount, Voters
from trikv.trace import FollowerTrace, Trace
from trikv.version import NO_VERSION, Pair

#: Writes travel together up to so many records and bytes: small beside a batch.
MAX_TOGETHER_RECORDS = 1_000
MAX_TOGETHER_BYTES = 2**20


class Write:
    """One write, from its begin to its outcome."""

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
        """Set: it is confirmed, or cannot be any more."""
        self.confirmed_by: int | None = None
        """How many followers had acknowledged it when it was confirmed."""
        self.delivery: Delivery | None = None
        """Once it is committed."""

    def elapsed_ms(self) -> float:
        return (trio.current_time() - self.began) * 1000

    @property
    def acks(self) -> int:
        return 0 if self.delivery is None else self.delivery.count.acks

    @property
    def out(self) -> int:
        """How many of its deliveries have not ended."""
        return 0 if self.delivery is None else self.delivery.out

    @property
    def trace(self) -> Trace:
        """Its story up to now."""
        legs = () if self.delivery is None else self.delivery.legs
        return Trace(self.commit_ms, self.quorum_ms, [leg.trace(self.began) for leg in legs])


class Leg:
    """The way of a delivery to one follower."""

    __slots__ = ("acked_at", "lag_ms", "node_id", "url")

    def __init__(self, url: str, node_id: str | None, lag_ms: float) -> None:
        self.url = url
        self.node_id = node_id
        self.lag_ms = lag_ms
        self.acked_at: float | None = None

    @property
    def name(self) -> str:
        """By which the follower is counted."""
        return self.node_id or self.url

    def trace(self, began: float) -> FollowerTrace:
        """As seen from a write that began then."""
        ack_ms = None if self.acked_at is None else (self.acked_at - began) * 1000
        return FollowerTrace(self.url, self.node_id, self.lag_ms, ack_ms)


class Delivery:
    """Committed writes on their way together, to these followers."""

    def __init__(self, writes: Sequence[Write], legs: Sequence[Leg]) -> None:
        self.writes = writes
        self.legs = legs
        self.count = AckCount(writes[0].voters, (leg.name for leg in legs))
        self.out = 0
        """How many links have it that have not told what became of it."""
        self._confirmed = False
        for write in writes:
            write.delivery = self

    def told(self, leg: Leg, node_id: str | None, counts: bool) -> None:
        """One of them has ended: whether the follower has it, as of now, and which it is by now.

        Raises ValueError for a node that is no follower here.
        """
        self.out -= 1
        if counts:
            leg.node_id = node_id
            leg.acked_at = trio.current_time()
            self.count.add(leg.name)
        self.decide()

    def decide(self) -> None:
        """See whether there is an outcome by now."""
        if self._confirmed:
            return
        if self.count.met:
            self._confirmed = True
            for write in self.writes:
                write.confirmed_by = self.count.acks
                write.quorum_ms = write.elapsed_ms()
        elif self.out > 0:
            return
        self.give_up()

    def give_up(self) -> None:
        """Nobody waits for an outcome any more."""
        for write in self.writes:
            write.decided.set()


def together(
    group: Iterable[tuple[Write, Encoded]], *, apart: bool
) -> Iterator[tuple[list[Write], Encoded]]:
    """The writes of a group, in their order, put together to what travels as one."""
    writes: list[Write] = []
    contents: list[Encoded] = []
    records = size = 0
    for write, content in group:
        records += content.records
        size += content.size
        if writes and (
            apart
            or write.voters != writes[0].voters
            or records > MAX_TOGETHER_RECORDS
            or size > MAX_TOGETHER_BYTES
        ):
            yield writes, Encoded.joined(contents)
            writes, contents = [], []
            records, size = content.records, content.size
        writes.append(write)
        contents.append(content)
    if writes:
        yield writes, Encoded.joined(contents)
