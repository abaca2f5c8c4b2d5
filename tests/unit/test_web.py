"""The HTTP interface as clients meet it, through the real app.

What is refused, and how, is in `test_web_bad_input`; how writes travel is in `tests/simulation`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any

import apsw
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import Cluster, open_cluster, until
from tests.unit.inprocess import Client, NoAnswer, open_client
from trikv import __version__
from trikv.model.record import Entry, Record, entries_of
from trikv.model.version import Epoch, Version
from trikv.node.node import SCAN_RECORDS, Node
from trikv.observe import compare
from trikv.storage.store import Store
from trikv.web import admin


class Clients:
    """A cluster in this process, and what asks its nodes."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.network = cluster.network
        self.leader = Client(cluster.node)
        self.followers = [Client(node) for node in cluster.followers.values()]

    def take_down(self, *indexes: int) -> None:
        """These followers answer nobody from now on."""
        for index in indexes:
            del self.network.nodes[self.cluster.urls[index]]

    async def all_hold(self, expected: Any) -> None:
        """Once all is quiet, every node holds that map."""
        await self.cluster.settled()
        for client in (self.leader, *self.followers):
            assert await client.get("/dump") == expected


@asynccontextmanager
async def clients(followers: int = 5, **settings: Any) -> AsyncIterator[Clients]:
    async with open_cluster(followers, **settings) as cluster:
        yield Clients(cluster)


# -- keys and values ------------------------------------------------------------------------------------


async def test_a_write_is_answered_with_its_version_and_its_acknowledgements(
    autojump_clock: MockClock,
) -> None:
    async with clients(write_quorum=5) as c:
        answer = await c.leader.put("greeting", "hello")
        told = answer.json()
        version = Version.parse(told.pop("version"))
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["etag"] == f'"{version}"'
        assert told == {
            "key": "greeting",
            "value": "hello",
            "follower_acks": 5,
            "quorum_met": True,
        }
        for client in (c.leader, *c.followers):
            read = await client.ask("GET", "/kv/greeting")
            assert read.headers["etag"] == f'"{version}"'
            assert read.json() == {"key": "greeting", "value": "hello", "version": str(version)}


async def test_a_later_write_has_a_greater_version_and_replaces_the_earlier(
    autojump_clock: MockClock,
) -> None:
    async with clients() as c:
        versions = []
        for value in (3, 2, 1):
            versions.append(Version.parse((await c.leader.put("k", value)).json()["version"]))
        assert versions == sorted(set(versions))
        await c.all_hold({"k": 1})


VALUES = [
    None,
    True,
    False,
    0,
    -1,
    2**53 + 1,
    10**100,
    1.0,
    -0.0,
    1e308,
    5e-324,
    0.1,
    "",
    "plain",
    'quotes " and \\ and /',
    "\0\x01\n\r\t\x7f",
    "é e\u0301 😀 \u2028 \ufeff \uffff",
    "</script>",
    [],
    {},
    [[], {}, [None]],
    {"": 1, "a": {"b": [1, "2", None]}, "\0": 0},
    {"deleted": True, "value": None},
    "x" * 100_000,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:30])
async def test_any_json_value_comes_back_from_every_node(
    autojump_clock: MockClock, value: Any
) -> None:
    async with clients(1) as c:
        written = await c.leader.put("k", value)
        assert repr(written.json()["value"]) == repr(value)
        for client in (c.leader, c.followers[0]):
            assert repr((await client.get("/kv/k"))["value"]) == repr(value)
            assert repr(await client.get("/dump")) == repr({"k": value})


async def test_nodes_answer_byte_for_byte_the_same(autojump_clock: MockClock) -> None:
    async with clients(1) as c:
        sent = b'{"value": {"b": 1.50, "a": ["\\u00e9", 1E2]} }'
        await c.leader.ask("PUT", "/kv/k", sent)
        expected = '"value":{"b":1.5,"a":["é",100.0]}'.encode()
        for client in (c.leader, c.followers[0]):
            assert expected in (await client.ask("GET", "/kv/k")).body


