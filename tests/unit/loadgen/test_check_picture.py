"""The picture of a history: what is in it, and which windows are chosen. No test sees how it looks."""

from __future__ import annotations

import random

import pytest

from loadgen.check import picture
from loadgen.check.history import Call, Fault, History
from loadgen.check.plan import KINDS, CheckPlan
from loadgen.check.result import CheckResult, Phase
from loadgen.check.verdict import Anomaly
from loadgen.check.windows import windows, wrong_moments
from loadgen.theory import UniformLag


def result(duration_s: int, *anomalies: Anomaly) -> CheckResult:
    rng = random.Random(1)
    calls = []
    for client in range(3):
        now = 0.0
        while now < duration_s:
            answered = now + rng.uniform(0, 0.1)
            status = rng.choice([200, 200, 503])
            told = None if rng.random() < 0.1 else answered
            calls.append(Call(client, "n1", "read", now, told, status if told else 0))
            now = answered + 0.5
    faults = [
        Fault(kind, rng.choice(["n1", "n2,n3"]), i, i + 1) for i, kind in enumerate(KINDS, 10)
    ]
    faults += [Fault("old leader, paused", "n1", 30, 32), Fault("old leader, dead", "n2", 20, 21)]
    faults += [Fault("leads", "n1", 10, None), Fault("restart", "n3", 12, 13)]
    plan = CheckPlan(duration_s, KINDS, 3, 10, 3, UniformLag(0, 20), 1)
    history = History(sorted(calls, key=lambda call: call.begun), faults)
    return CheckResult(plan, history, Phase(1, 10), Phase(10, duration_s), anomalies)


@pytest.mark.parametrize(("duration_s", "panels"), [(60, 5), (900, 4)])
def test_a_long_run_has_no_bars_but_in_its_windows(duration_s: int, panels: int) -> None:
    figure = picture.draw(result(duration_s))
    assert len(figure.axes) == panels
    assert sum("Magnified" in axes.get_title(loc="left") for axes in figure.axes) == 2


def test_anomalies_are_told_and_marked() -> None:
    found = result(60, Anomaly("invented", "k", "nobody wrote it", (40,)))
    figure = picture.draw(found)
    assert "ANOMALIES" in str(figure.get_suptitle())
    (legend,) = figure.legends
    assert "invented: 'k': nobody wrote it" in legend.get_title().get_text()
    assert picture.draw_png(found).startswith(b"\x89PNG")


def test_an_empty_history_has_a_picture() -> None:
    plan = CheckPlan(60, (), 2, 10, 3, UniformLag(0, 0), 1)
    nothing = CheckResult(plan, History(), Phase(0, 0), Phase(0, 0), failure="it did not start")
    assert picture.draw_png(nothing).startswith(b"\x89PNG")


def test_windows_are_around_old_leaders_if_nothing_is_wrong() -> None:
    assert windows(result(60), 2, 6.0) == [Phase(18.2, 24.2), Phase(28.2, 34.2)]


def test_windows_are_around_anomalies_and_do_not_overlap() -> None:
    calm = result(60)
    indices = [i for i, call in enumerate(calm.history.calls) if call.begun > 40][:5]
    wrong = [Anomaly("invented", "k", "detail", (index,)) for index in indices]
    found = result(60, *wrong)
    first = wrong_moments(found)[0]
    chosen = windows(found, 2, 6.0)
    assert any(window.begun < first < window.ended for window in chosen)
    assert chosen[0].ended <= chosen[1].begun
