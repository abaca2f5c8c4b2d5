"""Random walks: a run whose steps are drawn from one seed, and how any run is run again.

`run_walk(seed)` draws a setup and then steps, with time between them: one by one, or in every second
walk mostly by plans (see `plans`). `run_steps` takes a setup and
steps that were written down, such as those that Hypothesis has found. Both return a `Run`; what must
hold and does not is raised, with the command that shows it again.

    python -m tests.simulation 4711           the walk of that seed, told line by line
    python -m tests.simulation eJyrVs...      steps that were written down
"""

from __future__ import annotations

import base64
import json
import random
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import trio
from trio.testing import MockClock

from tests.simulation.plans import draw_plan
from tests.simulation.simulation import Setup, Simulation, open_simulation, seed_scheduler

Steps = Sequence[tuple[str, dict[str, Any]]]

#: How long a walk goes on, in simulated time.
WALK_S = 40.0

#: How many plans there are in a walk of plans.
PLANS_IN_A_WALK = 2

COMMAND = "python -m tests.simulation"


@dataclass
class Run:
    """What a run was: filled while it runs, so that a failed one can be told."""

    setup: Setup
    trace: list[str] = field(default_factory=list)
    steps: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    simulated_s: float = 0.0
    calls: int = 0
    confirmed: int = 0

    def digest(self) -> str:
        return blake2b("\n".join(self.trace).encode(), digest_size=16).hexdigest()

    def take(self, simulation: Simulation) -> None:
        fleet = simulation.fleet
        self.trace, self.steps, self.faults = fleet.trace, simulation.steps, simulation.faults
        self.faults["lost, late or doubled message"] = fleet.network.faults
        self.simulated_s = trio.current_time()
        self.calls = len(simulation.clients.calls)
        self.confirmed = sum(call.ok for call in simulation.clients.calls if call.writes)


@dataclass
class Total:
    """What all runs of this process came to."""

    runs: int = 0
    simulated_s: float = 0.0
    calls: int = 0
    confirmed: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, run: Run) -> None:
        self.runs += 1
        self.simulated_s += run.simulated_s
        self.calls += run.calls
        self.confirmed += run.confirmed
        self.faults.update(run.faults)

    def __str__(self) -> str:
        faults = ", ".join(f"{count} x {name}" for name, count in self.faults.most_common())
        return (
            f"{self.runs} simulated runs, {self.simulated_s / 3600:.1f} simulated hours, "
            f"{self.calls} requests of clients, {self.confirmed} confirmed writes\nfaults: {faults}"
        )


TOTAL = Total()


def draw_setup(seed: int, **fixed: Any) -> Setup:
    rng = random.Random(seed)
    if fixed.get("planned", seed % 2 == 1):
        return _draw_planned(seed, rng)._replace(**fixed)
    followers = rng.randint(2, 5)
    drawn = Setup(
        seed,
        followers,
        write_quorum=rng.randint(1, followers),
        changes=rng.random() < 0.5,
        disk_s=rng.choice((0.0, 0.003, 0.02)),
    )
    return drawn._replace(**fixed)


def _draw_planned(seed: int, rng: random.Random) -> Setup:
    """Quorums that leave room for the loss of some, and for partitions in which each side has enough."""
    followers = rng.choice((2, 3, 3, 4, 5))
    changes = rng.random() < 0.45
    durability = "os" if not changes and rng.random() < 0.15 else "fsync"
    return Setup(
        seed,
        followers,
        write_quorum=rng.choice((1, 1, 2, max(1, followers - 2), followers)[: followers + 1]),
        durability="os" if durability == "os" else "fsync",
        changes=changes,
        disk_s=rng.choice((0.0, 0.003, 0.02)),
        power_fails=durability == "fsync",
        request_timeout_s=rng.choice((1.0, 3.0)),
        planned=True,
    )


async def walk(simulation: Simulation) -> None:
    if simulation.setup.planned:
        await planned_walk(simulation)
    else:
        await random_walk(simulation)


async def planned_walk(simulation: Simulation) -> None:
    """Clients that ask all the time, and two plans, each in the calm; between them single faults."""
    rng = random.Random(simulation.setup.seed + 1)
    await simulation.do(
        "weather",
        loss=rng.choice((0.0, 0.0, 0.0, 0.02)),
        delay_s=rng.choice((0.0, 0.0, 0.01)),
        rejects=rng.random() < 0.6,
    )
    seed, reads = rng.randrange(2**32), rng.random() < 0.5
    await simulation.do("load", seed=seed, calls=500, rate=8.0, mostly_reads=reads)
    for _ in range(PLANS_IN_A_WALK):
        await simulation.do("calm")
        for name, arguments in draw_plan(simulation, rng):
            await simulation.do(name, **arguments)
        if simulation.setup.durability == "fsync":
            for name, arguments in draw_steps(simulation, rng):
                await simulation.do(name, **arguments)
                await simulation.do("wait", seconds=rng.expovariate(2))


