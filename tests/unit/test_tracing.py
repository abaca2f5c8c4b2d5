"""One write traced: its Server-Timing, and the id of a request in answers and log lines."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support import open_cluster
from tests.unit.inprocess import Answered, Client, open_client
from tests.unit.test_fast_lane import LEADER, answered, ask, open_lane, value
from tests.unit.test_fuzz_wire import run
from trikv import log
from trikv.network.simulated_lag import LagRange
from trikv.replication.write import FollowerTrace, Trace
from trikv.web.identity import MAX_REQUEST_ID, RequestIds
from trikv.web.timing import server_timing

TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
PARAMETER = r'(?:dur=\d+\.\d+|desc="(?:[\t !#-\[\]-~]|\\[\t -~])*")'
METRIC = rf"{TOKEN}(?:;{PARAMETER})*"
MADE = r"[0-9a-f]{8}-[0-9a-f]+"


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The log's lines, as they would be written; from INFO on, unless a test says more."""
    kept: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(self.format(record))

    keep, level = Keep(), log.logger.level
    keep.setFormatter(log._Line())
    log.logger.addHandler(keep)
    log.logger.setLevel(logging.INFO)
    yield kept
    log.logger.removeHandler(keep)
    log.logger.setLevel(level)


def parsed(header: str) -> dict[str, dict[str, str]]:
    """A Server-Timing header, which must be one by the grammar of the specification."""
    assert re.fullmatch(rf"{METRIC}(?:, {METRIC})*", header), header
    metrics = {}
    for metric in re.findall(METRIC, header):
        pairs = (one.partition("=") for one in re.findall(PARAMETER, metric))
        metrics[metric.partition(";")[0]] = {key: text.strip('"') for key, _, text in pairs}
    return metrics


def test_a_trace_is_legal_whatever_a_follower_is_called() -> None:
    trace = Trace(
        1.23456,
        None,
        [
            FollowerTrace("http://a:1", "f.1-x_Y", 0.0, 2.0),
            FollowerTrace("http://b:1", None, 0.0),
            FollowerTrace('http://"\\\r\n\t;,é', None, 0.0, 100_000.0),
        ],
    )
    assert parsed(server_timing(trace)) == {
        "commit": {"dur": "1.235"},
        "ack1": {"dur": "2.000", "desc": "f.1-x_Y"},
        "ack2": {"desc": "http://b:1: no ACK yet"},
        "ack3": {"dur": "100000.000", "desc": "http://?????;,?"},
    }


async def writes(client: Client, query: str) -> list[Answered]:
    operations = [{"op": "put", "key": "c", "value": 1}, {"op": "delete", "key": "a"}]
    return [
        await client.put("a", 1, query),
        await client.ask("DELETE", f"/kv/a{query}"),
        await client.post(f"/batch{query}", {"operations": operations}),
    ]


async def test_the_header_tells_what_the_body_tells(autojump_clock: MockClock) -> None:
    async with open_cluster(3, lag=LagRange(10, 500), seed=3, write_quorum=2) as cluster:
        for answer in await writes(Client(cluster.node), "?trace=true"):
            assert answer.status == 200
            trace = answer.json()["trace"]
            expected: dict[str, dict[str, str]] = {
                "commit": {"dur": f"{trace['commit_ms']:.3f}"},
                "quorum": {"dur": f"{trace['quorum_ms']:.3f}"},
            }
            for place, step in enumerate(trace["followers"], 1):
                acked = step["ack_ms"] is not None
                more = {"dur": f"{step['ack_ms']:.3f}"} if acked else {}
                name = step["node_id"] if acked else f"{step['node_id']}: no ACK yet"
                expected[f"ack{place}"] = {**more, "desc": name}
            assert parsed(answer.headers["server-timing"]) == expected
            assert sum("dur" in one for one in expected.values()) == 4  # one is always late


async def test_without_a_trace_there_is_no_header(autojump_clock: MockClock) -> None:
    async with open_client("leader") as client:
        for query in ("", "?trace=false"):
            for answer in await writes(client, query):
                assert "server-timing" not in answer.headers


# -- ids --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    ["a", "x" * MAX_REQUEST_ID, "3f2b8c1e-0d5a-4f6b-9c7d-1e2f3a4b5c6d", "Root=1-67:a/b~c+d@"],
)
async def test_an_id_that_came_in_goes_out(sent: str, autojump_clock: MockClock) -> None:
    async with open_client("leader") as client:
        for method, target, status in (
            ("GET", "/health", 200),
            ("GET", "/kv/none", 404),
            ("GET", "/nowhere", 404),
            ("PATCH", "/kv/none", 405),
            ("PUT", "/kv/a", 400),
            ("GET", "/dump", 200),
            ("HEAD", "/metrics", 200),
        ):
            answer = await client.ask(method, target, headers={"x-request-id": sent})
            assert answer.status == status
            assert answer.headers["x-request-id"] == sent


