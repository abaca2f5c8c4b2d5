"""`bench`: some seconds of writes from several clients, the quorum and the lag as they are.

Each client writes one key after the other and waits for each answer, so what is measured is what a
program with so many tasks would see, this client's own work included. It is a look, not a benchmark:
docs/performance.md has those.

The keys are its own, under a prefix, and are deleted in the end in one batch, unless they are to be
kept. Ctrl-C ends the writing early; what was measured until then is told.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
import trio

from trikv.cli import survey as surveys
from trikv.cli.control import leader_of
from trikv.cli.options import Number, Setup, ask, asks_nodes
from trikv.cli.outcome import ExitCode, leaves
from trikv.cli.output import Output, bar, cells, count, milliseconds, pad, plural, sparkline
from trikv.cli.status import lag_range
from trikv.client import ClientError, Delete, Written
from trikv.client.admin import AdminClient
from trikv.protocol.messages import MAX_BATCH_OPERATIONS

PREFIX = "trikv-bench/"

#: Deleting the keys of a bench may take so long, whatever its --timeout is.
DELETE_S = 15.0

#: Columns of the greatest bar.
_BAR_CELLS = 40
_REDRAW_S = 0.2

Put = Callable[[str, Any], Awaitable[Written]]


@dataclass
class Measured:
    """What the clients have seen. Times are seconds since it began."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    """Of the failures: those whose write may have happened."""
    ends_s: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return len(self.latencies_ms) / self.seconds if self.seconds else 0.0

    def rates(self) -> list[float]:
        """Writes confirmed in each whole second."""
        whole = max(1, round(self.seconds))
        per_second = Counter(min(int(end), whole - 1) for end in self.ends_s)
        return [float(per_second[second]) for second in range(whole)]


async def measure(
    put: Put, *, seconds: float, clients: int, keys: int, value_bytes: int, so_far: Measured
) -> None:
    """Write from all clients for so long, into `so_far`, which is true at any moment."""
    began = trio.current_time()
    numbers = iter(range(10**12))
    rng = random.Random()

    async def client() -> None:
        while (sent := trio.current_time()) < began + seconds:
            key = f"{PREFIX}{next(numbers) % keys:04}"
            value = f"{rng.randrange(16**8):08x}".ljust(value_bytes, "x")[:value_bytes]
            try:
                await put(key, value)
            except ClientError as error:
                so_far.failures[error.code] += 1
                so_far.unknown += error.may_have_happened
            else:
                now = trio.current_time()
                so_far.latencies_ms.append((now - sent) * 1000)
                so_far.ends_s.append(now - began)
            finally:
                so_far.seconds = trio.current_time() - began

    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(client)


@click.command("bench")
@click.option(
    "--seconds", type=Number(0.1, 600, "s"), default=5.0, metavar="SECONDS", help="Default: 5."
)
@click.option(
    "--clients",
    type=Number(1, 200, "clients", whole=True),
    default=8,
    metavar="CLIENTS",
    help="Each with one write at a time. Default: 8.",
)
@click.option(
    "--keys",
    type=Number(1, MAX_BATCH_OPERATIONS, "keys", whole=True),
    default=100,
    metavar="KEYS",
    help="Written in turn. Default: 100.",
)
@click.option(
    "--value-bytes",
    type=Number(1, 65536, "bytes", whole=True),
    default=100,
    metavar="BYTES",
    help="In each value. Default: 100.",
)
@click.option("--keep", is_flag=True, help=f"Do not delete the keys ({PREFIX}…) in the end.")
@asks_nodes
def bench(
    setup: Setup, seconds: float, clients: int, keys: int, value_bytes: int, keep: bool
) -> ExitCode:
    """Write for some seconds, and show rates and latencies.

    Quorum and lag are as they are. Exit code 1 if writes failed.
    """
    output, so_far = setup.output, Measured()

    async def work(client: AdminClient) -> ExitCode:
        survey = await leader_of(client, setup)
        if not output.as_json:
            output.line(title(survey, clients, seconds, value_bytes), flush=True)
        interrupted = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_progress, output, so_far, seconds)
                await measure(
                    client.put,
                    seconds=seconds,
                    clients=clients,
                    keys=keys,
                    value_bytes=value_bytes,
                    so_far=so_far,
                )
                nursery.cancel_scope.cancel()
        except BaseException as error:
            if not any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves(error)):
                raise
            interrupted = True
        if output.is_terminal and not output.as_json:
            output.over("")
        if so_far.latencies_ms and not keep:
            await _delete(client, output, min(keys, MAX_BATCH_OPERATIONS))
        show(output, so_far, survey, clients)
        if interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.NO if so_far.failures or not so_far.latencies_ms else ExitCode.DONE

    return ask(setup, work, silent=True)


async def _delete(client: AdminClient, output: Output, keys: int) -> None:
    try:
        operations = [Delete(f"{PREFIX}{number:04}") for number in range(keys)]
        await client.batch(operations, timeout_s=DELETE_S)
    except ClientError as error:
        output.say(f"the keys under {PREFIX} were not deleted: {error.detail}", "yellow")


async def _progress(output: Output, so_far: Measured, seconds: float) -> None:
    while output.is_terminal and not output.as_json:
        done = min(1.0, so_far.seconds / seconds)
        line = f"{pad(bar(done, 30), 30)} {count(len(so_far.latencies_ms))} writes"
        output.over(line)
        await trio.sleep(_REDRAW_S)


def title(survey: surveys.Survey, clients: int, seconds: float, value_bytes: int) -> str:
    lag = lag_range(survey.min_delay_ms, survey.max_delay_ms)
    followers = plural("follower", survey.followers or 0)
    return (
        f"{plural('client', clients)}, {seconds:g} s, values of {plural('byte', value_bytes)}; "
        f"quorum {survey.write_quorum} of {followers}, lag {lag}"
    )


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The smallest value that so many are not above."""
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


