"""Exit codes: of every error of the client, of bad usage, of an output that is gone, of bugs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

import trikv.client
from tests.unit.cli.console import URLS, Console, Stream
from tests.unit.client.fake_watch import version
from tests.unit.client.wires import always, item
from trikv import __version__
from trikv.cli import keys, options
from trikv.cli.main import main
from trikv.cli.main import trikv as group
from trikv.cli.options import explain
from trikv.cli.outcome import ClosedPipe, CommandError, ExitCode, exit_code_of, from_client
from trikv.cli.output import Output
from trikv.client import (
    ClientError,
    InvalidRequest,
    OutcomeUnknown,
    Refused,
    Unavailable,
    VersionConflict,
)

CODES = {
    VersionConflict: ExitCode.REFUSED,
    InvalidRequest: ExitCode.USAGE,
    Refused: ExitCode.REFUSED,
    Unavailable: ExitCode.UNAVAILABLE,
    OutcomeUnknown: ExitCode.UNKNOWN,
}


def test_every_error_of_the_client_has_an_exit_code() -> None:
    errors = {
        kind
        for name in trikv.client.__all__
        if isinstance(kind := getattr(trikv.client, name), type) and issubclass(kind, ClientError)
    }
    assert errors - {ClientError} == set(CODES)
    for kind, code in CODES.items():
        assert exit_code_of(kind("x", code="c")) is code


def test_an_answer_to_a_read_that_is_not_trikvs_is_no_refusal() -> None:
    assert exit_code_of(Refused("x", code="unexpected_answer")) is ExitCode.UNAVAILABLE


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("write", [True, False])
def test_an_error_says_what_it_says_to_a_program(kind: type[ClientError], write: bool) -> None:
    error = kind("it is so", code="c", status=418, key="k", node="http://a:1")
    told = from_client(error, write=write).document["error"]
    assert told == {
        "code": "c",
        "detail": "it is so",
        "may_have_happened": kind is OutcomeUnknown,
        "exit_code": CODES[kind],
        "status": 418,
        "key": "k",
        "node": "http://a:1",
    }


def test_after_a_write_that_failed_it_is_said_whether_it_may_have_happened() -> None:
    for kind in CODES:
        hint = from_client(kind("it is so", code="c"), write=True).hint
        assert hint is not None
        assert ("may have happened" in hint) == (kind is OutcomeUnknown)
        assert ("Nothing was written." in hint) == (kind is not OutcomeUnknown)
    said = Unavailable("2 of 3 can be reached; nothing was written", code="c")
    assert from_client(said, write=True).hint is None


def test_the_codes_are_what_scripts_were_promised() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "DONE": 0,
        "NO": 1,
        "USAGE": 2,
        "REFUSED": 3,
        "UNAVAILABLE": 4,
        "UNKNOWN": 5,
        "FAILED": 6,
        "INTERRUPTED": 130,
        "CLOSED_PIPE": 141,
    }


# -- usage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nonsense"], "No such command"),
        (["get"], "Missing argument 'KEY'"),
        (["get", "k", "--consistency", "strong"], "strong"),
        (["get", "k", "--url", "ftp://a"], "--url: a node's URL looks like"),
        (["get", "k", "--timeout", "nan"], "expected a number from 0.05 to 3600"),
        (["get", "k", "--timeout", "0"], "expected a number from 0.05 to 3600"),
        (["quorum", "many"], "expected a whole number from 0 to 100"),
        (["quorum", "--force"], "expected N as well"),
        (["lag", "5"], "expected both"),
        (["lag", "9", "5"], "expected MIN to be 5 at most"),
        (["lag", "--follower", "f"], "expected MIN MAX as well"),
        (["cut"], "Missing argument 'FOLLOWER...'"),
        (["heal"], "or --all"),
        (["heal", "f", "--all"], "or --all"),
        (["bench", "--clients", "0"], "expected a whole number from 1 to 200"),
        (["cluster", "--nodes", "10"], "expected a whole number from 1 to 9"),
        (["cluster", "--quorum", "3"], "expected 2 at most with 3 nodes"),
        (["cluster", "--nodes", "1", "--quorum", "1"], "expected 0 at most with 1 node, got 1"),
        (["quorum", "-1"], "Invalid value for 'N': expected a whole number from 0 to 100"),
        (["quorum", "-x"], "No such option '-x'"),
        (["lag", "0", "50ms"], "Invalid value for 'MAX': expected a number from 0 to 600000"),
        (["lag", "-5", "50"], "Invalid value for 'MIN': expected a number from 0 to 600000"),
        (["st"], "Did you mean 'status'?"),
        (["qourum"], "Did you mean 'quorum'?"),
        (["get", "k", "--url", "8000"], "a port needs a host: http://127.0.0.1:8000"),
        (["cluster", "--lag", "5", "1"], "expected MIN to be 1 at most"),
        (["completion", "cmd"], "cmd"),
        (["serve", "x"], "unexpected extra argument"),
    ],
)
def test_bad_usage_is_2_and_says_what_was_expected(
    console: Console, arguments: list[str], why: str
) -> None:
    ended = console(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert why in ended.err
    assert "Traceback" not in ended.err
    ended = console(
        *arguments, *(["--json"] if arguments[0] not in ("serve", "completion") else [])
    )
    assert ended.code == 2


def test_bad_usage_is_a_document_with_json(console: Console) -> None:
    ended = console("get", "--json")
    assert ended.out == ""
    assert ended.error["code"] == "usage"
    assert ended.error["exit_code"] == 2


def test_without_a_command_the_help_comes_and_2(console: Console) -> None:
    ended = console()
    assert ended.code == 2
    assert "Usage: trikv" in ended.err


def test_help_and_version(console: Console) -> None:
    assert console("--version").out == f"trikv {__version__}\n"
    for name in ("", *group.commands):
        for option in ("--help", "-h"):
            ended = console(*filter(None, [name, option]))
            assert ended.code == 0
            assert "Usage: trikv" in ended.out
            assert max(map(len, ended.out.splitlines())) <= 80, name


# -- nodes --------------------------------------------------------------------------------------------


def test_nodes_come_from_options_else_the_environment_else_from_the_default() -> None:
    assert options.nodes_of(["a:1", "http://b:2"], {"TRIKV_URLS": "c:3"}) == (
        "http://a:1",
        "http://b:2",
    )
    for text in ("a:1,http://b:2", " a:1  b:2 ", "a:1, b:2,"):
        found = options.nodes_of([], {"TRIKV_URLS": text})
        assert found == ("http://a:1", "http://b:2"), text
    for environment in ({}, {"TRIKV_URLS": ""}, {"TRIKV_URLS": " , "}):
        assert options.nodes_of([], environment) == ("http://127.0.0.1:8000",)


def test_a_bad_variable_is_named(console: Console) -> None:
    console.environment["TRIKV_URLS"] = "http://a:1/path"
    ended = console("get", "k")
    assert ended.code == 2
    assert ended.err.startswith("trikv: TRIKV_URLS: a node's URL looks like")


# -- other ends ---------------------------------------------------------------------------------------


def test_ctrl_c_is_130_and_says_that_a_write_may_have_happened() -> None:
    for error in (KeyboardInterrupt(), BaseExceptionGroup("both", [KeyboardInterrupt()])):
        with pytest.raises(CommandError) as raised:
            explain(error, write=True)
        assert raised.value.exit_code == 130
        assert raised.value.may_have_happened
    with pytest.raises(CommandError) as raised:
        explain(KeyboardInterrupt(), write=False)
    assert not raised.value.may_have_happened


def test_what_is_expected_comes_out_of_a_group_and_a_bug_as_it_is() -> None:
    with pytest.raises(ClosedPipe):
        explain(BaseExceptionGroup("g", [BaseExceptionGroup("g", [ClosedPipe()])]), write=False)
    with pytest.raises(ZeroDivisionError):
        explain(ZeroDivisionError(), write=False)


def test_a_bug_is_6_with_its_traceback(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(keys, "show_item", broken)
    ended = console("get", "k", *URLS, answers=always(a=item("k", 1, version(1))))
    assert ended.code == 6
    assert "Traceback" in ended.err
    assert "a bug in trikv: ZeroDivisionError('a bug')" in ended.err


class Gone(Stream):
    def write(self, text: str) -> int:
        raise BrokenPipeError


class Full(Stream):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_an_output_that_is_gone_ends_it_and_a_full_one_is_told() -> None:
    with pytest.raises(ClosedPipe):
        Output(out=Gone()).line("x")
    with pytest.raises(CommandError) as raised:
        Output(out=Full()).line("x")
    assert raised.value.exit_code is ExitCode.FAILED
    assert "No space left on device" in raised.value.detail


def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trikv.cli", *arguments],
        text=True,
        timeout=60,
        check=False,
        stderr=subprocess.PIPE,
        **more,
    )


def test_a_pipe_that_nobody_reads_is_141_without_a_word() -> None:
    reader = subprocess.Popen([sys.executable, "-c", "pass"], stdin=subprocess.PIPE)
    reader.wait()
    done = run("completion", "bash", stdout=reader.stdin)
    assert reader.stdin is not None
    reader.stdin.close()
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_is_6_and_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = run("completion", "bash", stdout=full)
    assert done.returncode == 6
    assert done.stderr == "trikv: cannot write the output: No space left on device\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell's")
def test_streams_that_the_shell_has_closed_are_no_crash() -> None:
    for closed in (">&-", "2>&-", ">&- 2>&- <&-"):
        command = f"{sys.executable} -m trikv.cli completion bash {closed}"
        done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, b""), closed
    command = f"{sys.executable} -m trikv.cli put k - <&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60, check=False)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_main_gives_the_code_that_a_shell_gets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "fish"]) == 0
    assert "complete --no-files --command trikv" in capsys.readouterr().out


def test_json_is_ascii_where_the_output_is_not_utf_8(console: Console) -> None:
    answers = always(a=item("k", "é\ud83d", version(1)))
    ended = console("get", "k", "--json", *URLS, encoding="latin-1", answers=answers)
    assert ended.out.isascii()
    assert json.loads(ended.out)["value"] == "é\ud83d"
