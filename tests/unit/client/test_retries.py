"""Whom the client asks, what it asks again, and what it never does: in all three shells."""

from __future__ import annotations

import enum
import gc
import json
import random
import re
import subprocess
import sys
from collections import OrderedDict
from typing import Any, NamedTuple, cast

import httpx
import pytest

from tests.unit.client.wires import (
    SHELLS,
    SILENCE,
    A,
    B,
    C,
    Reply,
    Shell,
    Wire,
    always,
    item,
    not_leader,
    play,
    problem,
    script,
    written,
)
from tests.unit.test_docs import NEVER_ANSWERED, errors
from trikv.client import (
    Client,
    ClientError,
    Delete,
    InvalidRequest,
    OutcomeUnknown,
    Put,
    Refused,
    Unavailable,
    VersionConflict,
)
from trikv.client.calls import Call, Send
from trikv.client.http import Departure
from trikv.client.nodes import Nodes
from trikv.client.wire import Answer, Request
from trikv.protocol.urls import base_url

V1, V2, V3 = "1.aa-1000", "1.aa-2000", "2.bb-3000"
CONNECT = httpx.ConnectError("refused")
LOST = httpx.ReadError("connection reset")

per_shell = pytest.mark.parametrize("shell", SHELLS)

#: All that a node answers, but what belongs to other requests.
ANSWERED = [error for error in errors() if error.code not in NEVER_ANSWERED]
COMES_AGAIN = {
    "not_leader",
    "not_ready",
    "not_enough_followers",
    "overloaded",
    "read_timeout",
    "request_timeout",
}


async def put_fails(client: Client, kind: type[ClientError], **more: Any) -> ClientError:
    with pytest.raises(kind) as caught:
        await client.put("k", 1, **more)
    assert type(caught.value) is kind
    assert caught.value.may_have_happened is (kind is OutcomeUnknown)
    return caught.value


