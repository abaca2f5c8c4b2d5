"""`trikv` as a shell runs it: on real nodes, through pipes, with signals; its nodes; completion."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import Nodes, environment, open_nodes, until
from tests.e2e.terminal import Terminal
from trikv import __version__
from trikv.web.routes import ROUTES

TRIKV = [sys.executable, "-m", "trikv.cli"]


def run(
    *arguments: str, urls: list[str] | None = None, stdin: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """A command to its end; it never shows a traceback."""
    variables = {"TRIKV_URLS": ",".join(urls or ["http://127.0.0.1:1"]), **variables}
    done = subprocess.run(
        [*TRIKV, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **variables},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def urls_of(nodes: Nodes) -> list[str]:
    return [node.url for node in nodes.all]


def document(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def test_keys_on_real_nodes(tmp_path: Path) -> None:
    with open_nodes(tmp_path, 2, write_quorum=1) as nodes:
        urls = urls_of(nodes)[::-1]
        done = run("put", "greeting", '{"text": "grüß dich"}', urls=urls)
        assert (done.returncode, done.stderr) == (0, "")
        assert run("get", "greeting", urls=urls).stdout == '{"text": "grüß dich"}\n'
        told = document(run("get", "greeting", "--json", urls=urls))
        held = run("get", "greeting", "--min-version", told["version"], urls=[urls[0]])
        assert held.stdout == '{"text": "grüß dich"}\n'
        piped = run("put", "copy", "-", urls=urls, stdin=held.stdout)
        assert piped.returncode == 0
        assert run("put", "odd/../key//ä?", "--string", "x", urls=urls).returncode == 0
        listed = run("list", "--json", urls=urls).stdout.splitlines()
        assert [json.loads(line)["key"] for line in listed] == [
            "copy",
            "greeting",
            "odd/../key//ä?",
        ]
        version = told["version"]
        assert run("put", "greeting", "2", "--if-version", version, urls=urls).returncode == 0
        late = run("put", "greeting", "3", "--if-version", version, "--json", urls=urls)
        assert late.returncode == 3
        assert json.loads(late.stderr)["error"]["code"] == "version_conflict"
        assert run("put", "greeting", "3", "--if-absent", urls=urls).returncode == 3
        assert run("delete", "greeting", urls=urls).returncode == 0
        assert run("delete", "greeting", urls=urls).returncode == 1
        assert run("get", "greeting", urls=urls).returncode == 1


def test_control_of_real_nodes(tmp_path: Path) -> None:
    with open_nodes(tmp_path, 2, write_quorum=1) as nodes:
        urls = urls_of(nodes)
        assert run("status", urls=urls).returncode == 0
        assert document(run("quorum", "2", "--json", urls=urls))["previous_write_quorum"] == 1
        assert run("quorum", urls=urls).stdout.startswith("quorum 2 of 2 followers\n")
        beyond = run("quorum", "3", urls=urls)
        assert (beyond.returncode, beyond.stdout) == (2, "")
        assert run("lag", "0", "20", "--follower", "follower1", urls=urls).returncode == 0
        told = document(run("lag", "--json", urls=urls))
        assert [one["max_delay_ms"] for one in told["followers"]] == [20, 0]
        assert run("cut", "follower2", urls=urls).stdout == "the wire to follower2 is cut\n"
        assert run("cut", "nobody", urls=urls).returncode == 2
        status = run("status", urls=urls)
        assert status.returncode == 1
        assert "the link to follower2 is cut" in status.stdout
        refused = run("put", "k", "1", "--timeout", "1", "--json", urls=urls)
        assert refused.returncode == 4
        assert json.loads(refused.stderr)["error"]["code"] == "not_enough_followers"
        assert run("heal", "--all", urls=urls).returncode == 0
        until(lambda: run("status", urls=urls).returncode == 0, "all is well again")
        told = document(run("bench", "--seconds", "0.5", "--clients", "2", "--json", urls=urls))
        assert told["confirmed"] > 0
        assert run("list", "--prefix", "trikv-bench/", urls=urls).stdout == ""
        nodes.followers[1].kill()
        assert run("status", urls=urls).returncode == 1


def test_a_write_that_is_not_confirmed_in_time_is_5_with_its_version(tmp_path: Path) -> None:
    slow = {"MIN_DELAY_MS": "2000", "MAX_DELAY_MS": "2000", "WRITE_TIMEOUT": "0.2"}
    with open_nodes(tmp_path, 1, write_quorum=1, **slow) as nodes:
        done = run("put", "k", "1", "--json", urls=urls_of(nodes))
        error = json.loads(done.stderr)["error"]
        assert (done.returncode, done.stdout) == (5, "")
        assert (error["code"], error["may_have_happened"]) == ("quorum_not_met", True)
        local = document(
            run("get", "k", "--consistency", "local", "--json", urls=[nodes.leader.url])
        )
        assert local["version"] == error["version"]


def test_nobody_there(tmp_path: Path) -> None:
    for arguments in (["get", "k"], ["put", "k", "1"], ["list"], ["quorum"], ["cut", "f"]):
        done = run(*arguments, "--timeout", "0.3")
        assert (done.returncode, done.stdout) == (4, ""), arguments
    assert run("status").returncode == 4


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals are POSIX's")
def test_a_reader_that_has_enough_ends_a_list_without_a_word(tmp_path: Path) -> None:
    with open_nodes(tmp_path, 0, write_quorum=0) as nodes:
        for number in range(3):
            operations = [
                {"op": "put", "key": f"{number}/{i:04}", "value": "x" * 100} for i in range(1000)
            ]
            answer = nodes.leader.ask("POST", "/batch", {"operations": operations})
            assert answer.status_code == 200, answer.text
        command = " ".join([*TRIKV, "list", "--all", "--url", nodes.leader.url])
        done = subprocess.run(
            ["bash", "-c", f"{command} | head -1; echo ${{PIPESTATUS[0]}}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.splitlines()[1] == "141"
        assert done.stderr == ""


# -- watch --------------------------------------------------------------------------------------------


def change(number: int) -> bytes:
    version = f"1.aa-{number}"
    told = {"key": f"k{number}", "value": number, "version": version}
    return f"event: change\nid: {version}\ndata: {json.dumps(told)}\n\n".encode()


class Watched(BaseHTTPRequestHandler):
    """`GET /watch`: two changes, and then only what keeps the stream alive."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(
            change(1) + change(2) + b'event: heartbeat\ndata: {"version": "1.aa-2"}\n\n'
        )
        self.wfile.flush()
        self.close_connection = True
        threading.Event().wait(60)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def stand_in() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Watched)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.socket.close()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("as_json", [False, True])
