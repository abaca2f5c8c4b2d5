"""httpx transports that bound how many exchanges are under way, and give each a connection of its own.

httpcore's pool loses a connection for good when a request is cancelled between being given one and
using it, which is what happens to requests that wait there for their turn. So none does:

- An exchange takes one of the pool's slots first, and gives it back when its answer is closed.
- It then has a *lane*, an httpx transport of one connection, to itself. A lane whose exchange failed or
  was cancelled is closed, with whatever httpcore has left in it; others are kept for the next exchange
  with the same node.
- The child of a fork shares no connection with its parent: it begins without lanes, and an answer that
  was being read ends there. Its copies of the parent's sockets are closed where that takes no event
  loop, which does not touch the connections: the parent has them still.

A transport that the caller has given stands in for all lanes; only the slots are ours then. It cannot
be replaced after a fork, so the child is refused.
"""

from __future__ import annotations

import functools
import os
import ssl
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any, Generic, NamedTuple, Self, TypeVar
from weakref import WeakSet

import anyio
import httpcore  # noqa: F401 - httpx would import it in the midst of the first call
import httpx

#: Exchanges with all nodes together, watches included; further calls wait for one to end.
MAX_CONNECTIONS = 200

#: The same through a transport that was given: as many as httpx's own take unless told otherwise.
MAX_GIVEN_CONNECTIONS = 100

#: Shorter than a node's own (90 s), so that a reused connection does not race its closing.
KEEPALIVE_S = 30.0

#: Closing a connection waits for nothing, except for the end of TLS.
CLOSE_S = 1.0

_LIMITS = httpx.Limits(max_connections=1, keepalive_expiry=KEEPALIVE_S)

#: For lanes without TLS, to which httpx wants a context all the same.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

T = TypeVar("T")


@functools.cache  # it takes some 60 ms to read all certificates, and most clusters have none
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


class _Idle(NamedTuple, Generic[T]):
    lane: T
    since_s: float


class _Lanes(Generic[T]):
    """Free lanes, by node. The last one used is taken first, so that the others grow old."""

    def __init__(self) -> None:
        self._idle: dict[str, deque[_Idle[T]]] = {}

    def take(self, node: str) -> T | None:
        try:
            return self._idle[node].pop().lane
        except LookupError:
            return None

    def give(self, node: str, lane: T) -> list[T]:
        """Keep a lane. Returns those to close: none of them was used for `KEEPALIVE_S`."""
        now_s = time.monotonic()
        idle = self._idle.setdefault(node, deque())
        idle.append(_Idle(lane, now_s))
        old = []
        while idle[0].since_s < now_s - KEEPALIVE_S:
            old.append(idle.popleft().lane)
        return old

    def __repr__(self) -> str:
        idle = sum(len(lanes) for lanes in self._idle.values())
        return f"<{type(self).__name__}: {idle} connections idle>"

    def take_all(self) -> list[T]:
        idle, self._idle = self._idle, {}
        return [one.lane for lanes in idle.values() for one in lanes]


class _Pool(Generic[T]):
    """What both pools have in common: lanes, and what a fork does to them."""

    def __init__(self, given: T | None) -> None:
        self._given: T | None = given
        self._forked = False
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        """Start empty."""
        self._pool: _Lanes[T] = _Lanes()
        self._slots = self._new_slots(
            MAX_CONNECTIONS if self._given is None else MAX_GIVEN_CONNECTIONS
        )

    def _new_slots(self, count: int) -> Any:
        raise NotImplementedError

    def after_fork(self) -> None:
        self._forked = True
        self._leave(self._pool.take_all())
        self._begin()

    def _leave(self, lanes: list[T]) -> None:
        """Let go of the parent's lanes."""
        raise NotImplementedError

    def _lane(self, request: httpx.Request) -> T:
        if self._given is None:
            return self._pool.take(_node(request)) or self._new_lane(
                verify=_tls() if request.url.scheme == "https" else _NO_TLS,
                limits=_LIMITS,
                trust_env=False,
            )
        if self._forked:
            raise RuntimeError(
                "a client with a transport of its own cannot be used after a fork: make one in the child"
            )
        return self._given

    def _new_lane(self, **options: Any) -> T:
        raise NotImplementedError

    def _free(self, request: httpx.Request, lane: T) -> list[T]:
        """An exchange has ended well. Returns the lanes to close."""
        return [] if lane is self._given else self._pool.give(_node(request), lane)

    def _all_lanes(self) -> list[T]:
        return self._pool.take_all() if self._given is None else [self._given]


def _node(request: httpx.Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc.decode()}"


_pools: WeakSet[_Pool[Any]] = WeakSet()

#: What belongs to a parent, and would be closed if nothing referred to it any more.
_inherited: list[object] = []


