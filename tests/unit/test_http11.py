"""HTTP/1.1 on both lanes: what is refused, how a connection goes on, what a refused client sees."""

from __future__ import annotations

import gc
import re
import socket
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus

import h11
import pytest
import trio

from tests.unit.test_fast_lane import FOLLOWER, LEADER, answered, ask, open_lane, value
from tests.unit.test_fuzz_wire import converse, run
from trikv.budget import FREE_BYTES
from trikv.config import Config
from trikv.network.socket_stream import SEND_S
from trikv.web.app import BODY_TIMEOUT_S
from trikv.web.http11 import DROP_S, MAX_EMPTY_LINES, MAX_HEAD_LINES, check_request
from trikv.web.plain import MAX_HEAD_BYTES

GET = ask("GET", "/health")
LAG = b'{"min_delay_ms": 0, "max_delay_ms": 0}'
both_lanes = pytest.mark.parametrize("fast", [True, False], ids=["fast", "hypercorn"])


async def say(said: Sequence[bytes], *, fast: bool) -> bytes:
    async with open_lane(LEADER, fast=fast) as (_, port, _):
        return await answered(port, said)


def statuses(heard: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d{3}) ", heard)]


def lines(count: int) -> list[str]:
    return [f"x{index}: 1" for index in range(count)]


@both_lanes
@pytest.mark.parametrize(
    ("refused", "status"),
    [
        (ask("POST", "*://x/admin/lag", LAG), 400),
        (ask("POST", "x://x/admin/lag", LAG), 400),
        (ask("POST", "http:///admin/lag", LAG), 400),
        (ask("POST", "http://me@/admin/lag", LAG), 400),
        (ask("POST", "http://:80/admin/lag", LAG), 400),
        (ask("POST", "admin/lag", LAG), 400),
        (ask("POST", "*", LAG), 400),
        (ask("post", "/admin/lag", LAG), 501),
        (ask("Get", "/health"), 501),
        (ask("GET", "/health", version="9.9"), 505),
        (ask("GET", "/health", version="0.9"), 505),
        (ask("POST", "/admin/lag", LAG, "Transfer-Encoding: chunked"), 400),
        (ask("POST", "/admin/lag", None, "Transfer-Encoding: chunked", version="1.0"), 400),
        (b"GET /kv/a HTTP/1.1\nHost: x\n\n", 400),
        (b"GET /kv/a HTTP/1.1\r\nHost: x\r\nx: b\nContent-Length: 3\r\n\r\nabc", 400),
        (b"GET /kv/a HTTP/1.1\r\nHost: x\r\nx: b\r\n Content-Length: 3\r\n\r\n", 400),
        (ask("GET", "/kv/a", None, *lines(MAX_HEAD_LINES)), 431),
        (ask("GET", "/kv/a", None, *lines(2_000)), 431),
        (ask("GET", "/kv/a", None, f"x: {'z' * MAX_HEAD_BYTES}"), 431),
    ],
)
def test_a_head_that_is_ambiguous_or_too_large_is_refused_and_ends_its_connection(
    fast: bool, refused: bytes, status: int
) -> None:
    async def main() -> None:
        heard = await say([refused + GET], fast=fast)
        assert statuses(heard) == [status]
        assert b"\r\nconnection: close\r\n" in heard.lower()

    run(main)


@both_lanes
@pytest.mark.parametrize(
    "taken",
    [
        ask("GET", "http://elsewhere/health"),
        ask("GET", "HTTPS://me@elsewhere:443/health?"),
        ask("GET", "/health", version="1.2"),
        ask("GET", "/health", None, *lines(MAX_HEAD_LINES - 1)),
        ask("GET", "/health", None, f"x: {'z' * (MAX_HEAD_BYTES - 100)}"),
    ],
)
def test_what_is_unusual_and_clear_is_taken(fast: bool, taken: bytes) -> None:
    async def main() -> None:
        assert statuses(await say([taken + GET], fast=fast)) == [200, 200]

    run(main)


@pytest.mark.parametrize(
    ("target", "is_one"),
    [(b"*", True), (b"/", True), (b"x", False), (b"http://h", True), (b"http://?", False)],
)
def test_a_target_is_a_path_or_a_url_or_a_star_with_options(target: bytes, is_one: bool) -> None:
    asked = h11.Request(method="OPTIONS", target=target, headers=[("Host", "a")])
    if is_one:
        check_request(asked)
    else:
        with pytest.raises(h11.RemoteProtocolError):
            check_request(asked)


