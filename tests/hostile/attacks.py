"""Attacks: one small function each, run in a process of its own beside a client that writes.

An attack is an async function of a `Target` with `@attack` above it. It returns, or if it is `endless`
is killed after `seconds`. It checks by itself what the nodes answer: an AssertionError fails the test.
It uses nothing of trikv, and opens connections to the target only.

    python -m tests.hostile.attacks NAME LEADER_PORT FOLLOWER_PORT
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, product

import trio

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Target:
    leader: int
    """Its port."""
    follower: int

    async def connect(self, port: int) -> trio.SocketStream:
        return await trio.open_tcp_stream(HOST, port)

    async def ask(self, port: int, request: bytes) -> bytes:
        """Send one request on a connection of its own; all that is answered until its end."""
        async with await self.connect(port) as stream:
            await stream.send_all(request)
            return b"".join([some async for some in stream])


@dataclass(frozen=True)
class Attack:
    name: str
    run: Callable[[Target], Awaitable[None]]
    seconds: float = 10.0
    """It is killed after so long."""
    endless: bool = False
    """It does not end by itself; one that should and does not is not answered."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings of both nodes, beside the usual ones."""
    descriptors: int | None = None
    """RLIMIT_NOFILE of both nodes."""
    max_rss_mb: float = 400
    """Most memory that either node may ever have had."""


ATTACKS: dict[str, Attack] = {}


def attack(
    name: str,
    *,
    seconds: float = 10.0,
    endless: bool = False,
    settings: Mapping[str, str] | None = None,
    descriptors: int | None = None,
    max_rss_mb: float = 400,
) -> Callable[[Callable[[Target], Awaitable[None]]], Callable[[Target], Awaitable[None]]]:
    """Register an attack under a name that stands in the table of docs/testing.md."""

    def register(run: Callable[[Target], Awaitable[None]]) -> Callable[[Target], Awaitable[None]]:
        ATTACKS[name] = Attack(name, run, seconds, endless, settings or {}, descriptors, max_rss_mb)
        return run

    return register


def request(method: str, target: str, body: bytes = b"", *headers: str) -> bytes:
    """One request after which the connection is to be closed."""
    lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", *headers]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def check_status(answer: bytes, *expected: int) -> None:
    """Raises AssertionError."""
    status = answer[9:12].decode()
    assert status in map(str, expected), f"expected {expected}, got {answer[:200]!r}"


async def in_parallel(count: int, work: Callable[[], Awaitable[None]]) -> None:
    """Run so many of the same at a time; the end of a connection ends one of them in silence."""

    async def one() -> None:
        with suppress(trio.BrokenResourceError, OSError):
            await work()

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)


# -- requests that take long to read --------------------------------------------------------------------


@attack("none", seconds=5, endless=True)
async def nothing(target: Target) -> None:
    """The client alone, for comparison."""
    await trio.sleep_forever()


@attack("repeated names, 347 KiB", seconds=60)
async def repeated_names(target: Target) -> None:
    names = 20_000
    fields = ",".join(f'"{index:x}":0' for index in range(names))
    body = f'{{"value":{{{fields},"{names - 1:x}":1}}}}'.encode()
    for _ in range(3):
        check_status(await target.ask(target.leader, request("PUT", "/kv/z", body)), 422)


@attack("10,000 header lines", seconds=60)
async def header_lines(target: Target) -> None:
    names = map("".join, product("abcdefghijklmnopqrstuvwxyz0123456789", repeat=3))
    lines = "".join(f"{name}:\r\n" for name in islice(names, 10_000))
    for _ in range(3):
        head = f"GET /kv/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n".encode()
        check_status(await target.ask(target.leader, head), 431)


@attack("a value of 8 million empty lists", seconds=60, max_rss_mb=500)
async def empty_lists(target: Target) -> None:
    value = b"[" + b"[]," * (8 * 2**20 - 1) + b"[]]"
    body = b'{"operations":[{"op":"put","key":"a","value":%b}]}' % value
    for _ in range(3):
        check_status(await target.ask(target.leader, request("POST", "/batch", body)), 413)


# -- connections ----------------------------------------------------------------------------------------


async def pipeline(target: Target, asked: bytes) -> None:
    """Keep sending on ten connections, and read what comes."""

    async def one() -> None:
        async with await target.connect(target.leader) as stream:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_all, stream)
                while True:
                    await stream.send_all(asked * 500)

    await in_parallel(10, one)


async def read_all(stream: trio.SocketStream) -> None:
    async for _ in stream:
        pass


@attack("pipelined reads on 10 connections", endless=True)
async def pipelined(target: Target) -> None:
    await pipeline(target, b"GET /kv/a HTTP/1.1\r\nHost: x\r\n\r\n")


@attack("the same, not plain (Hypercorn)", endless=True)
async def pipelined_slow(target: Target) -> None:
    await pipeline(target, b"GET /kv/a HTTP/1.1\r\nHost: x\r\nx-other: 1\r\n\r\n")


@attack("300 readers that take nothing", seconds=60, max_rss_mb=700)
async def readers_that_take_nothing(target: Target) -> None:
    """Each asks for 1 MiB, and must be cut off: within 30 s, and some."""
    value = request("PUT", "/kv/large", b'{"value":"%b"}' % (b"x" * (2**20 - 2)))
    check_status(await target.ask(target.leader, value), 200)
    streams = []
    for _ in range(300):
        sock = trio.socket.socket()
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
        await sock.connect((HOST, target.leader))
        await sock.send(b"GET /kv/large HTTP/1.1\r\nHost: x\r\n\r\n")
        streams.append(trio.SocketStream(sock))
    await trio.sleep(36)
    for stream in streams:
        with trio.fail_after(1):
            taken = sum([len(some) async for some in stream])
        assert taken < 2**20, "not cut off"


