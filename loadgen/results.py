"""What a run has found, in figures. Pure: computed from the samples, used by every report.

Failed writes are counted by code and are in no latency figure: when they failed says nothing
about how long a confirmed write takes. `Latency.expected_mean_ms` is what the theory predicts for
this run, the order statistic's mean plus the mean overhead; `deviation` is how far the measured
mean is from it, in its standard errors.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from loadgen import theory
from loadgen.api import LeaderHealth
from loadgen.parity import FollowerParity, Look, Settled
from loadgen.theory import OrderStatistic, UniformLag
from loadgen.workload import Sample

# Deviations within this many standard errors are what chance brings about in 997 of 1000 runs.
TOLERATED_STANDARD_ERRORS = 3.0

# What the original lab measured: lag 0 to 1000 ms, five followers, 100 writes per quorum.
LAB_LAG = UniformLag(0, 1000)
LAB_FOLLOWERS = 5
LAB_MEANS_MS = {1: 190.66, 2: 337.99, 3: 476.58, 4: 682.95, 5: 849.97}


@dataclass(frozen=True, slots=True)
class Latency:
    """The latencies of one quorum's confirmed writes, and their overhead over their own ideals."""

    mean_ms: float
    standard_deviation_ms: float | None
    standard_error_ms: float | None
    min_ms: float
    p5_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    drawn_ideal_mean_ms: float
    overhead_mean_ms: float
    overhead_p50_ms: float
    overhead_p99_ms: float
    expected_mean_ms: float
    deviation: float | None

    @property
    def as_expected(self) -> bool | None:
        """Whether the mean lies within three standard errors of the expected one."""
        return None if self.deviation is None else abs(self.deviation) <= TOLERATED_STANDARD_ERRORS


def latency_of(samples: Sequence[Sample], statistic: OrderStatistic) -> Latency | None:
    """The figures of the confirmed writes among `samples`; None if there is none."""
    values = [sample.latency_ms for sample in samples if sample.answer is not None]
    ideals = [ideal for sample in samples if (ideal := sample.ideal_ms) is not None]
    overheads = [over for sample in samples if (over := sample.overhead_ms) is not None]
    if not values:
        return None
    mean_ms = theory.mean(values)
    error_ms = theory.standard_error(values)
    overhead_mean_ms = theory.mean(overheads)
    expected_ms = statistic.mean_ms + overhead_mean_ms
    return Latency(
        mean_ms=mean_ms,
        standard_deviation_ms=theory.standard_deviation(values),
        standard_error_ms=error_ms,
        min_ms=min(values),
        p5_ms=theory.percentile(values, 5),
        p50_ms=theory.percentile(values, 50),
        p95_ms=theory.percentile(values, 95),
        p99_ms=theory.percentile(values, 99),
        max_ms=max(values),
        drawn_ideal_mean_ms=theory.mean(ideals),
        overhead_mean_ms=overhead_mean_ms,
        overhead_p50_ms=theory.percentile(overheads, 50),
        overhead_p99_ms=theory.percentile(overheads, 99),
        expected_mean_ms=expected_ms,
        deviation=theory.deviation_in_standard_errors(mean_ms, expected_ms, error_ms),
    )


@dataclass(frozen=True, slots=True)
class QuorumResult:
    """All that was found for one quorum."""

    statistic: OrderStatistic
    samples: list[Sample]
    latency: Latency | None
    at_last_answer: Look
    under_way: int
    settled: Settled

    @property
    def quorum(self) -> int:
        """The write quorum, k."""
        return self.statistic.k

    @property
    def writes_per_s(self) -> float:
        """Confirmed writes a second, from the first request to the last answer."""
        started_s = min(sample.started_s for sample in self.samples)
        took_s = max(sample.finished_s for sample in self.samples) - started_s
        confirmed = sum(sample.answer is not None for sample in self.samples)
        return confirmed / took_s if took_s > 0 else 0.0

    @property
    def failures(self) -> dict[str, int]:
        """How many writes failed, by code."""
        return dict(Counter(s.failure for s in self.samples if s.failure is not None))

    @property
    def failed(self) -> int:
        """How many writes failed."""
        return sum(self.failures.values())


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do."""

    quorums: tuple[int, ...]
    writes: int
    concurrency: int
    keys: int
    lag: UniformLag
    seed: int
    run_id: str


@dataclass(frozen=True, slots=True)
class Run:
    """A whole run: what was planned, against which cluster, and what was found.

    `problems` may still grow after the last quorum, when a found cluster gets its settings back.
    """

    plan: Plan
    leader_url: str
    own_cluster: bool
    leader: LeaderHealth
    started_at: datetime
    duration_s: float
    results: list[QuorumResult]
    problems: list[str]

    @property
    def followers(self) -> int:
        """How many followers the cluster has."""
        return self.leader.followers

    @property
    def final_parity(self) -> list[FollowerParity]:
        """Every follower against the leader, settled, after the last quorum."""
        return self.results[-1].settled.look.followers

    @property
    def failed(self) -> int:
        """How many writes failed, over all quorums."""
        return sum(result.failed for result in self.results)

    @property
    def settled_ok(self) -> bool:
        """Whether the replicas were equal after every quorum, and nothing confirmed was lost."""
        return all(result.settled.ok for result in self.results)

    @property
    def ok(self) -> bool:
        """Whether all is well: exit code 0."""
        return self.settled_ok and not self.failed and not self.problems

    @property
    def like_the_lab(self) -> bool:
        """Whether the lab's own figures can be compared with this run's."""
        return self.plan.lag == LAB_LAG and self.followers == LAB_FOLLOWERS
