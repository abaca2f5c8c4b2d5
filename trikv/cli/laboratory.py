"""A cluster of our own that may be hurt: nodes as processes that are killed, stopped, and started again.

Each node has a port and a data directory of its own through all its starts. The first one leads, until
another is promoted; then the old leader starts as a follower the next time, as docs/operations.md has
it for a dead leader.

Rules
- What is done to a node waits for what is being done to it already.
- A node that ends by itself is told, and may be started again.
- However the block is left, no process stays: the leader is told to stop first, so that its last
  deliveries find their followers; who is not gone in time is killed. Should this program be killed,
  the nodes stop by themselves (`trikv.processes`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import trio

from trikv.cli.outcome import failed
from trikv.processes import HOST, Node, ask_to_stop, spawn, started_url

#: Several Python processes start at once on a small, busy machine.
START_S = 60.0

#: A node finishes what is in flight for at most nine seconds.
STOP_S = 12.0

#: For the system to take away a process that was killed.
KILL_S = 5.0

State = Literal["starting", "up", "stopping", "stopped", "killed", "ended"]

#: What has happened, and to which node.
Say = Callable[..., None]


@dataclass(frozen=True)
class Plan:
    """What the cluster is to be."""

    directory: Path
    ports: Sequence[int]
    write_quorum: int
    min_delay_ms: float
    max_delay_ms: float

    @property
    def names(self) -> list[str]:
        return [f"node{number}" for number in range(1, len(self.ports) + 1)]


class Laboratory:
    """Made by `open_laboratory`."""

    def __init__(self, plan: Plan, nursery: trio.Nursery, say: Say) -> None:
        self.plan = plan
        self.names = plan.names
        self.leader = self.names[0]
        self.states: dict[str, State] = dict.fromkeys(self.names, "stopped")
        self._nursery = nursery
        self._say = say
        self._nodes: dict[str, Node] = {}
        self._locks = {name: trio.Lock() for name in self.names}
        self._told_to_end: set[int] = set()
        self._closed = False
        self.changes = 0
        """How often the state of a node has changed."""
        self.changed = trio.Event()
        """Set, and replaced, at the next change."""

    @property
    def urls(self) -> list[str]:
        return [self.url(name) for name in self.names]

    def url(self, name: str) -> str:
        return f"http://{HOST}:{self.plan.ports[self.names.index(name)]}"

    def is_up(self, name: str) -> bool:
        return name in self._nodes and self._nodes[name].is_up

    async def start_all(self) -> None:
        """Followers and leader at once: they find each other. Raises CommandError."""
        async with trio.open_nursery() as nursery:
            for name in self.names:
                nursery.start_soon(self.start, name)

    async def start(self, name: str) -> None:
        """Start a node that is down. Raises CommandError if it does not come up."""
        async with self._locks[name]:
            await self._start(name)

    async def stop(self, name: str) -> None:
        """Tell a node to stop, and wait until it has."""
        async with self._locks[name]:
            await self._stop(name)

    async def kill(self, name: str) -> None:
        """SIGKILL: the node gets no chance to do anything."""
        if self.is_up(name):  # whatever else is being done to it
            node = self._nodes[name]
            self._told_to_end.add(node.process.pid)
            node.process.kill()
            await self._wait(node)
            self._set(name, "killed")

    async def promote(self, name: str) -> None:
        """Start a node as the leader, in place of the one that is; that one follows from now on."""
        old = self.leader
        if name == old:
            self._say("refused", node=name, detail="it was started to lead already")
            return
        first, second = sorted((old, name))
        async with self._locks[first], self._locks[second]:
            comes_back = self.is_up(old)
            await self._stop(old)
            await self._stop(name)
            self.leader = name
            self._say("promoted", node=name, detail=f"in place of {old}")
            await self._start(name)
            if comes_back:
                await self._start(old)

    async def _start(self, name: str) -> None:
        if self.is_up(name) or self._closed:
            return
        self._set(name, "starting")
        try:
            with trio.CancelScope(shield=True):  # a process that was made is also known
                node = await spawn(self.plan.directory, name, self._settings(name))
                self._nodes[name] = node
                self._told_to_end.discard(node.process.pid)  # it may have been another one's
        except OSError as error:
            raise failed(f"{name} cannot be started: {error}", code="not_started") from None
        self._nursery.start_soon(self._watch, name, node)
        with trio.move_on_after(START_S) as patience:
            await self._until_started(node)
        if node.process.pid in self._told_to_end:  # killed, while it started
            return
        if patience.cancelled_caught or not node.is_up:
            why = f"not within {START_S:g} s" if node.is_up else self._exit_of(node)
            raise failed(
                f"{name} does not start: {why}; last lines of its log:{node.log_tail()}",
                code="not_started",
            )
        self._set(name, "up", url=self.url(name), pid=node.process.pid)

    def _settings(self, name: str) -> dict[str, str]:
        port = str(self.plan.ports[self.names.index(name)])
        if name != self.leader:
            return {"ROLE": "follower", "PORT": port}
        return {
            "ROLE": "leader",
            "PORT": port,
            "FOLLOWER_URLS": ",".join(self.url(other) for other in self.names if other != name),
            "WRITE_QUORUM": str(self.plan.write_quorum),
            "MIN_DELAY_MS": f"{self.plan.min_delay_ms:.10g}",
            "MAX_DELAY_MS": f"{self.plan.max_delay_ms:.10g}",
        }

    async def _until_started(self, node: Node) -> None:
        """Until it says so, or has ended."""
        async with trio.open_nursery() as nursery:

            async def ended() -> None:
                await node.process.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(ended)
            await started_url(node)
            nursery.cancel_scope.cancel()

    async def _watch(self, name: str, node: Node) -> None:
        await node.process.wait()
        if node.process.pid not in self._told_to_end and self._nodes.get(name) is node:
            self._set(name, "ended", detail=self._exit_of(node))

    @staticmethod
    def _exit_of(node: Node) -> str:
        code = node.process.returncode
        assert code is not None
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"

    async def _stop(self, name: str) -> None:
        if not self.is_up(name):
            return
        node = self._nodes[name]
        self._set(name, "stopping")
        self._told_to_end.add(node.process.pid)
        ask_to_stop(node.process)
        with trio.move_on_after(STOP_S):
            await node.process.wait()
        if node.is_up:
            node.process.kill()
        await self._wait(node)
        if self.states[name] != "killed":  # somebody may have lost patience
            self._set(name, "stopped")

    @staticmethod
    async def _wait(node: Node) -> None:
        with trio.move_on_after(KILL_S, shield=True):
            await node.process.wait()

    def _set(self, name: str, state: State, **more: Any) -> None:
        self.states[name] = state
        self.changes += 1
        self.changed.set()
        self.changed = trio.Event()
        event = {"up": "started"}.get(state, state)
        self._say(event, node=name, **more)

    async def close(self, hurry: trio.Event) -> None:
        """No process afterwards. With `hurry` none gets the time to end in order any more."""
        self._closed = True
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:

                async def kill_all() -> None:
                    await hurry.wait()
                    for name in self.names:
                        await self.kill(name)

                nursery.start_soon(kill_all)
                await self._stop(self.leader)
                async with trio.open_nursery() as followers:
                    for name in self.names:
                        followers.start_soon(self._stop, name)
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_laboratory(plan: Plan, say: Say, hurry: trio.Event) -> AsyncIterator[Laboratory]:
    """Nodes, none of them started; none is left afterwards."""
    async with trio.open_nursery() as nursery:
        laboratory = Laboratory(plan, nursery, say)
        try:
            yield laboratory
        finally:
            await laboratory.close(hurry)
            nursery.cancel_scope.cancel()
