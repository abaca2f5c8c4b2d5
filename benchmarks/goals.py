"""What trikv is to reach, and what it has reached. Pure.

Each goal has a floor, below which something is wrong, and an aim. Verdicts compare medians, as they
are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.figures import Comparison, Growth, Place, Spread

MILLION = 1_000_000

#: Figure, workload, peer and workload there, numbers of clients, floors and aims, all times trikv's.
RATIOS = (
    ("PUT, against the lab's design", "put", "lab", (1, 10, 50), (3, 15, 100), (5, 25, 200)),
    ("PUT, against etcd", "put", "etcd", (1, 10, 50), (0.7, 1.1, 1.3), (1.2, 1.5, 2)),
    (
        "GET `local`, against etcd's serializable",
        "get-local",
        "etcd",
        (10, 50),
        (0.9, 0.9),
        (2, 2),
    ),
    (
        "GET `linearizable`, against etcd's",
        "get-linearizable",
        "etcd",
        (1, 10, 50),
        (0.6, 0.6, 0.6),
        (1.2, 1.2, 1.2),
    ),
    (
        "batches of 1000, records/s, against etcd's transactions of 128",
        "batch",
        "etcd",
        (1, 10),
        (3, 3),
        (6, 6),
    ),
)

#: Figure, part, x, name of the value, unit, floor, aim, and whether more is better.
ABSOLUTES = (
    ("overhead over each write's ideal, lag 0–1000 ms, 10 clients, quorum 3, p50", "lag", 3,
     "light_overhead_p50_ms", "ms", 4, 2, False),
    ("the same, p99", "lag", 3, "light_overhead_p99_ms", "ms", 15, 5, False),
    ("an empty follower filled with 10⁶ keys, fsync", "keys", MILLION, "caught_up_records_per_s",
     "records/s", 50_000, 100_000, True),
    ("start of a follower with 10⁶ keys", "keys", MILLION, "follower_start_s", "s", 2, 0.5, False),
    ("start of a leader with 10⁶ keys", "keys", MILLION, "leader_start_s", "s", 2, 0.5, False),
    ("leader's memory with 10⁶ keys of 100 B", "keys", MILLION, "leader_mb", "MB", 300, 150, False),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table."""

    figure: str
    at: str
    floor: float
    aim: float
    unit: str
    more_is_better: bool
    reached: Spread | None

    @property
    def verdict(self) -> str:
        """Where the median is: at the aim, at the floor, short of it, or nowhere yet."""
        if self.reached is None:
            return "not measured"
        sign = 1 if self.more_is_better else -1
        if sign * self.reached.median >= sign * self.aim:
            return "aim"
        return "floor" if sign * self.reached.median >= sign * self.floor else "short"


def goals(comparison: Comparison, growth: Growth) -> Iterator[Goal]:
    """All goals, in order."""
    for figure, workload, peer, clients, floors, aims in RATIOS:
        for count, floor, aim in zip(clients, floors, aims, strict=True):
            reached = comparison.ratio(
                Place("trikv", workload, count), Place(peer, workload, count)
            )
            at = "1 client" if count == 1 else f"{count} clients"
            yield Goal(figure, at, floor, aim, "×", True, reached)
    reached = comparison.ratio(Place("trikv", "put", 200), Place("trikv", "put", 50))
    yield Goal("PUT at 200 clients, against trikv at 50", "", 0.8, 1, "×", True, reached)
    for figure, part, x, name, unit, floor, aim, more in ABSOLUTES:
        yield Goal(figure, "", floor, aim, unit, more, growth.at(part, x, name))
