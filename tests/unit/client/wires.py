"""What the client's tests run on: three shells, simulated time, and wires that do what a test says.

A scenario is an async function of a client. `play` runs it with `Client` on trio, with `Client` on
asyncio, and with `SyncClient` behind the same async face. Nobody ever waits: trio has its mock clock,
the loop of asyncio is one whose time jumps to the next timer, and `SyncClient` is given a clock of its
own.
"""

from __future__ import annotations

import asyncio
import json
import random
import selectors
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast
from urllib.parse import parse_qsl, urlsplit

import anyio
import httpx
import trio.testing

from trikv.client import Client, SyncClient, sync

Shell = Literal["trio", "asyncio", "sync"]
SHELLS: tuple[Shell, ...] = ("trio", "asyncio", "sync")

A, B, C = "http://a:1", "http://b:2", "http://c:3"

#: No request is ever answered later than this, in simulated time.
LONG_S = 1e6


# -- time ---------------------------------------------------------------------------------------------


class _JumpingSelector(selectors.SelectSelector):
    """Instead of waiting until a timer is due it makes it due."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout is None or timeout > 0 else timeout)
        if not ready and timeout is not None and timeout > 0:
            self.now_s += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop on simulated time, for programs that wait for nothing but timers."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


class FakeClock(sync.Clock):
    def __init__(self) -> None:
        self.time_s = 0.0
        self.slept: list[float] = []

    def now_s(self) -> float:
        return self.time_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time_s += seconds


def run_async(backend: str, function: Callable[[], Awaitable[None]]) -> None:
    """An async function on simulated time."""
    options: dict[str, Any] = {"loop_factory": JumpingLoop}
    if backend == "trio":
        options = {"clock": trio.testing.MockClock(autojump_threshold=0)}
    anyio.run(function, backend=backend, backend_options=options)


# -- wires --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A request as a node sees it."""

    node: str
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """An answer; one whose `status` is 0 never comes. `content`: pieces of a stream."""

    status: int = 0
    document: Any = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    content: tuple[bytes, ...] | None = None
    hangs: bool = False
    """After the content nothing comes any more, and no end."""
    delay_s: float = 0.0

    @property
    def pieces(self) -> tuple[bytes, ...]:
        return (json.dumps(self.document).encode(),) if self.content is None else self.content

    @property
    def all_headers(self) -> dict[str, str]:
        return {"content-type": self.content_type, **self.headers}


#: Nothing comes back, ever.
SILENCE = Reply()

Answers = Callable[[Asked], Reply | Exception]


def problem(code: str, status: int, **extra: Any) -> Reply:
    told = {"type": f"urn:trikv:problem:{code}", "title": "", "status": status, "detail": code}
    return Reply(status, {**told, "code": code, **extra}, "application/problem+json")


def not_leader(url: str | None, node_id: str = "x") -> Reply:
    leader = None if url is None else {"node_id": node_id, "url": url}
    return problem("not_leader", 403, leader=leader)


def written(version: str, key: str = "k") -> Reply:
    return Reply(200, {"key": key, "value": 1, "version": version, "follower_acks": 2})


def item(key: str, value: Any, version: str) -> Reply:
    return Reply(200, {"key": key, "value": value, "version": version})


@dataclass
class Wire:
    """All nodes: `answers` says what each does with a request, `seen` what was asked."""

    answers: Answers
    seen: list[Asked] = field(default_factory=list)
    clock: FakeClock = field(default_factory=FakeClock)

    def ask(self, request: httpx.Request, body: bytes) -> Reply:
        parts = urlsplit(str(request.url))
        asked = Asked(
            f"{parts.scheme}://{parts.netloc}",
            request.method,
            request.url.raw_path.decode().partition("?")[0],
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            dict(request.headers),
            body,
        )
        self.seen.append(asked)
        reply = self.answers(asked)
        if isinstance(reply, Exception):
            raise reply
        return reply

    @property
    def nodes(self) -> list[str]:
        return [asked.node for asked in self.seen]


