"""The nemesis: what is done to a cluster while clients work, and how it is put right again.

    next     every kind of fault in turn, in random order (`situation` knows whom it may be done to)
    begin    the node is killed, paused, cut off, emptied, or started as the leader
    hold     for a random while, sometimes longer than every timeout
    undo     the node is started, resumed, joined to the others
    back     until the node is brought in and, if it leads, has as many live links as its quorum, or as
             it can have without the leader whose place it took

Faults run in tasks of their own, in a nursery that ends with the nemesis: what is half done then,
`make_peace` puts right. Which node leads is known here only as an intention, and to the clients
not at all. A leader that has met a promise to a candidate that never led has stopped to lead, as
docs/design.md says; it is started again, as an operator would.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from loadgen.check.history import Fault
from loadgen.check.situation import Situation, rounds
from loadgen.check.system import System
from loadgen.errors import ClusterError

#: A node that was killed, or whose disk was emptied, stays away so long.
DOWN_S = (0.0, 1.5)
#: A pause or a cut is short, or outlasts the nodes' timeouts and the clients'.
SHORT_S = (0.1, 1.2)
LONG_S = (2.0, 4.0)
LONG_SHARE = 0.25
#: How long an old leader goes on beside its successor, once it is awake.
BESIDE_S = (0.2, 1.5)

#: A takeover asks every member once, which may cost a timeout; it tries again after some seconds.
LEADS_WITHIN_S = 10.0
POLL_S = 0.1

#: With a quorum of all followers nothing is confirmed from a fault's beginning to its end; for so much
#: of that time the cluster is left alone then. A run needs a fifth of the fault-free rate to be valid.
LEFT_ALONE_SHARE = 0.5


class Nemesis:
    """Hurts a system until it is cancelled, and notes what it did in `faults`.

    It also notes there which node it wants to lead, from when to when.
    """

    def __init__(
        self,
        system: System,
        situation: Situation,
        rng: random.Random,
        now: Callable[[], float],
        faults: list[Fault],
    ) -> None:
        self.system = system
        self.situation = situation
        self.faults = faults
        self._rng = rng
        self._now = now
        self._reign = self._begin("leads", situation.leader)
        self._deeds: dict[str, Callable[[tuple[str, ...]], Any]] = {
            "kill": self._kill,
            "pause": self._pause,
            "partition": self._partition,
            "takeover": self._take_over,
            "wipe": self._wipe,
        }

    async def run(self, kinds: tuple[str, ...], breath_s: tuple[float, float]) -> None:
        """One fault after the other, with a breath between their beginnings.

        If the quorum is all followers, a fault begins when the one before has ended. Returns only if
        there are no kinds.
        """
        async with trio.open_nursery() as nursery:
            for kind in rounds(kinds, self._rng):
                victims = await self._victims(kind)
                begun = trio.current_time()
                nursery.start_soon(self._deeds[kind], victims)
                await self._sleep(breath_s)
                if self.situation.needs_all:
                    await self._until_undisturbed()
                    await trio.sleep((trio.current_time() - begun) * LEFT_ALONE_SHARE)
                await self._mind_the_leader()

    async def _victims(self, kind: str) -> tuple[str, ...]:
        """Wait until there is somebody to do this to."""
        while True:
            victims = self.situation.victims(kind, self._rng)
            if victims:
                return victims
            await trio.sleep(POLL_S)

    async def _until_undisturbed(self) -> None:
        while True:
            if not self.situation.disturbed:
                return
            await trio.sleep(POLL_S)

    async def _sleep(self, between_s: tuple[float, float]) -> None:
        await trio.sleep(self._rng.uniform(*between_s))

    async def _hold(self) -> None:
        await self._sleep(LONG_S if self._rng.random() < LONG_SHARE else SHORT_S)

    @asynccontextmanager
    async def _fault(self, kind: str, *nodes: str) -> AsyncIterator[None]:
        """Inside, these nodes suffer from it."""
        fault = self._begin(kind, *nodes)
        try:
            yield
        finally:
            fault.ended = self._now()

    def _begin(self, kind: str, *nodes: str) -> Fault:
        fault = Fault(kind, ",".join(nodes), self._now())
        self.faults.append(fault)
        return fault

    @asynccontextmanager
    async def _disturbed(self, *nodes: str) -> AsyncIterator[None]:
        """Inside, nothing else is done to these nodes."""
        self.situation.disturbed.update(nodes)
        try:
            yield
        finally:
            self.situation.disturbed.difference_update(nodes)

    # -- the faults ---------------------------------------------------------------------------------

    async def _kill(self, victims: tuple[str, ...]) -> None:
        (name,) = victims
        async with self._disturbed(name):
            async with self._fault("kill", name):
                await self.system.kill(name)
                await self._sleep(DOWN_S)
                await self._start(name)
            await self._until_back(name)

    async def _wipe(self, victims: tuple[str, ...]) -> None:
        (name,) = victims
        async with self._disturbed(name):
            async with self._fault("wipe", name):
                self.situation.new.add(name)
                await self.system.kill(name)
                await self.system.wipe(name)
                await self._sleep(DOWN_S)
                await self._start(name)
            await self._until_back(name)
            self.situation.new.discard(name)

    async def _pause(self, victims: tuple[str, ...]) -> None:
        (name,) = victims
        async with self._disturbed(name):
            async with self._fault("pause", name):
                await self.system.pause(name)
                await self._hold()
                await self.system.resume(name)
            await self._until_back(name)

    async def _partition(self, victims: tuple[str, ...]) -> None:
        async with self._disturbed(*victims):
            async with self._fault("partition", *victims):
                for name in victims:
                    await self._insist(self.system.cut, name)
                await self._hold()
                for name in victims:
                    await self._insist(self.system.reconnect, name)
            for name in victims:
                await self._until_back(name)

    async def _insist(self, what: Callable[[str, str], Any], name: str) -> None:
        """Until the leader has done it, whoever that is by then."""
        while True:
            try:
                await what(name, self.situation.leader)
                return
            except ClusterError:
                await trio.sleep(POLL_S)

    async def _take_over(self, victims: tuple[str, ...]) -> None:
        (heir,), old = victims, self.situation.leader
        how = self._rng.choice(("dead", "dead", "paused", "alive"))
        companions = self.situation.companions(heir, self._rng) if how == "dead" else ()
        async with self._disturbed(old, *companions):
            async with self._fault(f"old leader, {how}", old):
                if how == "paused":
                    await self.system.pause(old)
                elif how == "dead":
                    await self._kill_at_once(old, *companions)
                async with self._disturbed(heir), self._fault("takeover", heir):
                    await self._crown(heir)
                    if companions:
                        await self._bring_back(companions)
                    await self._until_back(heir, without=1)
                if how == "paused":
                    await self._sleep(
                        BESIDE_S
                    )  # its successor confirms, and it has heard of nothing
                    await self.system.resume(old)
                if how != "dead":
                    await self._sleep(BESIDE_S)
                    await self.system.kill(old)
                await self._start(old)
            for name in (old, *companions):
                await self._until_back(name)

    async def _kill_at_once(self, *names: str) -> None:
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(self.system.kill, name)

    async def _crown(self, heir: str) -> None:
        """Start a follower as the leader."""
        await self.system.kill(heir)
        self.situation.leader = heir
        self._reign.ended = self._now()
        await self._start(heir)
        self._reign = self._begin("leads", heir)

    async def _bring_back(self, companions: tuple[str, ...]) -> None:
        """Start those that died with the old leader, once the new one leads without them."""
        async with self._fault("with the leader", *companions):
            await self._until_it_leads(self.situation.leader)
            async with trio.open_nursery() as nursery:
                for name in companions:
                    nursery.start_soon(self._start, name)

    # -- putting right ------------------------------------------------------------------------------

    async def _start(self, name: str) -> None:
        await self.system.start(name, leads=name == self.situation.leader)

    async def _until_it_leads(self, name: str) -> None:
        while True:
            if (await self.system.ask(name, "/health")).get("leads"):
                return
            await trio.sleep(POLL_S)

    async def _until_back(self, name: str, *, without: int = 0) -> None:
        """Wait until a node is what it should be, however long that takes.

        Args:
            without: So many nodes cannot follow yet. A leader that needs them for its quorum leads with
                all others, and confirms nothing: those are the next to be started.

        With quorum 0 nothing is promised, so nothing is waited for.
        """
        if self.situation.quorum == 0:
            return
        patience = trio.current_time() + LEADS_WITHIN_S
        while True:
            leader = self.situation.leader
            if name == leader:
                links = min(self.situation.quorum, len(self.system.names) - 1 - without)
                health = await self.system.ask(name, "/health")
                if health.get("leads") and health["live_links"] >= links:
                    return
                if trio.current_time() > patience:
                    await restart_leader(self.system, name)
                    patience = trio.current_time() + LEADS_WITHIN_S
            else:
                others = self.situation.disturbed - {name, leader}
                least = len(self.system.names) - 1 - len(others)
                if await is_brought_in(self.system, name, leader, least):
                    return
            await trio.sleep(POLL_S)

    async def _mind_the_leader(self) -> None:
        """Start it again if it has stopped to lead, though nothing is done to it."""
        leader = self.situation.leader
        if leader in self.situation.disturbed:
            return
        if (await self.system.ask(leader, "/health")).get("leads") is not False:
            return
        if leader == self.situation.leader and leader not in self.situation.disturbed:
            async with self._disturbed(leader), self._fault("restart", leader):
                await restart_leader(self.system, leader)
                await self._until_back(leader)


async def is_brought_in(system: System, name: str, leader: str, live_links: int) -> bool:
    """Whether a follower is established in this very leadership, and so many links are live again."""
    health = await system.ask(leader, "/health")
    if not health.get("leads") or health["live_links"] < live_links:
        return False
    replica = await system.ask(name, "/replica")
    return bool(replica.get("established") == health["epoch"])


async def restart_leader(system: System, name: str) -> None:
    await system.kill(name)
    await system.start(name, leads=True)


async def make_peace(system: System, leader: str, within_s: float) -> None:
    """Everything is up, one node leads, and all the others are linked to it. Raises ClusterError."""
    waiting_for: Any = "an answer"
    is_whole = False
    with trio.move_on_after(within_s):
        for name in system.names:
            await system.resume(name)
            await _reconnect(system, name, leader)
            if name != leader and system.leads(name):
                await system.kill(name)
        for name in sorted(system.names, key=lambda name: name == leader):
            if not system.is_up(name):
                await system.start(name, leads=name == leader)
        since = trio.current_time()
        while True:
            health = await system.ask(leader, "/health")
            if health.get("leads"):
                if health["live_links"] == health["followers"]:
                    return
                if not is_whole:  # once it leads it knows of the cuts that it made
                    for name in system.names:
                        await _reconnect(system, name, leader)
                    is_whole = True
                since = trio.current_time()
            elif trio.current_time() > since + LEADS_WITHIN_S:
                await restart_leader(system, leader)
                since = trio.current_time()
            waiting_for = health.get("waiting_for") or health or waiting_for
            await trio.sleep(POLL_S)
    raise ClusterError(
        f"the cluster is not up again within {within_s:g} s: {leader} waits for {waiting_for}"
    )


async def _reconnect(system: System, name: str, leader: str) -> None:
    try:
        await system.reconnect(name, leader)
    except ClusterError:
        await trio.lowlevel.checkpoint()  # a leader that is not there has forgotten it
