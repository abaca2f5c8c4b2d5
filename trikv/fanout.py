"""What was committed goes to all followers, and what they say of it is counted.

Rules
- Links have what was committed in the very step in which the commit is told of, with no chance to be
  cancelled between, and in the order of commits. Those that are down, cut or full turn it away.
- With simulated lag they have it then, too, and send it when its lag is over.
- Nobody waits here: who wants a write's outcome waits for the write (see `delivery`), and what is on its
  way goes on after the answers have left.
- Each link tells once what became of a delivery. It is on its way until the last one has.

What it does not know: versions' order, clients, what is enough (each write knows its voters).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import partial

from trikv.alarm import Alarms
from trikv.delivery import Delivery, Leg, Write, together
from trikv.lag import SimulatedLag
from trikv.link import Link
from trikv.parcel import Encoded
from trikv.version import Entry, Version


class Fanout:
    """The deliveries that are on their way. What waits out its lag does so with `alarms`."""

    def __init__(self, lag: SimulatedLag, alarms: Alarms, progress: Callable[[], None]) -> None:
        self._lag = lag
        self._alarms = alarms
        self._progress = progress
        self._deliveries: dict[Version, Delivery] = {}
        self._ended = False

    @property
    def goes_on(self) -> bool:
        """Whether anything is on its way."""
        return bool(self._deliveries)

    def acked(self, version: Version) -> Set[str]:
        """Who has acknowledged a write that is on its way yet."""
        delivery = self._deliveries.get(version)
        return frozenset() if delivery is None else delivery.count.acked

    def send(self, group: Sequence[Write], links: Sequence[Link], *, at_once: bool) -> None:
        """Send what was committed together; `at_once` where a lag would only hold up a stop."""
        encoded = [
            (write, Encoded.of([Entry(write.version, write.written)], write.version.timestamp_us))
            for write in group
        ]
        for writes, content in together(encoded, apart=self._lag.is_on):
            self._deliver(writes, content, links, at_once)

    def _deliver(
        self, writes: Sequence[Write], content: Encoded, links: Sequence[Link], at_once: bool
    ) -> None:
        legs = [Leg(link.url, link.node_id, self._lag.draw_ms(link.url)) for link in links]
        delivery = Delivery(writes, legs)
        parcels = [link.accept(content) for link in links]
        for link, leg, parcel in zip(links, legs, parcels, strict=True):
            if parcel is not None:
                delivery.out += 1
                parcel.told = partial(self._told, delivery, link, leg)
        if delivery.out > 0:
            for write in writes:
                self._deliveries[write.version] = delivery
        delivery.decide()
        for link, leg, parcel in zip(links, legs, parcels, strict=True):
            if parcel is None:
                continue
            if leg.lag_ms > 0 and not at_once:
                self._alarms.after(leg.lag_ms / 1000, partial(link.send, parcel))
            else:
                link.send(parcel)
        if self._ended:
            delivery.give_up()

    def _told(self, delivery: Delivery, link: Link, leg: Leg, counts: bool) -> None:
        """What became of a delivery to one follower."""
        delivery.told(leg, link.node_id, counts)
        if leg.acked_at is not None:
            observe = link.tally.ack_ms.observe
            for write in delivery.writes:
                observe((leg.acked_at - write.began) * 1000)
        if delivery.out == 0:
            for write in delivery.writes:
                del self._deliveries[write.version]
        self._progress()

    def give_up(self) -> None:
        """Nobody waits for an outcome any more, of these or of any that come yet."""
        self._ended = True
        for delivery in self._deliveries.values():
            delivery.give_up()
