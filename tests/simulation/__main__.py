"""Run a simulation again, and tell it line by line: see `walk`."""

from __future__ import annotations

import sys
import zlib

from tests.simulation.walk import draw_setup, read_back, run_steps, run_walk


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("expected one argument: a seed, or steps that were written down", file=sys.stderr)
        return 2
    (what,) = arguments
    if what.isdecimal():
        print(draw_setup(int(what)))
        run = run_walk(int(what))
    else:
        try:
            setup, steps = read_back(what)
        except (ValueError, zlib.error) as error:
            print(f"expected a seed, or steps that were written down: {error}", file=sys.stderr)
            return 2
        print(setup)
        run = run_steps(setup, steps)
    print(*run.trace, sep="\n")
    print(f"nothing is wrong; {run.simulated_s:.0f} s simulated, trace {run.digest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
