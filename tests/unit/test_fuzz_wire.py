"""The real server, on a real socket: rubbish, halves of requests, many in one, byte by byte.

What the app cannot see is decided by Hypercorn and h11, and by how `trikv.web.server` runs them. A
client here sends its bytes in pieces, and reads until the server closes the connection, or hangs up.

Server and client share one process and a mock clock that jumps as soon as no byte moves any more: so
the server's patience with half a request, or an idle connection, runs out without anybody's waiting. The
node is a follower without a leader, which has nothing to do by itself.

What is answered must be HTTP, none of it a 500, and afterwards the node still takes a record.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import h11
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.support import MemoryNetwork, lone_leaf, open_memory_node
from tests.unit import fuzzing as fuzz
from tests.unit.fuzzing import examples
from trikv.config import Config
from trikv.node.node import Node
from trikv.web.server import listen, serve

#: The server's own patience with a body, then with an idle connection, and some more.
PATIENCE_S = 300

#: Real seconds without a byte, on a loopback within one process: nothing is on its way any more.
QUIET_S = 0.01

_plain = b'{"key": "after", "value": 1, "timestamp": 1}'
PLAIN = b"POST /replicate HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b" % (
    len(_plain),
    _plain,
)
GOOD = b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n"
UPGRADE = (
    b"connection: upgrade\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: YWFhYWFhYWFhYWFhYWFhYQ==\r\n"
)

request_lines = st.builds(
    "{} {} {}".format,
    st.sampled_from(
        ["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "CONNECT", "get", "\x00", ""]
    ),
    st.sampled_from(["/kv/a", "/kv", "/dump", "/replicate", "/health?ready=true", "*", "//", ""])
    | st.sampled_from(
        ["http://[", "http://h/kv/a", "h:1", "/kv/%ff", "/kv/" + "x" * 600, "/\xff", "?"]
    )
    | st.just("/" + "y" * 20_000),
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/9", "http/1.1", ""]),
).map(lambda line: line.encode("latin-1") + b"\r\n")
headers = st.lists(
    st.sampled_from(
        [
            *(b"host: a\r\n", b"host: a b\r\n", b"host: " + b"9" * 400 + b"\r\n", b"host: [\r\n"),
            *(
                b"content-length: %b\r\n" % n
                for n in (b"0", b"5", b"-1", b"x", b"9" * 30, b"5, 5", b"")
            ),
            *(b"transfer-encoding: %b\r\n" % t for t in (b"chunked", b"gzip", b"chunked, chunked")),
            *(
                b"connection: %b\r\n" % c
                for c in (b"close", b"keep-alive", b"upgrade, http2-settings")
            ),
            *(b"expect: 100-continue\r\n", b"expect: 200-ok\r\n", b"no colon\r\n", b" folded\r\n"),
            *(b"upgrade: websocket\r\n" + UPGRADE, b"upgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"),
            *(b"x: \x00\r\n", b"x: \xff\xfe\r\n", b"\xe9: 1\r\n", b": 1\r\n", b"x:1\nhost: b\r\n"),
            b"long: " + b"z" * 20_000 + b"\r\n",
        ]
    ),
    max_size=4,
).map(b"".join)
contents = st.sampled_from(
    [
        *(b"", b'{"value": 1}', b"5\r\n", b"\r\n\r\n", b"\x00" * 50),
        *(
            b"0\r\n\r\n",
            b"c\r\n" + b'{"value": 1}' + b"\r\n0\r\n\r\n",
            b"fffffffffff\r\nx",
            b"-1\r\nx\r\n",
        ),
        *(b"c;ext=1\r\n" + b'{"value": 1}' + b"\r\n0\r\nhost: b\r\n\r\n", b"zz\r\n\r\n"),
    ]
)
well_framed = st.sampled_from([GOOD, b"GET /kv/a HTTP/1.1\r\nhost: a\r\n\r\n"]) | fuzz.bodies_like(
    fuzz.shaped({"value": fuzz.values})
).map(
    lambda body: (
        b"PUT /kv/a HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )
)
halves = st.builds(lambda whole, lost: whole[:-lost], well_framed, st.integers(1, 9))
odd = st.one_of(
    halves,
    fuzz.mutated(well_framed),
    st.tuples(request_lines, headers, st.just(b"\r\n"), contents).map(b"".join),
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"\r\n" * 50,
        ]
    ),
)


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """What one client sends, in pieces: requests one behind the other, most of them not whole."""
    sent = b"".join(draw(st.lists(well_framed | odd | halves, min_size=1, max_size=3)))
    cuts = sorted(draw(st.lists(st.integers(0, len(sent)), max_size=4)))
    if 0 < len(sent) < 200 and draw(st.integers(0, 3)) == 3:
        cuts = list(range(len(sent)))  # byte by byte
    return [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True) if b > a]


async def converse(port: int, pieces: Sequence[bytes], *, hangs_up: bool) -> bytes:
    """Say it all, and hear all that is answered; or go away without listening."""
    heard = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        try:
            for piece in pieces:
                await stream.send_all(piece)
            if hangs_up:
                return b""
            async for some in stream:
                heard += some
        except trio.BrokenResourceError:  # refused, and closed, before it had heard all
            pass
    return heard


def check_heard(heard: bytes) -> None:
    """Whether it is answers, none of them a 500."""
    statuses = re.findall(rb"^HTTP/\S+ (\d{3})", heard, re.MULTILINE)
    assert bool(statuses) == bool(heard), heard
    assert b"500" not in statuses, heard
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    client.receive_data(heard)
    assert not heard or isinstance(client.next_event(), h11.Response | h11.InformationalResponse)


@asynccontextmanager
async def open_server() -> AsyncIterator[tuple[Node, int]]:
    """A lone follower on a real socket, and its port."""
    config = Config(node_id="lone", role="follower", host="127.0.0.1", port=0)
    listeners, port = await listen(config)
    stop = trio.Event()
    async with open_memory_node(config, MemoryNetwork(), "http://lone") as node:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve, node, listeners, stop.wait))
            yield node, port
            stop.set()


def run(main: Callable[[], Awaitable[None]]) -> None:
    try:
        trio.run(main, clock=MockClock(autojump_threshold=QUIET_S))
    except BaseExceptionGroup as group:
        raise lone_leaf(group) from None


@examples(15)
@given(st.lists(st.tuples(conversations(), st.booleans()), min_size=6, max_size=15))
def test_whatever_is_on_the_wire_the_server_answers_or_hangs_up(
    said: list[tuple[list[bytes], bool]],
) -> None:
    async def main() -> None:
        async with open_server() as (node, port):
            for pieces, hangs_up in said:
                heard = None
                with trio.move_on_after(PATIENCE_S):
                    heard = await converse(port, pieces, hangs_up=hangs_up)
                assert heard is not None, pieces
                check_heard(heard)
            with trio.fail_after(PATIENCE_S):
                heard = await converse(port, [PLAIN[:-5]], hangs_up=False)
            assert heard.startswith(b"HTTP/1.1 408 "), heard
            assert node.store.get("after") is None
            with trio.fail_after(PATIENCE_S):
                heard = await converse(port, [PLAIN], hangs_up=False)
            assert heard.startswith(b"HTTP/1.1 200 "), heard
            assert node.store.get("after") is not None

    run(main)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (GOOD[:-2] + b"upgrade: websocket\r\n" + UPGRADE + b"\r\n", b"200"),
        (GOOD[:-2] + b"upgrade: websocket\r\nconnection: upgrade\r\n\r\n", b"200"),
        (GOOD[:-2] + b"upgrade: h2c\r\nconnection: upgrade\r\nhttp2-settings: A\r\n\r\n", b"200"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
    ],
)
def test_other_protocols_are_passed_over(said: bytes, status: bytes) -> None:
    """A server may do so, and an answer is better than a connection on which nothing comes."""

    async def main() -> None:
        async with open_server() as (_, port):
            with trio.fail_after(PATIENCE_S):
                heard = await converse(port, [said], hangs_up=False)
            assert heard.startswith(b"HTTP/1.1 " + status), heard

    run(main)
