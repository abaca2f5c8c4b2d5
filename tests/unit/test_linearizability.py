"""The oracle itself: good and bad histories made by hand, and a brute force that must agree."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.linearizability import NEVER, Operation, is_linearizable


def write(value: Any, begun: float, answered: float = NEVER) -> Operation:
    return Operation("write", value, begun, answered)


def read(value: Any, begun: float, answered: float = NEVER) -> Operation:
    return Operation("read", value, begun, answered)


@pytest.mark.parametrize(
    "history",
    [
        [],
        [read(None, 1, 2)],
        [write(1, 1, 2), read(1, 3, 4)],
        [write(1, 1, 5), read(None, 2, 3), read(1, 4, 6)],
        [write(1, 1, 4), write(2, 2, 3), read(1, 5, 6), read(1, 7, 8)],
        [write(1, 1), read(None, 2, 3), read(1, 4, 5), read(1, 6, 7)],  # it took effect late
        [write(1, 1), read(None, 2, 3)],  # or never
        [write(1, 1, 2), write(None, 3, 4), read(None, 5, 6)],
        [read(7, 1)],  # never answered: it tells nothing
        [write(1, 1, 2), Operation("write", 2, 3, 4, expected=(1,)), read(2, 5, 6)],
    ],
)
def test_a_good_history_is_explained(history: list[Operation]) -> None:
    assert is_linearizable(history)


@pytest.mark.parametrize(
    "history",
    [
        [read(1, 1, 2)],
        [write(1, 1, 2), read(None, 3, 4)],  # a confirmed write is lost
        [write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)],  # stale
        [write(1, 1, 6), read(1, 2, 3), read(None, 4, 5)],  # back in time
        [write(1, 1), read(1, 2, 3), read(None, 4, 5)],
        [write(1, 3), read(1, 1, 2)],  # from the future
        [write(1, 1, 2), Operation("write", 2, 3, 4, expected=(9,))],
    ],
)
def test_a_bad_history_is_not(history: list[Operation]) -> None:
    assert not is_linearizable(history)


def brute_force(history: list[Operation]) -> bool:
    """Every choice of what took effect, in every order."""
    told = [o for o in history if o.kind == "write" or o.answered != NEVER]
    sure = [o for o in told if o.answered != NEVER]
    unsure = [o for o in told if o.answered == NEVER]
    for chosen in product([False, True], repeat=len(unsure)):
        happened = sure + [o for o, it in zip(unsure, chosen, strict=True) if it]
        if any(explains(list(order)) for order in permutations(happened)):
            return True
    return False


def explains(order: list[Operation]) -> bool:
    value = None
    for index, operation in enumerate(order):
        if any(later.answered < operation.begun for later in order[index + 1 :]):
            return False
        if operation.kind == "read":
            if operation.value != value:
                return False
        else:
            if operation.expected is not None and value not in operation.expected:
                return False
            value = operation.value
    return True


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    moments = draw(st.permutations(range(12)))
    history = []
    for index in range(draw(st.integers(0, 5))):
        begun, answered = sorted(moments[2 * index : 2 * index + 2])
        kind = draw(st.sampled_from(["read", "write"]))
        known = draw(st.booleans())
        expected = draw(st.sampled_from([None, None, (1,), (None, 2)])) if kind == "write" else None
        history.append(
            Operation(
                kind,
                draw(st.sampled_from([None, 1, 2])),
                begun,
                answered if known else NEVER,
                expected,
            )
        )
    return history


@given(histories())
def test_it_agrees_with_brute_force(history: list[Operation]) -> None:
    assert is_linearizable(history) == brute_force(history)
