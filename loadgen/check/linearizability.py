"""Whether a history of one key can be that of a register: an oracle that knows nothing of trikv.

A history is what clients saw: operations with the moments at which they were begun and answered. It is
*linearizable* if each can be given one moment between the two at which it takes effect, so that every
operation finds in the register what it says that it found. A write whose outcome is not known may take
effect at any moment after it was begun, or never; a read that was not answered tells nothing.

The search is Wing and Gong's (1993), "Testing and Verifying Concurrent Objects": try what may come next.
With Lowe's memoisation (2017), "Testing for linearizability": never visit a set of done operations with
the same value of the register again. One key at a time, as Porcupine does, since histories of different
keys do not influence each other.

What makes long histories cheap: the done operations are a prefix, in the order in which they were begun,
and a few beyond it. And a write of unknown outcome is tried only right before an operation that needs
it: anywhere else it can be moved later, or left out, and nothing is seen of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

#: The moment at which an operation was answered that never was.
NEVER = float("inf")

#: States that a search may visit: the problem is NP-complete, though no history of ours comes near.
MAX_STATES = 5_000_000


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


class Verdict(NamedTuple):
    """`stuck`: if there is no explanation, an operation that none could be found for."""

    linearizable: bool
    stuck: Operation | None = None


class _State(NamedTuple):
    prefix: int  # so many of the sure operations are done, and of those after it
    beyond: int  # ... the ones in this bit set,
    used: int  # and these of the unsure ones
    value: Any


class TooHard(Exception):
    """The search has visited more states than it may."""


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
        self._writers: dict[Any, list[int]] = {}  # unsure ones, by what they write
        for index, operation in enumerate(self._unsure):
            self._writers.setdefault(operation.value, []).append(index)

    def run(self, initial: Any) -> Verdict:
        seen: set[_State] = set()
        stack = [_State(0, 0, 0, initial)]
        furthest = 0
        while stack:
            state = stack.pop()
            if state.prefix == len(self._sure):
                return Verdict(True)
            if state in seen:
                continue
            seen.add(state)
            if len(seen) > MAX_STATES:
                raise TooHard(f"more than {MAX_STATES} states")
            furthest = max(furthest, state.prefix)
            stack += self._next(state)
        return Verdict(False, self._sure[furthest])

    def _next(self, state: _State) -> list[_State]:
        """What may come next. The unsure ones are put first: the last of a stack is tried first."""
        window, deadline = self._window(state)
        blocked = []
        steps = []
        for index in reversed(window):
            operation = self._sure[index]
            if operation.allowed(state.value):
                value = operation.value if operation.kind == "write" else state.value
                steps.append(self._done(state, index)._replace(value=value))
            else:
                blocked.append(operation)
        return [*self._unsure_steps(state, blocked, deadline), *steps]

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

    def _unsure_steps(
        self, state: _State, blocked: list[Operation], deadline: float
    ) -> Iterator[_State]:
        """Unsure writes that let something go on that is blocked, or another unsure one that does."""
        tried: set[int] = set()
        while blocked:
            needy = blocked.pop()
            for index in self._helpers(needy):
                operation = self._unsure[index]
                if index in tried or state.used >> index & 1 or operation.begun > deadline:
                    continue
                tried.add(index)
                if operation.allowed(state.value):
                    yield state._replace(used=state.used | 1 << index, value=operation.value)
                else:
                    blocked.append(operation)

    def _helpers(self, needy: Operation) -> Iterator[int]:
        values = self._writers if needy.expected is None else needy.expected
        for value in values:
            if value not in needy.forbidden:
                yield from self._writers.get(value, ())

    def _done(self, state: _State, index: int) -> _State:
        beyond = state.beyond | 1 << (index - state.prefix)
        prefix = state.prefix
        while beyond & 1:
            beyond >>= 1
            prefix += 1
        return state._replace(prefix=prefix, beyond=beyond)
