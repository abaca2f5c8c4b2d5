"""How cost grows in trikv alone, with fsync, one thing at a time: each part in a round of its own.

    clients     put and get-local, from 1 to 200 clients
    followers   put, from 1 to 20 followers; quorum 3, or all where there are fewer
    values      put and get-local, from 100 bytes to 100 KB, at 10 clients
    keys        put and get-local at 10 clients, on 10^3 to 10^6 keys of 100 bytes; memory at each; then,
                with a million: starting a follower and the leader again, and filling an empty follower
    lag         overhead over each write's ideal, lag 0 to 1000 ms, 10 clients: `python -m loadgen`, then
                a lighter client (`overhead`)

Every record says its part, its round, and at what `x` it was measured.
"""

from __future__ import annotations

import datetime
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.fleet import HOST, Fleet, Process, open_fleet, plain_environment
from benchmarks.measure import measure, write_pool
from benchmarks.options import GrowthOptions
from benchmarks.overhead import measure_overhead
from benchmarks.results import ResultsFile
from benchmarks.systems.base import starting_pairs
from benchmarks.systems.trikv import TrikvCluster
from benchmarks.workloads import KEYS, VALUE_BYTES, key_name, make_value

CLIENTS = (1, 2, 5, 10, 20, 50, 100, 200)
FOLLOWERS = (1, 2, 5, 10, 20)
VALUES = (100, 1_000, 10_000, 100_000)
KEY_COUNTS = (1_000, 10_000, 100_000, 1_000_000)
QUORUM = 3

QUICK_CLIENTS = (1, 10, 50)
QUICK_FOLLOWERS = (1, 5)
QUICK_VALUES = (100, 10_000)
QUICK_KEY_COUNTS = (1_000, 20_000)

USUAL_CLIENTS = 10
#: Values of one size altogether, on each node.
VALUES_BYTES = 20_000_000
#: What one POST /batch is filled with.
BATCH_BYTES = 4_000_000

LAG_WRITES = 300
QUICK_LAG_WRITES = 30
LAG_TIMEOUT_S = 900
CATCH_UP_TIMEOUT_S = 600
#: A watermark is on a follower's disk, and a leader at rest, soon after the last write.
REST_S = 2.0

Keep = Callable[..., None]


def grow(options: GrowthOptions) -> list[str]:
    """Measure and write the results file; returns what went wrong."""
    results = ResultsFile("growth", options.output, options.directory, **options.told())
    results.content["measurements"] = []
    parts: dict[str, Callable[[GrowthOptions, int, Keep], None]] = {
        "clients": grow_clients,
        "followers": grow_followers,
        "values": grow_values,
        "keys": grow_keys,
        "lag": overhead_under_lag,
    }
    for number in range(1, options.rounds + 1):
        for part in options.parts:
            print(f"round {number} of {options.rounds}: {part}", flush=True)

            def keep(part: str = part, number: int = number, **found: Any) -> None:
                results.content["measurements"].append({"part": part, "round": number, **found})
                print("  " + brief(found), flush=True)

            try:
                parts[part](options, number, keep)
            except (BenchmarkError, OSError) as error:
                results.content["problems"].append(f"round {number}, {part}: {error}")
                print(f"  {error}", flush=True)
            results.save()
    print(f"written: {results.path}", flush=True)
    problems: list[str] = results.content["problems"]
    return problems


def brief(found: dict[str, Any]) -> str:
    """A record in a line."""
    shown = ("x", "workload", "clients", "rate", "p50_ms", "p99_ms", "cpu_us_per_operation")
    if "rate" not in found:
        return ", ".join(f"{name} {value}" for name, value in found.items())
    return ", ".join(f"{name} {found[name]}" for name in shown if name in found)


def grow_clients(options: GrowthOptions, number: int, keep: Keep) -> None:
    """More clients on six nodes."""
    with open_fleet(options.directory) as fleet:
        cluster = TrikvCluster(fleet)
        cluster.fill(starting_pairs())
        for workload in ("put", "get-local"):
            pool = write_pool(cluster, workload, seed=number, keys=KEYS)
            for clients in QUICK_CLIENTS if options.quick else CLIENTS:
                cluster.until_quiet()
                found = measure(
                    cluster, workload, clients, seconds=options.seconds, seed=number, pool=pool
                )
                keep(x=clients, workload=workload, clients=clients, **found)


