"""What load programs print, and what is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import load, resp
from benchmarks.errors import BenchmarkError
from benchmarks.load import Load, Outcome
from benchmarks.measure import figures, is_slow

PRINTED = """\
Running 4s test @ http://127.0.0.1:8000/
  1 threads and 10 connections
Requests/sec:    324.90

FIGURES {"duration_us":4000000,"requests":1300,"bytes":9,"status":100,"connect":1,"read":2,"write":3,\
"timeout":4,"p50_us":29430,"p99_us":56370,"max_us":70000}
"""


def outcome(requests: int = 400, failed: int = 0) -> Outcome:
    return Outcome(4.0, requests, failed, 0, 2.0, 3.0, 4.0, 0.1)


def test_the_figures_are_read_from_what_wrk_prints() -> None:
    assert load.outcome_of(PRINTED, 0.5) == Outcome(
        seconds=4.0,
        requests=1300,
        failed=100,
        broken=10,
        p50_ms=29.43,
        p99_ms=56.37,
        max_ms=70.0,
        load_cpu_s=0.5,
    )


def test_a_load_program_without_figures_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="no figures"):
        load.outcome_of("Running 4s test\n", 0.5)


def test_a_load_program_that_fails_is_told_with_what_it_said() -> None:
    asked = Load("wrk", 1, Path("pool"), 1, 1, 1)
    with pytest.raises(BenchmarkError, match=r"sh failed \(3\): oh"):
        load.run(asked, ["sh", "-c", "echo oh >&2; exit 3"])


def test_wrk_gets_one_thread_and_a_connection_for_each_client() -> None:
    command = load.wrk_command(Load("wrk", 8000, Path("some.pool"), 50, 4, 7))
    assert command[command.index("--connections") + 1] == "50"
    assert command[command.index("--threads") + 1] == "1"
    assert command[-4:] == ["http://127.0.0.1:8000/", "--", "some.pool", "7"]


def test_the_rate_counts_operations_that_succeeded() -> None:
    found = figures(outcome(requests=400, failed=100), 1000, cpu_s=6.0)
    assert found["rate"] == 75_000
    assert found["cpu_us_per_operation"] == 20.0
    assert found["failed"] == 100


def test_a_system_that_answered_nothing_has_no_latency() -> None:
    found = figures(outcome(requests=0), 1, cpu_s=1.0)
    assert found["rate"] == 0
    assert found["p50_ms"] is None
    assert found["cpu_us_per_operation"] is None


def test_slow_is_fewer_than_three_answers_for_each_client() -> None:
    asked = Load("wrk", 1, Path("pool"), 50, 4, 1)
    assert is_slow(37.0, asked)
    assert not is_slow(38.0, asked)


def test_a_request_that_waited_stands_for_those_that_were_not_sent_meanwhile() -> None:
    assert resp.corrected([10, 10, 45], expected_us=10) == [10, 10, 15, 25, 35, 45]


def test_percentiles_of_nothing_are_0() -> None:
    assert resp.percentile([], 99) == 0
    assert resp.percentile(list(range(100)), 50) == 50
    assert resp.percentile(list(range(100)), 100) == 99