def _after_fork() -> None:
    for pool in list(_pools):
        pool.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class AsyncPool(_Pool[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport):
    """For trio and asyncio. Its wait for a slot ends with the caller's deadline."""

    _slots: anyio.Semaphore

    def _new_slots(self, count: int) -> anyio.Semaphore:
        return anyio.Semaphore(count)

    def _new_lane(self, **options: Any) -> httpx.AsyncBaseTransport:
        return httpx.AsyncHTTPTransport(**options)

    def _leave(self, lanes: list[httpx.AsyncBaseTransport]) -> None:
        _inherited.append(lanes)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.stream = _Whole(request.content)
        slots = self._slots
        await slots.acquire()
        try:
            lane = self._lane(request)
            try:
                response = await lane.handle_async_request(request)
            except BaseException:
                await self._close([] if lane is self._given else [lane])
                raise
        except BaseException:
            slots.release()
            raise
        if response.is_closed:  # it came whole, and nobody will close it
            slots.release()
            return response
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _AsyncBody(self, request, lane, slots, response.stream)
        return response

    async def ended(self, request: httpx.Request, lane: httpx.AsyncBaseTransport) -> None:
        """An answer was read, or given up."""
        await self._close(self._free(request, lane))

    async def _close(self, lanes: list[httpx.AsyncBaseTransport]) -> None:
        if lanes:
            with anyio.move_on_after(CLOSE_S, shield=True):
                for lane in lanes:
                    await lane.aclose()

    async def aclose(self) -> None:
        await self._close(self._all_lanes())


class _Whole(httpx.AsyncByteStream):
    """A request's body. httpx's is a generator, which a cancellation in the midst of it leaves open:
    trio warns of that."""

    def __init__(self, body: bytes) -> None:
        self._left = [body] if body else []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


class _AsyncBody(httpx.AsyncByteStream):
    """An answer's body, at whose end the lane and the slot are free."""

    def __init__(
        self,
        pool: AsyncPool,
        request: httpx.Request,
        lane: httpx.AsyncBaseTransport,
        slots: anyio.Semaphore,
        body: httpx.AsyncByteStream,
    ) -> None:
        self._pool = pool
        self._request = request
        self._lane = lane
        self._slots = slots
        self._body = body
        self._closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body.__aiter__()

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            try:
                await self._body.aclose()
                await self._pool.ended(self._request, self._lane)
            finally:
                self._slots.release()


class Pool(_Pool[httpx.BaseTransport], httpx.BaseTransport):
    """For programs that are not async; threads may share it."""

    _slots: threading.Semaphore

    def _new_slots(self, count: int) -> threading.Semaphore:
        return threading.Semaphore(count)

    def _new_lane(self, **options: Any) -> httpx.BaseTransport:
        return httpx.HTTPTransport(**options)

    def _leave(self, lanes: list[httpx.BaseTransport]) -> None:
        for lane in lanes:
            lane.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        slots = self._slots
        if not slots.acquire(blocking=False):
            _wait(slots, request)
        try:
            lane = self._lane(request)
            try:
                response = lane.handle_request(request)
            except BaseException:
                if lane is not self._given:
                    lane.close()
                raise
        except BaseException:
            slots.release()
            raise
        if response.is_closed:  # it came whole, and nobody will close it
            slots.release()
            return response
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = _Body(self, request, lane, slots, response.stream)
        return response

    def ended(self, request: httpx.Request, lane: httpx.BaseTransport) -> None:
        """An answer was read, or given up."""
        for old in self._free(request, lane):
            old.close()

    def close(self) -> None:
        for lane in self._all_lanes():
            lane.close()


def _wait(slots: threading.Semaphore, request: httpx.Request) -> None:
    """Take a slot when one is free; the wait is part of the time that the exchange may take."""
    timeouts: dict[str, float | None] = request.extensions["timeout"]
    began_s = time.monotonic()
    if not slots.acquire(timeout=timeouts["pool"]):
        raise httpx.PoolTimeout("all connections are in use", request=request)
    waited_s = time.monotonic() - began_s
    request.extensions["timeout"] = {
        name: None if limit_s is None else max(0.001, limit_s - waited_s)
        for name, limit_s in timeouts.items()
    }


class _Body(httpx.SyncByteStream):
    """As `_AsyncBody`. In the child of a fork it ends, and leaves all to the parent."""

    def __init__(
        self,
        pool: Pool,
        request: httpx.Request,
        lane: httpx.BaseTransport,
        slots: threading.Semaphore,
        body: httpx.SyncByteStream,
    ) -> None:
        self._pool = pool
        self._request = request
        self._lane = lane
        self._slots = slots
        self._body = body
        self._closed = False
        self._pid = os.getpid()

    def __iter__(self) -> Iterator[bytes]:
        pieces = iter(self._body)
        while os.getpid() == self._pid:
            try:
                piece = next(pieces)
            except StopIteration:
                return
            yield piece
        _inherited.append(pieces)
        raise httpx.ReadError("this answer is the parent's, from before the fork")

    def close(self) -> None:
        if not self._closed and os.getpid() == self._pid:
            self._closed = True
            try:
                self._body.close()
                self._pool.ended(self._request, self._lane)
            finally:
                self._slots.release()
