"""The kept connection of a link: replies of every kind, from a server that says what it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import MockClock, open_stream_to_socket_listener

from trikv.errors import PeerFailed
from trikv.network.peer_connection import Kept
from trikv.network.socket_stream import ByteStream

OK = b"HTTP/1.1 200 \r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture
def quiet_clock() -> MockClock:
    """Time passes as soon as no byte has moved for a moment."""
    return MockClock(autojump_threshold=0.01)


class Scripted:
    """A server whose connections answer request after request with the next of these replies.

    A piece that is empty closes the connection.
    """

    def __init__(self, replies: Sequence[Sequence[bytes]]) -> None:
        self.replies = list(replies)
        self.heard: list[bytes] = []
        self.connections = 0
        self.port = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await self._serve(stream)

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        while True:
            request = b""
            while not request.endswith(b"\r\n\r\nbody"):
                some = await stream.receive_some()
                if not some:
                    return
                request += some
            self.heard.append(request)
            for piece in self.replies.pop(0):
                if not piece:
                    return
                await stream.send_all(piece)
                await trio.sleep(0.001)


@asynccontextmanager
async def scripted(*replies: Sequence[bytes]) -> AsyncIterator[tuple[Scripted, Kept]]:
    server = Scripted(replies)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, server.serve, 0)
        server.port = listeners[0].socket.getsockname()[1]
        kept = Kept(f"http://127.0.0.1:{server.port}")
        with trio.fail_after(20):
            yield server, kept
        kept.close()
        nursery.cancel_scope.cancel()


async def test_requests_share_a_connection_and_are_whole(quiet_clock: MockClock) -> None:
    async with scripted([OK], [bytes([byte]) for byte in OK], [OK]) as (server, kept):
        for _ in range(3):
            assert await kept.post("/replicate", b"body", 100) == (200, b"ok")
        assert server.connections == 1
        assert server.heard[0] == (
            b"POST /replicate HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
            b"Content-Length: 4\r\n\r\nbody" % server.port
        )


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ([b"HTTP/1.1 409 \r\nContent-Length: 1\r\n\r\nx"], (409, b"x")),
        (
            [b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", b"0\r\n\r\n"],
            (200, b"a"),
        ),
        ([b"HTTP/1.1 100 \r\n\r\n", OK], (200, b"ok")),
    ],
)
async def test_a_complete_reply_is_a_reply(
    reply: list[bytes], told: tuple[int, bytes], quiet_clock: MockClock
) -> None:
    async with scripted(reply, [OK]) as (_, kept):
        assert await kept.post("/replicate", b"body", 100) == told
        assert await kept.post("/replicate", b"body", 100) == (200, b"ok")


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ([b""], "before its answer was complete"),
        ([OK[:-1], b""], "before its answer was complete"),
        ([b"HTTP/1.1 200 \r\nContent-Length: 101\r\n\r\n" + b"x" * 101], "more than 100 bytes"),
        ([b"SSH-2.0-OpenSSH\r\n"], "not HTTP"),
        ([OK + OK], "once more than it was asked"),
        ([b"HTTP/1.1 200 \r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"], "not HTTP"),
        ([b"HTTP/1.1 101 \r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"], "not HTTP"),
    ],
)
async def test_anything_else_fails_and_its_connection_is_not_used_again(
    reply: list[bytes], why: str, quiet_clock: MockClock
) -> None:
    async with scripted(reply, [OK]) as (server, kept):
        with pytest.raises(PeerFailed, match=why):
            await kept.post("/replicate", b"body", 100)
        assert await kept.post("/replicate", b"body", 100) == (200, b"ok")
        assert server.connections == 2


async def test_what_is_cut_short_leaves_nothing_for_the_next(quiet_clock: MockClock) -> None:
    async with scripted([OK[:-1]], [OK]) as (server, kept):
        with trio.move_on_after(0.2) as scope:
            await kept.post("/replicate", b"body", 100)
        assert scope.cancelled_caught
        assert await kept.post("/replicate", b"body", 100) == (200, b"ok")
        assert server.connections == 2


@pytest.mark.parametrize("behind", [b"", b"HTTP/1.1 500 \r\nContent-Length: 0\r\n\r\n"])
async def test_a_connection_that_was_closed_or_babbles_meanwhile_fails_the_next_request(
    behind: bytes, quiet_clock: MockClock
) -> None:
    """The node may have been started again since, and know less than it has acknowledged."""
    async with scripted([OK, behind], [OK]) as (server, kept):
        assert await kept.post("/replicate", b"body", 100) == (200, b"ok")
        await trio.sleep(0.05)
        with pytest.raises(PeerFailed, match="closed the connection since its last answer"):
            await kept.post("/replicate", b"body", 100)
        assert await kept.post("/replicate", b"body", 100) == (200, b"ok")
        assert server.connections == 2


async def test_after_a_close_it_connects_anew(quiet_clock: MockClock) -> None:
    async with scripted([OK], [OK]) as (server, kept):
        assert await kept.post("/replicate", b"body", 100) == (200, b"ok")
        kept.close()
        assert await kept.post("/replicate", b"body", 100) == (200, b"ok")
        assert server.connections == 2


async def test_nobody_there_is_an_os_error(quiet_clock: MockClock) -> None:
    async with scripted() as (server, _):
        port = server.port
    with pytest.raises(OSError, match=r".+"):
        await Kept(f"http://127.0.0.1:{port}").post("/replicate", b"body", 100)


async def test_a_stream_sends_more_than_fits_and_gives_others_their_turn(
    quiet_clock: MockClock,
) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    client = await open_stream_to_socket_listener(listeners[0])
    assert isinstance(client, trio.SocketStream)
    server = await listeners[0].accept()
    here, there = ByteStream.take(client), ByteStream.take(server)
    data = bytes(range(256)) * 40_000
    heard = bytearray()

    async def hear() -> None:
        while len(heard) < len(data):
            heard.extend(await there.receive(2**16))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear)
        await here.send(data)
    assert heard == data
    assert here.is_quiet()
    await there.send(b"x")
    await trio.sleep(0.01)
    assert not here.is_quiet()
    turns: list[int] = []

    async def other() -> None:
        for turn in range(10):
            turns.append(turn)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(10):  # there is always something to receive
            await there.send(b"x")
            assert await here.receive(1)
        assert len(turns) >= 9
    there.close()
    there.close()
    while await here.receive(100):
        pass
    await here.send(b"x")
    await trio.sleep(0.01)  # the answer is a reset
    with pytest.raises(OSError, match=r".+"):
        await here.send(b"x")
    here.close()
    assert not here.is_quiet()
    for listener in listeners:
        await listener.aclose()
