"""Versions: the order of all writes, and the rule by which replicas agree.

Rules
- A version is `(epoch, timestamp_us)`, compared in that order. An epoch is one leadership: `(number,
  instance of its leader)`, so that no two leaderships ever share one, not even two of one node around
  an emptied disk.
- A version belongs to one write. Only a leader issues versions, from one `VersionClock`.
- Of two records of one key the one with the greater version wins; between equal versions, which no
  leader can issue, the greater encoded value wins. So any set of records has one maximum for each
  key, and merging is a join: idempotent, commutative, associative. Replicas that have merged the same
  records in whatever order and however often are equal. (Shapiro, Preguiça, Baquero, Zawirski 2011,
  "Conflict-free Replicated Data Types": the last-write-wins element, with its tie broken.)

This module is pure: it reads no clock, draws no random number, does no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

#: Timestamps stay below 2**53, so that a JavaScript number holds them exactly (until the year 2255).
MAX_TIMESTAMP_US = 2**53 - 1

#: No leader issues a later timestamp, and no follower takes one: ten years before the last there is, so
#: that a clock which is wrong by centuries is refused, and what counts on from there has room.
MAX_ISSUED_US = MAX_TIMESTAMP_US - 10 * 366 * 86_400 * 1_000_000

#: Epoch numbers stay below 2**31: SQLite and every client hold them, and nobody starts that often.
MAX_EPOCH_NUMBER = 2**31 - 1

_INSTANCE = re.compile(r"[0-9a-z]{1,32}")
_EPOCH = re.compile(r"(0|[1-9][0-9]{0,9})\.([0-9a-z]{1,32})")
_TIMESTAMP = re.compile(r"0|[1-9][0-9]{0,15}")


class Epoch(NamedTuple):
    """One leadership. Text form `NUMBER.INSTANCE`."""

    number: int
    instance: str

    def __str__(self) -> str:
        return f"{self.number}.{self.instance}"

    @classmethod
    @lru_cache(maxsize=64)  # there are few in a cluster's life
    def parse(cls, text: str) -> Epoch:
        """Read the text form. Raises ValueError for anything else."""
        found = _EPOCH.fullmatch(text)
        if found is None or int(found[1]) > MAX_EPOCH_NUMBER:
            raise ValueError(f"an epoch looks like 3.0f4c2a9d81e7, not {text[:80]!r}")
        return cls(int(found[1]), found[2])


#: What a node has promised that has never heard of a leader: below every epoch.
NO_EPOCH = Epoch(0, "0")

#: The epoch of records in the lab's plain form: below every leader's, whose numbers start at 1.
PLAIN_EPOCH = Epoch(0, "plain")


class Version(NamedTuple):
    """One write. Text form `NUMBER.INSTANCE-TIMESTAMP`, which is also the ETag (in quotes)."""

    epoch: Epoch
    timestamp_us: int

    def __str__(self) -> str:
        return f"{self.epoch.number}.{self.epoch.instance}-{self.timestamp_us}"

    @classmethod
    @lru_cache(maxsize=256)  # the records of a batch share one, and so do a batch and the next
    def parse(cls, text: str) -> Version:
        """Read the text form. Raises ValueError for anything else."""
        epoch, _, digits = text.partition("-")
        try:
            if _TIMESTAMP.fullmatch(digits) and (timestamp_us := int(digits)) <= MAX_TIMESTAMP_US:
                return cls(Epoch.parse(epoch), timestamp_us)
        except ValueError:
            pass
        raise ValueError(f"a version looks like 3.0f4c2a9d81e7-1700000000000000, not {text[:80]!r}")


#: Below every version there is: how far a node is that has been brought nowhere yet.
NO_VERSION = Version(NO_EPOCH, 0)


def is_instance(text: str) -> bool:
    """Whether `text` can be a node's instance: 1 to 32 digits and small letters."""
    return _INSTANCE.fullmatch(text) is not None


class VersionClock:
    """Issues the versions of one epoch: unique and strictly increasing, however the clock behaves.

    `now_us` reads the wall clock in microseconds since 1970; `seen_us` is the greatest timestamp that
    this node knows of an earlier epoch, so that timestamps grow across leaderships too.
    """

    def __init__(self, epoch: Epoch, now_us: Callable[[], int], seen_us: int = 0) -> None:
        self.epoch = epoch
        self._now_us = now_us
        self.last_us = seen_us

    def issue(self) -> Version:
        """Return the version of one write. Raises OverflowError beyond `MAX_ISSUED_US`."""
        issued_us = max(self._now_us(), self.last_us + 1)
        if issued_us > MAX_ISSUED_US:
            raise OverflowError(
                "this node's clock is past the year 2245: expected one that is right"
            )
        self.last_us = issued_us
        return Version(self.epoch, issued_us)
