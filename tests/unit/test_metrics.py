"""What Prometheus is told: in a form that its parsers take, as documented, bounded, and true."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from trio.testing import MockClock

from tests.support import (
    MemoryNetwork,
    call,
    open_cluster,
    open_memory_node,
    put,
    read_body,
)
from tests.unit.inprocess import Client, open_client
from tests.unit.test_docs import METRICS, rows
from tests.unit.test_fast_lane import LEADER, answered, ask, open_lane, value
from tests.unit.test_fuzz_wire import run
from trikv.config import Config
from trikv.counters import OUTCOMES
from trikv.network.simulated_lag import LagRange
from trikv.node.node import Node
from trikv.replication.link import LinkState
from trikv.storage.store import Store
from trikv.web.routes import ROUTES

F1, F2 = "http://follower1", "http://follower2"

#: What Prometheus 2.42 and 3.5 send.
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;"
    "q=0.3,text/plain;version=0.0.4;q=0.2,/;q=0.1"
)


class Scraped:
    """The samples of one scrape."""

    def __init__(self, families: list[Metric]) -> None:
        self.families = families
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    def __getitem__(self, name: str) -> float:
        """The value of the one sample of that name."""
        (value,) = self.of(name).values()
        return value

    def of(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        return {labels: value for (known, labels), value in self.samples.items() if known == name}

    def get(self, name: str, **labels: str) -> float | None:
        return self.samples.get((name, tuple(sorted(labels.items()))))

    def names(self) -> set[str]:
        return {name for name, _ in self.samples}


async def scrape(node: Node, accept: str = "") -> Scraped:
    given = await call(node, "GET", "/metrics", headers={"accept": accept} if accept else {})
    text = (await read_body(given)).decode()
    assert given.status == 200, text
    parse = parse_openmetrics if "openmetrics" in given.content_type else parse_text
    return Scraped(list(parse(text)))


def documented() -> dict[str, tuple[str, set[str]]]:
    """Every metric of docs/metrics.md: its type, and its labels."""
    found = {}
    for row in rows(METRICS):
        if re.fullmatch(r"(trikv|process)_\w+", row[0]):
            assert row[0] not in found, row[0]
            assert len(row) == 4, row
            assert row[3], row
            found[row[0]] = (row[1], set(re.findall(r"\w+", row[2])))
    return found


def told(scraped: Scraped) -> dict[str, tuple[str, set[str]]]:
    """The same of what a node tells."""
    found = {}
    for family in scraped.families:
        end = {"counter": "_total"}.get(family.type, "")
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        found[family.name.removesuffix(end) + end] = (family.type, labels)
    return found


async def everything(tmp_path: Path) -> dict[str, tuple[str, set[str]]]:
    """What leader, follower, and a node on a disk tell together."""
    found: dict[str, tuple[str, set[str]]] = {}
    async with open_cluster(2) as cluster:
        client = Client(cluster.node)
        await client.put("a", 1)
        assert (await client.ask("GET", "/nowhere")).status == 404
        found |= told(await scrape(cluster.followers[F1]))
        found |= told(await scrape(cluster.node))
    config = Config(node_id="disk", role="follower")
    store = Store.open(tmp_path)
    async with open_memory_node(config, MemoryNetwork(), "http://disk", store=store) as node:
        for name, what in told(await scrape(node)).items():
            found.setdefault(name, what)
    return found


async def test_every_metric_is_documented_with_its_type_and_labels(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    assert await everything(tmp_path) == documented()


async def test_names_follow_the_conventions(autojump_clock: MockClock, tmp_path: Path) -> None:
    for name, (kind, labels) in (await everything(tmp_path)).items():
        assert re.fullmatch(r"(trikv|process)_[a-z_]+", name)
        assert (kind == "counter") is name.endswith("_total")
        assert not re.search(r"_(ms|us|milliseconds|kb|mb)(_|$)", name)
        assert "key" not in labels
        assert "value" not in labels
        if kind == "histogram":
            assert re.search(r"_(seconds|bytes|records|changes)$", name), name


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html, application/json", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0"),
        (PROMETHEUS_2, "application/openmetrics-text; version=1.0.0"),
        (PROMETHEUS_3, "application/openmetrics-text; version=1.0.0"),
        ("text/plain;version=1.0.0", "text/plain; version=1.0.0; charset=utf-8"),
        ("application/openmetrics-text;version=99.0.0", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=x", "text/plain; version=0.0.4"),
        ("text/plain;version=1.0.x;;=,,;", "text/plain; version=0.0.4"),
    ],
)
async def test_the_format_is_the_one_that_is_asked_for(
    accept: str, kind: str, autojump_clock: MockClock
) -> None:
    async with open_client("leader") as client:
        given = await client.ask("GET", "/metrics", headers={"accept": accept} if accept else {})
        assert given.status == 200
        assert given.headers["content-type"].startswith(kind)
        text = given.body.decode()
        ends = text.count("# EOF\n")
        if "openmetrics" in kind:
            assert ends == 1
            assert text.endswith("# EOF\n")
            assert list(parse_openmetrics(text))  # type: ignore[no-untyped-call]
        else:
            assert ends == 0
            assert list(parse_text(text))


async def test_both_formats_tell_the_same(autojump_clock: MockClock) -> None:
    async with open_cluster(2) as cluster:
        await put(cluster.node, "a", 1)
        await cluster.settled()
        one, other = await scrape(cluster.node), await scrape(cluster.node, PROMETHEUS_2)
        unlike = {name for name, at in other.samples.items() if one.samples.get(name) != at}
        moving = ("process_", "trikv_store_count_age", "trikv_watermark")
        assert {name for name, _ in unlike if not name.startswith(moving)} == set()
        assert one.names() == other.names()


async def test_a_parameter_is_refused(autojump_clock: MockClock) -> None:
    async with open_client("follower") as client:
        given = await client.ask("GET", "/metrics?name[]=trikv_ready")
        assert given.status == 422
        assert given.json()["code"] == "invalid_parameter"


# -- what is told is true ---------------------------------------------------------------------------


async def test_writes_are_counted_by_outcome_and_timed(autojump_clock: MockClock) -> None:
    async with open_cluster(2, lag=LagRange(40, 40), write_quorum=2) as cluster:
        client = Client(cluster.node)
        await client.put("a", 1)
        operations = [{"op": "put", "key": "b", "value": 1}, {"op": "delete", "key": "a"}]
        await client.post("/batch", {"operations": operations})
        await client.ask("DELETE", "/kv/nothing")
        await client.ask("PUT", "/kv/a", b'{"value": 1}', headers={"if-match": '"1.x-1"'})
        await client.post("/admin/partition", {"follower": F1, "cut": True})
        await client.put("c", 1)
        await cluster.settled_but(F1)
        seen = await scrape(cluster.node)
    outcomes = {labels[0][1]: n for labels, n in seen.of("trikv_writes_total").items() if n}
    assert outcomes == {
        "confirmed": 2,
        "not_found": 1,
        "version_conflict": 1,
        "not_enough_followers": 1,
    }
    assert set(OUTCOMES) == {labels[0][1] for labels in seen.of("trikv_writes_total")}
    assert seen.get("trikv_operations_total", op="put") == 2
    assert seen.get("trikv_operations_total", op="delete") == 1
    assert seen["trikv_write_quorum_seconds_count"] == 2
    assert seen["trikv_write_quorum_seconds_sum"] == pytest.approx(0.08, abs=0.02)
    assert seen.get("trikv_write_quorum_seconds_bucket", le="0.025") == 0
    assert seen.get("trikv_write_quorum_seconds_bucket", le="0.1") == 2
    assert seen.get("trikv_link_ack_seconds_count", follower=F2) == 2
    assert seen["trikv_write_commit_seconds_count"] >= 2


async def test_a_write_whose_quorum_is_not_met_is_counted_as_unknown(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(1, lag=LagRange(900, 900), write_quorum=1, write_timeout_s=0.5) as c:
        status, _ = await put(c.node, "a", 1)
        assert status == 503
        seen = await scrape(c.node)
        assert seen.get("trikv_writes_total", outcome="quorum_not_met") == 1
        assert seen["trikv_write_quorum_seconds_count"] == 0
        assert seen["trikv_writes_in_flight"] == 0
        assert seen.get("trikv_link_outbox_records", follower=F1) == 1
        await c.settled()
        seen = await scrape(c.node)
        assert seen.get("trikv_link_outbox_records", follower=F1) == 0
        assert seen.get("trikv_link_ack_seconds_count", follower=F1) == 1  # late, and counted


async def test_a_client_that_leaves_abandons_its_write(autojump_clock: MockClock) -> None:
    async with open_cluster(1, lag=LagRange(900, 900), write_quorum=1) as cluster:
        with trio.move_on_after(0.1):
            await put(cluster.node, "a", 1)
        assert (await scrape(cluster.node)).get("trikv_writes_total", outcome="abandoned") == 1


async def test_the_state_of_each_link_is_told_once(autojump_clock: MockClock) -> None:
    async with open_cluster(2, write_quorum=1) as cluster:
        client = Client(cluster.node)
        await client.post("/admin/partition", {"follower": F1, "cut": True})
        await client.post("/admin/lag", {"min_delay_ms": 5, "max_delay_ms": 9, "follower": F2})
        await trio.sleep(10)
        seen = await scrape(cluster.node)
        for url, expected in ((F1, "cut"), (F2, "live")):
            states = {
                state.value: seen.get("trikv_link_state", follower=url, state=state)
                for state in LinkState
            }
            assert states == {**dict.fromkeys(states, 0.0), expected: 1.0}
        assert seen.get("trikv_link_downs_total", follower=F1) == 1
        assert seen.get("trikv_link_downs_total", follower=F2) == 0
        assert seen.get("trikv_link_lag_seconds", follower=F1) == pytest.approx(10, abs=1)
        assert seen.get("trikv_simulated_lag_seconds", follower=F2, bound="min") == 0.005
        assert seen.get("trikv_simulated_lag_seconds", follower=F2, bound="max") == 0.009
        assert seen.get("trikv_link_info", follower=F1, node_id="follower1") == 1
        assert (seen["trikv_live_links"], seen["trikv_followers"]) == (1, 2)


async def test_the_watermarks_tell_how_far_each_is(autojump_clock: MockClock) -> None:
    async with open_cluster(2, write_quorum=1) as cluster:
        await Client(cluster.node).post("/admin/partition", {"follower": F1, "cut": True})
        await put(cluster.node, "a", 1)
        await trio.sleep(30)
        await put(cluster.node, "a", 2)
        await cluster.settled_but(F1)
        seen = await scrape(cluster.node)
        lag_s = seen.get("trikv_link_watermark_lag_seconds", follower=F1)
        assert lag_s == pytest.approx(30, abs=2)
        assert seen.get("trikv_link_watermark_lag_seconds", follower=F2) == 0
        behind = (await scrape(cluster.followers[F1]))["trikv_watermark_timestamp_seconds"]
        ahead = (await scrape(cluster.followers[F2]))["trikv_watermark_timestamp_seconds"]
        own = seen["trikv_watermark_timestamp_seconds"]
        assert own == pytest.approx(ahead, abs=0.001)
        assert own - behind == pytest.approx(30, abs=2)


async def test_a_follower_tells_what_it_took(autojump_clock: MockClock) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        follower = cluster.followers[F1]
        before = await scrape(follower)
        for number in range(3):
            await put(cluster.node, f"k{number}", number)
        await trio.sleep(5)
        seen = await scrape(follower)
        took = seen["trikv_merged_records_total"] - before["trikv_merged_records_total"]
        assert took == 3
        assert seen["trikv_heartbeats_total"] - before["trikv_heartbeats_total"] >= 4
        assert 0 <= seen["trikv_leader_heard_age_seconds"] <= 1.1
        assert seen["trikv_leads"] == 0
        assert seen["trikv_ready"] == 1


async def test_a_record_in_the_plain_form_is_counted_too(autojump_clock: MockClock) -> None:
    async with open_client("follower") as client:
        given = await client.post("/replicate", {"key": "a", "value": 1, "timestamp": 1})
        assert given.status == 200
        seen = await scrape(client.node)
        assert (seen["trikv_merged_records_total"], seen["trikv_merged_batches_total"]) == (1, 1)


async def test_what_travels_together_is_told_by_its_size(autojump_clock: MockClock) -> None:
    """Ten writes at once: one transaction; and while one request is on its way, the rest in the next."""

    async def slow(base: str, target: str, body: bytes | None) -> None:
        if target == "/replicate":
            await trio.sleep(0.2)

    network = MemoryNetwork()
    async with open_cluster(1, network=network, write_quorum=1) as cluster:
        network.before = slow
        await cluster.settled()
        before = await scrape(cluster.node)
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(put, cluster.node, f"k{number}", "x" * 100)
        await trio.sleep(10)
        after = await scrape(cluster.node)

        def grown(name: str, **labels: str) -> float:
            one, other = (seen.get(name, **labels) for seen in (before, after))
            assert one is not None
            assert other is not None
            return other - one

        changes = grown("trikv_group_commit_changes_sum")
        groups = grown("trikv_group_commit_changes_count")
        assert 10 <= changes <= 20  # the floor is written down, too
        assert groups < changes
        assert grown("trikv_group_commit_seconds_count") == groups
        assert grown("trikv_link_batch_records_sum", follower=F1) == 10
        batches = grown("trikv_link_batch_records_count", follower=F1)
        assert 1 <= batches <= 3
        assert grown("trikv_link_batch_bytes_sum", follower=F1) > 10 * 100
        assert grown("trikv_link_batch_bytes_count", follower=F1) == batches
        requests = grown("trikv_link_request_seconds_count", follower=F1)
        assert requests > batches  # heartbeats
        assert requests <= grown("trikv_link_requests_total", follower=F1) <= requests + 1
        took_s = grown("trikv_link_request_seconds_sum", follower=F1)
        assert took_s == pytest.approx(0.2 * requests, rel=0.1)


async def test_a_pending_quorum_is_told_until_it_is_in_force(autojump_clock: MockClock) -> None:
    async with open_cluster(2, write_quorum=1, write_timeout_s=1.0) as cluster:
        client = Client(cluster.node)
        await client.post("/admin/partition", {"follower": F1, "cut": True})
        await client.post("/admin/partition", {"follower": F2, "cut": True})
        await client.post("/admin/quorum", {"write_quorum": 0, "force": True})
        await client.post("/admin/quorum", {"write_quorum": 2})
        seen = await scrape(cluster.node)
        assert (seen["trikv_write_quorum"], seen["trikv_pending_write_quorum"]) == (0, 2)
        assert seen["trikv_configuration_settled"] == 0


async def test_a_node_that_does_not_lead_yet_tells_nothing_of_links(
    autojump_clock: MockClock,
) -> None:
    config = Config(node_id="early", follower_urls=("http://nobody",))
    async with open_memory_node(config, MemoryNetwork(), "http://early", leads=False) as node:
        seen = await scrape(node)
        assert (seen["trikv_leads"], seen["trikv_ready"]) == (0, 0)
        assert not any(name.startswith(("trikv_link", "trikv_write")) for name in seen.names())


async def test_a_leader_that_was_deposed_does_not_lead(autojump_clock: MockClock) -> None:
    async with open_cluster(1) as cluster:
        cluster.leader.superseded("another leads")
        seen = await scrape(cluster.node)
        assert (seen["trikv_leads"], seen["trikv_ready"]) == (0, 0)
        assert seen.get("trikv_link_state", follower=F1, state="down") == 1


async def test_a_disk_that_refuses_is_counted(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_client("leader") as client:

        def full(records: object) -> None:
            raise OSError("no space left on device")

        monkeypatch.setattr(client.node.store, "merge", full)
        assert (await client.put("a", 1)).status == 507
        seen = await scrape(client.node)
        assert seen["trikv_commit_failures_total"] == 1
        assert seen.get("trikv_writes_total", outcome="storage_failed") == 1
        assert seen.get("trikv_http_problems_total", code="storage_failed") == 1


# -- what is told is bounded ------------------------------------------------------------------------


async def test_keys_paths_and_methods_make_no_series(autojump_clock: MockClock) -> None:
    async def ask_much(client: Client, name: str) -> None:
        for method, target in (
            ("PUT", f"/kv/{name}"),
            ("GET", f"/kv/{name}"),
            ("HEAD", f"/kv/{name}"),
            ("GET", f"/kv?prefix={name}"),
            ("GET", f"/{name}"),
            ("POST", f"/kv/{name}"),
            (name.upper(), "/kv/a"),
            (name.upper(), f"/{name}"),
            ("GET", f"/health?{name}=1"),
        ):
            await client.ask(method, target, b'{"value": 1}')

    async with open_cluster(1) as cluster:
        client = Client(cluster.node)
        await ask_much(client, "first")
        before = set((await scrape(cluster.node)).samples)
        for number in range(5):
            await ask_much(client, f"n{number}")
        assert set((await scrape(cluster.node)).samples) == before
        seen = await scrape(cluster.node)
        routes = {dict(labels)["route"] for labels in seen.of("trikv_http_requests_total")}
        assert routes <= {route.path for route in ROUTES} | {"other"}
        assert {dict(labels)["method"] for labels in seen.of("trikv_http_requests_total")} == {
            *("GET", "PUT", "other")
        }


async def test_a_follower_under_another_name_is_no_new_series(autojump_clock: MockClock) -> None:
    async with open_cluster(1) as cluster:
        await put(cluster.node, "a", 1)
        before = {key for key in (await scrape(cluster.node)).samples if "_info" not in key[0]}
        cluster.leader.links[0].node_id = "renamed"
        after = {key for key in (await scrape(cluster.node)).samples if "_info" not in key[0]}
        assert after == before


async def test_others_get_their_turn_during_a_scrape(autojump_clock: MockClock) -> None:
    async with open_cluster(2) as cluster:
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_turns)
            await trio.lowlevel.checkpoint()
            before = turns
            families = (await scrape(cluster.node)).families
            assert turns - before >= len(families)
            nursery.cancel_scope.cancel()


# -- requests in both lanes -------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False])
def test_requests_are_counted_in_either_lane(fast: bool) -> None:
    async def main() -> None:
        async with open_lane(LEADER, fast=fast) as (node, port, _):
            said = [ask("PUT", "/kv/a", value(1)), ask("GET", "/kv/a"), ask("GET", "/kv/b")]
            await answered(port, [*said, ask("GET", "/kv/c"), ask("PUT", "/kv/a", b"{")])
            seen = await scrape(node)
            routes: Mapping[Any, float] = {
                (dict(labels)["method"], dict(labels)["status"]): count
                for labels, count in seen.of("trikv_http_requests_total").items()
            }
            assert routes == {
                ("PUT", "2xx"): 1,
                ("GET", "2xx"): 1,
                ("GET", "4xx"): 2,
                ("PUT", "4xx"): 1,
            }
            count = seen.get("trikv_http_request_seconds_count", method="GET", route="/kv/{key}")
            assert count == 3
            assert seen.get("trikv_http_problems_total", code="not_found") == 2
            assert seen.get("trikv_http_problems_total", code="malformed_json") == 1
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(ask("GET", "/kv/a"))
                await stream.receive_some()
                lanes = (await scrape(node)).of("trikv_http_connections")
                used = "fast" if fast else "hypercorn"
                assert {labels[0][1]: n for labels, n in lanes.items() if n} == {used: 1}

    run(main)


def test_the_loops_delay_is_measured_where_a_node_is_served() -> None:
    async def main() -> None:
        async with open_lane(LEADER, measure_delay=True) as (node, _, _):
            await trio.sleep(10)
            assert (await scrape(node))["trikv_event_loop_delay_seconds_count"] >= 30

    run(main)