@both_lanes
@pytest.mark.parametrize("pieces", [1, 1000])
def test_empty_lines_before_requests_and_behind_bodies_are_passed_over(
    fast: bool, pieces: int
) -> None:
    put = ask("PUT", "/kv/a", value(1))
    said = b"\r\n\r\n" + put + b"\r\n" + put + b"\r\n" * MAX_EMPTY_LINES + GET + b"\r\n"

    async def main() -> None:
        cuts = [said] if pieces == 1 else [said[i : i + 1] for i in range(len(said))]
        assert statuses(await say(cuts, fast=fast)) == [200, 200, 200]
        closing = ask("PUT", "/kv/a", value(1), "Connection: close")
        assert statuses(await say([closing + b"\r\n"], fast=fast)) == [200]
        heard = await say([b"\r\n" * (MAX_EMPTY_LINES + 1) + GET], fast=fast)
        assert statuses(heard) == [400]

    run(main)


@both_lanes
def test_a_client_of_http_1_0_keeps_its_connection_if_it_asks_for_it(fast: bool) -> None:
    kept = ask("GET", "/health", None, "Connection: Keep-Alive", version="1.0")

    async def main() -> None:
        heard = await say([kept + kept + ask("GET", "/health", version="1.0") + GET], fast=fast)
        assert statuses(heard) == [200, 200, 200]
        assert heard.count(b"\r\nconnection: keep-alive\r\n") == 2
        assert heard.lower().count(b"\r\nconnection: close\r\n") == 1
        stream = ask("GET", "/dump", None, "Connection: keep-alive", version="1.0")
        heard = await say([stream + GET], fast=fast)
        assert statuses(heard) == [200]
        assert b"\r\nconnection: close\r\n" in heard.lower()  # its end is that of the connection
        assert b"chunked" not in heard

    run(main)


@both_lanes
def test_a_status_line_has_its_phrase(fast: bool) -> None:
    async def main() -> None:
        said = [
            *(ask("GET", "/health"), ask("GET", "/kv/none"), ask("PUT", "/kv/a", b"{")),
            *(ask("GET", "/kv/a?x=1"), ask("PUT", "/kv/a", value("x" * 3000)), ask("POST", "/kv")),
            ask("GET", "*"),
        ]
        heard = await say([b"".join(said)], fast=fast)
        expected = [200, 404, 400, 422, 413, 405, 400]
        assert statuses(heard) == expected
        for status in expected:
            assert f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode() in heard
        heard = await say([ask("PUT", "/kv/a", b"", "Expect: 100-continue")[:-1]], fast=fast)
        assert heard == b"" or heard.startswith(b"HTTP/1.1 100 Continue\r\n")

    run(main)


# -- a refusal is seen ---------------------------------------------------------------------------------


