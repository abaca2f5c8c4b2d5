"""The rule of when a check is worth anything, and the words in which it is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from loadgen.check import report
from loadgen.check.history import ABSENT, Call, Fault, History
from loadgen.check.plan import KINDS, CheckPlan
from loadgen.check.result import CheckResult, Phase, Rate, answer_of, kind_of
from loadgen.check.verdict import Anomaly
from loadgen.theory import UniformLag


def plan(nemesis: tuple[str, ...] = KINDS) -> CheckPlan:
    return CheckPlan(100, nemesis, 4, 10, 3, UniformLag(0, 20), 7)


def calls(begun: float, count: int, **more: Any) -> list[Call]:
    """So many, one each tenth of a second."""
    return [
        Call(0, "n", "write", begun + i / 10, begun + i / 10 + 0.01, 200, writes={"k": 1}, **more)
        for i in range(count)
    ]


def result(*, before: int = 100, after: int = 900, times: int = 10, **more: Any) -> CheckResult:
    """10 seconds without faults, and 90 with them."""
    history = History(
        calls(0, before) + calls(10, after),
        [Fault(kind, "n", 20.0, 21.0) for kind in KINDS for _ in range(times)],
    )
    return CheckResult(plan(), history, Phase(0, 10), Phase(10, 100), **more)


def test_ten_faults_of_each_kind_and_the_full_rate_are_ok() -> None:
    found = result()
    assert found.rates == (Rate("all calls", 10, 10), Rate("writes", 10, 10))
    assert found.faults == dict.fromkeys(KINDS, 10)
    assert (found.verdict, found.exit_code, found.shortcomings) == ("ok", 0, [])
    assert report.in_short(found)[-1].startswith("OK:")


def test_a_fault_that_was_met_nine_times_makes_it_invalid() -> None:
    found = result()
    del found.history.faults[0]
    assert (found.verdict, found.exit_code) == ("invalid", 1)
    assert found.shortcomings == ["kill was met 9 times, expected at least 10"]


def test_a_fault_that_was_not_chosen_need_not_be_met() -> None:
    found = result(times=0)
    without = CheckResult(plan(()), found.history, found.fault_free, found.disturbed)
    assert (without.verdict, without.faults) == ("ok", {})


@pytest.mark.parametrize(("after", "verdict"), [(180, "ok"), (179, "invalid")])
def test_less_than_a_fifth_of_the_rate_makes_it_invalid(after: int, verdict: str) -> None:
    found = result(after=after)
    assert found.verdict == verdict
    if verdict == "invalid":
        assert found.shortcomings == [
            f"of {what}, 2.0/s were completed under the nemesis and 10.0/s without, "
            "expected at least 20% of that"
            for what in ("all calls", "writes")
        ]


def test_a_key_that_could_not_be_judged_makes_it_invalid_and_hides_nothing() -> None:
    undecided = ("undecided: key 'k': more than 7 states",)
    found = result(undecided=undecided)
    assert (found.verdict, found.exit_code) == ("invalid", 1)
    assert report.problems(found) == [*undecided]
    assert report.in_short(found)[-2:] == [
        "anomalies: 0, undecided keys: 1",
        "INVALID: nothing wrong was found, but not everything could be judged.",
    ]
    found = result(undecided=undecided, anomalies=[Anomaly("invented", "x", "y")])
    assert found.verdict == "anomalies"
    assert report.problems(found) == ["invented: 'x': y", *undecided]
    assert undecided[0] in report.text_of(found)


def test_reads_do_not_make_up_for_writes_that_are_missing() -> None:
    found = result(after=0)
    found.history.calls += [
        Call(0, "n", "read", 10 + i / 10, 10 + i / 10, 200, shown={"k": ABSENT}) for i in range(900)
    ]
    again = CheckResult(plan(), found.history, found.fault_free, found.disturbed)
    assert [rate.share for rate in again.rates] == [1, 0]
    assert again.verdict == "invalid"


def test_a_cluster_that_does_nothing_even_without_faults_is_invalid() -> None:
    assert result(before=0, after=0).verdict == "invalid"


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        ({"anomalies": [Anomaly("invented", "k", "detail", (0,))]}, "anomalies"),
        ({"complaints": ["node1 logged: Traceback"]}, "errors"),
        ({"failure": "node1 ended by itself"}, "failed"),
        ({"failure": "it ended", "anomalies": [Anomaly("invented", "k", "detail")]}, "anomalies"),
    ],
)
def test_what_is_wrong_comes_before_what_is_missing(more: dict[str, Any], verdict: str) -> None:
    found = result(times=9, **more)
    assert (found.verdict, found.exit_code) == (verdict, 1)
    told = report.problems(found)
    words = [
        *(a.detail for a in more.get("anomalies", [])),
        *more.get("complaints", []),
        *filter(None, [more.get("failure")]),
    ]
    assert all(any(word in line for line in told) for word in words)
    assert told[-1].startswith("invalid: ")


def counted(found: Sequence[Call]) -> list[tuple[str, str]]:
    return [(kind_of(call), answer_of(call)) for call in found]


def test_calls_are_told_apart_by_what_was_asked_and_answered() -> None:
    asked = [
        Call(0, "n", "write", 0, 1, 200, writes={"k": 1}),
        Call(0, "n", "write", 0, 1, 404, "not_found", writes={"k": None}, shown={"k": ABSENT}),
        Call(0, "n", "write", 0, 1, 503, "not_enough_followers", writes={"k": 1, "l": None}),
        Call(0, "n", "write", 0, 1, 503, "quorum_not_met", writes={"k": 1}),
        Call(0, "n", "read", 0, 1, 200, linearizable=True, min_version="1.a-1"),
        Call(0, "n", "read", 0, 1, 404, "not_found", min_version="1.a-1", shown={"k": ABSENT}),
        Call(0, "n", "read", 0),
        Call(0, "n", "list", 0, 1, 200),
    ]
    assert counted(asked) == [
        ("put", "ok"),
        ("delete", "told what is there"),
        ("batch", "refused"),
        ("put", "unknown"),
        ("linearizable read", "ok"),
        ("read with min_version", "told what is there"),
        ("local read", "unknown"),
        ("list", "ok"),
    ]


def test_the_report_tells_calls_faults_rates_seed_and_verdict() -> None:
    text = report.text_of(result(anomalies=[Anomaly("invented", "key", "nobody wrote it", (0,))]))
    assert "ANOMALIES" in text
    assert "- invented: 'key': nobody wrote it" in text
    assert "seed 7" in text
    assert "| put | 1000 | 0 | 0 | 0 | 1000 |" in text
    assert "| takeover | 10 |" in text
    assert "| writes | 10.0 | 10.0 | 100% |" in text
    assert "](history.png)" in text
