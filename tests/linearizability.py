"""Whether a history of one key can be that of a register: an oracle that knows nothing of trikv.

A history is what clients saw: operations with the moments at which they were begun and answered. It is
*linearizable* if each can be given one moment between the two at which it takes effect, so that every
read shows what was written last. An operation whose outcome is not known may take effect at any moment
after it was begun, or never.

The search is Wing and Gong's (1993), with Lowe's memoisation (2017): try what may come next, and never
visit a set of done operations with the same value of the register again. One key at a time, as Porcupine
does, since histories of different keys do not influence each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: The moment at which an operation was answered that never was.
NEVER = float("inf")


@dataclass(frozen=True)
class Operation:
    """A write (`None` deletes) or a read, and what it wrote or showed.

    With `expected`, a tuple of values, a write takes effect only where the register has one of these.
    """

    kind: str
    value: Any
    begun: float
    answered: float = NEVER
    expected: tuple[Any, ...] | None = None


def is_linearizable(history: Sequence[Operation], initial: Any = None) -> bool:
    """Whether there is an order of these operations on one key that explains what they showed."""
    # A read that was not answered tells nothing.
    operations = [o for o in history if o.kind == "write" or o.answered != NEVER]
    operations.sort(key=lambda operation: operation.begun)
    everything = (1 << len(operations)) - 1
    optional = sum(1 << i for i, o in enumerate(operations) if o.answered == NEVER)
    seen: set[tuple[int, Any]] = set()
    stack: list[tuple[int, Any]] = [(0, initial)]
    while stack:
        done, value = stack.pop()
        if (done | optional) == everything:
            return True
        if (done, value) in seen:
            continue
        seen.add((done, value))
        stack += _next_steps(operations, done, value)
    return False


def _next_steps(operations: Sequence[Operation], done: int, value: Any) -> list[tuple[int, Any]]:
    """What may come next: nothing that was begun after another, yet to come, was answered."""
    left = [i for i in range(len(operations)) if not done >> i & 1]
    deadline = min(operations[i].answered for i in left)
    steps = []
    for i in left:
        operation = operations[i]
        if operation.begun > deadline:
            break  # they are in the order in which they were begun
        if operation.kind == "read":
            if operation.value == value:
                steps.append((done | 1 << i, value))
        elif operation.expected is None or value in operation.expected:
            steps.append((done | 1 << i, operation.value))
    return steps
