"""`quorum_vs_latency.png`: the whole story in two panels that share their latency axis.

Left: for each quorum the measured mean with its standard error and the band that 90 % of the writes
fall into, on the straight line that theory predicts; beside them the original lab's five
points, where lag and followers are the lab's. Right: for each quorum every single write as a dot,
the histogram of them, and over it the density of the k-th smallest of n uniform lags.

Colours are Okabe and Ito's, which colour-blind people can tell apart; shapes and line styles differ
as well. matplotlib is imported by this module alone, and drawn without a display or pyplot, so
that it may be drawn in a worker thread.
"""

import io
import random
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from loadgen import summary
from loadgen.results import LAB_MEANS_MS, Latency, QuorumResult, Run
from loadgen.theory import OrderStatistic
from loadgen.wording import plural

Measured = Sequence[tuple[QuorumResult, Latency]]

BLUE, SKY, VERMILLION, GREY = "#0072B2", "#56B4E9", "#D55E00", "#555555"
DPI = 150
BINS = 25
CURVE_POINTS = 200
# How much of the room between two quorums the tallest histogram or curve takes.
WIDEST = 0.66


def write_plot(run: Run, folder: Path) -> None:
    """Draw `quorum_vs_latency.png`."""
    image = io.BytesIO()
    draw(run).savefig(image, format="png", dpi=DPI)
    summary.write_file(folder / summary.PLOT_FILE, image.getvalue())


def draw(run: Run) -> Figure:
    """The figure, not yet written anywhere."""
    figure = Figure(figsize=(13, 7.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.25))
    plan = run.plan
    lag = f"lag uniform on {plan.lag}" if plan.lag.range_ms > 0 else f"lag fixed at {plan.lag}"
    # The empty second line is the place of the smaller text below.
    figure.suptitle("Write latency against the write quorum\n", fontsize=17, fontweight="bold")
    figure.text(
        0.5,
        0.93,
        f"1 leader, {run.followers} {plural('follower', run.followers)}, {lag}  ·  "
        f"{plan.writes} {plural('write', plan.writes)} per quorum, {plan.concurrency} at a time, "
        f"on {plan.keys} {plural('key', plan.keys)}  ·  seed {plan.seed}",
        ha="center",
        fontsize=11,
        color=GREY,
    )
    measured = [(result, result.latency) for result in run.results if result.latency is not None]
    measured.sort(key=lambda pair: pair[0].quorum)
    _draw_means(left, run, measured)
    _draw_distributions(right, run, measured)
    highest_ms = max([run.plan.lag.max_ms, *(latency.max_ms for _, latency in measured)])
    for axes in (left, right):
        _dress(axes, sorted(plan.quorums), highest_ms)
    return figure


def _dress(axes: Axes, quorums: Sequence[int], highest_ms: float) -> None:
    axes.set_xticks(quorums)
    axes.set_ylim(0, 1.04 * highest_ms or 1.0)
    axes.set_xlabel("write quorum k (confirmations waited for)", fontsize=11.5)
    axes.set_ylabel("write latency seen by the client (ms)", fontsize=11.5)
    axes.tick_params(labelleft=True, labelsize=10.5)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(axes: Axes) -> None:
    """Below the axes, where it can hide nothing."""
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.11), ncol=2, fontsize=10.5, frameon=False
    )


def _draw_means(axes: Axes, run: Run, measured: Measured) -> None:
    n, quorums = run.followers, [result.quorum for result, _ in measured]
    axes.set_title("Means, and where 90 % of the writes lie", fontsize=12.5)
    axes.set_xlim(min(run.plan.quorums) - 0.5, max(run.plan.quorums) + 0.95)
    _draw_band(axes, measured)
    _draw_theory(axes, [OrderStatistic(k, n, run.plan.lag) for k in sorted(run.plan.quorums)])
    if run.like_the_lab:
        axes.plot(
            [k - 0.16 for k in quorums],
            [LAB_MEANS_MS[k] for k in quorums],
            linestyle="none",
            marker="D",
            markersize=7,
            markerfacecolor="white",
            markeredgecolor="black",
            markeredgewidth=1.5,
            label="original lab's mean (set left)",
            zorder=4,
        )
    axes.errorbar(
        quorums,
        [latency.mean_ms for _, latency in measured],
        yerr=[latency.standard_error_ms or 0.0 for _, latency in measured],
        color=BLUE,
        linestyle="none",
        marker="o",
        markersize=7,
        capsize=6,
        elinewidth=2,
        capthick=2,
        label="measured mean ± standard error",
        zorder=5,
    )
    for result, latency in measured:
        axes.annotate(
            f"{latency.mean_ms:.0f} ms",
            (result.quorum, latency.mean_ms),
            xytext=(9, -14),
            textcoords="offset points",
            color=BLUE,
            fontsize=10.5,
            fontweight="bold",
            path_effects=[withStroke(linewidth=3, foreground="white")],
            zorder=6,
        )
    _legend(axes)


