"""The arithmetic of quorums, and the count of one write's acknowledgements.

With N nodes, of which n = N - 1 follow, a write is confirmed once the leader and k followers have it on
disk: on k + 1 nodes. Then any k nodes may be lost and one that has it is left. k = 0 is asynchronous
replication: confirmed by the leader alone.

Invariants of a count (checked in code at every step)
- a follower is counted once, however often it acknowledges
- only the write's own followers are counted, and towards each voters' quorum only their members
- the quorum is met exactly when that of all voters is, and stays met

Pure: a count does not know how acknowledgements travel, nor how long anyone waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

import msgspec


def default_write_quorum(followers: int) -> int:
    """3, as in the lab, or all followers where there are fewer."""
    return min(3, followers)


def write_quorum_problem(write_quorum: int, followers: int) -> str | None:
    """What is wrong with a quorum of k among that many followers, or None."""
    if 0 <= write_quorum <= followers:
        return None
    return f"expected a whole number from 0 (asynchronous) to {followers} (the number of followers)"


class Voters(msgspec.Struct, frozen=True):
    """N members by their node ids, the leader among them, and the write quorum k."""

    members: frozenset[str]
    write_quorum: int

    @property
    def takeover_quorum(self) -> int:
        """How many members that are not new a takeover must hear."""
        return len(self.members) - self.write_quorum if self.write_quorum > 0 else 0

    def lacking(self, promised: Set[str]) -> int:
        """How many promises are missing yet."""
        return max(0, self.takeover_quorum - len(self.members & promised))

    def met_by(self, followers: Set[str]) -> bool:
        """Whether these followers confirm a write. One that is no member does not count."""
        return len(self.members & followers) >= self.write_quorum


def all_met_by(voters: Iterable[Voters], followers: Set[str]) -> bool:
    """Whether these followers confirm a write, whichever of the voters is asked."""
    return all(one.met_by(followers) for one in voters)


class AckCount:
    """Which followers, by node id, have acknowledged one write, and whether that is enough."""

    def __init__(self, voters: Sequence[Voters], followers: Iterable[str]) -> None:
        self.voters = tuple(voters)
        self.followers = frozenset(followers)
        self.acked: set[str] = set()
        """The followers that have acknowledged it."""
        self._met = all_met_by(self.voters, self.acked)
        self.check_invariants()

    @property
    def acks(self) -> int:
        return len(self.acked)

    @property
    def met(self) -> bool:
        return self._met

    def add(self, follower: str) -> None:
        """Count one acknowledgement. Raises ValueError for a node that is no follower here."""
        if follower not in self.followers:
            raise ValueError(f"{follower!r} is not among the followers of this write")
        self.acked.add(follower)
        self._met = self._met or all_met_by(self.voters, self.acked)
        self.check_invariants()

    def check_invariants(self) -> None:
        if not self.acked <= self.followers:
            raise AssertionError("an acknowledgement of a node that is no follower was counted")
        if self._met and any(self.acks < one.write_quorum for one in self.voters):
            raise AssertionError("a quorum is taken for met that is not")
