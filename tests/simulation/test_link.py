"""A link: what a follower that is down, slow or silent costs, and how it is brought back."""

from __future__ import annotations

import logging

import msgspec
import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

import trikv.replication.link
import trikv.replication.outbox
from tests.support import Cluster, call, dump, open_cluster, put, until
from trikv.errors import PeerFailed
from trikv.model.version import Version
from trikv.network.simulated_lag import LagRange
from trikv.replication.link import LinkState


def versions_in(body: bytes) -> list[Version]:
    return [Version.parse(r["version"]) for r in msgspec.json.decode(body).get("records", [])]


async def test_a_link_that_comes_back_sends_what_is_missing_from_the_newest_back(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trikv.replication.link, "PAGE_RECORDS", 7)
    async with open_cluster(2, write_quorum=1) as cluster:
        away = cluster.urls[1]
        for index in range(5):
            await put(cluster.node, f"before{index}", index)
        await cluster.settled()
        await trio.sleep(2)
        del cluster.network.nodes[away]
        for index in range(30):
            await put(cluster.node, f"key{(index * 7) % 20:02}", index)
        await trio.sleep(5)
        link = cluster.leader.links[1]
        assert link.state is LinkState.DOWN
        assert "nobody listens" in (link.reason or "")
        cluster.network.seen.clear()
        cluster.network.nodes[away] = cluster.followers[away]
        await cluster.settled()
        bodies = [body for url, _, body in cluster.network.seen if url == away and body]
        sent = [version for body in bodies for version in versions_in(body)]
        assert len(sent) == 20
        assert sent == sorted(sent, reverse=True)
        assert max(len(versions_in(body)) for body in bodies) <= 7
        assert await dump(cluster.followers[away]) == await dump(cluster.node)


async def test_a_follower_that_is_down_is_asked_ever_more_rarely(autojump_clock: MockClock) -> None:
    async with open_cluster(1, write_quorum=0) as cluster:
        cluster.network.nodes.pop(cluster.urls[0])
        await trio.sleep(60)
        cluster.network.seen.clear()
        await trio.sleep(60)
        asked = len(cluster.network.seen)
        assert (
            60 / trikv.replication.link.LAST_BACKOFF_S
            <= asked
            <= 2 * 60 / trikv.replication.link.LAST_BACKOFF_S + 1
        )