async def test_a_key_that_is_not_there_is_not_found(autojump_clock: MockClock) -> None:
    async with open_client("leader") as client:
        answer = await client.ask("GET", "/kv/a%2Fb")
        assert answer.status == 404
        told = answer.json()
        assert (told["code"], told["key"]) == ("not_found", "a/b")


async def test_a_deleted_key_is_not_found_and_not_dumped(autojump_clock: MockClock) -> None:
    with closing(Store.open(None)) as store:
        with store.transaction():
            store.merge([Entry(Version(Epoch(1, "a"), 1), [("gone", "")])])
            store.merge([Entry(Version(Epoch(1, "a"), 2), [("there", "1")])])
        async with open_client("follower", store=store) as client:
            assert (await client.ask("GET", "/kv/gone")).json()["code"] == "not_found"
            assert await client.get("/dump") == {"there": 1}


async def test_a_dump_of_many_pages_is_one_json_object(autojump_clock: MockClock) -> None:
    version = Version(Epoch(1, "a"), 1)
    count = 2 * SCAN_RECORDS + 7
    store = Store.open(None)
    with store.transaction():
        store.merge([Entry(version, [(f"k{i:05}", str(i)) for i in range(count)])])
        # A whole page of what a dump does not show.
        store.merge([Entry(version, [(f"a{i:05}", "") for i in range(SCAN_RECORDS)])])
    async with open_client("follower", store=store) as client:
        assert await client.get("/dump") == {f"k{i:05}": i for i in range(count)}


async def test_an_empty_map_is_an_empty_object(autojump_clock: MockClock) -> None:
    async with open_client("follower") as client:
        assert (await client.ask("GET", "/dump")).body == b"{}"


async def test_a_trace_tells_the_commit_and_every_followers_lag_and_acknowledgement(
    autojump_clock: MockClock,
) -> None:
    async with clients(write_quorum=3) as c:
        lag = {"min_delay_ms": 100, "max_delay_ms": 100}
        for follower in c.cluster.urls[:3]:
            assert (await c.leader.post("/admin/lag", {**lag, "follower": follower})).status == 200
        trace = (await c.leader.put("k", 1, "?trace=true")).json()["trace"]
        assert trace["commit_ms"] == 0
        assert trace["quorum_ms"] == pytest.approx(100)
        assert [step["url"] for step in trace["followers"]] == c.cluster.urls
        assert [step["node_id"] for step in trace["followers"]] == [
            f"follower{i}" for i in range(1, 6)
        ]
        assert [step["lag_ms"] for step in trace["followers"]] == [100, 100, 100, 0, 0]
        assert [step["ack_ms"] for step in trace["followers"][3:]] == [0, 0]
        assert 100 in [step["ack_ms"] for step in trace["followers"][:3]]


@pytest.mark.parametrize("query", ["", "?trace=false"])
async def test_there_is_no_trace_unless_it_is_asked_for(
    autojump_clock: MockClock, query: str
) -> None:
    async with open_client("leader") as client:
        assert "trace" not in (await client.put("k", 1, query)).json()


# -- writes that are not confirmed ----------------------------------------------------------------------


async def test_too_few_followers_is_refused_at_once_and_nothing_is_written(
    autojump_clock: MockClock,
) -> None:
    async with clients(write_quorum=3) as c:
        c.take_down(0, 1, 2)
        await until(lambda: c.cluster.leader.live_links == 2)
        began = trio.current_time()
        answer = await c.leader.put("k", 1)
        assert trio.current_time() == began
        told = answer.json()
        assert (answer.status, told["code"]) == (503, "not_enough_followers")
        assert answer.headers["content-type"] == "application/problem+json"
        assert (told["live_links"], told["required"]) == (2, 3)
        assert (await c.leader.ask("GET", "/kv/k")).status == 404


