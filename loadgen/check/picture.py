"""`history.png`: what was done to the nodes, what the clients got meanwhile, and where that was wrong.

Top: a row for each node, with a band for each fault and a line while it should lead. Below: how many
calls were answered each second, by what became of them. Then, in a run of a few minutes, a row for
each client with a bar for each call. In a longer one bars would be dust, so there are only the windows
that end every picture: some seconds each, magnified, around anomalies, or else around takeovers.

Anomalies are red: a line through all that is above, the bar of the call, and a text at the bottom.
Colours are Okabe and Ito's, or shades of them; bars of calls and bands of faults have none in common.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from loadgen.check.history import Call, History
from loadgen.check.recorder import ANSWER_TIMEOUT_S
from loadgen.check.report import headline
from loadgen.check.result import ANSWERS, CheckResult, Phase, answer_of
from loadgen.check.verdict import summary
from loadgen.check.windows import nodes_of, windows, wrong_calls, wrong_moments

Span = tuple[float, float]

RED, BLACK, PALE = "#E00000", "#222222", "#EEEEEE"
#: Of bars: what was asked, if it was answered, and else what became of it.
CALLS = {
    "write": "#0072B2",
    "linearizable read": "#56B4E9",
    "other read": "#A9C9C4",
    "refused": "#D5D5D5",
    "unknown": "#E69F00",
}
AREAS = dict(zip(ANSWERS, ("#0072B2", "#56B4E9", "#D5D5D5", "#E69F00"), strict=True))
#: Of bands.
FAULTS = {
    "kill": "#333333",
    "with the leader": "#777777",
    "pause": "#F0E442",
    "partition": "#CC79A7",
    "takeover": "#009E73",
    "old leader": "#A6DCCB",
    "wipe": "#8C510A",
    "restart": "#BBBBBB",
}
LEADS = "leads"

DPI = 110
#: In a longer run a call of ten milliseconds is far less than a pixel.
MOST_BARS_S = 300.0
WINDOWS = 2
WINDOW_S = 6.0
MOST_TEXTS = 6
#: Bins of the rates: as many as can be told apart, and no shorter than this.
BINS = 240
LEAST_BIN_S = 0.5


def draw_png(result: CheckResult) -> bytes:
    """The picture, as a file."""
    image = io.BytesIO()
    draw(result).savefig(image, format="png", dpi=DPI)
    return image.getvalue()


def draw(result: CheckResult) -> Figure:
    """The figure, not yet written anywhere."""
    history, whole = result.history, Phase(0.0, max(1.0, result.disturbed.ended))
    nodes = sorted({node for fault in history.faults for node in nodes_of(fault)})
    texts = summary(result.anomalies, MOST_TEXTS).splitlines()
    has_bars = whole.seconds <= MOST_BARS_S
    node_rows, client_rows = 0.7 + 0.22 * len(nodes), 0.7 + 0.22 * result.plan.clients
    heights = [node_rows, 2.2, *([client_rows] if has_bars else []), node_rows + client_rows]
    figure = Figure(figsize=(16, sum(heights) + 1.6 + 0.2 * len(texts)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(headline(result), fontsize=12, color=RED if result.anomalies else BLACK)
    grid = figure.add_gridspec(len(heights), WINDOWS, height_ratios=heights)
    rows = [figure.add_subplot(grid[i, :]) for i in range(len(heights) - 1)]
    _draw_faults(rows[0], history, nodes)
    _title(rows[0], "Faults: a row for each node; the line is over the one that should lead")
    _draw_rates(rows[1], history.calls, whole)
    _title(rows[1], "Calls answered, or given up, a second")
    if has_bars:
        _draw_calls(rows[2], result, whole, nodes=0)
        _title(rows[2], "Calls: a row for each client")
    for axes in rows:
        axes.set_xlim(whole)
        for moment in wrong_moments(result):
            axes.axvline(moment, color=RED, linewidth=0.8, alpha=0.7, zorder=6)
    for place, window in enumerate(windows(result, WINDOWS, WINDOW_S)):
        axes = figure.add_subplot(grid[-1, place])
        _draw_faults(axes, history, nodes)
        _draw_calls(axes, result, window, nodes=len(nodes))
        _title(axes, f"Magnified: from {window.begun:.1f} s to {window.ended:.1f} s")
        axes.set_xlim(window)
        axes.set_ylim(-0.7, len(nodes) + result.plan.clients - 0.3)
        axes.invert_yaxis()
    rows[-1].set_xlabel("seconds since the clients began", fontsize=10)
    _draw_legend(figure, texts)
    return figure


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10.5)


def _dress(axes: Axes, names: Sequence[str], *, first: int = 0) -> None:
    """Rows with names, the first on top."""
    ticks = [*axes.get_yticks(), *range(first, first + len(names))] if first else range(len(names))
    labels = [label.get_text() for label in axes.get_yticklabels()] if first else []
    axes.set_yticks(ticks, [*labels, *names], fontsize=8.5)
    if not first and names:
        axes.set_ylim(len(names) - 0.3, -0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", labelsize=9)


def _draw_faults(axes: Axes, history: History, nodes: Sequence[str]) -> None:
    for row, node in enumerate(nodes):
        axes.axhline(row, color=PALE, linewidth=0.8, zorder=1)
        for fault in history.faults:
            if node not in nodes_of(fault):
                continue
            ended = fault.begun if fault.ended is None else fault.ended
            span = [(fault.begun, ended - fault.begun)]
            if fault.kind == LEADS:
                axes.broken_barh(span, (row - 0.46, 0.1), color=BLACK, linewidth=0, zorder=4)
                continue
            # An old leader is dead, or paused, or alive.
            colour = FAULTS[fault.kind.partition(",")[0]]
            axes.broken_barh(span, (row - 0.33, 0.66), color=colour, linewidth=0, zorder=3)
    _dress(axes, nodes)


def _draw_rates(axes: Axes, calls: Iterable[Call], whole: Phase) -> None:
    """Stacked, what became of the calls of each bin."""
    bin_s = max(LEAST_BIN_S, whole.seconds / BINS)
    count = int(whole.seconds / bin_s) + 1
    rates = {answer: [0.0] * count for answer in ANSWERS}
    for call in calls:
        at = call.begun + ANSWER_TIMEOUT_S if call.answered is None else call.answered
        if at < whole.ended:
            rates[answer_of(call)][int(at / bin_s)] += 1 / bin_s
    starts = [bin_s * place for place in range(count)]
    axes.stackplot(
        starts,
        *rates.values(),
        colors=list(AREAS.values()),
        labels=list(AREAS),
        step="post",
        linewidth=0,
    )
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper right", ncol=len(AREAS), fontsize=8.5, framealpha=0.85)
    axes.tick_params(labelsize=9)


def _draw_calls(axes: Axes, result: CheckResult, phase: Phase, *, nodes: int) -> None:
    """A bar for each call of a phase, in the rows below those of the nodes."""
    calls, all_spans = result.history.calls, _spans(result.history.calls)
    spans: dict[tuple[str, int], list[Span]] = {}
    for call, span in zip(calls, all_spans, strict=True):
        if call.begun < phase.ended and sum(span) > phase.begun:
            spans.setdefault((_look(call), nodes + call.client), []).append(span)
    for (look, row), found in spans.items():
        axes.broken_barh(found, (row - 0.33, 0.66), color=CALLS[look], linewidth=0, zorder=3)
    for index in wrong_calls(result):
        row = nodes + calls[index].client
        axes.broken_barh([all_spans[index]], (row - 0.42, 0.84), color=RED, zorder=7)
        axes.plot(calls[index].begun, row, marker="v", markersize=7, color=RED, zorder=8)
    _dress(axes, [f"client {n}" for n in range(result.plan.clients)], first=nodes)
    if not nodes:
        axes.set_ylim(result.plan.clients - 0.3, -0.7)


def _spans(calls: Sequence[Call]) -> list[Span]:
    """When each call was begun, and how long the client waited.

    One that was told nothing asked the next thing soon after it gave up.
    """
    following: dict[int, float] = {}  # when a client began its next call
    found: list[Span] = []
    for call in reversed(calls):
        at_most = following.get(call.client, call.begun + ANSWER_TIMEOUT_S)
        ended = min(call.begun + ANSWER_TIMEOUT_S, at_most)
        if call.answered is not None:
            ended = call.answered
        found.append((call.begun, ended - call.begun))
        following[call.client] = call.begun
    return found[::-1]


def _look(call: Call) -> str:
    """One of `CALLS`."""
    outcome = answer_of(call)
    if outcome in CALLS:
        return outcome
    if call.kind == "write":
        return "write"
    return "linearizable read" if call.linearizable else "other read"


def _draw_legend(figure: Figure, texts: Sequence[str]) -> None:
    handles: list[Patch | Line2D] = [Patch(color=c, label=f"call: {n}") for n, c in CALLS.items()]
    handles += [Patch(color=colour, label=f"fault: {name}") for name, colour in FAULTS.items()]
    handles.append(Line2D([], [], color=BLACK, linewidth=2, label="should lead"))
    handles.append(Line2D([], [], color=RED, marker="v", label="anomaly"))
    legend = figure.legend(
        handles=handles, loc="outside lower center", ncol=7, fontsize=9, frameon=False
    )
    if texts:
        legend.set_title("\n".join(texts), prop=FontProperties(family="monospace", size=9))
        legend.get_title().set_color(RED)
