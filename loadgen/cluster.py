"""A cluster of our own: one leader and five followers, as processes on loopback.

    followers   PORT=0, so the operating system picks; each says its URL in its `node.started` line
    leader      started once all followers serve, with their URLs
    up          once the leader's `/health` counts a live link to every follower

How a node is started, and where it logs, is `trikv.processes`; data and logs are in a temporary
directory. One nursery watches the processes: a node that ends by itself ends the run.

However the cluster's block is left (its end, an error, Ctrl-C while it still starts), all nodes are
told to stop, the leader first so that it still reaches its followers; who does not end in time is
killed; then the directory is removed. This cleanup is shielded and bounded.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from loadgen.api import Leader, LeaderHealth
from loadgen.errors import ClusterError, Unreachable
from loadgen.theory import UniformLag
from trikv.processes import Node, ask_to_stop, spawn, started_url

FOLLOWERS = 5
DIRECTORY_PREFIX = "trikv-loadgen-"

# Six Python processes on a small, busy machine.
START_TIMEOUT_S = 60.0
# A node finishes what is in flight for at most ten seconds.
STOP_TIMEOUT_S = 12.0
KILL_TIMEOUT_S = 5.0
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """A cluster that is up."""

    leader_url: str
    follower_urls: list[str]
    pids: list[int]
    directory: Path


@asynccontextmanager
async def local_cluster(
    *,
    lag: UniformLag,
    lag_seed: int,
    write_quorum: int,
    on_progress: Callable[[str], None],
) -> AsyncIterator[LocalCluster]:
    """Six nodes that are up inside, and gone without a trace afterwards.

    Raises ClusterError if they do not come up, and into the block if a node ends meanwhile.
    """
    directory = make_directory()
    nodes: list[Node] = []
    try:
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(START_TIMEOUT_S) as patience:
                cluster = await _start(
                    nursery,
                    nodes,
                    directory,
                    on_progress,
                    {
                        "WRITE_QUORUM": str(write_quorum),
                        "MIN_DELAY_MS": f"{lag.min_ms:.10g}",
                        "MAX_DELAY_MS": f"{lag.max_ms:.10g}",
                        "LAG_SEED": str(lag_seed),
                    },
                )
            if patience.cancelled_caught:
                last = nodes[-1] if nodes else None
                raise ClusterError(
                    f"the local cluster was not up within {START_TIMEOUT_S:g} s"
                    + (f"; last lines of {last.name}:{last.log_tail()}" if last else "")
                )
            yield cluster
            nursery.cancel_scope.cancel()
    finally:
        await _stop(nodes)
        shutil.rmtree(directory, ignore_errors=True)


async def _start(
    nursery: trio.Nursery,
    nodes: list[Node],
    directory: Path,
    on_progress: Callable[[str], None],
    leader_settings: dict[str, str],
) -> LocalCluster:
    for number in range(1, FOLLOWERS + 1):
        name = f"follower{number}"
        nodes.append(await spawn(directory, name, {"ROLE": "follower"}))
        nursery.start_soon(_watch, nodes[-1])
    follower_urls: list[str] = []
    for node in nodes[:]:
        on_progress(f"starting followers: {len(follower_urls)} of {FOLLOWERS} are up")
        follower_urls.append(await started_url(node))
    on_progress("starting the leader")
    settings = {"ROLE": "leader", "FOLLOWER_URLS": ",".join(follower_urls), **leader_settings}
    leader = await spawn(directory, "leader", settings)
    nodes.append(leader)
    nursery.start_soon(_watch, leader)
    leader_url = await started_url(leader)
    on_progress("linking the followers")
    async with Leader(leader_url, timeout_s=START_TIMEOUT_S) as client:
        await wait_until_live(client, wait_s=START_TIMEOUT_S, on_wait=on_progress)
    return LocalCluster(leader_url, follower_urls, [n.process.pid for n in nodes], directory)


async def wait_until_live(
    leader: Leader, *, wait_s: float, on_wait: Callable[[str], None]
) -> LeaderHealth:
    """Wait until the leader has a live link to every follower, or for `wait_s`; its health then.

    Raises Unreachable if there was no answer in all that time; any other error at once.
    """
    deadline = trio.current_time() + wait_s
    while True:
        try:
            health = await leader.health()
        except Unreachable as error:
            if trio.current_time() >= deadline:
                raise
            on_wait(str(error))
        else:
            everyone = health.live_links >= health.followers
            if (everyone and health.ready) or trio.current_time() >= deadline:
                return health
            on_wait(f"{leader.url}: {health.live_links} of {health.followers} followers linked")
        await trio.sleep(POLL_S)


async def _watch(node: Node) -> None:
    await node.process.wait()
    raise ended_by_itself(node)


def ended_by_itself(node: Node) -> ClusterError:
    """What there is to say of a node that nobody had told to end."""
    return ClusterError(
        f"{node.name} of the local cluster ended by itself with exit code "
        f"{node.process.returncode}; last lines of its log:{node.log_tail()}"
    )


def make_directory() -> Path:
    """A temporary directory for data and logs. Raises ClusterError."""
    try:
        return Path(tempfile.mkdtemp(prefix=DIRECTORY_PREFIX))
    except OSError as error:
        raise ClusterError(f"cannot make a temporary directory ({error})") from None


async def _stop(nodes: list[Node]) -> None:
    with trio.move_on_after(STOP_TIMEOUT_S, shield=True):
        # The leader was started last: it stops first, and alone.
        for group in (nodes[FOLLOWERS:], nodes[:FOLLOWERS]):
            for node in group:
                ask_to_stop(node.process)
            for node in group:
                await node.process.wait()
    for node in nodes:
        if node.process.poll() is None:
            node.process.kill()
    with trio.move_on_after(KILL_TIMEOUT_S, shield=True):
        for node in nodes:
            await node.process.wait()
