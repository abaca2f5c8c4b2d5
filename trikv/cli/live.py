"""The screen of `trikv cluster`: what the cluster is like, what has happened, and which keys do what.

`Story` collects what happens, and tells it as lines where there is no screen. `frame` is pure: from
what is known, and the size of a terminal, to the lines on it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import trio

from trikv.cli import status
from trikv.cli.laboratory import Laboratory
from trikv.cli.outcome import ClosedPipe, CommandError
from trikv.cli.output import Cell, Output, clip, duration, milliseconds, plural, table, visible
from trikv.cli.survey import NodeView, Survey

KEYS = (
    ("↑↓ 1–9", "select"),
    ("k", "kill"),
    ("s", "stop"),
    ("r", "start"),
    ("c", "cut"),
    ("h", "heal"),
    ("p", "promote"),
    ("w", "100 writes"),
    ("+ -", "quorum"),
    ("q", "quit"),
)

HEADS = ("", "node", "role", "link", ">behind", "replica", ">keys", "URL")

#: States of our nodes in which not all is well.
_AWAY = {
    "starting": "starts",
    "stopping": "stops",
    "stopped": "is stopped",
    "killed": "is killed",
    "ended": "has ended by itself",
}

_REMEMBERED = 200

#: With less room for events than this, blank lines go.
_LEAST_EVENTS = 3


@dataclass
class Story:
    """What has happened, the latest last."""

    output: Output
    on_screen: bool
    told: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    lost: Exception | None = None
    """Why nothing can be told any more; `on_lost` is called then, once."""
    on_lost: Callable[[], None] = lambda: None

    def say(self, event: str, **more: Any) -> None:
        """`node`, `detail` and whatever else belongs to it."""
        text = worded(event, more)
        if self.on_screen:
            self.told.append((time.strftime("%H:%M:%S"), text))
        elif self.lost is None:
            try:
                self._print(event, more, text)
            except (ClosedPipe, CommandError) as error:  # the nodes are to be stopped all the same
                self.lost = error
                self.on_lost()

    def _print(self, event: str, more: dict[str, Any], text: str) -> None:
        if self.output.as_json:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self.output.document({"time": now, "event": event, **more}, flush=True)
        else:
            self.output.line(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def worded(event: str, more: dict[str, Any]) -> str:
    """An event as a sentence, or so."""
    name = visible(str(more.get("node", "")))
    detail = visible(str(more.get("detail", "")))
    match event:
        case "started":
            return f"{name} is up at {more['url']} (process {more['pid']})"
        case "killed":
            return f"{name} is killed (SIGKILL)"
        case "ended":
            return f"{name} has ended by itself: {detail}"
        case "ready":
            dashboard = f"; dashboard {more['dashboard']}" if "dashboard" in more else ""
            return f"ready: {', '.join(more['urls'])}{dashboard}"
        case "burst":
            failed = f", {more['failed']} failed" if more["failed"] else ""
            if more.get("not_sent"):
                failed += f", {more['not_sent']} not sent: no node took them"
            times = ""
            if more["p50_ms"] is not None:
                times = f"; p50 {milliseconds(more['p50_ms'])}, p99 {milliseconds(more['p99_ms'])}"
            return f"{more['writes']} writes: {more['confirmed']} confirmed{failed}{times}"
        case "closed":
            return "all nodes have stopped"
        case "healthy":
            return "all is well"
        case "unhealthy":
            return "not well: " + visible("; ".join(more["problems"]))
        case "quorum":
            return f"quorum {more['write_quorum']}, before {more['previous_write_quorum']}"
        case "refused":
            return f"{name}: refused: {detail}"
        case "cut" | "healed":
            return f"the wire to {name} is {event}"
    subject = f"{name}: " if name and detail else name
    verb = {"starting": "starts", "stopping": "is told to stop", "stopped": "has stopped"}.get(
        event
    )
    if verb is not None:
        return f"{name} {verb}"
    return f"{subject}{event}{': ' if detail and not name else ' ' if detail else ''}{detail}"


@dataclass
class Scene:
    """All that the screen shows."""

    laboratory: Laboratory
    story: Story
    began_s: float
    survey: Survey | None = None
    surveyed_changes: int = 0
    """Changes of our nodes that were known when the survey began: it tells nothing of later ones."""
    selected: int = 0
    closing: bool = False
    quorum_changes: trio.Lock = field(default_factory=trio.Lock)

    @property
    def name(self) -> str:
        return self.laboratory.names[self.selected]

    @property
    def dashboard(self) -> str:
        """The page of the node that was started to lead."""
        return f"{self.laboratory.url(self.laboratory.leader)}/ui"


def frame(scene: Scene, output: Output, columns: int, rows: int, now_s: float) -> list[str]:
    """The lines of the screen: as many as there are rows, none wider than it is."""
    laboratory = scene.laboratory
    names = laboratory.names
    title = f"trikv cluster   {plural('node', len(names))}   up {duration(now_s - scene.began_s)}"
    title += f"   dashboard {scene.dashboard}"
    top = [
        output.paint(clip(title, columns), "bold"),
        *(output.paint(line, "dim") for line in urls_variable(laboratory.urls, columns)),
        output.paint(clip(f"data and logs: {laboratory.plan.directory}", columns), "dim"),
        "",
    ]
    if scene.survey is not None:
        top += [*status.head(output, current(scene, scene.survey)), ""]
    top += table(
        HEADS,
        [row(scene, index, name) for index, name in enumerate(names)],
        width=columns,
        coloured=output.coloured,
    )
    top.append("")
    if scene.closing:
        top.append(output.paint(clip("stopping; Ctrl-C kills what is left", columns), "yellow"))
    elif scene.survey is not None:
        top += verdict(scene, output, scene.survey)[:4]
    bottom = legend(output, columns)
    if rows - len(top) - len(bottom) - 2 < _LEAST_EVENTS:
        top = [line for line in top if line]
    top = top[: max(0, rows - len(bottom))]  # which key does what is wanted on a small screen, too
    middle = rows - len(top) - len(bottom)
    room = max(0, middle - 2)
    shown = [
        f"{output.paint(when, 'dim')}  {clip(text, max(1, columns - len(when) - 2))}"
        for when, text in list(scene.story.told)[-room:][:room]
    ]
    space = [""] * (middle - 1 - len(shown))
    return [*top, *([""] if middle > 0 else []), *shown, *space, *bottom][:rows]


def urls_variable(urls: Sequence[str], columns: int) -> list[str]:
    """What to paste into a shell so that `trikv` finds these nodes: a line, or several of them."""
    line = f"export TRIKV_URLS={','.join(urls)}"
    if len(line) <= columns:
        return [line]
    lines = ['export TRIKV_URLS="']  # in quotes lines are blanks, which may stand between two nodes
    for index, url in enumerate(urls):
        piece = url + ("," if index < len(urls) - 1 else '"')
        if len(lines[-1]) + len(piece) > columns:
            lines.append("")
        lines[-1] += piece
    return lines


def current(scene: Scene, survey: Survey) -> Survey:
    """What the nodes said, less what our own processes have made untrue since."""
    states = scene.laboratory.states
    problems = [f"{name} {_AWAY[state]}" for name, state in states.items() if state in _AWAY]
    if scene.surveyed_changes == scene.laboratory.changes:
        problems += survey.problems
    leads = survey.leader is None or states.get(survey.leader, "up") not in ("killed", "ended")
    leader_url = survey.leader_url if leads else None
    return replace(survey, problems=problems, leader_url=leader_url)


def verdict(scene: Scene, output: Output, survey: Survey) -> list[str]:
    """What is not well, or that all is: as of now, whatever the last answers were."""
    found = current(scene, survey)
    if found.healthy and scene.surveyed_changes != scene.laboratory.changes:
        return [output.paint("looking at the nodes", "yellow")]
    return status.verdict(output, found)


def row(scene: Scene, index: int, name: str) -> list[Cell]:
    """A node: what the cluster says of it, and what our process is."""
    state = scene.laboratory.states[name]
    view = _view_of(scene, name)
    marker: Cell = (f"▶{index + 1}", "bold") if index == scene.selected else f" {index + 1}"
    told = status.row(view)
    role: Cell = told[1]
    if state in ("killed", "ended"):
        role = (state, "red")
    elif state in ("starting", "stopping"):
        role = (state, "yellow")
    elif state == "stopped":
        role = (state, "dim")
    elif view.reachable is False:
        role = ("up", "yellow")
    url = scene.laboratory.url(name)
    return [marker, (name, "bold" if view.leads else "cyan"), role, *told[2:6], url]


def _view_of(scene: Scene, name: str) -> NodeView:
    url = scene.laboratory.url(name)
    nodes = [] if scene.survey is None else scene.survey.nodes
    return next((node for node in nodes if node.url == url), NodeView(url))


def legend(output: Output, columns: int) -> list[str]:
    """Which key does what, on as many lines as it takes."""
    lines: list[list[tuple[str, str]]] = [[]]
    used = 0
    for key, does in KEYS:
        size = len(key) + 1 + len(does) + 2
        if lines[-1] and used + size - 2 > columns:
            lines.append([])
            used = 0
        lines[-1].append((key, does))
        used += size
    return [_legend_line(output, line) for line in lines]


def _legend_line(output: Output, line: Sequence[tuple[str, str]]) -> str:
    return "  ".join(
        f"{output.paint(key, 'cyan')} {output.paint(does, 'dim')}" for key, does in line
    )
