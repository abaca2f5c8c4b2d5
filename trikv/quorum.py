"""The arithmetic of quorums, and the count of one write's acknowledgements.

With N nodes, of which n = N - 1 follow, a write is confirmed once the leader and k followers have it on
disk: on k + 1 nodes. Then any k nodes may be lost and one that has it is left. k = 0 is asynchronous
replication: confirmed by the leader alone.

Invariants of a count (checked in code at every step)
- a follower is counted once, however often it acknowledges
- only the write's own followers are counted
- the quorum is met exactly when `required` followers are counted, and stays met

Pure: a count does not know how acknowledgements travel, nor how long anyone waits.
"""

from __future__ import annotations

from collections.abc import Iterable


def default_write_quorum(followers: int) -> int:
    """3, as in the lab, or all followers where there are fewer."""
    return min(3, followers)


def write_quorum_problem(write_quorum: int, followers: int) -> str | None:
    """What is wrong with a quorum of k among that many followers, or None."""
    if 0 <= write_quorum <= followers:
        return None
    return f"expected a whole number from 0 (asynchronous) to {followers} (the number of followers)"


class AckCount:
    """Which followers have acknowledged one write, and whether that is enough."""

    def __init__(self, required: int, followers: Iterable[str]) -> None:
        self.required = required
        self.followers = frozenset(followers)
        self._acked: dict[str, None] = {}
        self.check_invariants()

    @property
    def acks(self) -> int:
        return len(self._acked)

    @property
    def met(self) -> bool:
        return self.acks >= self.required

    def add(self, follower: str) -> None:
        """Count one acknowledgement. Raises ValueError for a node that is no follower here."""
        if follower not in self.followers:
            raise ValueError(f"{follower!r} is not among the followers of this write")
        self._acked[follower] = None
        self.check_invariants()

    def check_invariants(self) -> None:
        if not self._acked.keys() <= self.followers:
            raise AssertionError("an acknowledgement of a node that is no follower was counted")
        if not 0 <= self.required <= len(self.followers):
            raise AssertionError("a quorum that this many followers can never meet")
