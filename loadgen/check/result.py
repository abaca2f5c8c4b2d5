"""What a check has found, in figures, and whether it is worth anything.                     (pure)

    ok          nothing is wrong, and enough was done to say so
    anomalies   the store broke a promise
    errors      it did not, but a node logged an error that nobody foresaw
    invalid     nothing is wrong, but too little was done, or not all of it could be judged: green would
                be a lie
    failed      the run could not be done to its end

A call is *completed* if it was answered with what it asked for, or with what is there instead: the
404 of a read or a delete, a 412. A run is invalid if, while the nemesis worked, less than `LEAST_RATE`
of the fault-free rate was completed, of all calls or of the writes alone; or if a fault that was chosen
was met fewer than `LEAST_FAULTS` times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from loadgen.check.history import Call, History
from loadgen.check.plan import KINDS, LEAST_FAULTS, LEAST_RATE, CheckPlan
from loadgen.check.verdict import Anomaly
from loadgen.wording import plural

Verdict = Literal["ok", "anomalies", "errors", "invalid", "failed"]


class Phase(NamedTuple):
    """From when to when, on the history's clock."""

    begun: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.begun


class Rate(NamedTuple):
    """Completed calls a second: left alone, and under the nemesis."""

    what: str
    fault_free: float
    disturbed: float

    @property
    def share(self) -> float:
        """What is left of the fault-free rate."""
        return self.disturbed / self.fault_free if self.fault_free else 0.0


def is_completed(call: Call) -> bool:
    return call.ok or bool(call.shown)


@dataclass(frozen=True)
class CheckResult:
    """A history, what was wrong with it, and the phases in which it was made."""

    plan: CheckPlan
    history: History
    fault_free: Phase
    disturbed: Phase
    anomalies: Sequence[Anomaly] = ()
    complaints: Sequence[str] = ()
    """What the nodes logged that no fault explains."""
    failure: str | None = None
    """Why the run was not done to its end."""
    not_sent: int = 0
    judging_s: float = 0.0
    undecided: Sequence[str] = ()
    """The keys that could not be judged, a line each."""
    rates: tuple[Rate, Rate] = field(init=False)

    def __post_init__(self) -> None:
        writes = self._rate("writes", [c for c in self.history.calls if c.writes])
        object.__setattr__(self, "rates", (self._rate("all calls", self.history.calls), writes))

    def _rate(self, what: str, calls: Sequence[Call]) -> Rate:
        answered = [call.answered for call in calls if call.answered and is_completed(call)]

        def of(phase: Phase) -> float:
            count = sum(phase.begun <= at < phase.ended for at in answered)
            return count / phase.seconds if phase.seconds > 0 else 0.0

        return Rate(what, of(self.fault_free), of(self.disturbed))

    @property
    def faults(self) -> dict[str, int]:
        """How often each chosen fault was met."""
        met = Counter(fault.kind for fault in self.history.faults)
        return {kind: met[kind] for kind in KINDS if kind in self.plan.nemesis}

    @property
    def shortcomings(self) -> list[str]:
        """Why the run says too little, a sentence each; [] if it does not."""
        found = [
            f"{kind} was met {count} {plural('time', count)}, expected at least {LEAST_FAULTS}"
            for kind, count in self.faults.items()
            if count < LEAST_FAULTS
        ]
        for rate in self.rates:
            if rate.share < LEAST_RATE:
                found.append(
                    f"of {rate.what}, {rate.disturbed:.1f}/s were completed under the nemesis and "
                    f"{rate.fault_free:.1f}/s without, expected at least {LEAST_RATE:.0%} of that"
                )
        return found

    @property
    def verdict(self) -> Verdict:
        if self.anomalies:
            return "anomalies"
        if self.complaints:
            return "errors"
        if self.failure is not None:
            return "failed"
        return "invalid" if self.undecided or self.shortcomings else "ok"

    @property
    def exit_code(self) -> int:
        return 0 if self.verdict == "ok" else 1

    def outcomes(self) -> dict[str, dict[str, int]]:
        """How many calls of each kind had each outcome; reads are told apart."""
        found: dict[str, Counter[str]] = {}
        for call in self.history.calls:
            found.setdefault(kind_of(call), Counter())[answer_of(call)] += 1
        return {kind: dict(found[kind]) for kind in sorted(found)}


def kind_of(call: Call) -> str:
    """What was asked, in the words of the report."""
    if call.kind == "write":
        if len(call.writes) > 1:
            return "batch"
        return "delete" if None in call.writes.values() else "put"
    if call.kind == "list":
        return "list"
    if call.linearizable:
        return "linearizable read"
    return "local read" if call.min_version is None else "read with min_version"


#: The columns of the report: what became of a call.
ANSWERS = ("ok", "told what is there", "refused", "unknown")


def answer_of(call: Call) -> str:
    """One of `ANSWERS`."""
    if call.ok:
        return "ok"
    return "told what is there" if call.shown else call.outcome
