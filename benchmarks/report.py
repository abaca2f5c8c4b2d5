"""docs/performance.md and its plots, made from the files of results; nothing in it is written by hand
but what each change brought (`changes.md`) and what there is to say of the growth (`remarks.md`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import growth_section, results
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Comparison, Growth, Run
from benchmarks.goals import goals
from benchmarks.options import ReportOptions
from benchmarks.plots import comparison_figure, growth_figures, write_figure
from benchmarks.tables import goals_table, systems_table, table, workload_table
from benchmarks.workloads import KEYS, VALUE_BYTES, WORKLOADS

PAGE = "performance.md"
CHANGES = Path(__file__).with_name("changes.md")
REMARKS = Path(__file__).with_name("remarks.md")

#: File, figure, title, and label of the vertical axis.
COMPARED = (
    ("rate", "rate", "Rate against clients", "{unit}"),
    ("p99", "p99_ms", "Latency of the slowest hundredth", "p99 of a request (ms)"),
    ("cpu", "cpu_us_per_operation", "CPU of all six nodes", "µs of CPU for one {one}"),
)

INTRODUCTION = """\
# Performance

Made by `python -m benchmarks report` from the files in [benchmarks/results](../benchmarks/results). Do
not edit it: measure again. Every figure is a median over rounds; in parentheses are the least and the
greatest.
"""

GOALS = """\
## What was to be reached

Ratios are trikv's rate to the other's, both of the same round; trikv with fsync on all six nodes, quorum
3 of 5. The *floor* is what trikv must reach, the *aim* what it should. Verdicts compare the median.
"""

COMPARISON = f"""\
## Beside its peers

Six nodes of one system at a time, on one machine, over loopback; the systems in turn, in another order
each round. The same load for all: keys drawn from {KEYS:,}, values of {VALUE_BYTES} bytes, clients with
one request at a time each. Batches are of 1000 records (etcd: transactions of 128, its default limit;
Redis: `MULTI` with 1000 `SET`, then `WAIT`). No simulated lag.
"""

REPEATING = """\
## How to repeat it

```sh
.venv/bin/pip install '.[bench]'          # and Debian's packages wrk, etcd-server, redis-server
.venv/bin/python -m benchmarks            # about 40 minutes
.venv/bin/python -m benchmarks growth     # about 30 minutes
.venv/bin/python -m benchmarks report
```

[benchmarks/README.md](../benchmarks/README.md) tells what is done, and the options.
"""

LIMITS = """\
## What the figures do not say

- Six nodes and the load share one machine. On machines of their own followers would not take the
  leader's CPU, and a network would add its latency. What is compared is the work of each design.
- One loopback, one disk: six nodes sync to the same device.
- Clients here wait for their answers (a closed loop), so a slow system is asked less. Latencies are
  corrected for that in wrk's way: a client that waited is counted as if it had asked at its mean pace.
- Redis is asked in its own protocol, which is cheaper than HTTP and JSON; a client that must speak HTTP
  would not see its figures. Its `WAIT` acknowledges what is in memory. Its figures are a mark of what is
  possible, not of the same promise.
- The lab's design keeps everything in memory and promises nothing after a crash. It runs on plain
  uvicorn (h11, asyncio).
- The machine may be busy with other things: the results have what else used its CPU
  (`elsewhere_cores`).
