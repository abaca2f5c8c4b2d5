"""Which followers a quorum waits for, and which of the others can be sent more at a time. Pure.

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

What it does not know: time, links' states, simulated lag (see `Leader.spare`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Set
from typing import Protocol, TypeVar

#: A spare follower is that much behind, at most: one that reads there does not notice, and ten requests
#: of a busy leader are one.
PAUSE_S = 0.01

#: How much of a link's slowness the last request makes up.
WEIGHT = 0.1

#: How many times quicker a spare link must be to hurry in the place of another.
MARGIN = 2


class Paced(Protocol):
    """What is to be known of a link."""

    @property
    def name(self) -> str: ...
    @property
    def slowness_s(self) -> float: ...


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
