"""What is wrong with a history: the promises of the store, checked against what clients were told.

    invented        a value is shown that nobody wrote, or whose write was refused, or not begun yet
    two_values      one version of one key stands for two values
    version_order   a write that began after another was confirmed, or that asked for the version of
                    another, has the smaller version
    wrong_refusal   what a refusal says is there is what the precondition asked for
    not_linearizable  of a key, no order explains the writes, the linearizable reads, the refusals, and
                    what is there in the end
    not_caught_up   a read with `min_version`, or a node in the end, lacks a confirmed write up to there
    torn_batch      the same shows a batch in part
    not_equal       in the end, two nodes differ

Of all of these only `not_linearizable` needs a search: a key whose search gives up is undecided, and all
else is told all the same. What a plain read at one node shows may be old,
or not confirmed yet: of it only the first two are asked.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from loadgen.check.history import ABSENT, Call, History, Order, Shown
from loadgen.check.linearizability import NEVER, Operation, TooHard, linearize

#: In the end every node must be past every version.
_LAST = Order(2**63, "", 0)


class Anomaly(NamedTuple):
    """What is wrong, in words; `calls` are the indices of those that show it."""

    check: str
    key: str
    detail: str
    calls: tuple[int, ...] = ()


class _View(NamedTuple):
    """What one answer, or one node in the end, showed of the keys that it was asked for."""

    call: int | None
    name: str
    up_to: Order
    shown: dict[str, Shown]
    complete: bool

    def of(self, key: str) -> Shown | None:
        """None if it does not tell."""
        return self.shown.get(key, ABSENT if self.complete else None)


class Judgement(NamedTuple):
    """Everything that is wrong with a history, and what could not be judged, a line for each key."""

    anomalies: list[Anomaly]
    undecided: list[str]

    @property
    def is_clean(self) -> bool:
        """Whether all was judged, and nothing is wrong."""
        return not self.anomalies and not self.undecided

    def __str__(self) -> str:
        return "\n".join(filter(None, [summary(self.anomalies), *self.undecided]))


def judge(history: History) -> Judgement:
    """Check a history for every anomaly."""
    judge = _Judge(history)
    anomalies = [
        *judge.invented(),
        *judge.two_values(),
        *judge.version_order(),
        *judge.wrong_refusals(),
        *judge.not_linearizable(),
        *judge.not_caught_up(),
        *judge.torn_batches(),
        *judge.not_equal(),
    ]
    return Judgement(anomalies, judge.undecided)


class _Judge:
    def __init__(self, history: History) -> None:
        self.calls = history.calls
        self.final = history.final
        self.writes = [(i, c) for i, c in enumerate(history.calls) if c.writes]
        self.writer: dict[tuple[str, Any], int] = {}  # of a key's value, which call
        for index, call in self.writes:
            for key, value in call.writes.items():
                if value is not None:
                    self.writer[key, value] = index
        self.values: dict[tuple[str, str], Any] = {}  # of a key's version
        for call in history.calls:
            self._learn(call)
        for shown in history.final.values():
            self._learn_shown(shown)
        self.sure = self._sure()
        self.deletes = self._deletes()
        self.views = list(self._views())
        self.undecided: list[str] = []  # filled by `not_linearizable`

    def _learn(self, call: Call) -> None:
        if call.version is not None:
            for key, value in call.writes.items():
                self.values.setdefault((key, call.version), value)
        self._learn_shown(call.shown)

    def _learn_shown(self, shown: dict[str, Shown]) -> None:
        for key, one in shown.items():
            if one.version is not None and one.value is not None:
                self.values.setdefault((key, one.version), one.value)

    def _sure(self) -> dict[str, list[Order]]:
        """Of each key, the versions that must not get lost: confirmed, or read linearizably."""
        sure: dict[str, set[Order]] = {}
        for call in self.calls:
            if not call.ok:
                continue
            if call.version is not None:
                for key in call.writes:
                    sure.setdefault(key, set()).add(Order.of(call.version))
            if call.linearizable:
                for key, one in call.shown.items():
                    if one.version is not None:
                        sure.setdefault(key, set()).add(Order.of(one.version))
        return {key: sorted(orders) for key, orders in sure.items()}

    def _deletes(self) -> dict[str, list[Order]]:
        """Of each key, the versions of the deletes that may have happened; `_LAST` if not known."""
        deletes: dict[str, list[Order]] = {}
        for _, call in self.writes:
            if call.outcome != "refused":
                order = _LAST if call.version is None else Order.of(call.version)
                for key, value in call.writes.items():
                    if value is None:
                        deletes.setdefault(key, []).append(order)
        return deletes

    def _views(self) -> Iterator[_View]:
        for index, call in enumerate(self.calls):
            told = call.ok or (call.kind == "read" and call.code == "not_found")
            if call.min_version is not None and call.kind != "write" and told:
                up_to = Order.of(call.min_version)
                name = f"{call.kind} at {call.node}, min_version={call.min_version}"
                yield _View(index, name, up_to, call.shown, call.kind == "list")
        for node, shown in self.final.items():
            yield _View(None, f"{node} in the end", _LAST, shown, True)

    # -- the checks ---------------------------------------------------------------------------------

    def invented(self) -> Iterator[Anomaly]:
        """Values of keys that were written by no call, by a refused one, or by a later one."""
        for index, call in enumerate(self.calls):
            for key, one in call.shown.items():
                if problem := self._invented(key, one, call.answered):
                    yield Anomaly("invented", key, f"{call.node} showed {problem}", (index,))
        for node, shown in self.final.items():
            for key, one in shown.items():
                if problem := self._invented(key, one, None):
                    yield Anomaly("invented", key, f"{node} in the end holds {problem}")

    def _invented(self, key: str, one: Shown, at: float | None) -> str | None:
        if one.value is None:
            return None
        writer = self.writer.get((key, one.value))
        if writer is None:
            return f"{one.value!r}, which nobody wrote"
        call = self.calls[writer]
        if call.outcome == "refused":
            return f"{one.value!r}, whose write was refused with {call.code or call.status}"
        if at is not None and call.begun > at:
            return f"{one.value!r}, before it was written"
        return None

    def two_values(self) -> Iterator[Anomaly]:
        places: list[tuple[int | None, str, dict[str, Shown]]] = [
            (i, c.node, c.shown) for i, c in enumerate(self.calls)
        ]
        places += [(None, f"{node} in the end", shown) for node, shown in self.final.items()]
        for index, node, shown in places:
            for key, one in shown.items():
                if one.version is None or one.value is None:
                    continue
                known = self.values[key, one.version]
                if known != one.value:
                    detail = f"{node}: {one.version} is {one.value!r}, and elsewhere {known!r}"
                    yield Anomaly("two_values", key, detail, () if index is None else (index,))

    def version_order(self) -> Iterator[Anomaly]:
        """A write has a greater version than all that were confirmed before it began."""
        known = [
            (i, c, Order.of(c.version)) for i, c in self.writes if c.version is not None and c.ok
        ]
        answered = sorted(known, key=lambda w: w[1].answered or NEVER)
        greatest: tuple[Order, int] | None = None
        place = 0
        for index, call, order in sorted(known, key=lambda w: w[1].begun):
            while place < len(answered) and (answered[place][1].answered or NEVER) < call.begun:
                if greatest is None or answered[place][2] > greatest[0]:
                    greatest = (answered[place][2], answered[place][0])
                place += 1
            if greatest is not None and order <= greatest[0]:
                detail = f"{call.version} was issued after {self.calls[greatest[1]].version}"
                yield Anomaly("version_order", "", detail, (greatest[1], index))
        for index, call, order in known:
            for key, asked in call.expected.items():
                if asked is not None and asked != "*" and order <= Order.of(asked):
                    detail = f"{call.version} was issued to a write that asked for {asked}"
                    yield Anomaly("version_order", key, detail, (index,))

    def wrong_refusals(self) -> Iterator[Anomaly]:
        """Refusals of what they say was there."""
        for index, call in self.writes:
            if call.outcome != "refused":
                continue
            for key, one in call.shown.items():
                asked = call.expected.get(key, ...)
                is_there = one.version is not None
                if asked is ...:
                    detail = "though nothing was asked of this key"
                elif asked == "*" and is_there:
                    detail = f"it has {one.version}, and was only asked to be there"
                elif asked == one.version:
                    detail = (
                        f"it has {one.version}, as was asked"
                        if is_there
                        else "it is not there, as was asked"
                    )
                else:
                    continue
                yield Anomaly("wrong_refusal", key, f"{self._words(index)}: {detail}", (index,))

    def not_linearizable(self) -> Iterator[Anomaly]:
        operations: dict[str, list[tuple[int | None, Operation]]] = {}
        for index, call in enumerate(self.calls):
            for key, operation in self._operations(call):
                operations.setdefault(key, []).append((index, operation))
        over = max((c.answered or c.begun for c in self.calls), default=0.0) + 1
        for key, found in sorted(operations.items()):
            for shown in self.final.values():
                value = shown.get(key, ABSENT).value
                found.append((None, Operation("read", over, over + 1, expected=(value,))))
            try:
                stuck = linearize([operation for _, operation in found]).stuck
            except TooHard as error:
                self.undecided.append(f"undecided: key {key!r}: {error}")
                continue
            if stuck is not None:
                place = next(i for i, operation in found if operation is stuck)
                what = "what is there in the end" if place is None else self._words(place)
                calls = () if place is None else (place,)
                yield Anomaly("not_linearizable", key, f"nothing explains {what}", calls)

    def _words(self, index: int) -> str:
        call = self.calls[index]
        told = call.code or call.status
        return f"the {call.kind} at {call.begun:.6f} at {call.node}, answered {told}: {call.shown}"

    def _operations(self, call: Call) -> Iterator[tuple[str, Operation]]:
        """What a call says of the register of each key."""
        answered = NEVER if call.answered is None or not call.ok else call.answered
        if call.kind == "write" and call.outcome != "refused":
            for key, value in call.writes.items():
                found = self._found(call, key)
                yield key, Operation("write", call.begun, answered, value, **found)
        elif call.linearizable or (call.kind == "write" and call.answered is not None):
            for key, one in call.shown.items():
                if one.value is not None or one.version is None:
                    found = {"expected": (one.value,)}
                else:
                    found = self._found_in(key, one.version)
                assert call.answered is not None
                yield key, Operation("read", call.begun, call.answered, **found)

    def _found(self, call: Call, key: str) -> dict[str, Any]:
        """What a precondition says of the register before the write."""
        if key not in call.expected:
            return {}
        expected = call.expected[key]
        if expected is None:
            return {"expected": (None,)}
        return self._found_in(key, expected)

    def _found_in(self, key: str, version: str) -> dict[str, Any]:
        """What it says of the register that a key has a version; "*" is any."""
        if (key, version) not in self.values:
            return {"forbidden": (None,)}
        value = self.values[key, version]
        return {"expected": () if value is None else (value,)}  # a deleted key has no version

    def not_caught_up(self) -> Iterator[Anomaly]:
        for view in self.views:
            for key in self.sure if view.complete else view.shown:
                sure = self.sure.get(key, [])
                one, place = view.of(key), bisect_right(sure, view.up_to)
                if one is None or place == 0 or self._at_least(key, one, sure[place - 1]):
                    continue
                least = sure[place - 1]
                text = f"{least.epoch}.{least.instance}-{least.timestamp_us}"
                if one.value is None and self.values.get((key, text), 0) is None:
                    continue  # deleted by that very write
                detail = f"{view.name}: {one.value!r} ({one.version}), where {text} was confirmed"
                yield Anomaly("not_caught_up", key, detail, _calls(view))

    def _at_least(self, key: str, one: Shown, least: Order) -> bool:
        """Whether what is shown of a key can be as new as that."""
        if one.version is not None:
            return Order.of(one.version) >= least
        return any(order > least for order in self.deletes.get(key, ()))

    def torn_batches(self) -> Iterator[Anomaly]:
        """Of a batch that is seen on one key, every other key shows it, or what came later."""
        batches: dict[tuple[str, Any], Call] = {}
        for _, call in self.writes:
            if len(call.writes) > 1 and call.outcome != "refused":
                for key, value in call.writes.items():
                    if value is not None:
                        batches[key, value] = call
        for view in self.views:
            for key, one in view.shown.items():
                batch = batches.get((key, one.value))
                if batch is None or one.version is None:
                    continue
                # In another version than the batch's, it was written anew by a later leader.
                order = Order.of(one.version)
                if order <= view.up_to and batch.version in (None, one.version):
                    yield from self._torn(view, key, batch)

    def _torn(self, view: _View, key: str, batch: Call) -> Iterator[Anomaly]:
        for other in batch.writes:
            shown = view.of(other)
            if shown is not None and other != key and self._is_older(other, shown, batch):
                detail = f"{view.name}: {key} is of the batch {batch.version}, {other} is {shown}"
                yield Anomaly("torn_batch", other, detail, _calls(view))

    def _is_older(self, key: str, one: Shown, batch: Call) -> bool:
        """Whether what is shown of a key of a batch is certainly older than that batch."""
        if one.value == batch.writes[key]:
            return False
        if batch.version is not None:
            return not self._at_least(key, one, Order.of(batch.version))
        if one.value is None:
            return not any(
                call.writes.get(key, ...) is None and (call.answered or NEVER) > batch.begun
                for _, call in self.writes
                if call.outcome != "refused"
            )
        call = self.calls[self.writer[key, one.value]]
        return call.ok and (call.answered or NEVER) < batch.begun

    def not_equal(self) -> Iterator[Anomaly]:
        nodes = sorted(self.final)
        for node in nodes[1:]:
            ours, theirs = self.final[nodes[0]], self.final[node]
            for key in sorted({*ours, *theirs}):
                one, other = ours.get(key, ABSENT), theirs.get(key, ABSENT)
                if one != other:
                    detail = f"{nodes[0]} holds {one}, {node} holds {other}"
                    yield Anomaly("not_equal", key, detail)


def _calls(view: _View) -> tuple[int, ...]:
    return () if view.call is None else (view.call,)


def summary(anomalies: Sequence[Anomaly], most: int = 10) -> str:
    """The first few, a line each."""
    lines = [f"{a.check}: {a.key!r}: {a.detail}" for a in anomalies[:most]]
    if len(anomalies) > most:
        lines.append(f"... and {len(anomalies) - most} more")
    return "\n".join(lines)
