"""Headers of answers, through the real app: what caches, proxies and browsers go by.

That both lanes send the same bytes is in `test_fast_lane`; that every answer which any test gets has the
headers of its method and status is held by `tests.answers`.
"""

from __future__ import annotations

import json
from contextlib import aclosing

import pytest
import trio
from trio.testing import MockClock

from tests.support import call
from tests.unit.inprocess import open_client
from tests.unit.test_web import clients
from trikv.web.pages import FILES
from trikv.web.routes import ROUTES

KEPT = {
    **dict.fromkeys(("/kv/{key}", "/kv", "/dump"), "no-cache"),
    **dict.fromkeys(("/ui", "/ui/{file}", "/openapi.json", "/docs"), "no-cache"),
    **dict.fromkeys(("/watch", "/events", "/health", "/metrics"), "no-store"),
    **dict.fromkeys(("/", "/replica", "/replica/records", "/admin/replica-status"), "no-store"),
}
GETS = [route.path for route in ROUTES if route.method == "GET"]


def test_it_is_settled_of_every_route_that_is_read_what_a_cache_may_keep() -> None:
    assert sorted(KEPT) == sorted(GETS)


@pytest.mark.parametrize("path", GETS)
async def test_an_answer_says_what_a_cache_may_do_with_it(
    path: str, autojump_clock: MockClock
) -> None:
    target = path.format(key="a", file=next(iter(FILES)))
    async with clients(1, write_quorum=1) as c:
        await c.leader.put("a", 1)
        answer = await c.leader.ask("GET", target)
        assert answer.status == (307 if path == "/" else 200)
        assert answer.headers["cache-control"] == KEPT[path]
        wrong = "ready=maybe" if path == "/health" else "nonsense=1"
        refused = await c.leader.ask("GET", f"{target}?{wrong}")
        assert (refused.status, refused.headers["cache-control"]) == (422, "no-store")


async def test_an_answer_to_an_admin_or_to_a_sure_read_is_never_kept(
    autojump_clock: MockClock,
) -> None:
    async with clients(1, write_quorum=1) as c:
        await c.leader.put("a", 1)
        sure = await c.leader.ask("GET", "/kv/a?consistency=linearizable")
        assert (sure.status, sure.headers["cache-control"]) == (200, "no-store")
        for path, content in (
            ("/admin/quorum", {"write_quorum": 1}),
            ("/admin/lag", {"min_delay_ms": 0, "max_delay_ms": 0}),
            ("/admin/partition", {"follower": "follower1", "cut": False}),
        ):
            answer = await c.leader.post(path, content)
            assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
        gone = await c.leader.ask("GET", "/kv/none")  # a status that caches keep by default
        assert (gone.status, gone.headers["cache-control"]) == (404, "no-store")


@pytest.mark.parametrize("query", ["", "?consistency=linearizable", "?min_version={version}"])
@pytest.mark.parametrize("form", ["{tag}", "W/{tag}", '"x", {tag}', '"x",W/{tag} , "y"', "*"])
async def test_a_reader_that_has_the_version_is_not_sent_it_again(
    query: str, form: str, autojump_clock: MockClock
) -> None:
    async with clients(1, write_quorum=1) as c:
        written = await c.leader.put("a", 1)
        target = f"/kv/a{query.format(version=written.json()['version'])}"
        asked = {"If-None-Match": form.format(tag=written.headers["etag"])}
        answer = await c.leader.ask("GET", target, headers=asked)
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["etag"] == written.headers["etag"]
        sure = "linearizable" in query
        assert answer.headers["cache-control"] == ("no-store" if sure else "no-cache")
        # Both speak of the answer that is not there (RFC 9110, 8.6 and 15.4.5).
        assert not {"content-length", "content-type"} & set(answer.headers)