async def test_followers_that_fail_meanwhile_are_quorum_not_met_at_once_and_the_write_stays(
    autojump_clock: MockClock,
) -> None:
    async with clients(write_quorum=3) as c:
        await trio.sleep(0.3)  # between two heartbeats
        c.take_down(0, 1, 2)  # the leader has not noticed yet
        began = trio.current_time()
        answer = await c.leader.put("k", 1)
        assert trio.current_time() == began
        told = answer.json()
        assert (answer.status, told["code"]) == (503, "quorum_not_met")
        assert told["required"] == 3
        assert told["follower_acks"] <= 2
        assert (await c.leader.get("/kv/k"))["version"] == told["version"]


async def test_a_client_that_disconnects_has_written_all_the_same(
    autojump_clock: MockClock,
) -> None:
    async with clients(write_quorum=3) as c:
        await c.leader.post("/admin/lag", {"min_delay_ms": 500, "max_delay_ms": 500})
        leave = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leaves_without_an_answer, c.leader, leave)
            await trio.sleep(0.1)
            leave.set()
        assert [await client.get("/dump") for client in c.followers] == [{}] * 5
        await c.all_hold({"k": "v"})
        assert (await c.leader.get("/health"))["inflight_writes"] == 0


async def leaves_without_an_answer(client: Client, leave: trio.Event) -> None:
    with pytest.raises(NoAnswer):
        await client.ask("PUT", "/kv/k", b'{"value": "v"}', leave=leave)


async def test_one_write_too_many_is_told_when_to_come_back(autojump_clock: MockClock) -> None:
    async with clients(max_inflight_writes=1) as c:
        await c.leader.post("/admin/lag", {"min_delay_ms": 500, "max_delay_ms": 500})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(c.leader.put, "k", 1)
            await trio.sleep(0.1)
            answer = await c.leader.put("other", 1)
        told = answer.json()
        assert (answer.status, told["code"]) == (503, "overloaded")
        assert answer.headers["retry-after"] == str(told["retry_after_s"]) == "1"
        assert (await c.leader.put("other", 2)).status == 200
        await c.all_hold({"k": 1, "other": 2})


async def test_a_stopping_leader_takes_no_more_writes(autojump_clock: MockClock) -> None:
    async with open_client("leader") as client:
        client.node.require_leader().stop()
        answer = await client.put("k", 1)
        assert (answer.status, answer.json()["code"]) == (503, "not_ready")
        assert await client.get("/dump") == {}


class FullDisk(Store):
    """A store that cannot commit while it is `full`."""

    full = False

    def __init__(self) -> None:
        super().__init__(None, "fsync")

    @contextmanager
    def transaction(self, *, synced: bool = False) -> Iterator[None]:
        with super().transaction(synced=synced):
            yield
            if self.full:
                raise apsw.FullError("database or disk is full")


async def test_a_leader_that_cannot_commit_says_storage_failed(autojump_clock: MockClock) -> None:
    store = FullDisk()
    async with open_client("leader", store=store) as client:
        await client.put("k", "before")
        store.full = True
        answer = await client.put("k", "lost")
        told = answer.json()
        assert (answer.status, told["code"]) == (507, "storage_failed")
        assert "full" in told["detail"]
        store.full = False
        assert await client.get("/dump") == {"k": "before"}
        assert (await client.put("k", "after")).status == 200


async def test_a_follower_that_cannot_commit_does_not_acknowledge(
    autojump_clock: MockClock,
) -> None:
    store = FullDisk()
    async with open_client("follower", store=store) as client:
        store.full = True
        body = {
            "leader": {"node_id": "boss"},
            "epoch": "1.a",
            "records": [{"key": "k", "version": "1.a-1", "value": 1}],
        }
        answer = await client.post("/replicate", body)
        assert (answer.status, answer.json()["code"]) == (507, "storage_failed")
        store.full = False
        assert await client.get("/dump") == {}
        assert (await client.get("/health"))["epoch"] == "0.0"


