"""The map, read page by page from its newest record back: how a follower is brought up to date.

A batch of which a key was written again since is no longer whole in the map: if the rest of it came
before what has taken that key's place, and then no more, the follower would hold a part of a batch. So
the map is sent from its newest record back, and each page brings what was written meanwhile. In this
order the follower holds, after every page, what the leader's map held from some version on.

What it does not know: links, followers, in which thread it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from trikv.model.record import Record
from trikv.model.version import Version
from trikv.storage.store import Store, reaches_end

#: What was written while a page was on its way travels with the next one, up to so many pages of it.
MAX_NEWER_PAGES = 4


class Place(NamedTuple):
    """How far a map was read, from its newest record back: all between the two, ends included."""

    top: Version
    bottom: Version


class PageBack(NamedTuple):
    """The next older records, newest first; to be sent before them, all that is newer now than the top.

    `older` is None where more is newer than is read at a time, and [] at the end of the way.
    """

    newer: Sequence[Record]
    older: Sequence[Record] | None

    def place(self, before: Place | None) -> Place:
        """How far the map was read with this page, which is not empty."""
        if before is None:
            assert self.older  # nothing can be newer than a top that is not known yet
            return Place(self.older[0].version, self.older[-1].version)
        bottom = self.older[-1].version if self.older else before.bottom
        return Place(self.newer[-1].version if self.newer else before.top, bottom)


def read_back(
    store: Store, after: Version, place: Place | None, limit: int, max_bytes: int
) -> PageBack:
    """The next page on the way back to a version; from the newest record on, if there is no place.

    Raises StorageFailed.
    """
    older = store.page_back(after, None if place is None else place.bottom, limit, max_bytes)
    if place is None:
        return PageBack([], older)
    # After the older ones: so nothing that has taken the place of one of these is missing.
    limit, max_bytes = MAX_NEWER_PAGES * limit, MAX_NEWER_PAGES * max_bytes
    newer = store.page_by_version(place.top, limit, max_bytes)
    return PageBack(newer, older if reaches_end(newer, limit, max_bytes) else None)
