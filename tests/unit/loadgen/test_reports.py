"""What is written: the lab's fields and all others, a report that tells this run, a plot."""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from loadgen import plots, report, summary
from loadgen.errors import OutputError
from loadgen.results import Run, latency_of
from loadgen.theory import OrderStatistic, UniformLag
from tests.unit.loadgen.fakes import FakeCluster, plan, run_on


@pytest.fixture(scope="module")
def lab_run() -> Run:
    return run_on(FakeCluster(overhead_s=0.005))


@pytest.fixture(scope="module")
def bad_run() -> Run:
    """One follower never hears of anything, so quorum 5 fails and replicas differ."""
    fake = FakeCluster()
    fake.deaf.add(fake.urls[1])
    return run_on(fake, plan(quorums=(1, 5)))


def text_of(run: Run) -> str:
    """The report with its lines joined: sentences are looked for, not line breaks."""
    return " ".join(report.report_text(run).split())


def test_the_summary_has_the_labs_fields(lab_run: Run, tmp_path: Path) -> None:
    summary.write_summary(lab_run, tmp_path)
    found = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert found["leader_url"] == "http://leader.test"
    assert [result["quorum"] for result in found["results"]] == [1, 2, 3, 4, 5]
    assert all(isinstance(result["avg_latency_ms"], float) for result in found["results"])
    assert [(f["url"], f["status"]) for f in found["parity"]] == [
        (f"http://follower{i}.test", "match") for i in range(1, 6)
    ]
    assert found["plot"] == str(tmp_path / "quorum_vs_latency.png")


def test_the_summary_has_every_other_figure(lab_run: Run, tmp_path: Path) -> None:
    found = summary.summary_of(lab_run, tmp_path)
    for result, quorum in zip(found["results"], (1, 2, 3, 4, 5), strict=True):
        for name in ("min", "p5", "p50", "p95", "p99", "max"):
            assert result[f"{name}_latency_ms"] > 0
        assert result["standard_error_ms"] > 0
        assert result["ideal_mean_ms"] == pytest.approx(quorum * 1000 / 6, abs=0.001)
        assert result["overhead_p50_ms"] == result["overhead_p99_ms"] == 5
        assert result["within_three_standard_errors"] is True
        assert result["failures"] == 0
        assert result["failures_by_code"] == {}
        assert result["parity_settled"]["all_match"] is True
        assert "lagging_copies" in result["parity_at_last_answer"]
        assert len(result["parity_at_last_answer"]["followers"]) == 5
    assert found["results"][0]["lab_avg_latency_ms"] == 190.66
    assert found["seed"] == 7
    for name in ("node", "python", "trio", "httpx", "rich", "matplotlib"):
        assert found["versions"][name]


