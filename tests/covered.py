"""Run the unit tests, all with the coverage that the core must have, or some of them without.

    python -m tests.covered                            what `tox -e unit` runs
    python -m tests.covered -k lag                     some of them: arguments are pytest's
    python -m tests.covered tests/unit/test_simulated_lag.py     those of a file

Only the whole can cover the core: a choice of tests is not asked for it, and says so.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

FOLDERS = ("tests/unit", "tests/simulation")
#: What is random runs in `tox -e simulation` and `tox -e fuzz`: what it alone reaches is not covered.
RANDOM = (
    "--ignore-glob=tests/unit/test_fuzz*",
    *(
        f"--ignore=tests/simulation/test_{name}.py"
        for name in ("random_walk", "watch_walk", "machine")
    ),
)
#: Tests of what stands around the core, and reaches it by chance: they run uncounted, in half the time.
AROUND = tuple(f"tests/unit/{name}" for name in ("client", "cli", "loadgen", "benchmarks"))


def commands(arguments: Sequence[str]) -> Iterator[list[str]]:
    """The commands to run in turn, for some arguments of pytest's or none."""
    if arguments:
        is_chosen = any(Path(argument.partition("::")[0]).exists() for argument in arguments)
        yield ["pytest", *arguments, *(() if is_chosen else (*RANDOM, *FOLDERS))]
        return
    ignored = [f"--ignore={folder}" for folder in AROUND]
    yield ["coverage", "run", "-m", "pytest", *FOLDERS, *ignored, *RANDOM]
    yield ["coverage", "report", "--fail-under=100", "--show-missing"]
    yield ["pytest", "-k", "not test_fuzz", *AROUND]


def main(arguments: Sequence[str]) -> int:
    """Run them until one fails; returns its exit code, or 0."""
    for command in commands(arguments):
        if code := subprocess.run([sys.executable, "-m", *command], check=False).returncode:
            return code
    if arguments:
        print("some of the unit tests: coverage is asked of the whole (`tox -e unit`) only")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
