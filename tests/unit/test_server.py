"""The listening socket: who comes at once is accepted at once, and takes all turns from nobody."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

from tests.unit.test_fast_lane import LEADER, answered, ask, open_lane
from tests.unit.test_fuzz_wire import run
from trikv.config import Config
from trikv.errors import SettingError
from trikv.web.fastlane import IDLE_S
from trikv.web.listener import ACCEPTED_AT_ONCE, PAUSE_S, SAY_EVERY_S, Listener, max_connections
from trikv.web.server import listen


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Listener, int]]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    port = listener.socket.getsockname()[1]
    async with Listener(listener) as ours:
        yield ours, port


def crowd(stack: ExitStack, port: int, clients: int) -> None:
    for _ in range(clients):
        stack.enter_context(socket.create_connection(("127.0.0.1", port)))


async def turns_to_accept(listener: Listener, clients: int) -> int:
    """How many turns another task got meanwhile."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        for _ in range(clients):
            stream = await listener.accept()
            stream.socket.close()
        nursery.cancel_scope.cancel()
    return turns


async def test_clients_that_come_at_once_wait_for_no_turn_each() -> None:
    async with listening() as (listener, port):
        with ExitStack() as stack:
            crowd(stack, port, ACCEPTED_AT_ONCE)
            assert await turns_to_accept(listener, ACCEPTED_AT_ONCE) <= 1


async def test_a_crowd_takes_all_turns_from_nobody() -> None:
    async with listening() as (listener, port):
        with ExitStack() as stack:
            crowd(stack, port, 6 * ACCEPTED_AT_ONCE)
            assert 2 <= await turns_to_accept(listener, 6 * ACCEPTED_AT_ONCE) <= 6


