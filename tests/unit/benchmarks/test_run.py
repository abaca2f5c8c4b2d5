"""The command line, the order of a round, and the processes that a run starts."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from benchmarks import growth, interrupts
from benchmarks.compare import cells_of, rotated
from benchmarks.errors import NodeDied, Stopped
from benchmarks.fleet import cpu_of_stat, free_ports, open_fleet
from benchmarks.options import CompareOptions, GrowthOptions, parse
from benchmarks.results import FOLDER, QUICK_FOLDER
from benchmarks.systems import DEFAULT_SYSTEMS, SYSTEMS

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_everything_is_compared_unless_it_is_said_otherwise() -> None:
    options = parse([])
    assert isinstance(options, CompareOptions)
    assert options.systems == DEFAULT_SYSTEMS
    assert (options.rounds, options.seconds, options.output) == (5, 4, FOLDER)


def test_quick_is_short_and_kept_apart() -> None:
    options = parse(["--quick", "--systems", "trikv,lab", "--clients", "1,10"])
    assert isinstance(options, CompareOptions)
    assert (options.rounds, options.seconds, options.output) == (1, 2, QUICK_FOLDER)
    assert (options.systems, options.clients) == (("trikv", "lab"), (1, 10))
    grown = parse(["growth", "--quick", "--parts", "lag"])
    assert isinstance(grown, GrowthOptions)
    assert (grown.parts, grown.rounds, grown.output) == (("lag",), 1, QUICK_FOLDER)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--systems", "mysql"],
        ["--systems", "trikv,trikv"],
        ["--clients", "0"],
        ["--rounds", "x"],
        ["growth", "--parts", "put"],
    ],
)
def test_bad_usage_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2


def test_each_round_begins_with_another_system() -> None:
    systems = list(SYSTEMS.values())[:3]
    orders = [rotated(systems, number) for number in range(4)]
    assert [order[0] for order in orders] == [*systems, systems[0]]
    assert all(set(order) == set(systems) for order in orders)


def test_durability_left_to_the_system_is_not_measured_with_reads() -> None:
    options = parse([])
    assert isinstance(options, CompareOptions)
    cells = cells_of(SYSTEMS["trikv-os"], options)
    assert {workload for workload, _ in cells} == {"put", "mix", "batch"}


def test_a_fleet_ends_its_processes_and_removes_its_directory(tmp_path: Path) -> None:
    with open_fleet(tmp_path) as fleet:
        process = fleet.spawn("sleeper", SLEEP, os.environ)
        fleet.check()
        assert process.cpu_s() >= 0
        assert process.resident_mb() > 0
    assert not process.is_up
    assert list(tmp_path.iterdir()) == []


def test_a_fleet_ends_its_processes_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_fleet(tmp_path) as fleet:  # noqa: PT012
        process = fleet.spawn("sleeper", SLEEP, os.environ)
        raise ZeroDivisionError
    assert not process.is_up
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_dies_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    with open_fleet(tmp_path) as fleet:
        process = fleet.spawn("broken", ["sh", "-c", "echo no disk; exit 3"], os.environ)
        process.popen.wait(10)
        with pytest.raises(NodeDied, match=r"(?s)broken .*code 3.*no disk"):
            fleet.check()


def test_a_signal_waits_while_it_is_held() -> None:
    reached = False
    with interrupts.heeded(), pytest.raises(Stopped) as caught, interrupts.held():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        reached = True
    assert reached
    assert caught.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_cpu_is_read_whatever_the_name_of_the_process() -> None:
    fields = ["S", *(str(number) for number in range(4, 53))]
    assert cpu_of_stat(f"17 (a) b (c) {' '.join(fields)}") == 14 + 15 + 16 + 17


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(12))) == 12


def test_the_time_of_an_event_is_read_from_a_log() -> None:
    text = (
        "2026-11-24T19:20:30.500Z INFO link.syncing follower=http://127.0.0.1:1\n"
        "2026-11-24T19:20:32.500Z INFO link.live follower=http://127.0.0.1:1 caught_up_records=100\n"
    )
    began = growth.event_time(text, "link.syncing") - 1
    assert growth.caught_up(text, began) == {
        "caught_up_records": 100,
        "caught_up_s": 3.0,
        "syncing_s": 2.0,
        "caught_up_records_per_s": 50,
    }
