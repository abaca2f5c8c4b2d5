"""Replication of a commit group: a task for each follower, and a memory channel that counts their ACKs.

A *commit group* is the writes of one transaction (with simulated lag each write is a group by itself).
In the step in which it is committed, `begin` reserves room for it on each link and starts, in the
background nursery, a task for each delivery and one that counts. Each delivery owns a clone of the
channel's sending end. The count reads acknowledgements from the receiving end until the quorum is
reached, wakes those who wait for the writes, and reads on: the remaining deliveries go on in the
background.

Rules
- `begin` is synchronous. There is no gap between a commit and the reservations: watermarks rest on it.
- A link that is down, cut or full reserves nothing; its follower gets the records from the store later.
- A delivery sends its acknowledgement once the follower has the records on disk, and is live.
- A quorum that has become impossible is known at once: the channel ends when the last clone is closed.
- An acknowledgement that comes after the outcome is still noted: reads look at it.

What it does not know: versions, clients, requests to followers (see `link`), what a quorum is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence, Set
from contextlib import suppress

import trio

from trikv.model.version import Version
from trikv.network.simulated_lag import SimulatedLag
from trikv.replication.link import Link
from trikv.replication.outbox import OutgoingBatch
from trikv.replication.write import Ack, CommitGroup, Delivery

#: Acknowledgements are remembered for so many writes whose deliveries have all ended. A watermark says
#: the same, but an older delivery that waits out its lag may hold it down meanwhile.
MAX_ENDED_WRITES = 4096


class Replication:
    """The commit groups of one leadership that are on their way to its followers."""

    def __init__(
        self,
        background: trio.Nursery,
        lag: SimulatedLag,
        sleep: Callable[[float], Awaitable[None]],
        *,
        write_timeout_s: float,
        progress: Callable[[], None],
    ) -> None:
        """`sleep` waits out simulated lag; `progress` is called when something was acknowledged."""
        self.waits_out_lag = True
        """False during a stop: lag would only hold it up."""
        self._background = background
        self._lag = lag
        self._sleep = sleep
        self._write_timeout_s = write_timeout_s
        self._progress = progress
        self._groups: dict[Version, CommitGroup] = {}  # by the version of each of their writes
        self._ended: dict[Version, Set[str]] = {}  # who has acknowledged them; the oldest first

    def begin(self, group: CommitGroup, links: Sequence[Link]) -> None:
        """Send a group that was committed just now to all followers."""
        acks, received = trio.open_memory_channel[Ack](len(links))
        group.deliveries = [
            Delivery(link.url, link.node_id, self._lag.draw_ms(link.url)) for link in links
        ]
        group.received = received
        with acks:  # each delivery owns a clone: the channel ends with the last of them
            for link, delivery in zip(links, group.deliveries, strict=True):
                if (batch := link.reserve(group.content)) is not None:
                    self._background.start_soon(
                        self._deliver, group, link, batch, delivery, acks.clone()
                    )
        for write in group.writes:
            self._groups[write.version] = group
        group.check_quorum()
        if group.confirmed:  # with quorum 0 there is nothing to wait for
            group.decide()
        self._background.start_soon(self._count, group, received)

    async def _deliver(
        self,
        group: CommitGroup,
        link: Link,
        batch: OutgoingBatch,
        delivery: Delivery,
        acks: trio.MemorySendChannel[Ack],
    ) -> None:
        with acks:
            if delivery.lag_ms > 0 and self.waits_out_lag:
                await self._sleep(delivery.lag_ms / 1000)
            if await link.deliver(batch):
                ack = Ack(delivery, link.name, trio.current_time())
                for write in group.writes:
                    link.tally.ack_ms.observe((ack.at - write.began) * 1000)
                with suppress(trio.BrokenResourceError):  # the count has ended with its leadership
                    acks.send_nowait(ack)

    async def _count(self, group: CommitGroup, received: trio.MemoryReceiveChannel[Ack]) -> None:
        try:
            with received:
                with trio.move_on_after(self._write_timeout_s):
                    while not group.confirmed:
                        self._note(group, await received.receive())
                group.decide()  # confirmed, or out of time
                while True:
                    self._note(group, await received.receive())
        except trio.EndOfChannel:  # every delivery has ended
            pass
        finally:
            group.decide()
            for write in group.writes:
                del self._groups[write.version]
                self._ended[write.version] = group.count.acked
                if len(self._ended) > MAX_ENDED_WRITES:
                    del self._ended[next(iter(self._ended))]
            self._progress()

    def _note(self, group: CommitGroup, ack: Ack) -> None:
        group.add(ack)
        self._progress()

    def acknowledged(self, version: Version) -> Set[str]:
        """Return the followers, by node id, that have acknowledged a write, unless it is long ago."""
        group = self._groups.get(version)
        return self._ended.get(version, frozenset()) if group is None else group.count.acked
