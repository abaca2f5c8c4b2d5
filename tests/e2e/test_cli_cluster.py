"""`trikv cluster` for real: driven by keys at a terminal, by signals, and killed. Nothing may stay."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import until
from tests.e2e.terminal import Terminal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX's")

COMMAND = [sys.executable, "-m", "trikv.cli", "cluster", "--lag", "0", "5"]


def is_gone(pid: int) -> bool:
    """No such process; or one that only waits for its parent to take note of its end."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except ProcessLookupError:  # it may end between the two, too
        return True


def all_gone(pids: list[int]) -> None:
    until(lambda: all(map(is_gone, pids)), f"no process is left of {pids}")


def pids_in(text: str) -> list[int]:
    return [int(pid) for pid in re.findall(r"\(process (\d+)\)", text)]


def ready(terminal: Terminal) -> list[int]:
    """Until the cluster is; the processes of its nodes."""
    terminal.until("ready: ")
    return list(dict.fromkeys(pids_in(terminal.shown)))


def is_as_before(terminal: Terminal) -> None:
    """The terminal was given back: its mode, its cursor, and its first screen."""
    assert terminal.mode() == terminal.before
    assert terminal.shown.count("\x1b[?1049h") == terminal.shown.count("\x1b[?1049l") == 1
    assert terminal.shown.rindex("\x1b[?25h") > terminal.shown.rindex("\x1b[?25l")
    assert "Traceback" not in terminal.shown


def test_keys_kill_start_cut_promote_and_write(tmp_path: Path) -> None:
    command = [*COMMAND, "--directory", str(tmp_path)]
    plain = {"NO_COLOR": "1"}
    with Terminal(command, columns=100, rows=40, environment=plain) as terminal:
        pids = ready(terminal)
        assert len(pids) == 3
        assert terminal.mode() != terminal.before
        terminal.press("w")
        terminal.until("100 writes: 100 confirmed")
        terminal.press("2k")
        terminal.until("node2 is killed")
        all_gone(pids_in(terminal.shown.partition("node2 is up")[2])[:1])
        terminal.until("not well: ")
        terminal.press("r")
        terminal.until("all is well")
        terminal.press("\x1b[Bc")
        terminal.until("the wire to node3 is cut")
        terminal.press("h")
        terminal.until("the wire to node3 is healed")
        terminal.press("+")
        terminal.until("quorum 2, before 1")
        terminal.press("-")
        terminal.until("quorum 1, before 2")
        terminal.press("-")
        terminal.until("quorum 0, before 1")
        terminal.press("-")  # there is none below: nothing comes of it
        terminal.until("quorum 0, before 0")
        terminal.press("+")
        terminal.until("quorum 1, before 0")
        terminal.press("p")
        terminal.until("node3: promoted in place of node1")
        terminal.until("leader node3")
        terminal.press("w")
        terminal.until("100 writes: 100 confirmed")
        terminal.press("1c\x1a\x1c")  # Ctrl-Z and Ctrl-\ do nothing
        terminal.until("the wire to node1 is cut")
        terminal.press("s")
        terminal.until("node1 has stopped")
        terminal.press("q")
        assert terminal.end() == 0
        is_as_before(terminal)
        assert "all nodes have stopped" in terminal.shown
        all_gone(pids_in(terminal.shown))
    assert {path.name for path in tmp_path.glob("*.log")} == {f"node{n}.log" for n in (1, 2, 3)}
    for log in tmp_path.glob("*.log"):
        assert "Traceback" not in log.read_text()


def test_a_node_that_is_killed_by_somebody_else_is_told_and_can_be_started_again() -> None:
    with Terminal(COMMAND) as terminal:
        pids = ready(terminal)
        os.kill(pids[0], signal.SIGKILL)
        told = terminal.until("has ended by itself: killed by signal 9")
        number = re.findall(r"node(\d) has ended", told)[-1]
        terminal.press(f"{number}r")
        terminal.until("all is well")
        terminal.press("q")
        assert terminal.end() == 0
        all_gone(pids_in(terminal.shown))


def test_a_leader_that_was_killed_is_never_shown_as_well() -> None:
    with Terminal(COMMAND) as terminal:
        pids = ready(terminal)
        terminal.until("all is well")
        terminal.press("1k")
        terminal.until("node1 is killed (SIGKILL)")
        told = terminal.until("no leader can be reached")
        frames = told.split("\x1b[H")
        killed = next(index for index, one in enumerate(frames) if "is killed (SIGKILL)" in one)
        assert not any("all is well" in one for one in frames[killed:])
        terminal.press("q")
        assert terminal.end() == 0
        all_gone(pids)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_stops_the_nodes_and_gives_the_terminal_back(number: signal.Signals) -> None:
    with Terminal(COMMAND) as terminal:
        pids = ready(terminal)
        directory = directory_of(terminal)
        terminal.send_signal(number)
        assert terminal.end() == 0
        is_as_before(terminal)
        all_gone(pids)
        assert not directory.exists()


