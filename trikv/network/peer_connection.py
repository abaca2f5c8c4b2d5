"""A connection to a node that is kept, for the one request that is sent over and over.

Rules
- One request at a time; its bytes go out in one piece, and the reply is read by httptools.
- A connection on which anything goes wrong, or that was cut short, is closed: no reply is ever taken for
  another request's.
- Before it is used again it is looked at: if the other side has closed it meanwhile, or has said
  anything, the request fails. That node may have been started again since, with an older copy of its
  data: what it was known to have is to be asked anew (see `link`, sessions).
- A reply that came in one piece, and is the last one again to the last byte, says the same: it is not
  read anew. (Acknowledgements differ by their date, once a second.)

What it does not know: proxies, redirects, TLS, whatever else httpx does. It is an eighth of httpx's work
for each request (docs/performance.md).
"""

from __future__ import annotations

from urllib.parse import urlsplit

import httptools
import trio

from trikv.errors import PeerFailed, error_text
from trikv.network.socket_stream import ByteStream

#: Bytes that are read at once; an acknowledgement has about 200.
READ_BYTES = 2**16


class Kept:
    """A connection to the node at `base`, `http://host:port`, opened when it is needed."""

    def __init__(self, base: str) -> None:
        parts = urlsplit(base)
        assert parts.scheme == "http"
        assert parts.hostname is not None
        self._host, self._port = parts.hostname, parts.port or 80
        self._head = f"Host: {parts.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
        self._stream: ByteStream | None = None
        self._last: tuple[bytes, tuple[int, bytes]] = b"", (0, b"")  # the bytes, and what they say

    async def post(self, path: str, body: bytes, max_reply_bytes: int) -> tuple[int, bytes]:
        """The status and the body of the reply to one request. Raises PeerFailed or OSError."""
        stream, self._stream = self._stream, None
        try:
            if stream is None:
                stream = await self._open()
            elif not stream.is_quiet():
                raise PeerFailed("it has closed the connection since its last answer")
            head = f"POST {path} HTTP/1.1\r\n{self._head}{len(body)}\r\n\r\n"
            await stream.send(head.encode("ascii") + body)
            data = await stream.receive(READ_BYTES)
            if data and data == self._last[0]:
                self._stream, stream = stream, None
                return self._last[1]
            reply = _Parsed(max_reply_bytes)
            reply.feed(data)
            in_one_piece = reply.complete
            while not reply.complete:
                reply.feed(await stream.receive(READ_BYTES))
            said = reply.status, bytes(reply.body)
            if reply.keep:
                self._stream, stream = stream, None
                if in_one_piece:
                    self._last = data, said
            return said
        finally:
            if stream is not None:
                stream.close()

    async def _open(self) -> ByteStream:
        return ByteStream.take(await trio.open_tcp_stream(self._host, self._port))

    def close(self) -> None:
        """Use a new connection for the next request."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class _Parsed:
    """One reply, as it is read: httptools calls back."""

    def __init__(self, max_bytes: int) -> None:
        self.body = bytearray()
        self.status = 0
        self.complete = False
        self.keep = False
        self._max_bytes = max_bytes
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes | bytearray) -> None:
        """Raises PeerFailed."""
        if not data:
            raise PeerFailed("it closed the connection before its answer was complete")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:  # what was raised below
            raise error.__context__ or error from None
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise PeerFailed(f"its answer is not HTTP: {error_text(error)}") from None

    def on_message_begin(self) -> None:
        if self.complete:
            raise PeerFailed("it answers once more than it was asked")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.body += body
        if len(self.body) > self._max_bytes:
            raise PeerFailed(f"a reply of more than {self._max_bytes} bytes")

    def on_message_complete(self) -> None:
        self.complete = self.status >= 200  # what comes before is no more than a word on the way
        self.keep = self._parser.should_keep_alive()
