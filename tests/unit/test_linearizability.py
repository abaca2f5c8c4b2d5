"""The oracle itself: good and bad histories made by hand, and a brute force that must agree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.check import linearizability
from loadgen.check.linearizability import NEVER, Operation, TooHard, is_linearizable, linearize


def write(value: Any, begun: float, answered: float = NEVER, **found: Any) -> Operation:
    return Operation("write", begun, answered, value, **found)


def read(value: Any, begun: float, answered: float = NEVER) -> Operation:
    return Operation("read", begun, answered, expected=(value,))


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
        [write(1, 1), write(2, 1), read(2, 2, 3), read(1, 4, 5)],
        [write(1, 1, 2), write(None, 3, 4), read(None, 5, 6)],
        [read(7, 1)],  # never answered: it tells nothing
        [write(1, 1, 2), write(2, 3, 4, expected=(1,)), read(2, 5, 6)],
        [write(1, 1), write(2, 1, expected=(1,)), read(2, 5, 6)],  # one that needs the other
        [write(1, 1, 2), write(None, 3, 4, forbidden=(None,)), read(None, 5, 6)],
        [write(1, 1), write(None, 3, 4, forbidden=(None,)), read(None, 5, 6)],
        [write(1, 1, 2), Operation("read", 3, 4, forbidden=(None, 2))],
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
        [write(1, 1), write(2, 3, 4), read(1, 5, 6), read(2, 7, 8)],  # it took effect twice
        [write(1, 3), read(1, 1, 2)],  # from the future
        [write(1, 1, 2), write(2, 3, 4, expected=(9,))],  # a precondition that did not hold
        [write(2, 1, expected=(1,)), read(2, 5, 6)],
        [write(None, 3, 4, forbidden=(None,))],  # a delete of what was not there
        [write(1, 1, 2), Operation("read", 3, 4, forbidden=(1,))],
    ],
)
def test_a_bad_history_is_not(history: list[Operation]) -> None:
    assert not is_linearizable(history)


def test_it_tells_which_operation_has_no_explanation() -> None:
    stale = read(1, 5, 6)
    assert linearize([write(1, 1, 2), write(2, 3, 4), stale, read(2, 7, 8)]).stuck == stale
    assert linearize([write(1, 1, 2)]).stuck is None


def test_a_long_history_with_many_unknown_writes_is_quick() -> None:
    """Each step looks at what is concurrent, not at all that there is: else this takes minutes."""
    history = []
    for i in range(0, 40_000, 4):
        history += [write(i, i, i + 2), write(-i - 1, i + 1), read(i, i + 2.5, i + 3)]
    assert is_linearizable(history)
    assert not is_linearizable([*history, read(0, 50_000, 50_001)])


def test_a_search_that_is_too_hard_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linearizability, "MAX_STATES", 100)
    with pytest.raises(TooHard):
        is_linearizable([write(i, 0, 100) for i in range(12)] + [read(99, 200, 201)])


def brute_force(history: Sequence[Operation]) -> bool:
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
        if operation.expected is not None and value not in operation.expected:
            return False
        if value in operation.forbidden:
            return False
        if operation.kind == "write":
            value = operation.value
    return True


VALUES = st.sampled_from([None, 1, 2])


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    moments = draw(st.permutations(range(12)))
    history = []
    for index in range(draw(st.integers(0, 6))):
        begun, answered = sorted(moments[2 * index : 2 * index + 2])
        kind: Any = draw(st.sampled_from(["read", "write", "write"]))
        found: dict[str, Any] = draw(
            st.one_of(
                st.just({}),
                st.builds(lambda value: {"expected": (value,)}, VALUES),
                st.builds(lambda value: {"forbidden": (value,)}, VALUES),
                st.just({"expected": (None, 2), "forbidden": (None,)}),
            )
        )
        known = draw(st.booleans())
        history.append(Operation(kind, begun, answered if known else NEVER, draw(VALUES), **found))
    return history


@settings(max_examples=1000)
@given(histories())
def test_it_agrees_with_brute_force(history: list[Operation]) -> None:
    assert is_linearizable(history) == brute_force(history)
