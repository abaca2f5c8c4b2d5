"""Readiness covers what a node is for: it can commit, and a follower hears its leader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pytest
import trio
from trio.testing import MockClock

from tests.support import open_cluster, until
from tests.unit.inprocess import Client, open_client
from trikv.node.readiness import COMMIT_S, HEARD_S, PROBE_S, ROOM_BYTES
from trikv.storage.store import Store

READY = "/health?ready=true"
FULL = apsw.FullError("database or disk is full")
BROKEN = apsw.IOError("disk I/O error")


class AilingStore(Store):
    """A store whose changes fail with `error`, as long as there is one."""

    error: apsw.Error | None = None

    def __init__(self) -> None:
        super().__init__(None, "fsync")

    @contextmanager
    def transaction(self, *, synced: bool = False) -> Iterator[None]:
        changes = self._writer.total_changes()
        with super().transaction(synced=synced):
            yield
            if self.error is not None and self._writer.total_changes() > changes:
                raise self.error


def batch(*keys: str) -> dict[str, Any]:
    records = [{"key": key, "version": "1.a-1", "value": 1} for key in keys]
    return {"leader": {"node_id": "boss"}, "epoch": "1.a", "records": records}


@pytest.mark.parametrize(
    ("error", "wanted"),
    [(FULL, "room on its disk: the last commit"), (BROKEN, "a disk that takes its commits")],
)
async def test_a_leader_whose_commit_failed_is_not_ready_until_one_succeeds_without_any_traffic(
    autojump_clock: MockClock, error: apsw.Error, wanted: str
) -> None:
    store = AilingStore()
    async with open_client("leader", store=store) as client:
        assert (await client.ask("GET", READY)).status == 200
        store.error = error
        assert (await client.put("k", 1)).status == 507
        for _ in range(10):
            answer = await client.ask("GET", READY)
            assert (answer.status, answer.json()["ready"]) == (503, False)
            [reason] = answer.json()["waiting_for"]
            assert wanted in reason
            assert str(error) in reason
            assert (await client.ask("GET", "/health")).status == 200
            await trio.sleep(PROBE_S)
        store.error = None
        await trio.sleep(PROBE_S)
        answer = await client.ask("GET", READY)
        assert (answer.status, answer.json()["waiting_for"]) == (200, [])


async def test_probes_are_one_a_second_and_none_while_commits_succeed(
    autojump_clock: MockClock,
) -> None:
    store = AilingStore()
    async with open_client("follower", store=store) as client:
        tally = client.node.committer.tally
        await trio.sleep(100)
        before = sum(tally.took_s.counts)
        await trio.sleep(100)
        assert sum(tally.took_s.counts) == before
        store.error = FULL
        await client.post("/replicate", batch("k"))
        await trio.sleep(10 * PROBE_S + 0.5)
        assert tally.failures == 1 + 10


async def test_a_follower_whose_disk_is_full_says_so_itself(autojump_clock: MockClock) -> None:
    store = AilingStore()
    async with open_client("follower", store=store) as client:
        store.error = FULL
        assert (await client.post("/replicate", batch("k"))).status == 507
        told = await client.get("/health")
        assert told["ready"] is False
        assert "room on its disk" in told["waiting_for"][0]


@pytest.mark.parametrize(("free", "ready"), [(ROOM_BYTES - 1, False), (ROOM_BYTES, True)])
async def test_a_disk_that_was_full_needs_room_for_a_batch_though_a_small_commit_fits(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, free: int, ready: bool
) -> None:
    store = AilingStore()
    async with open_client("leader", store=store) as client:
        store.error = FULL
        await client.put("k", 1)
        store.error = None
        monkeypatch.setattr(
            "trikv.node.readiness.shutil.disk_usage", lambda _: SimpleNamespace(free=free)
        )
        monkeypatch.setattr(store.database, "path", SimpleNamespace(parent="there"))
        monkeypatch.setattr(store.database, "checkpoint_is_due", lambda: False)
        await trio.sleep(PROBE_S + 0.1)
        told = await client.get("/health")
        assert told["ready"] is ready
        assert ready or f"{free} bytes are free" in told["waiting_for"][0]


async def test_a_node_whose_file_was_removed_is_not_ready_though_nobody_writes(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_client("leader", store=Store.open(tmp_path)) as client:
        assert (await client.ask("GET", READY)).status == 200
        (tmp_path / "trikv.sqlite3").rename(tmp_path / "elsewhere")
        answer = await client.ask("GET", READY)
        assert answer.status == 503
        assert "was removed or replaced" in answer.json()["waiting_for"][0]
        (tmp_path / "elsewhere").rename(tmp_path / "trikv.sqlite3")
        assert (await client.ask("GET", READY)).status == 200


async def test_a_commit_that_does_not_end_makes_the_node_not_ready(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_client("leader") as client, trio.open_nursery() as nursery:
        free = trio.Event()

        async def hang(work: Any) -> Any:
            await free.wait()
            return work()

        monkeypatch.setattr(client.node.committer, "_run_blocking", hang)
        nursery.start_soon(client.put, "k", 1)
        await trio.sleep(COMMIT_S - 0.1)
        assert (await client.ask("GET", READY)).status == 200
        await trio.sleep(1)
        [reason] = (await client.ask("GET", READY)).json()["waiting_for"]
        assert reason == "its disk: a commit has taken 6 s so far"
        free.set()
        await until(lambda: client.node.waiting_for == [])


async def test_a_checkpoint_that_does_not_end_makes_the_node_not_ready(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_client("leader") as client:
        free = trio.Event()
        database = client.node.store.database
        inner = client.node.committer._run_blocking

        async def hang(work: Any) -> Any:
            if work == database.checkpoint:
                await free.wait()
            return await inner(work)

        monkeypatch.setattr(client.node.committer, "_run_blocking", hang)
        monkeypatch.setattr(database, "checkpoint_is_due", lambda: not free.is_set())
        await client.put("k", 1)
        await trio.sleep(COMMIT_S + 1)
        assert (await client.ask("GET", READY)).status == 503
        free.set()
        await until(lambda: client.node.waiting_for == [])


async def test_a_follower_that_hears_no_leader_is_not_ready_until_it_hears_one(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(2, write_quorum=1) as cluster:
        url = cluster.urls[0]
        node = cluster.followers[url]
        client = Client(node)
        await trio.sleep(60)  # heartbeats are enough
        assert (await client.ask("GET", READY)).status == 200
        del cluster.network.nodes[url]  # the leader does not reach it any more
        await trio.sleep(HEARD_S - 1.5)
        assert (await client.ask("GET", READY)).status == 200
        await trio.sleep(3)
        answer = await client.ask("GET", READY)
        told = answer.json()
        assert answer.status == 503
        assert told["waiting_for"][0].startswith("leader, which has not been heard for ")
        assert told["leader"]["node_id"] == "leader"
        assert HEARD_S * 1000 < told["leader_heard_ms"] < 10_000
        cluster.network.nodes[url] = node
        await cluster.all_live()
        assert (await client.ask("GET", READY)).status == 200


async def test_a_follower_whose_disk_is_slow_hears_its_leader_all_the_same(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_cluster(1, write_quorum=0, request_timeout_s=30) as cluster:
        [node] = cluster.followers.values()
        await trio.sleep(4.5)

        async def slow(work: Any) -> Any:
            await trio.sleep(4)
            return work()

        monkeypatch.setattr(node.committer, "_run_blocking", slow)
        await Client(cluster.node).put("k", 1)
        for _ in range(12):
            await trio.sleep(0.5)
            assert node.waiting_for == []


async def test_health_tells_load_balancers_who_leads(autojump_clock: MockClock) -> None:
    async with open_cluster(1) as cluster:
        leader, follower = Client(cluster.node), Client(*cluster.followers.values())
        asked = "/health?leads=true"
        assert [(await one.ask("GET", asked)).status for one in (leader, follower)] == [200, 503]
        asked = "/health?leads=false"
        assert [(await one.ask("GET", asked)).status for one in (leader, follower)] == [200, 200]
        cluster.leader.superseded("another leads")
        assert (await leader.ask("GET", "/health?leads=true")).status == 503
        assert (await leader.ask("GET", "/health")).status == 200


async def test_health_checks_may_add_parameters_of_their_own(autojump_clock: MockClock) -> None:
    async with open_client("leader") as client:
        assert (await client.ask("GET", "/health?_=1")).status == 200
        assert (await client.ask("GET", "/health?ready=true&nocache=%20x&leads=true")).status == 200
        assert (await client.ask("GET", "/health?leads=perhaps&_=1")).status == 422
        assert (await client.ask("GET", "/kv?_=1")).status == 422  # one that is misspelt is told
