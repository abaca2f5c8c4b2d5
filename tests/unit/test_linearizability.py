"""The oracle itself: good and bad histories made by hand, and a brute force that must agree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from random import Random
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


def delete(begun: float, answered: float = NEVER) -> Operation:
    return write(None, begun, answered, forbidden=(None,))


def is_there(begun: float, answered: float = NEVER) -> Operation:
    return Operation("read", begun, answered, forbidden=(None,))


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
        # Which of two unknown writes explains the first must not be settled too early.
        [is_there(1, 2), write(None, 3, 4), write(1, 0), write(2, 0), read(2, 5, 6)],
        [is_there(1, 2), write(None, 3, 4), write(2, 0), write(1, 0), read(2, 5, 6)],
        [is_there(1, 2), write(1, 0), write(2, 0), read(2, 3, 4), delete(5, 6), is_there(7, 8)],
        [delete(1, 2), write(1, 0), write(2, 0), Operation("read", 3, 4, forbidden=(None, 1))],
        [delete(1, 2), write(2, 0), write(1, 0), Operation("read", 3, 4, forbidden=(None, 1))],
        # One of two orders does without the unknown delete, which is needed later.
        [write(5, 2, 3), write(5, 1, 5, expected=(None,)), read(None, 6, 7), delete(0)],
        [
            is_there(1, 2),
            write(5, 0),
            write(3, 9, 10, expected=(1,)),
            write(1, 0),
            write(3, 13, 16, forbidden=(None, 3)),
        ],
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


def test_unknown_writes_that_can_do_the_same_are_not_tried_one_by_one() -> None:
    """As many as there are, and one more than there are: 2^30 choices if each is a choice of its own."""
    deletes = [write(None, 0, forbidden=(None,)) for _ in range(30)]
    puts = [write(f"put {i}", 0) for i in range(30)]
    created = [write(f"created {i}", i, i + 0.5, expected=(None,)) for i in range(1, 32)]
    deleted = [write(None, i, i + 0.5, forbidden=(None,)) for i in range(1, 31)]
    for unknown, known, missing in (
        ([*puts, *deletes], created, deletes[0]),
        (puts, deleted, puts[0]),
    ):
        good = linearize([*unknown, *known])
        bad = linearize([o for o in [*unknown, *known] if o is not missing])
        assert (good.linearizable, bad.linearizable) == (True, False)
        assert good.states + bad.states < 10_000


@pytest.mark.parametrize("seed", range(10))
def test_contended_keys_with_many_unknown_writes_are_judged(seed: int) -> None:
    """A bound on the work: the search of 2017's rules alone gives up on each of them after 300,000."""
    history = contended(seed)
    assert sum(operation.answered == NEVER for operation in history) > 30
    verdict = linearize(history)
    assert verdict.linearizable
    assert verdict.states < 20_000


def contended(
    seed: int, length: int = 400, clients: int = 8, unknown: float = 0.15
) -> list[Operation]:
    """Calls of clients that all use one key, as `loadgen.check.clients` mixes them, and an order."""
    rng = Random(seed)
    free = [0.0] * clients
    calls = []
    for number in range(length):
        client = free.index(min(free))
        begun = free[client] + rng.expovariate(10)
        free[client] = begun + rng.uniform(0.05, 1.5)
        if rng.random() < unknown:
            calls.append((begun + rng.expovariate(0.3), begun, NEVER, number))
        else:
            calls.append((rng.uniform(begun, free[client]), begun, free[client], number))
    history: list[Operation] = []
    current: str | None = None
    versions: list[str | None] = [None]
    for _, begun, answered, number in sorted(calls):
        found: dict[str, Any] = {}
        value: str | None = f"value {number}"
        match rng.choices(("put", "if match", "if absent", "delete", "read"), (22, 9, 9, 12, 18))[
            0
        ]:
            case "if match":
                found = {"expected": (rng.choice([*versions[-4:], current]),)}
            case "if absent":
                found = {"expected": (None,)}
            case "delete":
                value, found = None, {"forbidden": (None,)}
            case "read":
                history.append(read(current, begun, answered))
                continue
        operation = write(value, begun, answered, **found)
        if not operation.allowed(current) and answered != NEVER:
            history.append(read(current, begun, answered))  # refused
            continue
        history.append(operation)
        if operation.allowed(current) and (answered != NEVER or rng.random() < 0.5):
            current = value
            versions.append(value)
    return history


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
def histories(draw: st.DrawFn, unknown: st.SearchStrategy[bool]) -> list[Operation]:
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
                st.just({"expected": ()}),
            )
        )
        end = NEVER if kind == "write" and draw(unknown) else answered
        history.append(Operation(kind, begun, end, draw(VALUES), **found))
    return history


@settings(max_examples=1000)
@given(histories(st.booleans()))
def test_it_agrees_with_brute_force(history: list[Operation]) -> None:
    assert is_linearizable(history) == brute_force(history)


@settings(max_examples=1000)
@given(histories(st.sampled_from([True, True, True, False])))
def test_it_agrees_with_brute_force_where_most_outcomes_are_unknown(
    history: list[Operation],
) -> None:
    assert is_linearizable(history) == brute_force(history)
