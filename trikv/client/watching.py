"""`Watch`: a change stream as an async iterator, on trio and asyncio. Decisions are
`trikv.client.feed`'s."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Self

import anyio
import httpx

from trikv.client import http
from trikv.client.errors import Refused
from trikv.client.feed import OPEN_S, SILENCE_S, Feed, Told
from trikv.client.model import Change, Reset
from trikv.client.wire import Answer


async def unwind(chunks: AsyncIterator[bytes]) -> None:
    """End an iteration over an answer's body in its midst.

    httpx's iterators are generators within generators. One that is merely dropped is left to the
    garbage collector, which trio warns of, and closing the outer one drops the inner ones. A
    cancellation ends them all.
    """
    with anyio.CancelScope(shield=True) as scope, suppress(StopAsyncIteration, *http.HTTP_ERRORS):
        scope.cancel()
        while True:
            await anext(chunks)


class Watch:
    """The changes under a prefix: an async context manager, and inside it an async iterator.

        async with client.watch("user/") as changes:
            async for change in changes:
                ...

    It yields `Change`s in the order of their versions: first the latest of each key, then new ones as
    they come; and `Reset` where that cannot be done without a gap: forget what it told before, all
    follows anew. It has no end. When a stream ends it goes on at another node, without a gap and
    without telling a change twice, for as long as it takes.

    Iterating raises InvalidRequest or Refused if no node would do it.
    """

    def __init__(self, http_client: httpx.AsyncClient, feed: Feed) -> None:
        self._http = http_client
        self._feed = feed
        self._version = feed.resume
        self._told: deque[Told] = deque()
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self.reached = False
        """Whether any node has opened a stream yet."""

    @property
    def version(self) -> str | None:
        """Where another watch can go on (its `after`): you have been told all up to this version.

        None if it would have to begin at the beginning.
        """
        return self._version

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change | Reset:
        while True:
            while self._told:
                what, self._version = self._told.popleft()
                if what is not None:
                    return what
            await self._more()

    async def _more(self) -> None:
        """Whatever comes next: a stream, bytes of it, or its end."""
        try:
            if self._chunks is None:
                await self._open()
                return
            with anyio.fail_after(SILENCE_S):
                chunk = await anext(self._chunks)
            told, ends = self._feed.feed(chunk)
            self._told += told
            if ends:
                await self._lost(failed=False)
        except Refused:
            await self.aclose()
            raise
        except (StopAsyncIteration, TimeoutError, ValueError, *http.HTTP_ERRORS):
            await self._lost(failed=True)
        except BaseException:  # cancelled: a stream that was cut short cannot be read on
            await self.aclose()
            raise

    async def _open(self) -> None:
        request = self._feed.request
        with anyio.fail_after(OPEN_S):
            response = self._response = await self._http.send(
                self._http.build_request(
                    request.method,
                    f"{self._feed.node}{request.target}",
                    headers=request.headers,
                    timeout=http.STREAM_TIMEOUT,
                ),
                stream=True,
            )
            body = b"" if response.status_code == 200 else await response.aread()
        self._told += self._feed.opened(Answer(response.status_code, response.headers, body))
        self.reached = True
        self._chunks = response.aiter_bytes()

    async def _lost(self, *, failed: bool) -> None:
        await self.aclose()
        await anyio.sleep(self._feed.lost(anyio.current_time(), failed=failed))

    async def aclose(self) -> None:
        """Close its connection. What was not told yet is not told any more by this one."""
        response, self._response = self._response, None
        chunks, self._chunks = self._chunks, None
        if chunks is not None:
            await unwind(chunks)
        if response is not None:
            with anyio.move_on_after(1, shield=True):
                await response.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
