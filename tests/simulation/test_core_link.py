"""A link: what it counts as an acknowledgement, how late it is, and its end at any moment."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence

import msgspec
import pytest
import trio
from trio.testing import MockClock

from tests.support import MemoryNetwork, open_cluster, put, until
from trikv.errors import PeerFailed
from trikv.model.record import Entry, Record
from trikv.model.version import NO_EPOCH, NO_VERSION, Epoch, Version
from trikv.network.peers import Candidate, Promised
from trikv.network.simulated_lag import LagRange, Wires
from trikv.network.transport import Reply
from trikv.protocol.messages import LeaderName, PromiseAnswer, ReplicateAnswer
from trikv.replication.link import Link, LinkState
from trikv.replication.outbox import Encoded
from trikv.storage.reverse_scan import PageBack, Place

EPOCH = Epoch(1, "boss")


class Babble(MemoryNetwork):
    """Once `says` is set, each batch is answered so, by nobody who has merged it."""

    says: ReplicateAnswer | None = None

    async def request(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        *,
        timeout_s: float,
        last_on_connection: bool = False,
    ) -> Reply:
        if self.says is not None and url.endswith("/replicate"):
            await trio.lowlevel.checkpoint()
            return Reply(200, msgspec.json.encode(self.says))
        return await super().request(
            method, url, body, timeout_s=timeout_s, last_on_connection=last_on_connection
        )


@pytest.mark.parametrize("field", ["status", "node_id", "epoch"])
async def test_only_an_answer_of_the_links_follower_in_its_epoch_is_an_acknowledgement(
    field: str, autojump_clock: MockClock
) -> None:
    network = Babble()
    async with open_cluster(1, network=network, write_quorum=1) as cluster:
        link = cluster.leader.links[0]
        right = ReplicateAnswer("ok", "follower1", str(cluster.leader.epoch))
        wrong = {"status": "merged", "node_id": "follower2", "epoch": "1.other"}
        network.says = msgspec.structs.replace(right, **{field: wrong[field]})
        status, body = await put(cluster.node, "a", 1)
        assert (status, body["code"], body["follower_acks"]) == (503, "quorum_not_met", 0)
        assert link.state is LinkState.DOWN
        assert "/replicate: not an acknowledgement: " in (link.reason or "")
        assert wrong[field] in (link.reason or "")
        assert link.rounds_answered == link.rounds_begun - 1
        network.says = None
        await cluster.all_live()
        assert (await put(cluster.node, "b", 1))[0] == 200


async def test_a_link_is_as_late_as_its_oldest_record_or_as_long_as_it_is_away(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(1, write_quorum=0) as cluster:
        link = cluster.leader.links[0]
        await trio.sleep(3)
        assert link.lag_ms == 0
        cluster.leader.lag.set(LagRange(500, 500))
        await put(cluster.node, "a", 1)
        await trio.sleep(0.2)
        await put(cluster.node, "b", 1)
        await trio.sleep(0.2)
        assert link.lag_ms == pytest.approx(400)  # of the first
        await trio.sleep(0.2)
        assert link.lag_ms == pytest.approx(400)  # of the second: the first has arrived
        await trio.sleep(0.2)
        assert link.lag_ms == 0
        del cluster.network.nodes[cluster.urls[0]]
        await until(lambda: not link.live)
        lost_at, late_ms = trio.current_time(), link.lag_ms
        await trio.sleep(2)
        assert link.lag_ms - late_ms == pytest.approx((trio.current_time() - lost_at) * 1000)


# -- the end at any moment ------------------------------------------------------------------------------


class OneNode:
    """A transport to one follower that holds nothing, promises, and acknowledges what it is sent."""

    async def request(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        *,
        timeout_s: float,
        last_on_connection: bool = False,
    ) -> Reply:
        await trio.sleep(0.01)
        await trio.lowlevel.cancel_shielded_checkpoint()  # it is there, and is taken a little later
        if url.endswith("/replicate"):
            return Reply(200, msgspec.json.encode(ReplicateAnswer("ok", "n1", str(EPOCH))))
        if url.endswith("/replica/promise"):
            nothing = str(NO_EPOCH), str(NO_EPOCH), str(NO_VERSION), str(NO_VERSION)
            answer = PromiseAnswer("n1", "one", "c", str(EPOCH), *nothing)
            return Reply(200, msgspec.json.encode(answer))
        return Reply(200, b'{"records":[],"next":null}')


class OneLink:
    """The host of one link, with three records in its map, two to a page."""

    def __init__(self) -> None:
        self.candidate = Candidate(LeaderName("boss"), "boss", "c", EPOCH)
        self.floor = NO_VERSION
        self.confirmed = None
        self.resolved_us = 3
        self.over = self.read_after_the_end = False
        self.link = Link(
            "http://n1",
            self,
            wires=Wires(OneNode()),
            page_lag_s=lambda: 0.01,
            request_timeout_s=1.0,
            rng=random.Random(0),
        )

    async def read_back(
        self, after: Version, place: Place | None, limit: int, max_bytes: int
    ) -> PageBack:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.read_after_the_end |= self.over
        await trio.lowlevel.cancel_shielded_checkpoint()  # as a transaction: it ends by itself
        records = [Record(f"key{us}", "1", Version(EPOCH, us)) for us in (3, 2, 1)]
        below = [r for r in records if place is None or r.version < place.bottom]
        return PageBack([], [record for record in below if record.version > after][:2])

    async def overrule(self, follower: str, held: Sequence[Record]) -> None:
        raise AssertionError("it holds nothing")

    async def admit(self, link: Link) -> None:
        await trio.lowlevel.checkpoint()

    def recognise(self, link: Link, told: Promised) -> None:
        link.node_id = told.state.node_id

    def spare(self, link: Link) -> bool:
        return False

    def superseded(self, why: str) -> None:
        raise PeerFailed(why)

    def progress(self) -> None:
        pass


class EndsAt(trio.abc.Instrument):
    """Ends the leadership when that task is to go on for the n-th time, before it does."""

    def __init__(self, host: OneLink, name: str, at: int) -> None:
        self._host = host
        self._name = name
        self._left = at

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        self._left -= task.name == f"trikv.replication.link.Link.{self._name}"
        if self._left == 0 and not self._host.over:
            self._host.over = True
            self._host.link.retire()


async def lead_until(name: str, at: int) -> bool:
    """A link from its start until a write beside it has arrived; whether it came so far."""
    host = OneLink()
    link = host.link
    counted: list[bool] = []

    async def write() -> None:
        await until(lambda: link.state is not LinkState.CONNECTING)
        batch = link.reserve(Encoded.of([Entry(Version(EPOCH, 4), [("new", "1")])], 4))
        if batch is not None:
            await trio.sleep(0.01)
            counted.append(await link.deliver(batch))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            instrument = EndsAt(host, name, at)
            trio.lowlevel.add_instrument(instrument)
            nursery.start_soon(link.run)
            nursery.start_soon(write)
            await until(lambda: host.over or bool(counted))
            trio.lowlevel.remove_instrument(instrument)
            arrived = not host.over
            if arrived:
                assert (link.live, counted) == (True, [True])
                link.retire()
    assert link.state is LinkState.DOWN
    assert (link.outbox.records, link.outbox.size) == (0, 0)
    assert not host.read_after_the_end
    return arrived


@pytest.mark.parametrize(
    ("name", "steps"), [("run", 5), ("_keep_synced", 8), ("_pump", 5), ("_keep_time", 2)]
)
def test_a_leadership_may_end_at_any_step_of_a_links_tasks(name: str, steps: int) -> None:
    """Nothing waits for ever, nothing is held, and the map is read no further."""
    for at in range(1, 100):
        if trio.run(lead_until, name, at, clock=MockClock(autojump_threshold=0)):
            assert at > steps
            return
    raise AssertionError("it never came to its end")


async def test_what_a_link_waits_for_is_logged_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    link = OneLink().link
    with caplog.at_level(logging.INFO, "trikv"):
        for reason in ("this", "this", "that"):
            link.waits(reason)
    assert [record.getMessage() for record in caplog.records] == ["link.waits", "link.waits"]
    assert (link.state, link.reason) == (LinkState.CONNECTING, "that")