async def test_a_bug_is_answered_with_500_and_logged_and_the_node_goes_on(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_client("leader") as client:
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "trikv"):
            patch.setattr(client.node.store, "get", lambda key: 1 / 0)
            answer = await client.ask("GET", "/kv/k")
        assert (answer.status, answer.json()["code"]) == (500, "internal_error")
        assert answer.headers["content-type"] == "application/problem+json"
        (logged,) = caplog.records
        assert logged.exc_info is not None
        assert isinstance(logged.exc_info[1], ZeroDivisionError)
        assert (await client.put("k", 1)).status == 200


# -- records from a leader ------------------------------------------------------------------------------


async def test_a_plain_record_is_stored_and_answered_as_in_the_lab(
    autojump_clock: MockClock,
) -> None:
    async with open_client("follower") as client:
        answer = await client.post("/replicate", {"key": "k", "value": "v", "timestamp": 1.5})
        assert (answer.status, answer.json()) == (200, {"status": "ok"})
        told = await client.get("/kv/k")
        assert told == {"key": "k", "value": "v", "version": "0.plain-1500000"}


async def test_of_two_plain_records_the_later_wins_whatever_the_order(
    autojump_clock: MockClock,
) -> None:
    early, late = (
        {"key": "k", "value": value, "timestamp": t} for value, t in (("early", 1), ("late", 2))
    )
    for order in ([early, late], [late, early]):
        async with open_client("follower") as client:
            for body in order:
                assert (await client.post("/replicate", body)).status == 200
            assert await client.get("/dump") == {"k": "late"}


async def test_two_plain_records_of_one_instant_end_the_same_everywhere(
    autojump_clock: MockClock,
) -> None:
    one, other = ({"key": "k", "value": value, "timestamp": 1} for value in ("one", "other"))
    held = []
    for order in ([one, other], [other, one]):
        async with open_client("follower") as client:
            for body in order:
                await client.post("/replicate", body)
            held.append(await client.get("/dump"))
    assert held[0] == held[1]


def batch(epoch: str, *records: tuple[str, int, Any]) -> dict[str, Any]:
    """A leader's batch with records of that epoch."""
    return {
        "leader": {"node_id": "boss", "url": "http://boss:8000"},
        "epoch": epoch,
        "records": [
            {"key": key, "version": f"{epoch}-{timestamp_us}", "value": value}
            for key, timestamp_us, value in records
        ],
    }


async def test_a_batch_is_acknowledged_by_name_and_epoch(autojump_clock: MockClock) -> None:
    async with open_client("follower", node_id="f7") as client:
        answer = await client.post("/replicate", batch("3.a", ("x", 1, 1), ("y", 1, 2)))
        assert answer.status == 200
        assert answer.json() == {"status": "ok", "node_id": "f7", "epoch": "3.a"}
        assert await client.get("/dump") == {"x": 1, "y": 2}


async def test_a_batch_may_come_again_and_late(autojump_clock: MockClock) -> None:
    async with open_client("follower") as client:
        early, late = batch("3.a", ("k", 1, "early")), batch("3.a", ("k", 2, "late"))
        for body in (late, early, late, early):
            assert (await client.post("/replicate", body)).status == 200
            assert await client.get("/dump") == {"k": "late"}


async def test_a_tombstone_in_a_batch_deletes(autojump_clock: MockClock) -> None:
    async with open_client("follower") as client:
        await client.post("/replicate", batch("3.a", ("k", 1, 1)))
        body = batch("3.a")
        body["records"] = [{"key": "k", "version": "3.a-2", "deleted": True}]
        assert (await client.post("/replicate", body)).status == 200
        assert await client.get("/dump") == {}


