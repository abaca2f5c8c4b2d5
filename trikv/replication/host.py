"""What a link needs of the leadership that it is part of: its `Host`. (It is a `Leadership`.)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from trikv.model.record import Record
from trikv.model.version import Version
from trikv.network.peers import Candidate, Promised
from trikv.storage.reverse_scan import PageBack, Place

if TYPE_CHECKING:
    from trikv.replication.link import Link


class Host(Protocol):
    """The leadership, as its links know it."""

    @property
    def candidate(self) -> Candidate: ...
    @property
    def resolved_us(self) -> int:
        """Every write up to here is committed, and was handed to the links, or has failed."""
        ...

    @property
    def confirmed(self) -> Version | None:
        """Up to here all is on enough nodes; None: nothing is known to be."""
        ...

    @property
    def floor(self) -> Version: ...
    async def read_back(
        self, after: Version, place: Place | None, limit: int, max_bytes: int
    ) -> PageBack:
        """The next page on the way back to a version; from the newest record on, if there is no place.

        Raises StorageFailed.
        """
        ...

    async def overrule(self, follower: str, held: Sequence[Record]) -> None:
        """Write anew what this leader has of those keys of which the follower has something newer."""
        ...

    async def admit(self, link: Link) -> None:
        """Wait until a new node may be brought in."""
        ...

    def recognise(self, link: Link, told: Promised) -> None:
        """Raises PeerFailed if this node can't be the link's follower."""
        ...

    def spare(self, link: Link) -> bool:
        """Whether no quorum waits for this link."""
        ...

    def superseded(self, why: str) -> None:
        """A follower has promised a higher epoch: this leadership is over."""
        ...

    def progress(self) -> None:
        """An acknowledgement, a heartbeat, or a new state of a link."""
        ...
