"""What a write takes beyond its ideal, under simulated lag, as a light client sees it.

Each write draws a lag for each follower; were all else free, it would take the k-th smallest of them.
The load generator measures the same, but one process of it drives all clients with httpx, drawing a
screen beside: some milliseconds of what it finds are its own. Here each client is a thread with a bare
connection, which waits nearly all the time.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time

from benchmarks.errors import BenchmarkError
from benchmarks.resp import percentile
from benchmarks.workloads import KEYS, VALUE_BYTES, key_name, make_value

TIMEOUT_S = 60.0


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
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        try:
            for _ in range(writes // clients):
                body = json.dumps({"value": make_value(rng, VALUE_BYTES)})
                path = f"/kv/{key_name(rng.randrange(KEYS))}?trace=true"
                began_s = time.perf_counter()
                connection.request("PUT", path, body)
                answer = connection.getresponse()
                content = answer.read()
                took_ms = (time.perf_counter() - began_s) * 1000
                if answer.status != 200:
                    raise BenchmarkError(f"PUT: {content[:200]!r}")
                trace = json.loads(content)["trace"]
                ideal_ms = sorted(one["lag_ms"] for one in trace["followers"])[quorum - 1]
                at_client.append(took_ms - ideal_ms)
                at_leader.append(trace["quorum_ms"] - ideal_ms)
        except (OSError, http.client.HTTPException, BenchmarkError) as error:
            failures.append(str(error))
        finally:
            connection.close()

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
