"""The shape of replication: deliveries in a background nursery, and a channel that counts their ACKs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support import Cluster, MemoryNetwork, open_cluster, put, until
from trikv.network.simulated_lag import LagRange
from trikv.replication.write import Write


@asynccontextmanager
async def watched(cluster: Cluster) -> AsyncIterator[list[Write]]:
    """Yield the writes that are sent to the followers inside."""
    seen: list[Write] = []
    cluster.leader.seen = seen.append
    yield seen
    cluster.leader.seen = None


def slow_lag(cluster: Cluster, *delays_ms: float) -> None:
    """Give each follower its own simulated lag."""
    for url, delay_ms in zip(cluster.urls, delays_ms, strict=True):
        cluster.leader.lag.set(LagRange(delay_ms, delay_ms), url)


async def test_acknowledgements_that_come_after_the_answer_are_still_counted(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(3, write_quorum=1) as cluster:
        slow_lag(cluster, 10, 500, 2000)
        began = trio.current_time()
        async with watched(cluster) as seen:
            status, body = await put(cluster.node, "a", 1)
        assert (status, body["follower_acks"]) == (200, 1)
        assert trio.current_time() - began == pytest.approx(0.01)
        (write,) = seen
        assert (write.acks, write.deliveries_in_progress) == (1, 2)
        await trio.sleep(1)
        assert (write.acks, write.deliveries_in_progress, write.confirmed_by) == (2, 1, 1)
        await trio.sleep(1.1)
        assert (write.acks, write.deliveries_in_progress) == (3, 0)
        acks_ms = [follower.ack_ms for follower in write.trace.followers]
        assert acks_ms == [pytest.approx(lag) for lag in (10, 500, 2000)]


async def test_a_delivery_outlives_the_request_that_asked_for_it(autojump_clock: MockClock) -> None:
    async with open_cluster(2, write_quorum=2) as cluster:
        slow_lag(cluster, 500, 500)
        async with watched(cluster) as seen:
            with trio.move_on_after(0.1) as left:
                await put(cluster.node, "a", 1)
        assert left.cancelled_caught
        await until(lambda: seen[0].confirmed_by == 2, timeout_s=1)


async def test_a_quorum_that_became_impossible_is_known_when_the_last_delivery_ends(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(3, write_quorum=2, request_timeout_s=5.0) as cluster:

        async def refuse(base: str, target: str, body: bytes | None) -> None:
            if base != cluster.urls[0] and target == "/replicate":
                cluster.network.nodes.pop(base, None)

        cluster.network.before = refuse
        began = trio.current_time()
        status, body = await put(cluster.node, "a", 1)
        assert (status, body["code"], body["follower_acks"]) == (503, "quorum_not_met", 1)
        assert trio.current_time() - began < 0.1  # and not after the write timeout


async def test_a_write_is_not_acknowledged_before_the_follower_has_it_on_disk(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        (follower,) = cluster.followers.values()
        inner = follower.committer._run_blocking

        async def held_up(work: Any) -> Any:
            await trio.sleep(3)
            return await inner(work)

        follower.committer._run_blocking = held_up
        began = trio.current_time()
        assert (await put(cluster.node, "a", 1))[0] == 200
        assert trio.current_time() - began >= 3


async def test_links_have_a_write_in_the_very_step_of_its_commit(autojump_clock: MockClock) -> None:
    """Else a watermark could pass a write that nobody has sent."""
    async with open_cluster(2, write_quorum=1) as cluster:
        slow_lag(cluster, 1000, 1000)
        on_their_way: list[list[int]] = []
        after = cluster.node.committer.after

        def look() -> None:
            after()
            on_their_way.append([link.outbox.records for link in cluster.leader.links])

        cluster.node.committer.after = look
        assert (await put(cluster.node, "a", 1))[0] == 200
        assert on_their_way[0] == [1, 1]


async def test_writes_of_one_transaction_are_one_group_and_with_lag_each_is_its_own(
    autojump_clock: MockClock,
) -> None:
    async def groups(lag_ms: float) -> list[int]:
        network = MemoryNetwork()
        async with open_cluster(2, network=network, write_quorum=2) as cluster:
            cluster.leader.lag.set(LagRange(lag_ms, lag_ms))
            async with watched(cluster) as seen, trio.open_nursery() as nursery:
                for index in range(4):
                    nursery.start_soon(put, cluster.node, f"k{index}", index)
            return [len(write.group.writes) for write in seen if write.group is not None]

    assert max(await groups(0)) > 1
    assert await groups(50) == [1, 1, 1, 1]


async def test_a_commit_that_ends_while_the_background_nursery_closes_is_left_to_the_next_start(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(1, write_quorum=0) as cluster:
        leader = cluster.leader
        leader.stop()
        leader._told_to_stop.set()  # the nursery has no more to wait for, and is closed now
        await trio.testing.wait_all_tasks_blocked()
        await leader.spread(lambda store: [("late", "1")])
        assert cluster.node.store.get("late") is not None
        (follower,) = cluster.followers.values()
        await trio.sleep(1)
        assert follower.store.get("late") is None


async def test_with_lag_no_more_writes_begin_than_outboxes_have_places_for(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a batch of its own then: the last free place is for one of those that wait."""
    monkeypatch.setattr("trikv.replication.outbox.MAX_OUTBOX_BATCHES", 5)
    async with open_cluster(3, write_quorum=1) as cluster:
        cluster.leader.lag.set(LagRange(900, 1000))
        statuses: list[int] = []

        async def write(key: str) -> None:
            statuses.append((await put(cluster.node, key, 1))[0])

        async with trio.open_nursery() as nursery:
            for index in range(20):
                nursery.start_soon(write, f"k{index}")
        assert statuses == [200] * 20
        assert cluster.leader.live_links == 3