async def test_a_higher_epoch_is_promised_and_kept_through_a_restart(
    autojump_clock: MockClock, tmp_path: Any
) -> None:
    async with open_client("follower", store=Store.open(tmp_path)) as client:
        assert (await client.post("/replicate", batch("3.a"))).status == 200
        assert (await client.post("/replicate", batch("5.a"))).status == 200
    async with open_client("follower", store=Store.open(tmp_path)) as client:
        assert (await client.get("/health"))["epoch"] == "5.a"
        refused = await client.post("/replicate", batch("4.z", ("k", 1, 1)))
        assert (refused.status, refused.json()["promised"]) == (409, "5.a")
        assert await client.get("/dump") == {}


# -- comparing replicas ---------------------------------------------------------------------------------


async def test_pages_of_records_go_on_without_a_gap(autojump_clock: MockClock) -> None:
    records = [("a", 1, 1), ("b", 2, 2), ("c", 2, 3), ("d", 3, None)]
    async with open_client("follower") as client:
        await client.post("/replicate", batch("3.a", *records))
        pages: list[list[str]] = []
        following = ""
        while not pages or pages[-1]:
            page = await client.get(f"/replica/records?limit=1{following}")
            pages.append([record["key"] for record in page["records"]])
            following = f"&after={page['next']}"
        assert page["next"] is None
        assert pages == [["a"], ["b", "c"], ["d"], []]
        everything = await client.get("/replica/records")
        assert everything["records"][3] == {"key": "d", "version": "3.a-3", "value": None}


async def test_a_replicas_digest_is_the_same_where_the_map_is(autojump_clock: MockClock) -> None:
    async with clients(2, write_quorum=2) as c:
        empty = await c.leader.get("/replica")
        await c.leader.put("k", 1)
        own = await c.leader.get("/replica")
        others = [await client.get("/replica") for client in c.followers]
        assert own["digest"] != empty["digest"]
        assert {(told["digest"], told["records"]) for told in (own, *others)} == {
            (own["digest"], 1)
        }
        assert {told["promised"] for told in (own, *others)} == {own["promised"]}


async def test_replica_status_tells_match_mismatch_and_unreachable(
    autojump_clock: MockClock,
) -> None:
    async with clients(3, write_quorum=3) as c:
        await c.leader.put("same", 1)
        await c.leader.put("other", 1)
        c.take_down(2)
        await until(lambda: c.cluster.leader.live_links == 2)
        # One follower has lost a key, has another one more, and holds a third in another version.
        store = c.followers[1].node.store
        store._writer.execute("DELETE FROM records WHERE key = 'same'")
        with store.transaction():
            epoch = c.cluster.leader.epoch
            store.merge([Entry(Version(epoch, 1), [("more", "1")])])
            store.merge([Entry(Version(epoch, 2**53 - 1), [("other", "2")])])
        told = await c.leader.get("/admin/replica-status")
        match, mismatch, unreachable = told["followers"]
        assert told["leader"]["data"] == {"same": 1, "other": 1}
        assert told["leader"]["records"] == 2
        assert (match["status"], match["node_id"], match["link"]) == ("match", "follower1", "live")
        assert match["data"] == told["leader"]["data"]
        assert match["digest"] == told["leader"]["digest"]
        assert (match["differing_keys"], match["differing_keys_total"]) == ([], 0)
        assert mismatch["status"] == "mismatch"
        assert mismatch["differing_keys"] == ["more", "other", "same"]
        assert mismatch["data"] == {"more": 1, "other": 2}
        assert (unreachable["status"], unreachable["link"]) == ("unreachable", "down")
        assert (unreachable["data"], unreachable["digest"]) == (None, None)
        assert "follower3" in unreachable["error"]


async def test_a_value_that_differs_under_one_version_is_a_mismatch(
    autojump_clock: MockClock,
) -> None:
    async with clients(1, write_quorum=1) as c:
        await c.leader.put("k", 1)
        c.followers[0].node.store._writer.execute("UPDATE records SET value = '2'")
        (told,) = (await c.leader.get("/admin/replica-status"))["followers"]
        assert (told["status"], told["differing_keys"]) == ("mismatch", ["k"])