async def too_long() -> None:
    await anyio.sleep(LONG_S)
    raise AssertionError("nobody gave up waiting")


class _AsyncPieces(httpx.AsyncByteStream):
    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._reply.pieces:
            await anyio.lowlevel.checkpoint()
            yield piece
        if self._reply.hangs:
            await too_long()


class AsyncWire(httpx.AsyncBaseTransport):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        reply = self._wire.ask(request, await request.aread())
        await anyio.sleep(reply.delay_s)
        if not reply.status:
            await too_long()
        return httpx.Response(reply.status, headers=reply.all_headers, stream=_AsyncPieces(reply))


class _SyncPieces(httpx.SyncByteStream):
    def __init__(self, reply: Reply, fail: Callable[[], None]) -> None:
        self._reply = reply
        self._fail = fail

    def __iter__(self) -> Iterator[bytes]:
        yield from self._reply.pieces
        if self._reply.hangs:
            self._fail()


class SyncWire(httpx.BaseTransport):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        reply = self._wire.ask(request, request.read())
        self._wire.clock.time_s += reply.delay_s

        def time_out() -> None:
            timeout_s = request.extensions["timeout"]["read"]
            self._wire.clock.time_s += timeout_s
            raise httpx.ReadTimeout("nothing came")

        if not reply.status:
            time_out()
        pieces = _SyncPieces(reply, time_out)
        return httpx.Response(reply.status, headers=reply.all_headers, stream=pieces)


# -- shells -------------------------------------------------------------------------------------------


class SyncClientOnAClock(SyncClient):
    def __init__(self, nodes: Any, clock: sync.Clock, **more: Any) -> None:
        timeout_s = more.get("timeout_s", 15.0)
        self._begin(nodes, timeout_s, more["transport"], clock, random.Random(0))


class _Faced:
    """Something of SyncClient's, with the face of Client's."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        if name in ("put", "get", "delete", "batch"):

            async def call(*args: Any, **more: Any) -> Any:
                return getattr(self._inner, name)(*args, **more)

            return call
        if name in ("session", "watch"):
            return lambda *args, **more: _Faced(getattr(self._inner, name)(*args, **more))
        return getattr(self._inner, name)

    async def list(self, *args: Any, **more: Any) -> AsyncIterator[Any]:
        for one in self._inner.list(*args, **more):
            yield one

    def __aiter__(self) -> _Faced:
        return self

    async def __anext__(self) -> Any:
        return next(self._inner)

    async def __aenter__(self) -> _Faced:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._inner.close()


Scenario = Callable[[Client], Awaitable[None]]


def play(shell: Shell, scenario: Scenario, wire: Wire, nodes: Any = (A, B, C), **more: Any) -> None:
    """Run a scenario in one of the shells."""
    if shell == "sync":
        with SyncClientOnAClock(nodes, wire.clock, transport=SyncWire(wire), **more) as client:
            running = cast(Any, scenario(cast(Client, _Faced(client))))
            try:
                running.send(None)
            except StopIteration:
                return
            raise AssertionError("a scenario for SyncClient waits for something else")

    async def run() -> None:
        async with Client(nodes, transport=AsyncWire(wire), **more) as client:
            await scenario(client)

    run_async(shell, run)


def script(**replies: list[Reply | Exception]) -> Answers:
    """Nodes that answer one thing after the other: `a=[…], b=[…]`; then it is too often."""
    queues = {name: deque(queue) for name, queue in replies.items()}

    def answer(asked: Asked) -> Reply | Exception:
        queue = queues.get(cast(str, urlsplit(asked.node).hostname))
        assert queue, f"{asked.node} is asked once too often: {asked}"
        return queue.popleft()

    return answer


def always(**replies: Reply | Exception) -> Answers:
    """Nodes that always answer the same."""
    return lambda asked: replies[cast(str, urlsplit(asked.node).hostname)]
