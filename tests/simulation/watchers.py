"""Programs that watch a fleet for changes, through all that is done to it.

A watcher is the client's own `Feed`: it opens a stream at any node, reads a while, is cut off anywhere,
and goes on at any other node from where it can. Now and then the program ends, and another goes on with
what it knew. In the end it must know exactly what is there.
"""

from __future__ import annotations

import random
from contextlib import aclosing
from typing import Any

import trio

from tests.simulation.fleet import Fleet
from tests.simulation.network import OWNER
from tests.support import call, until
from trikv.client.feed import Feed
from trikv.client.model import Change, Reset
from trikv.client.nodes import Nodes
from trikv.client.wire import Answer
from trikv.model.membership import KEY
from trikv.model.version import Version
from trikv.node.node import Node


class Watcher:
    def __init__(self, fleet: Fleet, seed: int, prefix: str = "") -> None:
        self.prefix = prefix
        self.state: dict[str, tuple[Any, str]] = {}
        """What it knows: value and version by key."""
        self.streams = self.changes = self.resets = 0
        self._fleet = fleet
        self._rng = random.Random(seed)
        self._urls = [f"http://{name}" for name in fleet.names]
        self._versions: dict[str, Version] = {}  # of what this program was told
        self._resume: str | None = None
        self._calm = False
        self._stays_at: str | None = None
        self._begin()

    @property
    def values(self) -> dict[str, Any]:
        return {key: value for key, (value, _) in self.state.items()}

    def stay(self, name: str) -> None:
        """From the next stream on it is at this node, and nothing cuts it off."""
        self._stays_at, self._calm = name, True

    def _begin(self) -> None:
        """A program begins, with what the last one knew."""
        if self._resume is None:
            self.state = {}
        self._versions = {}
        rng = random.Random(1)
        self._feed = Feed(Nodes(self._urls, rng), self.prefix, self._resume, self._urls[0], rng)

    async def run(self) -> None:
        """For ever."""
        while True:
            name = self._stays_at or self._rng.choice(self._fleet.names)
            node = self._fleet.nodes.get(name)
            if node is not None:
                self._feed.node = f"http://{name}"
                await self._read(node)
                self._feed.lost(trio.current_time())
            if not self._calm and self._rng.random() < 0.1:
                self._begin()
            asleep = not self._calm and self._rng.random() < 0.1  # and what it misses may be purged
            await trio.sleep(self._rng.uniform(0, 20 if asleep else 0.3))

    async def _read(self, node: Node) -> None:
        """One stream, cut off somewhere."""
        rng, send, receive = self._rng, *trio.open_memory_channel[Any](0)
        end = self._fleet.network.ends[id(node)]
        end.requests.start_soon(self._serve, node, self._feed.request.target, send)
        patience_s = 1000 if self._calm else rng.expovariate(1 / 4)
        with trio.move_on_after(patience_s):
            async with receive:
                async for piece in receive:
                    if isinstance(piece, Answer):
                        try:
                            self._take(self._feed.opened(piece))
                        except ValueError:
                            return
                        self.streams += 1
                        continue
                    if not self._calm and rng.random() < 0.05:  # torn in its midst
                        self._take(self._feed.feed(piece[: rng.randrange(len(piece))])[0])
                        return
                    told, ends = self._feed.feed(piece)
                    self._take(told)
                    if ends:
                        return
                    if rng.random() < 0.1:
                        await trio.sleep(rng.uniform(0, 3))

    async def _serve(self, node: Node, target: str, send: trio.MemorySendChannel[Any]) -> None:
        """In a task of the node's, whose end is the stream's."""
        end = self._fleet.network.ends[id(node)]
        OWNER.set(end)
        async with send:
            try:
                answer = await call(node, "GET", target)
                head = {"content-type": answer.content_type}
                if isinstance(answer.body, bytes):
                    await send.send(Answer(answer.status, head, answer.body))
                    return
                await send.send(Answer(answer.status, head, b""))
                async with aclosing(answer.body) as body:  # type: ignore[type-var]
                    async for chunk in body:
                        if end.dead:
                            return
                        await send.send(chunk)
            except trio.BrokenResourceError:
                pass  # the reader has left

    def _take(self, told: Any) -> None:
        for what, resume in told:
            self._resume = resume
            if isinstance(what, Reset):
                self.state, self._versions = {}, {}
                self.resets += 1
            elif isinstance(what, Change):
                self.changes += 1
                version, before = Version.parse(what.version), self._versions.get(what.key)
                assert before is None or version > before, (
                    f"{what.key}: {version} was told after {before}"
                )
                assert what.key.startswith(self.prefix)
                assert what.key != KEY
                self._versions[what.key] = version
                if what.deleted:
                    self.state.pop(what.key, None)
                else:
                    self.state[what.key] = (what.value, what.version)

    async def check(self, node: Node, timeout_s: float = 60) -> None:
        """All is quiet: it comes to know exactly what this node holds."""
        self._calm = True
        records = [record async for page in node.pages_by_key() for record in page]
        expected = {
            one.key: (int(one.value), str(one.version))
            for one in records
            if not one.deleted and one.key.startswith(self.prefix)
        }
        try:
            await until(lambda: self.state == expected, timeout_s)
        except trio.TooSlowError:
            keys = {
                key for key in {*self.state, *expected} if self.state.get(key) != expected.get(key)
            }
            told = {key: (self.state.get(key), expected.get(key)) for key in sorted(keys)}
            raise AssertionError(f"it knows, and there is: {told}") from None
