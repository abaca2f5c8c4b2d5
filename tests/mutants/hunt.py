"""One mutant, in this process: `python -m tests.mutants.hunt NAME RUNS`. Prints a line of JSON."""

from __future__ import annotations

import json
import logging
import signal
import sys

from tests.mutants.hook import install

#: No run of a healthy simulation takes so long.
PATIENCE_S = 60


def hunt(name: str, runs: int) -> dict[str, object]:
    """Random walks until one fails: what was noticed, and after how many."""
    install(name)
    from tests.simulation.walk import run_walk

    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, _too_long)
    for seed in range(runs):
        signal.alarm(PATIENCE_S)
        try:
            run_walk(seed)
        except Exception as failure:
            lines = str(failure).splitlines() or [""]
            what = " ".join(lines[:2]) if "anomalies" in lines[0] else lines[0]
            return {"runs": seed + 1, "noticed": f"{type(failure).__name__}: {what}"}
    return {"runs": runs, "noticed": None}


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"a run that did not end within {PATIENCE_S} s")


if __name__ == "__main__":
    print(json.dumps(hunt(sys.argv[1], int(sys.argv[2]))))
