"""What the benchmark needs of a system: to be started, to be asked, to be judged.

A `System` is known before anything runs: its name, what it promises, whether it is installed. `start`
makes a `Cluster` of it out of six processes of a fleet. The cluster tells where load is to be sent and
in which dialect, and writes and reads single keys at single nodes, which is how the harness fills it,
waits for it to be quiet, and compares its replicas.
"""

from __future__ import annotations

import http.client
import os
import random
import re
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import httpx

from benchmarks.dialects import HttpDialect
from benchmarks.errors import BenchmarkError, WrongAnswer
from benchmarks.fleet import HOST, POLL_S, Fleet
from benchmarks.load import Driver
from benchmarks.workloads import KEYS, VALUE_BYTES, Dialect, key_name, make_value
from trikv.errors import error_text

FOLLOWERS = 5

CONTROL_TIMEOUT_S = 60.0
#: To work off what clients have left behind.
QUIET_S = 30.0
PROBE_KEY = "probe"
#: Keys that are compared on all nodes after a system's last workload.
COMPARED_KEYS = 100


class NotConfirmed(BenchmarkError):
    """A single request of the harness had no answer, or no success; it may be tried again."""


class Cluster(ABC):
    """Six nodes that are up. Node 0 is the one that was started as the leader."""

    dialect: Dialect
    driver: Driver
    nodes: int

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    @abstractmethod
    def leader_port(self) -> int:
        """Where load is sent: the port of the node that leads now."""

    @abstractmethod
    def fill(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Write many keys, in the fastest way that the system has."""

    @abstractmethod
    def write(self, key: str, value: str) -> None:
        """Write one key. Raises NotConfirmed."""

    @abstractmethod
    def read(self, node: int, key: str) -> str | None:
        """What one node holds."""

    @abstractmethod
    def try_request(self, request: bytes) -> None:
        """Send one request of a pool and look at its answer closely. Raises WrongAnswer."""

    @abstractmethod
    def close(self) -> None:
        """Close what the harness has opened; the processes are the fleet's."""

    def until_quiet(self) -> None:
        """Until a write is confirmed and every node holds it: nothing is queued before it."""
        value = os.urandom(8).hex()
        deadline = time.monotonic() + QUIET_S

        def settled() -> bool:
            return all(self.read(node, PROBE_KEY) == value for node in range(self.nodes))

        while True:
            try:
                self.write(PROBE_KEY, value)
                break
            except NotConfirmed as error:
                if time.monotonic() > deadline:
                    raise BenchmarkError(f"no write within {QUIET_S:g} s: {error}") from None
                time.sleep(POLL_S)
        self.fleet.until(settled, "all nodes hold the last write", QUIET_S)

    def differing_keys(self, keys: int) -> list[str]:
        """Of some keys, those that not all nodes hold alike."""
        self.until_quiet()
        found = []
        for number in random.sample(range(keys), min(keys, COMPARED_KEYS)):
            values = {self.read(node, key_name(number)) for node in range(self.nodes)}
            if len(values) != 1 or None in values:
                found.append(key_name(number))
        return found


class HttpCluster(Cluster):
    """A cluster that is asked over HTTP, on one port per node."""

    driver = "wrk"
    dialect: HttpDialect

    def __init__(self, fleet: Fleet, ports: Sequence[int]) -> None:
        super().__init__(fleet)
        self.ports = list(ports)
        self.nodes = len(ports)
        # `trust_env` would send loopback's requests through a proxy, if the shell has one.
        self.client = httpx.Client(timeout=CONTROL_TIMEOUT_S, trust_env=False)

    def url(self, node: int) -> str:
        return f"http://{HOST}:{self.ports[node]}"

    def close(self) -> None:
        self.client.close()

    def ask(self, method: str, node: int, path: str, body: Any = None) -> httpx.Response:
        """One request of the harness. Raises NotConfirmed if there is no answer at all."""
        try:
            return self.client.request(method, self.url(node) + path, json=body)
        except httpx.HTTPError as error:
            raise NotConfirmed(f"{method} {path}: {error_text(error)}") from None

    def try_request(self, request: bytes) -> None:
        with socket.create_connection((HOST, self.leader_port()), CONTROL_TIMEOUT_S) as connection:
            connection.sendall(request)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            body = answer.read()
        problem = self.dialect.problem(request, answer.status, body)
        if problem is not None:
            raise WrongAnswer(f"{request[:60]!r}: {problem}")


class System(ABC):
    """One of those that are compared."""

    name: str
    title: str
    #: How a client asks it.
    protocol: str
    #: Who confirms a write.
    quorum: str
    #: Where a confirmed write is; and the same in a few words, for tables.
    durability: str
    durability_short: str
    driver: Driver = "wrk"

    @abstractmethod
    def missing(self) -> str | None:
        """What is not installed, and how to get it; None if all is there."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """The versions of what is measured."""

    @abstractmethod
    def start(self, fleet: Fleet) -> Cluster:
        """Six nodes, up and filled with the benchmark's keys."""


def starting_pairs() -> list[tuple[str, str]]:
    """What every system holds when its measurements begin."""
    rng = random.Random(0)
    return [(key_name(number), make_value(rng, VALUE_BYTES)) for number in range(KEYS)]


def first_number(command: Sequence[str]) -> str:
    """The version that a program tells of itself."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    found = re.search(r"\d+\.\d+[\w.]*", ran.stdout + ran.stderr)
    return found[0] if found else "unknown"
