"""The original lab's design (`benchmarks.lab`), on plain uvicorn: h11 and asyncio.

`lab-standard` is the same on what `uvicorn[standard]` adds, httptools and uvloop. The lab's report does
not say that it had them, so it is measured only when it is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec

from benchmarks.dialects import QUORUM, PlainDialect
from benchmarks.errors import WrongAnswer
from benchmarks.fleet import HOST, Fleet, free_ports, plain_environment
from benchmarks.systems.base import (
    FOLLOWERS,
    HttpCluster,
    NotConfirmed,
    System,
)
from benchmarks.workloads import KEYS

NEEDED = ("fastapi", "uvicorn")


class LabCluster(HttpCluster):
    """One leader and its followers; the keys are there from the start."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        keys: int = KEYS,
        followers: int = FOLLOWERS,
        standard: bool = False,
    ) -> None:
        super().__init__(fleet, free_ports(1 + followers))
        urls = [self.url(node) for node in range(1, self.nodes)]
        for node in range(self.nodes):
            role = "follower" if node else "leader"
            env = {
                **plain_environment(),
                "ROLE": role,
                "NODE_ID": f"{role}{node or ''}",
                "WRITE_QUORUM": str(QUORUM),
                "MIN_DELAY_MS": "0",
                "MAX_DELAY_MS": "0",
                "FOLLOWER_URLS": ",".join(urls),
                "BENCHMARK_KEYS": str(keys),
            }
            fleet.spawn(f"{role}{node or ''}", uvicorn(self.ports[node], standard), env)
        self.dialect = PlainDialect(f"{HOST}:{self.ports[0]}")
        self.fleet.until(self._is_up, "all nodes serve")

    def _is_up(self) -> bool:
        try:
            return all(self.ask("GET", n, "/health").status_code == 200 for n in range(self.nodes))
        except NotConfirmed:
            return False

    def leader_port(self) -> int:
        return self.ports[0]

    def fill(self, pairs: Sequence[tuple[str, str]]) -> None:
        for key, value in pairs:
            self.write(key, value)

    def write(self, key: str, value: str) -> None:
        answer = self.ask("PUT", 0, f"/kv/{key}", {"value": value})
        if answer.status_code != 200:
            raise NotConfirmed(f"PUT: {answer.text[:200]}")
        if answer.json()["follower_acks"] < QUORUM:
            raise WrongAnswer(f"PUT: {answer.text[:200]}")

    def read(self, node: int, key: str) -> str | None:
        answer = self.ask("GET", node, f"/kv/{key}")
        return answer.json()["value"] if answer.status_code == 200 else None


def uvicorn(port: int, standard: bool) -> list[str]:
    """uvicorn as `pip install uvicorn` installs it, or `uvicorn[standard]`; whatever else is there."""
    http, loop = ("httptools", "uvloop") if standard else ("h11", "asyncio")
    return [
        *(sys.executable, "-m", "uvicorn", "--factory", "benchmarks.lab:create_app"),
        *("--host", HOST, "--port", str(port)),
        *("--http", http, "--loop", loop, "--log-level", "warning", "--no-access-log"),
    ]


class Lab(System):
    protocol = "HTTP and JSON"
    quorum = "the leader and 3 of 5 followers"
    durability = "in memory"
    durability_short = "memory"

    def __init__(self, *, standard: bool = False) -> None:
        self.standard = standard
        self.name = "lab-standard" if standard else "lab"
        self.title = "the lab's design" + (", uvicorn[standard]" if standard else "")

    def missing(self) -> str | None:
        needed = NEEDED + (("httptools", "uvloop") if self.standard else ())
        absent = [name for name in needed if find_spec(name) is None]
        if not absent:
            return None
        how = "fastapi 'uvicorn[standard]'" if self.standard else "'.[bench]'"
        return f"not installed: {', '.join(absent)} (pip install {how})"

    def versions(self) -> dict[str, str]:
        return {name: metadata.version(name) for name in ("fastapi", "uvicorn", "httpx")}

    def start(self, fleet: Fleet) -> LabCluster:
        return LabCluster(fleet, standard=self.standard)
