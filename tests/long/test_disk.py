"""Disks: full ones, and whether an acknowledgement really comes after the data is on one."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.cluster import NodeProcess, Nodes, open_nodes, until
from tests.e2e.load import MixedLoad

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tmpfs and strace are Linux's")


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting takes root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def enlarge(path: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(path)], check=True)


def test_a_follower_on_a_full_disk_does_not_count_says_why_and_catches_up(tmp_path: Path) -> None:
    small = tmp_path / "follower1"
    with (
        small_disk(small, "6m"),
        open_nodes(tmp_path, followers=2, write_quorum=1) as nodes,
    ):
        load = MixedLoad(nodes.leader.url)
        with load.running():
            fill_and_make_room(nodes, small)
            load.goes_on()
        nodes.wait_match()
        load.check(nodes.followers[0])


def fill_and_make_room(nodes: Nodes, small: Path) -> None:
    """Values that do not fit on the small disk, until it says so; then room."""
    for index in range(100):
        answer = nodes.leader.put(f"large{index}", "x" * 100_000)
        assert answer.status_code == 200, answer.text
    until(lambda: nodes.leader.get("/health")["live_links"] == 1, "one follower is down")
    told = nodes.leader.get("/admin/replica-status?data=false")["followers"][0]
    assert told["link"] == "down"
    assert "storage_failed" in told["link_reason"]
    assert "full" in told["link_reason"]
    # It does not count: with two needed there are too few.
    answer = nodes.leader.ask("POST", "/admin/quorum", {"write_quorum": 2})
    assert answer.status_code == 200
    assert nodes.leader.put("more", 1).json()["code"] == "not_enough_followers"
    assert nodes.followers[0].get("/health")["status"] == "ok"
    assert nodes.followers[0].get("/kv/large0")["value"] == "x" * 100_000
    enlarge(small, "200m")
    nodes.wait_live(2)
    assert nodes.leader.put("more", 1).status_code == 200


def test_a_leader_on_a_full_disk_confirms_nothing_and_goes_on_after(tmp_path: Path) -> None:
    small = tmp_path / "leader"
    with small_disk(small, "6m"), open_nodes(tmp_path, followers=1, write_quorum=1) as nodes:
        small_values = [{"op": "put", "key": f"small{i:03}", "value": i} for i in range(150)]
        nodes.leader.ask("POST", "/batch", {"operations": small_values})
        confirmed = 0
        while True:
            answer = nodes.leader.put(f"key{confirmed}", "x" * 100_000)
            if answer.status_code != 200:
                break
            confirmed += 1
        assert (answer.status_code, answer.json()["code"]) == (507, "storage_failed")
        assert "full" in answer.json()["detail"]
        assert nodes.leader.get("/kv/key0")["value"] == "x" * 100_000
        # Also what lies in the write buffer: there may be no room to merge it.
        listed = nodes.leader.get("/kv?prefix=small&limit=1000")["items"]
        assert [item["value"] for item in listed] == [*range(150)]
        enlarge(small, "200m")
        assert nodes.leader.put("after", 1).status_code == 200
        nodes.wait_match()
        held = nodes.followers[0].get("/dump")
        assert {f"key{index}" for index in range(confirmed)} <= held.keys()


@contextmanager
def traced(node: NodeProcess, log: Path) -> Iterator[None]:
    """The node's system calls, in order, in a file."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    calls = "recvfrom,sendto,fdatasync,fsync"
    command = ["strace", "-f", "-q", "-s", "200000", "-e", f"trace={calls}", "-o", str(log)]
    tracer = subprocess.Popen([*command, "-p", str(node.process.pid)])
    try:
        until(lambda: "TracerPid:\t0" not in status(node.process.pid), "strace is attached")
        yield
    finally:
        tracer.terminate()
        tracer.wait(30)


def status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def answers_before_sync(log: str, asked: str) -> tuple[int, int]:
    """Of the requests with `asked` in them: how many were answered, and how many of these too early."""
    answered = early = 0
    waiting: bool | None = None  # whether such a request is open, and then whether it is synced
    seen: set[str] = set()  # what comes again is on disk already, and needs no sync
    for line in log.splitlines():
        if "recvfrom" in line and asked in line:
            # To its end: how many bytes were read says only whether its head came with it.
            body = line.partition(asked)[2].rpartition('"')[0]
            waiting = None if body in seen else False
            seen.add(body)
        elif re.search(r"f(data)?sync(\(| resumed).*= 0$", line) and waiting is False:
            waiting = True
        elif "sendto" in line and "HTTP/1.1 200" in line and waiting is not None:
            answered += 1
            early += not waiting
            waiting = None
    return answered, early


def test_every_acknowledgement_and_every_promise_comes_after_its_fdatasync(tmp_path: Path) -> None:
    with open_nodes(tmp_path, followers=1, write_quorum=1) as nodes:
        log = tmp_path / "strace"
        with traced(nodes.followers[0], log):
            for index in range(100):
                assert nodes.leader.put(f"key{index}", index).status_code == 200
            for _ in range(5):  # each start of a leader is a promise
                nodes.leader.stop()
                nodes.restart(nodes.leader)
                nodes.wait_live(1)
        calls = log.read_text(errors="replace")
        promise = r"\"instance\":"
        # What a new leader sends again is on disk already, and needs no sync.
        written = calls.partition(promise)[0]
        for what, part, asked, least in (
            ("batches", written, r"\"records\":[{", 100),
            ("promises", calls, promise, 5),
        ):
            answered, early = answers_before_sync(part, asked)
            print(f"\n{what}: {answered} answered, {early} before they were synced")
            assert answered >= least
            assert early == 0


def test_the_check_finds_an_answer_that_comes_before_its_sync() -> None:
    request, sync, answer = (
        'recvfrom(9, "POST ask 1", 9) = 10',
        "fdatasync(5) = 0",
        'sendto(9, "HTTP/1.1 200 ',
    )
    again = 'recvfrom(9, "ask 1", 9) = 5'
    other = request.replace("ask 1", "ask 2")
    for then, found in ((again, (1, 0)), (other, (2, 1))):
        log = "\n".join([request, sync, answer, then, answer])
        assert answers_before_sync(log, "ask") == found
    assert answers_before_sync("\n".join([request, answer, sync]), "ask") == (1, 1)
    assert answers_before_sync("\n".join([sync, request, answer]), "ask") == (1, 1)
