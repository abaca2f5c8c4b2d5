"""The leader's end of one follower: outbox, coalescing, retry, and the whole map after a reconnect.

States
    connecting   not yet heard of this follower since the leader started; records queue up
    syncing      it answers; the whole map is on its way, in version order, live records beside it
    live         it answers and has been sent all there is
    down         it did not answer, or refused; records are turned away at once

Rules
- One request is in flight at a time. What queues up meanwhile travels in the next one, and the follower
  merges it in one transaction.
- A record counts as acknowledged only when the follower has answered 200 to the request that held it.
- A link has one follower, a follower one link: an answer from a node that answered elsewhere, or from
  another than before, is no acknowledgement. (Addresses are handed on: of two containers that start
  again each may get the other's, and a node that is counted twice makes a quorum of too few.)
- At the first failed request the link is down, and every record on it has failed. None is lost: the
  map is the log, and a link that comes up again sends all of it. A record that finds the link down
  therefore need not be kept.
- The outbox is bounded, in records and bytes, counting those that still wait out their simulated lag.
  A record that finds it full is turned away, and the link sends the map again once it has caught up.
  So a slow follower costs the leader bounded memory and nobody else anything.

How it works. `run` is the link's one task: it connects with a heartbeat, then `_pump` sends what the
outbox holds (or a heartbeat when there has been nothing for a while), while `_keep_synced` feeds the
pages of the map into the same outbox. A failure ends both; `run` waits out a backoff and begins anew.

What it does not know: quorums, HTTP (see `transport`), how pages are read (a parameter).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum

import msgspec
import trio

from trikv import logs
from trikv.errors import PeerFailed
from trikv.messages import (
    MAX_BATCH_BYTES,
    MAX_BATCH_RECORDS,
    LeaderName,
    ReplicateAnswer,
    encode_batch,
    encode_record,
)
from trikv.transport import Transport
from trikv.version import Epoch, Record, Version

#: The outbox, the record in flight and those waiting out their lag included. With 100 B values the
#: first bound holds (10 s of a fast leader's writes), with large ones the second.
MAX_OUTBOX_RECORDS = 20_000
MAX_OUTBOX_BYTES = 64 * 2**20

#: A page of the map: small beside the outbox, large enough to pay for its fsync.
PAGE_RECORDS = 2_000
PAGE_BYTES = 2 * 2**20

#: With nothing to send, a heartbeat tells a dead follower from an idle one.
HEARTBEAT_S = 1.0

FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 3.0

#: Reads the records after a version, in version order: at most so many records and bytes.
ReadPage = Callable[[Version | None, int, int], Awaitable[Sequence[Record]]]


class LinkState(StrEnum):
    CONNECTING = "connecting"
    SYNCING = "syncing"
    LIVE = "live"
    DOWN = "down"


class Encoded:
    """A record's text as it travels: made once, shared by all links. Compared by identity."""

    __slots__ = ("size", "text")

    def __init__(self, record: Record) -> None:
        self.text = encode_record(record)
        self.size = len(self.text)


class _Parcel:
    """Records that travel together, and whether they arrived."""

    __slots__ = ("arrived", "done", "records", "size")

    def __init__(self, records: Sequence[Encoded]) -> None:
        self.records = records
        self.size = sum(record.size for record in records)
        self.done = trio.Event()
        self.arrived = False

    def settle(self, arrived: bool) -> None:
        self.arrived = arrived
        self.done.set()


