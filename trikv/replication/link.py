"""The leader's end of one follower: handshake, catch-up, one request after another, retry.

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
- A link that no quorum waits for (see `pacing`) pauses for `PAUSE_S` after each request.
- At the first failed request the link is down, and every record on it has failed. None is lost: the
  map is the log, and a link that comes up again reads from it what the follower lacks.
- At a record that finds the outbox full the link falls back to syncing, which reads it from the map.

A session is what happens between two failures: the follower promises the epoch; if it was not brought
in this leader's state yet, what it holds beyond it is overruled (see `handshake`) and it is sent the
map (see `reverse_scan`) from its floor, else from its watermark; when all of that has arrived, it
is told how far it is, and the link is live. From then on the watermark follows the acknowledgements
(see `watermark`) and travels with one of the next batches.

What it does not know: quorums, HTTP (see `transport`), whether it may admit a node (see `host`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from enum import StrEnum

import trio

from trikv import log
from trikv.counters import LinkTally
from trikv.errors import PeerFailed, Superseded, TrikvError, first_leaf
from trikv.model.progress import Outstanding
from trikv.model.record import entries_of
from trikv.model.version import Version
from trikv.network.peers import Remote, decode_reply, excerpt
from trikv.network.simulated_lag import Wires
from trikv.network.transport import Reply
from trikv.protocol.messages import ReplicateAnswer, encode_batch
from trikv.rate import Rate
from trikv.replication import handshake, pacing
from trikv.replication.host import Host
from trikv.replication.outbox import Encoded, Outbox, OutgoingBatch
from trikv.replication.pacing import Idle
from trikv.storage.reverse_scan import Place

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


class LinkState(StrEnum):
    CONNECTING = "connecting"
    SYNCING = "syncing"
    LIVE = "live"
    DOWN = "down"
    CUT = "cut"


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
        self.outbox = Outbox()
        self.idle = Idle()
        self.tally = LinkTally()
        self._rate = Rate()
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
        self._wake = trio.Event()
        self._nudged = False
        self._usual_reply: Reply | None = None
        self._watched = False  # the follower has said that somebody watches it
        self._told_confirmed: Version | None = None
        self._told_at = -math.inf  # when the watermark was sent last
        self._posted = trio.Event()  # set: a request has been begun
        self._answered = trio.Event()
        self._posted_at = 0.0
        self._busy_s = 0.0  # for how long requests were in flight that have ended
        self._answer_s = 0.0  # how long the last ones took, in the mean
        self._quiet_since = math.inf  # when the last one ended; infinity: one is in flight
        self._behind = trio.Event()  # set: a record was turned away, the map must be read again
        self._outstanding = Outstanding()
        self._watermark_us: int | None = None
        self._away_since = trio.current_time()
        self._trouble = log.Trouble()  # since it was live last

    @property
    def name(self) -> str:
        """By which the follower is counted: its node id, or its URL as long as it has not told."""
        return self.node_id or self.url

    @property
    def state(self) -> LinkState:
        return LinkState.CUT if self._wires.is_cut(self.url) else self._state

    @property
    def live(self) -> bool:
        return self.state is LinkState.LIVE

    @property
    def lag_ms(self) -> float:
        """How long the oldest record on its way has been on it, or how long the link is not live."""
        if not self.live:
            return (trio.current_time() - self._away_since) * 1000
        since = self.outbox.since
        return 0.0 if since is None else (trio.current_time() - since) * 1000

    @property
    def slowness_s(self) -> float:
        """How long its requests took of late, or the one in flight up to now if that is more."""
        if self._quiet_since < math.inf:
            return self._answer_s
        return max(self._answer_s, trio.current_time() - self._posted_at)

    @property
    def busy_s(self) -> float:
        """For how long it has had requests in flight, in all; of a link that is live."""
        in_flight = self._quiet_since == math.inf
        return self._busy_s + (trio.current_time() - self._posted_at if in_flight else 0.0)

    @property
    def rate_records_s(self) -> float:
        """Records acknowledged per second, of late."""
        return self._rate.per_s(trio.current_time())

    @property
    def watermark_us(self) -> int | None:
        """How far the follower is, as the leader knows; None: not established in this epoch."""
        if self._state is LinkState.LIVE and self._watermark_us is not None:
            known = self._outstanding.watermark_us(self._host.resolved_us)
            self._watermark_us = max(self._watermark_us, known)
        return self._watermark_us

    # -- for the leader -----------------------------------------------------------------------------

    def reserve(self, content: Encoded) -> OutgoingBatch | None:
        """Take committed writes on their way; None if the link is not up, or its outbox full."""
        if self._state not in (LinkState.SYNCING, LinkState.LIVE):
            return None
        # The session may not have noticed yet that it is cut.
        if not self.outbox.has_room(content.records, content.size) or self._wires.is_cut(self.url):
            self.watermark_us  # noqa: B018 - as far as it came; now it stands
            self._enter(LinkState.SYNCING)
            self._behind.set()
            return None
        self._outstanding.add(content.timestamps_us[0], content.timestamps_us[-1])
        return self.outbox.reserve(content)

    async def deliver(self, batch: OutgoingBatch) -> bool:
        """Bring a batch to the follower; return whether it was acknowledged by a live follower.

        False does not mean that it will never arrive.
        """
        if self._state in (LinkState.SYNCING, LinkState.LIVE):
            self.outbox.queue(batch)
            self._wake.set()
        else:
            self.outbox.end(batch, False)
        await batch.ended.wait()
        return batch.acknowledged

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
        if self._trouble.is_news("link.waits", reason):
            log.info("link.waits", follower=self.url, node_id=self.node_id, reason=reason)
        self._state, self.reason = LinkState.CONNECTING, reason

    async def _keep_synced(self, after: Version) -> None:
        """Send what the follower lacks, again whenever a record had to be turned away.

        What does not arrive ends the session, and with it this task, at its next checkpoint.
        """
        epoch = self._host.candidate.epoch
        while True:
            self._behind = trio.Event()
            resolved_us, sent = await self._send_map(after)
            await self.deliver(OutgoingBatch(None, establishes=resolved_us))
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
                    await self.deliver(OutgoingBatch(Encoded.of(entries_of(records))))
                    sent += len(records)
            if page.older is not None and not page.older:
                return resolved_us, sent
            place = page.place(place)

    async def _pump(self) -> None:
        """Send what the outbox holds, all of it in one request, then what has come meanwhile."""
        while True:
            if not self.outbox.queued and not self._nudged:
                self._wake = trio.Event()
                await self._wake.wait()
            due = self._quiet_since + pacing.PAUSE_S
            if trio.current_time() < due and self.live and self._host.spare(self):
                await trio.sleep_until(due)
            self._nudged = False
            batches = self.outbox.take()
            self._posted_at, self._quiet_since = trio.current_time(), math.inf
            self._posted.set()
            size = await self._post(batches)
            self._quiet_since = trio.current_time()
            self._busy_s += self._quiet_since - self._posted_at
            self._answered.set()
            self._acknowledged(self._quiet_since - self._posted_at, size)
            self._host.progress()

    def _acknowledged(self, took_s: float, size: int) -> None:
        """The follower has all that is in flight: nothing, if the link has gone down meanwhile."""
        records = 0
        for batch in self.outbox.arrived(live=self._is(LinkState.LIVE)):
            if (content := batch.content) is not None:
                records += content.records
                if content.timestamps_us:
                    self._outstanding.settle(content.timestamps_us[0])
        self._answer_s = pacing.mean(self._answer_s, took_s)
        self.tally.answered(took_s, records, size)
        self._rate.note(self._quiet_since, records)

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

    async def _post(self, batches: Sequence[OutgoingBatch]) -> int:
        """One request to the follower; its size. Raises PeerFailed unless it acknowledges."""
        name, _, _, epoch = self._host.candidate
        ends = [p.establishes for p in batches if p.establishes is not None]
        watermark_us = None
        if ends:
            watermark_us = ends[-1]
        elif self._tells(batches):
            watermark_us, self._told_at = self.watermark_us, self._posted_at
        watermark = None if watermark_us is None else Version(epoch, watermark_us)
        confirmed = None
        if watermark is not None and (
            self._watched or not batches
        ):  # a heartbeat costs nobody time
            self._told_confirmed = confirmed = self._host.confirmed
        body = encode_batch(
            name,
            epoch,
            [batch.content.text for batch in batches if batch.content is not None],
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

    def _tells(self, batches: Sequence[OutgoingBatch]) -> bool:
        """Whether the watermark travels with these."""
        return not batches or self._watched or self._posted_at >= self._told_at + TELL_S

    def _go_down(self, reason: str) -> None:
        self.watermark_us  # noqa: B018 - as far as it came
        if self._state is not LinkState.DOWN:
            self.tally.downs += 1
            if self._trouble.is_news("link.down", reason):
                log.warning("link.down", follower=self.url, node_id=self.node_id, reason=reason)
            if self._state is LinkState.LIVE:
                self._away_since = trio.current_time()
        self._state, self.reason = LinkState.DOWN, reason
        self.outbox.fail()
        self._outstanding.clear()
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
        if state is LinkState.LIVE:
            self._trouble.over()
        if state is LinkState.LIVE or self._trouble.is_news("link.syncing"):
            log.info(f"link.{state}", follower=self.url, node_id=self.node_id, **told)
        self._state, self.reason = state, None
        if state is LinkState.LIVE:
            self.outbox.decide(True)
        self._host.progress()
