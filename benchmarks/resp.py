"""The load program for Redis, which does not speak HTTP: one thread, epoll, a connection per client.

It does what wrk does: requests drawn from a pool, one in flight on each connection, exact latencies,
corrected in the same way. `SET` and `WAIT` travel in one write, and so do `MULTI`, a thousand `SET`,
`EXEC` and `WAIT`: a client that waits for replicas needs no round trip more.

Values have one size, so the length of every answer is known beforehand and need not be parsed. It is
checked: an answer of `WAIT` below the quorum counts as failed, one that is no answer ends the run.

    python -m benchmarks.resp PORT POOL CLIENTS SECONDS SEED
"""

from __future__ import annotations

import json
import random
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.dialects import RedisDialect
from benchmarks.fleet import HOST
from benchmarks.load import Load

N = TypeVar("N", int, float)

RECEIVE_BYTES = 65_536


def command(load: Load) -> list[str]:
    """What runs this module as a program."""
    numbers = (str(load.clients), str(load.seconds), str(load.seed))
    return [sys.executable, "-m", "benchmarks.resp", str(load.port), str(load.pool), *numbers]


def read_pool(content: bytes) -> list[bytes]:
    """The requests of a pool's file."""
    found = []
    at = 0
    while at < len(content):
        line_ends = content.index(b"\n", at)
        begins = line_ends + 1
        at = begins + int(content[at:line_ends])
        found.append(content[begins:at])
    return found


def corrected(latencies_us: Sequence[int], expected_us: int) -> list[int]:
    """Latencies, and those of the requests that nobody sent while one waited; as wrk has them."""
    found = list(latencies_us)
    for one in latencies_us:
        if one >= 2 * expected_us:
            found.extend(range(one - expected_us, expected_us, -expected_us))
    return sorted(found)


def percentile(ordered: Sequence[N], share: float) -> N:
    """The value below which so many hundredths lie; 0 if there is none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))] if ordered else 0


@dataclass(slots=True)
class _Client:
    connection: socket.socket
    sent_at: float = 0.0
    expected: int = 0
    received: bytes = b""


class _Run:
    """All clients in one loop until time is up."""

    def __init__(self, port: int, pool: Sequence[bytes], clients: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.pool = [(request, RedisDialect.answer_bytes(request)) for request in pool]
        self.selector = selectors.DefaultSelector()
        self.latencies_us: list[int] = []
        self.failed = 0
        self.bytes = 0
        for _ in range(clients):
            connection = socket.create_connection((HOST, port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.selector.register(connection, selectors.EVENT_READ, _Client(connection))

    def ask(self, client: _Client) -> None:
        request, client.expected = self.pool[int(self.rng.random() * len(self.pool))]
        client.received = b""
        client.sent_at = time.perf_counter()
        # Blocks only if the server takes nothing: there is never more than one request in flight.
        client.connection.sendall(request)

    def take(self, client: _Client) -> None:
        data = client.connection.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionError("Redis closed a connection")
        client.received += data
        # An error is shorter than what was expected: it would be waited for in vain.
        if len(client.received) < client.expected and client.received[:1] not in (b"-", b"_"):
            return
        self.latencies_us.append(int((time.perf_counter() - client.sent_at) * 1e6))
        self.failed += not RedisDialect.succeeded(client.received)
        self.bytes += len(client.received)
        self.ask(client)

    def run(self, seconds: float) -> float:
        began = time.perf_counter()
        for key in list(self.selector.get_map().values()):
            self.ask(key.data)
        while time.perf_counter() - began < seconds:
            for key, _ in self.selector.select(0.1):
                self.take(key.data)
        return time.perf_counter() - began


def main(arguments: Sequence[str]) -> int:
    """Send the load; print the figures in the way of `pool.lua`."""
    port, pool, clients, seconds, seed = arguments
    run = _Run(int(port), read_pool(Path(pool).read_bytes()), int(clients), int(seed))
    took_s = run.run(float(seconds))
    done = len(run.latencies_us)
    ordered = run.latencies_us
    if done >= int(clients):
        ordered = corrected(ordered, int(took_s * 1e6 / (done // int(clients))))
    figures = {
        "duration_us": int(took_s * 1e6),
        "requests": done,
        "bytes": run.bytes,
        "status": run.failed,
        **dict.fromkeys(("connect", "read", "write", "timeout"), 0),
        "p50_us": percentile(ordered, 50),
        "p99_us": percentile(ordered, 99),
        "max_us": max(run.latencies_us, default=0),
    }
    print(f"FIGURES {json.dumps(figures)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