def test_a_run_without_a_confirmed_write_has_nulls_not_nans(bad_run: Run, tmp_path: Path) -> None:
    summary.write_summary(bad_run, tmp_path)
    text = (tmp_path / "summary.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=pytest.fail)
    assert found["results"][1]["avg_latency_ms"] is None
    assert found["results"][1]["failures_by_code"] == {"quorum_not_met": 100}
    assert found["ok"] is False
    settled = found["results"][1]["parity_settled"]["followers"][1]
    assert settled["status"] == "mismatch"
    assert settled["differing_keys"] == [f"loadgen-key-{i}" for i in range(10)]
    assert settled["differences"][0]["follower"] is None


def test_every_single_write_is_in_the_csv(lab_run: Run, tmp_path: Path) -> None:
    summary.write_samples(lab_run, tmp_path)
    with (tmp_path / "writes.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len({row["value"] for row in rows}) == 500
    for row in rows:
        lags = sorted(float(row[f"follower{i} lag_ms"]) for i in range(1, 6))
        assert float(row["ideal_ms"]) == pytest.approx(lags[int(row["quorum"]) - 1])
        assert float(row["overhead_ms"]) == pytest.approx(5, abs=0.01)
        assert row["outcome"] == "confirmed"


def test_failed_writes_are_in_the_csv_with_their_code(bad_run: Run, tmp_path: Path) -> None:
    summary.write_samples(bad_run, tmp_path)
    rows = list(csv.DictReader(StringIO((tmp_path / "writes.csv").read_text(encoding="utf-8"))))
    assert [row["outcome"] for row in rows].count("quorum_not_met") == 100


def test_the_report_explains_latency_by_order_statistics(lab_run: Run) -> None:
    text = text_of(lab_run)
    assert "E[k-th of n] = min + (max - min) · k / (n + 1) = 0 + 1000 · k / 6" in text
    assert "Quorum 1 waits for the fastest follower: 166.7 ms in theory, measured" in text
    assert "Quorum 3 waits for the 3rd fastest follower: 500.0 ms in theory" in text
    assert "Quorum 5 waits for the slowest follower: 833.3 ms in theory" in text
    assert "each further confirmation costs 1000 / 6 = 166.7 ms on average" in text
    assert re.search(
        r"Quorum 3: the mean of 100 drawn is [\d.]+ ms, in theory 500.0 ± 18.9 ms", text
    )
    assert (
        "Chance alone makes that 5 on average, and more than 15.1 in one run of a hundred" in text
    )
    assert "as good as uniform, and as asked for" in text
    assert "None of 500 writes was answered before the k-th of its own lags had passed" in text
    assert "the closest came 5.0 ms after it" in text
    assert "The overhead, taken write by write" in text
    assert "a median of 5.0 ms and a 99th percentile of 5.0 ms" in text
    assert "![Write latency against the write quorum](quorum_vs_latency.png)" in text
    assert "190.7" in text


def test_the_report_explains_why_replicas_match(lab_run: Run) -> None:
    text = text_of(lab_run)
    assert "all 5 followers matched the leader: 10 keys each, compared in full values" in text
    assert "two records of a key, the one with the greater version" in text
    assert "With quorum 5 nothing can be behind once all writes are answered, and nothing" in text
    for result in lab_run.results:
        assert f"{result.under_way} at quorum {result.quorum}" in text


def test_the_report_says_when_a_mean_misses_the_theory(lab_run: Run) -> None:
    # As if the leader had been asked for twice the lag that it drew.
    result = lab_run.results[0]
    claimed = OrderStatistic(1, 5, UniformLag(0, 2000))
    latency = latency_of(result.samples, claimed)
    wrong = replace(lab_run, results=[replace(result, statistic=claimed, latency=latency)])
    text = text_of(wrong)
    assert re.search(r"in theory 333.3 ± 28.2 ms: \d\.\d times that below it", text)
    assert "were **not what chance explains**" in text
    assert "**not what chance explains**" not in text_of(lab_run)


def test_the_report_says_when_writes_did_not_wait_for_their_quorum(lab_run: Run) -> None:
    # As if the leader had answered at the first acknowledgement, whatever the quorum.
    result = lab_run.results[1]
    hasty = [
        replace(sample, latency_ms=min(f.lag_ms for f in sample.answer.trace.followers))
        for sample in result.samples
        if sample.answer is not None
    ]
    latency = latency_of(hasty, result.statistic)
    wrong = replace(lab_run, results=[replace(result, samples=hasty, latency=latency)])
    text = text_of(wrong)
    assert (
        "**100 of 100 writes were answered before the k-th of their own lags had passed**" in text
    )


def test_the_report_names_what_failed_and_what_differs(bad_run: Run) -> None:
    text = text_of(bad_run)
    assert "**Not all is well**: 100 writes failed and the replicas did not come to match" in text
    assert "Quorum 5: 100 of 100 with `quorum_not_met`" in text
    assert "**The replicas do not match.**" in text
    assert "http://follower2.test (follower2): mismatch, 10 keys differ: `loadgen-key-0`" in text
    assert "follower nothing" in text
    assert "Why they match" not in text


def test_the_report_says_when_the_overhead_drowns_the_lag() -> None:
    text = text_of(run_on(FakeCluster(overhead_s=0.05), plan(lag=UniformLag(0, 50))))
    assert "the mean overhead is large beside the 8.3 ms that one more confirmation costs" in text
    assert "50.0 ms at quorum 1" in text


def test_the_report_says_when_followers_were_missing_from_the_start() -> None:
    text = text_of(run_on(FakeCluster(live_links=4), plan(quorums=(1,))))
    assert "**Only 4 of 5 followers were linked" in text


def test_the_lab_is_compared_with_only_where_it_can_be() -> None:
    run = run_on(FakeCluster(followers=3), plan(quorums=(1, 2, 3)))
    assert not run.like_the_lab
    assert "the lab's mean" not in text_of(run)
    labels = plots.draw(run).axes[0].get_legend_handles_labels()[1]
    assert not any("lab" in label for label in labels)


def test_the_plot_has_two_panels_with_units_and_all_series(lab_run: Run) -> None:
    figure = plots.draw(lab_run)
    left, right = figure.axes
    assert left.get_ylabel() == right.get_ylabel() == "write latency seen by the client (ms)"
    assert left.get_xlabel() == right.get_xlabel() == "write quorum k (confirmations waited for)"
    assert list(left.get_xticks()) == [1, 2, 3, 4, 5]
    assert set(left.get_legend_handles_labels()[1]) == {
        "measured mean ± standard error",
        "measured p5 to p95",
        "theory: min + (max − min)·k/6",
        "theory, p5 and p95",
        "original lab's mean (set left)",
    }
    assert len(right.get_legend_handles_labels()[1]) == 4
    texts = [text.get_text() for text in figure.texts]
    assert any("100 writes per quorum, 10 at a time" in text for text in texts)


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(lambda: run_on(FakeCluster(), plan(quorums=(3,))), id="one quorum"),
        pytest.param(lambda: run_on(FakeCluster(), plan(writes=1, quorums=(2,))), id="one write"),
        pytest.param(lambda: run_on(FakeCluster(), plan(lag=UniformLag(9, 9))), id="fixed lag"),
        pytest.param(lambda: run_on(FakeCluster(), plan(lag=UniformLag(0, 0))), id="no lag"),
        pytest.param(lambda: run_on(FakeCluster(), plan(quorums=(5, 1))), id="not in order"),
        pytest.param(lambda: run_on(FakeCluster(followers=1), plan(quorums=(1,))), id="follower"),
        pytest.param(
            lambda: run_on(FakeCluster(followers=9), plan(quorums=tuple(range(1, 10)), writes=30)),
            id="nine followers",
        ),
    ],
)
def test_every_kind_of_run_can_be_reported(run: Callable[[], Run], tmp_path: Path) -> None:
    result = run()
    plots.write_plot(result, tmp_path)
    report.write_report(result, tmp_path)
    summary.write_samples(result, tmp_path)
    summary.write_summary(result, tmp_path)
    assert (tmp_path / "quorum_vs_latency.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "quorum_vs_latency.png",
        "report.md",
        "summary.json",
        "writes.csv",
    ]


def test_a_run_in_which_everything_failed_can_be_reported(tmp_path: Path) -> None:
    fake = FakeCluster(followers=2)
    fake.deaf.update(fake.urls)
    run = run_on(fake, plan(quorums=(1, 2), writes=5))
    plots.write_plot(run, tmp_path)
    assert "no write succeeded" in text_of(run)


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    summary.prepare_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot write to the output folder .*file"):
        summary.prepare_folder(tmp_path / "file")


def test_a_report_that_cannot_be_written_leaves_no_half_of_it(tmp_path: Path) -> None:
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*summary\.json"):
        summary.write_file(tmp_path / "summary.json", b"{}")
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
