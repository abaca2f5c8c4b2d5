"""Random walks: clients write while nodes crash, lose their disks, are cut off and take over.

As long as no more nodes lose their disks at a time than the quorum allows: no confirmed
write is lost, and once all is up and quiet all nodes are equal. A failure names its seed; the same seed
walks the same way.
"""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.history import DELETED, History
from tests.simulation.fleet import Fleet, open_fleet
from tests.simulation.network import LATE_S
from trikv.lag import LagRange

KEYS = ["a", "b", "c", "d"]


async def client(fleet: Fleet, history: History, rng: random.Random, until_s: float) -> None:
    while trio.current_time() < until_s:
        await trio.sleep(rng.expovariate(5))
        leading = sorted(n for n, node in fleet.nodes.items() if node.config.role == "leader")
        if not leading:
            continue
        name = rng.choice(leading)
        patience = trio.move_on_after(rng.uniform(0, 0.4) if rng.random() < 0.1 else 60)
        key = rng.choice(KEYS)
        told: tuple[int, dict[str, Any]] = (0, {})  # a client that hangs up is told nothing
        writes: dict[str, Any] = {}
        match rng.randrange(6):
            case 0 | 1:
                writes = {key: history.value()}
                asked: tuple[Any, ...] = ("PUT", "/kv/{key}", {"value": writes[key]}, key)
            case 2:
                writes = {key: DELETED}
                asked = ("DELETE", "/kv/{key}", None, key)
            case 3:
                writes = {k: history.value() for k in rng.sample(KEYS, 2)}
                operations = [{"op": "put", "key": k, "value": v} for k, v in writes.items()]
                asked = ("POST", "/batch", {"operations": operations})
            case _:
                asked = ("GET", "/kv/{key}?consistency=linearizable&timeout_ms=3000", None, key)
        begun = history.moment()
        with patience:
            told = await fleet.ask(name, *asked)
        if writes:
            history.note(*told, writes)
            history.observe(begun, *told, writes)
        if told[0] == 404 or (told[0] == 200 and not writes):  # 404: of a DELETE, too
            history.saw(begun, key, told[1].get("value", DELETED))


class Nemesis:
    def __init__(self, fleet: Fleet, rng: random.Random, write_quorum: int) -> None:
        self.fleet = fleet
        self.rng = rng
        self.k = write_quorum
        self.changes = rng.random() < 0.5
        """Whether the quorum changes, at starts and while a node leads."""
        self.leader = "n0"

    async def start(self, name: str) -> None:
        leads = name == self.leader
        if self.changes:
            self.k = self.rng.randint(1, len(self.fleet.names) - 1)
        await self.fleet.start(name, leads=leads, write_quorum=self.k if leads else 0)

    def may_wipe(self, name: str) -> bool:
        if self.changes:  # how many may be lost depends on the moment then
            return False
        new = {n for n, store in self.fleet.stores.items() if store.state.new} | {name}
        return len(new) <= self.k

    async def act(self) -> None:
        fleet, rng = self.fleet, self.rng
        up = sorted(fleet.nodes)
        down = sorted(set(fleet.names) - fleet.nodes.keys())
        others = [name for name in fleet.names if name != self.leader]
        match rng.randrange(13):
            case 11 | 12 if self.changes:
                asked = {"write_quorum": rng.randint(1, len(fleet.names) - 1)}
                ask = partial(fleet.ask, self.leader, "POST", "/admin/quorum", asked)
                fleet.nursery.start_soon(ask)
            case 0 | 1 if up:
                fleet.crash(rng.choice(up))
            case 2 | 3 if down:
                await self.start(rng.choice(down))
            case 4 if down:
                name = rng.choice(down)
                if self.may_wipe(name):
                    fleet.wipe(name)
            case 5:
                fleet.cut.add(frozenset(rng.sample(fleet.names, 2)))
            case 6:
                fleet.cut.clear()
            case 8:  # the leader is left with too few, while it does not know yet
                for other in rng.sample(others, rng.randint(1, len(others))):
                    fleet.cut.add(frozenset((self.leader, other)))
            case 9 if self.leader in fleet.nodes:  # a client's write is on its way when it crashes
                await trio.sleep(rng.uniform(0, fleet.network.delay_s))
                fleet.crash(self.leader)
            case 10:
                low = rng.choice([0, 0, 100, 500])
                node = fleet.nodes.get(self.leader)
                if node is not None and node.leader is not None:
                    node.leader.lag.set(LagRange(low, low + rng.choice([0, 50, 500])))
            case 7:
                self.leader = rng.choice(fleet.names)
                if self.leader in fleet.nodes:
                    fleet.crash(self.leader)
                await self.start(self.leader)

    async def make_peace(self) -> None:
        """Everything is up, one node leads, and nothing disturbs."""
        fleet = self.fleet
        fleet.cut.clear()
        fleet.network.loss = fleet.network.delay_s = fleet.network.doubling = 0.0
        await trio.sleep(LATE_S)
        kept = self.rng.choice([True, False])  # a new takeover would level what differs
        for name, node in sorted(fleet.nodes.items()):
            leads = node.leader is not None and node.leader.deposed is None
            follows = node.config.role == "follower"
            if not kept or not (leads if name == self.leader else follows):
                fleet.crash(name)
        await trio.sleep(
            1
        )  # a candidate's request that is on its way yet would depose the last leader
        for name in sorted(fleet.names, key=lambda name: name == self.leader):
            if name not in fleet.nodes:
                await self.start(name)
        await trio.sleep(5)
        node = fleet.nodes[self.leader]
        if node.leader is not None and node.leader.deposed is not None:
            fleet.crash(self.leader)  # refused by what a candidate had promised that is no more
            await self.start(self.leader)
        await fleet.wait_live(self.leader, len(fleet.names) - 1, timeout_s=300)
        await fleet.wait_quiet(self.leader, timeout_s=300)


async def walk(seed: int) -> History:
    rng = random.Random(seed)
    followers = rng.randint(2, 5)
    write_quorum = rng.randint(1, followers)
    history = History()
    async with open_fleet(followers, write_quorum=write_quorum, seed=seed) as fleet:
        fleet.network.loss = rng.choice([0.0, 0.0, 0.05, 0.2])
        fleet.network.delay_s = rng.choice([0.0, 0.01, 0.3])
        fleet.network.doubling = rng.choice([0.0, 0.05, 0.2])
        nemesis = Nemesis(fleet, rng, write_quorum)
        async with trio.open_nursery() as nursery:
            until_s = trio.current_time() + 40
            for _ in range(3):
                one = random.Random(rng.random())
                nursery.start_soon(client, fleet, history, one, until_s)
            while trio.current_time() < until_s:
                await trio.sleep(rng.expovariate(1))
                await nemesis.act()
        await nemesis.make_peace()
        await fleet.assert_equal()
        final = (await fleet.dumps())[nemesis.leader]
        for store in fleet.stores.values():
            store.state.check_invariants()
        history.check(final)
        history.check_linearizable(final)
    return history


def run_walk(seed: int) -> History:
    # The order in which tasks run that are ready at the same time.
    trio._core._run._r.seed(seed)
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    return trio.run(partial(walk, seed), clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("seed", range(40))
def test_no_confirmed_write_is_lost_and_all_nodes_end_equal(seed: int) -> None:
    run_walk(seed)


def test_the_same_seed_walks_the_same_way() -> None:
    assert run_walk(7) == run_walk(7)
