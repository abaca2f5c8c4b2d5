"""The file that a store is in: who may open it, and how its log grows."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import apsw
import pytest

from tests.unit.stored import held, merge, record
from trikv.errors import SettingError
from trikv.storage.database import (
    APPLICATION_ID,
    CHECKPOINT_PAGES,
    FILE_NAME,
    FORMAT,
    LOCK_NAME,
    SPARE_DISK,
    log_of,
)
from trikv.storage.store import Store

# -- opening --------------------------------------------------------------------------------------------


def test_the_directory_is_made_if_it_is_missing(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    Store.open(deep).close()
    assert (deep / FILE_NAME).exists()


def _in_a_file(directory: Path) -> Path:
    (directory / "file").write_text("not a directory")
    return directory / "file"


def _below_a_file(directory: Path) -> Path:
    return _in_a_file(directory) / "below"


def _directory_in_the_way(directory: Path) -> Path:
    (directory / FILE_NAME).mkdir()
    return directory


def _garbage(directory: Path) -> Path:
    (directory / FILE_NAME).write_bytes(b"this is not a database" * 1000)
    return directory


def _garbage_with_a_good_head(directory: Path) -> Path:
    Store.open(directory).close()
    file = directory / FILE_NAME
    file.write_bytes(file.read_bytes()[:100] + b"\xff" * 8000)
    return directory


def _cut_off(directory: Path) -> Path:
    Store.open(directory).close()
    file = directory / FILE_NAME
    file.write_bytes(file.read_bytes()[:4096])
    return directory


def _a_bit_flipped_in_the_schema(directory: Path) -> Path:
    Store.open(directory).close()
    file = directory / FILE_NAME
    file.write_bytes(file.read_bytes().replace(b"    value TEXT", b"    value UEXT"))
    return directory


def _facts_that_are_no_text(directory: Path) -> Path:
    Store.open(directory).close()
    file = directory / FILE_NAME
    with closing(apsw.Connection(str(file))) as other:
        other.execute("INSERT INTO facts VALUES ('promised', 'SPOILED')")
    content = file.read_bytes()
    at = content.index(b"promisedSPOILED")
    # In front of the two lie their types: 13 + 2 * length is a text, one less is a blob.
    assert content[at - 1] == 13 + 2 * len(b"SPOILED")
    file.write_bytes(content[: at - 1] + bytes([content[at - 1] - 1]) + content[at:])
    return directory


def _facts_that_contradict_each_other(directory: Path) -> Path:
    Store.open(directory).close()
    with closing(apsw.Connection(str(directory / FILE_NAME))) as other:
        other.execute("INSERT INTO facts VALUES ('established', '1.a')")
    return directory


def _a_fact_that_is_missing(directory: Path) -> Path:
    Store.open(directory).close()
    with closing(apsw.Connection(str(directory / FILE_NAME))) as other:
        other.execute("DELETE FROM facts WHERE name = 'purged'")
    return directory


def _garbage_for_a_lock(directory: Path) -> Path:
    (directory / LOCK_NAME).write_bytes(b"this is not a database" * 1000)
    return directory


def _another_programs(directory: Path) -> Path:
    with closing(apsw.Connection(str(directory / FILE_NAME))) as other:
        other.execute("CREATE TABLE records (id INTEGER)")
    return directory


def _a_later_format(directory: Path) -> Path:
    Store.open(directory).close()
    with closing(apsw.Connection(str(directory / FILE_NAME))) as other:
        other.execute(f"PRAGMA user_version = {FORMAT + 1}")
    return directory


@pytest.mark.parametrize(
    "make",
    [
        _in_a_file,
        _below_a_file,
        _directory_in_the_way,
        _garbage,
        _garbage_with_a_good_head,
        _cut_off,
        _a_bit_flipped_in_the_schema,
        _facts_that_are_no_text,
        _facts_that_contradict_each_other,
        _a_fact_that_is_missing,
        _garbage_for_a_lock,
        _another_programs,
        _a_later_format,
    ],
)
def test_a_directory_that_cannot_be_used_is_a_setting_error_that_says_why(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    directory = make(tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(SettingError) as refusal:
        Store.open(directory).close()
    said = str(refusal.value)
    assert said.startswith(f"DATA_DIR={str(directory)!r}: expected ")
    assert len(said.splitlines()) == 1
    for file, content in before.items():
        assert file.read_bytes() == content


def test_two_nodes_do_not_share_a_directory(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        with pytest.raises(SettingError, match=r"^DATA_DIR=.*another node is using it"):
            Store.open(tmp_path)
        merge(store, [record("a", 1)])
    with closing(Store.open(tmp_path)) as store:
        assert held(store) == [record("a", 1)]


def test_a_file_of_ours_says_so() -> None:
    with TemporaryDirectory() as directory:
        Store.open(Path(directory)).close()
        with closing(apsw.Connection(str(Path(directory) / FILE_NAME))) as other:
            assert other.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
            assert other.execute("PRAGMA user_version").fetchone() == (FORMAT,)
            assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_while_a_node_runs_its_file_can_be_read_with_another_sqlite(tmp_path: Path) -> None:
    # In another process: in this one, closing the file would drop the locks of both.
    look = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute(sys.argv[2]))"
    query = "SELECT key, value, number, timestamp_us FROM records JOIN epochs ON rank = epoch"
    with closing(Store.open(tmp_path)) as store:
        merge(store, [record("a", 1)])
        ran = [sys.executable, "-c", look, str(tmp_path / FILE_NAME), query]
        assert subprocess.run(ran, capture_output=True, check=True).stdout.split() == [
            b"('a',",
            b"'1',",
            b"1,",
            b"1)",
        ]
        merge(store, [record("b", 2)])
    with closing(Store.open(tmp_path)) as store:
        assert held(store) == [record("a", 1), record("b", 2)]


@pytest.mark.parametrize(("durability", "synchronous"), [("fsync", 2), ("os", 1)])
def test_fsync_means_full_synchronous_mode(
    tmp_path: Path, durability: Any, synchronous: int
) -> None:
    with closing(Store.open(tmp_path, durability)) as store:
        assert store._writer.execute("PRAGMA synchronous").fetchone() == (synchronous,)
        assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_lock_that_is_no_database_is_told_and_its_file_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LOCK_NAME).write_bytes(b"another program's lock" * 100)
    opened: list[apsw.Connection] = []

    class Noted(apsw.Connection):
        def __init__(self, path: str) -> None:
            super().__init__(path)
            opened.append(self)

    monkeypatch.setattr(apsw, "Connection", Noted)
    with pytest.raises(SettingError, match=r"^DATA_DIR=.*file is not a database"):
        Store.open(tmp_path)
    for connection in opened:
        with pytest.raises(apsw.ConnectionClosedError, match="closed"):
            connection.execute("SELECT 1")
    assert len(opened) == 1


# -- the log --------------------------------------------------------------------------------------------


def log_in(directory: Path) -> Path:
    return log_of(directory / FILE_NAME)


def test_the_log_has_its_length_from_the_start_and_keeps_it(tmp_path: Path) -> None:
    for _ in range(2):
        with closing(Store.open(tmp_path)) as store:
            length = log_in(tmp_path).stat().st_size
            assert CHECKPOINT_PAGES * 4096 < length < CHECKPOINT_PAGES * 4096 * 1.1
            for timestamp_us in range(1, CHECKPOINT_PAGES // 4):
                merge(store, [record("k", timestamp_us)])
            store.database.checkpoint()
            merge(store, [record("l", 1)])
            assert log_in(tmp_path).stat().st_size == length
    with closing(Store.open(tmp_path / "os", "os")):
        assert log_in(tmp_path / "os").stat().st_size < 10**6


def test_what_lies_behind_the_logs_end_is_not_taken_for_records(tmp_path: Path) -> None:
    """After a crash, which leaves the log as it was, again and again."""
    before = tmp_path / "0"
    for crashes in range(5):
        with closing(Store.open(before)) as store:
            assert [one.key for one in store.page_by_key("", 99, 9_999)] == [
                f"{i}" for i in range(crashes)
            ]
            merge(store, [record(f"{crashes}", 1)])
            after = tmp_path / f"{crashes + 1}"
            after.mkdir()
            for name in (FILE_NAME, f"{FILE_NAME}-wal"):
                shutil.copyfile(before / name, after / name)
        before = after


@pytest.mark.parametrize("full", ["nearly", "while it is reserved"])
def test_without_room_the_log_is_no_longer_than_it_must_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    if full == "nearly":
        usage = shutil.disk_usage(tmp_path)._replace(free=SPARE_DISK * CHECKPOINT_PAGES * 4096)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    else:

        def no_room(_: int) -> None:
            raise OSError(errno.ENOSPC, "no space left on device")

        monkeypatch.setattr(os, "fsync", no_room)
    with closing(Store.open(tmp_path)) as store:
        assert log_in(tmp_path).stat().st_size < 10**6
        merge(store, [record("k", 1)])
        assert store.get("k") == record("k", 1)


@pytest.mark.parametrize(("batch", "size"), [(1, 100), (20, 100), (1, 50_000), (1_000, 100)])
def test_a_checkpoint_is_due_before_the_log_grows_long_and_empties_it(
    on_disk: Store, batch: int, size: int
) -> None:
    keys = random.Random(7)
    timestamp_us = 0
    for _ in range(3):
        while not on_disk.database.checkpoint_is_due():
            timestamp_us += 1
            key = keys.randrange(100_000)
            value = f'"{"x" * size}"'
            some = [record(f"{key + 7 * i}", timestamp_us, value) for i in range(batch)]
            merge(on_disk, some)
        assert on_disk.database.path is not None
        length = log_of(on_disk.database.path).stat().st_size
        assert length < 3 * CHECKPOINT_PAGES * 4096
        on_disk.database.checkpoint()
        assert not on_disk.database.checkpoint_is_due()
        merge(on_disk, [record("k", timestamp_us)])
        with closing(apsw.Connection(str(on_disk.database.path))) as other:
            _, logged, written_back = other.execute("PRAGMA wal_checkpoint(PASSIVE)").get
        assert logged == written_back < 10  # it began again from its start


def test_a_checkpoint_that_is_held_back_loses_nothing_and_is_made_up_for(
    on_disk: Store, tmp_path: Path
) -> None:
    some = [record(f"k{i:04}", i) for i in range(CHECKPOINT_PAGES)]
    with closing(apsw.Connection(str(tmp_path / FILE_NAME))) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM records").fetchall()  # it sees the log as it is now
        merge(on_disk, some)
        while not on_disk.database.checkpoint_is_due():
            merge(on_disk, some[:100])
        on_disk.database.checkpoint()
        assert not on_disk.database.checkpoint_is_due()
        assert held(on_disk) == some
        merge(on_disk, [record("k0000", CHECKPOINT_PAGES)])
    on_disk.database.checkpoint()
    with closing(apsw.Connection(str(tmp_path / FILE_NAME))) as other:
        _, logged, written_back = other.execute("PRAGMA wal_checkpoint(PASSIVE)").get
    assert logged == written_back
    with on_disk.transaction():
        on_disk.database.checkpoint()  # SQLite refuses it inside a transaction


def test_a_store_in_memory_has_no_log(memory: Store) -> None:
    for _ in range(CHECKPOINT_PAGES // 100):
        merge(memory, [record(f"k{i:04}", i) for i in range(100)])
    assert not memory.database.checkpoint_is_due()