@attack("400 idle connections, 256 descriptors", descriptors=256, endless=True)
async def idle_connections(target: Target) -> None:
    """On both nodes; each that is closed is opened anew."""

    async def one(port: int) -> None:
        while True:
            with_end = trio.move_on_after(5)
            with with_end:
                async with await target.connect(port) as stream:
                    await stream.receive_some()
            await trio.sleep(0.5)

    async with trio.open_nursery() as nursery:
        for port in (target.leader, target.follower):
            nursery.start_soon(in_parallel, 400, lambda port=port: one(port))


# -- bodies --------------------------------------------------------------------------------------------


async def held_bodies(target: Target, port: int, *expected: int) -> None:
    """40 bodies of 40 MB whose last byte never comes."""
    length = 40 * 2**20
    head = f"POST /replicate HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()
    piece = b" " * 2**16

    async def one() -> None:
        async with await target.connect(port) as stream:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, stream)
                answer = b""
                while len(answer) < 12 and (some := await stream.receive_some()):
                    answer += some
                nursery.cancel_scope.cancel()
                check_status(answer, *expected)

    async def send(stream: trio.SocketStream) -> None:
        try:
            await stream.send_all(head)
            for sent in range(0, length, len(piece)):
                await stream.send_all(piece[: min(len(piece), length - 1 - sent)])
            await trio.sleep_forever()
        except trio.BrokenResourceError:
            pass

    await in_parallel(40, one)


@attack("40 held bodies of 40 MB at the leader", seconds=45)
async def held_at_leader(target: Target) -> None:
    await held_bodies(target, target.leader, 403)


@attack("40 held bodies of 40 MB at a follower", seconds=45)
async def held_at_follower(target: Target) -> None:
    await held_bodies(target, target.follower, 503, 408)


def body_pieces(size: int) -> Iterator[bytes]:
    for begin in range(0, size, 2**16):
        yield b"x" * min(2**16, size - begin)


@attack("a body that is too large, sent to its end")
async def too_large(target: Target) -> None:
    """The client reads only once it has sent everything, and must see the answer."""
    for port, size, status in (
        (target.leader, 30 * 2**20, 413),
        (target.follower, 5 * 2**20, 403),
    ):
        async with await target.connect(port) as stream:
            head = f"PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
            await stream.send_all(head.encode())
            for piece in body_pieces(size):
                await stream.send_all(piece)
            check_status(await stream.receive_some(), status)


# -- scans ----------------------------------------------------------------------------------------------


async def read_to_the_end(target: Target, port: int, asked: bytes) -> tuple[bytes, int]:
    """The beginning of an answer, and its size; nothing of it is kept."""
    async with await target.connect(port) as stream:
        await stream.send_all(asked)
        first, size = b"", 0
        async for some in stream:
            first = first or bytes(some)
            size += len(some)
        return first, size


@attack("20 comparisons and digests, 3 dumps of 200 MB", seconds=150, max_rss_mb=700)
async def scans(target: Target) -> None:
    """Each reads everything: they must share runs, and show no more than there is room for."""
    for index in range(400):
        body = b'{"value":"%b"}' % (b"x" * 500_000)
        check_status(await target.ask(target.leader, request("PUT", f"/kv/l{index}", body)), 200)

    async def ask(port: int, path: str, most: int) -> None:
        first, size = await read_to_the_end(target, port, request("GET", path))
        check_status(first, 200)
        assert size < most, f"{path}: {size} bytes"

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask, target.leader, "/admin/replica-status?data=true", 20_000_000)
            nursery.start_soon(ask, target.leader, "/admin/replica-status", 10_000)
            nursery.start_soon(ask, target.follower, "/replica", 10_000)
        for _ in range(3):
            nursery.start_soon(ask, target.leader, "/dump", 210_000_000)


@attack("a batch beyond all bounds", seconds=60, max_rss_mb=600)
async def beyond_bounds(target: Target) -> None:
    head = b'{"leader":{"node_id":"x"},"epoch":"1.x","records":['
    values = b",".join(b'"%x":1' % index for index in range(300_000))
    many = b'%b{"version":"1.x-1","values":{%b}}]}' % (head, values)
    large = b'%b{"version":"1.x-1","key":"a","value":"%b"}]}' % (head, b"x" * 30_000_000)
    for body, status in ((many, 422), (large, 413)):
        answer = await target.ask(target.follower, request("POST", "/replicate", body))
        check_status(answer, status)


# -- requests that are read in two ways -----------------------------------------------------------------


@attack("requests that are read in two ways")
async def ambiguous(target: Target) -> None:
    lag = b'{"min_delay_ms":7,"max_delay_ms":7}'
    length = f"Content-Length: {len(lag)}"
    for method, where, version, headers, status in (
        ("POST", "*://x/admin/lag", "1.1", [length], 400),
        ("POST", "http:///admin/lag", "1.1", [length], 400),
        ("post", "/admin/lag", "1.1", [length], 501),
        ("POST", "/admin/lag", "9.9", [length], 505),
        ("POST", "/admin/lag", "1.1", [length, "Transfer-Encoding: chunked"], 400),
    ):
        lines = [f"{method} {where} HTTP/{version}", "Host: x", *headers, "", ""]
        answer = b""
        with trio.move_on_after(5):
            answer = await target.ask(target.leader, "\r\n".join(lines).encode() + lag)
        check_status(answer, status)
        assert answer.count(b"HTTP/1.1 ") == 1, answer


def main() -> None:
    _, name, leader, follower = sys.argv
    trio.run(ATTACKS[name].run, Target(int(leader), int(follower)))


if __name__ == "__main__":
    main()
