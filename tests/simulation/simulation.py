"""A simulation: a fleet, clients, and everything that can be done to them, one step after the other.

A step is the name of a method of `Simulation` that is marked as one, and its arguments in JSON; so a run
can be written down, and run again. Steps name nodes by number. A step that makes no sense at the moment,
such as starting a node that is up, does nothing. What would break a promise that trikv does not make,
such as emptying more disks at a time than the write quorum allows, does nothing either.

After each step invariants are checked that hold at any moment (`check_invariants`). In the end the
faults cease, and the simulation waits until all is quiet (`make_peace`). Then what the clients were told
and what the nodes hold is judged by the oracle, which knows nothing of all this (`loadgen.check`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import combinations
from typing import Any, Literal, NamedTuple, TypeVar

import trio

import trikv.observe.change_stream
import trikv.replication.link
import trikv.replication.outbox
import trikv.storage.group_commit
import trikv.storage.write_buffer
import trikv.takeover.leadership
import trikv.web.peer
from loadgen.check.history import History, Shown
from loadgen.check.verdict import judge
from tests.simulation.clients import Clients, Kind
from tests.simulation.disk import copied_state
from tests.simulation.fleet import Fleet, open_fleet
from tests.simulation.network import LATE_S
from tests.support import until
from trikv.errors import NotReady, SettingError
from trikv.model.membership import KEY
from trikv.model.node_state import NodeState
from trikv.model.version import NO_VERSION
from trikv.network.peers import configuration_in
from trikv.network.simulated_lag import LagRange
from trikv.node.node import Node

S = TypeVar("S", bound=Callable[..., Any])

#: How long all may take to become quiet once the faults have ceased.
PEACE_S = 300

#: A machine that starts anew, or whose disk is exchanged, is away so long that all notice.
NOTICED_S = 5

#: Requests of clients that are under way at most.
MAX_CALLS = 12

#: What `when` waits for: that a node has promised another's epoch, or that it leads from then on.
Moment = Literal["promises", "leads"]

#: The names of all steps.
STEPS: set[str] = set()


class Setup(NamedTuple):
    """What a run begins with."""

    seed: int
    followers: int = 5
    write_quorum: int = 3
    durability: Literal["fsync", "os"] = "fsync"
    changes: bool = False
    """Of the quorum and the members."""
    disk_s: float = 0.003
    power_fails: bool = True
    """Whether a crash takes with it what the operating system has not written yet."""
    request_timeout_s: float = 1.0
    planned: bool = False
    """Whether its steps follow plans: see `plans`."""


class Broken(AssertionError):
    """Something that must hold does not."""


def step(method: S) -> S:
    STEPS.add(method.__name__)
    return method


class Simulation:
    def __init__(self, fleet: Fleet, setup: Setup) -> None:
        self.fleet = fleet
        self.setup = setup
        self.clients = Clients(fleet)
        self.steps: list[tuple[str, dict[str, Any]]] = []
        self.faults: Counter[str] = Counter()
        self.leader = "n0"
        """Who is meant to lead."""
        self.write_quorum = setup.write_quorum
        self.left_out: str | None = None
        """A member that the one that leads was started without."""
        self.lossy: str | None = None
        """Whose machine has lost power, with DURABILITY=os."""
        self._names = fleet.names
        self._calls = 0
        self._at_peace = False
        self._states = fleet.states()
        self._led: dict[str, str] = {}  # who led an epoch
        self._old_copies: set[str] = set()  # of the disks that were put back

    async def do(self, name: str, **arguments: Any) -> None:
        """Take a step, and check what must hold after it."""
        self.steps.append((name, arguments))
        await self._take(name, arguments)
        self.check_invariants()

    async def _take(self, name: str, arguments: dict[str, Any]) -> None:
        assert name in STEPS, name
        self.fleet.note(f"-- {name} {arguments}")
        done = getattr(self, name)(**arguments)
        if done is not None:
            await done

    def _name(self, number: int) -> str:
        return self._names[number % len(self._names)]

    # -- steps: clients -----------------------------------------------------------------------------

    @step
    def call(
        self, client: int, kind: Kind, keys: list[str], nth: int, patience_s: float = 60.0
    ) -> None:
        """One request, which goes on beside what comes next."""
        if self._calls < MAX_CALLS:
            self._calls += 1
            asked = partial(self.clients.ask, client, kind, tuple(keys), nth, patience_s)
            self.fleet.nursery.start_soon(self._ask, asked)

    async def _ask(self, asked: Callable[[], Awaitable[None]]) -> None:
        try:
            await asked()
        finally:
            self._calls -= 1

    @step
    def load(self, seed: int, calls: int, rate: float = 15.0, mostly_reads: bool = False) -> None:
        """So many random requests, beside what comes next, a few per second."""

        async def send() -> None:
            rng = random.Random(seed)
            for _ in range(calls):
                await trio.sleep(rng.expovariate(rate))
                if self._at_peace:
                    return
                self.call(*self.clients.random_call(rng, mostly_reads=mostly_reads))

        self.fleet.nursery.start_soon(send)

    @step
    async def wait(self, seconds: float) -> None:
        await trio.sleep(seconds)

    @step
    async def calm(self, seconds: float = 20.0) -> None:
        """No faults, every node up in its role, all links live; or as much of it as comes in time."""
        self.heal()
        self.fleet.disarm()
        for disk in self.fleet.disks.values():
            disk.full, disk.failing, disk.slow_s = False, False, 0.0
        if self.left_out is not None:  # its leader was started without that member
            self.left_out = None
            if self.fleet.is_up(self.leader):
                self.fleet.crash(self.leader)
        with trio.move_on_after(seconds):
            while not self._all_live():
                self._end_those_in_the_wrong_role()
                for name in self._leader_last():
                    if not self.fleet.is_up(name):
                        await self._start(name)
                with suppress(trio.TooSlowError, KeyError, NotReady):  # deposed by a stray promise
                    await self.fleet.wait_live(self.leader, len(self._names) - 1, 10)

    @step
    async def expect_settled(self) -> None:
        """With no faults left, the leader's configuration settles, and is what the map says.

        Nothing is expected unless all links are live already.
        """
        if not self._all_live():
            return
        node = self.fleet.nodes[self.leader]
        try:
            await until(partial(self._settled, node), PEACE_S)
        except trio.TooSlowError:
            raise Broken(self._unsettled(node)) from None

    def _all_live(self) -> bool:
        node = self.fleet.nodes.get(self.leader)
        leader = None if node is None else node.leader
        return leader is not None and leader.live_links == len(self._names) - 1

    def _settled(self, node: Node) -> bool:
        """Also once it leads no more."""
        leadership = node.leadership
        if leadership is None or leadership.leader.deposed is not None:
            return True
        if self.fleet.nodes.get(node.config.node_id) is not node:
            return True
        known, written = leadership.reconfiguration, configuration_in(node.store.get(KEY))
        return written is not None and known.settled and known.configuration == written[1]

    def _unsettled(self, node: Node) -> str:
        known = node.require_leadership().reconfiguration
        return (
            f"{node.config.node_id} goes by {known.configuration}, pending {known.pending}, and its "
            f"map says {configuration_in(node.store.get(KEY))}: not settled after {PEACE_S} s"
        )

    # -- steps: faults ------------------------------------------------------------------------------

    @step
    def crash(self, node: int) -> None:
        """At once."""
        if self.fleet.is_up(self._name(node)):
            self.fleet.crash(self._name(node))
            self._met("crash")

    @step
    def crash_after(self, node: int, steps: int) -> None:
        """After so many further steps of its tasks, wherever they are then."""
        if self.fleet.is_up(self._name(node)):
            self.fleet.crash_after(self._name(node), steps)
            self._met("crash")

    @step
    def stop(self, node: int) -> None:
        """In order, as at SIGTERM."""
        if self._name(node) in self.fleet.nodes:
            self.fleet.stop(self._name(node))
            self._met("stop")

    @step
    async def start(self, node: int) -> None:
        name = self._name(node)
        if not self.fleet.is_up(name):
            await self._start(name)

    async def _start(self, name: str) -> None:
        leads = name == self.leader
        others = [other for other in self._names if other != self.left_out]
        quorum = min(self.write_quorum, len(others) - 1) if leads else 0
        try:
            await self.fleet.start(
                name,
                leads=leads,
                write_quorum=quorum,
                durability=self.setup.durability,
                request_timeout_s=self.setup.request_timeout_s,
                others=others,
            )
        except SettingError:  # its disk does not let it: it has said so, and ended
            self._met("refused start")

    @step
    def wipe(self, node: int) -> None:
        """Empty the disk of a node that is down."""
        name = self._name(node)
        if self._may_lose(name) and not self.fleet.is_up(name):
            self.fleet.wipe(name)
            del self._states[name]
            self._met("wipe")

    def _may_lose(self, name: str) -> bool:
        """Whether no more disks are lost at a time, this one included, than any quorum allows.

        One that may be in force: that is, which any node knows of.
        """
        states = self.fleet.states()
        floor = max(state.floor for state in states.values())
        lost = {n for n, state in states.items() if state.new or state.watermark < floor} | {name}
        if not self.setup.changes:
            lost = {n for n in lost if n == name or states[n].new or n in self._old_copies}
            return len(lost) <= self.write_quorum
        known = [configuration_in(store.get(KEY)) for store in self.fleet.stores.values()]
        quorums = [v.write_quorum for one in known if one is not None for v in one[1].all_voters]
        return len(lost) <= min(quorums, default=0)

    @step
    def keep_copy(self, node: int) -> None:
        """Copy a node's disk."""
        disk = self.fleet.disks[self._name(node)]
        disk.copy = disk.image

    @step
    async def put_back(self, node: int) -> None:
        """Put the copy back on the disk of a node that is down, if everybody can tell how old it is."""
        await trio.sleep(NOTICED_S)
        name = self._name(node)
        disk = self.fleet.disks[name]
        if disk.copy is None or self.fleet.is_up(name) or not self._may_lose(name):
            return
        states = [state for state in self.fleet.states().values() if not state.new]
        floor = min((state.floor for state in states), default=NO_VERSION)
        if copied_state(disk.copy).watermark < floor:
            self.fleet.put_back(name)
            del self._states[name]
            self._old_copies.add(name)
            self._met("old copy put back")

    @step
    async def lose_power(self, node: int) -> None:
        """Crash it with what the system has not written. One machine in a run: more may be too many."""
        name = self._name(node)
        if self.fleet.is_up(name) and self.lossy in (None, name):
            self.lossy = name
            self.fleet.crash(name, power_fails=True)
            self._met("loss of power")
            await trio.sleep(NOTICED_S)

    @step
    def write_back(self, node: int) -> None:
        """A node's system writes all that it was given."""
        self.fleet.disks[self._name(node)].write_back()

    @step
    def turn(self, groups: list[list[int]]) -> None:
        """Only those of one group reach each other from now on; a node in none reaches nobody."""
        self.heal()
        group = {self._name(node): i for i, nodes in enumerate(groups) for node in nodes}
        for one, other in combinations(self._names, 2):
            if group.get(one, one) != group.get(other, other):
                self.fleet.cut.add(frozenset((one, other)))
        self._met("partition turned")

    @step
    def block(self, node: int, other: int) -> None:
        """Nothing that a node asks reaches another, whose own requests it answers."""
        self.fleet.network.blocked.add((self._name(node), self._name(other)))
        self._met("cut")

    @step
    def hold(self, node: int, what: Literal["promise", "records"]) -> None:
        """Let requests of that kind wait before a node, until they are released or given up."""
        self.fleet.network.hold(self._name(node), f"/replica/{what}")
        self._met("hold")

    @step
    def release(self, node: int, what: Literal["promise", "records"]) -> None:
        self.fleet.network.release(self._name(node), f"/replica/{what}")

    @step
    def when(self, node: int, moment: Moment, steps: list[tuple[str, dict[str, Any]]]) -> None:
        """Once a node's disk has it, take these steps: in the midst of whatever is going on."""
        disk = self.fleet.disks[self._name(node)]

        async def take() -> None:
            for name, arguments in steps:
                await self._take(name, arguments)

        def look(before: NodeState, after: NodeState) -> None:
            promised = after.promised > before.promised
            own = after.promised.instance == after.instance
            if (after.led > before.led) if moment == "leads" else (promised and not own):
                disk.watched = None
                self.fleet.note(f"-- {self._name(node)} {moment}")
                self.fleet.nursery.start_soon(take)

        disk.watched = look

    @step
    def cut(self, node: int, other: int, one_way: bool = False) -> None:
        pair = (self._name(node), self._name(other))
        if pair[0] != pair[1]:
            self._met("cut")
            if one_way:
                self.fleet.network.cut_one_way.add(pair)
            else:
                self.fleet.cut.add(frozenset(pair))

    @step
    def isolate(self, others: list[int]) -> None:
        """Cut these off from the one that leads, while it does not know yet."""
        for other in others:
            if self._name(other) != self.leader:
                self.fleet.cut.add(frozenset((self.leader, self._name(other))))
        self._met("cut")

    @step
    def heal(self) -> None:
        self.fleet.network.heal()

    @step
    def weather(
        self,
        loss: float = 0.0,
        silence: float = 0.0,
        delay_s: float = 0.0,
        doubling: float = 0.0,
        rejects: bool = False,
    ) -> None:
        network = self.fleet.network
        network.rejects = rejects
        network.loss, network.silence = loss, silence
        network.delay_s, network.doubling = delay_s, doubling

    @step
    def jump(self, node: int, seconds: float) -> None:
        """Set a node's clock forward or back."""
        self.fleet.clocks[self._name(node)].offset_us += int(seconds * 1e6)
        self._met("clock jump")

    @step
    def disk(
        self, node: int, full: bool = False, failing: bool = False, slow_s: float = 0.0
    ) -> None:
        """A disk that is full takes nothing; one that fails refuses each commit at its sync."""
        disk = self.fleet.disks[self._name(node)]
        disk.full, disk.failing, disk.slow_s = full, failing, slow_s
        if full or failing:
            self._met("disk")

    @step
    async def takeover(
        self,
        node: int,
        crash_old: bool = False,
        quorum: int | None = None,
        left_out: int | None = None,
    ) -> None:
        """Another node starts as leader, with the old one dead, or alive and unaware of it.

        With another quorum, or without a member, if this run has changes of the configuration.
        """
        if crash_old and self.fleet.is_up(self.leader):
            self.fleet.crash(self.leader)
        self.leader = self._name(node)
        self.left_out = None
        if self.setup.changes:
            if quorum is not None:
                self.write_quorum = 1 + quorum % (len(self._names) - 1)
            if left_out is not None and self._name(left_out) != self.leader:
                self.left_out = self._name(left_out)
                self._met("member left out")
        if self.fleet.is_up(self.leader):
            self.fleet.crash(self.leader)
        await self._start(self.leader)
        self._met("takeover")

    @step
    def quorum(self, write_quorum: int, patience_s: float = 1e6, none: bool = False) -> None:
        """Ask the one that leads to change it, beside what comes next, and perhaps hang up.

        To none: from then on no write is promised anything, so clients are told of none.
        """
        if self.setup.changes:
            asked = 0 if none else 1 + write_quorum % (len(self._names) - 1)
            self.clients.promised_nothing |= none
            self._admin("/admin/quorum", {"write_quorum": asked}, patience_s)
            self._met("quorum change")

    @step
    def lag(self, low_ms: int, high_ms: int, node: int | None = None) -> None:
        """Of the one that leads to all, or to one node."""
        leads = self.fleet.nodes.get(self.leader)
        if leads is None or leads.leader is None:
            return
        follower = None if node is None else f"http://{self._name(node)}"
        if follower is None or follower in leads.leader.lag.of:
            leads.leader.lag.set(LagRange(low_ms, high_ms), follower)

    @step
    def wire(self, node: int, cut: bool) -> None:
        """Cut or heal a wire over the API."""
        self._admin("/admin/partition", {"follower": self._name(node), "cut": cut})
        if cut:
            self._met("cut")

    def _admin(self, target: str, content: dict[str, Any], patience_s: float = 1e6) -> None:
        async def ask(leader: str) -> None:
            with trio.move_on_after(patience_s):
                await self.fleet.ask(leader, "POST", target, content)

        self.fleet.nursery.start_soon(ask, self.leader)

    def _met(self, fault: str) -> None:
        self.faults[fault] += 1

    # -- what must hold -----------------------------------------------------------------------------

    def check_invariants(self) -> None:
        """What holds at any moment, on the disks. Raises Broken."""
        states = self.fleet.states()
        floor = max((state.floor for state in states.values()), default=NO_VERSION)
        self._old_copies = {
            name
            for name in self._old_copies
            if not states[name].new and states[name].watermark < floor
        }
        for name, state in states.items():
            state.check_invariants()
            self._check_grows(name, self._states.get(name), state)
            leader = self._led.setdefault(str(state.led), name)
            if state.led.number and leader != name:
                raise Broken(f"{state.led} was led by {leader} and by {name}")
        self._states = states
        if self.setup.changes or self.setup.durability == "os":
            return  # one that was left out, or has lost something, may be behind
        for name, state in states.items():
            if not state.new and name not in self._old_copies and state.watermark < floor:
                raise Broken(f"{name} is at {state.watermark}, below the floor {floor}")

    def _check_grows(self, name: str, before: NodeState | None, state: NodeState) -> None:
        if before is None or self.setup.durability == "os":
            return
        for fact in ("promised", "established", "led", "watermark", "floor"):
            if getattr(state, fact) < getattr(before, fact):
                raise Broken(f"{name}: {fact} fell from {getattr(before, fact)}: {state}")
        if before.instance not in ("", state.instance):
            raise Broken(f"{name}: another instance, {state.instance}, on the same disk")

    async def make_peace(self) -> None:
        """Everything is up, one node leads, nothing disturbs; until all is quiet. Raises Broken."""
        fleet, rng = self.fleet, random.Random(self.setup.seed)
        self._at_peace = True
        self.heal()
        self.weather()
        fleet.disarm()
        for disk in fleet.disks.values():
            disk.full, disk.failing, disk.slow_s = False, False, 0.0
            disk.watched = None
        await trio.sleep(LATE_S)
        self.lag(0, 0)
        kept = (
            rng.choice((True, False)) and self.left_out is None
        )  # a new takeover would level what differs
        self.left_out = None
        if not kept:
            for name in [name for name in self._names if fleet.is_up(name)]:
                fleet.crash(name)
        self._end_those_in_the_wrong_role()
        await trio.sleep(1)  # what a candidate has on its way yet would depose the last leader
        for name in self._leader_last():
            if not fleet.is_up(name):
                await self._start(name)
        await trio.sleep(5)
        node = fleet.nodes[self.leader]
        if node.leader is not None and node.leader.deposed is not None:
            fleet.crash(self.leader)  # refused by what a candidate had promised that is no more
            await self._start(self.leader)
        await until(lambda: self._calls == 0)
        try:
            await fleet.wait_live(self.leader, len(self._names) - 1, PEACE_S)
            await fleet.wait_quiet(self.leader, PEACE_S)
        except trio.TooSlowError:
            waits = {name: node.waiting_for for name, node in fleet.nodes.items()}
            raise Broken(f"not quiet after {PEACE_S} s; they wait for {waits}") from None
        await self.expect_settled()
        self.check_invariants()

    def _leader_last(self) -> list[str]:
        return sorted(self._names, key=lambda name: name == self.leader)

    def _end_those_in_the_wrong_role(self) -> None:
        """The one that is meant to lead is to lead, or to try; all others are to follow."""
        for name in [name for name in self._names if self.fleet.is_up(name)]:
            node = self.fleet.nodes.get(name)
            role = "leader" if name == self.leader else "follower"
            leader = None if node is None else node.leader
            deposed = leader is not None and leader.deposed is not None
            if (
                node is None
                or node.config.role != role
                or deposed
                or (role == "leader" and not leader)
            ):
                self.fleet.crash(name)
            elif leader is not None:
                for link in leader.links:
                    node.wires.heal(link.url)

    async def history(self) -> History:
        """What the clients were told, and what each node holds now."""
        final = {}
        for name, node in sorted(self.fleet.nodes.items()):
            records = [record async for page in node.pages_by_key() for record in page]
            final[name] = {
                r.key: Shown(int(r.value), str(r.version))
                for r in records
                if not r.deleted and r.key != KEY
            }
        return History(self.clients.calls, [], final)

    async def finish(self) -> None:
        """The end of a run: peace, and the oracle's verdict. Raises Broken."""
        await self.make_peace()
        judged = judge(await self.history())
        if not judged.is_clean:
            raise Broken(f"{len(judged.anomalies)} anomalies:\n{judged}")


