"""The nemesis on a cluster of words: what it does, in which order, and that all is put right again."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

from loadgen.check.history import Fault
from loadgen.check.nemesis import Nemesis, make_peace
from loadgen.check.plan import BREATH_S, KINDS
from loadgen.check.situation import Situation
from loadgen.errors import ClusterError

NAMES = ("a", "b", "c", "d", "e", "f")
QUORUM = 3


class Words:
    """A system whose nodes are words: it knows who leads, and who was brought in since."""

    names = NAMES

    def __init__(self, quorum: int = QUORUM) -> None:
        self.quorum = quorum
        self.up: set[str] = set()
        self.paused: set[str] = set()
        self.cuts: set[str] = set()
        self.roles: dict[str, bool] = {}
        self.disks = dict.fromkeys(NAMES, "0")
        """The epoch in which each was established last."""
        self.epoch = 0
        self.leader = ""
        self.deposed = False
        self.deeds: Counter[str] = Counter()
        self.most_away = 0

    def url(self, name: str) -> str:
        return f"http://{name}"

    def is_up(self, name: str) -> bool:
        return name in self.up

    def leads(self, name: str) -> bool:
        return self.roles.get(name, False)

    def _away(self) -> set[str]:
        old = {n for n in self.up if self.roles[n] and n != self.leader}
        away = (set(NAMES) - self.up) | self.paused | self.cuts | old
        self.most_away = max(self.most_away, len(away))
        return away

    async def ask(self, name: str, path: str) -> dict[str, Any]:
        await trio.sleep(0.01)
        if name not in self.up - self.paused:
            return {}
        if path == "/replica":
            if name not in self._away() and self.leader in self.up - self.paused:
                self.disks[name] = str(self.epoch)
            return {"established": self.disks[name]}
        if name != self.leader:
            return {"ready": True}
        live = 5 - len(self._away() - {name})
        leads = not self.deposed
        told = {"leads": leads, "live_links": live, "followers": 5, "epoch": str(self.epoch)}
        return {**told, "ready": leads and live >= self.quorum, "waiting_for": ["a miracle"]}

    async def start(self, name: str, *, leads: bool) -> None:
        assert name not in self.up
        await trio.sleep(0.5)
        self.up.add(name)
        self.roles[name] = leads
        if leads:
            self.epoch, self.leader, self.deposed = self.epoch + 1, name, False
            self.disks[name] = str(self.epoch)
            self.cuts.clear()
        self._away()

    async def kill(self, name: str) -> None:
        self.up.discard(name)
        self.paused.discard(name)
        self._away()
        await trio.sleep(0.01)

    async def pause(self, name: str) -> None:
        self.paused.add(name)
        self._away()
        await trio.lowlevel.checkpoint()

    async def resume(self, name: str) -> None:
        self.paused.discard(name)
        await trio.lowlevel.checkpoint()

    async def wipe(self, name: str) -> None:
        assert name not in self.up
        assert "" not in self.disks.values()
        self.disks[name] = ""
        await trio.lowlevel.checkpoint()

    async def cut(self, name: str, leader: str) -> None:
        await trio.lowlevel.checkpoint()
        if leader != self.leader or leader not in self.up - self.paused:
            raise ClusterError("it does not answer")
        self.cuts.add(name)
        self._away()

    async def reconnect(self, name: str, leader: str) -> None:
        await trio.lowlevel.checkpoint()
        if leader not in self.up - self.paused:
            raise ClusterError("it does not answer")
        self.cuts.discard(name)

    async def complaints(self) -> list[str]:
        await trio.lowlevel.checkpoint()
        return []

    async def save_logs(self, folder: Path) -> None:
        await trio.lowlevel.checkpoint()


async def started(quorum: int = QUORUM) -> Words:
    system = Words(quorum)
    for name in NAMES:
        await system.start(name, leads=name == "a")
    system.most_away = 0
    return system


async def under_nemesis(
    system: Words, kinds: tuple[str, ...], seed: int, seconds: float
) -> tuple[Situation, list[Fault]]:
    situation, faults = Situation(NAMES, system.quorum, "a"), list[Fault]()
    nemesis = Nemesis(system, situation, random.Random(seed), trio.current_time, faults)
    with trio.move_on_after(seconds):
        await nemesis.run(kinds, BREATH_S)
    return situation, faults


@pytest.mark.parametrize("seed", range(10))
async def test_every_fault_is_met_as_often_as_another_and_all_is_put_right(
    autojump_clock: trio.testing.MockClock, seed: int
) -> None:
    system = await started()
    situation, faults = await under_nemesis(system, KINDS, seed, 120)
    met = Counter(fault.kind for fault in faults)
    assert min(met[kind] for kind in KINDS) >= 10
    assert max(met[kind] for kind in KINDS) - min(met[kind] for kind in KINDS) <= 1
    # A leader that died with k - 1 others, and an heir, while it is started anew; never more.
    assert system.most_away <= QUORUM + 1
    await make_peace(system, situation.leader, 60)
    assert system.up == set(NAMES)
    assert (system.paused, system.cuts) == (set(), set())
    assert [name for name in NAMES if system.leads(name)] == [situation.leader]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_nemesis_does_what_it_is_told_and_nothing_else(
    autojump_clock: trio.testing.MockClock, kind: str
) -> None:
    system = await started()
    _, faults = await under_nemesis(system, (kind,), 1, 60)
    kinds = {fault.kind for fault in faults} - {"leads"}
    assert {k for k in kinds if "leader" not in k} == {kind}
    reigns = [fault for fault in faults if fault.kind == "leads"]
    assert (len(reigns) > 5) == (kind == "takeover")


@pytest.mark.parametrize("quorum", range(6))
async def test_takeovers_go_on_whatever_the_quorum(
    autojump_clock: trio.testing.MockClock, quorum: int
) -> None:
    """With quorum 5 an heir confirms nothing before the old leader follows: it must not wait for it."""
    system = await started(quorum)
    situation, faults = await under_nemesis(system, ("takeover",), 1, 150)
    met = Counter(fault.kind for fault in faults)
    assert met["takeover"] >= 10
    old_leaders = [fault for fault in faults if fault.kind.startswith("old leader, ")]
    assert len({fault.kind for fault in old_leaders}) == 3
    if (
        quorum == 5
    ):  # a fifth of the rate without faults must be left, and it confirms only in between
        assert sum((fault.ended or 150) - fault.begun for fault in old_leaders) < 0.75 * 150
    await make_peace(system, situation.leader, 60)
    assert system.up == set(NAMES)


async def test_no_nemesis_leaves_the_cluster_alone(autojump_clock: trio.testing.MockClock) -> None:
    system = await started()
    _, faults = await under_nemesis(system, (), 1, 60)
    assert [fault.kind for fault in faults] == ["leads"]
    assert system.most_away == 0


async def test_a_leader_that_stopped_to_lead_is_started_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    system = await started()
    system.deposed = True
    _, faults = await under_nemesis(system, ("pause",), 1, 30)
    assert not system.deposed
    assert "restart" in {fault.kind for fault in faults} or system.epoch > 1


async def test_a_cluster_that_does_not_come_up_again_is_told_with_what_it_waits_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Stuck(Words):
        async def start(self, name: str, *, leads: bool) -> None:
            await super().start(name, leads=leads)
            self.deposed = True

    system = Stuck()
    with pytest.raises(ClusterError, match=r"not up again within 40 s: a waits for .*a miracle"):
        await make_peace(system, "a", 40)
