"""`python -m benchmarks`: hands over to the command that was asked for.

Exit codes: 0 done; 1 something went wrong; 2 bad usage; 128 + the number of the signal that ended it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.errors import BenchmarkError, Stopped
from benchmarks.interrupts import heeded
from benchmarks.options import CompareOptions, GrowthOptions, ReportOptions, parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. Bad usage raises SystemExit(2)."""
    options = parse(arguments)
    try:
        with heeded():
            problems = run(options)
    except Stopped as stop:
        print(f"{stop}; what was measured until then is kept", file=sys.stderr)
        return 128 + stop.number
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    for problem in problems:
        print(f"benchmarks: {problem}", file=sys.stderr)
    return 1 if problems else 0


def run(options: CompareOptions | GrowthOptions | ReportOptions) -> list[str]:
    """The command itself; returns what went wrong."""
    if isinstance(options, CompareOptions):
        from benchmarks.compare import compare

        return compare(options)
    if isinstance(options, GrowthOptions):
        from benchmarks.growth import grow

        return grow(options)
    # matplotlib takes a second to import: not before it is needed.
    from benchmarks.report import write_report

    return write_report(options)


if __name__ == "__main__":
    sys.exit(main())
