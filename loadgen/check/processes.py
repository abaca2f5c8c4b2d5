"""Six nodes as processes on loopback that can be killed, paused, emptied, and started in another role.

`loadgen.cluster` takes the end of a node for the end of the run; here a node ends when it is told to,
and only one that ends by itself ends the run. Each node has a port of its own through all its starts,
drawn from below the ones that the operating system gives to outgoing connections: one of those could
take the port of a node that is down for a moment.

Wires are cut over the API, at the leader, which forgets it when it is started again. Whatever ends the
block, every process is killed, the paused ones too, and the directory is removed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from loadgen.check.plan import CheckPlan
from loadgen.check.system import ask, complaints_in, copy_logs
from loadgen.cluster import (
    FOLLOWERS,
    KILL_TIMEOUT_S,
    START_TIMEOUT_S,
    ended_by_itself,
    make_directory,
)
from loadgen.errors import ClusterError
from trikv.processes import HOST, Node, free_ports, spawn, started_url

NAMES = tuple(f"node{number}" for number in range(1, FOLLOWERS + 2))

ADMIN_TIMEOUT_S = 1.0


class Processes:
    """A `System` of processes; made by `open_processes`."""

    def __init__(
        self, plan: CheckPlan, nursery: trio.Nursery, directory: Path, ports: Sequence[int]
    ) -> None:
        self.names = NAMES
        self._nursery = nursery
        self._directory = directory
        self._ports = dict(zip(NAMES, ports, strict=True))
        self._plan = plan
        self._nodes: dict[str, Node] = {}
        self._leads: dict[str, bool] = {}
        self._told_to_end: set[int] = set()
        """Processes whose end is our doing."""

    def url(self, name: str) -> str:
        return f"http://{HOST}:{self._ports[name]}"

    async def ask(self, name: str, path: str) -> dict[str, Any]:
        return await ask(self.url(name) + path)

    def is_up(self, name: str) -> bool:
        return name in self._nodes and self._nodes[name].is_up

    def leads(self, name: str) -> bool:
        return self._leads.get(name, False)

    async def start(self, name: str, *, leads: bool) -> None:
        settings = {"PORT": str(self._ports[name]), "ROLE": "leader" if leads else "follower"}
        if leads:
            others = [self.url(other) for other in self.names if other != name]
            settings |= self._plan.leader_settings(others)
        self._leads[name] = leads
        with trio.CancelScope(shield=True):
            node = await spawn(self._directory, name, settings)
            self._nodes[name] = node
        self._nursery.start_soon(self._watch, node)
        with trio.move_on_after(START_TIMEOUT_S):
            await started_url(node)
            return
        raise ClusterError(f"{name} does not start; last lines of its log:{node.log_tail()}")

    async def _watch(self, node: Node) -> None:
        await node.process.wait()
        if node.process.pid not in self._told_to_end:
            raise ended_by_itself(node)
        self._told_to_end.discard(node.process.pid)  # the number may be given to another one

    async def kill(self, name: str) -> None:
        if self.is_up(name):
            process = self._nodes[name].process
            self._told_to_end.add(process.pid)
            process.kill()
            with trio.move_on_after(KILL_TIMEOUT_S, shield=True):
                await process.wait()

    async def pause(self, name: str) -> None:
        self._signal(name, "SIGSTOP")
        await trio.lowlevel.checkpoint()

    async def resume(self, name: str) -> None:
        self._signal(name, "SIGCONT")
        await trio.lowlevel.checkpoint()

    def _signal(self, name: str, signal_name: str) -> None:
        if self.is_up(name) and hasattr(signal, signal_name):  # not on Windows
            self._nodes[name].process.send_signal(getattr(signal, signal_name))

    async def wipe(self, name: str) -> None:
        await trio.to_thread.run_sync(shutil.rmtree, self._directory / name)

    async def cut(self, name: str, leader: str) -> None:
        await self._partition(name, leader, cut=True)

    async def reconnect(self, name: str, leader: str) -> None:
        await self._partition(name, leader, cut=False)

    async def _partition(self, name: str, leader: str, *, cut: bool) -> None:
        """One attempt: a leader that is not there has forgotten all cuts when it comes back."""
        asked = {"follower": self.url(name), "cut": cut}
        async with httpx.AsyncClient(timeout=ADMIN_TIMEOUT_S, trust_env=False) as client:
            try:
                answer = await client.post(f"{self.url(leader)}/admin/partition", json=asked)
            except httpx.TransportError as error:
                raise ClusterError(f"{leader} cannot be asked to cut a wire ({error})") from None
        if answer.status_code != 200:
            raise ClusterError(f"{leader} was asked to cut a wire, and answered {answer.text}")

    async def complaints(self) -> list[str]:
        return await trio.to_thread.run_sync(complaints_in, self._directory)

    async def save_logs(self, folder: Path) -> None:
        await trio.to_thread.run_sync(copy_logs, self._directory, folder)

    async def close(self) -> None:
        """Whatever state they are in: no process afterwards."""
        for name in self.names:
            await self.kill(name)


@asynccontextmanager
async def open_processes(plan: CheckPlan) -> AsyncIterator[Processes]:
    """Six nodes, none of them started; gone without a trace afterwards. Raises ClusterError."""
    directory = make_directory()
    try:
        ports = _free_ports()
        async with trio.open_nursery() as nursery:
            processes = Processes(plan, nursery, directory, ports)
            try:
                yield processes
            finally:
                with trio.CancelScope(shield=True):  # bounded: each kill is
                    await processes.close()
            nursery.cancel_scope.cancel()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _free_ports() -> list[int]:
    try:
        return free_ports(random.Random(os.urandom(8)), 1 + FOLLOWERS)
    except OSError as error:
        raise ClusterError(str(error)) from None
