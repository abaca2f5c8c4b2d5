"""Spare followers: they get all there is, a little later; and hurry where another stalls."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support import Cluster, MemoryNetwork, open_cluster, put
from trikv.model.version import Version
from trikv.network.simulated_lag import LagRange
from trikv.replication.link import FLUSH_S, TELL_S
from trikv.replication.pacing import PAUSE_S

F1 = "http://follower1"

#: How long a request takes here.
TAKES_S = 0.001


class Delays:
    """A network on which each request takes `TAKES_S`, or as long as its follower is told to."""

    def __init__(self) -> None:
        self.of: dict[str, float] = {}
        self.sent: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        """Requests with records, and requests with a watermark."""

    async def __call__(self, url: str, target: str, body: bytes | None) -> None:
        if target == "/replicate" and body and b'"key"' in body:
            self.sent[url] += 1
        if target == "/replicate" and body and b'"watermark"' in body:
            self.told[url] += 1
        await trio.sleep(self.of.get(url, TAKES_S))


@asynccontextmanager
async def open_delayed(
    followers: int = 5, **settings: Any
) -> AsyncIterator[tuple[Cluster, Delays]]:
    """A cluster on such a network."""
    delays = Delays()
    async with open_cluster(followers, network=MemoryNetwork(before=delays), **settings) as cluster:
        yield cluster, delays


def assert_equal(cluster: Cluster) -> None:
    held = [node.store.page_by_key("", 99, 9999) for node in cluster.followers.values()]
    assert held == [cluster.node.store.page_by_key("", 99, 9999)] * 5


async def write_for(cluster: Cluster, duration_s: float) -> list[float]:
    """One write after the other; how long each took, in seconds."""
    took_s: list[float] = []
    until = trio.current_time() + duration_s
    while trio.current_time() < until:
        began = trio.current_time()
        assert (await put(cluster.node, f"key{len(took_s) % 7}", len(took_s)))[0] == 200
        took_s.append(trio.current_time() - began)
    return took_s


async def test_followers_that_no_quorum_waits_for_are_sent_more_at_a_time(
    autojump_clock: MockClock,
) -> None:
    async with open_delayed() as (cluster, delays):
        await trio.sleep(1)
        delays.sent.clear()
        took_s = await write_for(cluster, 1)
        assert took_s == [pytest.approx(TAKES_S)] * len(took_s)
        await cluster.settled()
        requests = sorted(delays.sent.values())
        assert requests[2:] == [len(took_s)] * 3
        most = 1 / (PAUSE_S + TAKES_S) + 2
        assert all(most / 2 < count < most for count in requests[:2])
        assert_equal(cluster)


async def test_a_write_after_a_pause_goes_to_all_at_once(autojump_clock: MockClock) -> None:
    async with open_delayed() as (cluster, _):
        for index in range(20):
            await trio.sleep(PAUSE_S + 2 * TAKES_S)
            await put(cluster.node, "key", index)
            await trio.sleep(TAKES_S)
            assert not any(link.outbox.records for link in cluster.leader.links)


async def test_a_follower_that_stalls_holds_one_write_up_by_a_pause_and_is_spare_then(
    autojump_clock: MockClock,
) -> None:
    async with open_delayed() as (cluster, delays):
        await write_for(cluster, 1)
        await cluster.settled()
        delays.sent.clear()
        await write_for(cluster, 0.1)
        stalls = delays.sent.most_common(1)[0][0]
        delays.of[stalls] = 2.0
        took_s = await write_for(cluster, 1)
        assert max(took_s) <= PAUSE_S + 3 * TAKES_S
        late = [one_s for one_s in took_s if one_s > 2 * TAKES_S]
        assert 1 <= len(late) <= 3
        assert len(took_s) > 950
        delays.of.clear()
        await trio.sleep(3)
        took_s = await write_for(cluster, 1)
        assert max(took_s) <= PAUSE_S + 3 * TAKES_S
        await cluster.settled()
        assert_equal(cluster)


async def test_a_follower_that_dies_holds_no_write_up_for_longer_than_a_pause(
    autojump_clock: MockClock,
) -> None:
    async with open_delayed() as (cluster, delays):
        await write_for(cluster, 0.1)
        dies = delays.sent.most_common(1)[0][0]
        del cluster.network.nodes[dies]
        assert max(await write_for(cluster, 1)) <= PAUSE_S + 3 * TAKES_S


@pytest.mark.parametrize("write_quorum", [0, 3, 5])
async def test_with_simulated_lag_with_quorum_0_and_where_all_must_confirm_nobody_is_spare(
    autojump_clock: MockClock, write_quorum: int
) -> None:
    lag = LagRange(1, 1) if write_quorum == 3 else LagRange(0, 0)
    async with open_delayed(write_quorum=write_quorum, lag=lag) as (cluster, _):
        for index in range(100):
            await put(cluster.node, "key", index)
            await trio.sleep(2 * TAKES_S)
            assert not any(link.outbox.records for link in cluster.leader.links)


async def test_lag_that_is_turned_off_makes_spare_and_that_is_turned_on_hurries(
    autojump_clock: MockClock,
) -> None:
    async with open_delayed() as (cluster, delays):
        for least, most in ((950, 1100), (0, 120), (950, 1100)):
            lag_ms = 0.001 if most > 1000 else 0
            cluster.leader.lag.set(LagRange(lag_ms, lag_ms))
            await trio.sleep(1)
            delays.sent.clear()
            await write_for(cluster, 1)
            assert least < min(delays.sent.values()) < most


# -- how far a follower is ------------------------------------------------------------------------------


@asynccontextmanager
async def open_busy(seconds: float) -> AsyncIterator[tuple[Cluster, Delays]]:
    """A leader with one follower; inside the block it is written to for so long."""
    async with (
        open_delayed(1, write_quorum=1) as (cluster, delays),
        trio.open_nursery() as nursery,
    ):
        await trio.sleep(1)
        delays.sent.clear()
        delays.told.clear()
        nursery.start_soon(write_for, cluster, seconds)
        yield cluster, delays


async def test_while_requests_follow_each_other_few_bring_a_watermark(
    autojump_clock: MockClock,
) -> None:
    async with open_busy(1) as (cluster, delays):
        await trio.sleep(0.9)
        assert delays.sent[F1] > 400
        assert 0.9 / (TELL_S + 2 * TAKES_S) - 2 <= delays.told[F1] <= 0.9 / TELL_S + 2
        follower = cluster.followers[F1].follower
        assert follower is not None
        newest = cluster.node.store.greatest_version()
        assert newest is not None
        behind_us = newest.timestamp_us - follower.state.watermark.timestamp_us
        assert behind_us <= (TELL_S + 5 * TAKES_S) * 1e6
        await trio.sleep(0.1 + FLUSH_S + 2 * TAKES_S)
        assert follower.state.watermark == cluster.leader.confirmed


async def test_who_waits_to_hear_how_far_a_follower_is_is_told_with_the_next_request_but_one(
    autojump_clock: MockClock,
) -> None:
    async with open_busy(2) as (cluster, _):
        follower = cluster.followers[F1].follower
        assert follower is not None
        took_s = []
        for _ in range(20):
            await trio.sleep(0.05)
            newest: Version | None = cluster.node.store.greatest_version()
            assert newest is not None
            began = trio.current_time()
            await follower.until(lambda: follower.caught_up(newest), 1, "all of it")  # noqa: B023
            took_s.append(trio.current_time() - began)
        assert max(took_s) <= 6 * TAKES_S
        assert follower.waiting == 0
