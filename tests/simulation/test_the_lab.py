"""The original lab's two tests, spelled out, with a trace like the lab's."""

from __future__ import annotations

import msgspec
import trio
from trio.testing import MockClock

from tests.support import (
    MemoryNetwork,
    call,
    dump,
    open_cluster,
    open_memory_node,
    put,
    read_body,
)
from trikv.config import Config
from trikv.errors import PeerFailed


async def test_leader_write_with_quorum(autojump_clock: MockClock) -> None:
    print("\n[test_leader_write_with_quorum] five followers, quorum=3; the last two fail")
    async with open_cluster(5, write_quorum=3) as cluster:
        attempts: list[str] = []

        async def two_fail(url: str, target: str, body: bytes | None) -> None:
            if body and b'"key"' in body:
                print(f"[test_leader_write_with_quorum] attempting replication to {url}{target}")
                attempts.append(url)
                if url in cluster.urls[3:]:
                    raise PeerFailed("connection refused")

        cluster.network.before = two_fail
        print("[test_leader_write_with_quorum] client PUT /kv/test")
        status, body = await put(cluster.node, "test", "123")
        print(f"[test_leader_write_with_quorum] response status={status}, body={body}")
        await trio.sleep(0.01)  # the late ones: their attempts are made, whoever answered first

        assert status == 200
        assert body["follower_acks"] == 3
        assert body["quorum_met"] is True
        assert sorted(attempts) == cluster.urls
        assert await dump(cluster.node) == {"test": "123"}
        held = [await dump(node) for node in cluster.followers.values()]
        assert held == [{"test": "123"}] * 3 + [{}] * 2
        print("[test_leader_write_with_quorum] verified quorum enforcement and replication fan-out")


async def test_follower_replication_endpoint(autojump_clock: MockClock) -> None:
    print("\n[test_follower_replication_endpoint] a follower that has no leader yet")
    config = Config(role="follower", node_id="follower1")
    async with open_memory_node(config, MemoryNetwork(), "http://follower1") as node:
        payload = {"key": "alpha", "value": "beta", "timestamp": 1700000000.5}
        print(f"[test_follower_replication_endpoint] posting {payload}")
        given = await call(node, "POST", "/replicate", msgspec.json.encode(payload))
        body = msgspec.json.decode(await read_body(given))
        print(f"[test_follower_replication_endpoint] response status={given.status}, body={body}")
        assert given.status == 200
        assert body == {"status": "ok"}
        assert await dump(node) == {"alpha": "beta"}
        print("[test_follower_replication_endpoint] follower applied the replicated write")