async def test_a_follower_whose_disk_is_full_costs_its_leader_two_lines(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_cluster(2, write_quorum=1) as cluster:
        full, link = cluster.urls[1], cluster.leader.links[1]
        refused = True

        async def refuse(url: str, target: str, body: bytes | None) -> None:
            await trio.lowlevel.checkpoint()
            if refused and url == full and body and b'"key":"k"' in body:
                raise PeerFailed(f"{url}{target}: answered 507: database or disk is full")

        caplog.set_level(logging.INFO, "trikv")
        cluster.network.before = refuse
        await put(cluster.node, "k", 1)
        downs = link.tally.downs
        await trio.sleep(60)
        assert link.tally.downs > downs + 15, "it is tried again and again"
        said = [record.getMessage() for record in caplog.records]
        assert said == ["link.down", "link.syncing"]
        refused = False
        await until(lambda: link.live)
        assert [record.getMessage() for record in caplog.records][2:] == ["link.live"]
        refused = True
        await put(cluster.node, "k", 2)
        await trio.sleep(60)
        said = [record.getMessage() for record in caplog.records]
        assert said[3:] == ["link.down", "link.syncing"], "another trouble is news"


async def test_a_silent_follower_holds_bounded_memory_and_nobody_up(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trikv.replication.outbox, "MAX_OUTBOX_RECORDS", 20)
    async with open_cluster(2, write_quorum=1, request_timeout_s=1000) as cluster:
        silent, link = cluster.urls[1], cluster.leader.links[1]
        stuck = True

        async def hang(url: str, target: str, body: bytes | None) -> None:
            if url == silent and stuck:
                await until(lambda: not stuck)

        cluster.network.before = hang
        began = trio.current_time()
        for index in range(200):
            assert (await put(cluster.node, f"key{index}", index))[0] == 200
            assert link.outbox.records <= 20
        assert trio.current_time() - began < 1
        stuck = False
        # What was turned away comes with the map: the link is behind, and is brought up again.
        await until(lambda: link.state is LinkState.SYNCING)
        await cluster.settled()
        assert await dump(cluster.followers[silent]) == await dump(cluster.node)
        assert link.outbox.size == 0


async def test_large_values_are_bounded_in_bytes(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trikv.replication.outbox, "MAX_OUTBOX_BYTES", 10_000)
    monkeypatch.setattr(trikv.replication.outbox, "MAX_BATCH_BYTES", 5_000)
    monkeypatch.setattr(trikv.replication.link, "PAGE_BYTES", 2_000)
    async with open_cluster(1, write_quorum=0) as cluster:
        cluster.leader.lag.set(LagRange(500, 500))
        link = cluster.leader.links[0]
        for index in range(30):
            await put(cluster.node, f"key{index}", "x" * 1000)
            assert link.outbox.size <= 10_000
        await cluster.settled()
        bodies = [body for _, _, body in cluster.network.seen if body]
        # The bound, and one parcel more: what came meanwhile may be four pages and a value.
        assert max(map(len, bodies)) < 5_000 + 4 * 2_000 + 1_300
        await until(lambda: link.state is LinkState.LIVE)
        assert await dump(cluster.followers[cluster.urls[0]]) == await dump(cluster.node)


async def test_a_page_waits_out_one_lag(autojump_clock: MockClock) -> None:
    async with open_cluster(1, write_quorum=0) as cluster:
        away = cluster.urls[0]
        del cluster.network.nodes[away]
        for index in range(30):
            await put(cluster.node, f"key{index}", index)
        await until(lambda: cluster.leader.links[0].state is LinkState.DOWN)
        cluster.leader.lag.set(LagRange(5000, 5000))
        cluster.network.nodes[away] = cluster.followers[away]
        await until(lambda: cluster.leader.links[0].state is LinkState.SYNCING)
        began = trio.current_time()
        await cluster.settled()
        assert trio.current_time() - began == pytest.approx(5, abs=0.2)


async def test_a_leader_that_a_follower_refuses_for_a_higher_epoch_leads_no_more(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        follower = cluster.followers[cluster.urls[0]].require_follower()
        higher = msgspec.json.encode(
            {"leader": {"node_id": "other"}, "epoch": "9.other", "records": []}
        )
        leader, link = cluster.leader, cluster.leader.links[0]
        await cluster.network.request("POST", f"{cluster.urls[0]}/replicate", higher, timeout_s=1)
        status, body = await put(cluster.node, "a", 1)
        assert (status, body["code"]) == (503, "quorum_not_met")
        assert link.state is LinkState.DOWN
        assert "9.other" in (leader.deposed or "")
        status, body = await put(cluster.node, "a", 2)
        assert (status, body["code"]) == (503, "not_ready")
        assert "9.other" in body["detail"]
        assert str(follower.state.promised) == "9.other"
        await trio.sleep(60)
        assert link.state is LinkState.DOWN
        assert await dump(cluster.followers[cluster.urls[0]]) == {}


async def test_an_answer_lost_on_the_way_is_no_acknowledgement(autojump_clock: MockClock) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:

        async def lose(url: str, target: str, body: bytes | None) -> None:
            if body and b'"key"' in body:
                raise PeerFailed("lost")

        cluster.network.after = lose
        status, body = await put(cluster.node, "a", 1)
        assert (status, body["follower_acks"]) == (503, 0)
        assert await dump(cluster.followers[cluster.urls[0]]) == {"a": 1}


async def test_a_follower_that_answers_at_two_addresses_is_counted_once(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(2, write_quorum=2) as cluster:
        one, other = cluster.urls
        del cluster.network.nodes[one], cluster.network.nodes[other]
        await until(lambda: cluster.leader.live_links == 0)
        # Both come back, but the second's address leads to the first now.
        cluster.network.nodes[one] = cluster.network.nodes[other] = cluster.followers[one]
        await until(lambda: cluster.leader.live_links == 1)
        status, body = await put(cluster.node, "a", 1)
        assert (status, body["code"], body["live_links"]) == (503, "not_enough_followers", 1)
        assert "follower1 answers here, where follower2 did" in (
            cluster.leader.links[1].reason or ""
        )
        cluster.network.nodes[other] = cluster.followers[other]
        await cluster.all_live()
        assert (await put(cluster.node, "a", 2))[0] == 200


async def catching_up(cluster: Cluster) -> str:
    """The second follower is brought up to date for 1.5 s yet; the first answers after 5 s."""
    slow, behind = cluster.urls
    del cluster.network.nodes[behind]
    for index in range(30):
        await put(cluster.node, f"key{index}", index)
    await until(lambda: cluster.leader.live_links == 1)
    cluster.leader.lag.set(LagRange(5000, 5000), slow)
    cluster.leader.lag.set(LagRange(100, 100), behind)
    cluster.network.nodes[behind] = cluster.followers[behind]
    await until(lambda: cluster.leader.links[1].state is LinkState.SYNCING)
    return behind


async def test_an_acknowledgement_of_a_follower_that_catches_up_counts_once_it_is_live(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trikv.replication.link, "PAGE_RECORDS", 2)
    async with open_cluster(2, write_quorum=1) as cluster:
        await catching_up(cluster)
        began = trio.current_time()
        status, body = await put(cluster.node, "new", 1)
        assert (status, body["follower_acks"]) == (200, 1)
        assert 1 < trio.current_time() - began < 2  # not after 0.1 s, and not after 5 s
        assert cluster.leader.links[1].state is LinkState.LIVE


async def test_an_acknowledgement_does_not_count_if_the_follower_never_becomes_live(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trikv.replication.link, "PAGE_RECORDS", 2)
    async with open_cluster(2, write_quorum=1) as cluster:
        behind = await catching_up(cluster)
        answers: list[tuple[int, float]] = []

        async def write() -> None:
            status, _ = await put(cluster.node, "new", 1)
            answers.append((status, trio.current_time()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            began = trio.current_time()
            await trio.sleep(0.5)
            assert await dump(cluster.followers[behind])  # it has the record, and said so
            assert cluster.followers[behind].store.get("new") is not None
            del cluster.network.nodes[behind]
        ((status, at),) = answers
        assert status == 200
        assert at - began == pytest.approx(5, abs=0.01)  # the other one's


async def test_a_batch_for_a_disk_that_was_emptied_since_is_refused(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        await put(cluster.node, "a", 1)
        follower = cluster.followers[cluster.urls[0]]
        state = follower.store.state
        late = msgspec.json.encode(
            {
                "leader": {"node_id": "leader"},
                "epoch": str(cluster.leader.epoch),
                "records": [],
                "follower": "anotherinstance",
                "watermark": f"{cluster.leader.epoch}-{10**15}",
                "established": True,
            }
        )
        url = f"{cluster.urls[0]}/replicate"
        reply = await cluster.network.request("POST", url, late, timeout_s=1)
        assert reply.status == 409
        assert msgspec.json.decode(reply.body)["code"] == "wrong_node"
        assert follower.store.state == state


async def test_more_than_followers_take_at_once_waits_its_turn_and_no_link_falls_back(
    autojump_clock: MockClock,
) -> None:
    """Fifty batches of a thousand are more than an outbox holds: that is no reason to refuse any."""
    operations = [{"op": "put", "key": f"key{index}", "value": 1} for index in range(1000)]
    body = msgspec.json.encode({"operations": operations})
    statuses: list[int] = []
    async with open_cluster(3, write_quorum=2) as cluster:
        cluster.leader.lag.set(LagRange(50, 50))
        states: set[LinkState] = set()

        async def write() -> None:
            statuses.append((await call(cluster.node, "POST", "/batch", body)).status)
            states.update(link.state for link in cluster.leader.links)

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(write)
    assert statuses == [200] * 50
    assert states == {LinkState.LIVE}


async def test_a_write_for_which_there_is_no_room_in_time_is_refused_unwritten(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trikv.replication.outbox.MAX_OUTBOX_RECORDS", 2)
    async with open_cluster(2, write_quorum=1, write_timeout_s=3) as cluster:
        cluster.leader.lag.set(LagRange(2000, 2000))
        answers: list[tuple[int, str]] = []

        async def write(key: str) -> None:
            status, told = await put(cluster.node, key, 1)
            answers.append((status, told.get("code", "")))

        async with trio.open_nursery() as nursery:
            for index in range(8):
                nursery.start_soon(write, f"key{index}")
                await trio.lowlevel.checkpoint()
        # Two at a time, 2 s each: two at once, two after 2 s; the others have waited 3 s by then.
        assert sorted(answers) == [(200, "")] * 4 + [(503, "overloaded")] * 4
        written = {record.key for record in cluster.node.store.page_by_key("", 100, 10**6)}
        assert len(written) == 4
