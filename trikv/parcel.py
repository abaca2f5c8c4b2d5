"""What travels on a link together: records, encoded once for all followers, and whether they arrived."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from trikv.messages import encode_entry
from trikv.version import Entry


class Encoded:
    """Records as they travel: the text is made once, and shared by all links.

    `timestamps_us` are those of the writes that they are; a page of the map has none.
    """

    __slots__ = ("records", "size", "text", "timestamps_us")

    def __init__(self, text: str, records: int, timestamps_us: Sequence[int] = ()) -> None:
        self.text = text
        self.records = records
        self.size = len(text)
        self.timestamps_us = timestamps_us

    @classmethod
    def of(cls, entries: Sequence[Entry], *timestamps_us: int) -> Encoded:
        records = sum([len(entry.pairs) for entry in entries])
        return cls(",".join(map(encode_entry, entries)), records, timestamps_us)

    @classmethod
    def joined(cls, parts: Sequence[Encoded]) -> Encoded:
        """All of these, as one."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            ",".join([part.text for part in parts]),
            sum(part.records for part in parts),
            [us for part in parts for us in part.timestamps_us],
        )


class Parcel:
    """Records that travel together, and who hears what becomes of them. Compared by identity.

    With `establishes`, the end of a handshake: the follower has all up to this timestamp.
    """

    __slots__ = ("content", "establishes", "since", "told")

    def __init__(self, content: Encoded | None, establishes: int | None = None) -> None:
        self.content = content
        self.establishes = establishes
        self.since = trio.current_time()
        self.told: Callable[[bool], None] = _nobody
        """Called once: whether the follower has it, and counts. It must not wait, nor raise."""


def _nobody(counts: bool) -> None:
    pass
