"""The path of a write, on a mock clock: when a quorum answers, and what happens to the rest."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.simulation.fleet import open_fleet
from tests.support import Cluster, MemoryNetwork, call, dump, open_cluster, put
from trikv.errors import PeerFailed
from trikv.model.version import Version
from trikv.network.simulated_lag import LagRange


def stagger(cluster: Cluster) -> None:
    """Fix the followers' lags at 100, 200, … ms."""
    for place, url in enumerate(cluster.urls, start=1):
        cluster.leader.lag.set(LagRange(100 * place, 100 * place), url)


@pytest.mark.parametrize("quorum", [1, 2, 3, 4, 5])
async def test_quorum_k_answers_with_the_kth_fastest_follower(
    quorum: int, autojump_clock: MockClock
) -> None:
    async with open_cluster(write_quorum=quorum) as cluster:
        stagger(cluster)
        began = trio.current_time()
        status, body = await put(cluster.node, "a", 1)
        assert trio.current_time() - began == pytest.approx(quorum * 0.1, abs=1e-6)
        assert (status, body["follower_acks"], body["quorum_met"]) == (200, quorum, True)


async def test_ten_writes_at_once_take_as_long_as_one(autojump_clock: MockClock) -> None:
    async with open_cluster() as cluster:
        stagger(cluster)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for index in range(10):
                nursery.start_soon(put, cluster.node, f"key{index}", index)
        assert trio.current_time() - began == pytest.approx(0.3, abs=1e-6)


async def test_quorum_zero_answers_before_any_follower(autojump_clock: MockClock) -> None:
    async with open_cluster(write_quorum=0) as cluster:
        stagger(cluster)
        began = trio.current_time()
        status, body = await put(cluster.node, "a", 1)
        assert trio.current_time() == began
        assert (status, body["follower_acks"]) == (200, 0)
        await cluster.settled()
        assert [await dump(node) for node in cluster.followers.values()] == [{"a": 1}] * 5


async def test_the_rest_get_the_write_after_the_answer(autojump_clock: MockClock) -> None:
    async with open_cluster(write_quorum=1) as cluster:
        stagger(cluster)
        await put(cluster.node, "a", "late")
        held = [await dump(node) for node in cluster.followers.values()]
        assert held == [{"a": "late"}, {}, {}, {}, {}]
        await trio.sleep(0.41)
        assert [await dump(node) for node in cluster.followers.values()] == [{"a": "late"}] * 5


async def test_a_trace_tells_commit_lags_and_acks(autojump_clock: MockClock) -> None:
    async with open_cluster(write_quorum=3) as cluster:
        stagger(cluster)
        _, body = await put(cluster.node, "a", 1, "?trace=true")
        steps = body["trace"]["followers"]
        assert [step["lag_ms"] for step in steps] == [100, 200, 300, 400, 500]
        assert [step["ack_ms"] for step in steps] == [
            pytest.approx(100),
            pytest.approx(200),
            pytest.approx(300),
            None,
            None,
        ]
        assert body["trace"]["quorum_ms"] == pytest.approx(300)
        assert body["trace"]["commit_ms"] == pytest.approx(0)


async def test_an_impossible_quorum_is_refused_at_once(autojump_clock: MockClock) -> None:
    async with open_cluster(write_quorum=3) as cluster:
        for url in cluster.urls[:3]:
            del cluster.network.nodes[url]
        await trio.sleep(5)  # the heartbeats notice
        began = trio.current_time()
        status, body = await put(cluster.node, "a", 1)
        assert trio.current_time() == began
        assert (status, body["code"]) == (503, "not_enough_followers")
        assert (body["live_links"], body["required"]) == (2, 3)
        assert await dump(cluster.node) == {}  # nothing was written
        for url in cluster.urls[:3]:
            cluster.network.nodes[url] = cluster.followers[url]


