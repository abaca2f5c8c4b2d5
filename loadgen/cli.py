"""The command line: exit codes, signals, and the one nursery that owns every task.

    0    all writes confirmed, all replicas equal once settled; with --check: no anomalies
    1    writes failed, replicas differ, anomalies, an invalid run, or one that could not be done
    2    bad usage: nothing was run
    130  ended by Ctrl-C (128 + the number of any other signal)

Ctrl-C and SIGTERM cancel the work and nothing else: its cleanup (nodes stopped, settings given
back, directory removed) runs to its end, however often they are repeated. What is expected to
go wrong is a `LoadgenError` and becomes one line; a traceback is a bug of ours.
"""

import secrets
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import trio

from loadgen import experiment, summary
from loadgen.check import report as report_of_check
from loadgen.check.command import check
from loadgen.cluster import FOLLOWERS
from loadgen.errors import ClusterError, LoadgenError, UsageError, leaves
from loadgen.options import Options, default_quorums, parse
from loadgen.results import Plan, Run
from loadgen.screen import Screen
from loadgen.wording import listed, plural


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load generator; returns the exit code. Bad usage raises SystemExit(2)."""
    options = parse(arguments)
    screen = Screen()
    try:
        return trio.run(run, options, screen)
    except BaseExceptionGroup as group:
        return _explain(group, screen)


def _explain(group: BaseExceptionGroup[BaseException], screen: Screen) -> int:
    """The exit code of what ended a run; re-raises what nobody expected."""
    found = list(leaves(group))
    if any(isinstance(error, KeyboardInterrupt) for error in found):
        return 128 + signal.SIGINT
    expected = [error for error in found if isinstance(error, LoadgenError)]
    if len(expected) < len(found):
        raise group
    # A node that died explains the requests that failed with it.
    first = min(expected, key=lambda error: not isinstance(error, ClusterError))
    screen.error(str(first))
    return first.exit_code


async def run(options: Options, screen: Screen) -> int:
    """The whole run in one nursery: signals, the screen, the work. Returns the exit code."""
    stopped_by: list[int] = []
    code = 0
    with trio.open_signal_receiver(*_signals()) as signals:
        async with trio.open_nursery() as nursery:
            work = trio.CancelScope()
            nursery.start_soon(_heed, signals, work, stopped_by, screen)
            with screen.live():
                nursery.start_soon(screen.redraw)
                with work:
                    code = await _work(options, screen)
            nursery.cancel_scope.cancel()
    return 128 + stopped_by[0] if stopped_by else code


def _signals() -> list[signal.Signals]:
    found = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":
        found.append(signal.SIGBREAK)
    elif signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # which is how nohup asks to go on
        found.append(signal.SIGHUP)
    return found


async def _heed(
    signals: AsyncIterator[int], work: trio.CancelScope, stopped_by: list[int], screen: Screen
) -> None:
    """Cancel the work at the first signal, and take in the others while it cleans up."""
    async for number in signals:
        stopped_by.append(number)
        if len(stopped_by) == 1:
            screen.warn(f"{signal.Signals(number).name}: stopping and cleaning up")
            work.cancel()


async def _work(options: Options, screen: Screen) -> int:
    summary.prepare_folder(options.output)
    names = summary.FILES if options.check is None else report_of_check.FILES
    if found := [name for name in names if (options.output / name).exists()]:
        screen.warn(
            f"{options.output} has the files of an earlier run, which this one will replace: "
            f"{listed(found)} (--output DIR keeps them)"
        )
    if options.check is not None:
        return await check(options.check, options.output, screen)
    problems: list[str] = []
    try:
        result = await _measure(options, screen, problems)
    finally:
        for problem in problems:
            screen.error(problem)
    screen.step("drawing the plot")
    files = await trio.to_thread.run_sync(_write_all, result, options.output)
    screen.summary(result, files)
    return 0 if result.ok else 1


async def _measure(options: Options, screen: Screen, problems: list[str]) -> Run:
    run_id = secrets.token_hex(4)

    def plan_for(followers: int) -> Plan:
        quorums = options.quorums or default_quorums(followers)
        if max(quorums) > followers:
            raise UsageError(
                f"quorum {max(quorums)} cannot be met by {followers} "
                f"{plural('follower', followers)}: expected quorums from 1 to {followers}"
            )
        return Plan(
            quorums=quorums,
            writes=options.writes,
            concurrency=options.concurrency,
            keys=options.keys,
            lag=options.lag,
            seed=options.seed,
            run_id=run_id,
        )

    screen.say(
        f"{options.writes} writes per quorum, {options.concurrency} at a time, "
        f"on {options.keys} {plural('key', options.keys)}, "
        f"lag {options.lag}, seed {options.seed}"
    )
    if options.leader_url is None:
        return await experiment.run_on_own_cluster(plan_for(FOLLOWERS), screen)
    screen.step(f"waiting for {options.leader_url}")
    return await experiment.run_on_found_cluster(
        plan_for,
        experiment.connector(options.leader_url, options.lag.max_ms),
        screen,
        wait_s=options.wait_s,
        problems=problems,
    )


def _write_all(result: Run, folder: Path) -> list[str]:
    # matplotlib takes a second to import: not before it is needed, and never for --help.
    from loadgen import plots, report

    plots.write_plot(result, folder)
    report.write_report(result, folder)
    summary.write_samples(result, folder)
    summary.write_summary(result, folder)
    return [str(folder / name) for name in summary.FILES]