@per_shell
def test_a_put_goes_to_the_first_node_and_tells_its_version(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        done = await client.put("a/../b c//ä", {"n": 1})
        assert (done.version, done.follower_acks) == (V1, 2)

    wire = Wire(script(a=[written(V1, "a/../b c//ä")]))
    play(shell, scenario, wire)
    (asked,) = wire.seen
    assert (asked.method, asked.path) == ("PUT", "/kv/a/%2E%2E/b%20c//%C3%A4")
    assert asked.json() == {"value": {"n": 1}}


@per_shell
def test_the_leader_that_a_follower_names_is_asked_and_remembered(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        await client.put("k", 1)
        await client.put("k", 2)

    wire = Wire(script(a=[not_leader(C)], c=[written(V1), written(V2)]))
    play(shell, scenario, wire)
    assert wire.nodes == [A, C, C]


@per_shell
def test_a_leader_that_is_named_by_a_strange_address_is_first_looked_for_among_the_known_ones(
    shell: Shell,
) -> None:
    async def scenario(client: Client) -> None:
        await client.put("k", 1)
        await client.put("k", 2)

    wire = Wire(
        script(
            a=[not_leader("http://inside:8000")],
            b=[not_leader("http://inside:8000")],
            c=[written(V1), written(V2)],
        )
    )
    play(shell, scenario, wire)
    assert wire.nodes == [A, B, C, C]


@per_shell
def test_a_leader_is_known_by_its_refusals_too(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        assert await client.delete("k") is None
        await put_fails(client, VersionConflict, if_present=True)
        await client.put("k", 1)

    wire = Wire(
        script(
            a=[not_leader(None)],
            b=[
                problem("not_found", 404, key="k"),
                problem("version_conflict", 412, key="k", version=None),
                written(V1),
            ],
        )
    )
    play(shell, scenario, wire)


@per_shell
def test_one_address_is_enough_where_followers_name_the_leader(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        await client.put("k", 1)
        await client.put("k", 2)

    wire = Wire(script(b=[not_leader(A)], a=[written(V1), written(V2)]))
    play(shell, scenario, wire, nodes="b:2")
    assert wire.nodes == [B, A, A]


@per_shell
def test_what_a_follower_names_that_is_no_address_is_passed_over(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        await client.put("k", 1)

    wire = Wire(script(a=[not_leader("file:///etc")], b=[not_leader(None)], c=[written(V1)]))
    play(shell, scenario, wire)


@per_shell
def test_a_takeover_is_followed_through_dead_and_starting_nodes(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        assert (await client.put("k", 1)).version == V1
        assert (await client.put("k", 2)).version == V3

    wire = Wire(
        script(
            a=[written(V1), CONNECT, CONNECT],
            b=[not_leader(A), problem("not_ready", 503, waiting_for=["c"]), written(V3)],
            c=[CONNECT, CONNECT],
        )
    )
    play(shell, scenario, wire)
    # A names nobody and B names A, who is dead; then, after a pause, all again.
    assert wire.nodes[:4] == [A, A, B, C]


@per_shell
@pytest.mark.parametrize("error", ANSWERED, ids=lambda error: error.code)
def test_only_what_was_certainly_not_written_is_sent_again(shell: Shell, error: Any) -> None:
    async def scenario(client: Client) -> None:
        if error.code in COMES_AGAIN:
            assert (await client.put("k", 1)).version == V1
        elif error.may_have_written:
            assert (await put_fails(client, OutcomeUnknown)).code == error.code
        else:
            with pytest.raises(Refused) as caught:
                await client.put("k", 1)
            assert not caught.value.may_have_happened
            assert (caught.value.code, caught.value.status) == (error.code, error.status)

    assert not (error.may_have_written and error.code in COMES_AGAIN)
    replies = [problem(error.code, error.status), written(V1)]
    wire = Wire(lambda _: replies.pop(0))
    play(shell, scenario, wire)
    assert len(wire.seen) == (2 if error.code in COMES_AGAIN else 1)


@per_shell
@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (LOST, "no_answer"),
        (httpx.WriteError("broken pipe"), "no_answer"),
        (httpx.RemoteProtocolError("disconnected"), "no_answer"),
        (SILENCE, "no_answer"),
        (problem("internal_error", 500), "internal_error"),
        (problem("code_of_the_future", 503), "code_of_the_future"),
        (Reply(503, "<html>", "text/html"), "unexpected_answer"),
        (Reply(503, {"code": "not_ready"}), "unexpected_answer"),
        (Reply(503, {"code": "not_ready"}, "application/problem+json"), "unexpected_answer"),
        (Reply(302, None, headers={"location": "http://c:3"}), "unexpected_answer"),
        (Reply(200, {"fine": True}), "unexpected_answer"),
        (Reply(200, {"version": "no", "follower_acks": 1}), "unexpected_answer"),
        (Reply(200, content=(b"[" * 100_000,)), "unexpected_answer"),
    ],
    ids=str,
)
def test_a_write_whose_answer_says_nothing_is_not_sent_again(
    shell: Shell, reply: Reply | Exception, code: str
) -> None:
    async def scenario(client: Client) -> None:
        error = await put_fails(client, OutcomeUnknown)
        assert (error.code, error.node, error.key, error.version) == (code, A, "k", None)

    wire = Wire(script(a=[reply]))
    play(shell, scenario, wire)


@per_shell
def test_quorum_not_met_tells_the_version_and_is_not_sent_again(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        error = await put_fails(client, OutcomeUnknown)
        assert (error.code, error.status, error.version) == ("quorum_not_met", 503, V1)

    play(shell, scenario, Wire(script(a=[problem("quorum_not_met", 503, version=V1)])))


@per_shell
@pytest.mark.parametrize(
    "error", [CONNECT, httpx.ConnectTimeout(""), httpx.PoolTimeout("")], ids=repr
)
def test_a_request_that_has_not_left_is_sent_to_another_node(
    shell: Shell, error: Exception
) -> None:
    async def scenario(client: Client) -> None:
        assert (await client.put("k", 1)).version == V1

    wire = Wire(script(a=[error], b=[not_leader(None)], c=[written(V1)]))
    play(shell, scenario, wire)


@per_shell
def test_one_that_is_overloaded_is_asked_again_when_it_says(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        await client.put("k", 1)

    wire = Wire(script(a=[problem("overloaded", 503, retry_after_s=1), written(V1)]))
    play(shell, scenario, wire)
    if shell == "sync":
        assert 1.0 <= sum(wire.clock.slept) < 1.1


@per_shell
def test_a_leader_without_followers_may_have_been_replaced(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        assert (await client.put("k", 1)).version == V3

    wire = Wire(
        script(a=[problem("not_enough_followers", 503)], b=[not_leader(C)], c=[written(V3)])
    )
    play(shell, scenario, wire)
    assert wire.nodes == [A, B, C]


@per_shell
@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (problem("not_enough_followers", 503, live_links=1, required=2), "not_enough_followers"),
        (CONNECT, "unreachable"),
        (not_leader(A), "not_leader"),
        (problem("overloaded", 503, retry_after_s=1), "overloaded"),
    ],
    ids=str,
)
def test_a_call_ends_at_its_deadline_and_says_that_nothing_was_written(
    shell: Shell, reply: Reply | Exception, code: str
) -> None:
    async def scenario(client: Client) -> None:
        error = await put_fails(client, Unavailable, timeout_s=4)
        assert error.code == code
        assert isinstance(error, TimeoutError)
        assert "not done within 4 s" in str(error)

    wire = Wire(lambda _: reply)
    play(shell, scenario, wire)
    assert 4 <= len(wire.seen) <= 60  # it backs off
    if shell == "sync":
        assert 2.9 <= wire.clock.time_s <= 4.0


def test_a_call_that_ends_at_a_follower_says_what_the_leader_said() -> None:
    call = Call(Nodes([A, B, C], random.Random(0)), lambda: 0.0, 1.0, random.Random(0))

    def asked(node: str, code: str, status: int) -> str:
        steps = call.send(node, lambda *_: Request("GET", "/kv/k"))
        next(steps)
        told = {"type": f"urn:trikv:problem:{code}", "code": code, "leader_url": A}
        body = json.dumps(told).encode()
        with pytest.raises(StopIteration):
            steps.send(Answer(status, {"content-type": "application/problem+json"}, body))
        return call.unavailable().code

    assert asked(B, "not_leader", 403) == "not_leader"
    assert asked(A, "not_enough_followers", 503) == "not_enough_followers"
    assert asked(B, "not_leader", 403) == "not_enough_followers"
    assert asked(A, "overloaded", 503) == "overloaded"


@per_shell
def test_a_retry_that_would_come_too_late_is_not_waited_for(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        await put_fails(client, Unavailable, timeout_s=5)

    wire = Wire(script(a=[problem("overloaded", 503, retry_after_s=60)]))
    play(shell, scenario, wire)
    assert wire.clock.time_s == 0


@per_shell
def test_a_write_waits_for_its_answer_as_long_as_the_call_may_take(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        error = await put_fails(client, OutcomeUnknown, timeout_s=7)
        assert "no answer" in str(error) or "nothing came" in str(error)

    wire = Wire(script(a=[SILENCE]))
    play(shell, scenario, wire)
    if shell == "sync":
        assert wire.clock.time_s == 7


# -- reads --------------------------------------------------------------------------------------------


@per_shell
def test_a_read_is_linearizable_unless_it_says(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        got = await client.get("k")
        assert got is not None
        assert (got.key, got.value, got.version) == ("k", None, V1)

    wire = Wire(script(a=[item("k", None, V1)]))
    play(shell, scenario, wire)
    assert wire.seen[0].query == {"consistency": "linearizable", "timeout_ms": "2000"}


@per_shell
@pytest.mark.parametrize("how", [{}, {"consistency": "local"}, {"min_version": V1}], ids=str)
@pytest.mark.parametrize(
    "reply",
    [
        LOST,
        CONNECT,
        SILENCE,
        problem("storage_failed", 507),
        problem("read_timeout", 504),
        problem("not_ready", 503),
        problem("internal_error", 500),
        Reply(502, "<html>", "text/html"),
    ],
    ids=str,
)
def test_a_read_is_asked_of_another_node_whatever_happened_to_it(
    shell: Shell, how: dict[str, Any], reply: Reply | Exception
) -> None:
    async def scenario(client: Client) -> None:
        got = await client.get("k", **how)
        assert got is not None
        assert got.value == "found"

    replies = [reply, reply, item("k", "found", V1)]
    wire = Wire(lambda _: replies.pop(0))
    play(shell, scenario, wire)
    assert len(set(wire.nodes)) >= 2
    assert not replies


@per_shell
def test_what_is_not_there_is_none(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        assert await client.get("k") is None
        assert await client.delete("k") is None

    play(shell, scenario, Wire(always(a=problem("not_found", 404, key="k"))))


@per_shell
def test_local_reads_are_spread_over_all_nodes_and_avoid_one_that_has_failed(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        for _ in range(30):
            assert await client.get("k", consistency="local") is not None

    here = item("k", 1, V1)
    wire = Wire(always(a=CONNECT, b=here, c=here))
    play(shell, scenario, wire)
    assert wire.nodes.count(A) <= 1
    assert wire.nodes.count(B) > 5
    assert wire.nodes.count(C) > 5


@per_shell
def test_a_list_goes_on_at_another_node_that_has_come_as_far(shell: Shell) -> None:
    pages: list[Reply | Exception] = [
        Reply(
            200, {"items": [item("k1", 1, V2).document, item("k2", 2, V1).document], "next": "k2"}
        ),
        LOST,
    ]

    async def scenario(client: Client) -> None:
        assert [(one.key, one.value) async for one in client.list("k")] == [
            ("k1", 1),
            ("k2", 2),
            ("k3", 3),
        ]

    last = Reply(200, {"items": [item("k3", 3, V3).document], "next": None})
    wire = Wire(script(a=pages, b=[last]))
    play(shell, scenario, wire)
    first, _, third = (asked.query for asked in wire.seen)
    assert first == {"prefix": "k", "limit": "500"}
    assert (third["after"], third["min_version"]) == ("k2", V2)


@per_shell
def test_a_session_reads_what_it_wrote_and_does_not_go_back(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        session = client.session()
        begun = session.version
        assert begun is None
        await session.get("k")
        await session.put("k", 1)
        assert session.version == V1
        await session.get("k")
        assert session.version == V2
        assert await session.get("k") is None
        with pytest.raises(OutcomeUnknown):
            await session.put("k", 1)
        assert session.version == V2  # of a write that may not have happened it knows nothing
        await client.session(V2).get("k", consistency="linearizable")

    replies: list[Reply] = [
        problem("not_found", 404),
        written(V1),
        item("k", 1, V2),
        problem("not_found", 404),
        problem("quorum_not_met", 503, version=V3),
        item("k", 1, V2),
    ]
    wire = Wire(lambda _: replies.pop(0))
    play(shell, scenario, wire)
    asked = [seen.query.get("min_version") for seen in wire.seen if seen.method == "GET"]
    assert asked == [None, V1, V2, V2]
    assert len({seen.node for seen in wire.seen[:4] if seen.method == "GET"}) == 1


# -- what is refused before it is sent ----------------------------------------------------------------


class Level(enum.IntEnum):
    HIGH = 3


class Name(enum.StrEnum):
    ADA = "ada"


class Place(NamedTuple):
    x: int
    y: int


def ring() -> list[Any]:
    """A list that holds itself."""
    inner: list[Any] = []
    inner.append(inner)
    return inner


@per_shell
@pytest.mark.parametrize(
    ("key", "value", "more", "code"),
    [
        ("", 1, {}, "invalid_key"),
        ("\0own", 1, {}, "invalid_key"),
        ("x" * 513, 1, {}, "invalid_key"),
        ("\ud800", 1, {}, "invalid_key"),
        ("k", float("nan"), {}, "invalid_body"),
        ("k", object(), {}, "invalid_body"),
        ("k", "\ud800", {}, "invalid_body"),
        ("k", {"a": {1, 2}}, {}, "invalid_body"),
        ("k", {1: "a"}, {}, "invalid_body"),
        ("k", [{"a": [{True: 1}]}], {}, "invalid_body"),
        ("k", {None: 1}, {}, "invalid_body"),
        ("k", (1, 2), {}, "invalid_body"),
        ("k", {"a": [(1,)]}, {}, "invalid_body"),
        ("k", {"\ud800": 1}, {}, "invalid_body"),
        ("k", [float("inf")], {}, "invalid_body"),
        ("k", Level.HIGH, {}, "invalid_body"),
        ("k", [Name.ADA], {}, "invalid_body"),
        ("k", {Name.ADA: 1}, {}, "invalid_body"),
        ("k", Place(1, 2), {}, "invalid_body"),
        ("k", b"x", {}, "invalid_body"),
        ("k", 10**5000, {}, "invalid_body"),
        ("k", ring(), {}, "invalid_body"),
        ("k", "x" * 2**24, {}, "too_large"),
        ("k", 1, {"if_version": "7"}, "invalid_parameter"),
        ("k", 1, {"if_version": V1, "if_absent": True}, "invalid_parameter"),
    ],
    ids=lambda one: str(one)[:40] if isinstance(one, str) else type(one).__name__,
)
def test_what_cannot_be_said_is_not_sent(
    shell: Shell, key: str, value: Any, more: dict[str, Any], code: str
) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(InvalidRequest) as caught:
            await client.put(key, value, **more)
        assert caught.value.code == code
        assert isinstance(caught.value, ValueError)

    play(shell, scenario, Wire(script()))


@per_shell
def test_where_a_value_cannot_be_carried_is_told(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(InvalidRequest, match=re.escape("value['a'][1]['b']: expected None")):
            await client.put("k", {"a": [0, {"b": (1,)}]})
        with pytest.raises(InvalidRequest, match=re.escape("operations[1].value: JSON")) as caught:
            await client.batch([Delete("k"), Put("l", {1: 1})])
        assert (caught.value.field, caught.value.key) == ("operations[1].value", "l")
        with pytest.raises(InvalidRequest, match="operations: expected at most") as caught:
            await client.batch([Put(key, "x" * 2**23) for key in "abc"])
        assert caught.value.code == "too_large"

    play(shell, scenario, Wire(script()))


@per_shell
def test_what_json_gives_back_equal_is_sent(shell: Shell) -> None:
    value = OrderedDict(a=[1, 1.5, None, True, -0.0, 10**100], b={"": {}}, c=[], d="ä\u2028")

    async def scenario(client: Client) -> None:
        await client.put("k", value)

    wire = Wire(script(a=[written(V1)]))
    play(shell, scenario, wire)
    assert wire.seen[0].json() == {"value": value}


@per_shell
@pytest.mark.parametrize("key", [5, None, b"k", ["k"]], ids=repr)
def test_a_key_that_is_no_text_is_a_type_error_that_names_it(shell: Shell, key: Any) -> None:
    async def scenario(client: Client) -> None:
        kind = type(key).__name__
        for one in (client, client.session()):
            for call in (
                one.get(key),
                one.get(key, consistency="local"),
                one.put(key, 1),
                one.delete(key),
            ):
                with pytest.raises(TypeError, match=f"^key: expected a str, got {kind}"):
                    await call
            for operation in (Put(key, 1), Delete(key)):
                with pytest.raises(TypeError, match=r"^operations\[0\]: key: expected a str"):
                    await one.batch([operation])
            with pytest.raises(TypeError, match=r"^operations\[0\]: expected a Put or a Delete"):
                await one.batch([key])
            with pytest.raises(TypeError, match=r"^prefix: expected a str"):
                _ = [item async for item in one.list(key)]
            with pytest.raises(TypeError, match=r"^prefix: expected a str"):
                one.watch(key)

    play(shell, scenario, Wire(script()))


@per_shell
def test_a_conflict_tells_the_version_that_the_key_has(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        error = await put_fails(client, VersionConflict, if_version=V1)
        assert (error.key, error.version, error.status) == ("k", V2, 412)

    reply = problem("version_conflict", 412, key="k", version=V2)
    wire = Wire(script(a=[reply]))
    play(shell, scenario, wire)
    assert wire.seen[0].headers["if-match"] == f'"{V1}"'


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([], "one node at least"),
        ("", "no host"),
        ("ftp://a", "http:// or https://"),
        ("http://", "no host"),
        ("http://:80", "no host"),
        ("http://a:x", "a port from 1 to 65535"),
        ("http://a:0", "a port from 1 to 65535"),
        ("http://a:65536", "a port from 1 to 65535"),
        ("a:123456", "a port from 1 to 65535"),
        ("http://a/kv", "nothing behind the port"),
        ("http://a?x=1", "nothing behind the port"),
        ("http://a#", "nothing behind the port"),
        ("http://a..b", "1 to 63 between two dots"),
        ("http://.", "1 to 63 between two dots"),
        (f"http://{'a' * 64}", "1 to 63 between two dots"),
        (f"http://{'a.' * 127}", "253 characters"),
        ("http://a b", "a blank"),
        (" http://a", "a blank"),
        ("http://a\n", "a blank"),
        ("http://xn--a", "no encoded name"),
        ("http://a.xn--", "no encoded name"),
        ("http://\u00e4", "ASCII"),
        ("http://user:secret@a", "a user"),
        ("http://[fe80::1%25eth0]:80", "no zone"),
        ("http://[::g]", "host"),
        ("http://[1::2::3]", "no IPv6 address"),
        ("http://[::1", "expected"),
        ("http://%61", "escaped"),
        ("http://a\\b", "host name"),
    ],
    ids=str,
)
def test_nodes_that_are_none_are_refused(nodes: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        Client(nodes)
    assert "URL" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_node_that_is_no_text_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="expected a URL as a str, got int"):
        Client(cast(Any, [8000]))


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("a", "http://a"),
        ("A:08000/", "http://a:8000"),
        ("HTTPS://xn--bcher-kva.example.:443", "https://xn--bcher-kva.example.:443"),
        ("node_1", "http://node_1"),
        ("[::1]:80", "http://[::1]:80"),
    ],
)
def test_nodes_have_one_spelling_and_the_settings_have_the_same(given: str, url: str) -> None:
    assert Nodes(given, random.Random(0)).urls == (url,)
    assert base_url(url) == url
    assert httpx.URL(url).host  # httpx looks into it, and raised for some


@per_shell
def test_a_call_must_have_some_time(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(ValueError, match="timeout_s"):
            await client.get("k", timeout_s=0)

    play(shell, scenario, Wire(script()))
    with pytest.raises(ValueError, match="timeout_s"):
        Client("a:1", timeout_s=-1)


def test_a_program_that_imports_the_client_gets_nothing_of_a_node() -> None:
    check = "import sys, trikv.client; print({'quart', 'hypercorn', 'sqlite3'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "set()\n"


# -- answers to another's question --------------------------------------------------------------------


@per_shell
def test_an_answer_about_another_key_is_no_answer_and_a_read_is_asked_again(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        got = await client.get("k")
        assert got is not None
        assert (got.key, got.value) == ("k", 1)
        assert await client.get("k", consistency="local") is None

    others = [item("other", 2, V2), problem("not_found", 404, key="other")]
    rights = [item("k", 1, V1), problem("not_found", 404, key="k")]
    replies: list[Reply] = [others[0], rights[0], others[1], rights[1]]
    play(shell, scenario, Wire(lambda _: replies.pop(0)))


@per_shell
@pytest.mark.parametrize(
    "other",
    [
        written(V1, "other"),
        problem("version_conflict", 412, key="other", version=V1),
        problem("not_found", 404, key="other"),
    ],
)
def test_a_write_that_is_answered_about_another_key_may_have_happened(
    shell: Shell, other: Reply
) -> None:
    async def scenario(client: Client) -> None:
        for call in (client.put("k", 1), client.delete("k")):
            with pytest.raises(OutcomeUnknown, match="'other', and was asked about 'k'") as caught:
                await call
            assert caught.value.code == "unexpected_answer"

    play(shell, scenario, Wire(always(a=other)))


@per_shell
@pytest.mark.parametrize("key", ["other", "k", "k/1"])
def test_a_page_with_keys_that_were_not_asked_for_is_refused(shell: Shell, key: str) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(Refused, match="not as trikv does"):
            assert [one.key async for one in client.list("k/")] == []

    def page(name: str, following: str | None) -> Reply:
        one = {"key": name, "value": 1, "version": V1}
        return Reply(200, {"items": [one], "next": following})

    pages = [page("k/1", "k/1"), page(key, None)]
    play(shell, scenario, Wire(lambda _: pages.pop(0)))


@per_shell
def test_a_list_can_be_left_at_any_time(shell: Shell) -> None:
    """On trio a generator that is left open is a warning, and warnings are errors here."""

    async def scenario(client: Client) -> None:
        async for one in client.list():
            assert one.key == "a"
            break
        gc.collect()

    items = [{"key": key, "value": 1, "version": V1} for key in "ab"]
    play(shell, scenario, Wire(always(a=Reply(200, {"items": items, "next": "b"}))))


@pytest.mark.parametrize(
    ("left_s", "said"), [(1.99328, "2 s"), (14.996, "15 s"), (0.4996, "0.5 s")]
)
def test_a_time_that_ran_out_is_said_as_it_was_given(left_s: float, said: str) -> None:
    send = Send("http://h:1", Request("GET", "/health"), left_s)
    assert Departure(send, traced=False).too_late().detail.endswith(f"within {said}")
