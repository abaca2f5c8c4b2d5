"""`cluster`: a cluster in one terminal, to look at and to hurt.

In a terminal it shows the cluster live and obeys keys; elsewhere, and with `--json`, it tells what
happens line by line. Either way it runs until it is told to end: `q`, Ctrl-C, SIGTERM, or a terminal
that is closed. Then all nodes are stopped in order, at a second Ctrl-C killed, and what is temporary is
removed.

All keys do is start a task: what takes long, or fails, never holds up the screen.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import click
import trio

from trikv.cli import bench, survey, terminal
from trikv.cli.laboratory import Plan, open_laboratory
from trikv.cli.live import Scene, Story, current, frame
from trikv.cli.options import Number, as_json_option, explain
from trikv.cli.outcome import CommandError, ExitCode, failed, usage_error
from trikv.cli.output import Output, plural
from trikv.client import ClientError, Unavailable
from trikv.client.admin import AdminClient
from trikv.network.simulated_lag import MAX_DELAY_MS
from trikv.processes import is_free

#: Nodes that a digit can select.
MAX_NODES = 9

#: Where a cluster's ports begin, unless they are taken.
FIRST_PORT = 8000

#: How often the nodes are asked.
LOOK_S = 1.0

#: A node that does not answer within so long is shown as it is.
ANSWER_S = 5.0

#: Writes at the press of a key, and how many of them at a time.
BURST_WRITES = 100
BURST_CLIENTS = 10

_REDRAW_S = 0.25
_PORT_STEP = 10
_LAST_PORT = 9000


@click.command("cluster")
@click.option(
    "--nodes",
    type=Number(1, MAX_NODES, "nodes", whole=True),
    default=3,
    metavar="NODES",
    help="The leader included. Default: 3.",
)
@click.option(
    "--quorum",
    type=Number(0, MAX_NODES - 1, "followers", whole=True),
    metavar="FOLLOWERS",
    help="The write quorum. Default: half of the nodes, which with the leader is a majority.",
)
@click.option(
    "--lag",
    nargs=2,
    type=Number(0, MAX_DELAY_MS, "ms"),
    default=(0.0, 200.0),
    metavar="MIN MAX",
    help="The simulated lag, in milliseconds. Default: 0 200.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIRECTORY",
    help="For data and logs, which are kept. Default: a temporary one.",
)
@click.option(
    "--port",
    type=Number(1, 65535 - MAX_NODES, "port", whole=True),
    metavar="PORT",
    help=f"Of the first node; the others follow. Default: {FIRST_PORT}, or the next that are free.",
)
@as_json_option
def cluster(
    nodes: int,
    quorum: int | None,
    lag: tuple[float, float],
    directory: Path | None,
    port: int | None,
    as_json: bool,
) -> ExitCode:
    """Run a cluster in this terminal, to watch and to hurt.

    Keys kill and start nodes, cut wires, and write. Without a terminal, or with --json, events are
    printed line by line. Ends with q, Ctrl-C or SIGTERM, and stops all nodes.
    """
    output = Output(as_json=as_json)
    if quorum is not None and quorum > nodes - 1:
        raise usage_error(
            f"--quorum: expected {nodes - 1} at most with {plural('node', nodes)}, got {quorum}"
        )
    if lag[0] > lag[1]:
        raise usage_error(f"--lag: expected MIN to be {lag[1]:g} at most, got {lag[0]:g}")
    with _directory(directory) as place:
        most = nodes - 1
        write_quorum = min(nodes // 2, most) if quorum is None else quorum
        plan = Plan(place, ports_from(port, nodes), write_quorum, *lag)
        live = terminal.can_show() and not as_json
        try:
            trio.run(run, plan, output, live)
        except BaseException as error:
            explain(error, write=False)
    return ExitCode.DONE


@contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    """Raises CommandError."""
    try:
        if given is not None:
            given.mkdir(parents=True, exist_ok=True)
        place = given or Path(tempfile.mkdtemp(prefix="trikv-cluster-"))
    except OSError as error:
        raise failed(f"cannot make a directory for the nodes: {error}") from None
    try:
        yield place.resolve()
    finally:
        if given is None:
            shutil.rmtree(place, ignore_errors=True)


def ports_from(given: int | None, count: int) -> list[int]:
    """Ports in a row, all free. Raises CommandError."""
    firsts = range(FIRST_PORT, _LAST_PORT, _PORT_STEP) if given is None else [given]
    for first in firsts:
        ports = list(range(first, first + count))
        taken = [port for port in ports if not is_free(port)]
        if not taken:
            return ports
    if given is None:
        raise failed(f"no {count} free ports in a row from {FIRST_PORT} to {_LAST_PORT}")
    raise usage_error(f"--port {given}: expected free ports, but {taken[0]} is in use")


def _signals() -> list[signal.Signals]:
    """What ends it."""
    found = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":
        found.append(signal.SIGBREAK)
    elif signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # which is how nohup asks to go on
        found.append(signal.SIGHUP)
    return found


async def run(plan: Plan, output: Output, live: bool) -> None:
    """The cluster, from its first process to its last. Raises CommandError."""
    ends, hurry = trio.Event(), trio.Event()
    story = Story(output, on_screen=live, on_lost=ends.set)
    with trio.open_signal_receiver(*_signals()) as signals:
        with terminal.taken() if live else nullcontext():
            async with trio.open_nursery() as around:
                around.start_soon(_heed, signals, ends, hurry)
                async with open_laboratory(plan, story.say, hurry) as laboratory:
                    scene = Scene(laboratory, story, trio.current_time())
                    if live:
                        around.start_soon(_redraw, scene, output)
                    await _work(scene, ends, live)
                    scene.closing = True
                story.say("closed")
                around.cancel_scope.cancel()
    if story.lost is not None:
        raise story.lost
    if live:
        output.line("all nodes have stopped")


async def _heed(signals: AsyncIterator[int], ends: trio.Event, hurry: trio.Event) -> None:
    async for _ in signals:
        (hurry if ends.is_set() else ends).set()


async def _redraw(scene: Scene, output: Output) -> None:
    while True:
        columns, rows = shutil.get_terminal_size((80, 24))
        terminal.draw(frame(scene, output, columns, rows, trio.current_time()))
        await trio.sleep(_REDRAW_S)


async def _work(scene: Scene, ends: trio.Event, live: bool) -> None:
    """Until it is to end, or the nodes do not start."""
    laboratory = scene.laboratory
    async with (
        AdminClient(laboratory.urls, timeout_s=ANSWER_S) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_until, ends, nursery.cancel_scope)
        if live:
            nursery.start_soon(_obey, scene, client, nursery, ends)
        await laboratory.start_all()
        nursery.start_soon(_look, scene, client)
        await ends.wait()


async def _until(ends: trio.Event, scope: trio.CancelScope) -> None:
    await ends.wait()
    scope.cancel()


async def _look(scene: Scene, client: AdminClient) -> None:
    """Ask the nodes again and again; tell when all is well for the first time, and what changes."""
    was_healthy: bool | None = None
    laboratory = scene.laboratory
    while True:
        changes, changed = laboratory.changes, laboratory.changed
        taken: list[survey.Survey] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until, changed, nursery.cancel_scope)  # what is asked has grown old
            taken.append(await survey.take(client, timeout_s=ANSWER_S))
            nursery.cancel_scope.cancel()
        if not taken:
            continue
        scene.survey, scene.surveyed_changes = taken[0], changes
        found = current(scene, taken[0])
        if found.healthy != was_healthy and (found.healthy or (was_healthy and not found.moving)):
            if was_healthy is None:
                scene.story.say("ready", urls=laboratory.urls, dashboard=scene.dashboard)
            elif found.healthy:
                scene.story.say("healthy")
            else:
                scene.story.say("unhealthy", problems=found.problems)
            was_healthy = found.healthy
        with trio.move_on_after(LOOK_S):
            await changed.wait()


# -- keys ---------------------------------------------------------------------------------------------


async def _obey(scene: Scene, client: AdminClient, nursery: trio.Nursery, ends: trio.Event) -> None:
    """Do what the keys say."""
    async for key in terminal.pressed():
        if key in ("q", "Q", terminal.HUNG_UP):
            ends.set()
            return
        action = press(scene, client, key)
        if action is not None:
            nursery.start_soon(_try, scene, action)


async def _try(scene: Scene, action: Callable[[], Awaitable[None]]) -> None:
    try:
        await action()
    except (ClientError, CommandError) as error:
        scene.story.say("failed", detail=error.detail)


def press(scene: Scene, client: AdminClient, key: str) -> Callable[[], Awaitable[None]] | None:
    """What a key does: selects at once, or gives something to do."""
    laboratory, name = scene.laboratory, scene.name
    if key.isascii() and key.isdigit() and 1 <= int(key) <= len(laboratory.names):
        scene.selected = int(key) - 1
        return None
    match key:
        case "up" | "down":
            step = 1 if key == "down" else -1
            scene.selected = (scene.selected + step) % len(laboratory.names)
        case "k":
            return partial(laboratory.kill, name)
        case "s":
            return partial(laboratory.stop, name)
        case "r":
            return partial(laboratory.start, name)
        case "p":
            return partial(laboratory.promote, name)
        case "c" | "h":
            return partial(_set_cut, scene, client, name, key == "c")
        case "w":
            return partial(burst, scene, client)
        case "+" | "=" | "-":
            return partial(_change_quorum, scene, client, -1 if key == "-" else 1)
    return None


async def _set_cut(scene: Scene, client: AdminClient, name: str, wanted: bool) -> None:
    if name == scene.laboratory.leader:
        detail = "the leader has no wire of its own: select the follower at its other end"
        scene.story.say("refused", node=name, detail=detail)
        return
    await client.set_cut(name, wanted)
    scene.story.say("cut" if wanted else "healed", node=name)


async def _change_quorum(scene: Scene, client: AdminClient, step: int) -> None:
    async with scene.quorum_changes:  # keys that are pressed fast count one after the other
        found = await survey.take(client, timeout_s=ANSWER_S, compare=False)
        if found.write_quorum is None:
            scene.story.say("failed", detail="no node leads, so there is no quorum to change")
            return
        told = await client.set_quorum(max(0, found.write_quorum + step))
    scene.story.say("quorum", **{name: told[name] for name in QUORUM_FIELDS if name in told})


QUORUM_FIELDS: Sequence[str] = ("write_quorum", "previous_write_quorum")


async def burst(scene: Scene, client: AdminClient) -> None:
    """A hundred writes, some at a time."""
    measured = bench.Measured()
    numbers = iter(range(BURST_WRITES))
    lost = False

    async def writer() -> None:
        nonlocal lost
        for number in numbers:
            sent = trio.current_time()
            try:
                await client.put(f"burst/{number:02}", number)
            except ClientError as error:
                measured.failures[error.code] += 1
                if isinstance(error, Unavailable) or error.code == "no_answer":
                    lost = True  # the rest would fail alike
            else:
                measured.latencies_ms.append((trio.current_time() - sent) * 1000)
            if lost:
                return

    async with trio.open_nursery() as nursery:
        for _ in range(BURST_CLIENTS):
            nursery.start_soon(writer)
    ordered = sorted(measured.latencies_ms)
    scene.story.say(
        "burst",
        writes=BURST_WRITES,
        confirmed=len(ordered),
        failed=sum(measured.failures.values()),
        not_sent=len(list(numbers)),
        p50_ms=round(bench.percentile(ordered, 0.5), 3) if ordered else None,
        p99_ms=round(bench.percentile(ordered, 0.99), 3) if ordered else None,
    )
