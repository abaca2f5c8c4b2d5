"""The theory against itself: formulas against simulation, against each other, and by property."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen import theory
from loadgen.theory import OrderStatistic, UniformLag

LAB = UniformLag(0, 1000)

values_ms = st.lists(st.floats(0, 1e6), min_size=1, max_size=50)
lags = st.tuples(st.floats(0, 1000), st.floats(0, 1000)).map(
    lambda pair: UniformLag(min(pair), max(pair))
)


@st.composite
def order_statistics(draw: st.DrawFn) -> OrderStatistic:
    n = draw(st.integers(1, 12))
    return OrderStatistic(draw(st.integers(1, n)), n, draw(lags))


@pytest.mark.parametrize(
    ("degrees", "bound"), [(1, 6.635), (5, 15.086), (10, 23.209), (100, 135.807)]
)
def test_the_bound_of_chi_square_is_that_of_the_tables(degrees: int, bound: float) -> None:
    assert theory.chi_square_bound(degrees) == pytest.approx(bound, rel=0.01)


def test_the_ideal_of_a_write_is_the_kth_smallest_lag() -> None:
    assert theory.kth_smallest([50.0, 10.0, 40.0, 20.0, 30.0], 3) == 30.0


@given(values_ms, st.data())
def test_k_values_are_at_most_the_kth_smallest(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    found = theory.kth_smallest(values, k)
    assert sum(value <= found for value in values) >= k
    assert sum(value < found for value in values) < k


@pytest.mark.parametrize("k", [0, 4, -1])
def test_there_is_no_kth_smallest_beyond_the_values(k: int) -> None:
    with pytest.raises(ValueError, match="expected k from 1 to 3"):
        theory.kth_smallest([1, 2, 3], k)


@pytest.mark.parametrize(("k", "mean_ms"), [(1, 166.67), (2, 333.33), (3, 500), (5, 833.33)])
def test_the_labs_ideal_means_are_sixths_of_a_second(k: int, mean_ms: float) -> None:
    assert OrderStatistic(k, 5, LAB).mean_ms == pytest.approx(mean_ms, abs=0.01)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_formulas_agree_with_a_simulation(k: int) -> None:
    chance = random.Random(k)
    lag = UniformLag(100, 300)
    drawn = [sorted(chance.uniform(100, 300) for _ in range(5))[k - 1] for _ in range(20_000)]
    statistic = OrderStatistic(k, 5, lag)
    mean_ms = statistics.fmean(drawn)
    spread_ms = math.sqrt(statistics.fmean((value - mean_ms) ** 2 for value in drawn))
    assert mean_ms == pytest.approx(statistic.mean_ms, abs=1)
    assert spread_ms == pytest.approx(statistic.standard_deviation_ms, rel=0.03)
    for share in (0.05, 0.5, 0.95):
        bound_ms = statistic.quantile_ms(share)
        below = sum(value <= bound_ms for value in drawn)
        assert below / len(drawn) == pytest.approx(share, abs=0.01)


@given(order_statistics())
def test_the_mean_lies_within_the_lag_and_grows_with_k(statistic: OrderStatistic) -> None:
    lag = statistic.lag
    assert lag.min_ms <= statistic.mean_ms <= lag.max_ms
    if statistic.k < statistic.n:
        assert OrderStatistic(statistic.k + 1, statistic.n, lag).mean_ms >= statistic.mean_ms


@given(order_statistics().filter(lambda statistic: statistic.lag.range_ms > 1))
def test_the_density_is_one_in_all_and_has_the_mean(statistic: OrderStatistic) -> None:
    lag, steps = statistic.lag, 2000
    width = lag.range_ms / steps
    middles = [lag.min_ms + (i + 0.5) * width for i in range(steps)]
    densities = [statistic.density(middle) for middle in middles]
    assert math.fsum(densities) * width == pytest.approx(1, abs=1e-3)
    mean_ms = math.fsum(m * d for m, d in zip(middles, densities, strict=True)) * width
    assert mean_ms == pytest.approx(statistic.mean_ms, rel=1e-3, abs=1e-3)


def test_nothing_lies_outside_the_lag() -> None:
    statistic = OrderStatistic(1, 5, UniformLag(100, 200))
    assert statistic.density(99.9) == 0
    assert statistic.density(200.1) == 0


@given(order_statistics(), st.floats(0, 1), st.floats(0, 1))
def test_quantiles_grow_with_the_share(statistic: OrderStatistic, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert statistic.quantile_ms(low) <= statistic.quantile_ms(high)
    assert statistic.lag.min_ms <= statistic.quantile_ms(low)
    assert statistic.quantile_ms(high) <= statistic.lag.max_ms * (1 + 1e-12)


def test_a_fixed_lag_is_its_own_order_statistic() -> None:
    statistic = OrderStatistic(2, 5, UniformLag(20, 20))
    assert statistic.mean_ms == statistic.quantile_ms(0.95) == 20
    assert statistic.standard_deviation_ms == 0


@pytest.mark.parametrize(("low", "high"), [(-1, 5), (6, 5), (float("nan"), 5)])
def test_an_impossible_lag_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="expected 0 <= min <= max"):
        UniformLag(low, high)


@pytest.mark.parametrize(("k", "n"), [(0, 5), (6, 5)])
def test_an_impossible_quorum_is_refused(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="expected 1 <= k <= n"):
        OrderStatistic(k, n, LAB)


@given(values_ms, st.floats(0, 100))
def test_a_percentile_lies_among_the_values(values: list[float], percent: float) -> None:
    assert min(values) <= theory.percentile(values, percent) <= max(values)


@given(values_ms)
def test_the_50th_percentile_is_the_median(values: list[float]) -> None:
    assert theory.percentile(values, 50) == pytest.approx(statistics.median(values))


def test_percentiles_interpolate_between_neighbours() -> None:
    assert theory.percentile([10, 20, 30, 40, 50], 25) == 20
    assert theory.percentile([10, 20], 75) == 17.5
    assert theory.percentile([3], 99) == 3


@pytest.mark.parametrize("percent", [-1, 100.5])
def test_a_percentage_out_of_range_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="percentage from 0 to 100"):
        theory.percentile([1], percent)


def test_nothing_has_no_mean_and_no_percentile() -> None:
    with pytest.raises(ValueError, match="at least one"):
        theory.mean([])
    with pytest.raises(ValueError, match="at least one"):
        theory.percentile([], 50)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50))
def test_the_standard_error_is_the_deviation_over_the_root_of_n(values: list[float]) -> None:
    expected = statistics.stdev(values) / math.sqrt(len(values))
    assert theory.standard_error(values) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_one_value_has_no_standard_error() -> None:
    assert theory.standard_deviation([5.0]) is None
    assert theory.standard_error([5.0]) is None


def test_a_deviation_is_counted_in_standard_errors() -> None:
    assert theory.deviation_in_standard_errors(110, 100, 5) == 2
    assert theory.deviation_in_standard_errors(90, 100, 5) == -2
    assert theory.deviation_in_standard_errors(110, 100, None) is None
    assert theory.deviation_in_standard_errors(110, 100, 0) is None
    assert theory.deviation_in_standard_errors(100, 100, 0) == 0
