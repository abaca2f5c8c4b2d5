"""Hypothesis drives a simulation: rules are steps, and a failure shrinks to the few that matter.

Rules are ordinary functions, and a simulation is one run of trio. So trio runs as a guest here: a rule
hands its step to the simulation's main task and lets trio tick until that is done, and no further. The
mock clock jumps whenever all tasks wait, so nothing ever has to be waited for outside.

Steps that do nothing at the moment are left out of what Hypothesis may choose where that is cheap to
know: the shorter a run, the faster it shrinks.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import outcome
import trio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from trio.testing import MockClock

from tests.simulation.clients import KEYS, KINDS
from tests.simulation.plans import PLANS, Plan
from tests.simulation.simulation import Setup, Simulation, open_simulation, seed_scheduler
from tests.simulation.walk import TOTAL, Run, repairs, replayed_by, written_down

NUMBERS = st.integers(0, 5)
SECONDS = st.sampled_from((0.01, 0.1, 0.5, 2.0, 10.0))


#: How long the guest sleeps between two looks for work: so far the clock may jump between two steps.
LOOK_S = 0.001

Work = Callable[[], Awaitable[None]]


class Host:
    """Runs trio as a guest, one piece of work after the other."""

    def __init__(self, main: Callable[[Host], Awaitable[None]]) -> None:
        self._ticks: deque[Callable[[], object]] = deque()
        self._work: Work | None = None
        self._result: outcome.Outcome[None] | None = None
        self._closed = False
        self._ended: outcome.Outcome[None] | None = None
        trio.lowlevel.start_guest_run(
            main,
            self,
            run_sync_soon_threadsafe=self._ticks.append,
            done_callback=self._done,
            clock=MockClock(autojump_threshold=0),
        )

    def _done(self, ended: outcome.Outcome[None]) -> None:
        self._ended = ended

    async def serve(self) -> None:
        """The guest's side: work until `close`."""
        while not self._closed:
            if self._work is not None:
                work, self._work = self._work, None
                try:
                    await work()
                    self._result = outcome.Value(None)
                except Exception as error:
                    self._result = outcome.Error(error)
            await trio.sleep(LOOK_S)

    def run(self, work: Work) -> None:
        """Let the guest do this, and return or raise what it did."""
        self._work = work
        while self._result is None:
            if self._ended is not None:
                self._ended.unwrap()
                raise AssertionError("the simulation has ended by itself")
            self._ticks.popleft()()
        result, self._result = self._result, None
        result.unwrap()

    def close(self) -> None:
        """End the guest. Raises what it ended with."""
        self._closed = True
        while self._ended is None:
            self._ticks.popleft()()
        self._ended.unwrap()