"""


def write_report(options: ReportOptions) -> list[str]:
    """Write the page and its plots; returns what went wrong (nothing)."""
    comparison = Comparison(results.read_all(options.results, "compare"))
    growth = Growth(results.read_all(options.results, "growth"))
    if not comparison.runs and not growth.runs:
        raise BenchmarkError(f"no results in {options.results}: run `python -m benchmarks` first")
    images = options.docs / "images"
    if comparison.runs:
        for name, figure, title, label in COMPARED:
            drawn = comparison_figure(comparison, figure, title, label)
            write_figure(images / f"performance_{name}.png", drawn)
    for file, figure_ in growth_figures(growth).items():
        write_figure(images / file, figure_)
    options.docs.mkdir(parents=True, exist_ok=True)
    results.write_text(options.docs / PAGE, page(comparison, growth))
    print(f"written: {options.docs / PAGE}")
    return []


def page(comparison: Comparison, growth: Growth) -> str:
    """The whole text."""
    parts = [INTRODUCTION, GOALS, goals_table(goals(comparison, growth))]
    if comparison.runs:
        parts += comparison_section(comparison)
    if growth.runs:
        parts += ["## How cost grows", *by_hand(REMARKS), *growth_section.sections(growth)]
    parts += ["## What each change brought", *by_hand(CHANGES)]
    parts += [LIMITS, machine_section([*comparison.runs, *growth.runs]), REPEATING]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def comparison_section(comparison: Comparison) -> list[str]:
    """All systems, a table for each workload."""
    parts = [COMPARISON, systems_table(comparison.systems())]
    parts.append("![Rate against clients](images/performance_rate.png)")
    for workload in WORKLOADS.values():
        if comparison.clients(workload.name):
            parts += [f"### {workload.title}", workload_table(comparison, workload.name)]
            parts += lacking(comparison, workload.name)
    parts += [
        "### Latency and CPU",
        "![Latency against clients](images/performance_p99.png)",
        "![CPU against clients](images/performance_cpu.png)",
    ]
    wrong = problems(comparison.runs)
    if wrong:
        parts += ["### What went wrong meanwhile", "\n".join(f"- {one}" for one in wrong)]
    return parts


def lacking(comparison: Comparison, workload: str) -> list[str]:
    """Who does not take part in a workload, and why."""
    found = {
        reasons[workload]
        for run in comparison.runs
        for reasons in run["lacks"].values()
        if workload in reasons
    }
    if workload in ("get-local", "get-linearizable") and "trikv-os" in comparison.systems():
        found.add("trikv with `os`: reads do not depend on it")
    return ["Left out: " + "; ".join(sorted(found)) + "."] if found else []


def problems(runs: Iterable[Run]) -> list[str]:
    """What the runs could not do, and who was not there."""
    found = []
    for run in runs:
        day = run["started_at"][:10]
        found += [f"{day}: {name} was skipped: {why}" for name, why in run["skipped"].items()]
        found += [f"{day}: {' '.join(problem.split())}" for problem in run["problems"]]
    return found


def by_hand(path: Path) -> list[str]:
    """A text that is kept by hand; nothing if there is none."""
    return [path.read_text(encoding="utf-8")] if path.exists() else []


def machine_section(runs: list[Run]) -> str:
    """What was measured when, on what."""
    rows = []
    for run in runs:
        git, sync_ms = run["git"], run["machine"]["fsync_ms"]
        commit = git.get("commit", "unknown")[:10] + (
            " and changes" if git.get("trikv_changed_since") else ""
        )
        begun = run["started_at"][:16].replace("T", " ")
        rounds = str(run["options"]["rounds"])
        rows.append((run["kind"], begun, commit, rounds, f"{sync_ms:.2f}"))
    told: list[str] = []
    for run in runs:
        text = machine_sentence(run["machine"], run["versions"])
        if text not in told:
            told.append(text)
    head = ("run", "begun (UTC)", "commit", ">rounds", ">an append of 4 KB with fsync, ms")
    return "\n\n".join(["## The machine, and the runs", *told, table(head, rows)])


def machine_sentence(machine: dict[str, Any], versions: dict[str, str]) -> str:
    """A machine in words."""
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{machine['usable_cores']} cores ({machine['cpu']}), {machine['memory_gb']:.0f} GB, "
        f"{machine['system']}, Linux {machine['kernel']}, Python {machine['python']}, SQLite "
        f"{machine['sqlite']}; data on {machine['file_system']}. {software}."
    )