def buckets(latencies_ms: Sequence[float]) -> list[tuple[float, float, int]]:
    """From, to, how many: each twice as wide as the one before, or so (1, 2, 5, 10, …)."""
    if not latencies_ms:
        return []
    edges = [0.0]
    power = -1
    while edges[-1] <= max(latencies_ms):
        edges += [step * 10.0**power for step in (1, 2, 5)]
        power += 1
    counted = [
        (low, high, sum(low <= one < high for one in latencies_ms))
        for low, high in itertools.pairwise(edges)
    ]
    while counted and not counted[0][2]:
        counted.pop(0)
    while counted and not counted[-1][2]:
        counted.pop()
    return counted


def document(so_far: Measured, survey: surveys.Survey, clients: int) -> dict[str, Any]:
    """As `--json` tells it."""
    ordered = sorted(so_far.latencies_ms)
    latency = None
    if ordered:
        latency = {
            "mean": round(sum(ordered) / len(ordered), 3),
            "p50": round(percentile(ordered, 0.5), 3),
            "p90": round(percentile(ordered, 0.9), 3),
            "p99": round(percentile(ordered, 0.99), 3),
            "max": round(ordered[-1], 3),
        }
    return {
        "seconds": round(so_far.seconds, 3),
        "clients": clients,
        "write_quorum": survey.write_quorum,
        "followers": survey.followers,
        "min_delay_ms": survey.min_delay_ms,
        "max_delay_ms": survey.max_delay_ms,
        "confirmed": len(ordered),
        "failed": dict(so_far.failures),
        "may_have_happened": so_far.unknown,
        "writes_per_second": round(so_far.rate, 1),
        "latency_ms": latency,
        "histogram": [
            {"from_ms": low, "to_ms": high, "writes": number}
            for low, high, number in buckets(ordered)
        ],
    }


def show(output: Output, so_far: Measured, survey: surveys.Survey, clients: int) -> None:
    if output.as_json:
        output.document(document(so_far, survey, clients))
        return
    ordered = sorted(so_far.latencies_ms)
    rate = f"{count(so_far.rate)} writes/s" if so_far.rate >= 10 else f"{so_far.rate:.1f} writes/s"
    output.line(f"{output.paint(rate, 'bold')}   {count(len(ordered))} confirmed")
    for code, number in so_far.failures.most_common():
        output.line(output.paint(f"{count(number)} failed: {code}", "red"))
    if so_far.unknown:
        output.line(output.paint(f"{count(so_far.unknown)} of these may have happened", "red"))
    if not ordered:
        return
    output.line(f"each second  {sparkline(so_far.rates())}")
    output.line()
    told = {"mean": sum(ordered) / len(ordered)}
    told |= {f"p{p}": percentile(ordered, p / 100) for p in (50, 90, 99)}
    told["max"] = ordered[-1]
    output.line("   ".join(f"{name} {milliseconds(value)}" for name, value in told.items()))
    output.line()
    output.lines(histogram(output, ordered))


def histogram(output: Output, ordered: Sequence[float]) -> list[str]:
    found = buckets(ordered)
    top = max(number for _, _, number in found)
    labels = [f"{low:g}–{high:g} ms" for low, high, _ in found]
    numbers = [f"{count(number)}" for _, _, number in found]
    left, middle = max(map(cells, labels)), max(map(cells, numbers))
    room = _BAR_CELLS
    if output.width is not None:
        room = max(10, min(room, output.width - left - middle - 12))
    return [
        f"{pad(label, left, right=True)}  {pad(number, middle, right=True)}  "
        f"{share:4.0%}  {output.paint(bar(size / top, room), 'cyan')}"
        for label, number, (_, _, size) in zip(labels, numbers, found, strict=True)
        for share in [size / len(ordered)]
    ]
