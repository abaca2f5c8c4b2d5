"""Whether a request has left is known from real connections: refused, cut, silent, or not to be had.

Real sockets, and a server that does what a test says.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import anyio
import httpx
import pytest

from trikv.client import (
    Client,
    ClientError,
    InvalidRequest,
    OutcomeUnknown,
    SyncClient,
    Unavailable,
    VersionConflict,
    pool,
)
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


def run(shell: str, nodes: list[str], *, timeout_s: float = 5.0, value: Any = 1) -> None:
    """One put, on real sockets."""
    if shell == "sync":
        with SyncClient(nodes, timeout_s=timeout_s) as client:
            client.put("k", value)
        return

    async def put() -> None:
        async with Client(nodes, timeout_s=timeout_s) as client:
            await client.put("k", value)

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
    monkeypatch.setattr(pool, "MAX_CONNECTIONS", 1)
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
    assert "all connections" in caught.value.detail
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


@contextmanager
def answering(answers: threading.Event) -> Iterator[tuple[str, list[socket.socket]]]:
    """A server that takes every request, and answers 412 once `answers` is set; its URL, and what
    connections it has."""
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while read_request(connection):
                answers.wait(10)
                connection.sendall(CONFLICT)

    with closing(socket.create_server(("127.0.0.1", 0), backlog=100)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connections.append(listener.accept()[0])
                    threading.Thread(target=serve, args=connections[-1:], daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", connections
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _give_up_many(shell: str, url: str, answers: threading.Event) -> None:
    """Many calls at once that all end at their deadline, in waves; then one more."""

    def give_up_sync(client: SyncClient) -> None:
        with suppress(ClientError):
            client.put("k", 1, timeout_s=0.1)

    async def give_up(client: Client) -> None:
        with suppress(ClientError):
            await client.put("k", 1, timeout_s=0.1)

    async def scenario() -> None:
        async with Client(url) as client:
            for _ in range(8):
                async with anyio.create_task_group() as tasks:
                    for _ in range(20):
                        tasks.start_soon(give_up, client)
            answers.set()
            with pytest.raises(VersionConflict):
                await client.put("k", 1, timeout_s=3)

    if shell != "sync":
        anyio.run(scenario, backend=shell)
        return
    with SyncClient(url) as client:
        for _ in range(8):
            threads = [threading.Thread(target=give_up_sync, args=[client]) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
        answers.set()
        with pytest.raises(VersionConflict):
            client.put("k", 1, timeout_s=3)


@shells
def test_calls_that_are_given_up_while_they_wait_for_a_connection_cost_none(
    shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_CONNECTIONS", 4)
    answers = threading.Event()
    with answering(answers) as (url, _):
        _give_up_many(shell, url, answers)


@pytest.mark.parametrize("shell", ["trio", "asyncio"])
def test_no_more_connections_are_opened_than_are_allowed(
    shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_CONNECTIONS", 4)
    answers = threading.Event()

    async def give_up(client: Client) -> None:
        with suppress(ClientError):
            await client.put("k", 1)

    async def scenario(url: str) -> None:
        async with Client(url) as client, anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(give_up, client)
            await anyio.sleep(0.3)
            assert len(connections) == 4
            answers.set()

    with answering(answers) as (url, connections):
        anyio.run(scenario, url, backend=shell)
        assert len(connections) == 4


FORKS = """
import os, sys
from trikv.client import ClientError, SyncClient

client = SyncClient(sys.argv[1])
def ask():
    try:
        client.put("k", 1)
    except ClientError as error:
        return error.code

