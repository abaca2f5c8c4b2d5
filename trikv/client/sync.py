"""`SyncClient`: trikv without async, and without threads. What it does is decided in
`trikv.client.calls`.

The methods are those of `Client`, word for word. One difference: the deadline of a call is looked at
between what arrives, so that an answer which comes in drops can stretch it by as much again. Nodes
send their answers in one piece.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from trikv.client import http
from trikv.client.calls import TIMEOUT_S, Send, Steps
from trikv.client.errors import Refused
from trikv.client.feed import SILENCE_S, Feed, Told
from trikv.client.model import Change, Consistency, Item, Operation, Reset, Written
from trikv.client.nodes import Nodes
from trikv.client.plans import Plans
from trikv.client.pool import Pool
from trikv.client.wire import MAX_ANSWER_BYTES, Answer, Failure

T = TypeVar("T")


class Clock:
    """Where time comes from: tests have another one."""

    def now_s(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class SyncCalls:
    """What `SyncClient` and `SyncSession` do. Each call may take `timeout_s` seconds, retries
    included."""

    def __init__(
        self, http_client: httpx.Client, plans: Plans, clock: Clock, *, traced: bool
    ) -> None:
        self._http = http_client
        self._plans = plans
        self._clock = clock
        self._traced = traced

    def put(
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
        """As `Client.put`."""
        return self._run(
            self._plans.put(key, value, if_version, if_absent, if_present, unique_value, timeout_s)
        )

    def delete(
        self, key: str, *, if_version: str | None = None, timeout_s: float | None = None
    ) -> Written | None:
        """As `Client.delete`."""
        return self._run(self._plans.delete(key, if_version, timeout_s))

    def batch(self, operations: Sequence[Operation], *, timeout_s: float | None = None) -> Written:
        """As `Client.batch`."""
        return self._run(self._plans.batch(operations, timeout_s))

    def get(
        self,
        key: str,
        *,
        consistency: Consistency | None = None,
        min_version: str | None = None,
        timeout_s: float | None = None,
    ) -> Item | None:
        """As `Client.get`."""
        return self._run(self._plans.get(key, consistency, min_version, timeout_s))

    def list(
        self,
        prefix: str = "",
        *,
        min_version: str | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[Item]:
        """As `Client.list`."""
        listing = self._plans.listing(prefix, min_version)
        while not listing.done:
            yield from self._run(self._plans.page(listing, timeout_s))

    def watch(self, prefix: str = "", *, after: str | None = None) -> SyncWatch:
        """As `Client.watch`."""
        return SyncWatch(self._http, self._plans.feed(prefix, after), self._clock)

    def _run(self, steps: Steps[T]) -> T:
        given: Answer | Failure | None = None
        while True:
            try:
                step = steps.send(given)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Send):
                given = self._send(step)
            else:
                self._clock.sleep(step.seconds)
                given = None

    def _send(self, send: Send) -> Answer | Failure:
        departure = http.Departure(send, traced=self._traced)
        request = send.request
        ends_s = self._clock.now_s() + send.timeout_s
        try:
            with self._http.stream(
                request.method,
                f"{send.node}{request.target}",
                content=request.body,
                headers=request.headers,
                timeout=http.timeouts(send),
                extensions={"trace": departure.trace},
            ) as response:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        return departure.too_large()
                    if self._clock.now_s() > ends_s:
                        return departure.too_late()
                return Answer(response.status_code, response.headers, bytes(body))
        except http.HTTP_ERRORS as error:
            return departure.failure(error)


class SyncClient(SyncCalls):
    """A trikv cluster, for programs that are not async. A context manager; or call `close`.

        with SyncClient(["http://127.0.0.1:8000", "http://127.0.0.1:8001"]) as client:
            client.put("greeting", "hello")

    Arguments as for `Client`. May be shared by threads. Raises ValueError.
    """

    def __init__(
        self,
        nodes: str | Sequence[str],
        *,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._begin(nodes, timeout_s, transport, Clock(), random.SystemRandom())

    def _begin(
        self,
        nodes: str | Sequence[str],
        timeout_s: float,
        transport: httpx.BaseTransport | None,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        plans = Plans(Nodes(nodes, rng), timeout_s, clock.now_s, rng)
        http_client = httpx.Client(transport=Pool(transport), **http.OPTIONS)
        super().__init__(http_client, plans, clock, traced=transport is None)

    def session(self, version: str | None = None) -> SyncSession:
        """As `Client.session`."""
        plans = self._plans.for_session(version)
        return SyncSession(self._http, plans, self._clock, traced=self._traced)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class SyncSession(SyncCalls):
    """As `Session`."""

    @property
    def version(self) -> str | None:
        """As `Session.version`."""
        assert self._plans.session is not None
        return self._plans.session.version


class SyncWatch:
    """As `Watch`: a context manager, and inside it an iterator. `next` waits until something
    changes."""

    def __init__(self, http_client: httpx.Client, feed: Feed, clock: Clock) -> None:
        self._http = http_client
        self._feed = feed
        self._clock = clock
        self._version = feed.resume
        self._told: deque[Told] = deque()
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] | None = None

    @property
    def version(self) -> str | None:
        """As `Watch.version`."""
        return self._version

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Change | Reset:
        while True:
            while self._told:
                what, self._version = self._told.popleft()
                if what is not None:
                    return what
            self._more()

    def _more(self) -> None:
        """Whatever comes next: a stream, bytes of it, or its end."""
        try:
            if self._chunks is None:
                self._open()
                return
            told, ends = self._feed.feed(next(self._chunks))
            self._told += told
            if ends:
                self._lost(failed=False)
        except Refused:
            self.close()
            raise
        except (StopIteration, ValueError, *http.HTTP_ERRORS):
            self._lost(failed=True)
        except BaseException:  # interrupted: a stream that was cut short cannot be read on
            self.close()
            raise

    def _open(self) -> None:
        request = self._feed.request
        response = self._response = self._http.send(
            self._http.build_request(
                request.method,
                f"{self._feed.node}{request.target}",
                headers=request.headers,
                timeout=httpx.Timeout(SILENCE_S, connect=http.CONNECT_S),
            ),
            stream=True,
        )
        body = b"" if response.status_code == 200 else response.read()
        self._told += self._feed.opened(Answer(response.status_code, response.headers, body))
        self._chunks = response.iter_bytes()

    def _lost(self, *, failed: bool) -> None:
        self.close()
        self._clock.sleep(self._feed.lost(self._clock.now_s(), failed=failed))

    def close(self) -> None:
        """Close its connection."""
        response, self._response, self._chunks = self._response, None, None
        if response is not None:
            response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
