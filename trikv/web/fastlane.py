"""The fast lane: plain requests of hot and short routes, answered without Hypercorn and Quart.

Rules
- It calls the handlers of the table of routes, as Quart does: an answer may not depend on the lane.
- Whatever is not plain (see `plain`), is on no route of the lane, is larger than its route takes, or
  does not come in time, goes to Hypercorn with the connection and every byte that was not answered yet.
  There it stays. So limits, refusals and time limits are Hypercorn's, and written once.
- A read that says how long it may wait goes there, too: it may wait for long, and Hypercorn notices a
  client that leaves. All others end by themselves.
- Requests on one connection are answered in order, one at a time; meanwhile nothing more is read. Where
  several have come at once, all other connections get their turn between two of them.
- A client that takes nothing of its answer for `SEND_S` is cut off (see `socket_stream`).
- Nothing is cancelled but the wait for bytes: a request that has begun is answered.

How it works. A connection has one task, which reads, answers, and reads on. One more task looks now and
then at all connections that wait for bytes: those that have waited too long are handed over, if they
have begun a request, and else closed. That costs less than a deadline for each read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

import trio

from trikv import log
from trikv.budget import FREE_BYTES, HeldBody
from trikv.errors import Overloaded, TrikvError
from trikv.network.socket_stream import SEND_BYTES, ByteStream
from trikv.node.node import Node
from trikv.web import timing
from trikv.web.exchange import Answer, Request, failure, key_of, query_of, refusal
from trikv.web.identity import RequestIds
from trikv.web.plain import Head, NotPlain, read_head
from trikv.web.routes import HOT, ROUTES, SHORT, Route

#: Bytes that are read at once: many small requests, or a good part of a batch.
READ_BYTES = 2**16

#: A larger body is Hypercorn's from the start: a batch between nodes is a little more than 4 MiB.
MAX_BODY_BYTES = 8 * 2**20

#: A request that is not complete by then is Hypercorn's, which has a longer patience.
PATIENCE_S = 5.0

#: How often it is looked who has waited too long.
LOOK_S = 5.0

#: A connection without a request for so long may be closed where room is needed: one of a link has
#: one every second.
IDLE_S = 2.0

_KEY_ROUTES = {route.method: route for route in ROUTES if route.path == "/kv/{key}"}
_WHOLE_ROUTES = {
    (route.method, route.path.encode()): route
    for route in ROUTES
    if route.path in (*HOT, *SHORT) and not route.path.endswith("{key}")
}
_KEY_PREFIX = b"/kv/"


_PHRASES = {status.value: status.phrase for status in HTTPStatus}

#: Notes one answered request: on which connection, its head, the answer, and how long it took, in s.
AccessLog = Callable[[ByteStream, Head, Answer, float], object]


class FastLane:
    """All connections of one node that wait in, or travel on, the fast lane."""

    def __init__(
        self, node: Node, *, keepalive_s: float, access_log: AccessLog | None = None
    ) -> None:
        self.node = node
        self.access_log = access_log
        self.ids = RequestIds()
        self.ending = False
        self._keepalive_s = keepalive_s
        self._waiting: dict[trio.CancelScope, _Connection] = {}

    async def run(self, stream: ByteStream) -> bytes | None:
        """Answer what comes; then the bytes with which Hypercorn goes on, None if all is over."""
        with trio.CancelScope() as waiting:
            connection = self._waiting[waiting] = _Connection(self, stream, waiting)
            try:
                await connection.run()
            except OSError:
                return None
            finally:
                del self._waiting[waiting]
                connection.held.resize(0)
        return bytes(connection.buffer) or None

    async def look_after(self) -> None:
        """Let go of those that have waited too long. Runs until it is cancelled."""
        while True:
            await trio.sleep(LOOK_S)
            now = trio.current_time()
            for scope, connection in list(self._waiting.items()):
                patience_s = PATIENCE_S if connection.buffer else self._keepalive_s
                if now - connection.waits_since > patience_s:
                    scope.cancel()

    def close_idle(self) -> int:
        """Close those that wait for a request longest, a tenth of all; return how many these are."""
        now = trio.current_time()
        idle = [
            (connection.waits_since, scope)
            for scope, connection in self._waiting.items()
            if not connection.buffer
            and connection.waits_since < now - IDLE_S
            and not scope.cancel_called
        ]
        idle.sort(key=lambda one: one[0])
        for _, scope in idle[: 1 + len(self._waiting) // 10]:
            scope.cancel()
        return min(len(idle), 1 + len(self._waiting) // 10)

    def end(self) -> None:
        """Wait for no more requests; what has begun goes on."""
        self.ending = True
        for scope, connection in list(self._waiting.items()):
            if not connection.in_request:
                scope.cancel()


class _Connection:
    def __init__(self, lane: FastLane, stream: ByteStream, waiting: trio.CancelScope) -> None:
        self.buffer = bytearray()
        """What was read and not answered."""
        self.waits_since = math.inf
        """Since when it waits for bytes; infinity while it answers."""
        self.in_request = False
        """A head is complete that was not answered yet."""
        self.held = HeldBody(lane.node.bodies)
        self._lane = lane
        self._stream = stream
        self._waiting = waiting

    async def run(self) -> None:
        """Until the connection is over, or Hypercorn's, who is to go on with the buffer."""
        with suppress(NotPlain):
            while not self._lane.ending:
                head, route = await self._next()
                size = head.size + head.length
                body = bytes(self.buffer[head.size : size])
                del self.buffer[:size]
                await self._answer(head, route, body)
                self.held.resize(0)
                if self.buffer:  # all others get their turn before the next one of this client
                    await trio.lowlevel.cancel_shielded_checkpoint()
            self.buffer.clear()  # what was sent behind the last request is not answered any more

    async def _next(self) -> tuple[Head, Route]:
        """The next request, once all its bytes are there. Raises NotPlain, also if no more come."""
        self.waits_since = trio.current_time()
        self.in_request = False
        while (head := read_head(self.buffer)) is None:
            await self._read()
        route = _route_of(head, self._lane.node)
        self.in_request = True
        while len(self.buffer) < head.size + head.length:
            await self._read()
            self._hold()
        self.waits_since = math.inf
        return head, route

    async def _read(self) -> None:
        data = await self._stream.receive(READ_BYTES)
        self.buffer += data
        if not data or self._waiting.cancel_called:  # at the same moment: it is told to let go
            raise NotPlain

    def _hold(self) -> None:
        """Raises NotPlain where there is no room for what is read: Hypercorn refuses it."""
        try:
            self.held.resize(len(self.buffer))
        except Overloaded:
            raise NotPlain from None

    async def _answer(self, head: Head, route: Route, body: bytes) -> None:
        node = self._lane.node
        began = time.perf_counter()
        ids = self._lane.ids
        sent_id = head.headers.get("x-request-id")
        bad_id = None
        if sent_id is not None or ids.everywhere or route.path not in HOT:
            bad_id = ids.begin(sent_id)
        try:
            if bad_id is not None:
                raise bad_id
            key = key_of(head.path, _KEY_PREFIX) if route.path.endswith("{key}") else ""
            query = query_of(head.query_string)
            answer = await route.handler(node, Request(key, query, head.headers, body))
            if timing.HEADER in answer.headers:
                ids.need()
        except TrikvError as error:
            ids.need()
            path = head.path.decode("ascii")
            answer = refusal(node, error, head.method, path, head.query_string)
        except Exception as error:
            ids.need()
            answer = failure(node, error, head.method, head.path.decode("ascii"))
        assert isinstance(answer.body, bytes)
        request_id = log.request_id.get()
        took_s = time.perf_counter() - began
        node.tally.answered(route.method, route.path, answer.status, took_s)
        head_bytes = _head_of(answer, len(answer.body), request_id)
        if len(answer.body) <= SEND_BYTES:
            await self._stream.send(head_bytes + answer.body)
        else:  # too large to be copied
            await self._stream.send(head_bytes)
            await self._stream.send(answer.body)
        if self._lane.access_log is not None:
            self._lane.access_log(self._stream, head, answer, time.perf_counter() - began)
        if request_id:
            log.request_id.set("")


