"""What a write takes beyond its ideal, under simulated lag, as a light client sees it.

Each write draws a lag for each follower; were all else free, it would take the k-th smallest of them.
The load generator measures the same, but one process of it drives all clients with httpx, drawing a
screen beside: some milliseconds of what it finds are its own. Here each client is a thread with a bare
socket, which waits nearly all the time; a request goes out in one piece, and the clock stops when the
last byte of its answer is there, before that is read.
"""

from __future__ import annotations

import json
import random
import re
import socket
import threading
import time

from benchmarks.errors import BenchmarkError
from benchmarks.resp import percentile
from benchmarks.workloads import KEYS, VALUE_BYTES, key_name, make_value

TIMEOUT_S = 60.0
READ_BYTES = 2**16

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def measure_overhead(
    host: str, port: int, *, clients: int, writes: int, quorum: int, seed: int
) -> dict[str, float]:
    """Medians and p99 in ms beyond the ideal: at the client, and at the leader at its quorum.

    Raises BenchmarkError if a write is not confirmed.
    """
    at_client: list[float] = []
    at_leader: list[float] = []
    failures: list[str] = []

    def client(number: int) -> None:
        rng = random.Random(f"{seed}/{number}")
        try:
            with socket.create_connection((host, port), TIMEOUT_S) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for _ in range(writes // clients):
                    body = json.dumps({"value": make_value(rng, VALUE_BYTES)})
                    request = (
                        f"PUT /kv/{key_name(rng.randrange(KEYS))}?trace=true HTTP/1.1\r\n"
                        f"Host: {host}:{port}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
                    )
                    began_s = time.perf_counter()
                    status, content = exchange(connection, request.encode("ascii"))
                    took_ms = (time.perf_counter() - began_s) * 1000
                    if status != 200:
                        raise BenchmarkError(f"PUT: {content[:200]!r}")
                    trace = json.loads(content)["trace"]
                    ideal_ms = sorted(one["lag_ms"] for one in trace["followers"])[quorum - 1]
                    at_client.append(took_ms - ideal_ms)
                    at_leader.append(trace["quorum_ms"] - ideal_ms)
        except (OSError, ValueError, BenchmarkError) as error:
            failures.append(str(error))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise BenchmarkError(f"writes under lag: {failures[0]}")
    return {
        f"{where}_overhead_p{share}_ms": round(percentile(sorted(found), share), 3)
        for where, found in (("light", at_client), ("leader", at_leader))
        for share in (50, 99)
    }


def exchange(connection: socket.socket, request: bytes) -> tuple[int, bytes]:
    """One request, and the status and content of its answer, which has a `Content-Length`.

    Raises OSError, BenchmarkError.
    """
    connection.sendall(request)
    data = bytearray()
    while True:
        came = connection.recv(READ_BYTES)
        if not came:
            raise BenchmarkError(f"the answer was cut short: {bytes(data[:200])!r}")
        data += came
        head, ended, content = bytes(data).partition(b"\r\n\r\n")
        if ended:
            length = _LENGTH.search(head)
            if length is None:
                raise BenchmarkError(f"an answer without Content-Length: {head[:200]!r}")
            if len(content) >= int(length[1]):
                return int(head.split(b" ", 2)[1]), content