@pytest.mark.parametrize(
    "name", ["ECONNABORTED", "EPERM", "EPROTO", "ENETUNREACH", "ETIMEDOUT", "ECONNRESET"]
)
async def test_a_client_that_has_left_meanwhile_is_passed_over(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with listening() as (listener, port):
        inner = listener._socket

        class Aborted:
            told = False

            def accept(self) -> tuple[socket.socket, object]:
                if not self.told:
                    self.told = True
                    raise OSError(getattr(errno, name), "gone")
                return inner.accept()

        with ExitStack() as stack:
            crowd(stack, port, 1)
            with monkeypatch.context() as patch:
                patch.setattr(listener, "_socket", Aborted())
                stream = await listener.accept()
            await stream.aclose()


async def test_a_listener_that_waits_can_be_cancelled_and_closed() -> None:
    async with listening() as (listener, _):
        with trio.move_on_after(0.01) as patience:
            await listener.accept()
        assert patience.cancelled_caught


# -- more clients than there is room for ----------------------------------------------------------------

GET = ask("GET", "/health")


@pytest.mark.parametrize(
    ("limit", "links", "expected"),
    [
        (1024, 0, 944),
        (1024, 5, 924),
        (256, 1, 172),
        (40, 5, 10),
        (10**6, 5, 10_000),
        (-1, 0, 10_000),
    ],
)
def test_connections_leave_descriptors_for_links_and_the_database(
    limit: int, links: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (limit, limit))
    assert max_connections(links) == expected


def test_beyond_the_limit_a_client_is_told_so_and_the_log_says_it_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trikv.web.server.max_connections", lambda links: 3)

    def told() -> list[int]:
        return [
            one.fields["count"]  # type: ignore[attr-defined]
            for one in caplog.records
            if one.getMessage() == "connections.refused"
        ]

    async def main() -> None:
        async with open_lane(LEADER) as (node, port, _):
            busy = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
            for stream in busy:  # half of a request: none of them is idle
                await stream.send_all(GET[:-2])
            await trio.sleep(0.1)
            for _ in range(20):
                heard = await answered(port, [GET])
                assert heard.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
                assert b"\r\nretry-after: 5\r\n" in heard
                assert b"\r\nconnection: close\r\n" in heard
                assert b'"code":"overloaded"' in heard
            assert told() == [1]
            for stream in busy:
                await stream.send_all(GET[-2:])
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
            await trio.sleep(2 * SAY_EVERY_S)  # by now they have been closed
            assert (await answered(port, [GET])).startswith(b"HTTP/1.1 200 ")
            assert told() == [1]
            await trio.sleep(0.1)
            assert sum(node.tally.connections.values()) == 0
            for stream in busy:
                await stream.aclose()

    run(main)


def test_the_connections_that_are_idle_longest_make_room_for_new_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trikv.web.server.max_connections", lambda links: 3)

    async def main() -> None:
        async with open_lane(LEADER) as (_, port, _):
            first, second, third = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
            await trio.sleep(IDLE_S + 1)
            for stream in (first, third):
                await stream.send_all(GET)
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
            assert (await answered(port, [GET])).startswith(b"HTTP/1.1 200 ")
            assert await second.receive_some() == b""
            await first.send_all(GET)
            assert (await first.receive_some()).startswith(b"HTTP/1.1 200 ")
            for stream in (first, second, third):
                await stream.aclose()

    run(main)


def test_where_the_system_has_no_descriptor_the_node_tries_again_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = 30
    accept = Listener.accept

    async def fail_at_first(self: Listener) -> trio.SocketStream:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(errno.EMFILE, "too many open files")
        return await accept(self)

    monkeypatch.setattr(Listener, "accept", fail_at_first)

    async def main() -> None:
        async with open_lane(LEADER) as (_, port, _):
            await trio.sleep(30 * PAUSE_S + 0.5)
            assert failures == 0
            assert (await answered(port, [GET])).startswith(b"HTTP/1.1 200 ")

    run(main)
    told = [one for one in caplog.records if one.levelname in ("WARNING", "ERROR")]
    assert [one.getMessage() for one in told] == ["connections.refused"]
    assert told[0].exc_info is None


class _TwoAddresses(trio.abc.HostnameResolver):
    """Every name is this machine, by IPv4 and by IPv6."""

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        await trio.lowlevel.checkpoint()
        stream = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [
            (socket.AF_INET, *stream, ("127.0.0.1", port)),
            (socket.AF_INET6, *stream, ("::1", port, 0, 0)),
        ]

    async def getnameinfo(
        self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int
    ) -> tuple[str, str]:
        raise NotImplementedError


@pytest.mark.parametrize("taken", [False, True])
async def test_a_host_of_two_addresses_is_given_one_port(
    taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trio.socket.set_custom_hostname_resolver(_TwoAddresses())
    open_tcp, calls = trio.open_tcp_listeners, 0

    async def open_listeners(port: int, **how: Any) -> list[trio.SocketListener]:
        nonlocal calls
        calls += 1
        if taken and calls == 2:
            raise OSError(errno.EADDRINUSE, "in use")
        return await open_tcp(port, **how)

    monkeypatch.setattr(trio, "open_tcp_listeners", open_listeners)
    listeners, port = await listen(Config(host="both.example", port=0))
    try:
        assert {one.socket.family for one in listeners} == {socket.AF_INET, socket.AF_INET6}
        assert {one.socket.getsockname()[1] for one in listeners} == {port}
        assert calls == (4 if taken else 2)
    finally:
        for one in listeners:
            await one.aclose()


async def test_a_port_that_is_free_nowhere_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    trio.socket.set_custom_hostname_resolver(_TwoAddresses())
    open_tcp = trio.open_tcp_listeners

    async def open_listeners(port: int, **how: Any) -> list[trio.SocketListener]:
        if port:
            raise OSError(errno.EADDRINUSE, "in use")
        return await open_tcp(port, **how)

    monkeypatch.setattr(trio, "open_tcp_listeners", open_listeners)
    with pytest.raises(SettingError, match=r"^PORT='0': expected a free port"):
        await listen(Config(host="both.example", port=0))
