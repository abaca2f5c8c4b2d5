"""The map as SQLite has it: its table, and the one statement that is the merge.

Rules
- Nothing changes a record but `merge`, whose upsert is the merge rule of `model.record.wins` in SQL.
- Rows are read with the number and the instance of their epochs, whatever their ranks are (see
  `epoch_ranks`).

How it works. Records lie in key order (`WITHOUT ROWID`); an index holds them in version order, which
makes the map its own compacted replication log. Of a record's epoch they hold the rank.

What it does not know: transactions, which connection is for what, what is buffered (see `store`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import apsw

from trikv.model.record import Entry, Record
from trikv.model.version import Epoch, Version
from trikv.storage.epoch_ranks import RANKED, Ranks

SCHEMA = """
CREATE TABLE records (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL,  -- encoded JSON; empty for a tombstone
    epoch INTEGER NOT NULL,  -- its rank
    timestamp_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX records_by_version ON records (epoch, timestamp_us);
CREATE INDEX tombstones ON records (epoch, timestamp_us) WHERE value = '';
"""

COLUMNS = "key, value, number, instance, timestamp_us"
SELECT = f"SELECT {COLUMNS} FROM {RANKED}"

#: So many pairs of one write are worth a statement that has its version in it.
MANY_PAIRS = 100

#: Key, value, number, instance, timestamp: as SQLite has it.
Row = tuple[Any, ...]


def upsert(table: str, version: Sequence[str], source: str) -> str:
    """The merge rule, for a table that has a version in these columns, in the order of what it is."""
    compared = (*version, "value")
    new = ", ".join(f"excluded.{column}" for column in compared)
    old = ", ".join(f"{table}.{column}" for column in compared)
    return (
        f"INSERT INTO {table} (key, value, {', '.join(version)}) {source} ON CONFLICT (key) DO UPDATE"
        f" SET {', '.join(f'{column} = excluded.{column}' for column in compared)}"
        f" WHERE ({new}) > ({old})"
    )


RANKED_VERSION = "epoch", "timestamp_us"

_MERGE = upsert("records", RANKED_VERSION, "VALUES (?, ?, ?, ?)")


def _merge_at(rank: int, timestamp_us: int) -> str:
    """The same for keys and values of one version."""
    return upsert("records", RANKED_VERSION, f"VALUES (?, ?, {rank}, {timestamp_us})")


def merge(writer: apsw.Connection, ranks: Ranks, entries: Sequence[Entry]) -> tuple[int, int]:
    """Merge what was written into the map; how many records that was, and of how many bytes."""
    known = ranks.of({entry.version.epoch for entry in entries})
    rows: list[tuple[str, str, int, int]] = []
    count = size = 0
    for (epoch, timestamp_us), pairs in entries:
        rank = known[epoch]
        if len(pairs) < MANY_PAIRS:
            rows += [(key, value, rank, timestamp_us) for key, value in pairs]
        else:
            writer.executemany(_merge_at(rank, timestamp_us), pairs)
        count += len(pairs)
        size += sum([len(value) for _, value in pairs])
    writer.executemany(_MERGE, rows)
    return count, size


def get(connection: apsw.Connection, key: str) -> Record | None:
    rows = connection.execute(f"{SELECT} WHERE key = ?", (key,)).fetchall()
    return record_of(rows[0]) if rows else None


def greatest(connection: apsw.Connection) -> Version | None:
    rows = connection.execute(f"{SELECT} ORDER BY epoch DESC, timestamp_us DESC LIMIT 1").fetchall()
    return record_of(rows[0]).version if rows else None


def version_row(version: Version) -> tuple[int, str, int]:
    return (*version.epoch, version.timestamp_us)


def row_of(record: Record) -> Row:
    return (record.key, record.value, *version_row(record.version))


def record_of(row: Row) -> Record:
    key, value, epoch, instance, timestamp_us = row
    return Record(key, value, Version(Epoch(epoch, instance), timestamp_us))


def size_of(record: Record) -> int:
    """What a record counts towards a page's bound."""
    return len(record.key) + len(record.value)


def bounded(rows: apsw.Cursor, max_bytes: int) -> list[Record]:
    """Rows up to about `max_bytes` of keys and values, at least one; the cursor is closed after."""
    page: list[Record] = []
    size = 0
    with closing(rows):  # or the read transaction would stay open and hold back checkpoints
        for row in rows:
            page.append(record_of(row))
            size += size_of(page[-1])
            if size >= max_bytes:
                break
    return page
