"""The tables of docs/performance.md, as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.figures import Comparison, Growth, Place, Spread, bend
from benchmarks.goals import Goal
from benchmarks.measure import LEAST_ANSWERS_PER_CLIENT
from benchmarks.systems import REFERENCE
from benchmarks.workloads import WORKLOADS

NOTHING = "–"

#: A load program that used more of a core than this may have been what was measured.
BUSY_LOAD_CORES = 0.9

VERDICTS = {"aim": "aim reached", "floor": "floor reached", "short": "**short of the floor**"}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; columns whose head begins with `>` are of numbers."""
    lines = [
        "| " + " | ".join(name.lstrip(">") for name in head) + " |",
        "|" + "|".join("---:" if name.startswith(">") else "---" for name in head) + "|",
    ]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Three digits that count, and commas."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    for below, digits in ((0.1, 3), (10, 2), (100, 1)):
        if abs(value) < below:
            return f"{value:.{digits}f}"
    return f"{float(f'{value:.3g}'):,.0f}"


def told(one: Spread | None, unit: str = "") -> str:
    """A median with its spread, if there is one."""
    if one is None:
        return NOTHING
    if one.count == 1:
        return f"{number(one.median)}{unit}"
    return f"{number(one.median)}{unit} ({number(one.low)}–{number(one.high)})"


def goals_table(goals: Iterable[Goal]) -> str:
    """What was to be reached, and what was."""
    rows = [
        (
            f"{goal.figure}, {goal.at}" if goal.at else goal.figure,
            with_unit(goal.floor, goal.unit),
            with_unit(goal.aim, goal.unit),
            told(goal.reached, "×" if goal.unit == "×" else ""),
            VERDICTS.get(goal.verdict, goal.verdict),
        )
        for goal in goals
    ]
    return table(("figure", ">floor", ">aim", ">reached", "verdict"), rows)


def with_unit(value: float, unit: str) -> str:
    shown = f"{value:,g}" if value < 1000 else f"{value:,.0f}"
    return f"{shown}×" if unit == "×" else f"{shown} {unit}"


def systems_table(systems: dict[str, dict[str, Any]]) -> str:
    """Who is compared, and what each promises."""
    rows = [
        (
            f"**{one['title']}**",
            ", ".join(f"{name} {version}" for name, version in one["versions"].items()),
            one["protocol"],
            one["quorum"],
            one["durability"],
        )
        for one in systems.values()
    ]
    head = ("system", "versions", "asked over", "who confirms a write", "where it is then")
    return table(head, rows)


def workload_table(comparison: Comparison, workload: str) -> str:
    """Every system with every number of clients."""
    rows = []
    for clients in comparison.clients(workload):
        for name, one in comparison.systems().items():
            place = Place(name, workload, clients)
            if not comparison.records(place):
                continue
            ratio = comparison.ratio(Place(REFERENCE, workload, clients), place)
            rows.append(
                (
                    str(clients),
                    one["title"],
                    one["durability_short"],
                    told(comparison.figure(place, "rate")),
                    NOTHING if name == REFERENCE else told(ratio, "×"),
                    told_short(comparison.figure(place, "p50_ms")),
                    told_short(comparison.figure(place, "p99_ms")),
                    told_short(comparison.figure(place, "cpu_us_per_operation")),
                    remarks(comparison, place),
                )
            )
    head = (
        ">clients",
        "system",
        "durability",
        f">{WORKLOADS[workload].unit}",
        ">trikv to it",
        ">p50 ms",
        ">p99 ms",
        ">CPU µs each",
        "remarks",
    )
    return table(head, rows)


def told_short(one: Spread | None) -> str:
    return NOTHING if one is None else number(one.median)


def remarks(comparison: Comparison, place: Place) -> str:
    """What else is to be known of a figure."""
    found = []
    records = comparison.records(place)
    answered = min((record["requests"] for record in records), default=0)
    if answered < LEAST_ANSWERS_PER_CLIENT * place.clients:
        found.append("few answers")
    if failed := comparison.total(place, "failed"):
        found.append(f"{failed:,} of {comparison.total(place, 'requests'):,} failed")
    if broken := comparison.total(place, "broken"):
        found.append(f"{broken:,} without an answer")
    if any(record.get("leader_changed") for record in records):
        found.append("its leader changed")
    load = comparison.figure(place, "load_cores")
    if load is not None and load.median > BUSY_LOAD_CORES:
        found.append("the load program was at its limit")
    return "; ".join(found)


def series_table(head: Sequence[str], columns: Sequence[Sequence[tuple[float, Spread]]]) -> str:
    """Values against x, a column for each."""
    by_x = [dict(column) for column in columns]
    places = sorted({x for column in by_x for x in column})
    rows = [
        [f"{x:,g}" if x < 1e6 else f"{x:,.0f}", *(told(c.get(x)) for c in by_x)] for x in places
    ]
    return table(head, rows)


def bend_sentence(what: str, over: str, points: Sequence[tuple[float, Spread]]) -> str:
    """How a cost grows, in a sentence; nothing if it cannot be told."""
    found = bend([(x, one.median) for x, one in points])
    if found is None:
        return ""
    whole = f"{what} goes with the power {found.overall:+.2f} of {over} over the whole range"
    if len(points) == 2:
        return f"{whole}."
    return (
        f"{whole}; where it bends up most, from {found.steepest_from:,.0f} to "
        f"{found.steepest_to:,.0f}, with {found.steepest:+.2f}."
    )


def cost(points: Sequence[tuple[float, Spread]]) -> list[tuple[float, Spread]]:
    """Time for each operation, out of rates."""
    return [
        (x, Spread(1 / one.median, 1 / one.high, 1 / one.low, one.count))
        for x, one in points
        if one.low > 0
    ]


def column(growth: Growth, part: str, name: str, **where: Any) -> list[tuple[float, Spread]]:
    """One value of one part, against x."""
    return growth.series(part, lambda record: record.get(name), **where)