async def test_acknowledgements_are_remembered_while_an_older_write_holds_the_watermark_down(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(3, write_quorum=2) as cluster:
        slow_lag(cluster, 0, 0, 10_000)
        assert (await put(cluster.node, "old", 1))[0] == 200
        slow_lag(cluster, 0, 0, 0)
        cluster.network.nodes.pop(cluster.urls[0])
        await until(lambda: cluster.leader.live_links == 2)
        assert (await put(cluster.node, "new", 2))[0] == 200
        await trio.sleep(0.5)  # all of its deliveries have ended
        record = await cluster.leader.confirm_read(lambda: cluster.node.store.get("new"), 1.0)
        assert record is not None
        assert record.value == "2"


async def test_a_change_whose_client_has_left_keeps_its_place_until_it_is_committed(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(0, write_quorum=0, max_inflight_writes=4) as cluster:
        committer, leader = cluster.node.committer, cluster.leader
        inner = committer._run_blocking
        disk = trio.Event()

        async def hang(work: Any) -> Any:
            await disk.wait()
            return await inner(work)

        committer._run_blocking = hang
        codes: list[str] = []
        for index in range(20):
            with trio.move_on_after(0.1):
                status, body = await put(cluster.node, f"k{index}", 1)
                codes.append(body.get("code", str(status)))
        assert codes == ["overloaded"] * 16
        assert leader.inflight_writes == 4
        disk.set()
        await until(lambda: leader.inflight_writes == 0)
        assert (await put(cluster.node, "after", 1))[0] == 200


async def test_a_write_that_waits_for_room_is_refused_unwritten_once_a_stop_begins(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trikv.replication.outbox.MAX_OUTBOX_RECORDS", 1)
    async with open_cluster(1, write_quorum=1) as cluster:
        cluster.leader.lag.set(LagRange(3000, 3000))
        answers: list[tuple[int, str]] = []

        async def write(key: str) -> None:
            status, body = await put(cluster.node, key, 1)
            answers.append((status, body.get("code", "")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "first")
            await trio.sleep(1)
            nursery.start_soon(write, "waits")
            await trio.sleep(0.5)
            cluster.node.begin_stop()
            await trio.sleep(0.2)
            assert answers == [(503, "not_ready")]
        assert answers[1:] == [(200, "")]  # what has begun goes on
        assert cluster.node.store.get("waits") is None


async def test_acknowledgements_are_remembered_for_so_many_writes(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trikv.replication.replicate.MAX_ENDED_WRITES", 2)
    async with open_cluster(1, write_quorum=1) as cluster:
        async with watched(cluster) as seen:
            for index in range(3):
                assert (await put(cluster.node, "k", index))[0] == 200
        await trio.sleep(0.1)
        replication = cluster.leader._replication
        assert replication is not None
        assert [len(replication.acknowledged(one.version)) for one in seen] == [0, 1, 1]
