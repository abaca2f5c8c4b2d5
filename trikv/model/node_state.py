"""What a node knows of itself, on its disk beside its records.

    node_id      its name
    instance     a random id, drawn with the data directory
    cluster      the cluster that it belongs to, drawn when that is born; none before
    promised     the highest epoch that it has seen; it refuses everything from a lower one
    established  the epoch in whose leader's state it has been brought (a leader: its own, from the
                 moment it leads)
    led          the last epoch that it led
    watermark    of every write that the leader of `established` has issued up to this version, it holds
                 the record or a newer one of its key
    floor        the lowest watermark of all members, as far as a leader has known it: up to here all
                 nodes that are not new are the same

A node that was never established is *new*, whatever records it may hold: it may be left from a handshake
that did not end, or from a disk that was emptied, and has forgotten what it promised.

Invariants (checked in code at every change)
- led <= established <= promised
- floor <= watermark; a new node has neither
- the watermark is of no epoch above `established`

Pure: the store keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from trikv.model.version import NO_EPOCH, NO_VERSION, Epoch, Version


class NodeState(NamedTuple):
    node_id: str = ""
    instance: str = ""
    cluster: str = ""
    promised: Epoch = NO_EPOCH
    established: Epoch = NO_EPOCH
    led: Epoch = NO_EPOCH
    watermark: Version = NO_VERSION
    floor: Version = NO_VERSION

    @property
    def new(self) -> bool:
        return self.established == NO_EPOCH

    def check_invariants(self) -> None:
        """Raises AssertionError, which says what contradicts what."""
        if not self.led <= self.established <= self.promised:
            raise AssertionError(
                f"led {self.led}, established {self.established}, promised {self.promised}"
            )
        if self.floor > self.watermark:
            raise AssertionError(f"the floor {self.floor} is above the watermark {self.watermark}")
        if self.watermark.epoch > self.established:
            raise AssertionError(
                f"established in {self.established}, with the watermark {self.watermark}"
            )
        if self.new and self.watermark != NO_VERSION:
            raise AssertionError(f"a new node has the watermark {self.watermark}")


_PARSE: dict[str, Callable[[str], Any]] = {
    "promised": Epoch.parse,
    "established": Epoch.parse,
    "led": Epoch.parse,
    "watermark": Version.parse,
    "floor": Version.parse,
}


def facts_of(state: NodeState) -> dict[str, str]:
    """As texts, by name."""
    return {name: str(value) for name, value in state._asdict().items()}


def state_of(facts: Mapping[str, str]) -> NodeState:
    """From texts. Raises ValueError for a text that is none of ours, or that contradicts another."""
    known = {name: text for name, text in facts.items() if name in NodeState._fields}
    parsed = {name: _PARSE.get(name, str)(text) for name, text in known.items()}
    state = NodeState()._replace(**parsed)
    try:
        state.check_invariants()
    except AssertionError as error:
        raise ValueError(str(error)) from None
    return state
