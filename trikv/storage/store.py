"""What a node keeps: the map, what is not in it yet, and what the node knows of itself. Synchronous.

The map is a table (see `record_table`), with a write buffer before it (see `write_buffer`). Beside
it lies what the node knows of itself, `NodeState`, in a table of facts, and with it up to where
tombstones were purged here; all change in the same transactions.

Rules
- A change happens in a transaction, opened by the committer alone. (A scan of a full disk opens one
  that it takes back.)
- What is read of one key is the newer of what map and buffer have. What reads many keys reads the map
  alone, and so must have shut and emptied the buffer before.
- What goes wrong with the database while it is read is StorageFailed; inside a transaction it is left
  to the committer.
- A read sees committed data only, and holds no transaction open after it returns, so that a long scan
  (which is many short pages) never holds back SQLite's checkpoints.

What it does not know: how the file is opened and its log kept (see `database`), threads, trio, who
leads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import apsw

from trikv.errors import SettingError, StorageFailed
from trikv.model.node_state import NodeState, state_of
from trikv.model.record import MAX_KEY_BYTES, Entry, Record, wins
from trikv.model.version import NO_VERSION, Epoch, Version
from trikv.storage import epoch_ranks, record_table, write_buffer
from trikv.storage.database import FILE_NAME, PAGE_BYTES, Database, DatabaseFault, Durability
from trikv.storage.epoch_ranks import Ranks, at
from trikv.storage.record_table import SELECT, record_of, size_of, version_row
from trikv.storage.write_buffer import Buffer

T = TypeVar("T")

#: The fact beside those of the state: see `Store.purged`.
_PURGED = "purged"

_SCHEMA = f"""
{epoch_ranks.SCHEMA}
{write_buffer.SCHEMA}
{record_table.SCHEMA}
CREATE TABLE facts (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO facts VALUES ('{_PURGED}', '{NO_VERSION}');
"""

_SET_FACT = (
    "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)

_STAGE = record_table.upsert(
    "staged", ("number", "instance", "timestamp_us"), "VALUES (?, ?, ?, ?, ?)"
)
_MERGE_STAGED = record_table.upsert(  # WHERE: else SQLite takes ON CONFLICT for that of a join
    "records",
    record_table.RANKED_VERSION,
    "SELECT key, value, rank, timestamp_us FROM temp.staged JOIN epochs USING (number, instance)"
    " WHERE true",
)

#: Keys from here on are not reserved (see `messages.RESERVED_PREFIX`).
_FIRST_KEY = "\1"
_LAST_CHARACTER = "\U0010ffff"

#: More than any version, as a row.
_ABOVE_ALL = (2**63 - 1, "", 0)


class Store:
    """One node's records and facts. Open it with `Store.open`, close it with `close`."""

    def __init__(self, path: Path | None, durability: Durability) -> None:
        self.purged = NO_VERSION
        """Tombstones may be missing here up to this version, and above it none is."""
        self.kept: Version | None = None
        """Tombstones above this version are not purged, for those who still have to read them."""
        self.database = database = Database(path, durability, _SCHEMA)
        self._writer, self._reader, self._pager = database.writer, database.reader, database.pager
        self._ranks = Ranks(self._writer)
        self._buffer = Buffer(database)
        try:
            self._load()
        except BaseException:
            self.close()
            raise
        database.reserve()

    @classmethod
    def open(cls, data_dir: Path | None, durability: Durability = "fsync") -> Store:
        """Open the store in a directory, made if missing; None keeps everything in memory.

        Raises SettingError, naming DATA_DIR, if the directory cannot be used.
        """
        if data_dir is None:
            return cls(None, durability)
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            return cls(data_dir / FILE_NAME, durability)
        except (OSError, *DatabaseFault, ValueError) as error:
            why = " ".join(str(error).split())  # SQLite may quote a schema, of several lines
            raise SettingError(
                f"DATA_DIR={str(data_dir)!r}: expected a directory that this user can write to, "
                f"with a database of trikv's in it or none: {why}"
            ) from None

    def _load(self) -> None:
        """Raises apsw.Error, ValueError."""
        self.state = self._read_state()
        self._ranks.check()
        self._buffer.load()

    def _read_state(self) -> NodeState:
        """Raises apsw.Error, ValueError."""
        facts: list[Any] = self._writer.execute("SELECT name, value FROM facts").fetchall()
        if not all(isinstance(cell, str) for row in facts for cell in row):
            raise apsw.CorruptError("what it says of the node is no text")
        known = dict(facts)
        self.purged = Version.parse(known.get(_PURGED, ""))
        return state_of(known)

    def close(self) -> None:
        self.database.close()

    # -- changes: only inside a transaction ---------------------------------------------------------

    @contextmanager
    def transaction(self, *, synced: bool = False) -> Iterator[None]:
        """Commit all changes made inside at the end, or none. Raises apsw.Error.

        `synced`: it waits for the disk also where the durability is `os`.
        """
        with self.database.synced() if synced else nullcontext():
            with self._transaction():
                yield

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        before = self.state, self.purged
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.database.check_in_place()
            self._writer.execute("COMMIT")
            self._buffer.committed()
            self.database.committed()
        except BaseException:
            self.state, self.purged = before
            self._ranks.forget()
            self._buffer.forget()
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    def merge(self, entries: Sequence[Entry]) -> None:
        """Merge what was written into the map: each record stays only if it wins over what is there."""
        buffer = self._buffer
        ripe = [entry for entry in entries if not buffer.take(entry)]
        while buffer.overfull:
            ripe.append(buffer.leave())
        self._merge(ripe)

    def _merge(self, entries: Sequence[Entry]) -> None:
        """The same past the buffer."""
        count, size = record_table.merge(self._writer, self._ranks, entries)
        # One page of the map and one of the index for each, where their keys lie far apart.
        self.database.wrote(2 * count + size // PAGE_BYTES)

    def empty_buffer(self, limit: int | None = None) -> None:
        """Merge what is buffered, oldest first: all of it, or until about so many records are."""
        ripe: list[Entry] = []
        records = 0
        while self._buffer.holds_any and (limit is None or records < limit):
            ripe.append(self._buffer.leave())
            records += len(ripe[-1].pairs)
        self._merge(ripe)

    def set_state(self, state: NodeState) -> None:
        """What the node knows of itself from now on. Raises AssertionError if it contradicts itself."""
        state.check_invariants()
        fields = zip(NodeState._fields, self.state, state, strict=True)
        changed = [(name, str(after)) for name, before, after in fields if before != after]
        self._writer.executemany(_SET_FACT, changed)
        self.state = state

    def rewrite_state(self) -> None:
        """Write the state as it is: the smallest change that the disk must take."""
        self._writer.executemany(
            _SET_FACT, zip(NodeState._fields, map(str, self.state), strict=True)
        )

    def current(self, key: str) -> Record | None:
        """The same as `get` as this transaction sees it."""
        buffered = self._buffer.current(key)
        return _newer(buffered, record_table.get(self._writer, key))

    def purge(self, limit: int) -> int:
        """Remove tombstones up to the floor, so many at most; how many were removed.

        Those that are `kept` stay until the floor has risen again, and so do those that hide what they
        deleted in the buffer.
        """
        floor, kept = self.state.floor, self.kept
        bound = floor if kept is None else min(floor, kept)
        rows = self._writer.execute(
            f"{SELECT} WHERE value = '' AND (epoch, timestamp_us) <= {at(1)}"
            " ORDER BY epoch, timestamp_us LIMIT ?4",
            (*version_row(bound), limit),
        )
        lowest = self._buffer.lowest_version
        victims = [
            one for one in map(record_of, rows.fetchall()) if lowest is None or one.version < lowest
        ]
        if victims:
            keys = [(one.key,) for one in victims]
            self._writer.executemany("DELETE FROM records WHERE key = ?", keys)
            self.set_purged(victims[-1].version)
        return len(victims)

    def set_purged(self, version: Version) -> None:
        """Tombstones up to this version may be missing from now on."""
        if version > self.purged:
            self._writer.execute(_SET_FACT, (_PURGED, str(version)))
            self.purged = version

    # A takeover reads the maps of others into a table beside its own, which is gone with the connection,
    # and merges or exchanges the two in one transaction.

    def begin_staging(self) -> None:
        """An empty map beside the map, which holds all there is from now on: see `staged_strays`."""
        self.empty_buffer()
        self.end_staging()
        self._writer.execute(
            "CREATE TEMP TABLE staged (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL,"
            " number INTEGER NOT NULL, instance TEXT NOT NULL, timestamp_us INTEGER NOT NULL)"
            " WITHOUT ROWID"
        )

    def stage(self, records: Iterable[Record]) -> None:
        """Merge records into the map beside the map."""
        self._writer.executemany(_STAGE, map(record_table.row_of, records))

    def staged_strays(self) -> list[tuple[Record, Record | None]]:
        """What the map holds beyond it, each with what the other has of that key."""
        assert not self._buffer.holds_any
        columns = ", ".join(
            f"{side}.{c}" for side in "rs" for c in record_table.COLUMNS.split(", ")
        )
        rows = self._writer.execute(
            f"SELECT {columns} FROM ({SELECT}) r LEFT JOIN temp.staged s ON s.key = r.key"
            " WHERE (s.key IS NULL AND r.value <> '') OR (r.number, r.instance, r.timestamp_us, r.value)"
            " > (s.number, s.instance, s.timestamp_us, s.value)"
        ).fetchall()
        return [
            (record_of(row[:5]), None if row[5] is None else record_of(row[5:])) for row in rows
        ]

    def merge_staged(self) -> None:
        """Merge it all into the map."""
        query = "SELECT DISTINCT number, instance FROM temp.staged"
        rows: list[record_table.Row] = self._writer.execute(query).fetchall()
        self._ranks.of({Epoch(*epoch) for epoch in rows})
        self._writer.execute(_MERGE_STAGED)

    def end_staging(self) -> None:
        self._writer.execute("DROP TABLE IF EXISTS temp.staged")

    # -- reads --------------------------------------------------------------------------------------

    @property
    def buffered_up_to(self) -> Version | None:
        """The version of the newest write that is not in the map, or not all of it."""
        return self._buffer.newest_version

    @property
    def buffers(self) -> bool:
        """Whether anything is not in the map yet, or may be so in a moment."""
        return not self._buffer.empty

    def shut_buffer(self) -> AbstractContextManager[None]:
        """Inside all that is written goes to the map at once: for scans, which see the map alone.

        What is buffered already they have merged first.
        """
        return self._buffer.shut()

    def as_if_emptied(self, scan: Callable[[], T]) -> T:
        """Scan what the map would be if the buffer could be emptied: it is merged, and that taken back.

        For a disk that has no room for it: nothing is written, what is merged stays in memory.
        """
        pager = self._pager
        with _reading():
            pager.execute("PRAGMA cache_spill = OFF")
            pager.execute("BEGIN IMMEDIATE")
            try:
                record_table.merge(pager, Ranks(pager), self._buffer.entries)
                return scan()
            finally:
                if pager.in_transaction:  # else SQLite has ended it
                    pager.execute("ROLLBACK")

    def get(self, key: str) -> Record | None:
        """The record of a key, which may be a tombstone, or None."""
        buffered = self._buffer.get(key)
        with _reading():
            return _newer(buffered, record_table.get(self._reader, key))

    def peek(self, key: str) -> Record | None:
        """The same on the pages' connection: for scans."""
        with self._scanning():
            return record_table.get(self._pager, key)

    def greatest_version(self) -> Version | None:
        """The version of the newest record; None if the map is empty."""
        buffered = self.buffered_up_to
        with _reading():
            merged = record_table.greatest(self._reader)
        return max((v for v in (buffered, merged) if v is not None), default=None)

    def newest_version(self) -> Version | None:
        """The same on the pages' connection: for scans."""
        with self._scanning():
            return record_table.greatest(self._pager)

    def count_after(self, after: Version, limit: int) -> int:
        """How many records have greater versions, counted up to `limit`."""
        query = (
            "SELECT count(*) FROM (SELECT 1 FROM records"
            f" WHERE (epoch, timestamp_us) > {at(1)} LIMIT ?4)"
        )
        with self._scanning():
            count: int = self._pager.execute(query, (*version_row(after), limit)).get
        return count

    def count(self) -> tuple[int, int]:
        """How many records there are, and how many of them are tombstones. Reads an index to its end."""
        query = (
            "SELECT (SELECT count(*) FROM records), (SELECT count(*) FROM records WHERE value = '')"
        )
        with self._scanning():
            counts: tuple[int, int] = self._pager.execute(query).get
        return counts

    def page_by_key(
        self, after: str, limit: int, max_bytes: int, *, live_only: bool = False, prefix: str = ""
    ) -> list[Record]:
        """The records whose keys follow `after` ("" for the first), in key order, bounded.

        Reserved keys are left out. With a `prefix`, only keys that begin with it.
        """
        first = max(_FIRST_KEY, prefix)
        query = f"{SELECT} WHERE key {'>' if after >= first else '>='} ?"
        bound: list[str | int] = [max(after, first)]
        if prefix:
            query += " AND key <= ?"
            bound.append(prefix + _LAST_CHARACTER * MAX_KEY_BYTES)
        if live_only:
            query += " AND value <> ''"
        query += " ORDER BY key LIMIT ?"
        with self._scanning():
            return record_table.bounded(self._pager.execute(query, (*bound, limit)), max_bytes)

    def page_by_version(self, after: Version | None, limit: int, max_bytes: int) -> list[Record]:
        """The records with greater versions, in version order, bounded; [] at the end.

        A page never ends inside a write: the records that share its last version are all in it, even
        past the bounds. So `after=page[-1].version` goes on without a gap.
        """
        bound = version_row(after) if after is not None else (-1, "", 0)
        query = (
            f"{SELECT} WHERE (epoch, timestamp_us) > {at(1)}"
            " ORDER BY epoch, timestamp_us, key LIMIT ?4"
        )
        with self._scanning(), self._one_moment():
            page = record_table.bounded(self._pager.execute(query, (*bound, limit)), max_bytes)
            return self._whole_write(page, "> ?4")

    def page_back(
        self, after: Version, before: Version | None, limit: int, max_bytes: int
    ) -> list[Record]:
        """The same from the newest on, or from below `before`, down to above `after`."""
        bound = version_row(before) if before is not None else _ABOVE_ALL
        query = (
            f"{SELECT} WHERE (epoch, timestamp_us) < {at(1)} AND (epoch, timestamp_us) > {at(4)}"
            " ORDER BY epoch DESC, timestamp_us DESC, key DESC LIMIT ?7"
        )
        with self._scanning(), self._one_moment():
            rows = self._pager.execute(query, (*bound, *version_row(after), limit))
            return self._whole_write(record_table.bounded(rows, max_bytes), "< ?4")

    @contextmanager
    def _scanning(self) -> Iterator[None]:
        """A read of what the map has, which must be all there is: see `shut_buffer`, `as_if_emptied`."""
        assert self.buffered_up_to is None or self._pager.in_transaction
        with _reading():
            yield

    @contextmanager
    def _one_moment(self) -> Iterator[None]:
        """Read in one transaction: a commit may run in another thread between two statements."""
        if self._pager.in_transaction:  # see `as_if_emptied`; in memory it may be the writer's, too
            yield
            return
        self._pager.execute("BEGIN")
        try:
            yield
        finally:
            with suppress(apsw.SQLError):  # an error may have ended it already
                self._pager.execute("ROLLBACK")

    def _whole_write(self, page: list[Record], beyond: str) -> list[Record]:
        """The page, and what is missing of its last write."""
        rest = f"{SELECT} WHERE (epoch, timestamp_us) = {at(1)} AND key {beyond} ORDER BY key"
        if page:
            last = page[-1]
            rows = self._pager.execute(rest, (*version_row(last.version), last.key)).fetchall()
            page.extend(map(record_of, rows))
        return page


def _newer(buffered: Record | None, merged: Record | None) -> Record | None:
    """Of what buffer and map have of a key, the one that counts."""
    return buffered if buffered is not None and wins(buffered, merged) else merged


@contextmanager
def _reading() -> Iterator[None]:
    """What goes wrong with the database becomes StorageFailed."""
    try:
        yield
    except DatabaseFault as error:
        raise StorageFailed(f"this node could not read its database: {error}") from None


def reaches_end(page: Sequence[Record], limit: int, max_bytes: int) -> bool:
    """Whether a page that was read with these bounds came to neither: there was nothing further."""
    return len(page) < limit and sum(map(size_of, page)) < max_bytes
