"""What clients ask: the workloads, and the requests of each, made before anything is measured. Pure.

    put                one key, one value of 100 bytes
    get-local          one key, answered from what the node holds
    get-linearizable   one key, answered only once it is known that nothing newer was confirmed
    mix                nine get-local and one put
    batch              as many puts in one request as the system takes

Keys are drawn evenly from a fixed range that is filled beforehand. A *pool* holds a few thousand whole
requests; the load program draws from it at random. So its work for a request is the same for every
system and workload: look one up, send it, read the answer.

A `Dialect` is how a system says these things, as bytes, and how its answers are judged.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

KEYS: Final = 10_000
VALUE_BYTES: Final = 100

#: Requests in a pool: enough that hardly any comes twice in a second, and at most so many bytes.
POOL_REQUESTS: Final = 20_000
POOL_BYTES: Final = 32_000_000
#: Of large requests, there are so many at least.
LEAST_POOL_REQUESTS: Final = 64

GETS_PER_PUT: Final = 9


@dataclass(frozen=True, slots=True)
class Workload:
    """One thing that clients do. `clients` are the numbers of them that are measured by default."""

    name: str
    title: str
    unit: str
    clients: tuple[int, ...]
    writes: bool


WORKLOADS: Final = {
    one.name: one
    for one in (
        Workload("put", "PUT", "writes/s", (1, 10, 50, 200), writes=True),
        Workload("get-local", "GET, local", "reads/s", (1, 10, 50, 200), writes=False),
        Workload(
            "get-linearizable", "GET, linearizable", "reads/s", (1, 10, 50, 200), writes=False
        ),
        Workload("mix", "nine GET, one PUT", "operations/s", (1, 10, 50, 200), writes=True),
        Workload("batch", "batches", "records/s", (1, 10), writes=True),
    )
}


class Dialect(ABC):
    """How one system is asked. What it has not is named in `lacks`, with the reason."""

    batch_size = 1
    lacks: dict[str, str] = {}  # noqa: RUF012 - a table that subclasses replace

    @abstractmethod
    def put(self, key: str, value: str) -> bytes:
        """A whole request that writes one key."""

    @abstractmethod
    def get(self, key: str, *, linearizable: bool) -> bytes:
        """A whole request that reads one key."""

    @abstractmethod
    def batch(self, pairs: Sequence[tuple[str, str]]) -> bytes:
        """A whole request that writes several keys, all different."""


def key_name(number: int) -> str:
    """Key number so-and-so; all names are equally long."""
    return f"key{number:07}"


def make_value(rng: random.Random, size: int) -> str:
    """A text of so many bytes, which no system can guess or has seen."""
    return rng.randbytes((size + 1) // 2).hex()[:size]


def operations_per_request(workload: str, dialect: Dialect) -> int:
    """What one answered request counts for."""
    return dialect.batch_size if workload == "batch" else 1


def make_pool(
    workload: str,
    dialect: Dialect,
    *,
    seed: int,
    keys: int = KEYS,
    value_bytes: int = VALUE_BYTES,
) -> list[bytes]:
    """The requests of a workload. The same seed makes the same pool."""
    rng = random.Random(seed)
    if workload == "batch":
        return _batches(dialect, rng, keys, value_bytes)
    count = POOL_REQUESTS
    if workload in ("put", "mix"):
        count = max(LEAST_POOL_REQUESTS, min(count, POOL_BYTES // max(value_bytes, 1)))
    return [_single(workload, dialect, rng, i, keys, value_bytes) for i in range(count)]


def _single(
    workload: str, dialect: Dialect, rng: random.Random, index: int, keys: int, value_bytes: int
) -> bytes:
    key = key_name(rng.randrange(keys))
    if workload == "put" or (workload == "mix" and index % (GETS_PER_PUT + 1) == 0):
        return dialect.put(key, make_value(rng, value_bytes))
    return dialect.get(key, linearizable=workload == "get-linearizable")


def _batches(dialect: Dialect, rng: random.Random, keys: int, value_bytes: int) -> list[bytes]:
    """Each of different keys, as all systems want it."""
    size = dialect.batch_size
    found = []
    for _ in range(LEAST_POOL_REQUESTS):
        chosen = rng.sample(range(keys), size)
        found.append(dialect.batch([(key_name(k), make_value(rng, value_bytes)) for k in chosen]))
    return found


def dump_pool(pool: Sequence[bytes]) -> bytes:
    """A pool as the load programs read it: each request behind a line with its length."""
    return b"".join(b"%d\n%b" % (len(request), request) for request in pool)
