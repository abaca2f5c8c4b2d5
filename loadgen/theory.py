"""What the latencies ought to be: order statistics of a uniform lag, and the usual statistics.

The leader draws one lag for each of its n followers, independently and uniform on
[min, max], and answers at the k-th acknowledgement. So the ideal latency of a write is the k-th
smallest of its n lags, the *k-th order statistic*. For U = (lag - min) / (max - min), uniform on
[0, 1], it is Beta(k, n + 1 - k) distributed:

    mean      k / (n + 1)
    variance  k (n + 1 - k) / ((n + 1)^2 (n + 2))
    P(U <= u) the chance that at least k of n draws are below u, a binomial tail

Everything here is pure: numbers in, numbers out, no clock, no I/O. Percentiles interpolate
linearly between the two nearest values, as NumPy does by default.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Halving [0, 1] this often leaves less than a double can tell apart.
BISECTION_STEPS = 60

# What a standard normal deviation exceeds in one of 100 cases.
NORMAL_99 = 2.3263


@dataclass(frozen=True, slots=True)
class UniformLag:
    """The simulated lag of each delivery: uniform on [min_ms, max_ms]."""

    min_ms: float
    max_ms: float

    def __post_init__(self) -> None:
        if not 0 <= self.min_ms <= self.max_ms:
            raise ValueError(f"expected 0 <= min <= max, not {self.min_ms} and {self.max_ms}")

    @property
    def range_ms(self) -> float:
        """max - min."""
        return self.max_ms - self.min_ms

    def __str__(self) -> str:
        low, high = f"{self.min_ms:.10g}", f"{self.max_ms:.10g}"
        return f"{low} ms" if low == high else f"{low}–{high} ms"


@dataclass(frozen=True, slots=True)
class OrderStatistic:
    """The k-th smallest of n lags. The lag's range may be 0; then density() has no meaning."""

    k: int
    n: int
    lag: UniformLag

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.n:
            raise ValueError(f"expected 1 <= k <= n, not k = {self.k} and n = {self.n}")

    @property
    def mean_ms(self) -> float:
        """min + (max - min) k / (n + 1)."""
        return self.lag.min_ms + self.lag.range_ms * self.k / (self.n + 1)

    @property
    def standard_deviation_ms(self) -> float:
        """The square root of the Beta's variance, scaled."""
        variance = self.k * (self.n + 1 - self.k) / ((self.n + 1) ** 2 * (self.n + 2))
        return self.lag.range_ms * math.sqrt(variance)

    def density(self, latency_ms: float) -> float:
        """The probability density at `latency_ms`, in 1/ms; 0 outside the lag's range."""
        u = (latency_ms - self.lag.min_ms) / self.lag.range_ms
        if not 0 <= u <= 1:
            return 0.0
        ways = self.k * math.comb(self.n, self.k)
        return ways * u ** (self.k - 1) * (1 - u) ** (self.n - self.k) / self.lag.range_ms

    def quantile_ms(self, share: float) -> float:
        """The latency that a share of writes (0 to 1) stays below."""
        if not 0 <= share <= 1:
            raise ValueError(f"expected a share from 0 to 1, not {share}")
        low, high = 0.0, 1.0
        for _ in range(BISECTION_STEPS):
            middle = (low + high) / 2
            if _chance_of_at_least(self.k, self.n, middle) < share:
                low = middle
            else:
                high = middle
        return self.lag.min_ms + self.lag.range_ms * high


def _chance_of_at_least(k: int, n: int, u: float) -> float:
    return sum(math.comb(n, j) * u**j * (1 - u) ** (n - j) for j in range(k, n + 1))


def kth_smallest(values: Sequence[float], k: int) -> float:
    """The k-th smallest value, counted from 1: a write's ideal latency, given its lags."""
    if not 1 <= k <= len(values):
        raise ValueError(f"expected k from 1 to {len(values)}, not {k}")
    return sorted(values)[k - 1]


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of at least one value."""
    if not values:
        raise ValueError("expected at least one value")
    return math.fsum(values) / len(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of all values are at or below, interpolated linearly."""
    if not values:
        raise ValueError("expected at least one value")
    if not 0 <= percent <= 100:
        raise ValueError(f"expected a percentage from 0 to 100, not {percent}")
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    share = position - below
    # One product per end, not "low + share * (high - low)": that may leave [low, high] by rounding.
    between = ordered[below] * (1 - share) + ordered[above] * share
    return min(max(between, ordered[below]), ordered[above])


def chi_square_bound(degrees: int) -> float:
    """What the sum of so many squared standard normal deviations exceeds in one of 100 cases.

    By the approximation of Wilson and Hilferty, which is good to 1 %.
    """
    spread = 2 / (9 * degrees)
    return float(degrees * (1 - spread + NORMAL_99 * math.sqrt(spread)) ** 3)


def standard_deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None for fewer than two values."""
    if len(values) < 2:
        return None
    center = mean(values)
    return math.sqrt(math.fsum((value - center) ** 2 for value in values) / (len(values) - 1))


def standard_error(values: Sequence[float]) -> float | None:
    """The standard error of the mean; None for fewer than two values."""
    deviation = standard_deviation(values)
    return None if deviation is None else deviation / math.sqrt(len(values))


def deviation_in_standard_errors(
    found_ms: float, expected_ms: float, error_ms: float | None
) -> float | None:
    """How many standard errors lie between the two; None where there is no error to measure by."""
    difference_ms = found_ms - expected_ms
    # Equal but for rounding: a lag without range has a standard error of nothing but noise.
    if math.isclose(found_ms, expected_ms, rel_tol=1e-9, abs_tol=1e-9):
        return 0.0
    if error_ms is None or error_ms == 0:
        return None
    return difference_ms / error_ms
