"""The seam to other nodes: one request, one reply.

`Transport` is all that trikv knows of the network between its nodes. In production it is httpx, but for
the batches of records, which have a connection of their own to each node (see `peer_connection`); in
simulation an in-memory network implements it, with delays, losses and cuts. Whatever keeps a complete
reply from coming in time is one error, PeerFailed: to the caller a peer that is down, slow, cut off or
babbling is the same thing.
"""

from __future__ import annotations

import math
from functools import lru_cache
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import httpx
import trio

from trikv.errors import PeerFailed, error_text
from trikv.network.peer_connection import Kept

#: A reply is at most this large: a page of records is 4 MiB, and one value may be 16 MiB.
MAX_REPLY_BYTES = 64 * 2**20

#: Shorter than the server's keep-alive, so that a reused connection does not race its own closing.
KEEPALIVE_EXPIRY_S = 30.0


class Reply(NamedTuple):
    status: int
    body: bytes


#: Where batches of records go, the one request that is sent over and over.
KEPT_PATH = "/replicate"


class Transport(Protocol):
    async def request(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        *,
        timeout_s: float,
        last_on_connection: bool = False,
    ) -> Reply:
        """Send one request; any complete reply is returned, whatever its status.

        After the last one on a connection the next looks its host up anew: a kept connection may lead
        to a node that has long been given another name. Raises PeerFailed if there is no reply within
        `timeout_s`.
        """
        ...


class HttpTransport:
    """Requests over HTTP/1.1 on kept-alive connections. An async context manager."""

    def __init__(self) -> None:
        self._client = httpx.AsyncClient(
            trust_env=False,  # a proxy set for the web is not meant for the nodes of a cluster
            timeout=None,  # one deadline for the whole request, below
            limits=httpx.Limits(keepalive_expiry=KEEPALIVE_EXPIRY_S),
            headers={"content-type": "application/json"},
        )
        self._kept: dict[str, Kept] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for kept in self._kept.values():
            kept.close()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await self._client.aclose()

    async def request(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        *,
        timeout_s: float,
        last_on_connection: bool = False,
    ) -> Reply:
        try:
            if timeout_s == math.inf:  # who asks has a deadline of its own
                return await self._request(method, url, body, last_on_connection)
            with trio.fail_after(timeout_s):
                return await self._request(method, url, body, last_on_connection)
        except trio.TooSlowError:
            raise PeerFailed(f"{url}: no answer within {timeout_s:g} s") from None
        except (OSError, httpx.HTTPError, httpx.InvalidURL) as error:
            raise PeerFailed(f"{url}: {error_text(error)}") from None

    async def _request(
        self, method: str, url: str, body: bytes | None, last_on_connection: bool
    ) -> Reply:
        base = base_of(url)
        if last_on_connection and base in self._kept:
            self._kept[base].close()
        if body is not None and url == base + KEPT_PATH and base.startswith("http:"):
            if base not in self._kept:
                self._kept[base] = Kept(base)
            return Reply(*await self._kept[base].post(KEPT_PATH, body, MAX_REPLY_BYTES))
        return await self._ask(method, url, body, last_on_connection)

    async def _ask(
        self, method: str, url: str, body: bytes | None, last_on_connection: bool
    ) -> Reply:
        headers = {"connection": "close"} if last_on_connection else None
        async with self._client.stream(method, url, content=body, headers=headers) as response:
            reply = bytearray()
            async for chunk in response.aiter_bytes():
                reply += chunk
                if len(reply) > MAX_REPLY_BYTES:
                    raise PeerFailed(f"{url}: a reply of more than {MAX_REPLY_BYTES} bytes")
            return Reply(response.status_code, bytes(reply))


@lru_cache(maxsize=256)  # there are few, and each is asked for again and again
def base_of(url: str) -> str:
    """`http://host:port` of a URL."""
    return "/".join(url.split("/", 3)[:3])
