"""The benchmark for real, as small as it gets: the lab's design replicates; trikv is measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import load
from benchmarks.compare import compare
from benchmarks.fleet import open_fleet
from benchmarks.options import CompareOptions
from benchmarks.results import read_all
from benchmarks.systems import SYSTEMS
from benchmarks.systems.base import NotConfirmed
from benchmarks.systems.lab import LabCluster


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LabCluster]:
    reason = SYSTEMS["lab"].missing()
    if reason is not None:
        pytest.skip(reason)
    with open_fleet(tmp_path) as fleet:
        cluster = LabCluster(fleet, keys=3)
        yield cluster
        cluster.close()


def test_the_labs_design_replicates_what_it_confirms(lab: LabCluster) -> None:
    told = lab.ask("PUT", 0, "/kv/a", {"value": "1"}).json()
    assert (told["follower_acks"], told["quorum_met"]) == (3, True)
    lab.until_quiet()
    assert [lab.read(node, "a") for node in range(lab.nodes)] == ["1"] * 6
    dumps = [lab.ask("GET", node, "/dump").json() for node in range(lab.nodes)]
    assert all(dump == dumps[0] for dump in dumps)
    assert len(dumps[0]) == 5  # the three, a, and the harness's own


def test_the_labs_design_keeps_its_contract(lab: LabCluster) -> None:
    assert lab.ask("PUT", 1, "/kv/a", {"value": "1"}).status_code == 403
    assert lab.ask("GET", 0, "/kv/nothing").status_code == 404
    lab.ask("POST", 1, "/replicate", {"key": "old", "value": "new", "timestamp": 2.0})
    lab.ask("POST", 1, "/replicate", {"key": "old", "value": "older", "timestamp": 1.0})
    assert lab.read(1, "old") == "new"
    lab.ask("POST", 0, "/admin/quorum", {"write_quorum": 5})
    lab.fleet.end(lab.fleet.processes[-1])
    with pytest.raises(NotConfirmed, match="quorum not met"):
        lab.write("a", "2")


def test_a_run_leaves_its_figures_and_nothing_else(tmp_path: Path) -> None:
    reason = load.missing("wrk")
    if reason is not None:
        pytest.skip(reason)
    nodes = tmp_path / "nodes"
    nodes.mkdir()
    options = CompareOptions(
        systems=("trikv",),
        workloads=("put", "get-local"),
        clients=(2,),
        rounds=1,
        seconds=1,
        output=tmp_path / "results",
        directory=nodes,
    )
    assert compare(options) == []
    (run,) = read_all(tmp_path / "results", "compare")
    put, get = run["measurements"]
    assert (put["workload"], get["workload"]) == ("put", "get-local")
    for found in (put, get):
        assert found["rate"] > 0
        assert found["failed"] == found["broken"] == 0
        assert found["cpu_us_per_operation"] > 0
    assert list(nodes.iterdir()) == []
