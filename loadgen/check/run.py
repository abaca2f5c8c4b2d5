"""A check, from an empty cluster to a verdict.

    start → clients → left alone → nemesis → clients end → peace → replicas equal → final state → verdict

The clients work through both phases without a break. What cannot be done (a node that ends by itself,
a cluster that does not come up again) ends the run, but not the work that was done: what was recorded
is written to `history.json` in any case, and judged unless the run was interrupted.
"""

from __future__ import annotations

import random
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import httpx
import trio

from loadgen import summary
from loadgen.api import Leader
from loadgen.check import report
from loadgen.check.clients import Client, Keys
from loadgen.check.containers import check_engine, open_containers
from loadgen.check.history import Fault
from loadgen.check.nemesis import Nemesis, make_peace
from loadgen.check.plan import CheckPlan
from loadgen.check.processes import open_processes
from loadgen.check.recorder import Connection, Recorder, final_state
from loadgen.check.result import CheckResult, Phase
from loadgen.check.situation import Situation
from loadgen.check.system import System
from loadgen.check.verdict import judge
from loadgen.cluster import FOLLOWERS, START_TIMEOUT_S
from loadgen.errors import ApiError, LoadgenError, leaves

#: What all keys of a check begin with.
PREFIX = "check/"
#: The first second of the fault-free phase is not counted: connections are made in it.
WARM_UP_S = 1.0
#: Everything that was hurt is started, promised and caught up by then.
PEACE_S = 90.0
#: What is on its way arrives by then; replicas that still differ are an anomaly.
EQUAL_S = 30.0
POLL_S = 0.2
SHOW_S = 0.5


class Audience(Protocol):
    """Who is told how far a check has got."""

    def step(self, text: str) -> None: ...

    def say(self, text: str) -> None: ...


@dataclass
class Run:
    """A check while it is done: what is known so far."""

    plan: CheckPlan
    recorder: Recorder = field(default_factory=Recorder)
    leader: str = ""
    begun: float = 0.0
    nemesis_begun: float = 0.0
    ended: float = 0.0
    complaints: list[str] = field(default_factory=list)


async def record_and_judge(plan: CheckPlan, folder: Path, audience: Audience) -> CheckResult:
    """Do it all, and write `history.json`; the report and the picture are the caller's.

    Raises UsageError, before anything is done.
    """
    if plan.containers:
        await check_engine()
    run, failure = Run(plan), None
    try:
        await _record(run, folder, audience)
    except* LoadgenError as group:
        failure = str(next(leaves(group)))
    finally:
        audience.step("writing the history")
        summary.write_file(folder / report.HISTORY_FILE, run.recorder.history.to_json())
    audience.step("judging the history")
    begun = trio.current_time()
    judged = await trio.to_thread.run_sync(judge, run.recorder.history)
    return CheckResult(
        plan,
        run.recorder.history,
        Phase(run.begun + min(WARM_UP_S, plan.fault_free_s / 2), run.nemesis_begun),
        Phase(run.nemesis_begun, run.ended),
        judged.anomalies,
        run.complaints,
        failure,
        run.recorder.not_sent,
        trio.current_time() - begun,
        judged.undecided,
    )


def _system(plan: CheckPlan) -> AbstractAsyncContextManager[System]:
    return open_containers(plan) if plan.containers else open_processes(plan)


async def _record(run: Run, folder: Path, audience: Audience) -> None:
    """Everything up to the final state of every node."""
    audience.step("building the image" if run.plan.containers else "starting six nodes")
    async with _system(run.plan) as system:
        try:
            await _start(run, system)
            audience.say(f"own cluster: {run.plan.words()}")
            run.recorder = Recorder()
            await _work(run, system, audience)
            audience.step("making peace")
            await make_peace(system, run.leader, PEACE_S)
            await _wait_equal(system, run.leader)
            await _read_final_state(run, system)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                run.complaints += await system.complaints()
                await system.save_logs(folder / report.LOGS_FOLDER)


async def _start(run: Run, system: System) -> None:
    """All nodes, the first of which leads, until it is linked to all others."""
    run.leader = system.names[0]
    async with trio.open_nursery() as nursery:
        for name in system.names[1:]:
            nursery.start_soon(partial(system.start, name, leads=False))
    await system.start(run.leader, leads=True)
    await make_peace(system, run.leader, START_TIMEOUT_S)


async def _work(run: Run, system: System, audience: Audience) -> None:
    """Both phases: clients all the time, the nemesis in the second."""
    plan, recorder = run.plan, run.recorder
    keys = Keys(PREFIX, plan.keys)
    run.begun = recorder.now()
    run.nemesis_begun = run.begun + plan.fault_free_s
    run.ended = run.begun + plan.duration_s
    situation = Situation(system.names, plan.quorum, run.leader)
    try:
        async with trio.open_nursery() as nursery:
            for number in range(plan.clients):
                # A text seed is hashed by a fixed algorithm: the same choices on any machine.
                rng = random.Random(f"{plan.seed}/client/{number}")
                nursery.start_soon(_client, run, system, keys, number, rng)
            nursery.start_soon(_show, run, audience)
            await trio.sleep(plan.fault_free_s)
            rng = random.Random(f"{plan.seed}/nemesis")
            nemesis = Nemesis(system, situation, rng, recorder.now, recorder.history.faults)
            with trio.move_on_after(plan.duration_s - plan.fault_free_s):
                await nemesis.run(plan.nemesis, plan.breath_s)
                await trio.sleep_forever()
    finally:
        run.leader = situation.leader
        run.ended = min(run.ended, recorder.now())
        _close(recorder.history.faults, recorder.now())


async def _client(run: Run, system: System, keys: Keys, number: int, rng: random.Random) -> None:
    async with Connection(number, system.url, run.recorder) as connection:
        client = Client(
            number,
            connection,
            system.names,
            keys,
            rng,
            run.recorder.now,
            linearizable=run.plan.quorum > 0,
        )
        await client.run(run.ended)


async def _show(run: Run, audience: Audience) -> None:
    """Tell how far it has got, until the work is done."""
    recorder, plan = run.recorder, run.plan
    while recorder.now() < run.ended:
        faults = sum(fault.kind in plan.nemesis for fault in recorder.history.faults)
        left_s = run.ended - recorder.now()
        what = "nemesis" if recorder.now() >= run.nemesis_begun else "left alone"
        counts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(recorder.completed.items()))
        audience.step(f"{what}: {faults} faults; {counts}; {left_s:.0f} s to go")
        await trio.sleep(SHOW_S)


def _close(faults: list[Fault], now_s: float) -> None:
    for fault in faults:
        if fault.ended is None:
            fault.ended = now_s


async def _wait_equal(system: System, leader: str) -> None:
    """Until all replicas match, or they had time enough: then it is for the verdict to say."""
    with trio.move_on_after(EQUAL_S):
        async with Leader(system.url(leader), timeout_s=EQUAL_S) as client:
            while True:
                try:
                    found = await client.replica_status()
                except ApiError:
                    continue
                if [one.status for one in found.followers] == ["match"] * FOLLOWERS:
                    return
                await trio.sleep(POLL_S)


async def _read_final_state(run: Run, system: System) -> None:
    for name in system.names:
        try:
            run.recorder.history.final[name] = await final_state(system.url(name), PREFIX)
        except (httpx.TransportError, KeyError) as error:
            raise ApiError(
                f"{name} does not tell what it holds ({error!r})", code="no_final_state"
            ) from None