async def test_a_quorum_that_becomes_impossible_is_known_at_the_last_failure(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(write_quorum=3) as cluster:
        stagger(cluster)

        async def fail_three(url: str, target: str, body: bytes | None) -> None:
            if url in cluster.urls[:3] and body and b'"key"' in body:
                raise PeerFailed("cable pulled")

        cluster.network.before = fail_three
        began = trio.current_time()
        status, body = await put(cluster.node, "a", 1)
        # Known only when the last of those that could still have answered has done so.
        assert trio.current_time() - began == pytest.approx(0.5, abs=1e-6)
        assert (status, body["follower_acks"]) == (503, 2)
        assert Version.parse(body["version"]).epoch == cluster.leader.epoch


async def test_a_silent_follower_costs_the_write_timeout_and_no_more(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(
        2, write_quorum=2, write_timeout_s=1.0, request_timeout_s=30.0
    ) as cluster:

        async def swallow(url: str, target: str, body: bytes | None) -> None:
            if url == cluster.urls[1]:
                await trio.sleep_forever()

        cluster.network.before = swallow
        began = trio.current_time()
        status, body = await put(cluster.node, "a", 1)
        assert trio.current_time() - began == pytest.approx(1.0, abs=1e-6)
        assert (status, body["code"], body["follower_acks"]) == (503, "quorum_not_met", 1)


async def test_an_unconfirmed_write_still_reaches_every_follower(autojump_clock: MockClock) -> None:
    async with open_cluster(write_quorum=5) as cluster:
        lost = cluster.urls[4]
        del cluster.network.nodes[lost]  # nobody has noticed yet
        status, body = await put(cluster.node, "a", 1)
        assert (status, body["code"], body["follower_acks"]) == (503, "quorum_not_met", 4)
        cluster.network.nodes[lost] = cluster.followers[lost]
        await cluster.settled()
        assert await dump(cluster.followers[lost]) == {"a": 1}


async def test_a_write_survives_the_client_that_left(autojump_clock: MockClock) -> None:
    async with open_cluster() as cluster:
        stagger(cluster)
        with trio.move_on_after(0.05) as client:
            await put(cluster.node, "a", "orphan")
        assert client.cancelled_caught
        await cluster.settled()
        await trio.sleep(1)
        assert [await dump(node) for node in cluster.followers.values()] == [{"a": "orphan"}] * 5
        assert cluster.leader.inflight_writes == 0


async def test_one_write_too_many_is_refused_unwritten(autojump_clock: MockClock) -> None:
    async with open_cluster(max_inflight_writes=2) as cluster:
        stagger(cluster)
        statuses: list[int] = []

        async def write(key: str) -> None:
            status, body = await put(cluster.node, key, 1)
            statuses.append(status)
            if status == 503:
                assert body["code"] == "overloaded"
                assert key not in await dump(cluster.node)

        async with trio.open_nursery() as nursery:
            for index in range(3):
                nursery.start_soon(write, f"key{index}")
        assert sorted(statuses) == [200, 200, 503]


async def test_writes_that_queue_up_travel_in_one_request(autojump_clock: MockClock) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:

        async def slow(url: str, target: str, body: bytes | None) -> None:
            await trio.sleep(0.1)

        cluster.network.before = slow
        before = len(cluster.network.seen)
        async with trio.open_nursery() as nursery:
            for index in range(50):
                nursery.start_soon(put, cluster.node, f"key{index}", index)
        requests = [
            body for _, _, body in cluster.network.seen[before:] if body and b'"key"' in body
        ]
        assert len(requests) <= 3
        assert sum(body.count(b'"key"') for body in requests) == 50


async def test_one_request_at_a_time_is_in_flight_on_a_link(autojump_clock: MockClock) -> None:
    flying: dict[str, int] = {}
    most = 0

    async def up(url: str, target: str, body: bytes | None) -> None:
        nonlocal most
        flying[url] = flying.get(url, 0) + 1
        most = max(most, flying[url])
        await trio.sleep(0.01)

    async def down(url: str, target: str, body: bytes | None) -> None:
        flying[url] -= 1

    async with open_cluster(3, network=MemoryNetwork(before=up, after=down)) as cluster:
        async with trio.open_nursery() as nursery:
            for index in range(30):
                nursery.start_soon(put, cluster.node, f"key{index % 7}", index)
        await cluster.settled()
    assert most == 1


async def test_a_client_that_leaves_in_the_middle_of_a_commit_does_not_take_its_write_along(
    autojump_clock: MockClock,
) -> None:
    """What is committed reaches the followers, whoever waits for it."""
    async with open_fleet(2, write_quorum=1) as fleet:
        fleet.disk_s = 0.2
        for index in range(10):
            with trio.move_on_after(0.02 + index / 50):
                await call(fleet.nodes["n0"], "PUT", "/kv/{key}", b'{"value": 1}', f"key{index}")
        await trio.sleep(10)
        await fleet.wait_quiet("n0")
        await fleet.assert_equal()
        assert (await fleet.dumps())["n1"].keys() == {f"key{index}" for index in range(10)}
