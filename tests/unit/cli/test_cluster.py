"""`cluster`, without its processes: keys, the screen, ports, what is told."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from tests.unit.cli.console import Stream
from tests.unit.cli.test_output import without_colours
from tests.unit.cli.test_status import (
    follower_health,
    follower_status,
    leader_health,
    replicas,
)
from trikv.cli import cluster, survey
from trikv.cli.laboratory import Laboratory, Plan
from trikv.cli.live import KEYS, Scene, Story, frame, urls_variable, worded
from trikv.cli.options import nodes_of
from trikv.cli.outcome import CommandError
from trikv.cli.output import Output, cells
from trikv.cli.terminal import keys_in
from trikv.client import ClientError, OutcomeUnknown, Unavailable
from trikv.client.admin import AdminClient
from trikv.processes import HOST, is_free


def scene(nodes: int = 3, *, terminal: bool = True) -> Scene:
    output = Output(out=Stream(terminal=terminal), err=Stream(), environment={})
    story = Story(output, on_screen=terminal)
    plan = Plan(Path("/data"), range(8000, 8000 + nodes), 1, 0, 200)
    return Scene(Laboratory(plan, cast(Any, None), story.say), story, 0.0)


def surveyed() -> survey.Survey:
    a, b, c = (f"http://127.0.0.1:{port}" for port in (8000, 8001, 8002))
    followers = [follower_status(b, "node2"), follower_status(c, "node3", link="cut")]
    found = {
        a: leader_health(node_id="node1", lag={"min_delay_ms": 0, "max_delay_ms": 200}),
        b: follower_health("node2"),
        c: follower_health("node3"),
    }
    return survey.put_together(found, a, replicas(*followers))


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        ("kq", ["k", "q"]),
        ("\x1b[A\x1b[B\x1bOA\x1bOB", ["up", "down", "up", "down"]),
        ("\t\x1b[Zr", ["down", "up", "r"]),
        ("\x1b[5~\x1b[1;5Ck", ["k"]),
        ("\x1b", []),
        ("\x1b[", []),
        ("\x00\x07é", ["é"]),
        ("", []),
    ],
)
def test_keys_are_told_from_what_a_terminal_sends(sent: str, keys: list[str]) -> None:
    assert list(keys_in(sent)) == keys


@pytest.mark.parametrize("columns", [40, 80, 120])
@pytest.mark.parametrize("rows", [5, 24, 60])
@pytest.mark.parametrize("nodes", [1, 3, 9])
def test_the_screen_has_the_size_of_its_terminal(
    columns: int, rows: int, nodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = scene(nodes)
    for number in range(300):
        shown.story.say("failed", detail=f"event {number} " + "x" * 200)
    for found in (None, surveyed()):
        shown.survey = found
        for closing in (False, True):
            shown.closing = closing
            lines = frame(shown, shown.story.output, columns, rows, 12.0)
            assert len(lines) == rows
            if columns >= 80:
                assert max(cells(without_colours(line)) for line in lines) <= columns


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("nodes", [3, 9])
def test_a_small_screen_says_which_key_does_what(
    columns: int, nodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = scene(nodes)
    shown.survey = surveyed()
    for rows in range(6, 24):
        lines = frame(shown, shown.story.output, columns, rows, 12.0)
        assert len(lines) == rows
        text = "\n".join(map(without_colours, lines))
        for key, does in KEYS:
            assert f"{key} {does}" in text


@pytest.mark.parametrize("columns", range(28, 200, 7))
@pytest.mark.parametrize("nodes", [1, 3, 9])
def test_the_variable_that_finds_the_nodes_is_whole_at_every_width(
    columns: int, nodes: int
) -> None:
    urls = tuple(f"http://127.0.0.1:{8000 + number}" for number in range(nodes))
    lines = urls_variable(urls, columns)
    assert max(map(len, lines)) <= columns
    export, value = shlex.split("\n".join(lines))
    assert (export, value.count("http://")) == ("export", nodes)
    name, _, value = value.partition("=")
    assert nodes_of((), {name: value}) == urls


def test_the_screen_shows_nodes_events_and_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = scene()
    shown.survey = surveyed()
    shown.laboratory.states |= {"node1": "up", "node2": "killed", "node3": "up"}
    shown.selected = 1
    shown.story.say("killed", node="node2")
    text = "\n".join(map(without_colours, frame(shown, shown.story.output, 80, 24, 12.0)))
    assert "▶2  node2  killed" in text
    assert "node2 is killed (SIGKILL)" in text
    assert "the link to node3 is cut" in text
    assert 'export TRIKV_URLS="http://127.0.0.1:8000,http://127.0.0.1:8001,' in text
    assert '\nhttp://127.0.0.1:8002"\n' in text
    for key, does in KEYS:
        assert f"{key} {does}" in text


def healthy() -> survey.Survey:
    a, b, c = (f"http://127.0.0.1:{port}" for port in (8000, 8001, 8002))
    followers = [follower_status(b, "node2"), follower_status(c, "node3")]
    lag = {"min_delay_ms": 0, "max_delay_ms": 200}
    found = {
        a: leader_health(node_id="node1", lag=lag),
        b: follower_health("node2"),
        c: follower_health("node3"),
    }
    return survey.put_together(found, a, replicas(*followers))


def shown_by(scene: Scene) -> str:
    return "\n".join(map(without_colours, frame(scene, scene.story.output, 120, 24, 12.0)))


def test_all_is_not_well_once_a_node_was_killed_whatever_was_told_before() -> None:
    shown = scene()
    laboratory = shown.laboratory
    laboratory.states |= dict.fromkeys(laboratory.names, "up")
    shown.survey = healthy()
    assert "all is well" in shown_by(shown)
    laboratory._set("node1", "killed")
    text = shown_by(shown)
    assert "all is well" not in text
    assert "- node1 is killed" in text
    assert "no leader" in text
    assert "leader node1" not in text
    laboratory._set("node1", "up", url="u", pid=1)  # nobody has looked since
    text = shown_by(shown)
    assert "all is well" not in text
    assert "looking at the nodes" in text
    shown.surveyed_changes = laboratory.changes
    assert "all is well" in shown_by(shown)


def test_the_screen_leads_to_the_dashboard_of_the_leader() -> None:
    shown = scene()
    assert "dashboard http://127.0.0.1:8000/ui" in shown_by(shown)
    shown.laboratory.leader = "node2"
    assert "dashboard http://127.0.0.1:8001/ui" in shown_by(shown)


class LosingClient:
    """Takes some writes, then is lost."""

    def __init__(self, taken: int, error: ClientError) -> None:
        self.calls = 0
        self._taken = taken
        self._error = error

    async def put(self, key: str, value: object) -> None:
        self.calls += 1
        call = self.calls
        await trio.sleep(0.01)
        if call > self._taken:
            raise self._error


@pytest.mark.parametrize(
    "error",
    [Unavailable("gone", code="unreachable"), OutcomeUnknown("gone", code="no_answer")],
    ids=lambda error: error.code,
)
async def test_a_burst_ends_with_the_first_lost_connection(
    autojump_clock: MockClock, error: ClientError
) -> None:
    shown = scene()
    client = LosingClient(30, error)
    await cluster.burst(shown, cast(AdminClient, client))
    assert 30 < client.calls <= 40
    _, text = shown.story.told[-1]
    assert f"30 confirmed, {client.calls - 30} failed" in text
    assert f"{100 - client.calls} not sent" in text


async def test_a_burst_goes_on_after_a_write_that_was_not_confirmed(
    autojump_clock: MockClock,
) -> None:
    shown = scene()
    client = LosingClient(30, OutcomeUnknown("late", code="quorum_not_met"))
    await cluster.burst(shown, cast(AdminClient, client))
    assert client.calls == 100


@pytest.mark.parametrize("key", ["c", "h"])
async def test_a_wire_is_not_cut_at_the_leader_and_the_screen_says_where(key: str) -> None:
    shown = scene()
    action = cluster.press(shown, cast(AdminClient, None), key)
    assert action is not None
    await action()
    assert "node1: refused: the leader has no wire of its own" in shown.story.told[-1][1]
    assert "select the follower" in shown.story.told[-1][1]


def test_every_key_that_is_told_does_something() -> None:
    shown = scene()
    client = cast(AdminClient, None)
    for key in "ksrchpw+-":
        assert cluster.press(shown, client, key) is not None
    for key in ("x", "0", "enter", "²"):
        assert cluster.press(shown, client, key) is None
    cluster.press(shown, client, "3")
    assert shown.name == "node3"
    cluster.press(shown, client, "down")
    assert shown.name == "node1"
    cluster.press(shown, client, "up")
    assert shown.name == "node3"
    cluster.press(shown, client, "9")
    assert shown.name == "node3"


@pytest.mark.parametrize(
    ("event", "more", "text"),
    [
        ("starting", {"node": "n"}, "n starts"),
        ("started", {"node": "n", "url": "u", "pid": 1}, "n is up at u (process 1)"),
        ("stopping", {"node": "n"}, "n is told to stop"),
        ("stopped", {"node": "n"}, "n has stopped"),
        ("ended", {"node": "n", "detail": "exit code 1"}, "n has ended by itself: exit code 1"),
        ("promoted", {"node": "n", "detail": "in place of m"}, "n: promoted in place of m"),
        ("refused", {"node": "n", "detail": "it is so"}, "n: refused: it is so"),
        ("failed", {"detail": "it is so"}, "failed: it is so"),
        ("ready", {"urls": ["u", "v"]}, "ready: u, v"),
        ("ready", {"urls": ["u"], "dashboard": "u/ui"}, "ready: u; dashboard u/ui"),
        ("cut", {"node": "n"}, "the wire to n is cut"),
        ("healthy", {}, "all is well"),
        ("unhealthy", {"problems": ["a", "b"]}, "not well: a; b"),
        ("quorum", {"write_quorum": 2, "previous_write_quorum": 1}, "quorum 2, before 1"),
        (
            "burst",
            {"writes": 100, "confirmed": 99, "failed": 1, "p50_ms": 1.0, "p99_ms": 20.0},
            "100 writes: 99 confirmed, 1 failed; p50 1.0 ms, p99 20 ms",
        ),
    ],
)
def test_events_are_told_in_words(event: str, more: dict[str, Any], text: str) -> None:
    assert worded(event, more) == text


def test_an_output_that_is_gone_ends_the_cluster_and_is_told_once() -> None:
    class Gone(Stream):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    ended: list[bool] = []
    story = Story(Output(out=Gone()), on_screen=False, on_lost=lambda: ended.append(True))
    story.say("starting", node="n")
    story.say("stopping", node="n")
    assert ended == [True]
    assert story.lost is not None


def test_ports_follow_each_other_and_are_free() -> None:
    ports = cluster.ports_from(None, 3)
    assert ports == list(range(ports[0], ports[0] + 3))
    assert all(map(is_free, ports))
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(CommandError) as raised:
            cluster.ports_from(port, 1)
        assert raised.value.exit_code == 2
        assert str(port) in raised.value.detail