async def test_large_maps_are_compared_by_digest_and_shown_on_request(
    autojump_clock: MockClock,
) -> None:
    async with clients(1, write_quorum=1) as c:
        epoch = c.cluster.leader.epoch
        many = [Record(f"k{i}", str(i), Version(epoch, i)) for i in range(1, 1002)]
        for client in (c.leader, c.followers[0]):
            with client.node.store.transaction():
                client.node.store.merge(entries_of(many))
        told = await c.leader.get("/admin/replica-status")
        assert told["leader"]["data"] is None
        assert (told["followers"][0]["data"], told["followers"][0]["status"]) == (None, "match")
        shown = await c.leader.get("/admin/replica-status?data=true")
        assert shown["leader"]["data"] == {f"k{i}": i for i in range(1, 1002)}
        assert shown["followers"][0]["data"] == shown["leader"]["data"]


async def test_what_is_shown_is_bounded_in_bytes_and_the_rest_is_counted(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "SHOWN_BYTES", 2 * 10_000)
    monkeypatch.setattr(compare, "SHOWN_UNASKED_BYTES", 5_000)
    monkeypatch.setattr(admin, "SHOWN_UNASKED_BYTES", 5_000)
    async with clients(1, write_quorum=1) as c:
        for index in range(20):
            await c.leader.put(f"k{index:02}", "x" * 996)  # 1,001 bytes with the key and the quotes
        told = await c.leader.get("/admin/replica-status")
        for replica in (told["leader"], *told["followers"]):
            assert (replica["data"], replica["data_left_out"]) == (None, 0)
        shown = await c.leader.get("/admin/replica-status?data=true")
        for replica in (shown["leader"], *shown["followers"]):
            assert set(replica["data"]) == {f"k{index:02}" for index in range(9)}
            assert replica["data_left_out"] == 11
        assert (await c.leader.get("/replica"))["size_bytes"] == 20 * 1001
        c.followers[0].node.store._writer.execute("DELETE FROM records WHERE key = 'k15'")
        (other,) = (await c.leader.get("/admin/replica-status?data=true"))["followers"]
        assert other["differing_keys"] == ["k15"], "it is compared beyond what is shown"
        assert other["data_left_out"] == 10


async def test_many_who_ask_at_the_same_time_cost_one_comparison(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with clients(2, write_quorum=2) as c:
        await c.leader.put("k", 1)
        pages: list[Node] = []

        async def pages_by_key(self: Node) -> AsyncGenerator[Sequence[Record]]:
            pages.append(self)
            await trio.sleep(1)
            yield self.store.page_by_key("", 1000, 1000)

        monkeypatch.setattr(Node, "pages_by_key", pages_by_key)
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await c.leader.get("/admin/replica-status"))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask)
        assert len(answers) == 50
        assert {answer["leader"]["data"]["k"] for answer in answers} == {1}
        assert len(pages) == 1


# -- health, quorum, lag --------------------------------------------------------------------------------


async def test_health_tells_what_a_leader_is_and_has(autojump_clock: MockClock) -> None:
    async with clients(2, write_quorum=2) as c:
        told = await c.leader.get("/health")
        followers = told["lag"].pop("followers")
        assert told == {
            "status": "ok",
            "role": "leader",
            "node_id": "leader",
            "url": "http://leader",
            "ready": True,
            "waiting_for": [],
            "software_version": __version__,
            "cluster": c.cluster.node.store.state.cluster,
            "epoch": str(c.cluster.leader.epoch),
            "leads": True,
            "write_quorum": 2,
            "pending_write_quorum": None,
            "settled": True,
            "environment_write_quorum": 2,
            "followers": 2,
            "live_links": 2,
            "inflight_writes": 0,
            "lag": {"min_delay_ms": 0, "max_delay_ms": 0},
        }
        assert followers[0] == {
            "url": "http://follower1",
            "node_id": "follower1",
            "min_delay_ms": 0,
            "max_delay_ms": 0,
        }