class Link:
    def __init__(
        self,
        url: str,
        *,
        leader: LeaderName,
        epoch: Epoch,
        transport: Transport,
        read_page: ReadPage,
        page_lag_s: Callable[[], float],
        request_timeout_s: float,
        jitter: random.Random,
        known: dict[str, str],
    ) -> None:
        """`known` is shared by a leader's links: which follower, by node id, answered at which URL."""
        self.url = url
        self.node_id: str | None = None
        self.state = LinkState.CONNECTING
        self.reason: str | None = None
        """Why the link is down, in words; None while it is not."""
        self._leader = leader
        self._epoch = epoch
        self._transport = transport
        self._read_page = read_page
        self._page_lag_s = page_lag_s
        self._timeout_s = request_timeout_s
        self._jitter = jitter
        self._known = known
        self._backoff_s = FIRST_BACKOFF_S
        self._outbox: deque[_Parcel] = deque()
        self._in_flight: list[_Parcel] = []
        self._wake = trio.Event()
        self._behind = trio.Event()  # set: a record was turned away, the map must be sent again
        self.held_bytes = 0
        self._held_since: dict[Encoded, float] = {}  # in the order in which they came

    @property
    def held_records(self) -> int:
        """Records on their way: waiting out their lag, queued, or in flight."""
        return len(self._held_since)

    @property
    def lag_ms(self) -> float:
        """How long the oldest record on its way has been on it; 0 if there is none."""
        for since in self._held_since.values():
            return (trio.current_time() - since) * 1000
        return 0.0

    # -- for the leader -----------------------------------------------------------------------------

    async def deliver(self, record: Encoded, lag_s: float) -> bool:
        """Bring one record to the follower, after its simulated lag; False if that failed.

        False means "not acknowledged", not "will never arrive". Returns at once if the link is down
        or its outbox full.
        """
        if self.state is LinkState.DOWN:
            return False
        if (
            self.held_records >= MAX_OUTBOX_RECORDS
            or self.held_bytes + record.size > MAX_OUTBOX_BYTES
        ):
            self._behind.set()
            return False
        self._held_since[record] = trio.current_time()
        self.held_bytes += record.size
        try:
            if lag_s > 0:
                await trio.sleep(lag_s)
            return await self._send(_Parcel([record]))
        finally:
            del self._held_since[record]
            self.held_bytes -= record.size

    async def _send(self, parcel: _Parcel) -> bool:
        """Queue a parcel; whether it arrived."""
        if self.state is LinkState.DOWN:
            return False
        self._outbox.append(parcel)
        self._wake.set()
        await parcel.done.wait()
        return parcel.arrived

    # -- the link's own task ------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the follower supplied, for ever."""
        while True:
            try:
                await self._session()
            except* PeerFailed as failures:
                self._go_down(_first_detail(failures))
            await trio.sleep(self._backoff_s * self._jitter.uniform(0.5, 1.0))
            self._backoff_s = min(2 * self._backoff_s, LAST_BACKOFF_S)

    async def _session(self) -> None:
        """From a first heartbeat to the first failure, which it raises as PeerFailed."""
        await self._post([], reconnect=True)
        self._backoff_s = FIRST_BACKOFF_S
        self._set_state(LinkState.SYNCING)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_synced)
            nursery.start_soon(self._pump)

    async def _keep_synced(self) -> None:
        """Send the whole map, and again whenever a record had to be turned away."""
        while True:
            self._behind = trio.Event()
            after: Version | None = None
            while page := await self._read_page(after, PAGE_RECORDS, PAGE_BYTES):
                await trio.sleep(self._page_lag_s())
                await self._send(_Parcel([Encoded(record) for record in page]))
                after = page[-1].version
            if not self._behind.is_set():
                self._set_state(LinkState.LIVE)
                await self._behind.wait()
            self._set_state(LinkState.SYNCING)

    async def _pump(self) -> None:
        """Send what the outbox holds, all of it in one request, then what has come meanwhile."""
        while True:
            if not self._outbox:
                self._wake = trio.Event()
                with trio.move_on_after(HEARTBEAT_S):
                    await self._wake.wait()
            self._in_flight = self._take()
            await self._post([record for parcel in self._in_flight for record in parcel.records])
            for parcel in self._in_flight:
                parcel.settle(True)
            self._in_flight = []

    def _take(self) -> list[_Parcel]:
        """The parcels for one request: bounded, but at least one if there is any."""
        taken: list[_Parcel] = []
        records = size = 0
        while self._outbox and records < MAX_BATCH_RECORDS and size < MAX_BATCH_BYTES:
            parcel = self._outbox.popleft()
            taken.append(parcel)
            records += len(parcel.records)
            size += parcel.size
        return taken

    async def _post(self, records: Sequence[Encoded], *, reconnect: bool = False) -> None:
        """One request to the follower. Raises PeerFailed unless it acknowledges."""
        body = encode_batch(self._leader, self._epoch, [record.text for record in records])
        url = f"{self.url}/replicate"
        reply = await self._transport.request(
            "POST", url, body, timeout_s=self._timeout_s, last_on_connection=reconnect
        )
        if reply.status != 200:
            raise PeerFailed(f"{url}: answered {reply.status}: {_excerpt(reply.body)}")
        try:
            answer = msgspec.json.decode(reply.body, type=ReplicateAnswer)
        except msgspec.MsgspecError as error:
            raise PeerFailed(f"{url}: not a follower's answer: {error}") from None
        if answer.status != "ok" or answer.epoch != str(self._epoch):
            raise PeerFailed(f"{url}: not an acknowledgement: {_excerpt(reply.body)}")
        self._recognise(answer.node_id)

    def _recognise(self, node_id: str) -> None:
        """Raises PeerFailed if it is not this link's follower that answered."""
        if self.node_id not in (None, node_id):
            raise PeerFailed(f"{self.url}: {node_id} answers here, where {self.node_id} did")
        holder = self._known.setdefault(node_id, self.url)
        if holder != self.url:
            raise PeerFailed(f"{self.url}: {node_id} answers here and at {holder}")
        self.node_id = node_id

    def _go_down(self, reason: str) -> None:
        if self.state is not LinkState.DOWN:
            logs.warning("link.down", follower=self.url, node_id=self.node_id, reason=reason)
        self.state, self.reason = LinkState.DOWN, reason
        for parcel in (*self._in_flight, *self._outbox):
            parcel.settle(False)
        self._in_flight = []
        self._outbox.clear()

    def _set_state(self, state: LinkState) -> None:
        if state is not self.state:
            logs.info(f"link.{state}", follower=self.url, node_id=self.node_id)
        self.state, self.reason = state, None


def _first_detail(failures: BaseExceptionGroup[PeerFailed]) -> str:
    """The first failure in a group of groups, in words."""
    first: BaseException = failures
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return str(first)


def _excerpt(body: bytes) -> str:
    return body[:300].decode("utf-8", "replace")