@pytest.mark.parametrize(
    "sent", ["", " ", "a b", "x" * (MAX_REQUEST_ID + 1), 'a"b', "a,b", "é", "a\tb", "a;b", "%20"]
)
async def test_a_bad_id_is_refused_by_name_and_nothing_is_done(
    sent: str, autojump_clock: MockClock
) -> None:
    async with open_client("leader") as client:
        answer = await client.ask("PUT", "/kv/a", b'{"value": 1}', headers={"x-request-id": sent})
        assert answer.status == 422
        problem = answer.json()
        assert (problem["code"], problem["field"]) == ("invalid_parameter", "X-Request-ID")
        assert "1 to 128 letters" in problem["detail"]
        assert re.fullmatch(MADE, answer.headers["x-request-id"])
        assert client.node.store.get("a") is None


async def test_an_answer_has_an_id_of_its_own_where_it_is_of_use(autojump_clock: MockClock) -> None:
    async with open_client("leader") as client:
        seen = set()
        for method, target in (
            ("GET", "/kv/none"),
            ("GET", "/health"),
            ("GET", "/kv"),
            ("GET", "/nowhere"),
            ("PUT", "/kv/a?trace=true"),
            ("PUT", "/kv/a?trace=maybe"),
        ):
            answer = await client.ask(method, target, b'{"value": 1}')
            assert re.fullmatch(MADE, answer.headers["x-request-id"])
            seen.add(answer.headers["x-request-id"])
        assert len(seen) == 6
        for method, target in (("PUT", "/kv/a"), ("GET", "/kv/a"), ("DELETE", "/kv/a")):
            answer = await client.ask(method, target, b'{"value": 1}')
            assert answer.status == 200
            assert "x-request-id" not in answer.headers


def test_two_nodes_make_different_ids() -> None:
    made = set()
    for _ in range(2):
        ids = RequestIds()
        for _ in range(3):
            assert ids.begin(None) is None
            made.add(log.request_id.get())
    assert len(made) == 6
    log.request_id.set("")


@pytest.mark.parametrize("fast", [True, False])
def test_with_debug_every_request_has_an_id_and_its_line_in_the_log_has_it(
    fast: bool, lines: list[str]
) -> None:
    async def main() -> bytes:
        async with open_lane(LEADER, fast=fast) as (_, port, _):
            said = [ask("GET", "/kv/none"), ask("PUT", "/kv/a", value(1))]
            return await answered(port, [*said, ask("GET", "/kv/a", None, "X-Request-ID: mine")])

    heard: list[bytes] = []

    async def hear() -> None:
        heard.append(await main())

    log.logger.setLevel(logging.DEBUG)
    run(hear)
    told = re.findall(r"x-request-id: (\S+)", heard[0].decode())
    assert len(told) == 3
    assert told[2] == "mine"
    access = [line for line in lines if "logger=trikv.http" in line]
    assert [line.rpartition("request_id=")[2] for line in access] == told
    (refused,) = [line for line in lines if " request.refused " in line]
    assert f"status=404 code=not_found request_id={told[0]}" in refused
    assert "method=GET path=/kv/none" in refused


@pytest.mark.parametrize("fast", [True, False])
def test_a_request_that_failed_is_found_in_the_log_by_its_id(
    fast: bool, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    async def main() -> None:
        async with open_lane(LEADER, fast=fast) as (node, port, _):
            monkeypatch.setattr(node.store, "get", lambda key: 1 / 0)
            heard = await answered(
                port, [ask("GET", "/kv/a"), ask("GET", "/kv/a", None, "X-Request-ID: mine")]
            )
            bodies: list[Any] = [json.loads(one) for one in re.findall(rb"\{[^}]*\}", heard)]
            ids = [body["request_id"] for body in bodies]
            assert re.fullmatch(MADE, ids[0])
            assert ids[1] == "mine"
            assert re.findall(r"x-request-id: (\S+)", heard.decode()) == ids
            failed = [line for line in lines if " request.failed " in line]
            assert [re.findall(r" request_id=(\S+)", line) for line in failed] == [[i] for i in ids]
            assert node.tally.problems == {"internal_error": 2}

    run(main)


async def test_what_a_request_changes_is_logged_with_its_id_and_nothing_else_is(
    autojump_clock: MockClock, lines: list[str]
) -> None:
    async with open_cluster(1) as cluster:
        client = Client(cluster.node)
        async with trio.open_nursery() as nursery:  # a task for each request, as a server has

            async def cut() -> None:
                body = b'{"follower": "follower1", "cut": true}'
                await client.ask(
                    "POST", "/admin/partition", body, headers={"x-request-id": "cut-1"}
                )

            nursery.start_soon(cut)
        await trio.sleep(10)
    assert any(line.endswith("request_id=cut-1") and " wire.cut " in line for line in lines)
    assert any(" link.down " in line for line in lines)
    assert not [line for line in lines if "request_id=" in line and " wire.cut " not in line]
