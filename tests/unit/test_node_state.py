"""What a node knows of itself contradicts itself never, and is read as it was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.strategies import epochs, versions
from trikv.model.node_state import NodeState, facts_of, state_of
from trikv.model.version import MAX_TIMESTAMP_US, NO_EPOCH, NO_VERSION, Epoch, Version

LOW, HIGH = Epoch(1, "a"), Epoch(2, "a")


@st.composite
def states(draw: st.DrawFn) -> NodeState:
    """Any that contradicts itself nowhere."""
    led, established, promised = sorted(draw(st.tuples(epochs, epochs, epochs)))
    reached = st.builds(Version, st.just(established), st.integers(0, MAX_TIMESTAMP_US))
    watermark = NO_VERSION if established == NO_EPOCH else draw(reached)
    floor = min(watermark, draw(versions))
    return NodeState("node", "i", "c", promised, established, led, watermark, floor)


@given(states())
def test_a_state_is_read_as_it_was_written(state: NodeState) -> None:
    assert state_of(facts_of(state)) == state


def test_nothing_known_is_a_new_node() -> None:
    assert state_of({}) == NodeState()
    assert NodeState().new
    NodeState().check_invariants()


def test_facts_that_are_not_known_here_are_left_alone() -> None:
    assert state_of({"colour": "red", "node_id": "n"}).node_id == "n"


@pytest.mark.parametrize(
    "state",
    [
        NodeState(established=LOW),
        NodeState(promised=HIGH, established=LOW, led=HIGH),
        NodeState(promised=LOW, established=LOW, floor=Version(LOW, 2), watermark=Version(LOW, 1)),
        NodeState(promised=LOW, watermark=Version(LOW, 1)),
        NodeState(promised=LOW, watermark=Version(NO_EPOCH, 1)),  # a new node has none
        NodeState(promised=HIGH, established=LOW, watermark=Version(HIGH, 1)),
    ],
)
def test_a_contradiction_is_found_and_never_read_in(state: NodeState) -> None:
    with pytest.raises(AssertionError):
        state.check_invariants()
    with pytest.raises(ValueError, match=r"[0-9]"):
        state_of(facts_of(state))


def test_an_established_node_is_not_new() -> None:
    state = NodeState(promised=HIGH, established=LOW, led=LOW, watermark=Version(LOW, 3))
    state.check_invariants()
    assert not state.new
    assert state.floor == NO_VERSION
