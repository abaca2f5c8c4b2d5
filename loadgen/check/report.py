"""`check.md` and the last lines on the terminal: what a check has found, in words and two tables."""

from __future__ import annotations

from collections.abc import Sequence

from loadgen.check.plan import LEAST_FAULTS, LEAST_RATE
from loadgen.check.result import ANSWERS, CheckResult
from loadgen.check.verdict import summary

HISTORY_FILE = "history.json"
PICTURE_FILE = "history.png"
REPORT_FILE = "check.md"
LOGS_FOLDER = "check-logs"
FILES = (HISTORY_FILE, PICTURE_FILE, REPORT_FILE, LOGS_FOLDER)

#: More do not help anybody; all of them follow from `history.json`.
MOST = 20

_WORDS = {
    "ok": "OK: nothing that was confirmed is lost, and every answer can be explained.",
    "anomalies": "ANOMALIES: the store broke a promise.",
    "errors": "ERRORS: no promise was broken, but a node met something that nobody foresaw.",
    "invalid": "INVALID: nothing is wrong, but too little was done to rely on that.",
    "failed": "FAILED: the run could not be done to its end.",
}


def headline(result: CheckResult) -> str:
    """The verdict, and what was done, in two lines."""
    return f"{_in_words(result)}\n{result.plan.words()}"


def _in_words(result: CheckResult) -> str:
    if result.verdict == "invalid" and result.undecided:
        return "INVALID: nothing wrong was found, but not everything could be judged."
    return _WORDS[result.verdict]


def in_short(result: CheckResult) -> list[str]:
    """The lines that end a run on the terminal."""
    calls, faults = result.history.calls, result.faults
    counts = {answer: 0 for answer in ANSWERS}
    for row in result.outcomes().values():
        for answer, count in row.items():
            counts[answer] += count
    lines = [
        f"{len(calls)} calls: " + ", ".join(f"{n} {answer}" for answer, n in counts.items()),
        "faults: " + (", ".join(f"{kind} {n}" for kind, n in faults.items()) or "none"),
    ]
    for rate in result.rates:
        lines.append(
            f"{rate.what} completed: {rate.disturbed:.1f}/s under the nemesis, "
            f"{rate.fault_free:.1f}/s without ({rate.share:.0%})"
        )
    undecided = f", undecided keys: {len(result.undecided)}" if result.undecided else ""
    lines.append(f"anomalies: {len(result.anomalies)}{undecided}")
    lines.append(_in_words(result))
    return lines


def problems(result: CheckResult) -> list[str]:
    """What keeps the run from being green, most telling first."""
    found = summary(result.anomalies, MOST).splitlines() + list(result.complaints[:MOST])
    found += result.undecided
    if result.failure is not None:
        found.append(result.failure)
    return found + [f"invalid: {text}" for text in result.shortcomings]


def text_of(result: CheckResult) -> str:
    """The whole of `check.md`."""
    plan = result.plan
    parts = [
        "# A history under a nemesis, checked",
        f"{_in_words(result)}\n\n{plan.words()}.",
        f"![Operations, faults and anomalies over time]({PICTURE_FILE})",
        "## Why" if result.verdict != "ok" else "",
        "\n".join(f"- {text}" for text in problems(result)),
        "## Operations",
        _table(
            ["", *ANSWERS, "all"],
            [
                [kind, *(str(row.get(answer, 0)) for answer in ANSWERS), str(sum(row.values()))]
                for kind, row in result.outcomes().items()
            ],
        ),
        "*Told what is there*: a read or a delete of a key that is not there, or a precondition that "
        "did not hold. *Unknown*: not answered in time, or answered that it may have happened."
        + (f" {result.not_sent} requests found no connection." if result.not_sent else ""),
        "## Faults",
        _table(["fault", "times"], [[kind, str(n)] for kind, n in result.faults.items()])
        if result.faults
        else "None were chosen.",
        "## Rates",
        _table(
            ["completed a second", "without faults", "under the nemesis", "left"],
            [
                [r.what, f"{r.fault_free:.1f}", f"{r.disturbed:.1f}", f"{r.share:.0%}"]
                for r in result.rates
            ],
        ),
        f"A run is invalid if less than {LEAST_RATE:.0%} is left, or a fault was met fewer than "
        f"{LEAST_FAULTS} times. Without faults: {result.fault_free.seconds:.0f} s; under the nemesis: "
        f"{result.disturbed.seconds:.0f} s. Judging took {result.judging_s:.1f} s.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
