"""Load, from a program of its own: what it was asked to send, and what it found.

wrk is C and LuaJIT: one thread of it sends tens of thousands of requests a second. How much CPU it
used is kept with every figure, so that it shows if it ever was the bottleneck.

wrk's latencies are corrected for *coordinated omission*: a client that waits for a slow answer sends
nothing meanwhile, so the requests that it would have sent, one at each mean interval, are counted with
the time that they would have waited. `resp` does the same, so that figures compare.
"""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.errors import BenchmarkError
from benchmarks.fleet import HOST, plain_environment

Driver = Literal["wrk", "resp"]

SCRIPT = Path(__file__).with_name("pool.lua")
#: Longer than any system here takes for an answer that it still gives.
ANSWER_TIMEOUT_S = 30
#: What a load program takes to start and to end, at most.
OVERTIME_S = 30


@dataclass(frozen=True, slots=True)
class Load:
    """What to send: a pool of requests, from so many clients at a time, for so long."""

    driver: Driver
    port: int
    pool: Path
    clients: int
    seconds: int
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back. `failed` were answered, but with no success; `broken` not at all."""

    seconds: float
    requests: int
    failed: int
    broken: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    load_cpu_s: float

    @property
    def succeeded(self) -> int:
        return self.requests - self.failed


def missing(driver: Driver) -> str | None:
    """How to get what a driver needs; None if it is there."""
    if driver == "wrk" and shutil.which("wrk") is None:
        return "wrk is not installed (Debian and Ubuntu: apt-get install wrk)"
    return None


def run(load: Load, command: list[str]) -> Outcome:
    """Send the load by running a command that ends with a line of FIGURES."""
    before = _children_cpu_s()
    try:
        ran = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=load.seconds + OVERTIME_S,
            env=plain_environment(),
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{command[0]} did not end after {load.seconds} s of load") from None
    if ran.returncode != 0:
        said = (ran.stderr or ran.stdout).strip().splitlines()[-1:]
        raise BenchmarkError(f"{command[0]} failed ({ran.returncode}): {' '.join(said)}")
    return outcome_of(ran.stdout, _children_cpu_s() - before)


def send(load: Load) -> Outcome:
    """Send the load; returns when its time is over."""
    if load.driver == "wrk":
        return run(load, wrk_command(load))
    from benchmarks import resp

    return run(load, resp.command(load))


def wrk_command(load: Load) -> list[str]:
    """One thread, as many connections as there are clients."""
    return [
        "wrk",
        *("--threads", "1"),
        *("--connections", str(load.clients)),
        *("--duration", f"{load.seconds}s"),
        *("--timeout", f"{ANSWER_TIMEOUT_S}s"),
        *("--script", str(SCRIPT)),
        f"http://{HOST}:{load.port}/",
        "--",
        str(load.pool),
        str(load.seed),
    ]


def outcome_of(text: str, load_cpu_s: float) -> Outcome:
    """The figures in what a load program has printed. Raises BenchmarkError if there are none."""
    found = re.search(r"^FIGURES (\{.*\})$", text, re.MULTILINE)
    if found is None:
        raise BenchmarkError("the load program printed no figures")
    told: dict[str, Any] = json.loads(found[1])
    return Outcome(
        seconds=told["duration_us"] / 1e6,
        requests=told["requests"],
        failed=told["status"],
        broken=told["connect"] + told["read"] + told["write"] + told["timeout"],
        p50_ms=told["p50_us"] / 1e3,
        p99_ms=told["p99_us"] / 1e3,
        max_ms=told["max_us"] / 1e3,
        load_cpu_s=load_cpu_s,
    )


def _children_cpu_s() -> float:
    """CPU of children that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
