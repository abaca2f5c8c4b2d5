"""Records: one key's value with its version, the merge rule, and which keys there may be. Pure.

Rules
- Of two records of one key the one with the greater version wins; between equal versions, which no
  leader can issue, the greater encoded value wins. So any set of records has one maximum for each
  key, and merging is a join: idempotent, commutative, associative. Replicas that have merged the same
  records in whatever order and however often are equal. (Shapiro, Preguiça, Baquero, Zawirski 2011,
  "Conflict-free Replicated Data Types": the last-write-wins element, with its tie broken.)
- A key has 1 to `MAX_KEY_BYTES` bytes of UTF-8. Those that begin with `RESERVED_PREFIX` are the
  cluster's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from trikv.model.version import Version

#: A key's length in UTF-8: room for paths and ids, small enough for an index.
MAX_KEY_BYTES = 512

#: Keys that start so are the node's own: the API neither takes nor shows them.
RESERVED_PREFIX = "\0"


class Record(NamedTuple):
    """One key's state: `value` is its encoded JSON, and empty for a tombstone."""

    key: str
    value: str
    version: Version

    @property
    def deleted(self) -> bool:
        return self.value == ""


#: A key and its encoded value, empty where the key is deleted.
Pair = tuple[str, str]


class Entry(NamedTuple):
    """One write, or what is left of it: what it made of each of its keys. No key stands twice."""

    version: Version
    pairs: Sequence[Pair]

    @property
    def records(self) -> list[Record]:
        return [Record(key, value, self.version) for key, value in self.pairs]


def entries_of(records: Iterable[Record]) -> list[Entry]:
    """The same as entries: those that follow each other, and are of one write, in one."""
    return [
        Entry(version, [record[:2] for record in some])
        for version, some in groupby(records, key=attrgetter("version"))
    ]


def wins(new: Record, old: Record | None) -> bool:
    """The merge rule: whether `new` replaces `old`, a record of the same key or none."""
    return old is None or (new.version, new.value) > (old.version, old.value)
