"""The command line: what may be, and what each is when it is not given."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.systems import DEFAULT_SYSTEMS, SYSTEMS
from benchmarks.workloads import WORKLOADS

PARTS = ("clients", "followers", "keys", "values", "lag")

DEFAULT_ROUNDS = 5
DEFAULT_GROWTH_ROUNDS = 3
DEFAULT_SECONDS = 4
QUICK_SECONDS = 2
MAX_ROUNDS = 100
MAX_SECONDS = 600
MAX_CLIENTS = 10_000

EPILOG = """\
what is measured: benchmarks/README.md. exit codes: 0 done; 1 something went wrong, which the results say
too; 2 bad usage; 130 ended by Ctrl-C, and what was measured until then is kept.

examples:
  python -m benchmarks                                       everything, about 40 minutes
  python -m benchmarks --quick                               to see that it works
  python -m benchmarks --systems trikv,lab --workloads put --clients 1,10 --rounds 3
  python -m benchmarks growth --parts clients,values
  python -m benchmarks report                                docs/performance.md from the results
"""


@dataclass(frozen=True, slots=True)
class CompareOptions:
    systems: tuple[str, ...]
    workloads: tuple[str, ...]
    clients: tuple[int, ...] | None
    rounds: int
    seconds: int
    output: Path
    directory: Path | None

    def told(self) -> dict[str, Any]:
        """What the results file says of them."""
        return {"rounds": self.rounds, "seconds": self.seconds}


@dataclass(frozen=True, slots=True)
class GrowthOptions:
    parts: tuple[str, ...]
    rounds: int
    seconds: int
    quick: bool
    output: Path
    directory: Path | None

    def told(self) -> dict[str, Any]:
        """What the results file says of them."""
        return {"rounds": self.rounds, "seconds": self.seconds, "quick": self.quick}


@dataclass(frozen=True, slots=True)
class ReportOptions:
    results: Path
    docs: Path


def parse(arguments: Sequence[str] | None) -> CompareOptions | GrowthOptions | ReportOptions:
    """Check the command line. Raises SystemExit(2) with usage and reason on bad usage."""
    given = _parser().parse_args(arguments)
    if given.what == "report":
        return ReportOptions(given.results, given.docs)
    folder: Path = given.output or (results.QUICK_FOLDER if given.quick else results.FOLDER)
    seconds: int = given.seconds or (QUICK_SECONDS if given.quick else DEFAULT_SECONDS)
    if given.what == "growth":
        rounds = given.rounds or (1 if given.quick else DEFAULT_GROWTH_ROUNDS)
        return GrowthOptions(given.parts, rounds, seconds, given.quick, folder, given.directory)
    return CompareOptions(
        systems=given.systems,
        workloads=given.workloads,
        clients=given.clients,
        rounds=given.rounds or (1 if given.quick else DEFAULT_ROUNDS),
        seconds=seconds,
        output=folder,
        directory=given.directory,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure trikv beside its peers, and as it grows. Every system runs as six nodes\n"
        "on loopback, in a temporary directory, and is gone afterwards.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(what="compare")
    add = parser.add_argument_group("comparing").add_argument
    add(
        "--systems",
        metavar="LIST",
        type=_names(tuple(SYSTEMS)),
        default=DEFAULT_SYSTEMS,
        help=f"of {','.join(SYSTEMS)} (default: {','.join(DEFAULT_SYSTEMS)}); ratios need trikv",
    )
    add(
        "--workloads",
        metavar="LIST",
        type=_names(tuple(WORKLOADS)),
        default=tuple(WORKLOADS),
        help=f"of {','.join(WORKLOADS)} (default: all)",
    )
    add(
        "--clients",
        metavar="LIST",
        type=_numbers,
        help="numbers of clients, e.g. 1,10 (default: 1,10,50,200; batches 1,10)",
    )
    _add_measuring(parser, DEFAULT_ROUNDS)
    subparsers = parser.add_subparsers(title="other commands", metavar="")
    growth = subparsers.add_parser("growth", help="how cost grows in trikv alone")
    growth.set_defaults(what="growth")
    growth.add_argument(
        "--parts",
        metavar="LIST",
        type=_names(PARTS),
        default=PARTS,
        help=f"of {','.join(PARTS)} (default: all); keys has memory, starts and catching up in it",
    )
    _add_measuring(growth, DEFAULT_GROWTH_ROUNDS)
    report = subparsers.add_parser("report", help="docs/performance.md and its plots")
    report.set_defaults(what="report")
    report.add_argument(
        "--results",
        metavar="DIR",
        type=Path,
        default=results.FOLDER,
        help="folder of the results (default: benchmarks/results)",
    )
    report.add_argument(
        "--docs",
        metavar="DIR",
        type=Path,
        default=results.FOLDER.parents[1] / "docs",
        help="where performance.md and images/ are to be (default: docs)",
    )
    return parser


def _add_measuring(parser: argparse.ArgumentParser, rounds: int) -> None:
    add = parser.add_argument
    add(
        "--rounds",
        metavar="N",
        type=_whole(1, MAX_ROUNDS),
        help=f"rounds of everything, in turn (default: {rounds}, with --quick 1)",
    )
    add(
        "--seconds",
        metavar="N",
        type=_whole(1, MAX_SECONDS),
        help=f"of each measurement, after 1 s of warm-up (default: {DEFAULT_SECONDS}, with --quick "
        f"{QUICK_SECONDS})",
    )
    add("--quick", action="store_true", help="to see that it works: short, into results/quick")
    add(
        "--output",
        metavar="DIR",
        type=Path,
        help="folder of the results file (default: benchmarks/results, with --quick its quick/)",
    )
    add(
        "--directory",
        metavar="DIR",
        type=Path,
        help="where the nodes' temporary data is made: choose a disk, not memory (default: the "
        "system's place for temporary files)",
    )


def _names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """A checker of lists of names, each known and given once."""

    def check(text: str) -> tuple[str, ...]:
        found = tuple(part.strip() for part in text.split(","))
        if not set(found) <= set(known) or len(set(found)) < len(found):
            raise argparse.ArgumentTypeError(f"{text!r}: expected a list of {', '.join(known)}")
        return found

    return check


def _numbers(text: str) -> tuple[int, ...]:
    check = _whole(1, MAX_CLIENTS)
    return tuple(check(part.strip()) for part in text.split(","))


def _whole(low: int, high: int) -> Callable[[str], int]:
    """A checker of whole numbers from `low` to `high`."""

    def check(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(
                f"{text!r}: expected a whole number from {low} to {high}"
            )
        return int(text)

    return check
