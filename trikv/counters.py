"""What is counted all the time, so that `GET /metrics` can tell it. Pure.

Rules
- Counting is a few additions: no lock (all of it happens in the event loop's thread), no allocation, and
  no name is put together. What can be read off the node at a scrape is not counted here.
- What is counted only grows, from the start of the node to its end; whoever reads works out rates.
- Each object that counts has its own tally: so what there is is bounded by what is configured. Nothing a
  client says (a key, a path, a method) becomes the name of a count.

A histogram holds, for each of its bounds, how many values lay between the bound before and this one. A
value that equals a bound belongs to it, as Prometheus has it (`le`).

What it does not know: Prometheus (see `metrics`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from trikv.errors import TrikvError
from trikv.model.operation import Operation

#: From a commit in memory to the longest wait for a quorum that anyone would have patience for.
LATENCY_MS = (0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000)

#: The same in seconds, where seconds are at hand.
LATENCY_S = tuple(bound / 1000 for bound in LATENCY_MS)

#: Changes in one transaction: up to `group_commit.MAX_GROUP`.
GROUP_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

#: Records in one request to a follower: up to `messages.MAX_BATCH_RECORDS`.
BATCH_RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)

#: Bytes of one: up to `messages.MAX_BATCH_BYTES`, and one large value beyond.
BATCH_BYTES = tuple(4**power for power in range(4, 13))

#: How much later than it asked for a task may come to its turn.
DELAY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

CONFIRMED = "confirmed"
ABANDONED = "abandoned"
INTERNAL_ERROR = "internal_error"

#: What can become of a write: so that each is there from the start, with 0.
OUTCOMES = (
    *(CONFIRMED, "quorum_not_met", "storage_failed", ABANDONED, INTERNAL_ERROR),
    *("not_enough_followers", "overloaded", "not_ready"),
    *("version_conflict", "not_found", "read_timeout"),
)


class Histogram:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """By bound; the last one counts what is beyond all of them."""
        self.total = 0.0
        """The sum of all values."""

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class WriteTally:
    """A leader's writes."""

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.operations = {"put": 0, "delete": 0}
        """Of writes that were confirmed."""
        self.commit_ms = Histogram(LATENCY_MS)
        """From the begin of a write to its commit here; the leader's own writes included."""
        self.quorum_ms = Histogram(LATENCY_MS)
        """From its begin to the moment when it was confirmed."""

    def confirmed(self, quorum_ms: float, operations: Sequence[Operation]) -> None:
        self.outcomes[CONFIRMED] += 1
        self.quorum_ms.observe(quorum_ms)
        deletes = [operation.value for operation in operations].count("")
        self.operations["delete"] += deletes
        self.operations["put"] += len(operations) - deletes

    def failed(self, error: BaseException) -> None:
        """What a write ended with instead."""
        if isinstance(error, TrikvError):
            outcome = error.code
        else:
            outcome = INTERNAL_ERROR if isinstance(error, Exception) else ABANDONED
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


class LinkTally:
    """What went over one link."""

    def __init__(self) -> None:
        self.ack_ms = Histogram(LATENCY_MS)
        """From the begin of a write to the follower's acknowledgement, its simulated lag included."""
        self.request_s = Histogram(LATENCY_S)
        """From a request to its answer, heartbeats included."""
        self.batch_records = Histogram(BATCH_RECORDS)
        self.batch_bytes = Histogram(BATCH_BYTES)
        self.downs = 0

    def answered(self, took_s: float, records: int, size: int) -> None:
        """One request was acknowledged; one without records is a heartbeat."""
        self.request_s.observe(took_s)
        if records:
            self.batch_records.observe(records)
            self.batch_bytes.observe(size)


class CommitTally:
    """A node's transactions."""

    def __init__(self) -> None:
        self.changes = Histogram(GROUP_SIZES)
        self.took_s = Histogram(LATENCY_S)
        self.failures = 0
        """Changes that could not be committed."""

    def committed(self, changes: int, took_s: float) -> None:
        """One group is done with."""
        self.changes.observe(changes)
        self.took_s.observe(took_s)


class MergeTally:
    """What a follower took."""

    def __init__(self) -> None:
        self.batches = 0
        self.records = 0
        self.heartbeats = 0

    def took(self, records: int) -> None:
        if records:
            self.batches += 1
            self.records += records
        else:
            self.heartbeats += 1


class RouteTally:
    """Requests of one route that were answered."""

    __slots__ = ("classes", "took_s")

    def __init__(self) -> None:
        self.classes = [0] * 6
        """By the first digit of the status."""
        self.took_s = Histogram(LATENCY_S)


class RequestTally:
    """What a node was asked, by route."""

    def __init__(self) -> None:
        self.routes: dict[tuple[str, str], RouteTally] = {}
        """By method and path, as they are in the table of routes."""
        self.problems: dict[str, int] = {INTERNAL_ERROR: 0}
        """Problem documents, by code."""
        self.connections: dict[str, int] = {"fast": 0, "hypercorn": 0}
        """Open ones, by lane."""

    def answered(self, method: str, path: str, status: int, took_s: float) -> None:
        route = self.routes.get((method, path))
        if route is None:
            route = self.routes[method, path] = RouteTally()
        route.classes[status // 100] += 1
        route.took_s.observe(took_s)

    def problem(self, code: str) -> None:
        self.problems[code] = self.problems.get(code, 0) + 1
