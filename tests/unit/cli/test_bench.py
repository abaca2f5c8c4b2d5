"""`bench`: its figures, its bars, its ends."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from tests.unit.cli.console import URLS, Console
from tests.unit.cli.test_status import leader_health
from tests.unit.client.fake_watch import version
from tests.unit.client.wires import Asked, Reply, problem
from trikv.cli.bench import Measured, buckets, percentile

V1 = version(1)


def node(asked: Asked) -> Reply | Exception:
    """A leader that takes 10 ms for a write."""
    if asked.path == "/health":
        return Reply(200, leader_health())
    told = {"version": V1, "follower_acks": 1}
    return Reply(200, told, delay_s=0.01 if asked.method == "PUT" else 0)


def test_it_measures_and_tidies_up(console: Console) -> None:
    ended = console("bench", "--seconds", "1", "--clients", "2", "--json", *URLS, answers=node)
    assert (ended.code, ended.err) == (0, "")
    told = ended.document
    assert told["confirmed"] == 200
    assert told["failed"] == {}
    assert told["writes_per_second"] == pytest.approx(200, rel=0.02)
    assert told["latency_ms"]["p50"] == pytest.approx(10, rel=0.02)
    assert told["write_quorum"] == 1
    assert sum(bucket["writes"] for bucket in told["histogram"]) == 200
    batch = ended.seen[-1]
    assert batch.path == "/batch"
    assert {operation["op"] for operation in batch.json()["operations"]} == {"delete"}
    written = {asked.path.removeprefix("/kv/") for asked in ended.seen if asked.method == "PUT"}
    assert written <= {operation["key"] for operation in batch.json()["operations"]}


def test_keep_keeps_the_keys(console: Console) -> None:
    ended = console("bench", "--seconds", "0.1", "--keep", *URLS, answers=node)
    assert ended.seen[-1].method == "PUT"


@pytest.mark.parametrize("columns", [80, 120, None])
def test_people_get_bars(console: Console, columns: int | None) -> None:
    console.environment["NO_COLOR"] = "1"
    ended = console("bench", "--seconds", "2", *URLS, columns=columns, answers=node)
    assert "8 clients, 2 s, values of 100 bytes; quorum 1 of 2 followers, lag 0–50 ms" in ended.out
    assert "10–20 ms" in ended.out
    assert "█" in ended.out
    if columns is None:
        assert "\x1b" not in ended.out
        assert "\r" not in ended.out
    else:
        assert (
            max(len(line.rpartition("\r\x1b[K")[2]) for line in ended.out.splitlines()) <= columns
        )


def test_writes_that_fail_are_told_and_are_1(console: Console) -> None:
    def answers(asked: Asked) -> Reply | Exception:
        unmet = problem("quorum_not_met", 503, version=V1)
        return node(asked) if asked.method != "PUT" else replace(unmet, delay_s=0.5)

    ended = console("bench", "--seconds", "1", "--clients", "1", "--json", *URLS, answers=answers)
    assert ended.code == 1
    assert ended.document["failed"] == {"quorum_not_met": 2}
    assert ended.document["may_have_happened"] == 2
    assert ended.document["latency_ms"] is None
    ended = console("bench", "--seconds", "1", "--clients", "1", *URLS, answers=answers)
    assert "2 failed: quorum_not_met" in ended.out


def test_without_a_leader_it_does_not_begin(console: Console) -> None:
    gone = httpx.ConnectError("nobody listens")
    ended = console("bench", "--seconds", "60", *URLS, answers=lambda asked: gone)
    assert (ended.code, ended.out) == (4, "")
    assert "no node can be reached" in ended.err
    assert all(asked.path == "/health" for asked in ended.seen)


def test_ctrl_c_tells_what_was_measured(console: Console) -> None:
    writes = 0

    def answers(asked: Asked) -> Reply | Exception:
        nonlocal writes
        writes += asked.method == "PUT"
        if writes == 50 and asked.method == "PUT":
            raise KeyboardInterrupt
        return node(asked)

    ended = console("bench", "--seconds", "60", "--clients", "1", "--json", *URLS, answers=answers)
    assert ended.code == 130
    assert ended.document["confirmed"] == 49
    assert ended.seen[-1].path == "/batch"


def test_figures() -> None:
    ordered = [float(number) for number in range(1, 101)]
    assert [percentile(ordered, share) for share in (0.5, 0.9, 0.99, 1)] == [50, 90, 99, 100]
    assert percentile([7.0], 0.5) == 7
    assert buckets([]) == []
    assert buckets([0.05, 0.15, 1.5, 1.0]) == [
        *((0.0, 0.1, 1), (0.1, 0.2, 1), (0.2, 0.5, 0), (0.5, 1.0, 0), (1.0, 2.0, 2))
    ]
    assert buckets([5.0]) == [(5.0, 10.0, 1)]
    assert buckets([123456.0])[0][:2] == (100000.0, 200000.0)
    measured = Measured(seconds=2.0, ends_s=[0.1, 1.5, 1.9, 2.0])
    assert measured.rates() == [1.0, 3.0]