ask()
for _ in range(2):
    if (child := os.fork()) == 0:
        print(ask(), ask(), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
print(ask(), flush=True)
"""


def test_a_child_of_a_fork_has_connections_of_its_own_and_the_parent_keeps_its_own() -> None:
    answers = threading.Event()
    answers.set()
    with answering(answers) as (url, connections):
        done = subprocess.run(
            [sys.executable, "-c", FORKS, url],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stdout.split() == ["version_conflict"] * 5
        assert done.stderr == ""
        assert len(connections) == 3


WATCH_FORKS = """
import os, sys
from trikv.client import SyncClient

client = SyncClient(sys.argv[1])
changes = client.watch()
print(next(changes).value, flush=True)
if (child := os.fork()) == 0:
    print(next(changes).value, flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(next(changes).value, flush=True)
changes.close()
"""


def test_a_watch_that_a_child_inherits_goes_on_there_with_a_stream_of_its_own() -> None:
    """The second stream tells 2, and only then does the first go on, with 3: nothing of the parent's
    stream is missing."""
    streams: list[socket.socket] = []

    def event(number: int) -> bytes:
        change = f'{{"key":"k{number}","value":{number},"version":"1.aa-{number}"}}'
        return f"event: change\nid: 1.aa-{number}\ndata: {change}\n\n".encode()

    def stream(connection: socket.socket) -> None:
        streams.append(connection.dup())
        connection.recv(65536)
        head = b"HTTP/1.1 200 x\r\ncontent-type: text/event-stream\r\n\r\n"
        first = len(streams) == 1
        connection.sendall(head + event(1 if first else 2))
        if not first:
            streams[0].sendall(event(3))
            for one in streams:
                one.close()

    with listening(stream) as url:
        done = subprocess.run(
            [sys.executable, "-c", WATCH_FORKS, url], capture_output=True, text=True, timeout=20
        )
    assert (done.stdout.split(), done.stderr) == (["1", "2", "3"], "")


def test_a_transport_that_was_given_is_not_used_by_a_child() -> None:
    source = """
import os, httpx
from trikv.client import SyncClient
client = SyncClient("a:1", transport=httpx.HTTPTransport())
if os.fork() == 0:
    try:
        client.get("k")
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=60
    )
    assert "after a fork" in done.stdout


@pytest.mark.parametrize("shell", ["trio", "asyncio"])
def test_answers_that_a_given_transport_makes_whole_give_their_slots_back(
    shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_GIVEN_CONNECTIONS", 1)
    kind = {"content-type": "application/problem+json"}

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(412, headers=kind, content=CONFLICT.partition(b"\r\n\r\n")[2])

    async def scenario() -> None:
        async with Client("a:1", transport=httpx.MockTransport(answer), timeout_s=1) as client:
            for _ in range(3):
                with pytest.raises(VersionConflict):
                    await client.put("k", 1)

    anyio.run(scenario, backend=shell)


TOO_LARGE = (
    b"HTTP/1.1 413 x\r\ncontent-type: application/problem+json\r\ncontent-length: 61\r\n"
    b"connection: close\r\n\r\n"
    b'{"type":"urn:trikv:problem:too_large","code":"too_large"}    '
)


def _refuse_early(connection: socket.socket, *, reads_on: bool) -> None:
    """Answer once the head is there, as a node does that will not read so large a body."""
    connection.recv(1000)
    connection.sendall(TOO_LARGE)
    if reads_on:
        connection.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while connection.recv(2**20):
                pass


@pytest.mark.parametrize(
    ("shell", "reads_on"),
    [
        ("trio", False),
        ("sync", False),
        ("trio", True),
        ("asyncio", True),  # its transport reads no more once sending has failed
        ("sync", True),
    ],
)
def test_an_answer_that_came_before_all_was_sent_is_read(shell: str, reads_on: bool) -> None:
    value = "x" * 15_000_000

    def serve(connection: socket.socket) -> None:
        _refuse_early(connection, reads_on=reads_on)

    with listening(serve) as url, pytest.raises(InvalidRequest) as caught:
        run(shell, [url], value=value)
    assert (caught.value.code, caught.value.status) == ("too_large", 413)


@shells
def test_a_call_may_take_for_ever(shell: str) -> None:
    def answer(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(CONFLICT)

    with listening(answer) as url, pytest.raises(VersionConflict):
        run(shell, [url], timeout_s=float("inf"))
