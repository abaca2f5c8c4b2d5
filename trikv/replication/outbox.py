"""The outbox of a link: the batches that are on their way to one follower, bounded.

Rules
- A batch that was reserved is *held* until it ends: while it waits out its simulated lag, is queued, is
  in flight, and is undecided. What is held is bounded, in batches, records and bytes.
- A batch ends once: acknowledged, if the follower has it for certain and is live, or not.
- What a follower has acknowledged before its link was live is *undecided*: it is acknowledged if the
  link becomes live before it goes down.
- A link's own batches (pages of the store, the end of a handshake) take the same way, in the same order.
  They are not held, as the link waits for each.

What it does not know: the network, what state the link is in (see `link`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import trio

from trikv.model.record import Entry
from trikv.protocol.messages import MAX_BATCH_BYTES, MAX_BATCH_RECORDS, encode_entry

#: The records in flight and those waiting out their lag included. With 100 B values the first bound
#: holds (10 s of a fast leader's writes), with large ones the second.
MAX_OUTBOX_RECORDS = 20_000
MAX_OUTBOX_BYTES = 64 * 2**20

#: Each is a task of some kilobytes that waits out its lag, or for its acknowledgement.
MAX_OUTBOX_BATCHES = 5_000


class Encoded:
    """Records as they travel: the text is made once, and shared by all links.

    `timestamps_us` are those of the writes that they are; a page of the map has none.
    """

    __slots__ = ("records", "size", "text", "timestamps_us")

    def __init__(self, text: str, records: int, timestamps_us: Sequence[int] = ()) -> None:
        self.text = text
        self.records = records
        self.size = len(text)
        self.timestamps_us = timestamps_us

    @classmethod
    def of(cls, entries: Sequence[Entry], *timestamps_us: int) -> Encoded:
        records = sum([len(entry.pairs) for entry in entries])
        return cls(",".join(map(encode_entry, entries)), records, timestamps_us)

    @classmethod
    def joined(cls, parts: Sequence[Encoded]) -> Encoded:
        """All of these, as one."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            ",".join([part.text for part in parts]),
            sum(part.records for part in parts),
            [us for part in parts for us in part.timestamps_us],
        )


class OutgoingBatch:
    """Records that travel together to one follower, and what became of them. Compared by identity.

    With `establishes`, the end of a handshake: the follower has all up to this timestamp.
    """

    __slots__ = ("acknowledged", "content", "ended", "establishes", "since")

    def __init__(self, content: Encoded | None, establishes: int | None = None) -> None:
        self.content = content
        self.establishes = establishes
        self.since = trio.current_time()
        self.ended = trio.Event()
        """Set once it is acknowledged, or cannot be any more."""
        self.acknowledged = False
        """The follower has it on disk, and is live."""


class Outbox:
    def __init__(self) -> None:
        self.records = 0
        """Records on their way: waiting out their lag, queued, in flight, or undecided."""
        self.size = 0
        """Their bytes."""
        self._held: dict[OutgoingBatch, None] = {}  # in the order in which they came
        self._queue: deque[OutgoingBatch] = deque()
        self._in_flight: Sequence[OutgoingBatch] = ()
        self._undecided: list[OutgoingBatch] = []

    @property
    def since(self) -> float | None:
        """When the oldest of what is on its way was accepted."""
        return next((batch.since for batch in self._held), None)

    @property
    def queued(self) -> bool:
        """Whether anything is to be sent."""
        return bool(self._queue)

    def has_room(self, records: int, size: int, batches: int = 1) -> bool:
        """Return whether it would take so many more batches, of so much together."""
        return (
            self.records + records <= MAX_OUTBOX_RECORDS
            and self.size + size <= MAX_OUTBOX_BYTES
            and len(self._held) + batches <= MAX_OUTBOX_BATCHES
        )

    def reserve(self, content: Encoded) -> OutgoingBatch:
        """Hold a batch from now on; it is to be queued once its lag is over."""
        batch = OutgoingBatch(content)
        self._held[batch] = None
        self.records += content.records
        self.size += content.size
        return batch

    def queue(self, batch: OutgoingBatch) -> None:
        """Have a batch sent: one that was reserved, or one of the link's own."""
        self._queue.append(batch)

    def take(self) -> Sequence[OutgoingBatch]:
        """Return the batches of one request, in flight from now on: bounded, but at least one."""
        assert not self._in_flight  # one request at a time
        taken: list[OutgoingBatch] = []
        records = size = 0
        while self._queue and records < MAX_BATCH_RECORDS and size < MAX_BATCH_BYTES:
            batch = self._queue.popleft()
            taken.append(batch)
            if batch.content is not None:
                records += batch.content.records
                size += batch.content.size
        self._in_flight = taken
        return taken

    def arrived(self, *, live: bool) -> Sequence[OutgoingBatch]:
        """Note that the follower has acknowledged all that was in flight, and return it."""
        arrived, self._in_flight = self._in_flight, ()
        for batch in arrived:
            if live or batch not in self._held:
                self.end(batch, True)
            else:
                self._undecided.append(batch)
        return arrived

    def decide(self, acknowledged: bool) -> None:
        """End the undecided."""
        undecided, self._undecided = self._undecided, []
        for batch in undecided:
            self.end(batch, acknowledged)

    def fail(self) -> None:
        """End all without an acknowledgement, but what waits out its lag: that ends once it is over."""
        failed = (*self._in_flight, *self._queue)
        self._in_flight = ()
        self._queue.clear()
        for batch in failed:
            self.end(batch, False)
        self.decide(False)

    def end(self, batch: OutgoingBatch, acknowledged: bool) -> None:
        """Note that a batch is not on its way any more."""
        if batch in self._held:
            assert batch.content is not None
            del self._held[batch]
            self.records -= batch.content.records
            self.size -= batch.content.size
        batch.acknowledged = acknowledged
        batch.ended.set()
