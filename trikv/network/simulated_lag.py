"""The simulated network: lag, and wires that are cut.

Lag is how long each record waits before it goes on its way to a follower.

Each delay is drawn uniformly from [min_delay_ms, max_delay_ms], for each record and each follower
alone, so that a write's delays differ and the k-th fastest follower decides how long quorum k takes.
Every follower has a range (at first the same for all) and a random stream of its own: with a seed, the
n-th delay of a follower does not depend on what the others drew.

A wire that is cut carries nothing, in either direction: a request that is on it fails at once, and so
does every other until it is healed. `Wires` is a transport around the real one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import trio

from trikv.errors import PeerFailed
from trikv.network.transport import Reply, Transport, base_of

#: No simulated network is slower than ten minutes: a slip of the pen, or a unit mistaken.
MAX_DELAY_MS = 600_000


class LagRange(NamedTuple):
    min_delay_ms: float
    max_delay_ms: float


def lag_problem(lag: LagRange) -> str | None:
    """What is wrong with a range, or None."""
    if 0 <= lag.min_delay_ms <= lag.max_delay_ms <= MAX_DELAY_MS:
        return None
    return f"expected 0 <= min_delay_ms <= max_delay_ms <= {MAX_DELAY_MS}"


class SimulatedLag:
    """The lag of every follower, by URL."""

    def __init__(self, default: LagRange, followers: Iterable[str], seed: int | None) -> None:
        self.default = default
        self.of = dict.fromkeys(followers, default)
        self._random = {
            url: random.Random() if seed is None else random.Random(f"{seed} {index}")
            for index, url in enumerate(self.of)
        }

    @property
    def is_on(self) -> bool:
        """Whether any follower has some."""
        return any(lag.max_delay_ms > 0 for lag in self.of.values())

    def set(self, lag: LagRange, follower: str | None = None) -> None:
        """Change the range of one follower, or of all, whatever single ones had."""
        if follower is None:
            self.default = lag
            self.of = dict.fromkeys(self.of, lag)
        else:
            self.of[follower] = lag

    def draw_ms(self, follower: str) -> float:
        """One delay for one record (or one page of records) to that follower."""
        return self._random[follower].uniform(*self.of[follower])

    def draw_s(self, follower: str) -> float:
        """The same in seconds."""
        return self.draw_ms(follower) / 1000


class Wires:
    """The wires from this node to others, each of which can be cut. A `Transport`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._in_use: dict[trio.CancelScope, str] = {}
        self._cut: set[str] = set()

    def cut(self, url: str) -> None:
        """Cut the wire to the node with this base URL."""
        self._cut.add(url)
        for scope, used in self._in_use.items():
            if used == url:
                scope.cancel()

    def heal(self, url: str) -> None:
        self._cut.discard(url)

    def is_cut(self, url: str) -> bool:
        return url in self._cut

    @contextmanager
    def held(self, url: str) -> Iterator[None]:
        """Inside, `post` can be used; if the wire is cut, what goes on inside ends with PeerFailed."""
        with trio.CancelScope() as scope:
            self._in_use[scope] = url
            try:
                yield
            finally:
                del self._in_use[scope]
        if scope.cancelled_caught:
            raise PeerFailed(f"{url}: the wire was cut")

    async def post(self, base: str, path: str, body: bytes) -> Reply:
        """A request on a wire that is held, and whose holder sees to it that it ends in time."""
        url = base + path
        if base in self._cut:
            await trio.lowlevel.checkpoint()
            raise PeerFailed(f"{url}: the wire is cut")
        return await self._transport.request("POST", url, body, timeout_s=math.inf)

    async def request(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        *,
        timeout_s: float,
        last_on_connection: bool = False,
    ) -> Reply:
        base = base_of(url)
        if self.is_cut(base):
            await trio.lowlevel.checkpoint()
            raise PeerFailed(f"{url}: the wire is cut")
        # One scope for both: being cut off and running out of time. The transport needs none.
        with trio.CancelScope(deadline=trio.current_time() + timeout_s) as scope:
            self._in_use[scope] = base
            try:
                return await self._transport.request(
                    method, url, body, timeout_s=math.inf, last_on_connection=last_on_connection
                )
            finally:
                del self._in_use[scope]
        if trio.current_time() < scope.deadline:
            raise PeerFailed(f"{url}: the wire was cut")
        raise PeerFailed(f"{url}: no answer within {timeout_s:g} s")
