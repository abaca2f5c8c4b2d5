"""What of a run is worth a closer look, and which calls are wrong.                              (pure)

Windows of some seconds lie around anomalies; if there are none, around the takeovers, the ones with a
paused or a living old leader first, since those show most. Each window is as far from the others as
their number allows.
"""

from __future__ import annotations

from collections.abc import Iterator

from loadgen.check.history import Fault
from loadgen.check.result import CheckResult, Phase

#: The faults that windows may be about, the most telling first.
FAULTS_IN_ORDER = (
    "old leader, paused",
    "old leader, alive",
    "old leader, dead",
    "wipe",
    "partition",
    "pause",
    "kill",
)

#: What is seen of the time before the moment that a window is about.
BEFORE = 0.3


def wrong_calls(result: CheckResult) -> list[int]:
    """The calls that show anomalies, by their places in the history, in order."""
    return sorted({index for anomaly in result.anomalies for index in anomaly.calls})


def wrong_moments(result: CheckResult) -> list[float]:
    """When those calls were begun."""
    return sorted(result.history.calls[index].begun for index in wrong_calls(result))


def windows(result: CheckResult, count: int, width_s: float) -> list[Phase]:
    """Up to `count` windows that do not overlap, in order."""
    found: list[Phase] = []
    for moment in _moments(result):
        begun = max(0.0, moment - BEFORE * width_s)
        if all(abs(begun - other.begun) >= width_s for other in found):
            found.append(Phase(begun, begun + width_s))
        if len(found) == count:
            break
    return sorted(found)


def _moments(result: CheckResult) -> Iterator[float]:
    """What windows may be about, the most telling first."""
    yield from wrong_moments(result)
    faults = [fault for fault in result.history.faults if fault.kind in FAULTS_IN_ORDER]
    yield from (f.begun for f in sorted(faults, key=lambda f: FAULTS_IN_ORDER.index(f.kind)))
    yield 0.0


def nodes_of(fault: Fault) -> list[str]:
    """Whom it was done to."""
    return fault.node.split(",")
