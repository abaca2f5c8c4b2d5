"""From records to figures, tables and the page."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import results, tables
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Comparison, Growth, Place, Spread, bend, exponents, spread
from benchmarks.goals import Goal, goals
from benchmarks.options import ReportOptions
from benchmarks.report import page, write_report
from benchmarks.systems import SYSTEMS

TRIKV, LAB = Place("trikv", "put", 10), Place("lab", "put", 10)


def measured(system: str, number: int, rate: float, clients: int = 10) -> dict[str, Any]:
    return {
        "round": number,
        "system": system,
        "workload": "put",
        "clients": clients,
        "rate": rate,
        "p50_ms": 1.5,
        "p99_ms": 20.0,
        "cpu_us_per_operation": 300.0,
        "requests": 1000,
        "failed": 0,
        "broken": 0,
        "load_cores": 0.1,
    }


def run_of(kind: str, day: int, *measurements: dict[str, Any]) -> dict[str, Any]:
    systems = {
        name: {
            "title": SYSTEMS[name].title,
            "protocol": SYSTEMS[name].protocol,
            "quorum": SYSTEMS[name].quorum,
            "durability": SYSTEMS[name].durability,
            "durability_short": SYSTEMS[name].durability_short,
            "versions": {name: "1.0"},
        }
        for name in {str(one["system"]) for one in measurements if "system" in one}
    }
    return {
        "kind": kind,
        "started_at": f"2026-01-{day:02}T10:00:00+00:00",
        "options": {"rounds": 3},
        "machine": {
            "usable_cores": 2,
            "cpu": "a CPU",
            "memory_gb": 8.0,
            "system": "Linux",
            "kernel": "6",
            "python": "3.11",
            "sqlite": "3",
            "file_system": "ext4",
            "fsync_ms": 0.2,
        },
        "git": {"commit": "0123456789abcdef", "trikv_changed_since": False},
        "versions": {"trio": "0.35"},
        "problems": [],
        "skipped": {"redis": "redis-server is not installed"},
        "lacks": {},
        "systems": systems,
        "measurements": list(measurements),
    }


def test_a_ratio_is_of_rates_of_one_round() -> None:
    """The ratio of the medians would be 100 / 20 = 5."""
    run = run_of(
        "compare",
        1,
        *(measured("trikv", n, rate) for n, rate in ((1, 100), (2, 400), (3, 50))),
        *(measured("lab", n, rate) for n, rate in ((1, 50), (2, 20), (3, 10))),
    )
    assert Comparison([run]).ratio(TRIKV, LAB) == Spread(5.0, 2.0, 20.0, 3)


def test_rounds_that_one_side_missed_or_answered_nothing_in_are_in_no_ratio() -> None:
    run = run_of(
        "compare",
        1,
        *(measured("trikv", n, 100) for n in (1, 2, 3)),
        measured("lab", 1, 50),
        measured("lab", 3, 0),
    )
    assert Comparison([run]).ratio(TRIKV, LAB) == Spread(2.0, 2.0, 2.0, 1)


def test_the_newest_run_that_has_a_figure_counts() -> None:
    old = run_of("compare", 1, measured("trikv", 1, 100), measured("lab", 1, 50))
    new = run_of("compare", 2, measured("trikv", 1, 300))
    comparison = Comparison([new, old])
    assert comparison.figure(TRIKV, "rate") == Spread(300, 300, 300, 1)
    assert comparison.ratio(TRIKV, LAB) == Spread(2.0, 2.0, 2.0, 1)


def test_what_was_not_measured_has_no_spread() -> None:
    assert spread([None, None]) is None
    assert Comparison([]).figure(TRIKV, "rate") is None


@given(st.floats(-3, 3), st.lists(st.floats(1, 1e6), min_size=2, max_size=6, unique=True))
def test_the_power_of_a_power_law_is_found(power: float, places: list[float]) -> None:
    places = sorted(places)
    if any(b / a < 1.01 for a, b in itertools.pairwise(places)):
        return
    found = exponents([(x, 7 * x**power) for x in places])
    assert found == pytest.approx([power] * (len(places) - 1), abs=1e-6)


def test_a_bend_is_where_the_cost_grows_fastest() -> None:
    found = bend([(1, 1), (10, 1), (100, 100), (1000, 1000)])
    assert found is not None
    assert (found.steepest_from, found.steepest_to) == (10, 100)
    assert found.steepest == pytest.approx(2)
    assert found.overall == pytest.approx(1)
    assert bend([(1, 1)]) is None
    assert bend([(1, 0), (2, 1)]) is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0, "0"),
        (0.01234, "0.012"),
        (5.678, "5.68"),
        (56.78, "56.8"),
        (567.8, "568"),
        (12_345.6, "12,300"),
    ],
)
def test_numbers_have_three_digits_that_count(value: float | None, shown: str) -> None:
    assert tables.number(value) == shown


def test_a_median_is_told_with_its_spread() -> None:
    assert tables.told(Spread(5, 2, 20, 3), "×") == "5.00× (2.00–20.0)"
    assert tables.told(Spread(5, 5, 5, 1)) == "5.00"


@pytest.mark.parametrize(
    ("reached", "more", "verdict"),
    [
        (1.9, True, "short"),
        (2.0, True, "floor"),
        (4.0, True, "aim"),
        (1.9, False, "aim"),
        (3.0, False, "short"),
    ],
)
def test_a_goal_is_judged_by_the_median(reached: float, more: bool, verdict: str) -> None:
    floor, aim = (2.0, 4.0) if more else (2.5, 2.0)
    goal = Goal("a figure", "", floor, aim, "s", more, Spread(reached, 0, 100, 3))
    assert goal.verdict == verdict


def test_all_goals_are_told_even_if_nothing_was_measured() -> None:
    found = list(goals(Comparison([]), Growth([])))
    assert {goal.verdict for goal in found} == {"not measured"}
    assert len(found) == 20
    assert tables.goals_table(found).count("not measured") == 20


def test_growth_is_told_against_x_by_the_median_of_the_rounds() -> None:
    records = [
        {"part": "clients", "round": n, "x": x, "workload": "put", "rate": x * n}
        for n in (1, 2, 3)
        for x in (10, 1)
    ]
    found = Growth([run_of("growth", 1, *records)]).series(
        "clients", lambda record: record["rate"], workload="put"
    )
    assert found == [(1, Spread(2, 1, 3, 3)), (10, Spread(20, 10, 30, 3))]


def test_a_row_says_durability_ratio_and_what_failed() -> None:
    failing = measured("lab", 1, 50) | {"failed": 30, "load_cores": 0.97}
    run = run_of("compare", 1, measured("trikv", 1, 100), failing)
    text = tables.workload_table(Comparison([run]), "put")
    row = next(line for line in text.splitlines() if "the lab's design" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:5] == ["10", "the lab's design", "memory", "50.0", "2.00×"]
    assert cells[-1] == "30 of 1,000 failed; the load program was at its limit"


def test_the_page_tells_who_was_skipped_and_what_went_wrong() -> None:
    run = run_of("compare", 1, measured("trikv", 1, 100), measured("lab", 1, 50))
    run["problems"].append("round 1, lab: it\n  broke")
    text = page(Comparison([run]), Growth([]))
    assert "2026-01-01: redis was skipped: redis-server is not installed" in text
    assert "2026-01-01: round 1, lab: it broke" in text
    assert "0123456789" in text
    assert "## What each change brought" in text


def test_the_page_and_its_plots_are_written_from_files(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    runs = [
        run_of("compare", 1, *(measured("trikv", 1, 100, c) for c in (1, 10))),
        run_of(
            "growth",
            2,
            *({"part": "lag", "round": 1, "x": k, "overhead_p50_ms": 2.0, "overhead_p99_ms": 6.0,
               "latency_mean_ms": 500.0} for k in (1, 2, 3)),
        ),
    ]  # fmt: skip
    for run in runs:
        (folder / f"{run['kind']}-1.json").write_text(json.dumps(run))
    write_report(ReportOptions(folder, tmp_path / "docs"))
    text = (tmp_path / "docs" / "performance.md").read_text(encoding="utf-8")
    for image in (tmp_path / "docs" / "images").iterdir():
        assert f"](images/{image.name})" in text
    assert text.count("](images/") == len(list((tmp_path / "docs" / "images").iterdir())) == 4


def test_no_results_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no results"):
        write_report(ReportOptions(tmp_path, tmp_path / "docs"))


def test_a_results_file_holds_what_was_measured_so_far(tmp_path: Path) -> None:
    file = results.ResultsFile("compare", tmp_path, tmp_path, rounds=1)
    file.content["measurements"] = [{"round": 1}]
    file.save()
    (run,) = results.read_all(tmp_path, "compare")
    assert run["measurements"] == [{"round": 1}]
    assert run["machine"]["usable_cores"] >= 1
    assert str(tmp_path) not in file.path.read_text(encoding="utf-8")
