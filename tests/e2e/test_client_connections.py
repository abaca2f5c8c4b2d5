"""Whether a request has left is known from real connections: refused, cut, silent, or not to be had.

Real sockets, and a server that does what a test says.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import anyio
import httpx
import pytest

from trikv.client import Client, OutcomeUnknown, SyncClient, Unavailable, VersionConflict, http
from trikv.client import aio as aio_shell
from trikv.client import sync as sync_shell

CONFLICT = (
    b"HTTP/1.1 412 x\r\ncontent-type: application/problem+json\r\ncontent-length: 71\r\n\r\n"
    b'{"type":"urn:trikv:problem:version_conflict","code":"version_conflict"}'
)

Serve = Callable[[socket.socket], object]


@contextmanager
def listening(serve: Serve) -> Iterator[str]:
    """A server whose every connection is served in turn, each by a function; its URL."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def closed_port() -> str:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def read_request(connection: socket.socket) -> bytes:
    """All of it: our requests come in one or two pieces, and end with a brace."""
    request = b""
    while not request.endswith(b"}"):
        piece = connection.recv(65536)
        if not piece:
            break
        request += piece
    return request


def run(shell: str, nodes: list[str], *, timeout_s: float = 5.0) -> None:
    """One put, on real sockets."""
    if shell == "sync":
        with SyncClient(nodes, timeout_s=timeout_s) as client:
            client.put("k", 1)
        return

    async def put() -> None:
        async with Client(nodes, timeout_s=timeout_s) as client:
            await client.put("k", 1)

    anyio.run(put, backend=shell)


shells = pytest.mark.parametrize("shell", ["trio", "asyncio", "sync"])


@shells
def test_a_refused_connection_sends_nothing_and_another_node_is_asked(shell: str) -> None:
    def answer(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(CONFLICT)

    with listening(answer) as url, pytest.raises(VersionConflict):
        run(shell, [closed_port(), url])


@shells
def test_a_connection_that_is_cut_after_the_request_has_left_leaves_a_doubt(shell: str) -> None:
    with listening(read_request) as url, pytest.raises(OutcomeUnknown):
        run(shell, [url, closed_port()])


@shells
def test_a_connection_that_is_cut_in_the_midst_of_the_answer_leaves_a_doubt(shell: str) -> None:
    def half(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(CONFLICT[:-10])

    with listening(half) as url, pytest.raises(OutcomeUnknown):
        run(shell, [url])


@shells
def test_silence_after_the_request_has_left_leaves_a_doubt(shell: str) -> None:
    over = threading.Event()

    def silent(connection: socket.socket) -> None:
        read_request(connection)
        over.wait(10)

    with listening(silent) as url:
        try:
            with pytest.raises(OutcomeUnknown) as caught:
                run(shell, [url], timeout_s=0.1)
        finally:
            over.set()
    assert caught.value.code == "no_answer"


@shells
def test_a_write_that_waits_for_a_connection_has_not_left(
    shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one connection is taken by a stream; the put waits for it until its deadline."""
    monkeypatch.setitem(http.OPTIONS, "limits", httpx.Limits(max_connections=1))
    over = threading.Event()

    def stream(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(
            b"HTTP/1.1 200 x\r\ncontent-type: text/event-stream\r\n\r\n"
            b'event: change\ndata: {"key":"a","value":1,"version":"1.aa-1"}\n\n'
        )
        over.wait(10)

    def sync_scenario(url: str) -> None:
        with SyncClient(url, timeout_s=0.1) as client, client.watch() as changes:
            next(changes)
            client.put("k", 1)

    async def scenario(url: str) -> None:
        async with Client(url, timeout_s=0.1) as client, client.watch() as changes:
            await anext(changes)
            await client.put("k", 1)

    with listening(stream) as url:
        try:
            with pytest.raises(Unavailable) as caught:
                sync_scenario(url) if shell == "sync" else anyio.run(scenario, url, backend=shell)
        finally:
            over.set()
    assert caught.value.code == "unreachable"
    assert not caught.value.may_have_happened


@shells
def test_an_answer_without_end_is_cut_off(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (aio_shell, sync_shell):
        monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 1000)

    def endless(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 x\r\ncontent-type: application/json\r\n\r\n")
        with suppress(OSError):
            while True:
                connection.sendall(b"x" * 1000)

    with listening(endless) as url, pytest.raises(OutcomeUnknown, match="more than"):
        run(shell, [url])


@pytest.mark.parametrize("shell", ["trio", "asyncio"])
def test_a_call_can_be_cancelled_and_the_client_goes_on(shell: str) -> None:
    answers = [b"", CONFLICT]

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        if answer := answers.pop(0):
            connection.sendall(answer)
        else:
            connection.recv(1)  # until it is gone

    async def scenario(url: str) -> None:
        async with Client(url) as client:
            with anyio.move_on_after(0.05) as scope:
                await client.put("k", 1)
            assert scope.cancelled_caught
            with pytest.raises(VersionConflict):
                await client.put("k", 1)

    with listening(serve) as url:
        anyio.run(scenario, url, backend=shell)


def test_a_call_can_be_cancelled_as_asyncio_does_it() -> None:
    async def scenario(url: str) -> None:
        async with Client(url) as client:
            task = asyncio.ensure_future(client.put("k", 1))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    def silent(connection: socket.socket) -> None:
        read_request(connection)
        connection.recv(1)  # until it is gone

    with listening(silent) as url:
        asyncio.run(scenario(url))
