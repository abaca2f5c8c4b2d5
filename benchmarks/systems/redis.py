"""Redis: a master and five replicas; a write is confirmed when `WAIT 3` says so.

`appendonly yes` and `appendfsync always` on all six, so all six write and sync what the others do. Yet
`WAIT` promises memory only: a replica counts once it has received the write. (WAITAOF, which counts
what is on disk, came with Redis 7.2.) `redis-memory` is the same without the append-only file.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Sequence

from benchmarks.dialects import REDIS_BATCH, RedisDialect
from benchmarks.errors import BenchmarkError, WrongAnswer
from benchmarks.fleet import HOST, Fleet, free_ports, plain_environment
from benchmarks.systems.base import (
    CONTROL_TIMEOUT_S,
    FOLLOWERS,
    Cluster,
    NotConfirmed,
    System,
    first_number,
    starting_pairs,
)

RECEIVE_BYTES = 65_536


class RedisCluster(Cluster):
    driver = "resp"

    def __init__(self, fleet: Fleet, *, append_only: bool) -> None:
        super().__init__(fleet)
        self.dialect = RedisDialect()
        self.nodes = 1 + FOLLOWERS
        self.ports = free_ports(self.nodes)
        self.connections: dict[int, socket.socket] = {}
        for node, port in enumerate(self.ports):
            name = f"replica{node}" if node else "master"
            directory = fleet.directory / name
            directory.mkdir()
            options = {
                "bind": HOST,
                "port": str(port),
                "dir": str(directory),
                "save": "",
                "appendonly": "yes" if append_only else "no",
                "appendfsync": "always",
                "repl-diskless-sync-delay": "0",
            }
            command = ["redis-server"]
            for option, value in options.items():
                command += [f"--{option}", value]
            if node:
                command += ["--replicaof", HOST, str(self.ports[0])]
            fleet.spawn(name, command, plain_environment())
        self.fleet.until(self._is_linked, "all replicas are linked")

    def _is_linked(self) -> bool:
        try:
            told = self.ask(0, "INFO", "replication").decode()
        except OSError:
            return False
        return told.count("state=online") == self.nodes - 1

    def ask(self, node: int, *words: str) -> bytes:
        """One command at one node; its answer without what is around it."""
        if node not in self.connections:
            address = (HOST, self.ports[node])
            self.connections[node] = socket.create_connection(address, CONTROL_TIMEOUT_S)
        self.connections[node].sendall(RedisDialect.command(*words))
        return self._answer(node)

    def _answer(self, node: int) -> bytes:
        """One answer that is not an array."""
        line = b""
        while not line.endswith(b"\r\n"):
            line += self._receive(node, 1)
        if line[:1] != b"$" or line[:2] == b"$-":
            return line.strip()
        return self._receive(node, int(line[1:]) + 2)[:-2]

    def _receive(self, node: int, count: int) -> bytes:
        found = b""
        while len(found) < count:
            part = self.connections[node].recv(min(count - len(found), RECEIVE_BYTES))
            if not part:
                del self.connections[node]
                raise ConnectionError("Redis closed the connection")
            found += part
        return found

    def leader_port(self) -> int:
        return self.ports[0]

    def fill(self, pairs: Sequence[tuple[str, str]]) -> None:
        for first in range(0, len(pairs), REDIS_BATCH):
            self.try_request(self.dialect.batch(pairs[first : first + REDIS_BATCH]))

    def write(self, key: str, value: str) -> None:
        if self.ask(0, "SET", key, value) != b"+OK":
            raise BenchmarkError("SET failed")
        if int(self.ask(0, "WAIT", "3", "5000")[1:]) < 3:
            raise NotConfirmed("WAIT counted fewer than 3")

    def read(self, node: int, key: str) -> str | None:
        found = self.ask(node, "GET", key)
        return None if found == b"$-1" else found.decode()

    def try_request(self, request: bytes) -> None:
        self.ask(0, "PING")
        self.connections[0].sendall(request)
        answer = self._receive(0, RedisDialect.answer_bytes(request))
        try:
            right = RedisDialect.succeeded(answer)
        except ValueError as error:
            raise WrongAnswer(str(error)) from None
        if not right:
            raise WrongAnswer(f"not confirmed: {answer[-20:]!r}")

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()


class Redis(System):
    protocol = "RESP, its own"
    quorum = "the master, and 3 of 5 replicas by WAIT"
    driver = "resp"

    def __init__(self, *, append_only: bool) -> None:
        self.append_only = append_only
        self.name = "redis" if append_only else "redis-memory"
        self.title = "Redis" if append_only else "Redis, in memory"
        self.durability_short = "append-only file; acks memory" if append_only else "memory"
        self.durability = (
            "appendonly yes, appendfsync always on all six; WAIT acknowledges memory at 3 replicas"
            if append_only
            else "in memory; WAIT acknowledges memory at 3 replicas"
        )

    def missing(self) -> str | None:
        if shutil.which("redis-server") is None:
            return "redis-server is not installed (Debian and Ubuntu: apt-get install redis-server)"
        return None

    def versions(self) -> dict[str, str]:
        return {"redis": first_number(["redis-server", "--version"])}

    def start(self, fleet: Fleet) -> RedisCluster:
        cluster = RedisCluster(fleet, append_only=self.append_only)
        cluster.fill(starting_pairs())
        return cluster