async def test_health_tells_whom_a_follower_follows(autojump_clock: MockClock) -> None:
    async with clients(1) as c:
        told = await c.followers[0].get("/health")
        assert (told["role"], told["ready"]) == ("follower", True)
        assert told["leader"] == {"node_id": "leader", "url": "http://leader"}
        assert told["epoch"] == str(c.cluster.leader.epoch)


async def test_a_leader_with_too_few_live_links_is_alive_and_not_ready(
    autojump_clock: MockClock,
) -> None:
    async with clients(3, write_quorum=2) as c:
        assert (await c.leader.ask("GET", "/health?ready=true")).status == 200
        c.take_down(0, 1)
        await until(lambda: c.cluster.leader.live_links == 1)
        alive = await c.leader.ask("GET", "/health")
        assert (alive.status, alive.json()["ready"]) == (200, False)
        assert (await c.leader.ask("GET", "/health?ready=false")).status == 200
        assert (await c.leader.ask("GET", "/health?ready=true")).status == 503
        answer = await c.leader.post("/admin/quorum", {"write_quorum": 1})
        assert answer.json()["code"] == "not_enough_followers"
        answer = await c.leader.post("/admin/quorum", {"write_quorum": 1, "force": True})
        assert "warning" in answer.json()
        assert (await c.leader.ask("GET", "/health?ready=true")).status == 200


async def test_a_quorum_holds_for_the_writes_that_begin_after_it(
    autojump_clock: MockClock,
) -> None:
    async with clients(write_quorum=3) as c:
        answer = await c.leader.post("/admin/quorum", {"write_quorum": 5})
        assert answer.json() == {"write_quorum": 5, "previous_write_quorum": 3}
        assert (await c.leader.put("k", 1)).json()["follower_acks"] == 5
        answer = await c.leader.post("/admin/quorum", {"write_quorum": 0})
        assert answer.json() == {"write_quorum": 0, "previous_write_quorum": 5}
        assert (await c.leader.put("k", 2)).json()["quorum_met"] is True
        assert (await c.leader.get("/health"))["write_quorum"] == 0


@pytest.mark.parametrize("name", ["follower2", "http://follower2"])
async def test_one_followers_lag_is_changed_by_its_id_or_its_url(
    autojump_clock: MockClock, name: str
) -> None:
    async with clients(2, write_quorum=2) as c:
        lag = {"min_delay_ms": 300, "max_delay_ms": 300}
        told = (await c.leader.post("/admin/lag", {**lag, "follower": name})).json()
        assert [f["max_delay_ms"] for f in told["followers"]] == [0, 300]
        assert (told["min_delay_ms"], told["max_delay_ms"]) == (0, 0)
        began = trio.current_time()
        await c.leader.put("k", 1)
        assert trio.current_time() - began == pytest.approx(0.3)


async def test_a_lag_for_all_is_told_in_health(autojump_clock: MockClock) -> None:
    async with clients(2, write_quorum=2) as c:
        lag = {"min_delay_ms": 100.5, "max_delay_ms": 100.5}
        told = (await c.leader.post("/admin/lag", lag)).json()
        assert told == (await c.leader.get("/health"))["lag"]
        assert all(lag.items() <= follower.items() for follower in told["followers"])
        assert lag.items() <= told.items()


async def test_requests_are_served_side_by_side_on_every_node(autojump_clock: MockClock) -> None:
    async with clients(write_quorum=5) as c:
        await c.leader.post("/admin/lag", {"min_delay_ms": 200, "max_delay_ms": 200})
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for i in range(20):
                nursery.start_soon(c.leader.put, f"k{i}", i)
            await wait_all_tasks_blocked()
            for client in (c.leader, *c.followers):
                assert (await client.get("/health"))["status"] == "ok"
            assert trio.current_time() == began
        assert trio.current_time() - began == pytest.approx(0.2)
        await c.all_hold({f"k{i}": i for i in range(20)})