def seed_scheduler(seed: int) -> None:
    """Let the order in which ready tasks run be drawn from the seed, too."""
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio._core._run._r.seed(seed)


#: Bounds that no run would come to, made small: what happens at them happens all the time then.
SMALL_BOUNDS = (
    (trikv.replication.link, "PAGE_RECORDS", 2),
    (trikv.replication.outbox, "MAX_OUTBOX_RECORDS", 12),
    (trikv.replication.outbox, "MAX_BATCH_RECORDS", 5),
    (trikv.web.peer, "SCAN_BYTES", 150),
    (trikv.storage.group_commit, "MAX_GROUP", 4),
    (trikv.storage.write_buffer, "LEAST_PAIRS", 2),  # all batches: clients' have two or three keys
    (trikv.storage.write_buffer, "MAX_RECORDS", 7),
    (trikv.takeover.leadership, "PURGE_RECORDS", 2),
    (trikv.observe.change_stream, "PAGE_RECORDS", 3),
)


@contextmanager
def small_bounds() -> Iterator[None]:
    before = [getattr(module, name) for module, name, _ in SMALL_BOUNDS]
    for module, name, bound in SMALL_BOUNDS:
        setattr(module, name, bound)
    try:
        yield
    finally:
        for (module, name, _), bound in zip(SMALL_BOUNDS, before, strict=True):
            setattr(module, name, bound)


@asynccontextmanager
async def open_simulation(setup: Setup) -> AsyncIterator[Simulation]:
    """A simulation whose fleet is up and quiet."""
    with small_bounds():
        async with _open(setup) as simulation:
            yield simulation


@asynccontextmanager
async def _open(setup: Setup) -> AsyncIterator[Simulation]:
    async with open_fleet(setup.followers, started=False, seed=setup.seed) as fleet:
        fleet.disk_s, fleet.power_fails = setup.disk_s, setup.power_fails
        simulation = Simulation(fleet, setup)
        for number in (*range(1, setup.followers + 1), 0):
            await simulation.start(number)
        await fleet.wait_live("n0", setup.followers)
        yield simulation
