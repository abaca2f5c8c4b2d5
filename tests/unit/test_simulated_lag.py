"""Each record's delay to each follower is drawn alone, from a range that can change at run time."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trikv.network.simulated_lag import MAX_DELAY_MS, LagRange, SimulatedLag, lag_problem

FOLLOWERS = ["http://f1", "http://f2", "http://f3"]
delays = st.floats(0, MAX_DELAY_MS)


@given(delays, delays, st.integers(0, 2**32))
def test_a_delay_lies_within_its_range(one: float, other: float, seed: int) -> None:
    low, high = sorted((one, other))
    lag = SimulatedLag(LagRange(low, high), FOLLOWERS, seed)
    assert all(low <= lag.draw_ms(url) <= high for url in FOLLOWERS * 5)


def test_delays_are_spread_over_the_whole_range() -> None:
    lag = SimulatedLag(LagRange(100, 200), FOLLOWERS, seed=1)
    drawn = [lag.draw_ms(FOLLOWERS[0]) for _ in range(2000)]
    assert min(drawn) < 101
    assert max(drawn) > 199
    assert statistics.mean(drawn) == pytest.approx(150, abs=3)


def test_followers_draw_different_delays() -> None:
    lag = SimulatedLag(LagRange(0, 1000), FOLLOWERS, seed=1)
    assert len({lag.draw_ms(url) for url in FOLLOWERS}) == 3


def test_a_seed_gives_the_same_delays_again() -> None:
    def drawn(seed: int | None) -> list[float]:
        lag = SimulatedLag(LagRange(0, 1000), FOLLOWERS, seed)
        return [lag.draw_ms(url) for url in FOLLOWERS * 10]

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)
    assert drawn(None) != drawn(None)


def test_a_followers_delays_do_not_depend_on_what_the_others_drew() -> None:
    alone = SimulatedLag(LagRange(0, 1000), FOLLOWERS, seed=7)
    among = SimulatedLag(LagRange(0, 1000), FOLLOWERS, seed=7)
    for url in FOLLOWERS[:2] * 50:
        among.draw_ms(url)
    last = FOLLOWERS[2]
    assert [alone.draw_ms(last) for _ in range(5)] == [among.draw_ms(last) for _ in range(5)]


def test_one_followers_range_changes_alone() -> None:
    lag = SimulatedLag(LagRange(0, 0), FOLLOWERS, seed=1)
    lag.set(LagRange(500, 500), FOLLOWERS[1])
    assert [lag.draw_ms(url) for url in FOLLOWERS] == [0, 500, 0]
    assert lag.default == LagRange(0, 0)


def test_a_change_for_all_overrides_what_single_ones_had() -> None:
    lag = SimulatedLag(LagRange(0, 0), FOLLOWERS, seed=1)
    lag.set(LagRange(500, 500), FOLLOWERS[1])
    lag.set(LagRange(20, 20))
    assert [lag.draw_ms(url) for url in FOLLOWERS] == [20, 20, 20]
    assert lag.default == LagRange(20, 20)


def test_seconds_are_milliseconds_by_a_thousand() -> None:
    lag = SimulatedLag(LagRange(250, 250), FOLLOWERS, seed=1)
    assert lag.draw_s(FOLLOWERS[0]) == 0.25


@pytest.mark.parametrize("good", [LagRange(0, 0), LagRange(0, 1000), LagRange(5.5, MAX_DELAY_MS)])
def test_a_range_from_0_to_ten_minutes_is_fine(good: LagRange) -> None:
    assert lag_problem(good) is None


@pytest.mark.parametrize(
    "bad",
    [
        LagRange(-1, 0),
        LagRange(2, 1),
        LagRange(0, MAX_DELAY_MS + 1),
        LagRange(math.nan, 1),
        LagRange(0, math.nan),
        LagRange(0, math.inf),
        LagRange(-math.inf, 0),
    ],
)
def test_any_other_range_is_a_problem_that_states_what_was_expected(bad: LagRange) -> None:
    problem = lag_problem(bad)
    assert problem is not None
    assert f"0 <= min_delay_ms <= max_delay_ms <= {MAX_DELAY_MS}" in problem
