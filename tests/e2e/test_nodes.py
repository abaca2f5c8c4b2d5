"""Six real processes: quorum, parity, bad starts, stops, and followers that die under load."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.cluster import NodeProcess, Nodes, open_nodes, run_to_the_end, until
from trikv import __version__


class Load:
    """Clients that put unique values, one after the other each, and record what they were told."""

    def __init__(self, url: str, clients: int = 4, keys: int = 20) -> None:
        self.answers: list[tuple[float, int, str]] = []
        self.confirmed: dict[str, tuple[str, str]] = {}  # key: version, value
        self._url = url
        self._keys = keys
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._client, args=(i,)) for i in range(clients)]

    @property
    def writes(self) -> int:
        return len(self.answers)

    def _client(self, client: int) -> None:
        with httpx.Client(timeout=30, trust_env=False) as http:
            count = 0
            while not self._over.is_set():
                # A key has one client, so that the last value confirmed is known.
                key, value = f"{client}/{count % self._keys}", f"{client}:{count}"
                count += 1
                answer = http.put(f"{self._url}/kv/{key}", json={"value": value})
                with self._lock:
                    self.answers.append((time.monotonic(), answer.status_code, answer.text))
                    if answer.status_code == 200:
                        self.confirmed[key] = (answer.json()["version"], value)

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join(60)

    def refused(self) -> list[tuple[float, int, str]]:
        return [answer for answer in self.answers if answer[1] != 200]

    def goes_on(self, writes: int = 50) -> None:
        """Until so many writes more have been answered."""
        before = self.writes
        until(lambda: self.writes >= before + writes, f"{writes} writes more")


def dumps(nodes: Nodes) -> list[Any]:
    return [node.get("/dump") for node in nodes.all]


def test_a_quorum_confirms_writes_and_all_replicas_end_equal(tmp_path: Path) -> None:
    with open_nodes(tmp_path) as nodes:
        for quorum in range(6):
            told = nodes.leader.ask("POST", "/admin/quorum", {"write_quorum": quorum})
            assert told.json()["write_quorum"] == quorum
            answer = nodes.leader.put(f"quorum/{quorum}", {"k": [quorum, None, "é"]})
            assert answer.status_code == 200, answer.text
            assert answer.json()["follower_acks"] == quorum
        status = nodes.wait_match()
        digests = {told["digest"] for told in status["followers"]} | {status["leader"]["digest"]}
        assert len(digests) == 1
        held = dumps(nodes)
        assert held == [{f"quorum/{k}": {"k": [k, None, "é"]} for k in range(6)}] * 6


def test_writes_go_on_while_a_follower_is_killed_and_it_catches_up(tmp_path: Path) -> None:
    with open_nodes(tmp_path) as nodes:
        load = Load(nodes.leader.url)
        with load.running():
            load.goes_on()
            nodes.followers[0].kill()
            load.goes_on(100)
            nodes.followers[1].kill()
            load.goes_on(100)
            for node in nodes.followers[:2]:
                node.start()
                node.wait_started()
            load.goes_on(100)
        assert load.refused() == []
        nodes.wait_live(5)
        nodes.wait_match()
        held = dumps(nodes)
        assert held == [{key: value for key, (_, value) in load.confirmed.items()}] * 6


def test_a_write_that_cannot_be_confirmed_is_refused_at_once_and_those_after_it_go_on(
    tmp_path: Path,
) -> None:
    with open_nodes(tmp_path, write_quorum=3) as nodes:
        for node in nodes.followers[:3]:
            node.kill()
        until(lambda: nodes.leader.get("/health")["live_links"] == 2, "the leader notices")
        began = time.monotonic()
        answer = nodes.leader.put("a", 1)
        assert time.monotonic() - began < 5  # not WRITE_TIMEOUT, which is 10 s here
        assert (answer.status_code, answer.json()["code"]) == (503, "not_enough_followers")
        assert nodes.leader.ask("GET", "/health?ready=true").status_code == 503
        for node in nodes.followers[:3]:
            node.start()
            node.wait_started()
        nodes.wait_live(5)
        assert nodes.leader.put("a", 2).status_code == 200
        nodes.wait_match()
        assert dumps(nodes) == [{"a": 2}] * 6


def test_killed_nodes_come_back_with_all_that_was_confirmed(tmp_path: Path) -> None:
    with open_nodes(tmp_path) as nodes:
        load = Load(nodes.leader.url)
        with load.running():
            load.goes_on(200)
        for node in nodes.all:
            node.kill()
        for node in (*nodes.followers, nodes.leader):
            node.start()
            node.wait_started()
        nodes.wait_live(5)
        held = nodes.leader.get("/dump")
        assert held == {key: value for key, (_, value) in load.confirmed.items()}
        nodes.wait_match()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_finishes_what_is_in_flight_and_exits_0(
    tmp_path: Path, how: signal.Signals
) -> None:
    with open_nodes(tmp_path, MIN_DELAY_MS="1500", MAX_DELAY_MS="2000") as nodes:
        answers: list[httpx.Response] = []

        def put(index: int) -> None:
            with httpx.Client(timeout=30, trust_env=False) as http:
                content = {"value": index}
                answers.append(http.put(f"{nodes.leader.url}/kv/key{index}", json=content))

        threads = [threading.Thread(target=put, args=(index,)) for index in range(20)]
        for thread in threads:
            thread.start()
        until(lambda: nodes.leader.get("/health")["inflight_writes"] == 20, "20 writes in flight")
        code = nodes.leader.stop(how)
        for thread in threads:
            thread.join(30)
        assert code == 0
        assert [answer.status_code for answer in answers] == [200] * 20
        # Deliveries in the background were finished too: every follower has every write.
        expected = {f"key{index}": index for index in range(20)}
        assert [node.get("/dump") for node in nodes.followers] == [expected] * 5
        assert [node.stop(how) for node in nodes.followers] == [0] * 5
        assert "node.stopped" in nodes.leader.log()


def test_a_client_that_does_not_read_and_an_idle_one_do_not_hold_up_a_stop(tmp_path: Path) -> None:
    with open_nodes(tmp_path, followers=0, write_quorum=0) as nodes:
        for index in range(30):
            nodes.leader.put(f"key{index}", "x" * 500_000)
        with (
            socket.create_connection(nodes.leader.address) as idle,
            socket.create_connection(nodes.leader.address) as deaf,
            socket.create_connection(nodes.leader.address) as slow,
        ):
            idle.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            assert idle.recv(12) == b"HTTP/1.1 200"
            deaf.sendall(b"GET /dump HTTP/1.1\r\nHost: a\r\n\r\n")
            slow.sendall(b"PUT /kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
            assert deaf.recv(1) == b"H"
            assert nodes.leader.stop() == 0


def test_clients_that_hang_up_in_the_middle_of_a_request_are_no_errors(tmp_path: Path) -> None:
    put = b"PUT /kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n"
    with open_nodes(tmp_path, followers=1, write_quorum=1, MAX_DELAY_MS="100") as nodes:
        for sent in (b"PUT /kv", put, put + b'{"val', put + b'{"value": 1}'):
            for waits_s in (0, 0.02):
                with socket.create_connection(nodes.leader.address) as client:
                    client.sendall(sent)
                    time.sleep(waits_s)
        assert nodes.leader.put("b", 1).status_code == 200
        # `open_nodes` looks into the logs.


def test_a_bad_start_says_what_is_wrong_and_exits_2(tmp_path: Path) -> None:
    with open_nodes(tmp_path, followers=1, write_quorum=1) as nodes:
        follower = nodes.followers[0]
        port = str(follower.address[1])
        taken = run_to_the_end(PORT=port, DATA_DIR=str(tmp_path / "other"), FOLLOWER_URLS="")
        assert (taken.returncode, taken.stdout) == (2, "")
        assert taken.stderr == (
            f"PORT='{port}': expected a free port, but 127.0.0.1:{port} is in use\n"
        )
        assert not (tmp_path / "other").exists()

        shared = run_to_the_end(ROLE="follower", DATA_DIR=str(follower.data_dir))
        assert shared.returncode == 2
        assert shared.stderr.count("\n") == 1
        assert "DATA_DIR" in shared.stderr
        assert "another node is using it" in shared.stderr

        bad = run_to_the_end(WRITE_QUORUM="three")
        assert bad.returncode == 2
        assert bad.stderr.startswith("WRITE_QUORUM='three': expected a whole number from 0")
        assert follower.get("/health")["status"] == "ok"


def test_a_corrupt_database_is_refused_by_name(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "trikv.sqlite3").write_bytes(b"not a database at all" * 500)
    done = run_to_the_end(DATA_DIR=str(directory))
    assert done.returncode == 2
    assert done.stderr.startswith(f"DATA_DIR='{directory}': expected a directory")
    assert "Traceback" not in done.stderr


def test_the_version_and_help_need_no_settings() -> None:
    assert run_to_the_end("--version", ROLE="nonsense").stdout == f"trikv {__version__}\n"
    assert "docs/operations.md" in run_to_the_end("--help", ROLE="nonsense").stdout


def test_the_start_up_line_says_role_url_quorum_lag_and_data_directory(tmp_path: Path) -> None:
    with open_nodes(tmp_path, followers=1, write_quorum=1, MAX_DELAY_MS="7") as nodes:
        load = Load(nodes.leader.url)
        with load.running():
            load.goes_on(100)
        log = nodes.leader.log()
        started = next(line for line in log.splitlines() if " node.started " in line)
        for part in (
            "role=leader",
            f"url={nodes.leader.url}",
            "write_quorum=1",
            "lag_ms=0-7",
            f"data_dir={nodes.leader.data_dir}",
            f"dashboard={nodes.leader.url}/ui",
        ):
            assert part in started
        assert "WARNING quorum.fragile write_quorum=1 followers=1" in log  # and two traps are told
        assert "WARNING lag.simulated lag_ms=0-7" in log
        assert len(log.splitlines()) < 15, log  # quiet at INFO, however many writes


def test_a_node_that_is_paused_is_down_and_comes_back(tmp_path: Path) -> None:
    with open_nodes(tmp_path, followers=2, write_quorum=1, REQUEST_TIMEOUT="0.5") as nodes:
        paused: NodeProcess = nodes.followers[0]
        paused.process.send_signal(signal.SIGSTOP)
        try:
            assert nodes.leader.put("a", 1).status_code == 200
            until(lambda: nodes.leader.get("/health")["live_links"] == 1, "the link is down")
            assert nodes.leader.put("b", 2).status_code == 200
        finally:
            paused.process.send_signal(signal.SIGCONT)
        nodes.wait_live(2)
        nodes.wait_match()
