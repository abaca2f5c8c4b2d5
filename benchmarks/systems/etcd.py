"""etcd: six members on fresh data directories, asked at the one that leads, through its JSON gateway.

A write is confirmed by a majority, 4 of 6: the leader and three others, just as trikv's quorum of 3.
Every member syncs its log before it acknowledges. All options are etcd's defaults.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Sequence
from typing import Any

from benchmarks.dialects import ETCD_BATCH, EtcdDialect, b64
from benchmarks.errors import BenchmarkError, WrongAnswer
from benchmarks.fleet import HOST, Fleet, free_ports, plain_environment
from benchmarks.systems.base import (
    FOLLOWERS,
    HttpCluster,
    NotConfirmed,
    System,
    first_number,
    starting_pairs,
)


class EtcdCluster(HttpCluster):
    def __init__(self, fleet: Fleet) -> None:
        nodes = 1 + FOLLOWERS
        ports = free_ports(2 * nodes)
        super().__init__(fleet, ports[:nodes])
        peers = [f"http://{HOST}:{port}" for port in ports[nodes:]]
        members = ",".join(f"member{node}={peers[node]}" for node in range(nodes))
        for node in range(nodes):
            name = f"member{node}"
            options = {
                "name": name,
                "data-dir": str(fleet.directory / name),
                "listen-client-urls": self.url(node),
                "advertise-client-urls": self.url(node),
                "listen-peer-urls": peers[node],
                "initial-advertise-peer-urls": peers[node],
                "initial-cluster": members,
                "initial-cluster-state": "new",
                "initial-cluster-token": fleet.directory.name,
                "logger": "zap",
                "log-level": "error",
            }
            command = ["etcd", *(f"--{option}={value}" for option, value in options.items())]
            fleet.spawn(name, command, plain_environment())
        self.dialect = EtcdDialect(f"{HOST}:{self.leader_port()}")

    def _leader(self) -> int | None:
        """The node that all members take for the leader."""
        found = set()
        leader = None
        for node in range(self.nodes):
            try:
                told = self.call(node, "maintenance/status", {})
            except NotConfirmed:
                return None
            found.add(told.get("leader"))
            if told.get("leader") == told["header"]["member_id"]:
                leader = node
        return leader if len(found) == 1 else None

    def call(self, node: int, what: str, body: dict[str, Any]) -> Any:
        answer = self.ask("POST", node, f"/v3/{what}", body)
        if answer.status_code != 200:
            raise NotConfirmed(f"{what}: {answer.text[:200]}")
        return answer.json()

    def leader_port(self) -> int:
        self.fleet.until(lambda: self._leader() is not None, "etcd has a leader")
        leader = self._leader()
        if leader is None:
            raise BenchmarkError("etcd lost its leader again")
        return self.ports[leader]

    def fill(self, pairs: Sequence[tuple[str, str]]) -> None:
        for first in range(0, len(pairs), ETCD_BATCH):
            part = pairs[first : first + ETCD_BATCH]
            puts = [{"request_put": {"key": b64(key), "value": b64(value)}} for key, value in part]
            if not self.call(0, "kv/txn", {"success": puts}).get("succeeded"):
                raise WrongAnswer("kv/txn: not succeeded")

    def write(self, key: str, value: str) -> None:
        self.call(0, "kv/put", {"key": b64(key), "value": b64(value)})

    def read(self, node: int, key: str) -> str | None:
        told = self.call(node, "kv/range", {"key": b64(key), "serializable": True})
        found = told.get("kvs")
        return base64.b64decode(found[0]["value"]).decode() if found else None


class Etcd(System):
    name = "etcd"
    title = "etcd"
    protocol = "HTTP and JSON (its gateway)"
    quorum = "the leader and 3 of 5 others (a majority of 6)"
    durability = "on disk (fsync) at 4 of 6 members"
    durability_short = "fsync on 4"

    def missing(self) -> str | None:
        if shutil.which("etcd") is None:
            return "etcd is not installed (Debian and Ubuntu: apt-get install etcd-server)"
        return None

    def versions(self) -> dict[str, str]:
        return {"etcd": first_number(["etcd", "--version"])}

    def start(self, fleet: Fleet) -> EtcdCluster:
        cluster = EtcdCluster(fleet)
        cluster.fill(starting_pairs())
        return cluster
