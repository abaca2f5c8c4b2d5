"""Real nodes in surroundings that do them no good: nobody reads, files go, signals come early."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.cluster import NodeProcess, environment, open_nodes, run_to_the_end, until

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals, modes and pipes of POSIX")

needs_namespaces = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="needs root and Linux"
)


@contextlib.contextmanager
def node_of(command: list[str], **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with pipes that nobody reads; killed at the end if it has not ended."""
    process = subprocess.Popen(
        command,
        env=environment({"HOST": "127.0.0.1", "MAX_DELAY_MS": "0", **settings}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def test_a_node_whose_log_nobody_reads_works_and_stops(tmp_path: Path) -> None:
    port = free_port()
    settings = {"PORT": str(port), "DATA_DIR": str(tmp_path / "data"), "LOG_LEVEL": "DEBUG"}
    with node_of([sys.executable, "-m", "trikv"], **settings) as process:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:
            until(lambda: _answers(client), "the node answers")
            for _ in range(8000):  # each is a line or two, of some 250 bytes
                client.get("/kv/nothing", headers={"x-request-id": "x" * 100})
            assert client.put("/kv/a", json={"value": 1}).status_code == 200
            lost = [
                line
                for line in client.get("/metrics").text.splitlines()
                if line.startswith("trikv_log_lines_lost_total ")
            ]
            assert float(lost[0].split()[1]) > 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_crash_ends_a_node_whose_log_nobody_reads() -> None:
    code = (
        "import trikv.__main__ as m, trikv.log as logs\n"
        "async def run(config, stop_at_eof):\n"
        "    for _ in range(3000): logs.warning('x', text='x' * 200)\n"
        "    raise RuntimeError('crash')\n"
        "m.run = run\n"
        "raise SystemExit(m.run_node())"
    )
    with node_of([sys.executable, "-c", code]) as process:
        assert process.wait(20) == 1


def test_the_traceback_of_a_crash_is_the_end_of_the_log() -> None:
    code = (
        "import trikv.__main__ as m\n"
        "async def run(config, stop_at_eof): raise RuntimeError('crash')\n"
        "m.run = run\n"
        "raise SystemExit(m.run_node())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=environment({}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("Traceback (most recent call last):\n")
    assert ran.stderr.endswith("RuntimeError: crash\n")


def _answers(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return client.get("/health").status_code == 200
    return False


def test_what_a_node_makes_is_its_users_alone(tmp_path: Path) -> None:
    with open_nodes(tmp_path, followers=0, write_quorum=0) as nodes:
        nodes.leader.put("a", 1)
        data = nodes.leader.data_dir
        modes = {path.name: path.stat().st_mode & 0o777 for path in data.iterdir()}
        assert data.stat().st_mode & 0o777 == 0o700
        assert set(modes.values()) == {0o600}, modes
        assert "data.exposed" not in nodes.leader.log()
        nodes.leader.stop()
        data.chmod(0o755)
        (data / "trikv.sqlite3").chmod(0o644)
        nodes.leader.start()
        nodes.leader.wait_started()
        until(lambda: " WARNING data.exposed " in nodes.leader.log(), "it says so")
        assert f"{data} 0755" in nodes.leader.log()
        assert f"{data / 'trikv.sqlite3'} 0644" in nodes.leader.log()


def test_a_leader_whose_directory_was_removed_confirms_nothing(tmp_path: Path) -> None:
    with open_nodes(tmp_path, followers=0, write_quorum=0) as nodes:
        leader = nodes.leader
        assert leader.put("a", 1).status_code == 200
        leader.data_dir.rename(tmp_path / "elsewhere")
        for _ in range(3):
            refusal = leader.put("a", 2)
            assert (refusal.status_code, refusal.json()["code"]) == (507, "storage_failed")
            assert "was removed or replaced" in refusal.json()["detail"]
        assert leader.get("/kv/a")["value"] == 1
        assert leader.log().count(" storage.failed ") == 1
        (tmp_path / "elsewhere").rename(leader.data_dir)
        assert leader.put("a", 3).status_code == 200


def test_a_follower_whose_directory_was_removed_acknowledges_nothing(tmp_path: Path) -> None:
    with open_nodes(tmp_path, followers=1, write_quorum=1, WRITE_TIMEOUT="2") as nodes:
        leader, (follower,) = nodes.leader, nodes.followers
        assert leader.put("a", 1).status_code == 200
        shutil.rmtree(follower.data_dir)
        answer = leader.put("a", 2)
        assert answer.status_code == 503
        time.sleep(5)
        for node in (leader, follower):
            said = [line for line in node.log().splitlines() if " WARNING " in line]
            assert len(said) <= 2, said
            assert any("was removed or replaced" in line for line in said)


@needs_namespaces
def test_a_sigterm_ends_process_1_while_it_still_starts(tmp_path: Path) -> None:
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-m", "trikv"]
    settings = {"PORT": str(free_port()), "DATA_DIR": str(tmp_path / "data")}
    with node_of(command, **settings) as unshare:
        children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
        until(lambda: children.read_text().strip(), "the node begins")
        node = int(children.read_text())
        until(lambda: _catches(node, signal.SIGTERM), "it hears SIGTERM")
        os.kill(node, signal.SIGTERM)
        assert unshare.wait(20) == 0
        assert not (tmp_path / "data").exists(), "it heard it late, or not at all"


def _catches(process: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{process}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (number - 1) & 1)


def test_a_node_that_listens_at_all_ipv6_addresses_tells_such_a_url(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path, "n", ROLE="leader", HOST="::", MAX_DELAY_MS="0")
    try:
        node.start()
        node.wait_started()
        assert node.url.startswith("http://[::1]:")
        assert node.client.get(f"{node.url}/health").status_code == 200
    finally:
        node.close()


def test_a_host_of_two_addresses_has_one_port(tmp_path: Path) -> None:
    if len({info[0] for info in socket.getaddrinfo("localhost", 80)}) < 2:
        pytest.skip("localhost has one address here")
    node = NodeProcess(tmp_path, "n", ROLE="leader", HOST="localhost", MAX_DELAY_MS="0")
    try:
        node.start()
        node.wait_started()
        port = node.address[1]
        for address in ("127.0.0.1", "[::1]"):
            assert node.client.get(f"http://{address}:{port}/health").status_code == 200
    finally:
        node.close()


def test_a_password_is_not_printed() -> None:
    ran = run_to_the_end(ROLE="leader", FOLLOWER_URLS="http://user:s3cret@f1:8000")
    assert ran.returncode == 2
    assert ran.stderr.startswith("FOLLOWER_URLS='***@f1:8000': expected ")
    assert "s3cret" not in ran.stderr + ran.stdout


#: A node that may write to one directory only, which is mounted elsewhere first.
_READ_ONLY = """
set -e
mount --make-rprivate /
mount --bind "$1" /mnt
for place in /tmp /var/tmp /usr/tmp /dev/shm; do
  if [ -d $place ]; then mount --bind $place $place; mount -o remount,ro,bind $place; fi
done
cd /proc
exec "$2" -m trikv
"""


@needs_namespaces
def test_a_takeover_needs_no_directory_for_temporary_files(tmp_path: Path) -> None:
    with open_nodes(tmp_path, followers=2, write_quorum=1) as nodes:
        leader, (empty, other) = nodes.leader, nodes.followers
        for index in range(10):  # more than SQLite keeps in memory
            operations = [
                {"op": "put", "key": f"{index}/{i}", "value": "x" * 900} for i in range(1000)
            ]
            assert leader.ask("POST", "/batch", {"operations": operations}).status_code == 200
        nodes.wait_match()
        leader.stop()
        empty.stop()
        empty.empty()
        empty.data_dir.mkdir()
        leader.settings["ROLE"] = "follower"
        nodes.restart(leader)
        settings = {
            **{"ROLE": "leader", "NODE_ID": empty.name, "DATA_DIR": "/mnt", "WRITE_QUORUM": "1"},
            **{"PORT": empty.settings["PORT"], "FOLLOWER_URLS": f"{leader.url},{other.url}"},
        }
        command = ["unshare", "-m", "bash", "-c", _READ_ONLY, "sh", str(empty.data_dir)]
        with node_of([*command, sys.executable], **settings) as process:
            until(lambda: _leads(empty) or process.poll() is not None, "it leads")
            assert empty.ask("GET", "/kv/9/999?consistency=linearizable").status_code == 200


def _leads(node: NodeProcess) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return node.ask("GET", "/health?ready=true").status_code == 200
    return False
