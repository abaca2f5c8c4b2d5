"""Decide if a history of one key can be that of a register: an oracle that knows nothing of trikv.

A history is what clients saw: operations with the moments at which they were begun and answered. It is
*linearizable* if each can be given one moment between the two at which it takes effect, so that every
operation finds in the register what it says that it found. A write of unknown outcome ("unsure" below)
may take effect at any moment after it was begun, or never; a read that was not answered says nothing.

The search is Wing and Gong's (1993), "Testing and Verifying Concurrent Objects": try what may come next.
With Lowe's memoisation (2017), "Testing for linearizability": never visit a set of done operations with
the same value of the register again. One key at a time, as Porcupine does, since histories of different
keys do not influence each other.

The problem is NP-complete. These rules keep it cheap; none changes the answer:

1.  The done operations are a prefix, in the order in which they were begun, and a few beyond it.
2.  A read that may come next and finds what it should is done at once: it changes nothing.
3.  An unsure write is tried only right before an operation that is blocked without it: anywhere else it
    can be moved later, or left out, and nothing is seen of that. The two are one step.
4.  Values that no operation still to come asks for are one value, `UNASKED`.
5.  Of unsure writes that can do the same, the first is tried; of one that can do more and one that is
    enough before a write, which hides the difference, the latter.
6.  A state is left if another one was visited that differs only in having used fewer unsure writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

#: The moment at which an operation was answered that never was.
NEVER = float("inf")

#: Steps that a search may take. The hardest of our histories take some thousands.
MAX_STATES = 2_000_000


class _Unasked:
    def __repr__(self) -> str:
        return "UNASKED"


#: Stands for every value that no operation still to come names.
UNASKED: Final = _Unasked()


@dataclass(frozen=True)
class Operation:
    """A write of `value`, or a read; what it found in the register is one of `expected`.

    `expected` None is anything, but none of `forbidden`. Values are hashable; None is "no such key".
    """

    kind: Literal["read", "write"]
    begun: float
    answered: float = NEVER
    value: Any = None
    expected: tuple[Any, ...] | None = None
    forbidden: tuple[Any, ...] = ()

    def allowed(self, value: Any) -> bool:
        """Whether it can have found this in the register."""
        return (self.expected is None or value in self.expected) and value not in self.forbidden

    def allows_all_of(self, other: Operation) -> bool:
        """Whether it can have found all that the other can."""
        if other.expected is not None:
            return all(self.allowed(value) for value in other.expected if other.allowed(value))
        return self.expected is None and set(self.forbidden) <= set(other.forbidden)

    def named(self) -> tuple[Any, ...]:
        """The values that it asks for, or must not find."""
        return (*(self.expected or ()), *self.forbidden)


class Verdict(NamedTuple):
    """`stuck`: if there is no explanation, an operation that none could be found for."""

    linearizable: bool
    stuck: Operation | None = None
    states: int = 0


class _State(NamedTuple):
    prefix: int  # so many of the sure operations are done, and of those after it
    beyond: int  # ... the ones in this bit set,
    used: int  # and these of the unsure ones
    value: Any


class TooHard(Exception):
    """The search has taken more steps than it may."""


def linearize(history: Sequence[Operation], initial: Any = None) -> Verdict:
    """Search for an order that explains what these operations on one key have found.

    Raises TooHard.
    """
    return _Search(history).run(initial)


def is_linearizable(history: Sequence[Operation], initial: Any = None) -> bool:
    """Whether there is an order that explains it. Raises TooHard."""
    return linearize(history, initial).linearizable


class _Search:
    def __init__(self, history: Sequence[Operation]) -> None:
        self._sure = sorted((o for o in history if o.answered != NEVER), key=lambda o: o.begun)
        self._unsure = sorted(
            (o for o in history if o.answered == NEVER and o.kind == "write"), key=lambda o: o.begun
        )
        self._asked_until: dict[Any, float] = {}
        """Of each value, the last sure operation that names it; no end if an unsure one does."""
        self._forbidden: set[Any] = set()
        for index, operation in enumerate(self._sure):
            self._asked_until |= dict.fromkeys(operation.named(), index)
            self._forbidden.update(operation.forbidden)
        for operation in self._unsure:
            self._asked_until |= dict.fromkeys(operation.named(), NEVER)
            self._forbidden.update(operation.forbidden)
        self._writers: dict[Any, list[int]] = {}  # unsure ones, by what they write
        for index, operation in enumerate(self._unsure):
            self._writers.setdefault(operation.value, []).append(index)
        self._visited: dict[tuple[int, int, Any], list[int]] = {}
        self._states = 0

    def run(self, initial: Any) -> Verdict:
        stack = [_State(0, 0, 0, initial)]
        furthest = 0
        while stack:
            state, window, deadline = self._read_on(stack.pop())
            if state.prefix == len(self._sure):
                return Verdict(True, None, self._states)
            if self._is_visited(state):
                continue
            furthest = max(furthest, state.prefix)
            stack += self._next(state, window, deadline)
        return Verdict(False, self._sure[furthest], self._states)

    def _count(self) -> None:
        self._states += 1
        if self._states > MAX_STATES:
            raise TooHard(f"more than {MAX_STATES} states")

    def _is_visited(self, state: _State) -> bool:
        """Whether this state, or one that had used less, was visited; it is noted if not."""
        self._count()
        place = (state.prefix, state.beyond, state.value)
        visited = self._visited.setdefault(place, [])
        if any(used & ~state.used == 0 for used in visited):
            return True
        visited[:] = [used for used in visited if state.used & ~used]
        visited.append(state.used)
        return False

    def _read_on(self, state: _State) -> tuple[_State, list[int], float]:
        """Do all reads that may come next and find what they should."""
        while True:
            window, deadline = self._window(state)
            for index in window:
                operation = self._sure[index]
                if operation.kind == "read" and operation.allowed(state.value):
                    state = self._done(state, index, state.value)
                    break
            else:
                return state, window, deadline

    def _next(self, state: _State, window: list[int], deadline: float) -> list[_State]:
        """What may come next; the last of a stack is tried first, so the likeliest is put last."""
        helped = []
        steps = []
        for index in sorted(window, key=lambda i: -self._sure[i].answered):
            operation = self._sure[index]
            if operation.allowed(state.value):
                steps.append(self._done(state, index, operation.value))
                continue
            for used, found in self._explanations(state, operation, deadline):
                value = found if operation.kind == "read" else operation.value
                helped.append(self._done(state._replace(used=used), index, value))
        return [*helped, *steps]

    def _window(self, state: _State) -> tuple[list[int], float]:
        """The sure ones that may come next, and the moment by which one of them must.

        Nothing that was begun after another, yet to come, was answered.
        """
        window: list[int] = []
        deadline = NEVER
        for index in range(state.prefix, len(self._sure)):
            operation = self._sure[index]
            if operation.begun > deadline:
                break  # they are in the order in which they were begun
            if not state.beyond >> (index - state.prefix) & 1:
                window.append(index)
                deadline = min(deadline, operation.answered)
        return [i for i in window if self._sure[i].begun <= deadline], deadline

    def _explanations(
        self, state: _State, blocked: Operation, deadline: float
    ) -> Iterator[tuple[int, Any]]:
        """Chains of unsure writes that may come right before a blocked operation.

        Each needs the one before it. Of each chain, all that are used then, and what is found by the
        operation.
        """
        chains: list[tuple[list[Operation], int, Any]] = [([blocked], state.used, UNASKED)]
        while chains:
            needy, used, found = chains.pop()
            ready = []
            for index in self._helpers(needy[-1], used, deadline, state.prefix):
                self._count()
                helper = self._unsure[index]
                if any(later.allowed(helper.value) for later in needy[:-1]):
                    continue  # what lies between the two is not needed
                last = helper.value if len(needy) == 1 else found
                if helper.allowed(state.value):
                    ready.append((index, last))
                else:
                    chains.append(([*needy, helper], used | 1 << index, last))
            if needy[-1].kind == "write":
                ready = self._enough(ready, state.prefix)
            for index, last in ready:
                yield used | 1 << index, last

    def _helpers(self, needy: Operation, used: int, deadline: float, prefix: int) -> list[int]:
        """Unused unsure writes of what an operation can have found: one of all that are alike."""
        values = self._writers if needy.expected is None else needy.expected
        found: dict[Any, int] = {}
        for value in values:
            if not needy.allowed(value):
                continue
            for index in self._writers.get(value, ()):
                operation = self._unsure[index]
                if operation.begun > deadline:
                    break
                if not used >> index & 1:
                    kind = (self._named(value, prefix), operation.expected, operation.forbidden)
                    found.setdefault(kind, index)
        return list(found.values())

    def _enough(self, ready: list[tuple[int, Any]], prefix: int) -> list[tuple[int, Any]]:
        """Without those that can do all that another one can, which is enough here."""
        kept: list[tuple[int, Any]] = []
        for one in ready:
            if any(self._can_do_more(one[0], other[0], prefix) for other in kept):
                continue
            kept = [other for other in kept if not self._can_do_more(other[0], one[0], prefix)]
            kept.append(one)
        return kept

    def _can_do_more(self, index: int, other: int, prefix: int) -> bool:
        """Whether one unsure write could stand, later, wherever the other one could."""
        one, less = self._unsure[index], self._unsure[other]
        is_unasked = self._named(less.value, prefix) is UNASKED and one.value not in self._forbidden
        return (is_unasked or one.value == less.value) and one.allows_all_of(less)

    def _named(self, value: Any, prefix: int) -> Any:
        return value if self._asked_until.get(value, -1) >= prefix else UNASKED

    def _done(self, state: _State, index: int, value: Any) -> _State:
        beyond = state.beyond | 1 << (index - state.prefix)
        prefix = state.prefix
        while beyond & 1:
            beyond >>= 1
            prefix += 1
        return _State(prefix, beyond, state.used, self._named(value, prefix))
