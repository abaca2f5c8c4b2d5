"""What the terminal shows: progress while the run goes on, and a table at its end.

On a terminal, one live line of progress stands under what was said so far; a task of the root nursery
redraws it a few times a second, so that drawing never happens in the middle of a write. Where
output goes to a file or a pipe there is no live line, no colour and no control code: the same
facts come as plain lines. Errors go to standard error. Characters that the output cannot encode
are replaced, never fatal.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

import trio
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from loadgen.parity import FollowerParity, Look
from loadgen.report import large_overheads
from loadgen.results import QuorumResult, Run
from loadgen.wording import plural
from loadgen.workload import Sample

COLUMNS = (
    "write\nquorum",
    "mean\n± s.e.",
    "\nideal",
    "\np50",
    "\np95",
    "\np99",
    "overhead\np50",
    "writes\nfailed",
    "copies\nbehind",
    "\nmatch",
)

REDRAW_S = 0.2
# A pipe has no width of its own; this fits the table.
PLAIN_WIDTH = 120


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Nobody reads on (`| head`): be quiet, for the reports are still worth finishing."""
        self.quiet = True
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self.file.fileno())


def _console(stream: TextIO, *, stderr: bool = False) -> Console:
    return _Console(
        file=stream,
        stderr=stderr,
        width=None if stream.isatty() else PLAIN_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=not stream.isatty(),
    )


class Screen:
    """The audience of a run (see `experiment.Audience`) that shows it to a human."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        out, err = out or sys.stdout, err or sys.stderr
        for stream in (out, err):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        self._out = _console(out)
        self._err = _console(err, stderr=True)
        self._live = self._out.is_terminal
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=self._out,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=None, note="", visible=False)
        self._failed = 0

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the line of progress inside, if this is a terminal."""
        if not self._live:
            yield
            return
        with self._progress:
            yield

    async def redraw(self) -> None:
        """Keep the line of progress moving, until cancelled."""
        while self._live:
            self._progress.refresh()
            await trio.sleep(REDRAW_S)

    def step(self, text: str) -> None:
        """Something that takes a while has begun, or got further."""
        self._progress.update(self._task, description=text, total=None, note="", visible=True)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._out.print(text)

    def warn(self, text: str) -> None:
        """A line that stays, on standard error."""
        self._err.print(Text(f"warning: {text}", style="yellow"))

    def error(self, text: str) -> None:
        """What ended the run, on standard error."""
        self._err.print(Text(f"loadgen: {text}", style="red"))

    def writing(self, quorum: int, writes: int) -> None:
        """The writes of a quorum begin."""
        self._failed = 0
        self._progress.reset(
            self._task,
            description=f"quorum {quorum}: writing",
            total=writes,
            completed=0,
            note="",
            visible=True,
        )

    def wrote(self, sample: Sample) -> None:
        """A write was made."""
        self._failed += sample.failure is not None
        note = f"{self._failed} failed" if self._failed else ""
        self._progress.update(self._task, advance=1, note=note)

    def settling(self, look: Look) -> None:
        """The replicas were compared while they settle."""
        self._progress.update(
            self._task,
            description="background deliveries settling",
            total=len(look.followers),
            completed=look.matching,
            note=f"{look.matching} of {len(look.followers)} followers match",
        )

    def quorum_done(self, result: QuorumResult) -> None:
        """All is known about one quorum: one line."""
        latency = result.latency
        mean = "no write succeeded" if latency is None else f"mean {latency.mean_ms:6.1f} ms"
        failed = f" {result.failed} FAILED;" if result.failed else ""
        self._out.print(
            f"quorum {result.quorum}: {mean}, ideal {result.statistic.mean_ms:.1f};{failed} "
            f"{behind(result)}; settled: {settled(result)} match"
        )

    def summary(self, run: Run, files: Sequence[str]) -> None:
        """The table, the final parity, and where everything was written."""
        if self._live:
            self._progress.stop()
        self._out.print()
        self._out.print(_table(run))
        self._out.print()
        self._out.print("replicas after the last quorum, once settled, compared with the leader:")
        for follower in run.final_parity:
            self._out.print(_parity_line(follower))
        self._out.print()
        if (large := large_overheads(run)) is not None:
            self.warn(large)
        for name in files:
            self._out.print(f"written: {name}")


def behind(result: QuorumResult) -> str:
    """How far the replicas lagged behind at the last answer, in a few words."""
    copies = result.at_last_answer.lagging_copies
    return f"{copies or 'no'} {plural('copy', copies)} behind"


def settled(result: QuorumResult, of: str = " of ") -> str:
    """How many followers matched once settled; and what was lost, if anything."""
    look = result.settled.look
    lost = f", {len(result.settled.lost_writes)} LOST" if result.settled.lost_writes else ""
    return f"{look.matching}{of}{len(look.followers)}{lost}"


def _table(run: Run) -> Table:
    plan = run.plan
    # Narrow enough for 80 columns: that is what a terminal has until somebody widens it.
    table = Table(
        title=f"{run.followers} {plural('follower', run.followers)}, lag {plan.lag}, "
        f"{plan.concurrency} writes at a time, seed {plan.seed}",
        caption="times in ms; overhead: beyond the ideal of each single write;\n"
        "copies behind: at the last answer; match: followers, once settled",
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for result in run.results:
        table.add_row(str(result.quorum), *_latency_cells(result), *_parity_cells(result))
    return table


def _latency_cells(result: QuorumResult) -> list[str]:
    latency, ideal = result.latency, f"{result.statistic.mean_ms:.1f}"
    if latency is None:
        return ["-", ideal, "-", "-", "-", "-"]
    error_ms = latency.standard_error_ms
    error = "" if error_ms is None else f" ± {error_ms:.1f}"
    return [
        f"{latency.mean_ms:.1f}{error}",
        ideal,
        f"{latency.p50_ms:.1f}",
        f"{latency.p95_ms:.1f}",
        f"{latency.p99_ms:.1f}",
        f"{latency.overhead_p50_ms:.1f}",
    ]


def _parity_cells(result: QuorumResult) -> list[str | Text]:
    look = result.at_last_answer
    copies = look.leader_records * len(look.followers)
    failed = Text(str(result.failed), style="red" if result.failed else "")
    return [
        failed,
        f"{look.lagging_copies} of {copies}",
        Text(settled(result, "/"), style="green" if result.settled.ok else "red"),
    ]


def _parity_line(follower: FollowerParity) -> Text:
    line = Text(f"  {follower.url}  {follower.node_id or '?'}  ")
    line.append(follower.status, style="green" if follower.status == "match" else "red")
    if follower.status != "match":
        if follower.differing_keys:
            line.append(f"  {follower.differing_keys_total} keys differ: ")
            line.append(", ".join(follower.differing_keys))
        if follower.error:
            line.append(f"  ({follower.error})")
    return line
