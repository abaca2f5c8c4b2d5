"""A steady load that is more than followers take together: who stays live, and who is waited for."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest
import trio
from trio.testing import MockClock

from tests.support import Cluster, MemoryNetwork, call, open_cluster
from trikv.replication.link import LinkState

BATCH = 10


@pytest.fixture(autouse=True)
def _small_outboxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trikv.replication.outbox.MAX_OUTBOX_RECORDS", 5 * BATCH)


class Load:
    """Twenty clients that write batches, one after the other, to a cluster with quorum 1."""

    def __init__(self, record_s: Callable[[str], float]) -> None:
        """`record_s(url)`: how long a follower takes for a record, now."""
        self.confirmed_at: list[float] = []
        self.left_live: set[str] = set()
        self._record_s = record_s

    async def run(self, seconds: float) -> None:
        operations = [{"op": "put", "key": f"key{i}", "value": i} for i in range(BATCH)]
        body = msgspec.json.encode({"operations": operations})

        async def before(base: str, target: str, sent: bytes | None) -> None:
            if target == "/replicate" and sent is not None:
                records = sum(
                    len(record.get("values", [0]))
                    for record in msgspec.json.decode(sent).get("records", [])
                )
                await trio.sleep(0.001 + records * self._record_s(base))

        network = MemoryNetwork(before=before)
        async with open_cluster(3, network=network, write_quorum=1) as cluster:
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as nursery:
                    for _ in range(20):
                        nursery.start_soon(self._client, cluster, body)

    async def _client(self, cluster: Cluster, body: bytes) -> None:
        while True:
            status = (await call(cluster.node, "POST", "/batch", body)).status
            if status == 200:
                self.confirmed_at.append(trio.current_time())
            links = cluster.leader.links
            self.left_live |= {link.url for link in links if link.state is not LinkState.LIVE}

    @property
    def longest_wait_s(self) -> float:
        times = self.confirmed_at
        return max(after - before for before, after in pairwise(times))


async def test_a_follower_that_keeps_up_in_the_mean_stays_live(autojump_clock: MockClock) -> None:
    load = Load(lambda url: 0.015 if url.endswith("3") else 0.01)
    await load.run(20)
    assert not load.left_live
    assert len(load.confirmed_at) * BATCH > 20 * 50  # the slowest takes 67 records in a second


async def test_one_that_takes_a_tenth_of_the_others_does_not_hold_up_the_writers(
    autojump_clock: MockClock,
) -> None:
    load = Load(lambda url: 0.1 if url.endswith("3") else 0.01)
    await load.run(20)
    assert load.left_live == {"http://follower3"}
    began = load.confirmed_at[0]
    late = [at for at in load.confirmed_at if at > began + 10]
    assert len(late) * BATCH > 8 * 100  # at the pace of the others, nearly


async def test_one_that_stalls_holds_up_the_writers_for_a_second_once(
    autojump_clock: MockClock,
) -> None:
    def record_s(url: str) -> float:
        return 1000 if url.endswith("3") and trio.current_time() > 5 else 0.01

    load = Load(record_s)
    await load.run(20)
    assert load.left_live == {"http://follower3"}
    assert load.longest_wait_s < 1.5


async def test_with_quorum_0_no_follower_holds_up_a_writer(autojump_clock: MockClock) -> None:
    async def slow(base: str, target: str, sent: bytes | None) -> None:
        if target == "/replicate":
            await trio.sleep(4)

    operations = [{"op": "put", "key": f"key{i}", "value": i} for i in range(BATCH)]
    body = msgspec.json.encode({"operations": operations})
    network = MemoryNetwork()
    async with open_cluster(1, network=network, write_quorum=0) as cluster:
        network.before = slow
        began = trio.current_time()
        for _ in range(30):
            assert (await call(cluster.node, "POST", "/batch", body)).status == 200
        assert trio.current_time() - began < 0.5
