"""One measurement: a workload, so many clients, one running cluster.

    quiet      until nothing is queued from before
    answers    a few requests of the pool, each answer looked at closely
    warm-up    one second of the load, for nothing; then quiet again
    measured   the load; CPU of all nodes before and after

Where clients will have fewer than three answers each, one answer's time is too large a part of the
whole: it is measured three times as long, and not warmed up, if that was known before.

What a record holds: `rate` counts operations that succeeded (a batch is as many as it has records), a
second; latencies are of requests; `cpu_us_per_operation` is of all nodes, for each operation that
succeeded; `load_cores` and `elsewhere_cores` are what the load program, and everything else on the
machine, used meanwhile: a load program at 1 was the bottleneck, much of elsewhere makes a figure noisy.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import load, machine
from benchmarks.load import Load, Outcome
from benchmarks.systems.base import Cluster
from benchmarks.workloads import VALUE_BYTES, dump_pool, make_pool, operations_per_request

WARM_UP_S = 1
TRIED_REQUESTS = 10
LEAST_ANSWERS_PER_CLIENT = 3
LONGER = 3


def measure(
    cluster: Cluster,
    workload: str,
    clients: int,
    *,
    seconds: int,
    seed: int,
    pool: Path,
    known_rate: float | None = None,
) -> dict[str, Any]:
    """The figures of one workload at so many clients.

    `pool` is the file that `write_pool` wrote, `known_rate` the requests a second that the cluster
    has shown on it, with fewer clients.
    """
    asked = Load(cluster.driver, cluster.leader_port(), pool, clients, seconds, seed)
    if known_rate is None or not is_slow(known_rate, asked):
        warm_up = load.send(replace(asked, seconds=WARM_UP_S, seed=seed + 1))
        known_rate = warm_up.requests / WARM_UP_S
        cluster.until_quiet()
    if is_slow(known_rate, asked):
        asked = replace(asked, seconds=LONGER * seconds)
    found = _measure_once(cluster, workload, asked)
    cluster.fleet.check()
    if cluster.leader_port() != asked.port:
        found["leader_changed"] = True
    return found


def is_slow(rate: float, asked: Load) -> bool:
    """Whether clients will have too few answers, at so many a second."""
    return rate * asked.seconds < LEAST_ANSWERS_PER_CLIENT * asked.clients


def write_pool(
    cluster: Cluster, workload: str, *, seed: int, keys: int, value_bytes: int = VALUE_BYTES
) -> Path:
    """Make the pool of a workload, try some of it, and write it where the load program finds it."""
    requests = make_pool(workload, cluster.dialect, seed=seed, keys=keys, value_bytes=value_bytes)
    cluster.until_quiet()
    for request in requests[:TRIED_REQUESTS]:
        cluster.try_request(request)
    path = cluster.fleet.directory / f"{workload}.pool"
    path.write_bytes(dump_pool(requests))
    return path


def _measure_once(cluster: Cluster, workload: str, asked: Load) -> dict[str, Any]:
    cpu_s, busy_s, began = cluster.fleet.cpu_s(), machine.busy_s(), time.monotonic()
    outcome = load.send(asked)
    took_s = time.monotonic() - began
    cpu_s, busy_s = cluster.fleet.cpu_s() - cpu_s, machine.busy_s() - busy_s
    elsewhere_s = max(0.0, busy_s - cpu_s - outcome.load_cpu_s)
    per_request = operations_per_request(workload, cluster.dialect)
    return {
        **figures(outcome, per_request, cpu_s),
        "nodes_cores": round(cpu_s / took_s, 3),
        "load_cores": round(outcome.load_cpu_s / took_s, 3),
        "elsewhere_cores": round(elsewhere_s / took_s, 3),
    }


def figures(outcome: Outcome, per_request: int, cpu_s: float) -> dict[str, Any]:
    """What a load program has found, as a record."""
    operations = outcome.succeeded * per_request
    return {
        "rate": round(operations / outcome.seconds, 2),
        "p50_ms": outcome.p50_ms if outcome.requests else None,
        "p99_ms": outcome.p99_ms if outcome.requests else None,
        "max_ms": outcome.max_ms if outcome.requests else None,
        "cpu_us_per_operation": round(cpu_s / operations * 1e6, 3) if operations else None,
        "seconds": round(outcome.seconds, 3),
        "requests": outcome.requests,
        "operations_per_request": per_request,
        "failed": outcome.failed,
        "broken": outcome.broken,
    }
