"""The fast lane: what it answers is what Quart on Hypercorn would have answered, to the byte.

Two nodes that draw the same ids are told the same, one with its fast lane, one
without; but for the time, the bytes that come back are the same. What the lane takes for the head of a
request is held against h11, which reads for Hypercorn.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import h11
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.support import MemoryNetwork, open_memory_node
from tests.unit import fuzzing as fuzz
from tests.unit.fuzzing import examples
from tests.unit.test_fuzz_wire import conversations, converse, run, well_framed
from trikv import log
from trikv.config import Config
from trikv.errors import NotReady
from trikv.network.simulated_lag import LagRange
from trikv.node.node import Node
from trikv.web import fastlane, kv, server
from trikv.web.plain import MAX_HEAD_BYTES, NotPlain, read_head
from trikv.web.server import GRACE_S, listen, serve

LEADER = Config(
    node_id="lone",
    role="leader",
    host="127.0.0.1",
    port=0,
    lag=LagRange(0, 0),
    max_value_bytes=2000,
)
FOLLOWER = replace(LEADER, role="follower")


#: Simulated seconds in which all that is answered at once has been answered.
SOON_S = 1.0


def ask(
    method: str, target: str, body: bytes | None = None, *headers: str, version: str = "1.1"
) -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: a", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8") + (body or b"")


def value(content: Any) -> bytes:
    return json.dumps({"value": content}).encode()


def operations(*each: Any) -> bytes:
    return json.dumps({"operations": each}).encode()


PUT_A = {"op": "put", "key": "a", "value": 1}
RECORD = b'{"key": "p", "value": [1], "timestamp": 1.5}'
BATCH = json.dumps(
    {
        "leader": {"node_id": "boss", "url": "http://boss:1"},
        "epoch": "1.boss",
        "records": [{"key": "b", "value": {"x": 1}, "version": "1.boss-7"}],
    }
).encode()

#: Every kind of request, plain and not.
REQUESTS = [
    *(
        ask("PUT", "/kv/a", value(content))
        for content in ("v", 1, -0.5, None, [1, {"b": "é"}], "\\")
    ),
    ask("PUT", "/kv/a?trace=false", value(2)),
    ask("PUT", "/kv/a?trace=maybe", value(2)),
    ask("PUT", "/kv/a", value(2), "X-Request-ID: checkout-4711"),
    ask("PUT", "/kv/a", value(2), "X-Request-ID: two words"),
    ask("PUT", "/kv/a?trace=maybe", value(2), "X-REQUEST-ID:a/b:c+d=e@f~g.h_i-J"),
    ask("PUT", "/kv/a?other=1", value(2), "X-Request-ID: "),
    ask("GET", "/kv/a", None, f"X-Request-ID: {'x' * 128}"),
    ask("GET", "/kv/a", None, f"X-Request-ID: {'x' * 129}"),
    ask("GET", "/kv/a", None, "X-Request-ID: a", "X-Request-ID: b"),
    ask("GET", "/kv/%zz", None, 'X-Request-ID: "'),
    ask("GET", "/kv/none", None, "X-Request-ID: me"),
    ask("GET", "/nowhere", None, "X-Request-ID: me"),
    ask("GET", "/nowhere", None, "X-Request-ID: not me"),
    ask("GET", "/health", None, "X-Request-ID: me"),
    ask("POST", "/replicate", b"[]", "X-Request-ID: me"),
    ask("PUT", "/kv/a?trace=true&trace=true", value(2)),
    ask("PUT", "/kv/a?other=1", value(2)),
    ask("PUT", "/kv/a?trace=%74rue", value(2)),
    ask("PUT", "/kv/a?trace=true", value(2)),
    ask("PUT", "/kv/a?trace=true", value(2), "X-Request-ID: traced"),
    ask("POST", "/batch?trace=true", operations(PUT_A)),
    ask("DELETE", "/kv/a?trace=true"),
    ask("PUT", "/kv/a", value(2)),
    ask("GET", "/kv/a"),
    ask("GET", "/kv/a?consistency=local"),
    ask("GET", "/kv/a?consistency=linearizable"),
    ask("GET", "/kv/a?min_version=0.0-0"),
    ask("GET", "/kv/a?min_version=x"),
    ask("GET", "/kv/a?timeout_ms=5"),
    ask("GET", "/kv/a?timeout_ms=0"),
    ask("GET", "/kv/none"),
    ask("GET", "/kv/"),
    ask("GET", "/kv/a//b/%2F/../c"),
    ask("GET", "/kv/%zz"),
    ask("GET", "/kv/%ff"),
    ask("GET", "/kv/%00x"),
    ask("GET", "/kv/" + "x" * 513),
    ask("GET", "/kv/é"),
    ask("GET", "/kv/a#b"),
    ask("GET", "/kv/a?"),
    ask("GET", "/kv?prefix=a"),
    ask("GET", "/kv"),
    ask("GET", "/kv?prefix=%61"),
    ask("GET", "/kv?limit=0"),
    ask("GET", "/kv?prefix=a&consistency=local", None, "X-Request-ID: me"),
    ask("GET", "/kv/a", None, "If-None-Match: *"),
    ask("GET", "/kv/a", None, 'If-None-Match: W/"1.x-1", "oops'),
    ask("GET", "/kv/a", None, "If-None-Match: *", "X-Request-ID: me"),
    ask("GET", "/kv/a?consistency=linearizable", None, "If-None-Match: *"),
    ask("GET", "/kv/a?min_version=0.0-0", None, "If-None-Match: *"),
    ask("GET", "/kv/none", None, "If-None-Match: *"),
    ask("HEAD", "/kv/a", None, "If-None-Match: *"),
    ask("GET", "/kv?prefix=a+b"),
    ask("PUT", "/kv", value(1)),
    ask("GET", "//kv/a"),
    ask("GET", "http://elsewhere/kv/a"),
    ask("GET", "/kv/a", b""),
    ask("GET", "/kv/a", b"{}"),
    ask("HEAD", "/kv/a"),
    ask("POST", "/kv/a", value(1)),
    ask("PUT", "/kv/a"),
    ask("PUT", "/kv/a", b""),
    ask("PUT", "/kv/a", b'{"value": 1, "value": 2}'),
    ask("PUT", "/kv/a", b'{"value": NaN}'),
    ask("PUT", "/kv/a", b'{"value": "\xff"}'),
    ask("PUT", "/kv/a", b'\xef\xbb\xbf{"value": 1}'),
    ask("PUT", "/kv/a", value("x" * 3000)),
    ask("PUT", "/kv/a", value("x" * 30_000)),
    ask("PUT", "/kv/b", value(1), "If-None-Match: *"),
    ask("PUT", "/kv/b", value(2), "If-None-Match: *"),
    ask("PUT", "/kv/b", value(2), 'If-Match: "9.x-1"'),
    ask("PUT", "/kv/b", value(2), "If-Match: *"),
    ask("PUT", "/kv/b", value(2), "If-Match: *", "If-None-Match: *"),
    ask("PUT", "/kv/b", value(2), "If-Match: oops"),
    ask("PUT", "/kv/b", value(2), 'If-Match: W/"9.x-1"'),
    ask("DELETE", "/kv/b"),
    ask("DELETE", "/kv/b"),
    ask("DELETE", "/kv/a", b"ignored"),
    ask("POST", "/batch", operations(PUT_A, {"op": "delete", "key": "b"})),
    ask("POST", "/batch", operations(PUT_A, PUT_A)),
    ask("POST", "/batch", operations()),
    ask("POST", "/batch", operations(PUT_A), "If-Match: *"),
    ask("POST", "/batch?x=1", operations(PUT_A)),
    ask("POST", "/batch", b"{"),
    ask("GET", "/batch"),
    ask("POST", "/batch/", operations(PUT_A)),
    ask("POST", "/replicate", RECORD),
    ask("POST", "/replicate", BATCH),
    ask("POST", "/replicate", BATCH.replace(b"-7", b"-8")),
    ask("POST", "/replicate", RECORD),
    ask("POST", "/replicate", BATCH.replace(b"1.boss", b"0.boss")),
    ask("GET", "/kv/p", None, "If-None-Match: *"),
    ask("PUT", "/kv/a%20b//c?trace=true", value(1)),  # a follower knows its leader now
    ask("PUT", "http://elsewhere/kv/a?trace=true", value(1)),
    ask("POST", "/batch", operations(PUT_A)),
    ask("GET", "/kv/a?consistency=linearizable"),
    ask("POST", "/admin/lag", b"{}"),
    ask("POST", "/replicate", b"[]"),
    ask("GET", "/replicate"),
    ask("GET", "/health"),
    ask("GET", "/health", b"ignored"),
    ask("GET", "/health?ready=true"),
    ask("GET", "/health?ready=maybe"),
    ask("GET", "/health/"),
    ask("HEAD", "/health"),
    ask("POST", "/admin/quorum", b'{"write_quorum": 0}'),
    ask("POST", "/admin/quorum", b'{"write_quorum": 1}', "X-Request-ID: me"),
    ask("POST", "/admin/quorum", b'{"write_quorum": "%s"}' % (b"x" * 70_000)),
    ask("GET", "/admin/quorum"),
    ask("POST", "/admin/lag", b'{"min_delay_ms": 0, "max_delay_ms": 0}'),
    ask("POST", "/admin/lag", b'{"min_delay_ms": 2, "max_delay_ms": 1}'),
    ask("POST", "/admin/lag", b""),
    ask("POST", "/admin/partition", b'{"follower": "n1", "cut": true}'),
    ask("POST", "/admin/admit", b'{"follower": "n1"}'),
    ask("GET", "/nowhere"),
    ask("GET", "/kv/a", None, "Connection: keep-alive"),
    ask("GET", "/kv/a", None, "Connection: close"),
    ask("GET", "/kv/a", None, "X-Unknown: 1"),
    ask("GET", "/kv/a", None, "Host: b"),
    ask("GET", "/kv/a", None, "Accept: a", "Accept: b"),
    ask("GET", "/kv/a", None, "If-None-Match: \tx "),
    ask("GET", "/kv/a", version="1.0"),
    ask("GET", "/kv/a", None, "Connection: keep-alive", version="1.0"),
    ask("PUT", "/kv/a", value(1), "Expect: 100-continue"),
    ask("PUT", "/kv/a", value(1), "Transfer-Encoding: chunked"),
    ask("PUT", "/kv/a", None, "Transfer-Encoding: chunked") + b'c\r\n{"value": 1}\r\n0\r\n\r\n',
    ask("PUT", "/kv/a", value(1), "Content-Length: 5"),
    ask("PUT", "/kv/a", None, "Content-Length: 12, 12") + b'{"value": 1}',
    ask("PUT", "/kv/a", None, "Content-Length: +12") + b'{"value": 1}',
    ask("PUT", "/kv/a", None, "Content-Length: 012") + b'{"value": 1}',
    ask("PUT", "/kv/a", None, "Content-Length: 99999999999"),
    b"GET /kv/a HTTP/1.1\r\n\r\n",
    b"GET  /kv/a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /kv/a HTTP/1.1\nHost: a\n\n",
    b"GET /kv/a HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
    b"GET /kv/a HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET /kv/a HTTP/1.1\r\nHost: a\x00\r\n\r\n",
    b"\r\nGET /kv/a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"get /kv/a HTTP/1.1\r\nHost: a\r\n\r\n",
    ask("GET", "/kv/" + "y" * MAX_HEAD_BYTES),
    ask("GET", "/kv/a", None, "Accept: " + "z" * MAX_HEAD_BYTES),
]


@asynccontextmanager
async def open_lane(
    config: Config, *, fast: bool = True, measure_delay: bool = False
) -> AsyncIterator[tuple[Node, int, trio.Event]]:
    """A lone node on a real socket, its port, and what stops its server."""
    config = replace(config, fast_lane=fast)
    listeners, port = await listen(config)
    stop = trio.Event()
    async with open_memory_node(config, MemoryNetwork(), "http://lone") as node:
        async with trio.open_nursery() as nursery:
            serving = partial(serve, node, listeners, stop.wait, measure_delay=measure_delay)
            nursery.start_soon(serving)
            yield node, port, stop
            stop.set()


def undated(heard: bytes) -> bytes:
    """Without its date, what else tells the time, and ids that the node has made.

    The time is in the timestamps of versions, and in what a trace measures.
    """
    heard = re.sub(rb"(x-request-id: |\"request_id\":\")[0-9a-f]{8}-[0-9a-f]+", rb"\1made", heard)
    heard = re.sub(rb"(dur=|_ms\":)[0-9.]+", rb"\1", heard)
    return re.sub(rb"(?i)\r\ndate: [^\r]*|(?<=[0-9a-z])-\d{12,16}", b"", heard)


async def answered(port: int, pieces: Sequence[bytes]) -> bytes:
    """Say it all, and hear what is answered at once."""
    heard = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        with contextlib.suppress(trio.BrokenResourceError):
            for piece in pieces:
                await stream.send_all(piece)
            while True:
                some = b""
                with trio.move_on_after(SOON_S):
                    some = await stream.receive_some()
                if not some:
                    break
                heard += some
    return heard


async def compare(config: Config, said: Sequence[Sequence[bytes]]) -> list[bytes]:
    """Say the same to both; what was answered to each, which was the same."""
    answers = []
    async with (
        open_lane(config) as (fast, fast_port, _),
        open_lane(config, fast=False) as (slow, slow_port, _),
    ):
        for pieces in said:
            heard = []
            for port in (fast_port, slow_port):
                heard.append(undated(await answered(port, pieces)))
            if len(pieces) > 1 and sum(map(len, pieces)) > MAX_HEAD_BYTES:
                # Too long for a head, and no head: what is said depends on how much of it has come when
                # it is looked at, on Hypercorn by itself, too.
                heard = [one.replace(b"HTTP/1.1 431 ", b"HTTP/1.1 400 ") for one in heard]
            assert heard[0] == heard[1], pieces
            answers.append(heard[0])
        pages = (node.store.page_by_key("", 1000, 10**6) for node in (fast, slow))
        held = [[(record.key, record.value) for record in page] for page in pages]
        assert held[0] == held[1]
    return answers


@pytest.mark.parametrize("config", [LEADER, FOLLOWER], ids=["leader", "follower"])
@pytest.mark.parametrize("behind", [b"", ask("GET", "/kv/a")], ids=["alone", "pipelined"])
def test_an_answer_does_not_depend_on_the_lane(config: Config, behind: bytes) -> None:
    async def main() -> None:
        answers = await compare(config, [[request + behind] for request in REQUESTS])
        assert answers.count(b"") <= 3  # those whose body never ends
        statuses = {int(one.split()[1]) for one in answers if one}
        expected = {200, 304, 400, 403, 404, 405, 413, 422}
        assert statuses >= expected | ({412} if config is LEADER else {409})

    run(main)


def test_a_request_in_pieces_is_the_same_request() -> None:
    async def main() -> None:
        whole = ask("PUT", "/kv/a", value("x" * 100)) + ask("GET", "/kv/a")
        cuts = [[whole[:at], whole[at:]] for at in range(1, len(whole), 7)]
        answers = await compare(LEADER, [*cuts, [whole[i : i + 1] for i in range(len(whole))]])
        assert all(one.count(b"HTTP/1.1 200 ") == 2 for one in answers)

    run(main)


@examples(8)
@given(st.lists(conversations(), min_size=3, max_size=8))
def test_whatever_is_said_both_lanes_answer_the_same(said: list[list[bytes]]) -> None:
    async def main() -> None:
        await compare(LEADER, said)

    run(main)


# -- the head of a request ------------------------------------------------------------------------------

_names = st.sampled_from(
    ["Host", "host", "Content-Length", "content-length", "Connection", "Accept", "If-Match", "X"]
) | st.sampled_from(["Transfer-Encoding", "Expect", "Upgrade", "Host ", " Host", ""])
_values = st.sampled_from(
    [
        "a",
        "0",
        "3",
        " 3 ",
        "\t3",
        "3,3",
        "+3",
        "03",
        "keep-alive",
        "Keep-Alive",
        "close",
        "chunked",
        "",
    ]
) | st.sampled_from(["a\x00", "a\x7f", "é", "a b", '"1.a-1"'])
_ends = st.sampled_from(["\r\n"] * 12 + ["\n", "\r", "\r\n ", "\r\n\t"])
heads = st.builds(
    lambda line, end, lines, after: (line + end + "".join(lines) + after).encode("latin-1"),
    st.sampled_from(["GET /kv/a HTTP/1.1", "PUT /kv/a?b=c HTTP/1.1", "POST /batch HTTP/1.1"])
    | st.sampled_from(
        ["GET  /kv/a HTTP/1.1", "GET /kv/\x01 HTTP/1.1", "GET / HTTP/1.0", "PRI * HTTP/2.0"]
    ),
    _ends,
    st.lists(st.builds("{}:{}{}".format, _names, _values, _ends), max_size=4).map(
        lambda lines: ["Host: a\r\n", *lines]
    )
    | st.lists(st.builds("{}: {}{}".format, _names, _values, _ends), max_size=5),
    st.sampled_from(["\r\n", "\r\n", "\n", "\r\nabc", "\r\nGET /kv/b HTTP/1.1\r\nHost: b\r\n\r\n"]),
)


@examples(1500)
@given(heads | fuzz.mutated(heads) | fuzz.mutated(well_framed))
def test_a_plain_head_is_read_as_h11_reads_it(sent: bytes) -> None:
    """Method, target, headers, and where the body ends: nothing can be smuggled between the lanes."""
    try:
        head = read_head(sent)
    except NotPlain:
        return
    if head is None:
        return
    other = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    other.receive_data(sent)
    event = other.next_event()
    assert isinstance(event, h11.Request)
    query = b"?" + head.query_string if head.query_string else b""
    assert event.method.decode() == head.method
    assert event.target.removesuffix(b"?") == (head.path + query).removesuffix(b"?")
    assert {name.decode(): text.decode() for name, text in event.headers} == head.headers
    assert event.http_version == b"1.1"
    body, wanted = b"", sent[head.size : head.size + head.length]
    while isinstance(event := other.next_event(), h11.Data):
        body += event.data
    assert body == wanted
    assert isinstance(event, h11.EndOfMessage) is (len(wanted) == head.length)


def test_a_head_is_bounded() -> None:
    with pytest.raises(NotPlain):
        read_head(b"GET /kv/" + b"a" * MAX_HEAD_BYTES)
    assert read_head(b"GET /kv/" + b"a" * (MAX_HEAD_BYTES - 100)) is None


# -- what it takes, and what it lets go -----------------------------------------------------------------


def test_plain_requests_of_the_lanes_routes_never_reach_quart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: object) -> None:
        raise AssertionError("Quart was asked")

    monkeypatch.setattr(server, "create_app", lambda node: broken)
    plain = [
        ask("PUT", "/kv/a", value(1), "Content-Type: application/json", "User-Agent: me/1"),
        ask("GET", "/kv/a", None, "Accept: */*", "Accept-Encoding: gzip", "Connection: keep-alive"),
        ask("GET", "/kv/a?consistency=local&min_version=0.0-0"),
        ask("POST", "/batch", operations(PUT_A)),
        ask("DELETE", "/kv/a", None, "If-Match: *"),
        ask("GET", "/kv?prefix=a"),
        ask("GET", "/health"),
        ask("POST", "/admin/quorum", b'{"write_quorum": 0}'),
        ask("POST", "/admin/lag", b'{"min_delay_ms": 0, "max_delay_ms": 0}'),
    ]

    async def main() -> None:
        async with open_lane(LEADER) as (_, port, _):
            heard = await answered(port, plain)
            assert heard.count(b"HTTP/1.1 200 ") == len(plain)
        async with open_lane(FOLLOWER) as (_, port, _):
            heard = await answered(port, [ask("POST", "/replicate", BATCH)])
            assert heard.startswith(b"HTTP/1.1 200 ")
        async with open_lane(LEADER, fast=False) as (_, port, _):
            assert b" 200 " not in await answered(port, plain[:1])

    run(main)


def test_an_error_that_nobody_foresaw_is_answered_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with open_lane(LEADER) as (node, port, _):
            monkeypatch.setattr(node.store, "get", lambda key: 1 / 0)
            heard = await answered(port, [ask("GET", "/kv/a") * 2])
            assert heard.count(b'"code":"internal_error"') == 2
        logged = [one for one in caplog.records if one.getMessage() == "request.failed"]
        assert len(logged) == 2
        assert logged[0].exc_info is not None

    run(main)


def test_a_slow_head_a_slow_body_and_an_idle_connection_end_as_on_hypercorn() -> None:
    async def main() -> None:
        for pieces, most_s in (
            ([b""], 101),
            ([b"GET /kv/a HT"], 106),
            ([ask("PUT", "/kv/a", value(1))[:-3]], 105),
        ):
            heard, took = [], []
            for fast in (True, False):
                async with open_lane(LEADER, fast=fast) as (_, port, _):
                    began = trio.current_time()
                    heard.append(undated(await converse(port, pieces, hangs_up=False)))
                    took.append(trio.current_time() - began)
            assert heard[0] == heard[1]
            assert took[1] - 1 <= took[0] <= took[1] + fastlane.PATIENCE_S + 2 * fastlane.LOOK_S
            assert took[0] <= most_s

    run(main)


@pytest.mark.parametrize("fast", [True, False])
def test_a_stop_answers_what_has_begun_and_closes_the_rest(
    fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow_get(node: Node, request: Any) -> Any:
        await trio.sleep(GRACE_S / 2)
        raise NotReady("slowly", waiting_for=[])

    route = fastlane._KEY_ROUTES["GET"]._replace(handler=slow_get)
    monkeypatch.setitem(fastlane._KEY_ROUTES, "GET", route)
    if not fast:
        monkeypatch.setattr("trikv.web.app.ROUTES", (route,))
    assert route.path == "/kv/{key}"

    async def main() -> None:
        async with open_lane(LEADER, fast=fast) as (_, port, stop):
            ended: dict[str, float] = {}
            heard: dict[str, bytes] = {}

            async def client(name: str, *pieces: bytes) -> None:
                heard[name] = await converse(port, pieces, hangs_up=False)
                ended[name] = trio.current_time()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(client, "idle")
                nursery.start_soon(client, "begun", ask("GET", "/kv/a"))
                nursery.start_soon(client, "two", ask("GET", "/kv/a") * 2)
                nursery.start_soon(client, "half", b"GET /kv/a HTTP/1.1\r\n")
                await trio.sleep(0.5)
                stopped = trio.current_time()
                stop.set()
            assert heard["idle"] == heard["half"] == b""
            assert max(ended["idle"], ended["half"]) < stopped + 0.1
            assert heard["begun"].startswith(b"HTTP/1.1 503 ")
            assert heard["two"].count(b"HTTP/1.1 503 ") == 1  # the second had not begun
            assert stopped + GRACE_S / 2 - 0.6 < ended["begun"] < stopped + GRACE_S

    run(main)


def test_a_client_that_resets_its_connection_ends_that_connection_and_nothing_else() -> None:
    async def main() -> None:
        async with open_lane(LEADER) as (node, port, _):
            for sent in (
                b"",
                b"GET /kv",
                ask("PUT", "/kv/a", value(1))[:-3],
                ask("PUT", "/kv/r", value(1)),
            ):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                stream.setsockopt(*server_reset())
                await stream.send_all(sent or b"G")
                await trio.sleep(0.1)
                stream.socket.close()
            await trio.sleep(0.1)
            assert node.store.get("r") is not None
            heard = await answered(port, [ask("GET", "/kv/r")])
            assert heard.startswith(b"HTTP/1.1 200 ")

    run(main)


def server_reset() -> tuple[int, int, bytes]:
    """The option that makes a close a reset."""
    import socket
    import struct

    return socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)


def test_the_access_log_is_the_same(caplog: pytest.LogCaptureFixture) -> None:
    said = [ask("PUT", "/kv/a%20b?trace=false", value(1), "User-Agent: me"), ask("GET", "/kv/none")]

    async def main() -> list[str]:
        lines = []
        for fast in (True, False):
            caplog.clear()
            async with open_lane(LEADER, fast=fast) as (_, port, _):
                await answered(port, said)
            told = [one.getMessage() for one in caplog.records if one.name == "trikv.http"]
            lines.append([re.sub(r"127\S*|\[.*?\]", "", line) for line in told])
        assert lines[0] == lines[1]
        return lines[0]

    with caplog.at_level(logging.DEBUG, log.logger.name):
        shown: list[str] = []

        async def keep() -> None:
            shown.extend(await main())

        run(keep)
    assert len(shown) == 2
    assert '"PUT /kv/a b 1.1" 200' in shown[0]


def test_a_handler_of_the_lane_is_that_of_the_table() -> None:
    assert fastlane._KEY_ROUTES["PUT"].handler is kv.put_key
    assert {*fastlane._KEY_ROUTES} == {"PUT", "GET", "DELETE"}
    assert {*fastlane._WHOLE_ROUTES} == {
        ("POST", b"/batch"),
        ("POST", b"/replicate"),
        ("GET", b"/kv"),
        ("GET", b"/health"),
        *(("POST", f"/admin/{name}".encode()) for name in ("quorum", "lag", "partition", "admit")),
    }
