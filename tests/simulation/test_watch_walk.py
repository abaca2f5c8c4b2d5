"""Those who watch a cluster know in the end exactly what it holds, whatever was done to it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.simulation.budget import BUDGET
from tests.simulation.simulation import open_simulation, seed_scheduler
from tests.simulation.walk import draw_setup, walk
from tests.simulation.watchers import Watcher

#: Walks in one test.
BLOCK = 10

#: One walk in so many is watched.
SHARE = 10

STARTS = range(BUDGET.first_seed, BUDGET.first_seed + BUDGET.walks // SHARE, BLOCK)


def run_watched_walk(seed: int) -> list[Watcher]:
    async def main() -> list[Watcher]:
        async with open_simulation(draw_setup(seed)) as simulation:
            fleet = simulation.fleet
            prefixes = ("", "", "a")
            watchers = [Watcher(fleet, 10 * seed + i, prefix) for i, prefix in enumerate(prefixes)]
            for watcher in watchers:
                fleet.nursery.start_soon(watcher.run)
            await walk(simulation)
            await simulation.finish()
            for watcher in watchers:
                await watcher.check(fleet.nodes[simulation.leader])
            return watchers

    seed_scheduler(seed)
    return trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("first", STARTS)
def test_whoever_watches_ends_with_what_is_there(first: int) -> None:
    watchers = []
    ordinary = []  # planned walks are shorter
    for seed in range(first, first + BLOCK):
        try:
            watchers += run_watched_walk(seed)
            if seed % 2 == 0:
                ordinary += watchers[-3:]
        except BaseException as failure:
            failure.add_note(f"run_watched_walk({seed})")
            raise
    assert sum(one.streams for one in watchers) > 20 * BLOCK
    assert sum(one.changes for one in ordinary) > 30 * BLOCK / 2
