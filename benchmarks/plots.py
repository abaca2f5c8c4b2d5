"""The plots of docs/performance.md.

Medians over the rounds, with bars from the least to the greatest. Axes are logarithmic where a factor
is what counts. Colours are Okabe and Ito's, which colour-blind people can tell apart; marks and lines
differ as well. matplotlib is imported by this module alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.figures import Comparison, Growth, Place, Record, Spread
from benchmarks.workloads import WORKLOADS

BLUE, SKY, GREEN, ORANGE = "#0072B2", "#56B4E9", "#009E73", "#E69F00"
VERMILLION, PURPLE, GREY = "#D55E00", "#CC79A7", "#555555"
DPI = 130

#: Colour, mark and line of each system.
LOOKS = {
    "trikv": (BLUE, "o", "-"),
    "trikv-os": (SKY, "s", "--"),
    "lab": (VERMILLION, "D", "-"),
    "lab-standard": (ORANGE, "d", "--"),
    "etcd": (GREEN, "^", "-"),
    "redis": (PURPLE, "v", "-"),
    "redis-memory": (GREY, "x", "--"),
}

Value = Callable[[Record], float | None]
Points = Sequence[tuple[float, Spread]]


@dataclass(slots=True)
class Line:
    """One line of a panel."""

    label: str
    points: Points
    look: tuple[str, str, str] = (BLUE, "o", "-")


@dataclass(slots=True)
class Panel:
    """One pair of axes. `limits` are horizontal lines to compare with, each with its label."""

    title: str
    x_label: str
    y_label: str
    lines: list[Line]
    log_x: bool = True
    log_y: bool = True
    limits: list[tuple[float, str]] = field(default_factory=list)


def short_number(value: float, _position: int = 0) -> str:
    """1.5 k for 1500: what an axis has room for."""
    for size, name in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:g}{name}"
    return f"{value:g}"


def draw(title: str, panels: Sequence[Panel], columns: int) -> Figure:
    """Panels side by side, and one legend for all below them, if they have the same lines."""
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.6 * columns, 4.3 * rows + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=15, fontweight="bold")
    grid = figure.subplots(rows, columns, squeeze=False)
    places: list[Axes] = [axes for row in grid for axes in row]
    for axes, panel in zip(places, panels, strict=False):
        draw_panel(axes, panel)
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    handles: dict[str, Artist] = {}
    for axes in places[: len(panels)]:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if len(handles) > 1:
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncol=min(len(handles), 5),
            fontsize=11,
            frameon=False,
        )
    return figure


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Lines with their spread."""
    drawn = [line for line in panel.lines if line.points]
    for line in drawn:
        colour, mark, style = line.look
        medians = [one.median for _, one in line.points]
        below = [one.median - one.low for _, one in line.points]
        above = [one.high - one.median for _, one in line.points]
        axes.errorbar(
            [x for x, _ in line.points],
            medians,
            yerr=[below, above],
            label=line.label,
            color=colour,
            marker=mark,
            linestyle=style,
            markersize=6.5,
            linewidth=1.8,
            capsize=3.5,
            elinewidth=1.2,
        )
    for value, label in panel.limits:
        axes.axhline(value, color=GREY, linestyle=":", linewidth=1.4)
        axes.annotate(
            label,
            (1, value),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
            fontsize=9.5,
            color=GREY,
        )
    dress(axes, panel, sorted({x for line in drawn for x, _ in line.points}))


