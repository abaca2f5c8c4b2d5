"""`python -m loadgen` for real: six processes, real files, real signals, and nothing left behind."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from loadgen.api import Leader, LeaderHealth
from loadgen.cluster import LocalCluster, local_cluster
from loadgen.errors import Unreachable
from loadgen.theory import UniformLag

PROC = Path("/proc")
needs_proc = pytest.mark.skipif(
    not PROC.joinpath("self/environ").exists(), reason="finds a node's process in /proc"
)


class Place:
    """Where a run puts its reports and its temporary files, and how it is started there."""

    def __init__(self, tmp_path: Path) -> None:
        self.reports = tmp_path / "reports"
        self.temporary = tmp_path / "tmp"
        self.temporary.mkdir()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "loadgen", "--output", str(self.reports), *arguments]

    def env(self, **more: str) -> dict[str, str]:
        return {**os.environ, "TMPDIR": str(self.temporary), "PYTHONIOENCODING": "utf-8", **more}

    async def run(self, *arguments: str, **env: str) -> "subprocess.CompletedProcess[bytes]":
        return await trio.run_process(
            self.command(*arguments),
            env=self.env(**env),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )

    def nodes(self) -> dict[str, int]:
        """The processes of this run's cluster, as far as the system lets us see: name to pid."""
        found = {}
        for environ in PROC.glob("[0-9]*/environ"):
            try:
                variables = environ.read_bytes().split(b"\0")
            except OSError:
                continue
            settings = dict(v.split(b"=", 1) for v in variables if b"=" in v)
            if settings.get(b"DATA_DIR", b"").startswith(os.fsencode(self.temporary)):
                found[settings[b"NODE_ID"].decode()] = int(environ.parent.name)
        return found

    async def a_node_has_been_started(self) -> bool:
        await trio.lowlevel.checkpoint()
        return any(self.temporary.glob("trikv-loadgen-*/*.log"))

    async def the_leader_has_been_started(self) -> bool:
        await trio.lowlevel.checkpoint()
        return "leader" in self.nodes()

    def read(self, name: str) -> str:
        return (self.reports / name).read_text("utf-8")

    def plot(self) -> bytes:
        return (self.reports / "quorum_vs_latency.png").read_bytes()

    def writes(self) -> list[dict[str, str]]:
        return list(csv.DictReader(self.read("writes.csv").splitlines()))

    def summary(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.read("summary.json"))
        return content

    async def assert_nothing_left(self, *urls: str) -> None:
        assert self.nodes() == {}
        assert list(self.temporary.iterdir()) == []
        for url in urls:
            async with Leader(url, timeout_s=5) as client:
                with pytest.raises(Unreachable):
                    await client.health()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@asynccontextmanager
async def a_cluster() -> AsyncIterator[tuple[LocalCluster, LeaderHealth]]:
    """A cluster with settings of its own: general lag, one follower's lag, and quorum."""
    async with local_cluster(
        lag=UniformLag(0, 5), lag_seed=1, write_quorum=2, on_progress=lambda text: None
    ) as cluster:
        async with Leader(cluster.leader_url, timeout_s=10) as client:
            own = {"min_delay_ms": 1, "max_delay_ms": 2, "follower": cluster.follower_urls[1]}
            await client.administer("lag", own)
            yield cluster, await client.health()


