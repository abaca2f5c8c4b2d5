"""What is shown as a rate is the mean of the last seconds, and forgets the rest."""

from __future__ import annotations

from trikv.rate import RATE_WINDOW_S, Rate


def test_a_rate_is_the_mean_over_its_window() -> None:
    rate = Rate()
    assert rate.per_s(0) == 0
    rate.note(0, 10)
    rate.note(1, 5)
    assert rate.per_s(1) == 15 / RATE_WINDOW_S
    assert rate.per_s(RATE_WINDOW_S) == 15 / RATE_WINDOW_S
    assert rate.per_s(RATE_WINDOW_S + 0.5) == 5 / RATE_WINDOW_S
    assert rate.per_s(RATE_WINDOW_S + 1.5) == 0


def test_what_is_past_is_not_kept() -> None:
    rate = Rate()
    for second in range(1_000):
        rate.note(second, 1)
    assert len(rate._noted) == RATE_WINDOW_S + 1
