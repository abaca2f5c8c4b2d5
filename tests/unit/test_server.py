"""The listening socket: who comes at once is accepted at once, and takes all turns from nobody."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest
import trio

from trikv.web.server import ACCEPTED_AT_ONCE, _Listener


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[_Listener, int]]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    port = listener.socket.getsockname()[1]
    async with _Listener(listener) as ours:
        yield ours, port


def crowd(stack: ExitStack, port: int, clients: int) -> None:
    for _ in range(clients):
        stack.enter_context(socket.create_connection(("127.0.0.1", port)))


async def turns_to_accept(listener: _Listener, clients: int) -> int:
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


async def test_a_client_that_has_left_meanwhile_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with listening() as (listener, port):
        inner = listener._socket

        class Aborted:
            told = False

            def accept(self) -> tuple[socket.socket, object]:
                if not self.told:
                    self.told = True
                    raise ConnectionAbortedError(errno.ECONNABORTED, "gone")
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
