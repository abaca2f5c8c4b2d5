"""From records to figures: medians over rounds, ratios within a round, how cost grows. Pure.

For each figure the newest run that has it counts. A ratio is taken of two rates of the same run and
round, so that what disturbed the round is in both; the median of the rounds' ratios is what is told. It
need not be the ratio of the medians.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Run = dict[str, Any]
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and the least and the greatest it is the median of."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Iterable[float | None]) -> Spread | None:
    """The spread of those that are there; None if none is."""
    found = [value for value in values if value is not None]
    if not found:
        return None
    return Spread(statistics.median(found), min(found), max(found), len(found))


@dataclass(frozen=True, slots=True)
class Place:
    """What was measured: which system, at which workload, with how many clients."""

    system: str
    workload: str
    clients: int

    def holds(self, record: Record) -> bool:
        told = (record["system"], record["workload"], record["clients"])
        return told == (self.system, self.workload, self.clients)


class Comparison:
    """All runs of the comparison, the newest first."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = list(runs)

    def records(self, place: Place) -> list[Record]:
        """The rounds of the newest run that has them."""
        for run in self.runs:
            found = [record for record in run["measurements"] if place.holds(record)]
            if found:
                return found
        return []

    def figure(self, place: Place, name: str) -> Spread | None:
        return spread(record[name] for record in self.records(place))

    def total(self, place: Place, name: str) -> int:
        return sum(record[name] for record in self.records(place))

    def ratio(self, ours: Place, theirs: Place) -> Spread | None:
        """Our rate to theirs, of the newest run that has both."""
        for run in self.runs:
            found = list(_ratios(run, ours, theirs))
            if found:
                return spread(found)
        return None

    def clients(self, workload: str) -> list[int]:
        """The numbers of clients that a workload was measured with."""
        found = {
            r["clients"]
            for run in self.runs
            for r in run["measurements"]
            if r["workload"] == workload
        }
        return sorted(found)

    def systems(self) -> dict[str, dict[str, Any]]:
        """What is told of each system that was measured; the newest counts."""
        found: dict[str, dict[str, Any]] = {}
        for run in self.runs:
            for name, told in run["systems"].items():
                found.setdefault(name, told)
        return found


def _ratios(run: Run, ours: Place, theirs: Place) -> Iterable[float]:
    theirs_by_round = {r["round"]: r["rate"] for r in run["measurements"] if theirs.holds(r)}
    for record in run["measurements"]:
        other = theirs_by_round.get(record["round"])
        # A system that answered nothing at all is told so; infinitely better says nothing.
        if ours.holds(record) and other:
            yield record["rate"] / other


class Growth:
    """All runs of trikv alone, the newest first."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = list(runs)

    def series(
        self, part: str, value: Callable[[Record], float | None], **where: Any
    ) -> list[tuple[float, Spread]]:
        """A value against x, of the newest run that has it; `where` says which records."""
        for run in self.runs:
            found: dict[float, list[float]] = {}
            for record in run["measurements"]:
                if record["part"] != part or any(record.get(k) != v for k, v in where.items()):
                    continue
                one = value(record)
                if one is not None:
                    found.setdefault(record["x"], []).append(one)
            if found:
                return [(x, s) for x in sorted(found) if (s := spread(found[x])) is not None]
        return []

    def at(self, part: str, x: float, name: str) -> Spread | None:
        """One value at one x."""
        return dict(self.series(part, lambda record: record.get(name))).get(x)


def exponents(points: Sequence[tuple[float, float]]) -> list[float]:
    """For each step, e of y ~ x^e: 0 is flat, 1 is in proportion, 2 is its square."""
    return [
        math.log(y1 / y0) / math.log(x1 / x0) for (x0, y0), (x1, y1) in itertools.pairwise(points)
    ]


@dataclass(frozen=True, slots=True)
class Bend:
    """How a cost grows over the whole range, and in the step where it grows fastest."""

    overall: float
    steepest: float
    steepest_from: float
    steepest_to: float


def bend(points: Sequence[tuple[float, float]]) -> Bend | None:
    """How y grows with x; None for fewer than two points, or with anything that is not above 0."""
    if len(points) < 2 or any(x <= 0 or y <= 0 for x, y in points):
        return None
    steps = exponents(points)
    index = max(range(len(steps)), key=steps.__getitem__)
    return Bend(
        overall=exponents([points[0], points[-1]])[0],
        steepest=steps[index],
        steepest_from=points[index][0],
        steepest_to=points[index + 1][0],
    )