@both_lanes
@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("POST /admin/lag HTTP/1.1\r\nHost: a\r\n", 413),
        ("POST /admin/lag HTTP/9.9\r\nHost: a\r\n", 505),
    ],
)
def test_a_client_that_reads_once_it_has_sent_everything_sees_why_it_was_refused(
    fast: bool, head: str, status: int
) -> None:
    size = 20 * 2**20

    async def main() -> None:
        async with open_lane(LEADER, fast=fast) as (_, port, _):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(f"{head}Content-Length: {size}\r\n\r\n".encode())
                for _ in range(size // 2**16):
                    await stream.send_all(b" " * 2**16)
                heard = b"".join([some async for some in stream])
        assert statuses(heard) == [status]

    run(main)


@both_lanes
def test_what_a_refused_client_sends_is_read_for_a_while_only(fast: bool) -> None:
    async def main() -> None:
        async with open_lane(LEADER, fast=fast) as (node, port, _):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(ask("GET", "*"))
                while await stream.receive_some():
                    pass
                assert node.tally.connections["hypercorn"] == 1  # its end is open yet
                await trio.sleep(DROP_S + 0.5)
                assert node.tally.connections["hypercorn"] == 0
            heard = await converse(port, [GET], hangs_up=False)
        assert statuses(heard) == [200]

    run(main)


# -- bodies ---------------------------------------------------------------------------------------------


@both_lanes
@pytest.mark.parametrize(
    ("config", "line", "status"),
    [
        (LEADER, "POST /replicate", 403),
        (FOLLOWER, "PUT /kv/a", 403),
        (FOLLOWER, "POST /batch", 403),
    ],
)
def test_a_large_body_for_another_role_is_refused_before_it_comes(
    fast: bool, config: Config, line: str, status: int
) -> None:
    announced = f"{line} HTTP/1.1\r\nHost: a\r\nContent-Length: {FREE_BYTES + 1}\r\n\r\n".encode()
    chunked = f"{line} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunk = b"%x\r\n%b\r\n" % (FREE_BYTES + 1, b" " * (FREE_BYTES + 1))

    async def main() -> None:
        async with open_lane(replace(config, max_value_bytes=2**20), fast=fast) as (_, port, _):
            began = trio.current_time()
            for said in (announced, chunked + chunk):
                assert statuses(await answered(port, [said])) == [status]
            assert trio.current_time() - began < 2 * DROP_S
            method, target = line.split()
            small = ask(method, target, b"{}")
            heard = await answered(port, [small[:-2], small[-2:] + GET])
            assert statuses(heard) == [status, 200]  # its connection is kept

    run(main)


@both_lanes
def test_bodies_in_progress_share_one_budget_and_give_back_what_they_held(
    fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 2**20
    head = f"PUT /kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode()

    async def main() -> None:
        async with open_lane(replace(LEADER, max_value_bytes=2**20), fast=fast) as (node, port, _):
            node.bodies.limit_bytes = 3 * size
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    said = [head + b" " * (size - 1)]
                    nursery.start_soon(partial(converse, port, said, hangs_up=False))
                await trio.sleep(1)
                assert 0 <= node.bodies.held_bytes - 3 * (size - 1 - FREE_BYTES) < 1000
                full = value("x" * (size - 12))
                heard = await answered(port, [ask("PUT", "/kv/b", full)])
                assert statuses(heard) == [503]
                assert b"\r\nretry-after: 1\r\n" in heard
                assert b'"code":"overloaded"' in heard
                heard = await answered(port, [ask("PUT", "/kv/b", value(1))])
                assert statuses(heard) == [200]  # a small one is taken
                await trio.sleep(BODY_TIMEOUT_S + 10)
                assert node.bodies.held_bytes == 0
                assert statuses(await answered(port, [ask("PUT", "/kv/b", full)])) == [200]
            assert node.bodies.held_bytes == 0
            for body in (b" " * (size - 1), b"{" * size):  # given up; not JSON
                await converse(port, [head + body], hangs_up=len(body) < size)
                await trio.sleep(1)
                assert node.bodies.held_bytes == 0

    run(main)


@both_lanes
def test_the_bytes_of_a_body_that_was_given_up_are_freed_without_a_search_for_cycles(
    fast: bool,
) -> None:
    size = 2**20
    stalled = f"PUT /kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode()
    stalled += b" " * (size - 1)
    endless = b"PUT /kv/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    endless += b"%x\r\n%b" % (10 * size, b" " * 7 * size)

    async def main() -> None:
        config = replace(LEADER, max_value_bytes=2**20)
        async with open_lane(config, fast=fast) as (_, port, _):
            await converse(port, [stalled], hangs_up=False)
            tracemalloc.start()
            gc.disable()
            try:
                for _ in range(4):
                    await converse(port, [stalled], hangs_up=False)
                    await converse(port, [stalled], hangs_up=True)
                    await converse(port, [endless], hangs_up=False)
                await trio.sleep(1)
                kept, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
                gc.enable()
            assert kept < 2 * size

    run(main)


# -- nobody waits for another --------------------------------------------------------------------------


@both_lanes
def test_many_requests_of_one_connection_let_others_have_their_turn(fast: bool) -> None:
    many = 1500

    async def main() -> None:
        async with open_lane(LEADER, fast=fast) as (node, port, _):

            def reads() -> int:
                told = node.tally.routes.get(("GET", "/kv/{key}"))
                return 0 if told is None else sum(told.classes)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(answered, port, [ask("GET", "/kv/a") * many])
                while not reads():
                    await trio.lowlevel.checkpoint()
                await answered_once(port, ask("PUT", "/kv/b", value(1)))
                assert reads() < many // 2
            assert reads() == many

    run(main)


async def answered_once(port: int, request: bytes) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request)
        assert await stream.receive_some()


@both_lanes
def test_a_reader_that_takes_nothing_of_one_answer_is_cut_off(fast: bool) -> None:
    size = 8 * 2**20  # more than the kernel takes

    async def main() -> None:
        config = replace(LEADER, max_value_bytes=2**24)
        async with open_lane(config, fast=fast) as (node, port, _):
            await answered(port, [ask("PUT", "/kv/a", value("x" * size))])
            sock = trio.socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await sock.connect(("127.0.0.1", port))
            async with trio.SocketStream(sock) as deaf:
                await deaf.send_all(ask("GET", "/kv/a"))
                await trio.sleep(SEND_S - 1)
                assert sum(node.tally.connections.values()) == 1
                await trio.sleep(2)
                assert sum(node.tally.connections.values()) == 0

    run(main)
