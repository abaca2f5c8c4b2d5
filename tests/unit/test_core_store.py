"""A store whose database ends a transaction by itself, or whose lock is no lock."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from trikv.store import Store
from trikv.version import Epoch, Record, Version


def record(key: str) -> Record:
    return Record(key, "1", Version(Epoch(1, "a"), 1))


def test_a_transaction_that_sqlite_has_ended_by_itself_fails_with_what_sqlite_said() -> None:
    # As it does on a full disk, or out of memory: then there is nothing left to roll back.
    with closing(Store.open(None)) as store:
        store._writer.execute(
            "CREATE TEMP TRIGGER full BEFORE INSERT ON records WHEN new.key = 'b'"
            " BEGIN SELECT RAISE(ROLLBACK, 'database or disk is full'); END"
        )
        before = store.state

        def fill() -> None:
            with store.transaction():
                store.set_state(before._replace(node_id="n1"))
                store.merge([record("a"), record("b")])

        with pytest.raises(sqlite3.Error, match=r"^database or disk is full$"):
            fill()
        assert (store.get("a"), store.state) == (None, before)
        with store.transaction():
            store.merge([record("a")])
        assert store.get("a") == record("a")