def _route_of(head: Head, node: Node) -> Route:
    """Raises NotPlain."""
    if head.path.startswith(_KEY_PREFIX):
        route = _KEY_ROUTES.get(head.method)
    else:
        route = _WHOLE_ROUTES.get((head.method, head.path))
    if route is None or head.length > min(MAX_BODY_BYTES, route.max_body_bytes(node.config)):
        raise NotPlain
    if head.length > FREE_BYTES:
        try:
            route.check_role(node)
        except TrikvError:  # refused by Hypercorn, before the body is read
            raise NotPlain from None
    if b"timeout_ms" in head.query_string or b"%" in head.query_string:
        raise NotPlain
    return route


def _head_of(answer: Answer, length: int, request_id: str) -> bytes:
    """Status and headers, spelt and ordered as Hypercorn and Quart do it."""
    status = f"{answer.status} {_PHRASES[answer.status]}"
    named = "".join([f"{name.lower()}: {value}\r\n" for name, value in answer.headers.items()])
    identified = f"x-request-id: {request_id}\r\n" if request_id else ""
    framed = f"content-type: {answer.content_type}\r\ncontent-length: {length}\r\n"
    if answer.status == HTTPStatus.NOT_MODIFIED:
        framed = ""
    return (
        f"HTTP/1.1 {status}\r\n{named}{framed}{identified}date: {_date(int(time.time()))}\r\n\r\n"
    ).encode("latin-1")


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