def directory_of(terminal: Terminal) -> Path:
    found = re.search(r"data and logs: (\S+?)\x1b", terminal.shown)
    assert found is not None
    assert Path(found[1]).exists()
    return Path(found[1])


def test_a_node_that_is_killed_while_it_starts_is_no_failure() -> None:
    with Terminal(COMMAND) as terminal:
        terminal.until("node2 starts")
        terminal.press("2k")
        terminal.until("node2 is killed")
        terminal.press("r")
        terminal.until("all is well")
        terminal.press("q")
        assert terminal.end() == 0
        all_gone(pids_in(terminal.shown))


def test_ctrl_c_while_it_starts_leaves_nothing() -> None:
    with Terminal(COMMAND) as terminal:
        terminal.until("node1 starts")
        terminal.press("\x03")
        assert terminal.end() == 0
        is_as_before(terminal)
        all_gone(pids_in(terminal.shown))


def test_a_second_ctrl_c_kills_what_does_not_stop() -> None:
    with Terminal(COMMAND) as terminal:
        pids = ready(terminal)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        terminal.press("\x03")
        terminal.until("is told to stop")
        terminal.press("\x03")
        assert terminal.end(10) == 0
        all_gone(pids)
        is_as_before(terminal)


def test_a_terminal_that_is_closed_stops_the_nodes() -> None:
    with Terminal(COMMAND) as terminal:
        pids = ready(terminal)
        directory = directory_of(terminal)
        terminal.close()
        all_gone([*pids, terminal.pid])
        until(lambda: not directory.exists(), "its directory is removed")


def test_a_cluster_that_is_killed_leaves_no_nodes() -> None:
    with Terminal(COMMAND) as terminal:
        pids = ready(terminal)
        directory = directory_of(terminal)
        terminal.send_signal(signal.SIGKILL)
        terminal.end()
        all_gone(pids)
        for name in ("node1", "node2", "node3"):
            assert "node.stopped" in (directory / f"{name}.log").read_text()
        for path in sorted(directory.rglob("*"), reverse=True):  # nobody is left to do it
            path.rmdir() if path.is_dir() else path.unlink()
        directory.rmdir()


# -- without a terminal -------------------------------------------------------------------------------


@contextmanager
def piped(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def events_until(process: subprocess.Popen[str], last: str) -> list[dict[str, Any]]:
    assert process.stdout is not None
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == last:
            return events
    raise AssertionError(f"no {last} among {events}")


def test_without_a_terminal_events_are_told_as_lines_until_a_signal() -> None:
    with piped("--json", "--nodes", "2") as process:
        events = events_until(process, "ready")
        assert len(events[-1]["urls"]) == 2
        pids = [event["pid"] for event in events if event["event"] == "started"]
        process.terminate()
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        rest = [json.loads(line)["event"] for line in out.splitlines()]
        assert rest == ["stopping", "stopped", "stopping", "stopped", "closed"]
        all_gone(pids)
    with piped("--nodes", "1") as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        pids = []
        while not pids:
            pids = pids_in(next(lines))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert out.endswith("all nodes have stopped\n")
        assert "\x1b" not in out
        all_gone(pids)


def test_an_output_that_is_gone_stops_it() -> None:
    with piped("--json", "--nodes", "1") as process:
        events = events_until(process, "started")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 141
        all_gone([events[-1]["pid"]])
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_nodes_that_do_not_start_are_6_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "node2").write_text("no directory")
    with piped("--nodes", "2", "--directory", str(tmp_path)) as process:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 6
        assert "trikv: node2 does not start: exit code 2; last lines of its log:" in err
        assert "DATA_DIR" in err
        assert "Traceback" not in err


def test_ports_in_use_and_bad_directories_are_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with piped("--nodes", "1", "--port", str(port)) as process:
            _, err = process.communicate(timeout=60)
            assert process.returncode == 2
            assert f"--port {port}: expected free ports, but {port} is in use" in err
    (tmp_path / "file").write_text("")
    with piped("--directory", str(tmp_path / "file" / "x")) as process:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 6
        assert err.startswith("trikv: cannot make a directory for the nodes")