def _draw_band(axes: Axes, measured: Measured) -> None:
    ends = [float(result.quorum) for result, _ in measured]
    low = [latency.p5_ms for _, latency in measured]
    high = [latency.p95_ms for _, latency in measured]
    if len(measured) == 1:  # a band needs some width
        ends, low, high = [ends[0] - 0.25, ends[0] + 0.25], low * 2, high * 2
    label = "measured p5 to p95"
    axes.fill_between(ends, low, high, color=SKY, alpha=0.25, linewidth=0, label=label, zorder=1)


def _draw_theory(axes: Axes, statistics: Sequence[OrderStatistic]) -> None:
    quorums = [statistic.k for statistic in statistics]
    # With one quorum there is no line to draw, so its points are marked.
    marker = "x" if len(quorums) == 1 else ""
    axes.plot(
        quorums,
        [statistic.mean_ms for statistic in statistics],
        color=VERMILLION,
        linestyle="--",
        linewidth=2,
        marker=marker,
        label=f"theory: min + (max − min)·k/{statistics[0].n + 1}",
        zorder=3,
    )
    for share, label in ((0.05, "theory, p5 and p95"), (0.95, None)):
        axes.plot(
            quorums,
            [statistic.quantile_ms(share) for statistic in statistics],
            color=VERMILLION,
            linestyle=":",
            linewidth=1.5,
            marker=marker,
            label=label,
            zorder=2,
        )


def _draw_distributions(axes: Axes, run: Run, measured: Measured) -> None:
    lag = run.plan.lag
    axes.set_title("Every write, and the order statistic behind it", fontsize=12.5)
    axes.set_xlim(min(run.plan.quorums) - 0.4, max(run.plan.quorums) + 0.8)
    top_ms = max([lag.max_ms, *(latency.max_ms for _, latency in measured)])
    bottom_ms = min([lag.min_ms, *(latency.min_ms for _, latency in measured)])
    bin_ms = (top_ms - bottom_ms) / BINS or 1.0
    starts = [bottom_ms + i * bin_ms for i in range(BINS)]
    histograms = [_histogram(result, bottom_ms, bin_ms) for result, _ in measured]
    curve_at = [lag.min_ms + lag.range_ms * i / CURVE_POINTS for i in range(CURVE_POINTS + 1)]
    curves: list[list[float]] = []
    if lag.range_ms > 0:
        curves = [[result.statistic.density(x) for x in curve_at] for result, _ in measured]
    scale = WIDEST / max((max(shape) for shape in histograms + curves), default=1.0)
    for (result, latency), densities in zip(measured, histograms, strict=True):
        k = result.quorum
        bars = [scale * density for density in densities]
        axes.barh(starts, bars, height=bin_ms, left=k, align="edge", color=SKY, alpha=0.55)
        axes.axvline(k, color="#999999", linewidth=0.8, zorder=1)
        _draw_dots(axes, result)
        axes.plot([k - 0.33, k], [latency.p50_ms] * 2, color="black", linewidth=2.2, zorder=5)
    for (result, _), curve in zip(measured, curves, strict=False):
        outline = [result.quorum + scale * density for density in curve]
        # Closed at both ends, where the density need not be 0.
        axes.plot(
            [result.quorum, *outline, result.quorum],
            [lag.min_ms, *curve_at, lag.max_ms],
            color=VERMILLION,
            linewidth=2,
            zorder=4,
        )
    if not curves:
        for result, _ in measured:
            k = result.quorum
            axes.plot([k, k + WIDEST], [lag.min_ms] * 2, color=VERMILLION, linewidth=2, zorder=4)
    _describe_distributions(axes, run.followers)


def _describe_distributions(axes: Axes, n: int) -> None:
    """A legend of things drawn once for each quorum."""
    axes.plot([], [], "o", color=BLUE, markersize=4, alpha=0.6, label="a write")
    axes.plot([], [], color="black", linewidth=2.2, label="median")
    axes.fill_between([], [], color=SKY, alpha=0.55, label="measured distribution")
    label = f"theory: density of the k-th smallest of {n} lags"
    axes.plot([], [], color=VERMILLION, linewidth=2, label=label)
    _legend(axes)


def _histogram(result: QuorumResult, bottom_ms: float, bin_ms: float) -> list[float]:
    """The share of the writes in each bin, per millisecond."""
    values = [sample.latency_ms for sample in result.samples if sample.answer is not None]
    counts = [0] * BINS
    for value in values:
        counts[min(int((value - bottom_ms) / bin_ms), BINS - 1)] += 1
    return [count / len(values) / bin_ms for count in counts]


def _draw_dots(axes: Axes, result: QuorumResult) -> None:
    values = [sample.latency_ms for sample in result.samples if sample.answer is not None]
    # Spread sideways at random, the same way each time, so that dots do not hide each other.
    spread = random.Random(0)
    sideways = [result.quorum - 0.05 - 0.24 * spread.random() for _ in values]
    # As many dots as can be told apart: the more there are, the fainter each.
    alpha = max(0.05, min(0.5, 50 / len(values)))
    axes.scatter(sideways, values, s=10, color=BLUE, alpha=alpha, linewidths=0, zorder=3)
