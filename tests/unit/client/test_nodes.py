"""The client against real nodes in this process, through their web app, while answers get lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from tests.support import LEADER_URL, Cluster, MemoryNetwork, open_cluster
from trikv.client import (
    Client,
    Delete,
    InvalidRequest,
    Item,
    OutcomeUnknown,
    Put,
    Unavailable,
    VersionConflict,
    Written,
)
from trikv.network.simulated_lag import LagRange
from trikv.node.node import Node
from trikv.web.app import create_app


class Apps(httpx.AsyncBaseTransport):
    """Requests to the nodes of an in-memory network. `lose` says whose answer is lost, by its
    number."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.asked: list[tuple[str, str]] = []
        self.lose: set[int] = set()
        self._apps: dict[int, httpx.ASGITransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        base = f"{request.url.scheme}://{request.url.host}"
        number = len(self.asked)
        self.asked.append((base, request.method))
        node = self.network.nodes.get(base)
        if node is None:
            raise httpx.ConnectError(f"{base}: nobody listens")
        answer = await self._app(node).handle_async_request(request)
        if number in self.lose:
            await answer.aread()
            raise httpx.ReadError("the answer is lost")
        return answer

    def _app(self, node: Node) -> httpx.ASGITransport:
        if id(node) not in self._apps:
            app: Any = create_app(node)
            self._apps[id(node)] = httpx.ASGITransport(app)
        return self._apps[id(node)]


@asynccontextmanager
async def cluster_and_client(
    followers: int = 2, **settings: Any
) -> AsyncIterator[tuple[Cluster, Client, Apps]]:
    async with open_cluster(followers, **settings) as cluster:
        apps = Apps(cluster.network)
        nodes = [*cluster.urls, LEADER_URL]
        async with Client(nodes, transport=apps) as client:
            yield cluster, client, apps


async def test_the_calls_do_what_they_say(autojump_clock: MockClock) -> None:
    async with cluster_and_client(write_quorum=1) as (_, client, _apps):
        assert await client.get("k") is None
        first = await client.put("k", {"n": 1})
        assert first.follower_acks == 1
        assert await client.get("k") == Item("k", {"n": 1}, first.version)
        with pytest.raises(VersionConflict) as caught:
            await client.put("k", 2, if_absent=True)
        assert (caught.value.version, caught.value.key) == (first.version, "k")
        second = await client.put("k", 2, if_version=first.version)
        with pytest.raises(VersionConflict):
            await client.put("k", 3, if_version=first.version)
        await client.put("k", 3, if_present=True)
        with pytest.raises(VersionConflict):
            await client.put("none", 3, if_present=True)
        with pytest.raises(VersionConflict):
            await client.delete("k", if_version=second.version)
        assert isinstance(await client.delete("k"), Written)
        assert await client.delete("k") is None
        assert await client.get("k", consistency="local") is None


KEYS = ["a/../b//c/d", ".", "..", "/", "//x", "x/", "a b", "ä/ö", "%2F", "?q#f", "+", "𝄞", "\x7f\n"]


async def test_every_key_comes_back_as_it_was(autojump_clock: MockClock) -> None:
    async with cluster_and_client(1, write_quorum=1) as (_, client, _apps):
        for key in KEYS:
            await client.put(key, key)
            got = await client.get(key)
            assert got is not None
            assert (got.key, got.value) == (key, key)
        assert {one.key async for one in client.list()} == set(KEYS)
        assert [one.key async for one in client.list("a")] == ["a b", "a/../b//c/d"]


async def test_a_batch_is_all_or_nothing_and_its_errors_name_the_place(
    autojump_clock: MockClock,
) -> None:
    async with cluster_and_client(1, write_quorum=1) as (_, client, _apps):
        done = await client.batch([Put("a", 1), Put("b", 2, if_absent=True), Delete("none")])
        for operations, field in (
            ([Put("c", 1), Put("b", 2, if_absent=True)], None),
            ([Put("c", 1), Put("a", 2, if_version="1.aa-1")], None),
        ):
            with pytest.raises(VersionConflict) as conflict:
                await client.batch(operations)
            assert conflict.value.version == done.version
            assert conflict.value.field == field
        for bad, place in (
            ([], "operations"),
            ([Put("c", 1), Put("", 2)], "operations[1].key"),
            ([Put("c", float("inf"))], "operations[0].value"),
            ([Put("c", 1), Put("c", 2)], "operations[1].key"),
            ([Put("c", "x" * 2**20)], "operations[0].value"),
            ([Delete("c", if_version="no")], "operations[0].if_version"),
            ([Put("c", 1, if_version=done.version, if_absent=True)], "operations[0].if_version"),
        ):
            with pytest.raises(InvalidRequest) as refused:
                await client.batch(bad)
            assert refused.value.field == place
        assert [one.key async for one in client.list()] == ["a", "b"]


async def test_a_long_list_comes_in_pages(autojump_clock: MockClock) -> None:
    async with cluster_and_client(1, write_quorum=1) as (_, client, apps):
        for start in (0, 1000):
            await client.batch([Put(f"k{i:04}", i) for i in range(start, start + 1000)])
        before = len(apps.asked)
        got = [one.value async for one in client.list("k")]
        assert got == list(range(2000))
        assert len(apps.asked) - before in (4, 5)


async def test_a_session_reads_its_own_writes_from_followers_that_are_late(
    autojump_clock: MockClock,
) -> None:
    lag = LagRange(500, 1500)
    async with cluster_and_client(3, write_quorum=1, lag=lag) as (_, client, apps):
        await client.put("k", "the leader is known from here on")
        session = client.session()
        readers = set()
        for number in range(8):
            await session.put("k", number)
            before = len(apps.asked)
            got = await session.get("k")
            assert got is not None
            assert got.value == number
            readers |= {base for base, _ in apps.asked[before:]}
            assert [one.value async for one in client.session(session.version).list()] == [number]
        assert LEADER_URL not in readers
        other = client.session(session.version)
        assert (await other.get("k")) == got


async def test_a_lost_answer_of_a_conditional_write_is_settled_by_its_repetition_or_not_at_all(
    autojump_clock: MockClock,
) -> None:
    async with cluster_and_client(write_quorum=1) as (cluster, client, apps):
        first = await client.put("k", 1)
        apps.lose = {len(apps.asked)}
        with pytest.raises(
            OutcomeUnknown
        ):  # the second attempt is refused: by our write, or another's?
            await client.put("k", 2, if_version=first.version)
        apps.lose = {len(apps.asked)}
        unique = await client.put("lock", {"owner": "3f9a"}, if_absent=True, unique_value=True)
        assert unique == Written((await cluster_version(cluster, "lock")), None)
        apps.lose = {len(apps.asked)}
        with pytest.raises(OutcomeUnknown) as caught:
            await client.put("k", 3)
        assert caught.value.may_have_happened


async def cluster_version(cluster: Cluster, key: str) -> str:
    await trio.lowlevel.checkpoint()
    record = cluster.node.store.get(key)
    assert record is not None
    return str(record.version)


async def test_a_write_whose_quorum_came_late_is_settled_where_the_caller_asked_for_a_version(
    autojump_clock: MockClock,
) -> None:
    async with cluster_and_client(write_quorum=2, lag=LagRange(3000, 3000), write_timeout_s=1) as (
        _,
        client,
        _apps,
    ):
        with pytest.raises(OutcomeUnknown) as caught:
            await client.put("k", 1)
        assert caught.value.code == "quorum_not_met"
        await trio.sleep(10)
        got = await client.get("k")
        assert got is not None
        assert got.version == caught.value.version
        late = await client.put("k", 2, if_version=got.version)
        assert late.follower_acks is None
        assert await client.get("k") == Item("k", 2, late.version)


async def test_without_enough_followers_nothing_is_written_until_they_are_back(
    autojump_clock: MockClock,
) -> None:
    async with cluster_and_client(write_quorum=2) as (cluster, client, _):
        gone = cluster.network.nodes.pop(cluster.urls[0])
        await trio.sleep(3)
        with pytest.raises(Unavailable) as caught:
            await client.put("k", 1, timeout_s=2)
        assert caught.value.code == "not_enough_followers"
        assert await client.get("k", consistency="local") is None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.put, "k", 1)
            await trio.sleep(1)
            cluster.network.nodes[cluster.urls[0]] = gone
        got = await client.get("k")
        assert got is not None
