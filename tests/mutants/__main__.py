"""The table of mutants: see the package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tests.mutants.hook import VARIABLE
from tests.mutants.mutants import MUTANTS, Mutant
from tests.simulation.budget import BUDGETS

#: As many random walks as a CI run makes.
RUNS = BUDGETS["ci"].walks

#: Where it is known that the walks do not notice, and why.
FEW_RUNS = 20

#: So many must be noticed by the general simulation.
LEAST_BY_SIMULATION = 10


#: What fails so is a mutant that no longer fits the code: nothing has noticed it.
OWN_FAULTS = ("AttributeError", "ImportError", "NameError", "SyntaxError", "TypeError")


class Found(NamedTuple):
    mutant: Mutant
    runs: int
    by: str | None
    noticed: str

    def __str__(self) -> str:
        by = self.by or "NOBODY"
        return f"{self.mutant.name:50} {by:12} {self.runs:5}  {self.noticed[:150]}"


def is_noticed(mutant: Mutant, told: str) -> bool:
    """Whether what is told of a failure is what the mutant says must notice it."""
    own_fault = any(re.search(rf"\b{name}\b", told) for name in OWN_FAULTS)
    return not own_fault and re.search(mutant.noticed, told) is not None


def find(mutant: Mutant) -> Found:
    """Look for it with random walks, and then with its test."""
    runs = RUNS if mutant.test is None else FEW_RUNS
    hunt = [sys.executable, "-m", "tests.mutants.hunt", mutant.name, str(runs)]
    done = subprocess.run(hunt, capture_output=True, text=True)
    if done.returncode != 0:
        return Found(mutant, 0, None, done.stderr.strip().splitlines()[-1])
    told = json.loads(done.stdout.splitlines()[-1])
    if told["noticed"] is not None:
        right = is_noticed(mutant, told["noticed"])
        by, why = ("simulation", "") if right else (None, f"expected {mutant.noticed!r}, got ")
        return Found(mutant, told["runs"], by, why + told["noticed"])
    if mutant.test is None:
        return Found(mutant, told["runs"], None, "")
    arguments = ["-q", "-x", "-p", "tests.mutants.hook", "-p", "no:cacheprovider", mutant.test]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        env={**os.environ, VARIABLE: mutant.name, "COLUMNS": "400"},
        capture_output=True,
        text=True,
    )
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    if done.returncode != 1 or not failed:
        return Found(mutant, told["runs"], None, f"{mutant.test} does not fail")
    noticed = failed[0].removeprefix("FAILED ")
    if not is_noticed(mutant, noticed):
        return Found(mutant, told["runs"], None, f"expected {mutant.noticed!r}, got {noticed}")
    return Found(mutant, told["runs"], "its test", noticed)


def find_all(names: list[str]) -> Iterator[Found]:
    with ThreadPoolExecutor(os.cpu_count() or 1) as workers:
        yield from workers.map(find, [MUTANTS[name] for name in names])


def main(arguments: list[str]) -> int:
    unknown = [name for name in arguments if name not in MUTANTS]
    if unknown:
        print(f"no such mutant: {', '.join(unknown)}; there are: {', '.join(MUTANTS)}")
        return 2
    print(f"{'mutant':50} {'caught by':12} {'runs':>5}  what was noticed")
    found = []
    for one in find_all(arguments or list(MUTANTS)):
        found.append(one)
        print(one, flush=True)
    by_simulation = sum(one.by == "simulation" for one in found)
    missed = [one.mutant.name for one in found if one.by is None]
    print(
        f"{len(found)} mutants, {by_simulation} caught by the simulation, {len(missed)} by nobody"
    )
    return 1 if missed or (not arguments and by_simulation < LEAST_BY_SIMULATION) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
