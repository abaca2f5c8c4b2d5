"""The comparison: rounds of all systems, the order of which moves on by one each round.

A system that fails (a node dies, an answer is wrong, a queue is not worked off) is ended and started
afresh for what is left of its round; the failure is kept with the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import load
from benchmarks.errors import BenchmarkError
from benchmarks.fleet import open_fleet
from benchmarks.measure import measure, write_pool
from benchmarks.options import CompareOptions
from benchmarks.results import ResultsFile
from benchmarks.systems import SYSTEMS
from benchmarks.systems.base import Cluster, System
from benchmarks.workloads import KEYS, WORKLOADS

#: A workload, and a number of clients.
Cell = tuple[str, int]

#: Reads do not depend on it.
WRITES_ONLY = ("trikv-os",)


def compare(options: CompareOptions) -> list[str]:
    """Measure and write the results file; returns what went wrong."""
    present, skipped = find_systems(options.systems)
    results = ResultsFile("compare", options.output, options.directory, **options.told())
    results.content |= {
        "skipped": skipped,
        "systems": {system.name: describe(system) for system in present},
        "lacks": {},
        "measurements": [],
    }
    for name, reason in skipped.items():
        print(f"{name}: skipped: {reason}", flush=True)
    for number in range(1, options.rounds + 1):
        for system in rotated(present, number - 1):
            print(f"round {number} of {options.rounds}: {system.title}", flush=True)
            try:
                measure_system(system, number, options, results.content)
            except (BenchmarkError, OSError) as error:
                note(results.content, f"round {number}, {system.name}: {error}")
            results.save()
    print(f"written: {results.path}", flush=True)
    problems: list[str] = results.content["problems"]
    return problems


def find_systems(names: Sequence[str]) -> tuple[list[System], dict[str, str]]:
    """Those that can be measured here, and why the others cannot."""
    present, skipped = [], {}
    for name in names:
        reason = SYSTEMS[name].missing() or load.missing(SYSTEMS[name].driver)
        if reason is None:
            present.append(SYSTEMS[name])
        else:
            skipped[name] = reason
    return present, skipped


def rotated(systems: Sequence[System], by: int) -> list[System]:
    """The same systems, begun with another one."""
    start = by % len(systems) if systems else 0
    return [*systems[start:], *systems[:start]]


def describe(system: System) -> dict[str, Any]:
    """What the report says of a system."""
    return {
        "title": system.title,
        "protocol": system.protocol,
        "quorum": system.quorum,
        "durability": system.durability,
        "durability_short": system.durability_short,
        "driver": system.driver,
        "versions": system.versions(),
    }


def measure_system(
    system: System, number: int, options: CompareOptions, content: dict[str, Any]
) -> None:
    """All of one system's measurements in one round, appended as they come."""
    cells = cells_of(system, options)
    while cells:
        with open_fleet(options.directory) as fleet:
            cluster = system.start(fleet)
            try:
                cells = measure_cells(Round(number, system, cluster, options, content), cells)
            finally:
                cluster.close()


def cells_of(system: System, options: CompareOptions) -> list[Cell]:
    """The workloads, each with each number of clients."""
    return [
        (workload, clients)
        for workload in options.workloads
        for clients in options.clients or WORKLOADS[workload].clients
        if WORKLOADS[workload].writes or system.name not in WRITES_ONLY
    ]


@dataclass(slots=True)
class Round:
    """One start of one system; `pools` are those that were made for it, `rates` what it has reached."""

    number: int
    system: System
    cluster: Cluster
    options: CompareOptions
    content: dict[str, Any]
    pools: dict[str, Path] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)

    def measure(self, workload: str, clients: int) -> dict[str, Any]:
        """Measure one cell, and keep what was found."""
        if workload in self.pools:
            self.cluster.until_quiet()
        else:
            pool = write_pool(self.cluster, workload, seed=self.number, keys=KEYS)
            self.pools[workload] = pool
        found = measure(
            self.cluster,
            workload,
            clients,
            seconds=self.options.seconds,
            seed=self.number,
            pool=self.pools[workload],
            known_rate=self.rates.get(workload),
        )
        self.rates[workload] = found["requests"] / found["seconds"]
        where = {"round": self.number, "system": self.system.name, "workload": workload}
        self.content["measurements"].append({**where, "clients": clients, **found})
        return found

    def note(self, problem: str) -> None:
        """Keep a problem with the results."""
        note(self.content, f"round {self.number}, {self.system.name}: {problem}")


def measure_cells(this: Round, cells: list[Cell]) -> list[Cell]:
    """Measure on one running cluster; returns what is left for a fresh one, if this one broke."""
    lacks = this.cluster.dialect.lacks
    this.content["lacks"][this.system.name] = lacks
    cells = [cell for cell in cells if cell[0] not in lacks]
    for index, (workload, clients) in enumerate(cells):
        try:
            found = this.measure(workload, clients)
        except BenchmarkError as error:
            before = " after {} at {} clients".format(*cells[index - 1]) if index else ""
            this.note(f"{workload} at {clients} clients not measured{before}: {error}")
            # What came before may have broken it: a fresh cluster is given the same. But not twice.
            return cells[index + (index == 0) :]
        print(
            f"  {workload:16} {clients:3} clients: {found['rate']:10.1f} "
            f"{WORKLOADS[workload].unit}, p50 {found['p50_ms']} ms, p99 {found['p99_ms']} ms"
            + failures(found),
            flush=True,
        )
    try:
        if differing := this.cluster.differing_keys(KEYS):
            this.note(f"replicas differ in {differing[:5]}")
    except BenchmarkError as error:
        this.note(f"replicas could not be compared in the end: {error}")
    return []


def failures(found: dict[str, Any]) -> str:
    """What did not succeed, in words; nothing if all did."""
    told = [f"{found[what]} {what}" for what in ("failed", "broken") if found[what]]
    return f" ({', '.join(told)})" if told else ""


def note(content: dict[str, Any], problem: str) -> None:
    """Keep a problem with the results, and say it."""
    content["problems"].append(problem)
    print(f"  {problem}", flush=True)