async def read_until(stream: trio.abc.ReceiveStream, part: bytes) -> bytes:
    """What a process writes, up to the chunk that completes `part`."""
    found = b""
    async for chunk in stream:
        found += chunk
        if part in found:
            break
    return found


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something holds that other processes bring about."""
    with trio.fail_after(60):
        while True:
            if await holds():
                return
            await trio.sleep(0.02)


async def health_of(url: str) -> LeaderHealth:
    async with Leader(url, timeout_s=10) as client:
        return await client.health()


async def test_a_quick_run_ends_with_the_plot_and_five_matches_and_leaves_nothing(
    place: Place,
) -> None:
    # What a shell may have set must not reach the nodes.
    done = await place.run("--quick", "--seed", "7", WRITE_QUORUM="99", ROLE="nonsense", PORT="1")
    out = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode() + out
    warnings = [line for line in done.stderr.splitlines() if line.startswith(b"warning:")]
    # It may say that the machine is busy, which is none of its doing.
    assert all(b"the mean overhead is large" in line for line in warnings)
    assert b"loadgen:" not in done.stderr
    assert "\x1b" not in out
    assert out.count("  match") == 5
    assert str(place.reports / "quorum_vs_latency.png") in out

    summary = place.summary()
    assert [result["quorum"] for result in summary["results"]] == [1, 2, 3, 4, 5]
    for result in summary["results"]:
        assert result["writes"] == 100
        assert result["failures"] == 0
        assert result["avg_latency_ms"] >= result["drawn_ideal_mean_ms"]
        assert result["overhead_p50_ms"] > 0
        assert result["parity_settled"]["all_match"] is True
        assert result["parity_settled"]["lost_writes"] == []
        assert {f["compared"] for f in result["parity_settled"]["followers"]} == {"values"}
        assert result["ideal_mean_ms"] == pytest.approx(result["quorum"] * 50 / 6, abs=0.01)
    assert [follower["status"] for follower in summary["parity"]] == ["match"] * 5
    assert summary["plot"] == str(place.reports / "quorum_vs_latency.png")
    assert summary["seed"] == 7
    assert summary["ok"] is True
    assert place.plot().startswith(b"\x89PNG")
    assert "Why latency grows with the quorum" in place.read("report.md")

    rows = place.writes()
    assert len({row["value"] for row in rows}) == len(rows) == 500
    assert len({row["version"] for row in rows}) == 500
    assert len({row["key"] for row in rows}) == 10
    followers = [follower["url"] for follower in summary["parity"]]
    await place.assert_nothing_left(summary["leader_url"], *followers)


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [
        ("start", signal.SIGINT, 130),
        ("run", signal.SIGINT, 130),
        ("run", signal.SIGTERM, 143),
    ],
)
async def test_a_signal_at_any_moment_leaves_nothing_behind(
    place: Place, moment: str, number: signal.Signals, code: int
) -> None:
    process = await trio.lowlevel.open_process(
        place.command("--lag", "0-200"),
        env=place.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    out = b""
    if moment == "start":
        await until(place.a_node_has_been_started)
    else:
        out = await read_until(process.stdout, b"own cluster")
    process.send_signal(number)
    error = await read_until(process.stderr, b"stopping")
    process.send_signal(signal.SIGINT)  # impatience changes nothing
    error += b"".join([chunk async for chunk in process.stderr])
    assert await process.wait() == code
    assert b"Traceback" not in error
    assert b"stopping and cleaning up" in error
    assert list(place.reports.iterdir()) == []
    urls = [word.decode() for word in out.split() if word.startswith(b"http://")]
    await place.assert_nothing_left(*urls)


@needs_proc
async def test_a_node_that_dies_ends_the_run_with_its_log_and_leaves_nothing(place: Place) -> None:
    async with trio.open_nursery() as nursery:

        async def kill_a_follower() -> None:
            await until(place.the_leader_has_been_started)
            os.kill(place.nodes()["follower3"], signal.SIGKILL)

        nursery.start_soon(kill_a_follower)
        done = await place.run("--lag", "0-500")
    assert done.returncode == 1
    error = done.stderr.decode()
    assert error.startswith("loadgen: follower3 of the local cluster ended by itself with exit co")
    assert "node.started" in error
    assert "Traceback" not in error
    await place.assert_nothing_left()


@needs_proc
async def test_a_run_that_is_killed_leaves_no_nodes(place: Place) -> None:
    process = await trio.lowlevel.open_process(
        place.command("--lag", "0-200"), env=place.env(), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    await read_until(process.stdout, b"own cluster")
    assert len(place.nodes()) == 6
    process.kill()
    await process.wait()

    async def all_gone() -> bool:
        await trio.lowlevel.checkpoint()
        return place.nodes() == {}

    await until(all_gone)


async def test_a_found_cluster_is_driven_and_gets_its_quorum_and_lag_back(place: Place) -> None:
    async with a_cluster() as (cluster, found):
        done = await place.run(
            *("--leader", cluster.leader_url, "--quick", "--writes", "30", "--quorums", "1,4")
        )
        assert done.returncode == 0, done.stderr.decode()
        after = await health_of(cluster.leader_url)
        assert (after.write_quorum, after.lag) == (found.write_quorum, found.lag)
    summary = place.summary()
    assert summary["leader_url"] == cluster.leader_url
    assert [result["quorum"] for result in summary["results"]] == [1, 4]
    assert [follower["status"] for follower in summary["parity"]] == ["match"] * 5
    assert summary["cluster"]["started_by_loadgen"] is False
    # Drawn anew for this run, from the lag that was asked for.
    assert max(float(row["follower2 lag_ms"]) for row in place.writes()) > 5


async def test_a_found_cluster_gets_its_quorum_and_lag_back_after_ctrl_c(place: Place) -> None:
    async with a_cluster() as (cluster, found):
        process = await trio.lowlevel.open_process(
            place.command("--leader", cluster.leader_url, "--quorums", "5", "--lag", "100-900"),
            env=place.env(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        async def the_run_has_begun() -> bool:
            return (await health_of(cluster.leader_url)).write_quorum == 5

        await until(the_run_has_begun)
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        after = await health_of(cluster.leader_url)
        assert (after.write_quorum, after.lag) == (found.write_quorum, found.lag)


async def test_a_quorum_beyond_a_found_cluster_is_bad_usage_and_changes_nothing(
    place: Place,
) -> None:
    async with a_cluster() as (cluster, found):
        done = await place.run("--leader", cluster.leader_url, "--quorums", "1-6")
        assert done.returncode == 2
        assert b"quorum 6 cannot be met by 5 followers: expected quorums from 1 to 5" in done.stderr
        follower = await place.run("--leader", cluster.follower_urls[0])
        assert follower.returncode == 2
        assert b"follower1, a follower: expected the URL of the leader" in follower.stderr
        after = await health_of(cluster.leader_url)
        assert (after.write_quorum, after.lag) == (found.write_quorum, found.lag)
