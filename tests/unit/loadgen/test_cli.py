"""Exit codes, and what the terminal gets to see."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from loadgen import cli
from loadgen.errors import (
    ApiError,
    ClusterError,
    LoadgenError,
    NotALeader,
    OutputError,
    Unreachable,
    UsageError,
    leaves,
)
from loadgen.options import parse
from loadgen.screen import Screen
from loadgen.theory import UniformLag
from loadgen.wording import listed, ms_range, ordinal, plural
from tests.unit.loadgen.fakes import FakeCluster, Listener, plan, run_on


def shown(*, encoding: str = "utf-8") -> tuple[Screen, io.TextIOWrapper, io.TextIOWrapper]:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    err = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Screen(out, err), out, err


def content(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode(stream.encoding)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LoadgenError("x"), 1),
        (ClusterError("x"), 1),
        (ApiError("x", code="c"), 1),
        (Unreachable("x", code="c"), 1),
        (UsageError("x"), 2),
        (OutputError("x"), 2),
        (NotALeader("x"), 2),
    ],
)
def test_every_expected_error_becomes_one_line_and_its_exit_code(
    error: LoadgenError, code: int
) -> None:
    screen, _, err = shown()
    group = BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [error])])
    assert cli._explain(group, screen) == code
    assert content(err) == "loadgen: x\n"


def test_a_dead_node_explains_the_requests_that_failed_with_it() -> None:
    screen, _, err = shown()
    errors = [Unreachable("no answer", code="timeout"), ClusterError("follower2 ended")]
    assert cli._explain(BaseExceptionGroup("both", errors), screen) == 1
    assert content(err) == "loadgen: follower2 ended\n"


def test_what_nobody_expected_keeps_its_traceback() -> None:
    screen, _, _ = shown()
    group = BaseExceptionGroup("both", [UsageError("x"), ZeroDivisionError()])
    with pytest.raises(BaseExceptionGroup):
        cli._explain(group, screen)


def test_ctrl_c_in_a_group_is_130() -> None:
    screen, _, _ = shown()
    assert cli._explain(BaseExceptionGroup("stop", [KeyboardInterrupt()]), screen) == 130


def test_an_exception_alone_is_its_own_leaf() -> None:
    error = ValueError()
    assert list(leaves(error)) == [error]


def run_main(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "loadgen", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def test_a_leader_that_is_not_there_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    # Port 1 of loopback: nobody listens there.
    done = run_main("--leader", "http://127.0.0.1:1", "--wait", "0", "--output", str(tmp_path))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("loadgen: cannot connect to http://127.0.0.1:1")
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_cannot_be_is_told_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    done = run_main("--output", str(tmp_path / "file"))
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("loadgen: cannot write to the output folder")


@pytest.mark.parametrize(
    ("arguments", "name"), [((), "summary.json"), (("--check",), "history.json")]
)
def test_files_of_an_earlier_run_are_named_before_they_are_replaced(
    tmp_path: Path, arguments: tuple[str, ...], name: str
) -> None:
    """And those of another kind are not: they stay."""
    for found in ("summary.json", "history.json"):
        (tmp_path / found).write_bytes(b"earlier")
    screen, _, err = shown()
    options = parse(["--output", str(tmp_path), *arguments])

    async def begin() -> None:
        with trio.move_on_after(0) as scope:
            scope.cancel()
            await cli._work(options, screen)

    trio.run(begin)
    assert content(err).splitlines() == [
        f"warning: {tmp_path} has the files of an earlier run, which this one will replace: {name} "
        "(--output DIR keeps them)"
    ]


def test_a_busy_machine_is_told_in_the_terminal() -> None:
    screen, _, err = shown()
    screen.summary(run_on(FakeCluster(overhead_s=0.05), plan(lag=UniformLag(0, 50))), [])
    assert "the mean overhead is large beside the 8.3 ms" in content(err)
    assert "a busy machine" in content(err)
    screen, _, err = shown()
    screen.summary(run_on(FakeCluster(overhead_s=0.005)), [])
    assert content(err) == ""


def test_help_imports_no_matplotlib() -> None:
    code = (
        "import sys, loadgen.cli\n"
        "assert 'matplotlib' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_where_there_is_no_terminal_there_are_no_control_codes() -> None:
    screen, out, _ = shown()
    run = run_on(FakeCluster(), plan(quorums=(1, 5)))
    with screen.live():
        screen.step("starting")
        screen.say("cluster at http://[::1]:8000")
        screen.writing(1, 100)
        for result in run.results:
            for sample in result.samples:
                screen.wrote(sample)
            screen.settling(result.settled.look)
            screen.quorum_done(result)
    screen.summary(run, ["reports/quorum_vs_latency.png"])
    text = content(out)
    assert "\x1b" not in text
    assert "\r" not in text
    assert "cluster at http://[::1]:8000" in text
    assert text.count("  match") == 5
    assert "written: reports/quorum_vs_latency.png" in text
    assert "no copies behind; settled: 5 of 5 match" in text


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    screen, out, _ = shown()
    run = run_on(FakeCluster())
    screen.summary(run, [])
    assert max(len(line.rstrip()) for line in content(out).splitlines()) <= 80


def test_an_output_that_cannot_encode_a_character_gets_another() -> None:
    screen, out, _ = shown(encoding="ascii")
    screen.summary(run_on(FakeCluster(), plan(quorums=(1,))), [])
    assert "166.7" in content(out)


def test_failures_and_differences_are_on_the_screen() -> None:
    fake, listener = FakeCluster(), Listener()
    fake.deaf.add(fake.urls[1])
    fake.unreachable.add(fake.urls[2])
    run = run_on(fake, plan(quorums=(5,)), listener)
    screen, out, _ = shown()
    screen.quorum_done(run.results[0])
    screen.summary(run, [])
    text = content(out)
    assert "no write succeeded" in text
    assert "100 FAILED" in text
    assert "http://follower2.test  follower2  mismatch  10 keys differ: loadgen-key-0" in text
    assert "http://follower3.test  follower3  unreachable  (it is gone)" in text


def test_warnings_and_errors_go_to_standard_error() -> None:
    screen, out, err = shown()
    screen.warn("careful")
    screen.error("broken [link]")
    assert content(out) == ""
    assert content(err) == "warning: careful\nloadgen: broken [link]\n"


def test_numbers_are_worded() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 112)] == [
        *("1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "112th")
    ]
    assert [plural("key", n) for n in (0, 1, 2)] == ["keys", "key", "keys"]
    assert [plural("copy", n) for n in (0, 1, 2)] == ["copies", "copy", "copies"]
    assert [listed(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        *("a", "a and b", "a, b and c")
    ]
    assert (ms_range([1.0, 2.04]), ms_range([1.01, 1.02])) == ("1.0 to 2.0 ms", "1.0 ms")
