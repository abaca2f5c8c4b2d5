"""HTTP/1.1 on one connection, by Hypercorn and h11; with what these two let pass refused.

Rules
- A request that could be read in two ways, here and by a proxy before us, is refused: see
  `check_request`. So is a head of more than `MAX_HEAD_LINES` or `MAX_HEAD_BYTES`, however it comes.
- Empty lines before a request are passed over, some of them (RFC 9112, 2.2); so is whatever follows the
  last request of a connection.
- A client of HTTP/1.0 that asks to keep its connection may keep it, and is told so.
- A client that takes nothing of its answer for `SEND_S` is cut off: it holds a task, and what it was
  to be sent.
- A connection that is closed with something unread loses, as a rule, the answer that was just sent. So
  where the node has said its last, it goes on reading for a while, and drops what comes.

h11 has no public way to pass over bytes, nor to keep a connection of HTTP/1.0: `_Requests` is the one
place that uses its inner state.
"""

from __future__ import annotations

import re
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import h11
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.typing import H11SendableEvent

from trikv.network.socket_stream import SEND_BYTES, SEND_S
from trikv.web.plain import MAX_HEAD_BYTES

#: Header lines of a request: browsers and proxies together send some thirty.
MAX_HEAD_LINES = 100

#: Empty lines before a request that are passed over: old clients send one behind a body.
MAX_EMPTY_LINES = 8

#: So much is read, and dropped, of a client that was answered before it had sent all.
DROP_BYTES = 64 * 2**20
DROP_S = 5.0

#: The same for one that had sent all: it reads the answer at once, and may keep its socket for long.
READ_S = 0.2

#: A line end that a proxy before us may take for none, and a line that it may take for two.
_TWO_WAYS = re.compile(rb"(?<!\r)\n|\n[ \t]")

_ABSOLUTE = re.compile(rb"https?://(?:[^/?#@]*@)?[^/?#@:][^/?#@]*(?:[/?]|\Z)", re.IGNORECASE)


def check_request(request: h11.Request) -> None:
    """Raises RemoteProtocolError, with the status to answer."""
    size = len(request.method) + len(request.target)
    size += sum(len(name) + len(value) + 4 for name, value in request.headers)
    names = {name for name, _ in request.headers}
    if len(request.headers) > MAX_HEAD_LINES or size > MAX_HEAD_BYTES:
        raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
    if not request.http_version.startswith(b"1."):
        raise h11.RemoteProtocolError("expected HTTP/1.1", error_status_hint=505)
    if request.method != request.method.upper():
        raise h11.RemoteProtocolError("methods are upper case", error_status_hint=501)
    if b"transfer-encoding" in names and (
        b"content-length" in names or request.http_version == b"1.0"
    ):
        raise h11.RemoteProtocolError("a body of two lengths", error_status_hint=400)
    for_all = request.method == b"OPTIONS" and request.target == b"*"
    if not (request.target.startswith(b"/") or for_all or _ABSOLUTE.match(request.target)):
        raise h11.RemoteProtocolError("expected a path or a URL", error_status_hint=400)


def _asks_to_be_kept(request: h11.Request) -> bool:
    """Whether a request of HTTP/1.0 wants its connection kept."""
    said = b",".join(value for name, value in request.headers if name == b"connection").lower()
    tokens = {token.strip() for token in said.split(b",")}
    return request.http_version == b"1.0" and b"keep-alive" in tokens and b"close" not in tokens


class _Requests(h11.Connection):
    """h11, as the rules above have it."""

    keeps_old_client = False
    """The request that is worked on is of HTTP/1.0, and its connection is kept."""

    _empty_lines = 0

    def next_event(self) -> Any:
        """As h11's. Raises RemoteProtocolError also where `check_request` does."""
        if self.their_state is h11.IDLE and not self._pass_over_empty_lines():
            return h11.NEED_DATA
        if self.their_state is h11.MUST_CLOSE:  # what follows the last request is nothing to us
            self._receive_buffer.maybe_extract_at_most(len(self._receive_buffer))
        head = bytes(self._receive_buffer._data) if self.their_state is h11.IDLE else b""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._empty_lines = 0
            check_request(event)
            if _TWO_WAYS.search(head[: len(head) - len(self._receive_buffer)]):
                raise h11.RemoteProtocolError("lines end with CRLF", error_status_hint=400)
            self.keeps_old_client = _asks_to_be_kept(event)
            if self.keeps_old_client:
                self._cstate.keep_alive = True
        return event

    def _pass_over_empty_lines(self) -> bool:
        """Whether what is left may be read: not so half of an empty line."""
        buffer = self._receive_buffer
        while buffer._data.startswith(b"\r\n") and self._empty_lines < MAX_EMPTY_LINES:
            buffer.maybe_extract_at_most(2)
            self._empty_lines += 1
        return buffer._data != b"\r"


