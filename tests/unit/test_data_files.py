"""A node's files: a commit goes to the file at its path or nowhere, and nobody else may read them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from tests.unit.stored import held, merge, record
from trikv.storage.data_files import OpenFiles, readable_by_others
from trikv.storage.database import FILE_NAME, LOCK_NAME
from trikv.storage.store import Store

needs_posix = pytest.mark.skipif(os.name == "nt", reason="open files cannot be removed there")


@needs_posix
@pytest.mark.parametrize("name", [FILE_NAME, f"{FILE_NAME}-wal", LOCK_NAME])
def test_nothing_is_committed_once_a_file_of_the_database_is_gone(
    tmp_path: Path, name: str
) -> None:
    with closing(Store.open(tmp_path)) as store:
        merge(store, [record("a", 1)])
        assert store.database.gone() is None
        (tmp_path / name).rename(tmp_path / "elsewhere")
        assert store.database.gone() is not None
        with pytest.raises(apsw.ReadOnlyError, match=rf"{name} was removed or replaced"):
            merge(store, [record("b", 2)])
        assert held(store) == [record("a", 1)]
        (tmp_path / "elsewhere").rename(tmp_path / name)
        assert store.database.gone() is None
        merge(store, [record("b", 2)])
        assert held(store) == [record("a", 1), record("b", 2)]


@needs_posix
def test_a_copy_put_in_the_place_of_an_open_database_is_another_file(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        merge(store, [record("a", 1)])
        shutil.copy(tmp_path / FILE_NAME, tmp_path / "copy")
        (tmp_path / "copy").replace(tmp_path / FILE_NAME)
        with pytest.raises(apsw.ReadOnlyError, match="removed or replaced"):
            merge(store, [record("b", 2)])


@needs_posix
def test_a_removed_directory_is_noticed(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with closing(Store.open(directory)) as store:
        shutil.rmtree(directory)
        assert store.database.gone() is not None
        assert store.database.gone() == str(directory / FILE_NAME)


def test_a_store_in_memory_has_no_file_that_could_be_gone() -> None:
    with closing(Store.open(None)) as store:
        assert store.database.gone() is None


def test_a_directory_that_cannot_be_looked_at_is_no_removal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    files = OpenFiles([tmp_path / "file"])

    def refused(path: str) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(os, "stat", refused)
    assert files.gone() is None


_STAGE = """
import apsw, os, sys
from pathlib import Path
from trikv.storage.store import Store
store = Store.open(Path(sys.argv[1]))
with store.transaction():
    store.begin_staging()
rows = ((f"{i:06}", "x" * 1000, 1, "a", i) for i in range(5000))
store._writer.execute("PRAGMA temp.cache_size = 10")
store._writer.executemany("INSERT INTO temp.staged VALUES (?, ?, ?, ?, ?)", rows)
opened = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
print(*{os.path.dirname(path) for path in opened if path.endswith(" (deleted)")})
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_what_sqlite_keeps_aside_lies_beside_the_data(tmp_path: Path) -> None:
    directory = tmp_path / "it's"
    ran = [sys.executable, "-c", _STAGE, str(directory)]
    said = subprocess.run(ran, capture_output=True, text=True, check=False)
    assert said.stdout.strip() == str(directory), said.stderr


@needs_posix
def test_files_that_others_may_use_are_told_with_their_modes(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    private, public = tmp_path / "private", tmp_path / "public"
    for path, mode in ((private, 0o600), (public, 0o640)):
        path.touch()
        path.chmod(mode)
    assert readable_by_others(tmp_path) == {str(public): "0640"}
    tmp_path.chmod(0o755)
    assert readable_by_others(tmp_path) == {str(tmp_path): "0755", str(public): "0640"}
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")  # as editors leave them
    assert readable_by_others(tmp_path) == {str(tmp_path): "0755", str(public): "0640"}


def test_a_file_that_goes_while_it_is_looked_at_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(Path, "iterdir", lambda path: iter([path / "was-here-a-moment-ago"]))
    assert readable_by_others(tmp_path) == {}
