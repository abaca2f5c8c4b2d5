"""The light client of the overhead under lag: an answer is whole, or it is an error."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.overhead import exchange

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 11\r\n\r\n"


@pytest.fixture
def wire() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize(
    "pieces",
    [[HEAD + b'{"k": "v"} '], [HEAD[:9], HEAD[9:-1], HEAD[-1:] + b'{"k"', b': "v"} ']],
    ids=["in one piece", "in pieces"],
)
def test_an_answer_is_read_to_its_end(
    wire: tuple[socket.socket, socket.socket], pieces: list[bytes]
) -> None:
    ours, theirs = wire

    def answer() -> None:
        assert theirs.recv(100) == b"PUT"
        for piece in pieces:
            theirs.sendall(piece)

    thread = threading.Thread(target=answer)
    thread.start()
    assert exchange(ours, b"PUT") == (200, b'{"k": "v"} ')
    thread.join()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "cut short"),
        (HEAD[:20], "cut short"),
        (HEAD + b"{", "cut short"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "without Content-Length"),
    ],
)
def test_an_answer_that_is_not_whole_is_an_error(
    wire: tuple[socket.socket, socket.socket], answer: bytes, why: str
) -> None:
    ours, theirs = wire
    theirs.sendall(answer)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(BenchmarkError, match=why):
        exchange(ours, b"PUT")
