"""What is on its way to one follower: bounded, counted, and told about once.

Rules
- A parcel that was accepted is *held* until it ends: while it waits out its simulated lag, is queued, is
  in flight, and is undecided. What is held is bounded, in records and bytes.
- When it ends, whoever sent it is told, once, whether the follower has it for certain.
- What a follower has acknowledged before its link was live is *undecided*: yes, if the link becomes live
  before it goes down.
- A link's own parcels (pages of the map, the end of a handshake) take the same way, in the same order.
  They are not held, as the link waits for each.

What it does not know: the network, what state the link is in (see `link`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from trikv.messages import MAX_BATCH_BYTES, MAX_BATCH_RECORDS
from trikv.parcel import Encoded, Parcel

#: The records in flight and those waiting out their lag included. With 100 B values the first bound
#: holds (10 s of a fast leader's writes), with large ones the second.
MAX_OUTBOX_RECORDS = 20_000
MAX_OUTBOX_BYTES = 64 * 2**20


class Outbox:
    def __init__(self) -> None:
        self.records = 0
        """Records on their way: waiting out their lag, queued, in flight, or undecided."""
        self.size = 0
        """Their bytes."""
        self._held: dict[Parcel, None] = {}  # in the order in which they came
        self._queue: deque[Parcel] = deque()
        self._in_flight: Sequence[Parcel] = ()
        self._undecided: list[Parcel] = []

    @property
    def since(self) -> float | None:
        """When the oldest of what is on its way was accepted."""
        return next((parcel.since for parcel in self._held), None)

    @property
    def queued(self) -> bool:
        """Whether anything is to be sent."""
        return bool(self._queue)

    def has_room(self, records: int, size: int) -> bool:
        """Whether it would take so much."""
        return self.records + records <= MAX_OUTBOX_RECORDS and self.size + size <= MAX_OUTBOX_BYTES

    def accept(self, content: Encoded) -> Parcel:
        """It is on its way from now on, and is queued once its lag is over."""
        parcel = Parcel(content)
        self._held[parcel] = None
        self.records += content.records
        self.size += content.size
        return parcel

    def queue(self, parcel: Parcel) -> None:
        """It is to be sent: one that was accepted, or one of the link's own."""
        self._queue.append(parcel)

    def take(self) -> Sequence[Parcel]:
        """The parcels for one request, in flight from now on: bounded, but one at least if any waits."""
        assert not self._in_flight  # one request at a time
        taken: list[Parcel] = []
        records = size = 0
        while self._queue and records < MAX_BATCH_RECORDS and size < MAX_BATCH_BYTES:
            parcel = self._queue.popleft()
            taken.append(parcel)
            if parcel.content is not None:
                records += parcel.content.records
                size += parcel.content.size
        self._in_flight = taken
        return taken

    def arrived(self, *, live: bool) -> Sequence[Parcel]:
        """The follower has acknowledged all that was in flight, which is returned."""
        arrived, self._in_flight = self._in_flight, ()
        for parcel in arrived:
            if live or parcel not in self._held:
                self.end(parcel, True)
            else:
                self._undecided.append(parcel)
        return arrived

    def decide(self, counts: bool) -> None:
        """What becomes of the undecided."""
        undecided, self._undecided = self._undecided, []
        for parcel in undecided:
            self.end(parcel, counts)

    def fail(self) -> None:
        """All of it has failed, but what waits out its lag yet: that is decided when its lag is over."""
        failed = (*self._in_flight, *self._queue)
        self._in_flight = ()
        self._queue.clear()
        for parcel in failed:
            self.end(parcel, False)
        self.decide(False)

    def end(self, parcel: Parcel, counts: bool) -> None:
        """It is not on its way any more."""
        if parcel in self._held:
            assert parcel.content is not None
            del self._held[parcel]
            self.records -= parcel.content.records
            self.size -= parcel.content.size
        parcel.told(counts)
