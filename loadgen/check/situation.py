"""Who may be hurt next, so that no promise of the store is asked for more than it says.     (pure)

A cluster of N nodes with write quorum k promises that a confirmed write survives k lost disks, and a
takeover needs N - k nodes that have not lost theirs. It confirms while k followers of its leader are
there. So:

    disturbed   a node is, from the moment that something is done to it until it is up again and caught
                up. At most `most_disturbed` are at a time; during a takeover the heir beside them
    new         a node whose disk was emptied is, until it was brought in. One at a time
    leader      one thing at a time is done to it; and nobody takes over from one that is disturbed

With quorum 0 nothing is promised, and everything here can lose confirmed writes.

Now and then a leader dies together with k - 1 followers, so that a takeover hears N - k nodes and no
more: the fewest that must know of every confirmed write.

Now and then a partition leaves the leader with one follower too few: writes are then refused, or have an
unknown outcome. No disk is lost by that.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

#: More than two at a time, and next to nothing is confirmed.
MOST_DISTURBED = 2

#: How often a partition leaves the leader with too few followers, if nothing else is going on.
TOO_MANY_CUT = 0.2

#: How often a leader that dies takes as many with it as it may, if nothing else is going on.
DIES_WITH_OTHERS = 0.8

#: How often a takeover, each time that it may begin, waits for all to be in order.
PATIENT = 0.95

#: How often the leader is chosen, of all nodes that may be.
LEADER_SHARE = 1 / 3


def most_disturbed(nodes: int, quorum: int) -> int:
    """So many nodes may be out of order at a time, and writes are still confirmed in between."""
    return max(1, min(quorum, nodes - 1 - quorum, MOST_DISTURBED))


@dataclass
class Situation:
    """What is being done to whom."""

    names: Sequence[str]
    quorum: int
    leader: str
    disturbed: set[str] = field(default_factory=set)
    new: set[str] = field(default_factory=set)

    @property
    def needs_all(self) -> bool:
        """Whether nothing is confirmed while any node is disturbed."""
        return self.quorum >= len(self.names) - 1

    @property
    def room(self) -> int:
        """So many more nodes may be disturbed."""
        return most_disturbed(len(self.names), self.quorum) - len(self.disturbed)

    def victims(self, kind: str, rng: random.Random) -> tuple[str, ...]:
        """Whom to do this to: those to cut off, an heir, or one. () if nobody can be now."""
        free = [name for name in self.names if name not in self.disturbed]
        followers = [name for name in free if name != self.leader]
        leader_is_free = self.leader in free
        if kind == "partition" and leader_is_free and not self.disturbed:
            too_many = len(self.names) - self.quorum
            if self.quorum and rng.random() < TOO_MANY_CUT:
                return tuple(rng.sample(followers, min(too_many, len(followers))))
        if self.room < 1 or not followers:
            return ()
        if kind == "partition":
            count = rng.randint(1, min(self.room, len(followers)))
            return tuple(rng.sample(followers, count)) if leader_is_free else ()
        if kind == "takeover":
            if self.disturbed and rng.random() < PATIENT:
                return ()
            heirs = [name for name in followers if name not in self.new]
            return (rng.choice(heirs),) if leader_is_free and heirs else ()
        if kind == "wipe" and self.new:
            return ()
        if leader_is_free and rng.random() < LEADER_SHARE:
            return (self.leader,)
        return (rng.choice(followers),)

    def companions(self, heir: str, rng: random.Random) -> tuple[str, ...]:
        """Who dies together with a leader; asked before the takeover disturbs anybody."""
        if self.disturbed or self.new or self.quorum < 2 or rng.random() >= DIES_WITH_OTHERS:
            return ()
        others = [name for name in self.names if name not in (heir, self.leader)]
        return tuple(rng.sample(others, self.quorum - 1))


def rounds(kinds: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Each kind as often as every other, in an order that nobody can rely on; without end."""
    while kinds:
        one = list(kinds)
        rng.shuffle(one)
        yield from one
