"""Bytes on a connected socket, with little between: for the two places where every microsecond counts.

trio's own SocketStream goes back to the scheduler after each send and before each receive, even if there
is nothing to wait for. Here

- `receive` always gives others their turn, and looks for bytes only when it is told that there are some:
  where requests and answers follow each other, there are none yet when it is called;
- `send` does so only if it must wait; whoever sends in a loop receives in it, too.

One task at a time uses a stream. Whatever goes wrong is an OSError. Waiting can be cancelled, and a
receive that is cancelled has taken nothing.
"""

from __future__ import annotations

import socket
from contextlib import suppress

import trio

#: Who takes nothing for so long reads no more, or is gone.
SEND_S = 30.0

#: What is sent goes out in pieces of this size: so many in SEND_S is the slowest that a reader may be.
SEND_BYTES = 2**16


class ByteStream:
    """Owns the socket, which must be connected."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self.socket = connected

    @classmethod
    def take(cls, stream: trio.SocketStream) -> ByteStream:
        """Go on with another stream's connection; that one is no use any more."""
        return cls(socket.socket(fileno=stream.socket.detach()))

    def give(self) -> trio.SocketStream:
        """The other way round."""
        return trio.SocketStream(trio.socket.from_stdlib_socket(self.socket))

    async def receive(self, most: int) -> bytes:
        """The next bytes, so many at most; b"" at their end."""
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            try:
                return self.socket.recv(most)
            except BlockingIOError:
                pass

    async def send(self, data: bytes) -> None:
        """Send all of it. Raises TimeoutError where the other side takes nothing for `SEND_S`."""
        rest = memoryview(data)
        with suppress(BlockingIOError):
            rest = rest[self.socket.send(rest) :]
        while rest:
            with trio.move_on_after(SEND_S) as timeout:
                await self._send_piece(rest[:SEND_BYTES])
            if timeout.cancelled_caught:
                raise TimeoutError(f"nothing was taken for {SEND_S:g} s")
            rest = rest[SEND_BYTES:]

    async def _send_piece(self, piece: memoryview) -> None:
        while True:
            with suppress(BlockingIOError):
                piece = piece[self.socket.send(piece) :]
            if not piece:
                return
            await trio.lowlevel.wait_writable(self.socket)

    def is_quiet(self) -> bool:
        """Whether it is open, and there is nothing to be received."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        if self.socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()
