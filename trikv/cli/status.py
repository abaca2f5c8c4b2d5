"""`status`: the nodes, their links and lags, and whether their replicas are equal, as a table.

The exit code says whether all is well: 0, 1 if something is not, 4 if no node can be reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import trio

from trikv.cli.options import Number, Setup, ask, asks_nodes
from trikv.cli.outcome import ExitCode
from trikv.cli.output import (
    Cell,
    Output,
    Style,
    cells,
    clip,
    count,
    milliseconds,
    visible,
)
from trikv.cli.survey import NodeView, Survey, take
from trikv.client.admin import AdminClient

HEADS = ("node", "role", "link", ">behind", "replica", ">keys", "URL")

#: Problems that are shown: each is a line.
MAX_PROBLEMS = 12


@click.command("status")
@click.option("--watch", "again", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option(
    "--interval",
    type=Number(0.1, 3600, "seconds"),
    default=1.0,
    metavar="SECONDS",
    help="With --watch: between two looks. Default: 1.",
)
@asks_nodes
def status(setup: Setup, again: bool, interval: float) -> ExitCode:
    """Show nodes, links, lags, and whether the replicas are equal.

    Exit code 0 if all is well, 1 if something is not, 4 if no node can be reached.
    """
    output = setup.output

    async def work(client: AdminClient) -> ExitCode:
        survey = await take(client, timeout_s=setup.timeout_s)
        while again:
            show(output, survey, flush=True, over=output.is_terminal and not output.as_json)
            await trio.sleep(interval)
            survey = await take(client, timeout_s=setup.timeout_s)
        show(output, survey)
        if survey.healthy:
            return ExitCode.DONE
        return ExitCode.NO if survey.answered else ExitCode.UNAVAILABLE

    return ask(setup, work, silent=True)


def show(output: Output, survey: Survey, *, flush: bool = False, over: bool = False) -> None:
    """Print it; `over`: in place of what the terminal shows."""
    if output.as_json:
        output.document(survey.document, flush=flush)
        return
    lines = picture(output, survey)
    if over:
        output.line("\x1b[H" + "\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J", flush=True)
    else:
        output.lines([*lines, ""] if flush else lines)


def picture(output: Output, survey: Survey) -> list[str]:
    """The whole of it, in lines."""
    lines = [*head(output, survey), ""]
    lines += output.table(HEADS, [row(node) for node in survey.nodes])
    return [*lines, "", *verdict(output, survey)]


def head(output: Output, survey: Survey) -> list[str]:
    """What holds for the whole cluster."""
    if survey.leader_url is None:
        return [output.paint("no leader", "red")]
    pending = survey.pending_write_quorum
    quorum = f"{survey.write_quorum} of {survey.followers}"
    parts = [
        ("leader", visible(survey.leader or "?")),
        ("quorum", quorum if pending is None else f"{quorum} ({pending} is pending)"),
        ("lag", lag_range(survey.min_delay_ms, survey.max_delay_ms)),
        ("in flight", count(survey.inflight_writes or 0)),
        ("epoch", visible(survey.epoch or "?")),
    ]
    plain = "   ".join(f"{name} {value}" for name, value in parts)
    if output.width is not None and cells(plain) > output.width:
        return [clip(plain, output.width)]
    return ["   ".join(f"{output.paint(name, 'dim')} {value}" for name, value in parts)]


def lag_range(low: Any, high: Any) -> str:
    """`0–1000 ms`."""
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return "?"
    return f"{low:g} ms" if low == high else f"{low:g}–{high:g} ms"


_LINK_STYLES: dict[str | None, Style] = {
    "live": "green",
    "syncing": "yellow",
    "connecting": "yellow",
    "down": "red",
    "cut": "red",
}


def row(node: NodeView) -> list[Cell]:
    """A node in the table."""
    return [
        (visible(node.node_id or "?"), "bold" if node.leads else "cyan"),
        role(node),
        (node.link, _LINK_STYLES.get(node.link, "yellow")) if node.link else "",
        behind(node),
        replica(node),
        "" if node.records is None else count(node.records),
        visible(node.url or "?"),
    ]


def role(node: NodeView) -> Cell:
    if node.reachable is False:
        return ("unreachable", "red")
    if node.reachable and not node.ready:
        return ("not ready", "yellow")
    return node.role or "?"


def behind(node: NodeView) -> str:
    """Records that are on their way, and for how long."""
    if node.lag_records is None:
        return ""
    late = f", {milliseconds(node.lag_ms)}" if node.lag_ms else ""
    return f"{count(node.lag_records)}{late}" if node.lag_records or late else "0"


def replica(node: NodeView) -> Cell:
    match node.replica:
        case "match":
            return ("equal", "green")
        case "mismatch":
            total = node.differing_keys_total
            return (f"{count(total)} differ" if total else "differs", "red")
        case "unreachable":
            return ("?", "red")
    return ""


def verdict(output: Output, survey: Survey) -> list[str]:
    """What is not well, or that all is."""
    if survey.healthy:
        return [output.paint("all is well", "green")]
    lines = [f"- {visible(problem)}" for problem in shortened(survey.problems)]
    width = output.width
    style: Style = "yellow" if survey.moving else "red"
    return [output.paint(line if width is None else clip(line, width), style) for line in lines]


def shortened(problems: Sequence[str]) -> list[str]:
    if len(problems) <= MAX_PROBLEMS:
        return list(problems)
    return [*problems[: MAX_PROBLEMS - 1], f"and {len(problems) - MAX_PROBLEMS + 1} more"]