async def random_walk(simulation: Simulation) -> None:
    """Clients that ask all the time, and a fault every second."""
    rng = random.Random(simulation.setup.seed + 1)
    await simulation.do(
        "weather",
        loss=rng.choice((0.0, 0.0, 0.05, 0.2)),
        silence=rng.choice((0.0, 0.5)),
        delay_s=rng.choice((0.0, 0.01, 0.3)),
        doubling=rng.choice((0.0, 0.05, 0.2)),
    )
    await simulation.do("load", seed=rng.randrange(2**32), calls=int(15 * WALK_S))
    until_s = trio.current_time() + WALK_S
    while trio.current_time() < until_s:
        await simulation.do("wait", seconds=rng.expovariate(1))
        for name, arguments in draw_steps(simulation, rng):
            await simulation.do(name, **arguments)


def draw_steps(simulation: Simulation, rng: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """A fault, or the end of one."""
    names = simulation.fleet.names
    count = len(names)
    node = rng.randrange(count)
    down = [i for i, name in enumerate(names) if not simulation.fleet.is_up(name)]
    leader = names.index(simulation.leader)
    if rng.random() < 0.4:
        yield from repairs(simulation)
        return
    match rng.randrange(18):
        case 0:
            yield "crash", {"node": node}
        case 1:
            yield "crash_after", {"node": node, "steps": rng.randint(1, 300)}
        case 2:
            yield "crash_after", {"node": leader, "steps": rng.randint(1, 100)}
        case 3:
            yield "stop", {"node": node}
        case 4 | 5 if down:
            yield "wipe", {"node": down[-1]}
            yield "start", {"node": down[-1]}
        case 6 | 7:
            other = rng.randrange(count)
            yield "cut", {"node": node, "other": other, "one_way": rng.random() < 0.5}
        case 8:
            others = [i for i in range(count) if i != leader]
            yield "isolate", {"others": rng.sample(others, rng.randint(1, count - 1))}
        case 9:
            low_ms = rng.choice((0, 0, 100, 500))
            yield "lag", {"low_ms": low_ms, "high_ms": low_ms + rng.choice((0, 50, 500))}
        case 10 | 11:
            how = {"crash_old": rng.random() < 0.5, "quorum": rng.randrange(count)}
            if rng.random() < 0.5:
                how["left_out"] = rng.randrange(count)
            yield "takeover", {"node": node, **how}
        case 12:
            yield "quorum", {"write_quorum": rng.randrange(count)}
        case 13:
            yield "jump", {"node": node, "seconds": rng.choice((-1, 1)) * rng.expovariate(1 / 1e4)}
        case 14 | 15:
            ailment = rng.choice(("full", "failing"))
            yield "disk", {"node": node, ailment: True}
            yield "wait", {"seconds": rng.uniform(0, 2)}
            if rng.random() < 0.5:
                yield "crash", {"node": node}
            yield "disk", {"node": node}
        case 16:
            yield "wire", {"node": node, "cut": True}
        case _:
            yield "wait", {"seconds": 1.0}


def repairs(simulation: Simulation) -> Iterator[tuple[str, dict[str, Any]]]:
    """No wire is cut, and every node is up."""
    yield "heal", {}
    for number, name in enumerate(simulation.fleet.names):
        yield "wire", {"node": number, "cut": False}
        if not simulation.fleet.is_up(name):
            yield "start", {"node": number}


def run_walk(seed: int, **fixed: Any) -> Run:
    """Raises what must hold and does not, with a note of how to see it again."""
    return _run(Run(draw_setup(seed, **fixed)), walk, str(seed))


def run_steps(setup: Setup, steps: Steps) -> Run:
    """The same for steps that were written down."""

    async def take(simulation: Simulation) -> None:
        for name, arguments in steps:
            await simulation.do(name, **arguments)

    return _run(Run(setup), take, written_down(setup, steps))


def _run(run: Run, body: Callable[[Simulation], Awaitable[None]], replay: str) -> Run:
    async def main() -> None:
        async with open_simulation(run.setup) as simulation:
            try:
                await body(simulation)
                await simulation.finish()
            finally:
                run.take(simulation)
                TOTAL.add(run)

    seed_scheduler(run.setup.seed)
    with replayed_by(replay):
        trio.run(main, clock=MockClock(autojump_threshold=0))
    return run


@contextmanager
def replayed_by(replay: str) -> Iterator[None]:
    """A failure is told with the command that shows it again."""
    try:
        yield
    except Exception as failure:
        failure.add_note(f"replay: {COMMAND} {replay}")
        raise


def written_down(setup: Setup, steps: Steps) -> str:
    text = json.dumps([setup, steps], separators=(",", ":"))
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode()


def read_back(text: str) -> tuple[Setup, Steps]:
    """Raises ValueError or zlib.error for what was not written down by `written_down`."""
    setup, steps = json.loads(zlib.decompress(base64.urlsafe_b64decode(text)))
    return Setup(*setup), [(name, arguments) for name, arguments in steps]