class Http11(H11Protocol):
    """HTTP/1.1 and nothing else: an offer to go on with WebSocket or HTTP/2 is passed over.

    Hypercorn's patience with those has no end: it never answers half of a WebSocket's handshake, and
    keeps an idle HTTP/2 connection for ever.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._requests = _Requests(h11.SERVER, self.config.h11_max_incomplete_size)
        self.connection = self._requests

    async def _check_protocol(self, event: h11.Request) -> None:
        pass

    async def _create_stream(self, request: h11.Request) -> None:
        kept = [(name, value) for name, value in request.headers if name != b"upgrade"]
        await super()._create_stream(
            h11.Request(
                method=request.method,
                target=request.target,
                headers=kept,
                http_version=request.http_version,
            )
        )

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        if isinstance(event, h11.Response | h11.InformationalResponse):
            headers = list(event.headers)
            if self._requests.keeps_old_client and isinstance(event, h11.Response):
                headers.append((b"connection", b"keep-alive"))  # h11 takes it back where it must
            event = type(event)(
                status_code=event.status_code,
                headers=headers,
                reason=HTTPStatus(event.status_code).phrase.encode(),
            )
        await super()._send_h11_event(event)


class PatientStream:
    """A connection whose sends have an end: Hypercorn shields them, and would wait for ever."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.socket = stream.socket
        self.receive_some = stream.receive_some
        self.send_eof = stream.send_eof
        self.aclose = stream.aclose
        self._send_all = stream.send_all

    async def send_all(self, data: bytes) -> None:
        """Raises BrokenResourceError, and closes the socket, where the client takes nothing."""
        for begin in range(0, max(1, len(data)), SEND_BYTES):
            with trio.move_on_after(SEND_S) as patience:
                await self._send_all(memoryview(data)[begin : begin + SEND_BYTES])
            if patience.cancelled_caught:
                self.socket.close()
                raise trio.BrokenResourceError(f"nothing was taken for {SEND_S:g} s")


class Connection(TCPServer):
    """Hypercorn's protocol on one connection, which ends when its client has gone.

    Hypercorn's own would keep the socket of a client that left until its keep-alive has run out.
    """

    unread = b""
    """What was received before it began."""

    _gone = False
    _ended = False

    async def run(self) -> None:
        self._reading = trio.CancelScope()
        await super().run()

    async def _read_data(self) -> None:
        its = self.protocol.protocol
        self.protocol.protocol = Http11(
            its.app,
            its.config,
            its.context,
            its.task_group,
            its.connection_state,
            its.ssl,
            its.client,
            its.server,
            its.send,
        )
        with self._reading, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._read_unread()
            data = b"-"
            while data and not self._ended:
                data = bytes(await self.stream.receive_some(MAX_RECV))
                if not self._ended:
                    await self.protocol.handle(RawData(data))
            await self._drop_rest()
        await self.protocol.handle(Closed())
        self._gone = True
        await self.idle_task.stop()

    async def _read_unread(self) -> None:
        """Piece by piece, and nothing of it is kept."""
        unread, self.unread = memoryview(self.unread), b""
        for begin in range(0, len(unread), MAX_RECV):
            if not self._ended:
                await self.protocol.handle(RawData(bytes(unread[begin : begin + MAX_RECV])))

    async def _drop_rest(self) -> None:
        """Let the client send on, up to a bound, so that it comes to reading the answer."""
        left = DROP_BYTES
        while left > 0 and (data := await self.stream.receive_some(MAX_RECV)):
            left -= len(data)

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Closed):
            await self._end()
            await self.protocol.handle(Closed())
        elif not (self._gone and isinstance(event, Updated)):
            await super().protocol_send(event)

    async def _end(self) -> None:
        """Note that the answer was the last one: the task that reads has not long left."""
        if not self._ended:
            self._ended = True
            its = self.protocol.protocol
            state = its.connection.their_state if isinstance(its, Http11) else None
            all_read = state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)
            self._reading.deadline = trio.current_time() + (READ_S if all_read else DROP_S)
            with suppress(
                trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError
            ):
                await self.stream.send_eof()
