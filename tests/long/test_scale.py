"""A million keys: filling an empty follower, starting again, memory; and a long absence, caught up soon.

Figures are printed, not asserted: machines are noisy.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.e2e.cluster import NodeProcess, open_nodes

KEYS = 1_000_000
OPERATIONS = 1_000


def rss_mb(node: NodeProcess) -> float:
    text = Path(f"/proc/{node.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", text)
    assert found is not None
    return int(found[1]) / 1024


def put_many(leader: NodeProcess, keys: list[str], value: str) -> None:
    operations = [{"op": "put", "key": key, "value": value} for key in keys]
    answer = leader.ask("POST", "/batch", {"operations": operations})
    assert answer.status_code == 200, answer.text


@pytest.mark.timeout(1200)
def test_a_million_keys(tmp_path: Path) -> None:
    with open_nodes(tmp_path, followers=2, write_quorum=1) as nodes:
        leader, follower = nodes.leader, nodes.followers[1]
        began = time.monotonic()
        for first in range(0, KEYS, OPERATIONS):
            put_many(leader, [f"key{i:07}" for i in range(first, first + OPERATIONS)], "x" * 50)
        print(f"\nloaded {KEYS / (time.monotonic() - began):,.0f} records/s by batches")
        nodes.wait_live(2, timeout_s=120)
        print(f"memory: leader {rss_mb(leader):.0f} MB, follower {rss_mb(follower):.0f} MB")

        follower.kill()
        follower.empty()
        began = time.monotonic()
        nodes.restart(follower)
        nodes.wait_live(2, timeout_s=600)
        rate = KEYS / (time.monotonic() - began)
        print(f"an empty follower filled at {rate:,.0f} records/s")
        print(f"memory: leader {rss_mb(leader):.0f} MB, follower {rss_mb(follower):.0f} MB")

        for node in (follower, leader):
            assert node.stop() == 0
            began = time.monotonic()
            nodes.restart(node)
            print(f"{node.name} starts in {time.monotonic() - began:.2f} s")
        nodes.wait_live(2, timeout_s=120)
        print(f"memory after a start: leader {rss_mb(leader):.0f} MB")
        digests = {node.get("/replica")["digest"] for node in nodes.all}
        assert len(digests) == 1


@pytest.mark.timeout(600)
def test_a_follower_that_missed_100000_writes_to_10_keys_is_sent_10_records(tmp_path: Path) -> None:
    with open_nodes(tmp_path, followers=2, write_quorum=1) as nodes:
        keys = [f"key{i}" for i in range(10)]
        put_many(nodes.leader, keys, "before")
        nodes.wait_match()
        time.sleep(1.5)  # until the watermark is on the follower's disk
        follower = nodes.followers[1]
        follower.kill()
        for number in range(10_000):
            put_many(nodes.leader, keys, str(number))
        nodes.restart(follower)
        nodes.wait_live(2)
        nodes.wait_match()
        live = [line for line in nodes.leader.log().splitlines() if " link.live " in line]
        caught_up = [line for line in live if f"follower={follower.url} " in line][-1]
        assert "caught_up_records=10" in caught_up.split(), caught_up