def test_a_watch_tells_at_once_and_ends_with_ctrl_c(as_json: bool) -> None:
    with stand_in() as url:
        more = ["--json"] if as_json else []
        process = subprocess.Popen(
            [*TRIKV, "watch", "--prefix", "k", "--url", url, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        if as_json:
            assert [json.loads(line)["key"] for line in lines] == ["k1", "k2"]
        else:
            assert [line.split("\t")[2] for line in lines] == ["k1", "k2"]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (130, "")
        seen = {"1.aa-1", "1.aa-2"}  # the second once its heartbeat was read, too
        if as_json:
            assert json.loads(err)["error"]["resume"] in seen
        else:
            hint = "To go on from here: trikv watch --prefix k --after "
            assert err in {f"trikv: interrupted\n{hint}{version}\n" for version in seen}


def test_a_watch_of_real_nodes(tmp_path: Path) -> None:
    if not any(route.path == "/watch" for route in ROUTES):
        pytest.skip("the nodes have no /watch yet")
    with open_nodes(tmp_path, 1, write_quorum=1) as nodes:
        for number in range(3):
            run("put", f"k{number}", str(number), urls=urls_of(nodes))
        done = run("watch", "--count", "3", "--json", urls=urls_of(nodes))
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert [(one["key"], one["value"]) for one in told] == [("k0", 0), ("k1", 1), ("k2", 2)]


# -- serve --------------------------------------------------------------------------------------------


def settings(**more: str) -> dict[str, str]:
    return environment({"HOST": "127.0.0.1", "PORT": "0", "FOLLOWER_URLS": "", **more})


@contextmanager
def started(command: list[str], directory: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A node that serves, and its URL; gone afterwards."""
    with subprocess.Popen(
        command,
        env=settings(DATA_DIR=str(directory)),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as node:
        try:
            assert node.stderr is not None
            while "node.started" not in (line := node.stderr.readline()):
                assert line
            url = re.search(r"url=(\S+)", line)
            assert url is not None
            yield node, url[1]
        finally:
            node.kill()


@pytest.mark.parametrize("command", [[*TRIKV, "serve"], [sys.executable, "-m", "trikv"]])
def test_serve_and_python_m_trikv_are_the_same(tmp_path: Path, command: list[str]) -> None:
    def ended(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments],
            env=settings(**more),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    bad = ended(WRITE_QUORUM="three")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith("WRITE_QUORUM='three': expected")
    assert "--stop-at-eof" in ended("--help").stdout
    assert ended("now").returncode == 2
    with started([*command, "--stop-at-eof"], tmp_path / "data") as (node, url):
        port = url.rpartition(":")[2]
        assert ended(PORT=port, DATA_DIR=str(tmp_path / "x")).returncode == 2
        assert node.stdin is not None
        assert node.stderr is not None
        node.stdin.close()
        assert node.wait(30) == 0
        assert node.stderr.read().splitlines()[-1].endswith("node.stopped")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("more", [[], ["--stop-at-eof"]])
def test_serve_stops_when_it_is_told(
    tmp_path: Path, number: signal.Signals, more: list[str]
) -> None:
    with started([*TRIKV, "serve", *more], tmp_path) as (node, _):
        node.send_signal(number)
        assert node.wait(30) == 0


# -- at a terminal ------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX's")
def test_a_terminal_gets_colours_and_is_told_that_it_takes_long(tmp_path: Path) -> None:
    with open_nodes(tmp_path, 1, write_quorum=1) as nodes:
        url = nodes.leader.url
        with Terminal([*TRIKV, "status", "--url", url]) as terminal:
            assert terminal.end() == 0
            assert "\x1b[32mlive" in terminal.shown
        with Terminal([*TRIKV, "status", "--url", url], environment={"NO_COLOR": "1"}) as terminal:
            assert terminal.end() == 0
            assert "\x1b" not in terminal.shown
        with Terminal([*TRIKV, "status", "--watch", "--interval", "0.1", "--url", url]) as terminal:
            for _ in range(2):
                terminal.until("all is well")
            terminal.press("\x03")
            assert terminal.end() == 130
    gone = [*TRIKV, "get", "k", "--url", url, "--timeout", "30"]
    with Terminal(gone) as terminal:
        terminal.until("no answer yet; trying for 30 s (--timeout)")
        terminal.press("\x03")
        assert terminal.end() == 130
        assert "trikv: interrupted" in terminal.shown
        assert "Traceback" not in terminal.shown


# -- the script, and completion -----------------------------------------------------------------------

SCRIPT = Path(sys.executable).parent / "trikv"


def test_the_script_is_installed() -> None:
    done = subprocess.run([SCRIPT, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"trikv {__version__}\n"


def completed(shell: str, words: str) -> set[str]:
    """What a shell offers after these words."""
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"there is no {shell} here")
    path = {**os.environ, "PATH": f"{SCRIPT.parent}{os.pathsep}{os.environ['PATH']}"}
    last = len(words.split(" ")) - 1
    script = {
        "bash": f"""
            source <(trikv completion bash)
            COMP_WORDS=({words.replace("|", "")}{' ""' if words.endswith(" ") else ""})
            COMP_CWORD={last}
            compopt() {{ :; }}
            $(complete -p trikv | sed 's/.*-F \\([^ ]*\\) .*/\\1/') trikv
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """,
        "fish": f"trikv completion fish | source; complete --do-complete '{words}'",
        "zsh": f"""
            autoload -Uz compinit; compinit -u -D
            compadd() {{ print -l -- ${{(P)${{@[-1]}}}} }}
            _describe() {{ print -l -- ${{(P)3}} }}
            eval "$(trikv completion zsh)"
            words=({words}{' ""' if words.endswith(" ") else ""}); CURRENT={last + 1}
            _trikv_completion
        """,
    }[shell]
    arguments = [found, *(["-f"] if shell == "zsh" else []), "-c", script]
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=60, check=False, env=path
    )
    assert done.stderr == ""
    return {re.split(r"[\t:]", line)[0] for line in done.stdout.splitlines() if line}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_options_and_choices(shell: str) -> None:
    commands = completed(shell, "trikv ")
    assert {"serve", "get", "put", "cluster", "completion"} <= commands
    assert completed(shell, "trikv st") == {"status"}
    assert {"--if-absent", "--if-version", "--json"} <= completed(shell, "trikv put --")
    assert completed(shell, "trikv get k --consistency l") == {"linearizable", "local"}
    assert completed(shell, "trikv completion f") == {"fish"}
