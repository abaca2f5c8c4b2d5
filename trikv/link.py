"""The leader's end of one follower: handshake, catch-up, outbox, coalescing, retry.

States
    connecting   not in touch yet, or the handshake goes on: `reason` says what it waits for
    syncing      the follower is being brought up to date, page by page, live records beside it
    live         it holds all there is, and is sent what comes: its acknowledgements count
    down         it did not answer, or refused; records are turned away at once
    cut          its wire was cut over the API: as good as down, until it is healed

Rules
- One request is in flight at a time. What queues up meanwhile travels in the next one, and the follower
  merges it in one transaction.
- A record counts as acknowledged only when the follower has answered 200 to the request that held it,
  and is live. On becoming live, what was acknowledged on the way counts.
- A link has one follower, a follower one link: an answer from a node that answered elsewhere, or from
  another than before, is no acknowledgement. (Addresses are handed on: of two containers that start
  again each may get the other's, and a node that is counted twice makes a quorum of too few.)
- A link that no quorum waits for (see `pace`) pauses for `PAUSE_S` after each request.
- At the first failed request the link is down, and every record on it has failed. None is lost: the
  map is the log, and a link that comes up again reads from it what the follower lacks.
- The outbox is bounded, in records and bytes, counting those that still wait out their simulated lag.
  At a record that finds it full the link falls back to syncing, which reads it from the map.

A session is what happens between two failures: the follower promises the epoch; if it was not brought
in this leader's state yet, what it holds beyond it is overruled (see `handshake`) and it is sent the map
from its floor, else from its watermark; when all of that has arrived, it is told how far it is, and the
link is live. From then on the watermark follows the acknowledgements (see `watermark`) and travels with
one of the next batches.

The map is sent from its newest record back, and each page brings what was written meanwhile. For a batch
of which a key was written again since is no longer whole in the map: if the rest of it came before what
has taken that key's place, and then no more, the follower would hold a part of a batch. In this order it
holds, after every page, what the leader's map held from some version on.

What it does not know: quorums, HTTP (see `transport`), whether it may admit a node (see `Host`).
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

import trio

from trikv import handshake, logs, pace
from trikv.errors import PeerFailed, Superseded, TrikvError, first_leaf
from trikv.lag import Wires
from trikv.messages import (
    MAX_BATCH_BYTES,
    MAX_BATCH_RECORDS,
    ReplicateAnswer,
    encode_batch,
)
from trikv.parcel import Encoded, Parcel
from trikv.peers import Candidate, Promised, Remote, decode_reply, excerpt
from trikv.tally import LinkTally
from trikv.transport import Reply
from trikv.version import Record, Version
from trikv.watermark import Outstanding

#: The outbox, the records in flight and those waiting out their lag included. With 100 B values the
#: first bound holds (10 s of a fast leader's writes), with large ones the second.
MAX_OUTBOX_RECORDS = 20_000
MAX_OUTBOX_BYTES = 64 * 2**20

#: A page of the map: small beside the outbox, large enough to pay for its fsync.
PAGE_RECORDS = 2_000
PAGE_BYTES = 2 * 2**20

#: With nothing to send, a heartbeat tells a dead follower from an idle one.
HEARTBEAT_S = 1.0

#: A watermark that has moved is sent by itself once there has been nothing else to send for so long:
#: readers at the follower wait for it.
FLUSH_S = 0.05

#: While requests follow each other the watermark travels with one so often, unless somebody waits for
#: it: to write it down costs a follower a quarter of a small commit.
TELL_S = 0.02

FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 3.0

#: The rate that is shown is the mean of so many seconds.
RATE_WINDOW_S = 5.0


class LinkState(StrEnum):
    CONNECTING = "connecting"
    SYNCING = "syncing"
    LIVE = "live"
    DOWN = "down"
    CUT = "cut"


class Place(NamedTuple):
    """How far a map was read, from its newest record back: all between the two, ends included."""

    top: Version
    bottom: Version


class PageBack(NamedTuple):
    """The next older records, newest first; to be sent before them, all that is newer now than the top.

    `older` is None where more is newer than is read at a time, and [] at the end of the way.
    """

    newer: Sequence[Record]
    older: Sequence[Record] | None

    def place(self, before: Place | None) -> Place:
        """How far the map was read with this page, which is not empty."""
        if before is None:
            assert self.older  # nothing can be newer than a top that is not known yet
            return Place(self.older[0].version, self.older[-1].version)
        bottom = self.older[-1].version if self.older else before.bottom
        return Place(self.newer[-1].version if self.newer else before.top, bottom)


class Host(Protocol):
    """What a link needs of its leader."""

    @property
    def candidate(self) -> Candidate: ...
    @property
    def resolved_us(self) -> int:
        """Every write up to here is committed, and was handed to the links, or has failed."""
        ...

    @property
    def confirmed(self) -> Version | None:
        """Up to here all is on enough nodes; None: nothing is known to be."""
        ...

    @property
    def floor(self) -> Version: ...
    async def read_back(
        self, after: Version, place: Place | None, limit: int, max_bytes: int
    ) -> PageBack:
        """The next page on the way back to a version; from the newest record on, if there is no place.

        Raises StorageFailed.
        """
        ...

    async def overrule(self, follower: str, held: Sequence[Record]) -> None:
        """Write anew what this leader has of those keys of which the follower has something newer."""
        ...

    async def admit(self, link: Link) -> None:
        """Wait until a new node may be brought in."""
        ...

    def recognise(self, link: Link, told: Promised) -> None:
        """Raises PeerFailed if this node can't be the link's follower."""
        ...

    def spare(self, link: Link) -> bool:
        """Whether no quorum waits for this link."""
        ...

    def superseded(self, why: str) -> None:
        """A follower has promised a higher epoch: this leadership is over."""
        ...

    def progress(self) -> None:
        """An acknowledgement, a heartbeat, or a new state of a link."""
        ...


class Link:
    def __init__(
        self,
        url: str,
        host: Host,
        *,
        wires: Wires,
        page_lag_s: Callable[[], float],
        request_timeout_s: float,
        rng: random.Random,
    ) -> None:
        self.url = url
        self.node_id: str | None = None
        self.new: bool | None = None
        """Whether the follower was never brought in anyone's state; None: not heard yet."""
        self.reason: str | None = None
        """Why the link is down, or what it waits for, in words."""
        self.rounds_begun = 0
        self.rounds_answered = 0
        """The number of the last request that was begun, and of the last that was acknowledged."""
        self.stored_us: int | None = None
        """The watermark that the follower has on its disk; None: not established in this epoch."""
        self.tally = LinkTally()
        self._host = host
        self._wires = wires
        self._remote = Remote(wires, url, request_timeout_s)
        self._page_lag_s = page_lag_s
        self._timeout_s = request_timeout_s
        self._rng = rng
        self._state = LinkState.CONNECTING
        self._instance = ""
        self._backoff_s = FIRST_BACKOFF_S
        self._retry = trio.Event()
        self._retired = False
        self._until_retired = trio.CancelScope()
        self._outbox: deque[Parcel] = deque()
        self._in_flight: list[Parcel] = []
        self._wake = trio.Event()
        self._nudged = False
        self._usual_reply: Reply | None = None
        self._watched = False  # the follower has said that somebody watches it
        self._told_confirmed: Version | None = None
        self._told_at = -math.inf  # when the watermark was sent last
        self._posted = trio.Event()  # set: a request has been begun
        self._answered = trio.Event()
        self._posted_at = 0.0
        self._answer_s = 0.0  # how long the last ones took, in the mean
        self._quiet_since = math.inf  # when the last one ended; infinity: one is in flight
        self._behind = trio.Event()  # set: a record was turned away, the map must be read again
        self._undecided: list[Parcel] = []  # acknowledged while syncing
        self._held: dict[Parcel, None] = {}  # in the order in which they came
        self._held_records = 0
        self.held_bytes = 0
        self._outstanding = Outstanding()
        self._watermark_us: int | None = None
        self._away_since = trio.current_time()
        self._acknowledged: deque[tuple[float, int]] = deque()  # when, how many records

    @property
    def state(self) -> LinkState:
        return LinkState.CUT if self._wires.is_cut(self.url) else self._state

    @property
    def live(self) -> bool:
        return self.state is LinkState.LIVE

    @property
    def held_records(self) -> int:
        """Records on their way: waiting out their lag, queued, or in flight."""
        return self._held_records

    @property
    def lag_ms(self) -> float:
        """How long the oldest record on its way has been on it, or how long the link is not live."""
        if not self.live:
            return (trio.current_time() - self._away_since) * 1000
        for parcel in self._held:
            return (trio.current_time() - parcel.since) * 1000
        return 0.0

    @property
    def slowness_s(self) -> float:
        """How long its requests took of late, or the one in flight up to now if that is more."""
        if self._quiet_since < math.inf:
            return self._answer_s
        return max(self._answer_s, trio.current_time() - self._posted_at)

    @property
    def rate_records_s(self) -> float:
        """Records acknowledged per second, of late."""
        self._forget_old_rates()
        return sum(count for _, count in self._acknowledged) / RATE_WINDOW_S

    def _forget_old_rates(self) -> None:
        horizon = trio.current_time() - RATE_WINDOW_S
        while self._acknowledged and self._acknowledged[0][0] < horizon:
            self._acknowledged.popleft()

    @property
    def watermark_us(self) -> int | None:
        """How far the follower is, as the leader knows; None: not established in this epoch."""
        if self._state is LinkState.LIVE and self._watermark_us is not None:
            known = self._outstanding.watermark_us(self._host.resolved_us)
            self._watermark_us = max(self._watermark_us, known)
        return self._watermark_us

    # -- for the leader -----------------------------------------------------------------------------

    def accept(self, content: Encoded) -> Parcel | None:
        """Take committed writes on their way; None if the link is not up, or its outbox full."""
        if self._state not in (LinkState.SYNCING, LinkState.LIVE):
            return None
        # The session may not have noticed yet that it is cut.
        if not self.has_room(content.records, content.size) or self._wires.is_cut(self.url):
            self.watermark_us  # noqa: B018 - as far as it came; now it stands
            self._enter(LinkState.SYNCING)
            self._behind.set()
            return None
        parcel = Parcel(content)
        self._held[parcel] = None
        self._held_records += content.records
        self.held_bytes += content.size
        self._outstanding.add(content.timestamps_us[0], content.timestamps_us[-1])
        return parcel

    def has_room(self, records: int, size: int) -> bool:
        """Whether the outbox would take so much."""
        return (
            self._held_records + records <= MAX_OUTBOX_RECORDS
            and self.held_bytes + size <= MAX_OUTBOX_BYTES
        )

    def send(self, parcel: Parcel) -> None:
        """Bring what was accepted to the follower; `parcel.told` hears whether it counts.

        False means "not acknowledged", not "will never arrive".
        """
        if self._state in (LinkState.SYNCING, LinkState.LIVE):
            self._outbox.append(parcel)
            self._wake.set()
        else:
            self._end(parcel, False)

    async def send_after(self, lag_s: float, parcel: Parcel) -> None:
        """The same after its simulated lag."""
        await trio.sleep(lag_s)
        self.send(parcel)

    def nudge(self) -> None:
        """Send a request now, a heartbeat if there is nothing else; or try again now to connect."""
        self._nudged = True
        self._wake.set()
        self._retry.set()

    def retire(self) -> None:
        """The leadership is over: all has failed, and nothing is tried any more."""
        self._retired = True
        self._until_retired.cancel()
        self._go_down("this node does not lead any more")
        self.nudge()

    # -- the link's own task ------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the follower supplied, as long as this node leads."""
        while not self._over():
            try:
                self._until_retired = trio.CancelScope()
                with self._until_retired:
                    await self._session()
            except* Superseded as errors:
                self._host.superseded(str(first_leaf(errors)))
            except* TrikvError as errors:
                self._go_down(str(first_leaf(errors)))
            if self._over():
                return
            self._retry = trio.Event()
            with trio.move_on_after(self._backoff_s * self._rng.uniform(0.5, 1.0)):
                await self._retry.wait()
            self._backoff_s = min(2 * self._backoff_s, LAST_BACKOFF_S)

    async def _session(self) -> None:
        """From a promise to the first failure, which it raises as PeerFailed."""
        told = await self._remote.promise(self._host.candidate)
        self._host.recognise(self, told)
        self._instance = told.state.instance
        stale = handshake.is_stale(told.state, self._host.floor)
        self.new = told.state.new or stale
        if told.state.established == self._host.candidate.epoch and not stale:
            after = told.state.watermark
            self._watermark_us = self.stored_us = after.timestamp_us
        else:
            self._watermark_us = self.stored_us = None
            after = await handshake.begin(self, self._host, self._remote, told.state)
        # It may have been retired while it waited for something that cannot be cancelled.
        await trio.lowlevel.checkpoint_if_cancelled()
        self._outstanding.clear()
        self._usual_reply = None
        self._enter(LinkState.SYNCING)
        self._quiet_since = trio.current_time()
        with self._wires.held(self.url):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_synced, after)
                nursery.start_soon(self._pump)
                nursery.start_soon(self._keep_time)

    def waits(self, reason: str) -> None:
        """The handshake cannot go on yet."""
        logs.info("link.waits", follower=self.url, node_id=self.node_id, reason=reason)
        self._state, self.reason = LinkState.CONNECTING, reason

    async def _keep_synced(self, after: Version) -> None:
        """Send what the follower lacks, again whenever a record had to be turned away.

        What does not arrive ends the session, and with it this task, at its next checkpoint.
        """
        epoch = self._host.candidate.epoch
        while True:
            self._behind = trio.Event()
            resolved_us, sent = await self._send_map(after)
            await self._send_page(Parcel(None, establishes=resolved_us))
            if not self._behind.is_set() and self._is(LinkState.SYNCING):
                self._outstanding.settle_up_to(resolved_us)
                self._watermark_us = max(self._watermark_us or 0, resolved_us)
                self.new = False
                self._backoff_s = FIRST_BACKOFF_S
                self._enter(LinkState.LIVE, caught_up_records=sent)
                await self._behind.wait()
            after = Version(epoch, max(self._watermark_us or 0, resolved_us))

    async def _send_map(self, after: Version) -> tuple[int, int]:
        """Send the map from its newest record back to that version.

        Up to where the follower then has everything, and how many records it took.
        """
        place: Place | None = None
        sent = 0
        while True:
            # Before the page is read: what is issued meanwhile may be missing in it.
            resolved_us = self._host.resolved_us
            page = await self._host.read_back(after, place, PAGE_RECORDS, PAGE_BYTES)
            if page.newer or page.older:
                await trio.sleep(self._page_lag_s())
            for records in (page.newer, page.older):
                if records:
                    await self._send_page(Parcel(Encoded.of(records)))
                    sent += len(records)
            if page.older is not None and not page.older:
                return resolved_us, sent
            place = page.place(place)

    async def _send_page(self, parcel: Parcel) -> None:
        """Send what is the link's own, and wait until it is there.

        Where it does not arrive, the session ends, and this task with it.
        """
        arrived = trio.Event()
        parcel.told = lambda _: arrived.set()
        self.send(parcel)
        await arrived.wait()

    def _arrived(self, parcel: Parcel) -> None:
        """The follower has acknowledged it."""
        if parcel.content is not None and parcel.content.timestamps_us:
            self._outstanding.settle(parcel.content.timestamps_us[0])
        if parcel in self._held and self._is(LinkState.SYNCING):
            self._undecided.append(parcel)
        else:
            self._end(parcel, True)

    def _decide(self, counts: bool) -> None:
        """What was acknowledged before the link was live counts if it becomes so."""
        undecided, self._undecided = self._undecided, []
        for parcel in undecided:
            self._end(parcel, counts)

    def _end(self, parcel: Parcel, counts: bool) -> None:
        if parcel in self._held:
            assert parcel.content is not None
            del self._held[parcel]
            self._held_records -= parcel.content.records
            self.held_bytes -= parcel.content.size
        parcel.told(counts)

    async def _pump(self) -> None:
        """Send what the outbox holds, all of it in one request, then what has come meanwhile."""
        while True:
            if not self._outbox and not self._nudged:
                self._wake = trio.Event()
                await self._wake.wait()
            due = self._quiet_since + pace.PAUSE_S
            if trio.current_time() < due and self.live and self._host.spare(self):
                await trio.sleep_until(due)
            self._nudged = False
            self._in_flight = self._take()
            self._posted_at, self._quiet_since = trio.current_time(), math.inf
            self._posted.set()
            size = await self._post(self._in_flight)
            self._quiet_since = trio.current_time()
            self._answered.set()
            for parcel in self._in_flight:
                self._arrived(parcel)
            records = sum(p.content.records for p in self._in_flight if p.content is not None)
            self._acknowledged.append((self._quiet_since, records))
            took_s = self._quiet_since - self._posted_at
            self._answer_s = pace.mean(self._answer_s, took_s)
            self.tally.answered(took_s, records, size)
            self._forget_old_rates()
            self._in_flight = []
            self._host.progress()

    async def _keep_time(self) -> None:
        """Where nothing else is sent: soon a watermark that has moved, now and then a heartbeat.

        And what was sent is answered in time, or the session ends: raises PeerFailed. A task of its own,
        since a deadline for each wait of the pump would cost more than the wait.
        """
        pause_s = min(FLUSH_S, self._timeout_s)  # it need not look at each of many requests
        while True:
            if self._quiet_since == math.inf:
                self._answered = trio.Event()
                with trio.move_on_at(self._posted_at + self._timeout_s):
                    await self._answered.wait()
                if not self._answered.is_set():
                    raise PeerFailed(f"{self.url}: no answer within {self._timeout_s:g} s")
                await trio.sleep(pause_s)
                continue
            self._posted = trio.Event()
            due = self._quiet_until()
            # What is confirmed moves by the acknowledgements of others.
            look = trio.current_time() + FLUSH_S if self._watched else due
            with trio.move_on_at(min(due, look)):
                await self._posted.wait()
            if self._posted.is_set():
                await trio.sleep(pause_s)
            elif trio.current_time() >= self._quiet_until():
                self._nudged = True
                self._wake.set()
                await self._posted.wait()

    def _quiet_until(self) -> float:
        """When something is to be sent where nothing has been since the last answer."""
        news = self.stored_us is not None and (
            self.watermark_us != self.stored_us
            or (self._watched and self._host.confirmed != self._told_confirmed)
        )
        return self._quiet_since + (FLUSH_S if news else HEARTBEAT_S)

    def _take(self) -> list[Parcel]:
        """The parcels for one request: bounded, but at least one if there is any."""
        taken: list[Parcel] = []
        records = size = 0
        while self._outbox and records < MAX_BATCH_RECORDS and size < MAX_BATCH_BYTES:
            parcel = self._outbox.popleft()
            taken.append(parcel)
            if parcel.content is not None:
                records += parcel.content.records
                size += parcel.content.size
        return taken

    async def _post(self, parcels: Sequence[Parcel]) -> int:
        """One request to the follower; its size. Raises PeerFailed unless it acknowledges."""
        name, _, _, epoch = self._host.candidate
        ends = [p.establishes for p in parcels if p.establishes is not None]
        watermark_us = None
        if ends:
            watermark_us = ends[-1]
        elif self._tells(parcels):
            watermark_us, self._told_at = self.watermark_us, self._posted_at
        watermark = None if watermark_us is None else Version(epoch, watermark_us)
        confirmed = None
        if watermark is not None and (
            self._watched or not parcels
        ):  # a heartbeat costs nobody time
            self._told_confirmed = confirmed = self._host.confirmed
        body = encode_batch(
            name,
            epoch,
            [parcel.content.text for parcel in parcels if parcel.content is not None],
            follower=self._instance,
            watermark=watermark,
            # A follower that is brought in yet has not got so far.
            floor=None if watermark is None else min(self._host.floor, watermark),
            established=bool(ends),
            confirmed=confirmed,
        )
        self.rounds_begun += 1
        round_ = self.rounds_begun
        reply = await self._wires.post(self.url, "/replicate", body)
        if reply != self._usual_reply:  # to the last byte: read and checked once for a session
            url = f"{self.url}/replicate"
            answer = decode_reply(url, reply, ReplicateAnswer)
            if (answer.status, answer.epoch) != (
                "ok",
                str(epoch),
            ) or answer.node_id != self.node_id:
                raise PeerFailed(f"{url}: not an acknowledgement: {excerpt(reply.body)}")
            self._usual_reply, self._watched = reply, answer.watched
        self.rounds_answered = round_
        if watermark_us is not None:
            self.stored_us = max(self.stored_us or 0, watermark_us)
        return len(body)

    def _tells(self, parcels: Sequence[Parcel]) -> bool:
        """Whether the watermark travels with these."""
        return not parcels or self._watched or self._posted_at >= self._told_at + TELL_S

    def _go_down(self, reason: str) -> None:
        self.watermark_us  # noqa: B018 - as far as it came
        if self._state is not LinkState.DOWN:
            self.tally.downs += 1
            logs.warning("link.down", follower=self.url, node_id=self.node_id, reason=reason)
            if self._state is LinkState.LIVE:
                self._away_since = trio.current_time()
        self._state, self.reason = LinkState.DOWN, reason
        for parcel in (*self._in_flight, *self._outbox):
            self._end(parcel, False)
        self._in_flight = []
        self._outbox.clear()
        self._outstanding.clear()
        self._decide(False)
        self._host.progress()

    def _over(self) -> bool:
        return self._retired

    def _is(self, state: LinkState) -> bool:
        return self._state is state

    def _enter(self, state: LinkState, **told: int) -> None:
        """Syncing or live."""
        if state is self._state:
            return
        if self._state is LinkState.LIVE:
            self._away_since = trio.current_time()
        logs.info(f"link.{state}", follower=self.url, node_id=self.node_id, **told)
        self._state, self.reason = state, None
        if state is LinkState.LIVE:
            self._decide(True)
        self._host.progress()
