"""The order of epochs in a database: each is one integer there, its *rank*.

An epoch is a number and a text. Spelt out in each record, and in each entry of the index by version, it
would be compared and written with every one of them; but in a cluster's life there are few.

Rules
- Of two epochs the greater has the greater rank, at every commit.
- Whoever reads resolves ranks in the statement that reads the records (`RANKED`, `at`), so in the same
  state of the database, whatever is committed meanwhile. Only the writer keeps them in mind.
- An epoch gets its rank in the transaction that first merges a record of it, and has one ever after.

How it works. Each epoch number has `ROOM` ranks of its own. The first epoch of a number gets the middle
one; as a rule it is the only one, as leaderships share a number only where one began without knowing of
the other. A further one gets the middle between its neighbours. Where there is none left, the epochs of
that number get new ranks, far apart, and so do their records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from typing import Any

import apsw

from trikv.model.version import MAX_TIMESTAMP_US, Epoch

#: Ranks for the epochs of one number.
ROOM = 2**32

#: A lowest row, of no epoch, so that below each epoch there is one.
SCHEMA = """
CREATE TABLE epochs (
    rank INTEGER PRIMARY KEY,
    number INTEGER NOT NULL,
    instance TEXT NOT NULL,
    UNIQUE (number, instance)
) STRICT;
INSERT INTO epochs VALUES (-1, -1, '');
"""

#: Ranks that records have and no epoch: one seek in the index for each rank.
_STRAY = """
WITH RECURSIVE used (rank) AS (
    SELECT min(epoch) FROM records
    UNION ALL
    SELECT (SELECT min(epoch) FROM records WHERE epoch > used.rank) FROM used
    WHERE used.rank IS NOT NULL
)
SELECT rank FROM used WHERE rank IS NOT NULL AND rank NOT IN (SELECT rank FROM epochs)
"""

#: What records are read from: with the number and the instance of their epochs.
RANKED = "records CROSS JOIN epochs ON rank = epoch"  # CROSS: SQLite reads the records first


def at(first: int) -> str:
    """A version as `(epoch, timestamp_us)` of records, from parameters `?first` and the next two.

    The version of an epoch that no record is of is right behind the last of the epoch below.
    """
    number, instance, timestamp_us = (f"?{first + i}" for i in range(3))
    return (
        f"(SELECT rank, iif(number = {number} AND instance = {instance},"
        f" {timestamp_us}, {MAX_TIMESTAMP_US + 1})"
        f" FROM epochs WHERE (number, instance) <= ({number}, {instance})"
        " ORDER BY number DESC, instance DESC LIMIT 1)"
    )


class Ranks:
    """The ranks as the writer's transaction sees them. Each method raises apsw.Error."""

    def __init__(self, writer: apsw.Connection) -> None:
        self._writer = writer
        self._known: dict[Epoch, int] = {}  # all there are, or none if they were not read yet

    def check(self) -> None:
        """Raises apsw.CorruptError if what the database says of epochs is not whole.

        Records of an epoch that is not there would be there for no reader.
        """
        query = "SELECT rank, number, instance FROM epochs ORDER BY number, instance"
        rows: list[tuple[Any, ...]] = self._writer.execute(query).fetchall()
        ranks = [rank for rank, _, _ in rows]
        if (
            rows[:1] != [(-1, -1, "")]
            or ranks != sorted(set(ranks))
            or any(rank // ROOM != number for rank, number, _ in rows[1:])
            or self._writer.execute(_STRAY).fetchall()
        ):
            raise apsw.CorruptError("what it says of epochs is not whole")

    def forget(self) -> None:
        """A transaction was rolled back, and with it perhaps a rank."""
        self._known = {}

    def of(self, epochs: Set[Epoch]) -> Mapping[Epoch, int]:
        """The ranks of these epochs, and maybe of others. Those that have none get one.

        Whatever ranks were before: one that is new may move others.
        """
        if not self._known:
            query = "SELECT rank, number, instance FROM epochs WHERE rank >= 0"
            rows: list[tuple[Any, ...]] = self._writer.execute(query).fetchall()
            self._known = {Epoch(number, instance): rank for rank, number, instance in rows}
        for epoch in sorted(epochs - self._known.keys()):
            self._add(epoch)
        return self._known

    def _add(self, epoch: Epoch) -> None:
        rank = self._between(epoch)
        if rank is None:
            self._spread(epoch.number)
            rank = self._between(epoch)
            assert rank is not None, f"there are {ROOM // 2} epochs of one number"
        self._writer.execute("INSERT INTO epochs VALUES (?, ?, ?)", (rank, *epoch))
        self._known[epoch] = rank

    def _between(self, epoch: Epoch) -> int | None:
        """The middle between the ranks of its neighbours; None if there is none."""
        below, above = (
            self._writer.execute(
                f"SELECT rank FROM epochs WHERE (number, instance) {side} (?, ?)"
                f" ORDER BY number {order}, instance {order} LIMIT 1",
                epoch,
            ).get
            for side, order in (("<", "DESC"), (">", "ASC"))
        )
        start = epoch.number * ROOM
        below = max(below, start - 1)
        above = start + ROOM if above is None else min(above, start + ROOM)
        return (below + above) // 2 if above - below > 1 else None

    def _spread(self, number: int) -> None:
        """Give the epochs of a number ranks far apart, and their records with them."""
        epochs = sorted(epoch for epoch in self._known if epoch.number == number)
        step = ROOM // (len(epochs) + 1)
        new = {epoch: number * ROOM + i * step for i, epoch in enumerate(epochs, start=1)}
        moves = [(self._known[epoch], rank) for epoch, rank in new.items()]
        self._writer.execute("DELETE FROM epochs WHERE number = ?", (number,))
        self._writer.executemany(
            "INSERT INTO epochs VALUES (?, ?, ?)", [(rank, *epoch) for epoch, rank in new.items()]
        )
        # All in one statement, as one epoch's new rank may be another's old one.
        self._writer.execute(
            "WITH moved (old, new) AS MATERIALIZED"
            " (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"
            " UPDATE records SET epoch = (SELECT new FROM moved WHERE old = epoch)"
            " WHERE epoch IN (SELECT old FROM moved)",
            (json.dumps(moves),),
        )
        self._known |= new