class Machine(RuleBasedStateMachine):
    """One run: a setup, steps, and the verdict at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.host: Host | None = None
        self.simulation: Simulation | None = None
        self.failed = self.planned = False
        self.run = Run(Setup(0))

    @initialize(
        seed=st.integers(0, 2**32 - 1),
        followers=st.integers(2, 5),
        write_quorum=st.integers(1, 5),
        changes=st.booleans(),
        disk_s=st.sampled_from((0.0, 0.003, 0.02)),
        calls=st.sampled_from((0, 100, 300)),
    )
    def begin(
        self,
        seed: int,
        followers: int,
        write_quorum: int,
        changes: bool,
        disk_s: float,
        calls: int,
    ) -> None:
        write_quorum = min(write_quorum, followers)
        setup = Setup(seed, followers, write_quorum, "fsync", changes, disk_s)
        seed_scheduler(seed)

        async def main(host: Host) -> None:
            async with open_simulation(setup) as self.simulation:
                try:
                    await host.serve()
                finally:
                    self.run.take(self.simulation)
                    TOTAL.add(self.run)

        self.host = Host(main)
        self._run(trio.lowlevel.checkpoint)
        if calls:
            self.do("load", seed=seed, calls=calls)

    def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        assert self.host is not None
        self.failed = True
        steps = [] if self.simulation is None else self.simulation.steps
        setup = Setup(0) if self.simulation is None else self.simulation.setup
        try:
            self.host.run(work)
        except Exception:
            with replayed_by(written_down(setup, steps)):
                raise
        self.failed = False

    def do(self, name: str, **arguments: Any) -> None:
        assert self.simulation is not None
        simulation = self.simulation
        self._run(lambda: simulation.do(name, **arguments))

    def _some_down(self) -> bool:
        return self.simulation is not None and any(
            not self.simulation.fleet.is_up(name) for name in self.simulation.fleet.names
        )

    def _is_cut(self) -> bool:
        if self.simulation is None:
            return False
        network = self.simulation.fleet.network
        return bool(network.cut or network.cut_one_way)

    # -- clients ------------------------------------------------------------------------------------

    @rule(
        client=st.integers(0, 2),
        kind=st.sampled_from(KINDS),
        keys=st.lists(st.sampled_from(KEYS[:2]), min_size=2, max_size=2, unique=True),
        nth=NUMBERS,
        patience_s=st.sampled_from((60.0, 60.0, 0.05)),
        seconds=st.sampled_from((0.0, 0.0, 0.02, 0.3)),
    )
    def call(
        self,
        client: int,
        kind: str,
        keys: list[str],
        nth: int,
        patience_s: float,
        seconds: float,
    ) -> None:
        keys = keys if "batch" in kind else keys[:1]
        self.do("call", client=client, kind=kind, keys=keys, nth=nth, patience_s=patience_s)
        if seconds:
            self.do("wait", seconds=seconds)

    @rule(seed=st.integers(0, 1000), calls=st.sampled_from((5, 30)))
    def load(self, seed: int, calls: int) -> None:
        self.do("load", seed=seed, calls=calls)

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.do("wait", seconds=seconds)

    # -- faults -------------------------------------------------------------------------------------

    @rule(node=NUMBERS, seconds=SECONDS)
    def crash(self, node: int, seconds: float) -> None:
        self.do("crash", node=node)
        self.do("wait", seconds=seconds)

    @rule(node=NUMBERS, steps=st.integers(1, 200))
    def crash_after(self, node: int, steps: int) -> None:
        self.do("crash_after", node=node, steps=steps)

    @rule(node=NUMBERS)
    def stop(self, node: int) -> None:
        self.do("stop", node=node)

    @precondition(_some_down)
    @rule(node=NUMBERS)
    def start(self, node: int) -> None:
        self.do("start", node=node)

    @rule(seconds=st.sampled_from((10.0, 2.0, 0.5)))
    def repair(self, seconds: float) -> None:
        """All nodes are up and well, and no wire is cut."""
        assert self.simulation is not None
        for node in range(len(self.simulation.fleet.names)):
            self.do("disk", node=node)
        for name, arguments in repairs(self.simulation):
            self.do(name, **arguments)
        self.do("wait", seconds=seconds)

    @precondition(_some_down)
    @rule(node=NUMBERS)
    def wipe(self, node: int) -> None:
        self.do("wipe", node=node)

    @rule(node=NUMBERS, other=NUMBERS, one_way=st.booleans())
    def cut(self, node: int, other: int, one_way: bool) -> None:
        self.do("cut", node=node, other=other, one_way=one_way)

    @rule(others=st.lists(NUMBERS, min_size=1, max_size=5, unique=True))
    def isolate(self, others: list[int]) -> None:
        self.do("isolate", others=others)

    @precondition(_is_cut)
    @rule(seconds=SECONDS)
    def heal(self, seconds: float) -> None:
        self.do("heal")
        self.do("wait", seconds=seconds)

    @rule(
        loss=st.sampled_from((0.0, 0.05, 0.3)),
        silence=st.sampled_from((0.0, 0.5)),
        delay_s=st.sampled_from((0.0, 0.01, 0.3)),
        doubling=st.sampled_from((0.0, 0.2)),
    )
    def weather(self, **weather: float) -> None:
        self.do("weather", **weather)

    @rule(node=NUMBERS, seconds=st.sampled_from((-86_400.0, -1.0, 1.0, 86_400.0)))
    def jump(self, node: int, seconds: float) -> None:
        self.do("jump", node=node, seconds=seconds)

    @rule(node=NUMBERS, ailment=st.sampled_from(("full", "failing", "well")))
    def disk(self, node: int, ailment: str) -> None:
        self.do("disk", node=node, full=ailment == "full", failing=ailment == "failing")

    @rule(
        node=NUMBERS,
        crash_old=st.booleans(),
        quorum=NUMBERS,
        left_out=st.one_of(st.none(), st.none(), NUMBERS),
        seconds=SECONDS,
    )
    def takeover(
        self, node: int, crash_old: bool, quorum: int, left_out: int | None, seconds: float
    ) -> None:
        self.do("takeover", node=node, crash_old=crash_old, quorum=quorum, left_out=left_out)
        self.do("wait", seconds=seconds)

    @rule(write_quorum=NUMBERS)
    def quorum(self, write_quorum: int) -> None:
        self.do("quorum", write_quorum=write_quorum)

    @rule(low_ms=st.sampled_from((0, 100)), more_ms=st.sampled_from((0, 50, 500)))
    def lag(self, low_ms: int, more_ms: int) -> None:
        self.do("lag", low_ms=low_ms, high_ms=low_ms + more_ms)

    @rule(node=NUMBERS, cut=st.booleans())
    def wire(self, node: int, cut: bool) -> None:
        self.do("wire", node=node, cut=cut)

    @rule(together=st.lists(NUMBERS, min_size=1, max_size=3, unique=True))
    def turn(self, together: list[int]) -> None:
        """These are apart from all others from now on, and together."""
        assert self.simulation is not None
        count = len(self.simulation.fleet.names)
        apart = {number % count for number in together}
        others = [number for number in range(count) if number not in apart]
        self.do("turn", groups=[sorted(apart), others])

    @precondition(lambda self: not self.planned)
    @rule(plan=st.sampled_from(PLANS), seed=st.integers(0, 1000))
    def plan(self, plan: Plan, seed: int) -> None:
        """One in a run: each takes as long as many other steps."""
        assert self.simulation is not None
        self.planned = True
        self.do("calm")
        for name, arguments in plan(self.simulation, random.Random(seed)):
            self.do(name, **arguments)

    # -- the end ------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if self.host is None:
            return
        simulation = self.simulation
        try:
            if not self.failed and simulation is not None:
                self._run(simulation.finish)
        finally:
            if self.failed:
                with_failure(self.host.close)
            else:
                self.host.close()


def with_failure(close: Callable[[], None]) -> None:
    """What a run that has failed already ends with is no news."""
    try:
        close()
    except Exception:
        return
