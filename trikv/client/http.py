"""What both clients need to know of httpx: how long each thing may take, and whether a request has
left.

A request that has not begun to leave has certainly not been answered, and may be sent elsewhere
whatever it was. httpx's own transport tells when it begins to send (the `trace` extension); with a
transport of the caller's only its exceptions tell, and what they leave open counts as sent.
"""

from __future__ import annotations

from typing import Any

import httpx

from trikv import __version__
from trikv.client.calls import Send
from trikv.client.wire import MAX_ANSWER_BYTES, Failure
from trikv.errors import error_text

#: A node that is up takes a connection at once; one that is gone may not even refuse it.
CONNECT_S = 2.0

#: The system has no timeouts without end, which a call may have: ten days will do for one of its steps.
LONGEST_S = 1e6

#: What httpx raises before anything was sent, whatever the transport.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

#: All that httpx raises for an exchange that fails.
HTTP_ERRORS = (httpx.HTTPError, httpx.InvalidURL)

OPTIONS: dict[str, Any] = {
    "trust_env": False,  # a proxy set for the web is not meant for the nodes of a cluster
    "headers": {"user-agent": f"trikv/{__version__}"},
}


class Departure:
    """Whether a request has begun to leave. `traced`: by httpx's own transport, which tells."""

    def __init__(self, send: Send, *, traced: bool) -> None:
        self._send = send
        self._begun = not traced
        self.sent = not traced

    def trace(self, name: str, _: Any) -> None:
        self._begun = True
        if name.endswith(".send_request_headers.started"):
            self.sent = True

    async def atrace(self, name: str, info: Any) -> None:
        self.trace(name, info)

    def failure(self, error: BaseException) -> Failure:
        sent = self.sent and not isinstance(error, _NOT_SENT)
        detail = f"{self._send.node}: {error_text(error)}"
        if isinstance(error, httpx.ConnectError) and self._send.node.startswith("https:"):
            detail += " (nodes speak no TLS: http:// may be meant)"
        return Failure(sent, detail)

    def too_late(self) -> Failure:
        lacking = "no answer" if self._begun else "all connections were in use, none was free"
        timeout_s = self._send.timeout_s  # what was left of a time that somebody gave
        seconds = round(timeout_s, 1 if timeout_s >= 1 else 2)
        return Failure(self.sent, f"{self._send.node}: {lacking} within {seconds:g} s")

    def too_large(self) -> Failure:
        detail = f"{self._send.node}: an answer of more than {MAX_ANSWER_BYTES} bytes"
        return Failure(self.sent, detail)


def timeouts(send: Send) -> httpx.Timeout:
    """For one attempt; connecting is the one thing that has a bound of its own."""
    timeout_s = min(send.timeout_s, LONGEST_S)
    return httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s))


#: For a stream, whose silence is the watch's business.
STREAM_TIMEOUT = httpx.Timeout(None, connect=CONNECT_S)
