"""Whatever the lags, the order and the faults: once all is quiet, all replicas are equal."""

from __future__ import annotations

import random
from functools import partial

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.support import Cluster, MemoryNetwork, dump, open_cluster, put
from trikv.errors import PeerFailed
from trikv.network.simulated_lag import LagRange

KEYS = ["a", "b", "c"]

Write = tuple[str, int, float]  # key, value, when it comes (ms)

writes = st.lists(
    st.tuples(st.sampled_from(KEYS), st.integers(0, 999), st.floats(0, 300)),
    min_size=1,
    max_size=12,
)
lags = st.lists(st.tuples(st.floats(0, 200), st.floats(0, 200)), min_size=3, max_size=3)


async def run_writes(cluster: Cluster, planned: list[Write]) -> dict[str, str]:
    """All writes at their times; the version of the last confirmed one for each key."""
    confirmed: dict[str, str] = {}

    async def one(key: str, value: int, at_ms: float) -> None:
        await trio.sleep(at_ms / 1000)
        status, body = await put(cluster.node, key, value)
        if status == 200:
            confirmed[key] = max(confirmed.get(key, ""), body["version"])

    async with trio.open_nursery() as nursery:
        for key, value, at_ms in planned:
            nursery.start_soon(one, key, value, at_ms)
    return confirmed


async def check_equal(cluster: Cluster) -> None:
    await cluster.settled()
    own = await cluster.node.digest()
    assert own.records == len(await dump(cluster.node))
    for node in cluster.followers.values():
        assert await node.digest() == own
        assert await dump(node) == await dump(cluster.node)


@settings(deadline=None, max_examples=60)
@given(planned=writes, drawn=lags, quorum=st.integers(0, 3), seed=st.integers(0, 2**32))
def test_replicas_converge_under_any_lags(
    planned: list[Write], drawn: list[tuple[float, float]], quorum: int, seed: int
) -> None:
    async def scenario() -> None:
        async with open_cluster(3, write_quorum=quorum, seed=seed) as cluster:
            for url, (low, high) in zip(cluster.urls, map(sorted, drawn), strict=True):
                cluster.leader.lag.set(LagRange(low, high), url)
            confirmed = await run_writes(cluster, planned)
            assert confirmed.keys() == {key for key, _, _ in planned}
            await check_equal(cluster)
            for key, version in confirmed.items():
                record = cluster.node.store.get(key)
                assert record is not None
                assert str(record.version) >= version

    trio.run(scenario, clock=MockClock(autojump_threshold=0))


@settings(deadline=None, max_examples=60)
@given(
    planned=writes,
    drawn=lags,
    quorum=st.integers(0, 3),
    loss=st.floats(0, 0.5),
    seed=st.integers(0, 2**32),
)
def test_replicas_converge_through_lost_doubled_and_reordered_requests(
    planned: list[Write], drawn: list[tuple[float, float]], quorum: int, loss: float, seed: int
) -> None:
    async def scenario() -> None:
        rng = random.Random(seed)
        network = MemoryNetwork()

        async def weather(url: str, target: str, body: bytes | None) -> None:
            await trio.sleep(rng.uniform(0, 0.1))
            if rng.random() < loss:
                raise PeerFailed("lost")
            if rng.random() < 0.2 and target == "/replicate":  # comes again, later, out of order
                stray = partial(network.request, "POST", url + target, body, timeout_s=60)
                strays.start_soon(deliver_late, stray)

        async def deliver_late(request: partial) -> None:  # type: ignore[type-arg]
            await trio.sleep(rng.uniform(0, 2))
            try:
                await request()
            except PeerFailed:
                return

        async with trio.open_nursery() as strays:
            async with open_cluster(
                3, network=network, write_quorum=quorum, seed=seed, request_timeout_s=0.15
            ) as cluster:
                network.before = network.after = weather
                for url, (low, high) in zip(cluster.urls, map(sorted, drawn), strict=True):
                    cluster.leader.lag.set(LagRange(low, high), url)
                await run_writes(cluster, planned)
                network.before = network.after = None
                await check_equal(cluster)
                strays.cancel_scope.cancel()

    trio.run(scenario, clock=MockClock(autojump_threshold=0))
