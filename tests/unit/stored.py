"""Records, and stores that hold them."""

from __future__ import annotations

from collections.abc import Iterable

from trikv.model.record import Record, entries_of
from trikv.model.version import Epoch, Version
from trikv.storage.store import Store

EPOCH = Epoch(1, "a")


def record(key: str, timestamp_us: int, value: str = "1") -> Record:
    return Record(key, value, Version(EPOCH, timestamp_us))


def merge(store: Store, some: Iterable[Record]) -> None:
    with store.transaction():
        store.merge(entries_of(some))


def spoil_text(store: Store) -> None:
    """The value of `k` is no UTF-8: as a disk may leave it."""
    merge(store, [record("k", 1)])
    store._writer.execute("UPDATE records SET value = CAST(x'22a222' AS TEXT) WHERE key = 'k'")


def held(store: Store) -> list[Record]:
    """All that a store holds, in key order."""
    return sorted(store.page_by_version(None, 10**6, 10**9))
