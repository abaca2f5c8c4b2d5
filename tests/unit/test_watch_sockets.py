"""Streams on real sockets: readers that do not read hold up neither the node nor its stop."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.support import put, until
from tests.unit.test_fast_lane import LEADER, open_lane
from tests.unit.test_fuzz_wire import run
from trikv.network.socket_stream import SEND_S
from trikv.node.node import Node
from trikv.observe.change_stream import SLOW_S
from trikv.web.server import GRACE_S

CONFIG = LEADER.__class__(**{**LEADER.__dict__, "max_value_bytes": 2**20})

#: More than the kernel takes for a reader that does not read.
RECORDS, VALUE_BYTES = 60, 500_000


async def fill(node: Node) -> None:
    for i in range(RECORDS):
        await put(node, f"k{i:02}", "x" * VALUE_BYTES)


@asynccontextmanager
async def asking(port: int, target: str = "/watch") -> AsyncIterator[trio.SocketStream]:
    """A client that has asked, and takes little."""
    client = trio.socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
    await client.connect(("127.0.0.1", port))
    async with trio.SocketStream(client) as stream:
        await stream.send_all(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        yield stream


def test_a_reader_that_takes_nothing_is_cut_off() -> None:
    async def main() -> None:
        async with open_lane(CONFIG) as (node, port, _):
            await fill(node)
            async with asking(port) as deaf, asking(port, "/dump"):
                await until(lambda: len(node.watches) == 1)
                await trio.sleep(SEND_S - 1)
                assert len(node.watches) == 1
                (watch,) = node.watches._needs
                held = node.store.page_by_version(watch._place, 1000, 10**9)
                assert len(held) > RECORDS // 2  # it is not read into memory for a reader
                assert (await put(node, "other", 1))[0] == 200
                await trio.sleep(2)
                assert len(node.watches) == 0
                taken = b""
                while some := await deaf.receive_some(2**20):
                    taken += some
                assert b"event: end" not in taken  # it is cut off within an event

    run(main)


def test_a_reader_that_is_too_slow_is_told_so() -> None:
    async def main() -> None:
        async with open_lane(CONFIG) as (node, port, _):
            await fill(node)
            async with asking(port) as slow:
                heard = b""
                while some := await slow.receive_some(2**16):
                    heard += some
                    if len(heard) < RECORDS * VALUE_BYTES // 2:
                        await trio.sleep(SLOW_S / 5)
                    if heard.endswith(b"0\r\n\r\n"):
                        break
                events = heard.split(b"event: ")
                assert events[-1].startswith(b'end\ndata: {"reason":')
                assert b'"code":"slow_reader"' in events[-1]
                assert len(events) < RECORDS
                assert len(node.watches) == 0

    run(main)


def test_a_reader_that_takes_a_little_now_and_then_is_not_cut_off() -> None:
    async def main() -> None:
        async with open_lane(CONFIG) as (node, port, _):
            await fill(node)
            async with asking(port, "/dump") as slow:
                began = trio.current_time()
                for _ in range(30):
                    assert await slow.receive_some(2**18)
                    await trio.sleep(SEND_S / 5)
                assert trio.current_time() - began > 5 * SEND_S

    run(main)


def test_a_stop_ends_streams_at_once_and_waits_for_no_reader_that_does_not_read() -> None:
    async def main() -> None:
        for deaf, most_s in ((False, 0.5), (True, GRACE_S + 0.5)):
            async with open_lane(CONFIG) as (node, port, stop):
                if deaf:
                    await fill(node)
                async with asking(port) as stream:
                    await until(lambda node=node: len(node.watches) == 1)  # type: ignore[misc]
                    await trio.sleep(7)
                    began = trio.current_time()
                    stop.set()
                    if not deaf:
                        heard = b""
                        while some := await stream.receive_some():
                            heard += some
                        assert heard.endswith(b'"code":"stopping"}\n\n\r\n0\r\n\r\n')
                    await until(lambda node=node: len(node.watches) == 0)  # type: ignore[misc]
                    assert trio.current_time() - began <= most_s

    run(main)
