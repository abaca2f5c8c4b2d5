"""`Client`: trikv for trio and asyncio. What it does is decided in `trikv.client.calls`; here it is
done.

Every method may be cancelled, by trio, by anyio or by asyncio. A write that is cancelled may have
happened.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import anyio.lowlevel
import httpx

from trikv.client import batching, http
from trikv.client.calls import TIMEOUT_S, Send, Steps
from trikv.client.model import Consistency, Item, Operation, Written
from trikv.client.nodes import Nodes
from trikv.client.plans import Listing, Plans
from trikv.client.pool import AsyncPool
from trikv.client.watching import Watch, unwind
from trikv.client.wire import MAX_ANSWER_BYTES, Answer, Failure

T = TypeVar("T")


class Items:
    """The items of a list. Holds nothing open between two of them, so it may be left at any time."""

    def __init__(self, listing: Listing, page: Callable[[], Awaitable[Sequence[Item]]]) -> None:
        self._listing = listing
        self._page = page
        self._items: deque[Item] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while not self._items:
            if self._listing.done:
                raise StopAsyncIteration
            self._items += await self._page()
        return self._items.popleft()

    async def aclose(self) -> None:
        """End the list, for `contextlib.aclosing`: nothing needs it."""
        self._listing.done = True
        self._items.clear()
        await anyio.lowlevel.checkpoint()


class Calls:
    """What `Client` and `Session` do: the calls. Each may take `timeout_s` seconds, retries
    included."""

    def __init__(self, http_client: httpx.AsyncClient, plans: Plans, *, traced: bool) -> None:
        self._http = http_client
        self._plans = plans
        self._traced = traced

    async def put(
        self,
        key: str,
        value: Any,
        *,
        if_version: str | None = None,
        if_absent: bool = False,
        if_present: bool = False,
        unique_value: bool = False,
        timeout_s: float | None = None,
    ) -> Written:
        """Write a key, and return once the write is confirmed.

        `if_version`, `if_absent`, `if_present`: only if the key is so; one of them at most. With
        `unique_value` you promise that nobody else writes this value, and you write it once (it holds
        a random id, say): then a read can tell whether a write happened whose answer was lost.

        Raises VersionConflict, InvalidRequest, Unavailable (nothing was written), OutcomeUnknown.
        """
        return await self._run(
            self._plans.put(key, value, if_version, if_absent, if_present, unique_value, timeout_s)
        )

    async def delete(
        self, key: str, *, if_version: str | None = None, timeout_s: float | None = None
    ) -> Written | None:
        """Delete a key. None if it is not there, which is confirmed like a read.

        Raises VersionConflict, InvalidRequest, Unavailable (nothing was written), OutcomeUnknown.
        """
        return await self._run(self._plans.delete(key, if_version, timeout_s))

    async def batch(
        self, operations: Sequence[Operation], *, timeout_s: float | None = None
    ) -> Written:
        """Several writes, all or none, with one version. Each key at most once, 1 to 1000 operations.

        Raises VersionConflict, InvalidRequest, Unavailable (nothing was written), OutcomeUnknown.
        """
        return await self._run(self._plans.batch(operations, timeout_s))

    async def get(
        self,
        key: str,
        *,
        consistency: Consistency | None = None,
        min_version: str | None = None,
        timeout_s: float | None = None,
    ) -> Item | None:
        """Read a key. None if it is not there.

        `consistency`: "linearizable" asks the leader for what is confirmed and the latest; "local"
        takes what any node holds at this moment, which may be old. With `min_version` the node first
        waits until it holds everything up to that version. By default a read is linearizable; in a
        session, and with `min_version`, it is "local".

        Raises InvalidRequest, Unavailable.
        """
        return await self._run(self._plans.get(key, consistency, min_version, timeout_s))

    def list(
        self,
        prefix: str = "",
        *,
        min_version: str | None = None,
        timeout_s: float | None = None,
    ) -> Items:
        """All keys that begin with `prefix`, in order (of their UTF-8), fetched page by page.

        Tells what one node holds, the leader if it is known and not in a session: each page is
        consistent, writes may come between two. `timeout_s` is for each page.

        Raises InvalidRequest, Unavailable.
        """
        listing = self._plans.listing(prefix, min_version)
        return Items(listing, lambda: self._run(self._plans.page(listing, timeout_s)))

    def watch(self, prefix: str = "", *, after: str | None = None) -> Watch:
        """The latest change of every key that begins with `prefix`, after a version, and then all new
        ones, as they come.

        An async context manager and iterator; see `Watch`. Raises InvalidRequest.
        """
        return Watch(self._http, self._plans.feed(prefix, after))

    async def _run(self, steps: Steps[T]) -> T:
        given: Answer | Failure | None = None
        while True:
            try:
                step = steps.send(given)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Send):
                given = await self._send(step)
            else:
                await anyio.sleep(step.seconds)
                given = None

    async def _send(self, send: Send) -> Answer | Failure:
        departure = http.Departure(send, traced=self._traced)
        request = send.request
        with anyio.move_on_after(send.timeout_s):
            try:
                async with self._http.stream(
                    request.method,
                    f"{send.node}{request.target}",
                    content=request.body,
                    headers=request.headers,
                    timeout=http.timeouts(send),
                    extensions={"trace": departure.atrace},
                ) as response:
                    body = bytearray()
                    chunks = response.aiter_bytes()
                    async for chunk in chunks:
                        body += chunk
                        if len(body) > MAX_ANSWER_BYTES:
                            await unwind(chunks)
                            return departure.too_large()
                    return Answer(response.status_code, response.headers, bytes(body))
            except http.HTTP_ERRORS as error:
                return departure.failure(error)
        return departure.too_late()


class Client(Calls):
    """A trikv cluster, on trio or asyncio. An async context manager; or call `aclose`.

        async with Client(["http://127.0.0.1:8000", "http://127.0.0.1:8001"]) as client:
            await client.put("greeting", "hello")

    nodes      the URL of one node, or better of all; who leads among them is found out
    timeout_s  what a call may take, in seconds, unless it says otherwise
    transport  an httpx transport, for TLS settings, proxies and tests

    May be shared by all tasks of one event loop. Raises ValueError.
    """

    def __init__(
        self,
        nodes: str | Sequence[str],
        *,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        rng = random.SystemRandom()  # which has no state that the children of a fork would share
        plans = Plans(Nodes(nodes, rng), timeout_s, _clock, rng)
        http_client = httpx.AsyncClient(transport=AsyncPool(transport), **http.OPTIONS)
        super().__init__(http_client, plans, traced=transport is None)

    def session(self, version: str | None = None) -> Session:
        """A session that reads its own writes, from any node. Raises InvalidRequest.

        `version` is where it begins: another session's, to go on where that one was.
        """
        return Session(self._http, self._plans.for_session(version), traced=self._traced)

    def batching(
        self, *, timeout_s: float | None = None
    ) -> AbstractAsyncContextManager[batching.Batching]:
        """Puts and deletes of many tasks that share batches. See `Batching`."""
        return batching.open_batching(
            lambda operations: self.batch(operations, timeout_s=timeout_s)
        )

    async def aclose(self) -> None:
        """Close all connections."""
        with anyio.move_on_after(1, shield=True):
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class Session(Calls):
    """Reads its own writes, and never goes back in time, whichever node it reads from.

    `get` and `list` ask any node, and wait there until it holds what this session has written or read
    last. What an unconfirmed write showed may be gone after a takeover; `consistency="linearizable"`
    reads no such. For tasks that share a session each sees what the others have seen. Lives as long as
    its client.
    """

    @property
    def version(self) -> str | None:
        """The greatest version that it has written or read; None at first. Hand it on to go on
        elsewhere."""
        assert self._plans.session is not None
        return self._plans.session.version


def _clock() -> float:
    return anyio.current_time()