async def test_a_reader_that_has_an_older_version_is_sent_the_newer(
    autojump_clock: MockClock,
) -> None:
    async with clients(1, write_quorum=1) as c:
        old = {"If-None-Match": (await c.leader.put("a", 1)).headers["etag"]}
        await c.leader.put("a", 2)
        answer = await c.leader.ask("GET", "/kv/a", headers=old)
        assert (answer.status, answer.json()["value"]) == (200, 2)
        await c.leader.ask("DELETE", "/kv/a")
        assert (await c.leader.ask("GET", "/kv/a", headers=old)).status == 404
        for any_version in (old, {"If-None-Match": "*"}):
            assert (await c.leader.ask("GET", "/kv/a", headers=any_version)).status == 404


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("PUT", "/kv/a%20b//c?trace=true", b'{"value": 1}'),
        ("DELETE", "/kv/a", b""),
        ("POST", "/batch?trace=false", b"{}"),
        ("GET", "/kv/a?consistency=linearizable", b""),
        ("POST", "/admin/lag", b"{}"),
    ],
)
async def test_a_follower_names_the_same_at_its_leader(
    method: str, target: str, body: bytes, autojump_clock: MockClock
) -> None:
    async with clients(1) as c:
        answer = await c.followers[0].ask(method, target, body)
        assert (
            answer.status == 403
        )  # and not 307, which clients would follow: the status is the lab's
        assert answer.headers["location"] == answer.json()["leader"]["url"] + target
        absolute = await c.followers[0].ask(method, f"http://elsewhere{target}", body)
        assert absolute.headers["location"] == answer.headers["location"]


async def test_a_follower_that_knows_no_leader_names_no_place(autojump_clock: MockClock) -> None:
    async with open_client("follower") as client:
        answer = await client.put("a", 1)
        assert (answer.status, answer.json()["leader"]) == (403, None)
        assert "location" not in answer.headers


async def test_whoever_is_told_to_come_back_is_told_when(autojump_clock: MockClock) -> None:
    async with clients(1, write_quorum=1, write_timeout_s=1, request_timeout_s=1) as c:
        c.take_down(0)
        unsure = await c.leader.put("a", 1)
        assert (unsure.status, unsure.json()["code"]) == (503, "quorum_not_met")
        await trio.sleep(5)
        early = await c.leader.put("a", 2)
        assert (early.status, early.json()["code"]) == (503, "not_enough_followers")
        unready = await c.leader.ask("GET", "/health?ready=true")
        c.cluster.leader.stop()
        stopping = await c.leader.put("a", 3)
        assert (stopping.status, stopping.json()["code"]) == (503, "not_ready")
        for answer in (unsure, early, unready, stopping):
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize("path", ["/watch", "/events"])
async def test_a_stream_says_when_to_come_back_and_is_not_collected_on_its_way(
    path: str, autojump_clock: MockClock
) -> None:
    async with open_client("leader") as client:
        answer = await call(client.node, "GET", path)
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert not isinstance(answer.body, bytes)
        async with aclosing(answer.body) as chunks:  # type: ignore[type-var]
            assert await anext(chunks) == b"retry: 1000\n\n"


@pytest.mark.parametrize(
    ("query", "found"),
    [("a+b", ["a b"]), ("a%20b", ["a b"]), ("a%2Bb", ["a+b"]), ("a%2bb", ["a+b"])],
)
async def test_a_plus_is_a_blank_in_a_query_and_a_plus_in_a_path(
    query: str, found: list[str], autojump_clock: MockClock
) -> None:
    """As HTML forms, `URLSearchParams` and the HTTP libraries write it."""
    async with open_client("leader") as client:
        for target in ("/kv/a+b", "/kv/a%20b"):
            assert (await client.ask("PUT", target, b'{"value": 1}')).status == 200
        page = await client.get(f"/kv?prefix={query}")
        assert [item["key"] for item in page["items"]] == found


@pytest.mark.parametrize("form", ["{tag}", "W/{tag}", ' "1.x-1" , W/{tag} '])
async def test_a_weak_tag_names_a_version_as_a_strong_one_does(
    form: str, autojump_clock: MockClock
) -> None:
    """nginx, where it compresses, makes `W/"…"` of `"…"`; a client can give back no other."""
    async with open_client("leader") as client:
        tag = (await client.put("a", 1)).headers["etag"]
        for method, body in (("PUT", json.dumps({"value": 2}).encode()), ("DELETE", b"")):
            stale = {"If-Match": 'W/"1.x-1"'}
            assert (await client.ask(method, "/kv/a", body, headers=stale)).status == 412
            held = {"If-Match": form.format(tag=tag)}
            answer = await client.ask(method, "/kv/a", body, headers=held)
            assert answer.status == 200
            tag = answer.headers["etag"]
