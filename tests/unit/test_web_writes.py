"""Deletes, preconditions, batches, lists, and reads that wait: through the real app."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support import until
from tests.unit.inprocess import Answered, Client, open_client
from tests.unit.test_web import clients
from trikv.network.simulated_lag import LagRange


async def put(client: Client, key: str, value: Any, **headers: str) -> Answered:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return await client.ask(
        "PUT", f"/kv/{key}", json.dumps({"value": value}).encode(), headers=named
    )


def batch(*operations: dict[str, Any]) -> dict[str, Any]:
    return {"operations": list(operations)}


# -- deletes --------------------------------------------------------------------------------------------


async def test_a_delete_is_a_write_that_reaches_every_node(autojump_clock: MockClock) -> None:
    async with clients(3, write_quorum=2) as c:
        await c.leader.put("k", 1)
        answer = await c.leader.ask("DELETE", "/kv/k?trace=true")
        told = answer.json()
        assert (answer.status, told["deleted"], told["quorum_met"]) == (200, True, True)
        assert told["follower_acks"] == 2
        assert answer.headers["etag"] == f'"{told["version"]}"'
        assert len(told["trace"]["followers"]) == 3
        assert (await c.leader.ask("GET", "/kv/k")).status == 404
        await c.all_hold({})


async def test_what_is_not_there_cannot_be_deleted(autojump_clock: MockClock) -> None:
    async with clients(1) as c:
        for _ in range(2):
            answer = await c.leader.ask("DELETE", "/kv/k")
            assert (answer.status, answer.json()["code"]) == (404, "not_found")
            await c.leader.put("k", 1)
            assert (await c.leader.ask("DELETE", "/kv/k")).status == 200


async def test_tombstones_are_purged_everywhere_once_all_have_them(
    autojump_clock: MockClock,
) -> None:
    async with clients(2, write_quorum=1) as c:
        await c.leader.put("k", 1)
        c.take_down(1)
        await until(lambda: c.cluster.leader.live_links == 1)
        await c.leader.ask("DELETE", "/kv/k")
        await trio.sleep(30)
        # One follower has not got it: it stays, or that one would keep the key for ever.
        assert [client.node.store.get("k") is None for client in (c.leader, c.followers[0])] == [
            False
        ] * 2
        url = c.cluster.urls[1]
        c.network.nodes[url] = c.cluster.followers[url]
        await c.cluster.all_live()
        await trio.sleep(30)
        for client in (c.leader, *c.followers):
            assert client.node.store.get("k") is None
            assert await client.get("/dump") == {}


# -- preconditions --------------------------------------------------------------------------------------


async def test_a_write_with_the_version_that_is_there_happens_and_with_another_does_not(
    autojump_clock: MockClock,
) -> None:
    async with clients(3) as c:
        first = (await put(c.leader, "k", 1)).headers["etag"]
        second = (await put(c.leader, "k", 2, If_Match=first)).headers["etag"]
        answer = await put(c.leader, "k", 3, If_Match=first)
        told = answer.json()
        assert (answer.status, told["code"]) == (412, "version_conflict")
        assert f'"{told["version"]}"' == second
        assert (await put(c.leader, "k", 4, If_Match=f"{first}, {second}")).status == 200
        await c.all_hold({"k": 4})


async def test_if_none_match_writes_only_what_is_not_there(autojump_clock: MockClock) -> None:
    async with clients(3) as c:
        assert (await put(c.leader, "k", 1, If_None_Match="*")).status == 200
        answer = await put(c.leader, "k", 2, If_None_Match="*")
        assert (answer.status, answer.json()["code"]) == (412, "version_conflict")
        await c.leader.ask("DELETE", "/kv/k")
        assert (await put(c.leader, "k", 3, If_None_Match="*")).status == 200


async def test_if_match_star_writes_only_what_is_there(autojump_clock: MockClock) -> None:
    async with clients(1) as c:
        answer = await put(c.leader, "k", 1, If_Match="*")
        assert (answer.status, answer.json()["version"]) == (412, None)
        await put(c.leader, "k", 1)
        assert (await put(c.leader, "k", 2, If_Match="*")).status == 200


async def test_of_ten_clients_that_write_on_one_version_one_succeeds(
    autojump_clock: MockClock,
) -> None:
    async with clients(3, lag=LagRange(0, 100)) as c:
        etag = (await put(c.leader, "k", 0)).headers["etag"]
        statuses: list[int] = []

        async def one(value: int) -> None:
            statuses.append((await put(c.leader, "k", value, If_Match=etag)).status)

        async with trio.open_nursery() as nursery:
            for value in range(10):
                nursery.start_soon(one, value)
        assert sorted(statuses) == [200] + [412] * 9


async def test_a_refusal_waits_until_what_it_tells_is_confirmed(autojump_clock: MockClock) -> None:
    async with clients(1, write_quorum=1, write_timeout_s=5) as c:
        await c.leader.post("/admin/lag", {"min_delay_ms": 1000, "max_delay_ms": 1000})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, c.leader, "k", 1)
            await trio.sleep(0.1)
            began = trio.current_time()
            answer = await put(c.leader, "k", 2, If_None_Match="*")
            assert answer.status == 412
            assert trio.current_time() - began == pytest.approx(0.9, abs=0.01)


async def test_a_refusal_that_cannot_be_confirmed_is_a_timeout(autojump_clock: MockClock) -> None:
    async with clients(1, write_quorum=1, write_timeout_s=3, request_timeout_s=60) as c:
        await c.leader.put("k", 1)

        async def swallow(url: str, target: str, body: bytes | None) -> None:
            await trio.sleep_forever()

        await trio.sleep(0.3)
        c.network.before = swallow
        answer = await put(c.leader, "k", 2, If_None_Match="*")
        assert (answer.status, answer.json()["code"]) == (504, "read_timeout")
        c.network.before = None
        assert (await c.leader.get("/kv/k"))["value"] == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"If_Match": "x"},
        {"If_Match": ""},
        {"If_Match": '"1.a"'},
        {"If_Match": 'W/"1.a"'},
        {"If_Match": 'w/"1.a-1"'},
        {"If_Match": '"1.a-1"', "If_None_Match": "*"},
        {"If_None_Match": '"1.a-1"'},
    ],
)
async def test_a_bad_precondition_is_refused_by_name(
    headers: dict[str, str], autojump_clock: MockClock
) -> None:
    async with open_client("leader") as client:
        answer = await put(client, "k", 1, **headers)
        told = answer.json()
        assert (answer.status, told["code"]) == (422, "invalid_parameter")
        assert told["field"] in ("If-Match", "If-None-Match")
        assert "expected" in told["detail"]
        assert await client.get("/dump") == {}


async def test_with_quorum_zero_a_refusal_is_the_leaders_own(autojump_clock: MockClock) -> None:
    async with clients(1, write_quorum=0) as c:
        await c.leader.put("k", 1)
        c.take_down(0)
        assert (await put(c.leader, "k", 2, If_None_Match="*")).status == 412


# -- batches --------------------------------------------------------------------------------------------


async def test_a_batch_is_done_whole_with_one_version(autojump_clock: MockClock) -> None:
    async with clients(3) as c:
        await c.leader.put("gone", 1)
        answer = await c.leader.post(
            "/batch",
            batch(
                {"op": "put", "key": "a", "value": None},
                {"op": "put", "key": "b", "value": {"x": [1]}, "if_version": None},
                {"op": "delete", "key": "gone"},
                {"op": "delete", "key": "never there"},
            ),
        )
        told = answer.json()
        assert (answer.status, told["operations"], told["follower_acks"]) == (200, 4, 3)
        await c.all_hold({"a": None, "b": {"x": [1]}})
        held = [
            (await client.get(f"/kv/{key}"))["version"] for client in c.followers for key in "ab"
        ]
        assert set(held) == {told["version"]}


async def test_a_batch_of_which_one_precondition_fails_does_nothing(
    autojump_clock: MockClock,
) -> None:
    async with clients(1) as c:
        version = (await c.leader.put("a", 1)).json()["version"]
        for wrong in (None, "1.x-5"):
            answer = await c.leader.post(
                "/batch",
                batch(
                    {"op": "put", "key": "new", "value": 1},
                    {"op": "put", "key": "a", "value": 2, "if_version": wrong},
                ),
            )
            told = answer.json()
            assert (answer.status, told["code"]) == (412, "version_conflict")
            assert (told["key"], told["version"]) == ("a", version)
            assert told["detail"].startswith("operations[1]: ")
        await c.all_hold({"a": 1})
        answer = await c.leader.post(
            "/batch", batch({"op": "delete", "key": "a", "if_version": version})
        )
        assert answer.status == 200


PUT = {"op": "put", "key": "k", "value": 1}


@pytest.mark.parametrize(
    ("content", "status", "field"),
    [
        ({}, 422, "operations"),
        (batch(), 422, "operations"),
        ({"operations": {}}, 422, "operations"),
        (batch(PUT, PUT), 422, "operations[1].key"),
        (batch({**PUT, "op": "post"}), 422, "operations[0].op"),
        (batch({"op": "put", "key": "k"}), 422, "operations[0].value"),
        (batch({**PUT, "op": "delete"}), 422, "operations[0].value"),
        (batch({**PUT, "key": ""}), 400, "operations[0].key"),
        (batch({**PUT, "key": "\0x"}), 400, "operations[0].key"),
        (batch({**PUT, "key": "é" * 257}), 400, "operations[0].key"),
        (batch({**PUT, "if_version": 3}), 422, "operations[0].if_version"),
        (batch({**PUT, "if_version": "3"}), 422, "operations[0].if_version"),
        (batch({**PUT, "if_versoin": None}), 422, "if_versoin"),
        (batch({**PUT, "value": "x" * 2**20}), 413, "operations[0].value"),
        ({"operations": [{**PUT, "key": str(i)} for i in range(1001)]}, 422, "operations"),
        (
            {"operations": [{**PUT, "key": str(i), "value": "x" * 10**6} for i in range(5)]},
            413,
            "operations",
        ),
    ],
)
async def test_a_bad_batch_is_refused_whole_and_the_field_named(
    content: Any, status: int, field: str, autojump_clock: MockClock
) -> None:
    async with open_client("leader") as client:
        answer = await client.post("/batch", content)
        assert (answer.status, answer.json()["field"]) == (status, field), answer.json()
        assert await client.get("/dump") == {}


async def test_a_batch_takes_no_precondition_headers(autojump_clock: MockClock) -> None:
    async with open_client("leader") as client:
        body = json.dumps(batch(PUT)).encode()
        answer = await client.ask("POST", "/batch", body, headers={"If-Match": '"1.a-1"'})
        assert (answer.status, answer.json()["field"]) == (422, "If-Match")
        assert await client.get("/dump") == {}


async def test_a_batch_of_a_thousand_is_one_parcel_and_one_page(autojump_clock: MockClock) -> None:
    async with clients(2, write_quorum=1) as c:
        c.take_down(1)
        operations = [{**PUT, "key": f"k{i}"} for i in range(1000)]
        assert (await c.leader.post("/batch", {"operations": operations})).status == 200
        url = c.cluster.urls[1]
        c.network.nodes[url] = c.cluster.followers[url]
        await c.cluster.all_live()
        assert len(await c.followers[1].get("/dump")) == 1000


# -- lists ----------------------------------------------------------------------------------------------


async def test_a_list_pages_through_the_keys_with_a_prefix(autojump_clock: MockClock) -> None:
    async with clients(1) as c:
        for key in ("b", "a/2", "a/10", "a/é", "a0", "A"):
            await c.leader.put(key.replace("é", "%C3%A9"), key)
        await c.leader.put("a/dead", 1)
        await c.leader.ask("DELETE", "/kv/a/dead")
        await c.cluster.settled()
        for client in (c.leader, *c.followers):
            found, after = [], ""
            while True:
                page = await client.get(f"/kv?prefix=a/&limit=2&after={after}")
                found += [item["key"] for item in page["items"]]
                assert len(page["items"]) <= 2
                if page["next"] is None:
                    break
                after = page["next"].replace("é", "%C3%A9")
            assert found == ["a/10", "a/2", "a/é"]
            everything = await client.get("/kv")
            assert [item["key"] for item in everything["items"]] == sorted(
                ["b", "a/2", "a/10", "a/é", "a0", "A"]
            )
            assert everything["next"] is None
            assert everything["items"][0].keys() == {"key", "value", "version"}


async def test_a_list_does_not_show_what_is_the_nodes_own(autojump_clock: MockClock) -> None:
    async with clients(1) as c:
        assert await c.leader.get("/kv") == {"items": [], "next": None}
        assert (await c.leader.ask("GET", "/kv/%00configuration")).status == 400


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        f"prefix={'x' * 513}",
        "min_version=1",
        "what=1",
        "timeout_ms=0",
    ],
)
async def test_a_bad_list_is_refused(query: str, autojump_clock: MockClock) -> None:
    async with open_client("leader") as client:
        answer = await client.ask("GET", f"/kv?{query}")
        assert (answer.status, answer.json()["field"]) == (422, query.partition("=")[0])


# -- reads ----------------------------------------------------------------------------------------------


async def test_a_client_reads_its_own_write_from_a_slow_follower(autojump_clock: MockClock) -> None:
    async with clients(2, write_quorum=1) as c:
        slow = {"min_delay_ms": 2000, "max_delay_ms": 2000, "follower": "follower2"}
        await c.leader.post("/admin/lag", slow)
        version = (await c.leader.put("k", 1)).json()["version"]
        assert (await c.followers[1].ask("GET", "/kv/k")).status == 404
        began = trio.current_time()
        assert (await c.followers[1].get(f"/kv/k?min_version={version}"))["value"] == 1
        assert 1.5 < trio.current_time() - began < 2.5
        # Another key: the watermark tells that there is nothing more to come.
        answer = await c.followers[1].ask("GET", f"/kv/other?min_version={version}")
        assert answer.status == 404
        assert (await c.followers[1].get(f"/kv?min_version={version}"))["items"]


async def test_a_version_that_does_not_come_is_a_timeout(autojump_clock: MockClock) -> None:
    async with clients(1) as c:
        for client in (c.leader, c.followers[0]):
            began = trio.current_time()
            answer = await client.ask("GET", "/kv/k?min_version=99.z-1&timeout_ms=700")
            assert (answer.status, answer.json()["code"]) == (504, "read_timeout")
            assert trio.current_time() - began == pytest.approx(0.7)


async def test_the_leader_has_what_it_wrote(autojump_clock: MockClock) -> None:
    async with clients(1) as c:
        version = (await c.leader.put("k", 1)).json()["version"]
        began = trio.current_time()
        assert (await c.leader.ask("GET", f"/kv/other?min_version={version}")).status == 404
        assert trio.current_time() == began


async def test_a_linearizable_read_waits_for_the_quorum_of_what_it_shows(
    autojump_clock: MockClock,
) -> None:
    async with clients(3, write_quorum=2) as c:
        for place in (1, 2, 3):
            lag = {"min_delay_ms": 100 * place, "max_delay_ms": 100 * place}
            await c.leader.post("/admin/lag", {**lag, "follower": f"follower{place}"})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(c.leader.put, "k", "new")
            await trio.sleep(0.05)
            assert (await c.leader.get("/kv/k"))["value"] == "new"  # not confirmed yet
            began = trio.current_time()
            assert (await c.leader.get("/kv/k?consistency=linearizable"))["value"] == "new"
            assert trio.current_time() - began == pytest.approx(0.15, abs=0.001)


async def test_a_linearizable_read_needs_a_quorum_that_still_follows(
    autojump_clock: MockClock,
) -> None:
    async with clients(3, write_quorum=2) as c:
        await c.leader.put("k", 1)
        await c.cluster.settled()
        assert (await c.leader.get("/kv/k?consistency=linearizable"))["value"] == 1
        assert (await c.leader.ask("GET", "/kv/none?consistency=linearizable")).status == 404
        c.take_down(0, 1)
        answer = await c.leader.ask("GET", "/kv/k?consistency=linearizable&timeout_ms=900")
        assert (answer.status, answer.json()["code"]) == (504, "read_timeout")
        assert (await c.leader.get("/kv/k"))["value"] == 1


async def test_linearizable_reads_at_the_same_time_share_heartbeats(
    autojump_clock: MockClock,
) -> None:
    async with clients(2, write_quorum=2) as c:
        await c.cluster.settled()
        await trio.sleep(0.3)
        before = len(c.network.seen)
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(c.leader.get, "/kv?limit=1")
                nursery.start_soon(c.leader.ask, "GET", "/kv/k?consistency=linearizable")
        assert len(c.network.seen) - before <= 4


async def test_a_node_that_is_alone_is_read_linearizably(autojump_clock: MockClock) -> None:
    async with clients(0) as c:
        assert (await c.leader.ask("GET", "/kv/k?consistency=linearizable")).status == 404
        version = (await c.leader.put("k", 1)).json()["version"]
        answer = await c.leader.ask("GET", "/kv/k?consistency=linearizable")
        assert (answer.status, answer.json()["version"]) == (200, version)
        refused = await put(c.leader, "k", 2, if_none_match="*")
        assert (refused.status, refused.json()["version"]) == (412, version)


async def test_what_a_linearizable_read_cannot_be(autojump_clock: MockClock) -> None:
    async with clients(1, write_quorum=0) as c:
        answer = await c.leader.ask("GET", "/kv/k?consistency=linearizable")
        assert (answer.status, answer.json()["field"]) == (422, "consistency")
        answer = await c.followers[0].ask("GET", "/kv/k?consistency=linearizable")
        assert (answer.status, answer.json()["code"]) == (403, "not_leader")
        answer = await c.leader.ask("GET", "/kv/k?consistency=strong")
        assert "local or linearizable" in answer.json()["detail"]