def dress(axes: Axes, panel: Panel, ticks: Sequence[float]) -> None:
    """Scales, ticks where something was measured, labels, a grid."""
    axes.set_title(panel.title, fontsize=12.5)
    axes.set_xlabel(panel.x_label, fontsize=11)
    axes.set_ylabel(panel.y_label, fontsize=11)
    if panel.log_x and ticks:
        axes.set_xscale("log")
    if panel.log_y and ticks:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
    elif ticks:
        highest = max(one.high for line in panel.lines for _, one in line.points)
        axes.set_ylim(0, 1.08 * max([highest, *(value for value, _ in panel.limits)]))
    axes.yaxis.set_major_formatter(FuncFormatter(short_number))
    axes.set_xticks(list(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(short_number))
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def comparison_figure(comparison: Comparison, name: str, title: str, y_label: str) -> Figure:
    """A panel for each workload, a line for each system."""
    panels = []
    for workload in WORKLOADS.values():
        lines = []
        for system, told in comparison.systems().items():
            points = [
                (float(clients), one)
                for clients in comparison.clients(workload.name)
                if (one := comparison.figure(Place(system, workload.name, clients), name))
                and one.median > 0
            ]
            lines.append(Line(told["title"], points, LOOKS.get(system, (GREY, ".", "-"))))
        label = y_label.format(unit=workload.unit, one=workload.unit.removesuffix("s/s"))
        if any(line.points for line in lines):
            panels.append(Panel(workload.title, "clients", label, lines))
    return draw(title, panels, columns=3)


def growth_figures(growth: Growth) -> dict[str, Figure]:
    """Two panels for each part that was measured, by the name of the file."""
    found = {
        "clients": ("More clients", _two_workloads(growth, "clients", "clients", "p99_ms")),
        "followers": ("More followers", _followers(growth)),
        "values": ("Larger values", _values(growth)),
        "keys": ("More keys", _keys(growth)),
        "lag": ("Overhead under simulated lag", _lag(growth)),
    }
    return {
        f"performance_{part}.png": draw(title, panels, columns=len(panels))
        for part, (title, panels) in found.items()
        if any(line.points for panel in panels for line in panel.lines)
    }


def _two_workloads(growth: Growth, part: str, x_label: str, second: str) -> list[Panel]:
    looks = {"put": (BLUE, "o", "-"), "get-local": (GREEN, "^", "--")}

    def lines(name: str) -> list[Line]:
        return [
            Line(WORKLOADS[w].title, growth.series(part, _named(name), workload=w), look)
            for w, look in looks.items()
        ]

    return [
        Panel("Rate", x_label, "requests/s", lines("rate")),
        Panel("Slowest hundredth", x_label, "p99 latency (ms)", lines(second)),
    ]


def _followers(growth: Growth) -> list[Panel]:
    cpu = growth.series("followers", _named("cpu_us_per_operation"), workload="put")
    rates = growth.series("followers", _named("rate"), workload="put")
    x_label = "followers (quorum 3, or all of fewer)"
    return [
        Panel("Rate, 10 clients", x_label, "writes/s", [Line("PUT", rates)]),
        Panel("CPU of all nodes", x_label, "µs per write", [Line("PUT", cpu)], log_y=False),
    ]


def _values(growth: Growth) -> list[Panel]:
    panels = _two_workloads(growth, "values", "value (bytes)", "p99_ms")
    panels[0].title += ", 10 clients"
    looks = {"put": (BLUE, "o", "-"), "get-local": (GREEN, "^", "--")}
    lines = [
        Line(
            WORKLOADS[w].title,
            growth.series("values", lambda r: r["rate"] * r["x"] / 1e6, workload=w),
            look,
        )
        for w, look in looks.items()
    ]
    return [*panels, Panel("Bytes", "value (bytes)", "MB/s of values", lines)]


def _keys(growth: Growth) -> list[Panel]:
    panels = _two_workloads(growth, "keys", "keys", "p99_ms")
    panels[0].title += ", 10 clients"
    memory = [
        Line("leader's memory", growth.series("keys", _named("leader_mb")), (VERMILLION, "D", "-")),
        Line("a follower's", growth.series("keys", _named("follower_mb")), (ORANGE, "s", "--")),
    ]
    return [*panels, Panel("Memory", "keys of 100 bytes", "resident MB", memory, log_y=False)]


def _named(name: str) -> Value:
    return lambda record: record.get(name)


def _lag(growth: Growth) -> list[Panel]:
    limits = [(4.0, "floor for p50"), (15.0, "floor for p99")]
    lines = [
        Line(label, growth.series("lag", _named(name)), look)
        for label, name, look in (
            ("p50", "overhead_p50_ms", (BLUE, "o", "-")),
            ("p99", "overhead_p99_ms", (VERMILLION, "D", "--")),
        )
    ]
    title = "Lag 0 to 1000 ms, 10 clients"
    return [Panel(title, "write quorum", "ms over the ideal", lines, log_x=False, limits=limits)]


def write_figure(path: Path, figure: Figure) -> None:
    """Write a PNG."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=DPI)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image.getvalue())
