"""The connections that a node takes: all that come, up to a number that leaves it room to work.

Rules
- Clients that wait are taken in one go, and not one at each turn of the scheduler (see `Listener`).
- What goes wrong with one client that is about to connect is that client's affair, as in trio.
- There are fewer connections than file descriptors: a node needs some to reach its followers, and for
  its database. Beyond that number those that have been idle longest are closed, which their clients
  must reckon with; where there are none, the newcomer is told 503.
- However many are refused, the log says so once a minute.
"""

from __future__ import annotations

import errno
import math
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from trikv import log
from trikv.errors import Overloaded
from trikv.web.exchange import problem

#: So many new connections at most, and then others get their turn.
ACCEPTED_AT_ONCE = 100

#: Connections of one node: each is a task and a socket, some with Hypercorn's buffers.
MAX_CONNECTIONS = 10_000

#: Descriptors that connections leave to the database, the links, and what Python itself opens.
SPARE_DESCRIPTORS = 64
SPARE_FOR_EACH_LINK = 4

#: Clients that are being told so at a time; further ones are closed without a word.
REFUSED_AT_ONCE = 16

#: For a client that is refused to send its request, and read the answer.
REFUSED_S = 1.0

#: When it should come back.
RETRY_AFTER_S = 5

#: Between two lines of the log about it.
SAY_EVERY_S = 60.0

#: After the system had no room for a connection, or there was none that is idle.
PAUSE_S = 0.1

_SYSTEM_IS_FULL = {
    getattr(errno, name)
    for name in ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "WSAEMFILE", "WSAENOBUFS")
    if hasattr(errno, name)
}

#: What accept says of a client that has left, or of its network (trio ignores the same).
_CLIENT_IS_GONE = {
    getattr(errno, name)
    for name in (
        *("EPERM", "ECONNABORTED", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET"),
        *("EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "ENOSR", "ESOCKTNOSUPPORT"),
        *("EPROTONOSUPPORT", "ETIMEDOUT", "ECONNRESET"),
    )
    if hasattr(errno, name)
}


def max_connections(links: int) -> int:
    """How many a node with so many followers can take, by its limit of file descriptors."""
    if sys.platform == "win32":  # where sockets are not counted with files
        return MAX_CONNECTIONS
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    spare = SPARE_DESCRIPTORS + REFUSED_AT_ONCE + SPARE_FOR_EACH_LINK * links
    return min(MAX_CONNECTIONS, max(limit - spare, limit // 4))


class Listener(trio.abc.Listener[trio.SocketStream]):
    """Takes all clients that wait, and not one at each turn of the scheduler.

    A turn is as long as a request of each busy connection: with trio's own listener the last of 200
    clients that come at once would wait for 200 of them, for a second or two.
    """

    def __init__(self, listener: trio.SocketListener) -> None:
        self._socket = socket.socket(fileno=listener.socket.detach())
        self._in_a_row = 0

    async def accept(self) -> trio.SocketStream:
        """Raises OSError where it is not the client that has failed."""
        while True:
            if self._in_a_row >= ACCEPTED_AT_ONCE:
                self._in_a_row = 0
                await trio.lowlevel.checkpoint()
            self._in_a_row += 1
            try:
                connected, _ = self._socket.accept()
            except BlockingIOError:
                self._in_a_row = 0
                await trio.lowlevel.wait_readable(self._socket)
            except OSError as error:
                if error.errno not in _CLIENT_IS_GONE:
                    raise
            else:
                connected.setblocking(False)
                return trio.SocketStream(trio.socket.from_stdlib_socket(connected))

    async def aclose(self) -> None:
        self._socket.close()
        await trio.lowlevel.checkpoint()


class Doorkeeper:
    """Starts a task for each connection, and counts them."""

    def __init__(
        self,
        limit: int,
        connection: Callable[[trio.SocketStream], Awaitable[None]],
        close_idle: Callable[[], int],
    ) -> None:
        """`close_idle` closes some idle connections, and returns how many."""
        self._limit = limit
        self._connection = connection
        self._close_idle = close_idle
        self._open = 0
        self._being_refused = 0
        self._refused = 0
        self._said_at = -math.inf
        self._look_at = -math.inf

    async def run(self, listener: trio.SocketListener, connections: trio.Nursery) -> None:
        """Take clients until cancelled; their tasks run in `connections`."""
        async with Listener(listener) as ours:
            while True:
                try:
                    stream = await ours.accept()
                except OSError as error:
                    if error.errno not in _SYSTEM_IS_FULL:
                        raise
                    self._say(error.strerror or "")
                    self._close_idle()
                    await trio.sleep(PAUSE_S)
                    continue
                if self._open < self._limit or self._made_room():
                    self._open += 1
                    connections.start_soon(self._run_one, stream)
                elif self._being_refused < REFUSED_AT_ONCE:
                    self._being_refused += 1
                    connections.start_soon(self._refuse, stream)
                else:
                    self._say("all connections are in use")
                    await trio.aclose_forcefully(stream)

    def _made_room(self) -> bool:
        """Close idle connections, if there are any; a crowd does not make it look each time."""
        now = trio.current_time()
        if now < self._look_at:
            return False
        if self._close_idle():
            return True
        self._look_at = now + PAUSE_S
        return False

    async def _run_one(self, stream: trio.SocketStream) -> None:
        try:
            await self._connection(stream)
        finally:
            self._open -= 1

    async def _refuse(self, stream: trio.SocketStream) -> None:
        """Answer before there is a question, and read it, so that the answer is not lost."""
        self._say("all connections are in use")
        try:
            with trio.move_on_after(REFUSED_S), suppress(trio.BrokenResourceError):
                await stream.send_all(_refusal())
                await stream.send_eof()
                while await stream.receive_some(2**16):
                    pass
        finally:
            self._being_refused -= 1
            await trio.aclose_forcefully(stream)

    def _say(self, why: str) -> None:
        self._refused += 1
        if trio.current_time() >= self._said_at + SAY_EVERY_S:
            self._said_at = trio.current_time()
            log.warning("connections.refused", why=why, count=self._refused, limit=self._limit)
            self._refused = 0


def _refusal() -> bytes:
    error = Overloaded("this node has as many clients as it can", retry_after_s=RETRY_AFTER_S)
    answer = problem(error)
    assert isinstance(answer.body, bytes)
    head = (
        f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: {answer.content_type}\r\n"
        f"content-length: {len(answer.body)}\r\nretry-after: {RETRY_AFTER_S}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode("ascii") + answer.body
