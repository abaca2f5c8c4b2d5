"""`python -m loadgen --check`: a run, its files, and what the terminal says of it."""

from __future__ import annotations

from pathlib import Path

import trio

from loadgen import summary
from loadgen.check import report
from loadgen.check.plan import CheckPlan
from loadgen.check.result import CheckResult
from loadgen.check.run import record_and_judge
from loadgen.screen import Screen


async def check(plan: CheckPlan, folder: Path, screen: Screen) -> int:
    """Do it; returns the exit code."""
    result = await record_and_judge(plan, folder, screen)
    screen.step("drawing the picture")
    files = await trio.to_thread.run_sync(_write, result, folder)
    for line in [*report.in_short(result), *(f"written: {name}" for name in files)]:
        screen.say(line)
    for problem in report.problems(result):
        screen.error(problem)
    return result.exit_code


def _write(result: CheckResult, folder: Path) -> list[str]:
    # matplotlib takes a second to import: not before it is needed.
    from loadgen.check import picture

    summary.write_file(folder / report.PICTURE_FILE, picture.draw_png(result))
    summary.write_file(folder / report.REPORT_FILE, report.text_of(result).encode())
    return [str(folder / name) for name in report.FILES]
