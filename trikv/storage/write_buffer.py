"""The write buffer: large writes are kept whole, and most of what they wrote never enters the map.

To merge a record changes a page where its key lies, and one of the index where its version before lay.
A batch of 1,000 keys changes most pages of a map of 10,000, and the next one changes them again. Kept
as it came it takes 40 pages in a row; and when it is merged, later, what was written again since is left
out. (O'Neil, Cheng, Gawlick, O'Neil 1996, "The Log-Structured Merge-Tree": what is written gathers in a
small component before it is merged into a large one.)

Rules
- What was written is here or in the map, or in both, and never in neither: it comes here, and leaves for
  the map, in transactions. Memory holds what the table holds, which is read when it is opened.
- Whoever reads one key takes the newer of what the buffer and the map have of it. So the map must not
  forget that a key was deleted as long as an older value of it may be seen here (`lowest_version`).
  Whoever reads many keys has the buffer emptied first, and shut meanwhile.
- The oldest write leaves first.
- It is bounded, in records and bytes. A write that is small or very large, that deletes a key, or that
  is not newer than all that is here, is not taken.

How it works. A write is one row. In memory it is a dict of its values, and one more dict says of each
key which write has its newest. What readers see of this changes at a commit only, right after it, and
maybe in another thread than theirs.

What it does not know: the map, and how one merges into it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw
import msgspec

from trikv.model.record import Entry, Record
from trikv.model.version import Version
from trikv.storage.database import PAGE_BYTES, Database

SCHEMA = """
CREATE TABLE buffered (
    id INTEGER PRIMARY KEY,
    version TEXT NOT NULL,
    pairs TEXT NOT NULL  -- a JSON object: of each key the encoded value, as a text
) STRICT;
"""

#: Records that are kept at most: of 10,000 keys that are written at random, 1 in 25 is still the newest.
MAX_RECORDS = 32_000

#: Bytes that are kept at most, as in the rows.
MAX_BYTES = 16 * 2**20

#: A write of fewer keys is merged at once.
LEAST_PAIRS = 100

#: So is one of more bytes: where values are large, the map costs little beside them.
MAX_WRITE_BYTES = 2**20

_PAIRS = msgspec.json.Decoder(dict[str, str])


class _Kept:
    """One write. `row` is its id in the table."""

    __slots__ = ("row", "size", "values", "version")

    def __init__(self, version: Version, values: dict[str, str], size: int, row: int = 0) -> None:
        self.version = version
        self.values = values
        self.size = size
        self.row = row

    def record(self, key: str) -> Record:
        return Record(key, self.values[key], self.version)


class Buffer:
    """What is kept. `load`, and all that changes it, may raise apsw.Error."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: deque[_Kept] = deque()  # committed, oldest first
        self._newest: dict[str, _Kept] = {}  # of what is committed
        self._added: list[_Kept] = []  # in this transaction
        self._left = 0  # so many of the oldest, in this transaction
        self._records = self._size = 0  # as this transaction sees it
        self._shut = 0

    def load(self) -> None:
        """Read what the table holds. Raises apsw.CorruptError if that is not whole."""
        query = "SELECT id, version, pairs FROM buffered ORDER BY id"
        rows: list[tuple[Any, ...]] = self._database.writer.execute(query).fetchall()
        for row, version, pairs in rows:
            try:
                values = _PAIRS.decode(pairs)
                self._add(_Kept(Version.parse(version), values, len(pairs.encode()), row))
            except (ValueError, msgspec.DecodeError):
                raise apsw.CorruptError("what it says of large writes is not whole") from None
        self.committed()

    # -- what is committed --------------------------------------------------------------------------

    @property
    def empty(self) -> bool:
        """Whether nothing is here, nor on its way here in a transaction that goes on."""
        return not self._added and not self._kept

    @property
    def newest_version(self) -> Version | None:
        """The version of the newest write here."""
        try:
            return self._kept[-1].version
        except IndexError:
            return None

    @property
    def entries(self) -> list[Entry]:
        """All that is here, oldest first."""
        return [Entry(kept.version, [*kept.values.items()]) for kept in [*self._kept]]

    def get(self, key: str) -> Record | None:
        """What is here of a key. To be asked before the map: what leaves after this is there already."""
        kept = self._newest.get(key)
        return None if kept is None else kept.record(key)

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Inside it takes nothing: once it is empty it stays so. For one thread."""
        self._shut += 1
        try:
            yield
        finally:
            self._shut -= 1

    # -- inside a transaction -----------------------------------------------------------------------

    @property
    def overfull(self) -> bool:
        """Whether there is more here than there should be."""
        return self._records > MAX_RECORDS or self._size > MAX_BYTES

    @property
    def holds_any(self) -> bool:
        """Whether anything can leave."""
        return self._left < len(self._kept) or bool(self._added)

    @property
    def lowest_version(self) -> Version | None:
        """Nothing older may be seen here. (What leaves in this transaction is seen until the next.)"""
        if self._kept:
            return self._kept[0].version
        return self._added[0].version if self._added else None

    def current(self, key: str) -> Record | None:
        """What is here of a key."""
        for kept in reversed(self._added):
            if key in kept.values:
                return kept.record(key)
        return self.get(key)

    def take(self, entry: Entry) -> bool:
        """Keep a write if it is one to be kept: whether it is."""
        version, pairs = entry
        if len(pairs) < LEAST_PAIRS:
            return False
        newest = self._added[-1].version if self._added else self.newest_version
        if newest is not None and version <= newest:
            return False
        values = dict(pairs)
        if "" in values.values():
            return False
        text = msgspec.json.encode(values)
        if len(text) > MAX_WRITE_BYTES:
            return False
        kept = _Kept(version, values, len(text))
        self._add(kept)  # before the look: who shuts it at this moment sees this one, or is seen
        if self._shut:
            self._count(self._added.pop(), -1)
            return False
        writer = self._database.writer
        row = (str(version), text.decode())
        writer.execute("INSERT INTO buffered (version, pairs) VALUES (?, ?)", row)
        kept.row = writer.last_insert_rowid()
        self._database.wrote(2 + len(text) // PAGE_BYTES)
        return True

    def leave(self) -> Entry:
        """The oldest write leaves: what of it is to be merged into the map."""
        if self._left < len(self._kept):
            kept = self._kept[self._left]
            self._left += 1
            newest = self._newest
            pairs = [pair for pair in kept.values.items() if newest[pair[0]] is kept]
        else:
            kept = self._added.pop(0)
            pairs = [*kept.values.items()]
        self._count(kept, -1)
        self._database.writer.execute("DELETE FROM buffered WHERE id = ?", (kept.row,))
        self._database.wrote(2)
        return Entry(kept.version, pairs)

    def committed(self) -> None:
        """The transaction was committed."""
        for kept in self._added:
            self._newest.update(dict.fromkeys(kept.values, kept))
            self._kept.append(kept)
        self._added.clear()  # only now: between the two it must not look empty
        for _ in range(self._left):
            kept = self._kept.popleft()
            for key in [key for key in kept.values if self._newest[key] is kept]:
                del self._newest[key]
        self._left = 0

    def forget(self) -> None:
        """The transaction was rolled back."""
        self._added.clear()
        self._left = self._records = self._size = 0
        for kept in self._kept:
            self._count(kept, 1)

    def _add(self, kept: _Kept) -> None:
        self._added.append(kept)
        self._count(kept, 1)

    def _count(self, kept: _Kept, sign: int) -> None:
        self._records += sign * len(kept.values)
        self._size += sign * kept.size