def grow_followers(options: GrowthOptions, number: int, keep: Keep) -> None:
    """More followers, a fresh cluster for each number of them."""
    for followers in QUICK_FOLLOWERS if options.quick else FOLLOWERS:
        with open_fleet(options.directory) as fleet:
            cluster = TrikvCluster(fleet, followers=followers, quorum=min(QUORUM, followers))
            cluster.fill(starting_pairs())
            measure_usual(cluster, ("put",), options, number, keep, x=followers)


def grow_values(options: GrowthOptions, number: int, keep: Keep) -> None:
    """Larger values, on one cluster; of the largest there are fewer."""
    rng = random.Random(number)
    with open_fleet(options.directory) as fleet:
        cluster = TrikvCluster(fleet)
        for size in QUICK_VALUES if options.quick else VALUES:
            keys = min(KEYS, VALUES_BYTES // size)
            fill_range(cluster, 0, keys, size, rng)
            measure_usual(
                cluster,
                ("put", "get-local"),
                options,
                number,
                keep,
                x=size,
                keys=keys,
                value_bytes=size,
            )


def measure_usual(
    cluster: TrikvCluster,
    workloads: tuple[str, ...],
    options: GrowthOptions,
    number: int,
    keep: Keep,
    *,
    x: int,
    keys: int = KEYS,
    value_bytes: int = VALUE_BYTES,
) -> None:
    """Workloads at 10 clients."""
    for workload in workloads:
        pool = write_pool(cluster, workload, seed=number, keys=keys, value_bytes=value_bytes)
        found = measure(
            cluster, workload, USUAL_CLIENTS, seconds=options.seconds, seed=number, pool=pool
        )
        keep(x=x, workload=workload, clients=USUAL_CLIENTS, **found)


def grow_keys(options: GrowthOptions, number: int, keep: Keep) -> None:
    """More keys, on one cluster; at the most of them, starts and catching up."""
    rng = random.Random(number)
    with open_fleet(options.directory) as fleet:
        cluster = TrikvCluster(fleet)
        held = 0
        for keys in QUICK_KEY_COUNTS if options.quick else KEY_COUNTS:
            began = time.monotonic()
            fill_range(cluster, held, keys, VALUE_BYTES, rng)
            rate = (keys - held) / (time.monotonic() - began)
            held = keys
            cluster.until_live(CATCH_UP_TIMEOUT_S)
            time.sleep(REST_S)
            keep(x=keys, filled_records_per_s=round(rate), **memory(cluster))
            measure_usual(cluster, ("put", "get-local"), options, number, keep, x=keys, keys=keys)
        cluster.until_quiet()
        restart_all(cluster, held, keep)


def fill_range(cluster: TrikvCluster, first: int, end: int, size: int, rng: random.Random) -> None:
    """Write keys by number, in batches of as many as go into one."""
    step = max(1, min(1_000, BATCH_BYTES // size))
    for begin in range(first, end, step):
        numbers = range(begin, min(begin + step, end))
        cluster.fill([(key_name(number), make_value(rng, size)) for number in numbers])


def memory(cluster: TrikvCluster, when: str = "") -> dict[str, float]:
    """Resident memory of a leader and of a follower; `when` sets names apart."""
    return {
        f"leader_{when}mb": round(cluster.process("leader").resident_mb(), 1),
        f"follower_{when}mb": round(cluster.process("follower1").resident_mb(), 1),
    }


def restart_all(cluster: TrikvCluster, keys: int, keep: Keep) -> None:
    """A follower started again, one filled again from nothing, the leader started again."""
    time.sleep(REST_S)
    leader = cluster.process("leader")
    seen = len(leader.log_text())
    cluster.fleet.end(cluster.process("follower1"))
    keep(x=keys, follower_start_s=start_s(cluster, "follower1"))
    linked(cluster, "follower1", seen)

    seen = len(leader.log_text())
    cluster.fleet.end(cluster.process("follower1"), kill=True)
    shutil.rmtree(cluster.fleet.directory / "follower1")
    began = time.time()
    cluster.port(cluster.restart("follower1"))
    told = caught_up(linked(cluster, "follower1", seen), began)
    keep(x=keys, **told, **memory(cluster, "caught_up_"))

    time.sleep(REST_S)
    cluster.fleet.end(leader)
    began = time.time()
    started_s = start_s(cluster, "leader")
    cluster.until_live(CATCH_UP_TIMEOUT_S)
    ready_s = round(time.time() - began, 3)
    started = {"leader_start_s": started_s, "leader_ready_s": ready_s}
    keep(x=keys, **started, **memory(cluster, "started_"))


def linked(cluster: TrikvCluster, name: str, seen: int) -> str:
    """Until the leader's log says, behind what was seen, that a follower is live; what it says of it."""
    leader, port = cluster.process("leader"), cluster.settings[name]["PORT"]

    def told() -> list[str]:
        lines = leader.log_text()[seen:].splitlines()
        return [line for line in lines if re.search(rf"\bfollower=\S+:{port}\b", line)]

    cluster.fleet.until(
        lambda: any(" link.live " in line for line in told()),
        f"{name} is live again",
        CATCH_UP_TIMEOUT_S,
    )
    return "\n".join(told())


def start_s(cluster: TrikvCluster, name: str) -> float:
    """Start a node that has ended; from its process's start until it says that it has started."""
    began = time.time()
    process = cluster.restart(name)
    cluster.port(process)
    return round(logged_at(process, "node.started") - began, 3)


def logged_at(process: Process, event: str) -> float:
    """When a node logged an event the first time since its start."""
    return event_time(process.log_text(), event)


def event_time(text: str, event: str) -> float:
    """The time of the first line with an event. Raises BenchmarkError if there is none."""
    found = re.search(rf"^(\S+)Z \w+ {re.escape(event)}\b", text, re.MULTILINE)
    if found is None:
        raise BenchmarkError(f"no {event} in the log")
    return datetime.datetime.fromisoformat(found[1]).replace(tzinfo=datetime.UTC).timestamp()


def caught_up(text: str, began: float) -> dict[str, Any]:
    """What a leader's log says of a follower that was brought in: over all, and the sending alone."""
    records = re.search(r"\bcaught_up_records=(\d+)", text)
    if records is None:
        raise BenchmarkError("the leader's log does not say how many records were caught up")
    live = event_time(text, "link.live")
    syncing = event_time(text, "link.syncing")
    return {
        "caught_up_records": int(records[1]),
        "caught_up_s": round(live - began, 3),
        "syncing_s": round(live - syncing, 3),
        "caught_up_records_per_s": round(int(records[1]) / max(live - syncing, 0.001)),
    }


def overhead_under_lag(options: GrowthOptions, number: int, keep: Keep) -> None:
    """The load generator's own measurement, with its own cluster; then one by a lighter client."""
    with open_fleet(options.directory) as fleet:
        output = fleet.directory / "reports"
        writes = QUICK_LAG_WRITES if options.quick else LAG_WRITES
        run_loadgen(
            fleet,
            *("--quorums", "3" if options.quick else "1-5"),
            *("--writes", str(writes), "--concurrency", str(USUAL_CLIENTS)),
            *("--lag", "0-1000", "--seed", str(number), "--output", str(output)),
        )
        for one in read_loadgen(output / "summary.json"):
            keep(**one)
    with open_fleet(options.directory) as fleet:
        cluster = TrikvCluster(fleet, quorum=QUORUM)
        cluster.ask("POST", 0, "/admin/lag", {"min_delay_ms": 0, "max_delay_ms": 1000})
        found = measure_overhead(
            HOST,
            cluster.leader_port(),
            clients=USUAL_CLIENTS,
            writes=writes,
            quorum=QUORUM,
            seed=number,
        )
        keep(x=QUORUM, light_writes=writes, **found)


def run_loadgen(fleet: Fleet, *arguments: str) -> None:
    """Run `python -m loadgen` to its end."""
    process = fleet.spawn(
        "loadgen", [sys.executable, "-m", "loadgen", *arguments], plain_environment()
    )
    try:
        code = process.popen.wait(LAG_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"loadgen did not end within {LAG_TIMEOUT_S} s") from None
    if code != 0:
        raise BenchmarkError(f"loadgen ended with {code}:{process.log_tail()}")


def read_loadgen(summary: Path) -> list[dict[str, Any]]:
    """What a run of the load generator has found, a record for each quorum."""
    told = json.loads(summary.read_text(encoding="utf-8"))
    return [
        {
            "x": one["quorum"],
            "writes": one["writes"],
            "overhead_p50_ms": one["overhead_p50_ms"],
            "overhead_p99_ms": one["overhead_p99_ms"],
            "latency_mean_ms": one["avg_latency_ms"],
        }
        for one in told["results"]
    ]
