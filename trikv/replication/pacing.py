"""Which followers a quorum waits for, which are sent more at a time, and which keep up. Pure.

A request costs leader and follower about the same, whether it holds one record or ten. So a follower
whose answer nobody waits for is left alone for `PAUSE_S` after each, and is sent then all that has come
meanwhile. In a write quorum of 3 of 5 that saves most of two followers' requests, and what they cost.

Rules
- *Hurried* are the quickest live links that together are enough for a quorum. The others are *spare*.
- Nothing but time depends on it. An acknowledgement counts, whoever it comes from; and a write whose
  hurried followers do not answer is on its way to the spare ones within `PAUSE_S`.
- A link is as slow as its requests were of late, or as the one that is in flight has been up to now: so
  one that stalls is spare soon, and another hurries in its place.
- A link hurries on unless a spare one is more than twice as quick: what was put off for a moment may be
  what a quorum waits for, so they should not change places without need.

Keeping up. Under a steady load that is more than followers take, writers wait for room in the outboxes
of a quorum, and of all other live links as long as these keep up: else these would fill, and fall back
to syncing. A link keeps up if it takes at least half of what a quorum takes, that is, as long as the
quorum is idle for no more than half of the time for which the writers wait. One that is slower, or
stalls, holds up writers for less than a second; then it falls back, and nobody waits for it.

What it does not know: time, links' states, simulated lag (see `Leader.spare`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Set
from typing import Protocol, TypeVar

#: A spare follower is that much behind, at most: one that reads there does not notice, and ten requests
#: of a busy leader are one.
PAUSE_S = 0.01

#: How much of a link's slowness the last request makes up.
WEIGHT = 0.1

#: How many times quicker a spare link must be to hurry in the place of another.
MARGIN = 2


#: A quorum that is idle for more than this share of the time, while writers wait for room, could take
#: twice of what it is given.
IDLE_SHARE = 0.5

#: The share is a mean over about this long: a follower that stalls holds up writers for 0.7 s, once.
IDLE_WINDOW_S = 1.0

#: Writers that wait for room look again after this long, also where no acknowledgement comes.
ROOM_LOOK_S = 0.1


class Idle:
    """The share of the time of late in which a link was idle while a writer waited for room, 0 to 1."""

    def __init__(self) -> None:
        self.share = 0.0
        self._looked_at_s = -math.inf
        self._busy_s = 0.0

    def look(self, now_s: float, busy_s: float) -> None:
        """Note that a writer waits; `busy_s`: for how long the link has had requests in flight in all.

        Between two looks that are far apart nobody was waiting.
        """
        elapsed_s = now_s - self._looked_at_s
        idle = 0.0
        if 0 < elapsed_s <= 2 * ROOM_LOOK_S:
            idle = 1 - (busy_s - self._busy_s) / elapsed_s
            idle = min(
                max(idle, 0.0), 1.0
            )  # what was in flight when a session ended does not count
        kept = math.exp(-elapsed_s / IDLE_WINDOW_S)
        self.share = self.share * kept + (1 - kept) * idle
        self._looked_at_s, self._busy_s = now_s, busy_s


class Paced(Protocol):
    """What is to be known of a link."""

    @property
    def name(self) -> str: ...
    @property
    def slowness_s(self) -> float: ...
    @property
    def idle(self) -> Idle: ...


L = TypeVar("L", bound=Paced)


def mean(before_s: float, last_s: float) -> float:
    """How slow a link is, after one more request."""
    return last_s if before_s == 0 else before_s + WEIGHT * (last_s - before_s)


def hurried(
    live: Iterable[L],
    before: Collection[L],
    enough: Callable[[Set[str]], bool],
) -> set[L]:
    """The links that hurry from now on; all that live where they are not enough."""

    def slowness_s(link: L) -> float:
        return link.slowness_s * (1 if link in before else MARGIN)

    chosen: set[L] = set()
    names: set[str] = set()
    for link in sorted(live, key=slowness_s):
        if enough(names):
            break
        chosen.add(link)
        names.add(link.name)
    return chosen


def quorum_is_idle(live: Iterable[Paced], enough: Callable[[Set[str]], bool]) -> bool:
    """Return whether a quorum of links could take twice of what it is given.

    With quorum 0 nobody is waited for: no link holds up a writer.
    """
    names: set[str] = set()
    if enough(names):
        return True
    for link in sorted(live, key=lambda link: -link.idle.share):
        names.add(link.name)
        if enough(names):
            return link.idle.share > IDLE_SHARE
    return False
