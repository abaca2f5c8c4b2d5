"""Random walks: clients ask while nodes crash, lose their disks, are cut off and take over.

As long as no more nodes lose their disks at a time than the quorum allows, nothing that was promised is
broken, and once all is up and quiet all nodes are equal. See `simulation` for what is done and checked.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.budget import BUDGET
from tests.simulation.simulation import Broken
from tests.simulation.walk import read_back, run_steps, run_walk, written_down

#: Walks in one test.
BLOCK = 50

STARTS = range(BUDGET.first_seed, BUDGET.first_seed + BUDGET.walks, BLOCK)


@pytest.mark.parametrize("first", STARTS)
def test_no_promise_is_broken(first: int) -> None:
    for seed in range(first, first + BLOCK):
        run_walk(seed)


def digest_in_another_process(seed: int, hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()[-1]


@pytest.mark.parametrize("seed", [4, 7])
def test_the_same_seed_gives_the_same_trace(seed: int) -> None:
    """Byte for byte: twice in this process, and in others with other hashes."""
    first, second = run_walk(seed), run_walk(seed)
    assert first.trace == second.trace
    assert len(first.trace) > 500
    assert first.trace != run_walk(seed + 1).trace
    assert {digest_in_another_process(seed, hash_seed) for hash_seed in "12"} == {first.digest()}


def test_steps_that_were_written_down_are_the_same_run() -> None:
    walk = run_walk(3)
    setup, steps = read_back(written_down(walk.setup, walk.steps))
    assert (setup, list(steps)) == (walk.setup, walk.steps)
    assert run_steps(setup, steps).trace == walk.trace


def test_without_fsync_a_loss_of_power_loses_confirmed_writes_and_that_is_seen() -> None:
    broken = []
    for seed in range(40):
        try:
            run_walk(seed, durability="os", planned=False)
        except Broken as failure:
            broken.append(failure)
    assert len(broken) >= 2
    assert all("replay: python -m tests.simulation" in one.__notes__[0] for one in broken)


def test_without_fsync_a_process_that_is_killed_loses_nothing() -> None:
    for seed in range(20):
        run_walk(seed, durability="os", power_fails=False)
