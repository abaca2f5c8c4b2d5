"""What travels on a link together: records, encoded once for all followers, and whether they arrived."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from trikv.messages import encode_record
from trikv.version import Record


class Encoded:
    """A write's records as they travel: the text is made once, and shared by all links."""

    __slots__ = ("records", "size", "text", "timestamp_us")

    def __init__(self, records: Sequence[Record], timestamp_us: int = 0) -> None:
        self.text = ",".join(map(encode_record, records))
        self.records = len(records)
        self.size = len(self.text)
        self.timestamp_us = timestamp_us


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
