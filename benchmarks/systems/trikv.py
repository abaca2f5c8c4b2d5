"""trikv: one leader and its followers, quorum 3, no simulated lag."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

from benchmarks.dialects import QUORUM, TRIKV_BATCH, TrikvDialect
from benchmarks.errors import WrongAnswer
from benchmarks.fleet import HOST, Fleet, Process, plain_environment
from benchmarks.systems.base import (
    FOLLOWERS,
    QUIET_S,
    HttpCluster,
    NotConfirmed,
    System,
    starting_pairs,
)
from trikv import __version__
from trikv.config import SETTINGS

_STARTED = re.compile(r" node\.started .*\burl=(\S+)")


class TrikvCluster(HttpCluster):
    """Nodes of trikv, which can be ended, emptied and started again on the same port."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        followers: int = FOLLOWERS,
        quorum: int = QUORUM,
        durability: str = "fsync",
        settings: dict[str, str] | None = None,
    ) -> None:
        super().__init__(fleet, [])
        self.common = {"HOST": HOST, "PORT": "0", "DURABILITY": durability, **(settings or {})}
        names = [f"follower{number + 1}" for number in range(followers)]
        started = [self.spawn(name, {"ROLE": "follower"}) for name in names]
        self.settings = {
            name: {"ROLE": "follower", "PORT": str(self.port(p))}
            for name, p in zip(names, started, strict=True)
        }
        urls = [f"http://{HOST}:{self.settings[name]['PORT']}" for name in names]
        leader = {
            "ROLE": "leader",
            "MAX_DELAY_MS": "0",
            "WRITE_QUORUM": str(quorum),
            "FOLLOWER_URLS": ",".join(urls),
        }
        port = self.port(self.spawn("leader", leader))
        self.settings["leader"] = {**leader, "PORT": str(port)}
        self.ports = [port, *(int(self.settings[name]["PORT"]) for name in names)]
        self.nodes = len(self.ports)
        self.dialect = TrikvDialect(f"{HOST}:{port}", quorum)
        self.until_live()

    def spawn(self, name: str, settings: dict[str, str]) -> Process:
        """Start a node; `port` waits for it."""
        ours = {setting.name for setting in SETTINGS}
        env = {k: v for k, v in plain_environment().items() if k.upper() not in ours}
        env |= {"NODE_ID": name, "DATA_DIR": str(self.fleet.directory / name), **self.common}
        return self.fleet.spawn(name, [sys.executable, "-m", "trikv"], env | settings)

    def port(self, process: Process) -> int:
        """Where a node that was spawned serves, once it does."""
        self.fleet.until(
            lambda: _STARTED.search(process.log_text()), f"{process.name} says that it has started"
        )
        found = _STARTED.search(process.log_text())
        assert found is not None
        return urlsplit(found[1]).port or 0

    def process(self, name: str) -> Process:
        return next(one for one in self.fleet.processes if one.name == name)

    def restart(self, name: str) -> Process:
        """Start a node that has ended, where it was; `port` waits for it."""
        return self.spawn(name, self.settings[name])

    def until_live(self, timeout_s: float = 60) -> None:
        """Until the leader has a live link to every follower."""
        self.fleet.until(self._is_live, "all links are live", timeout_s)

    def until_quiet(self) -> None:
        """The same once no write waits for room any more, whose client has left; and until all are live.

        A follower that is brought up to date gets the newest first, so one write there tells little.
        """
        self.fleet.until(self._is_idle, "no write is in flight", QUIET_S)
        super().until_quiet()
        self.until_live()

    def _is_idle(self) -> bool:
        return bool(self.ask("GET", 0, "/health").json()["inflight_writes"] == 0)

    def _is_live(self) -> bool:
        told = self.ask("GET", 0, "/health").json()
        return bool(told["ready"]) and told["live_links"] == told["followers"]

    def leader_port(self) -> int:
        return self.ports[0]

    def fill(self, pairs: Sequence[tuple[str, str]]) -> None:
        for first in range(0, len(pairs), TRIKV_BATCH):
            part = pairs[first : first + TRIKV_BATCH]
            operations = [{"op": "put", "key": key, "value": value} for key, value in part]
            answer = self.ask("POST", 0, "/batch", {"operations": operations})
            if answer.status_code != 200:
                raise WrongAnswer(f"POST /batch: {answer.text[:200]}")

    def write(self, key: str, value: str) -> None:
        answer = self.ask("PUT", 0, f"/kv/{key}", {"value": value})
        if answer.status_code != 200:
            raise NotConfirmed(f"PUT: {answer.text[:200]}")

    def read(self, node: int, key: str) -> str | None:
        answer = self.ask("GET", node, f"/kv/{key}")
        return answer.json()["value"] if answer.status_code == 200 else None


class Trikv(System):
    protocol = "HTTP and JSON"
    quorum = "the leader and 3 of 5 followers"

    def __init__(self, durability: str) -> None:
        self.setting = durability
        self.name = "trikv" if durability == "fsync" else f"trikv-{durability}"
        self.title = f"trikv, {durability}"
        self.durability_short = "fsync on 4" if durability == "fsync" else "OS on 4"
        self.durability = (
            "on disk (fsync) at the leader and at 3 followers"
            if durability == "fsync"
            else "handed to the operating system at the leader and at 3 followers"
        )

    def missing(self) -> str | None:
        return None

    def versions(self) -> dict[str, str]:
        return {"trikv": __version__}

    def start(self, fleet: Fleet) -> TrikvCluster:
        cluster = TrikvCluster(fleet, durability=self.setting)
        cluster.fill(starting_pairs())
        return cluster
