"""The file that a store is in: opened, locked, made where it is new; three connections, one log.

Rules
- One node at a time has a directory open.
- A file that is not ours, or of another format, is refused.
- With durability `fsync` a commit returns only once the write-ahead log is on disk (`synchronous=FULL`);
  with `os` the operating system writes it when it likes, but for what is committed inside `synced`.
- The write-ahead log is written back into the database (a *checkpoint*) between transactions, by
  `checkpoint`, once about `CHECKPOINT_PAGES` pages are in it: it takes as long as many commits do, and
  whoever commits decides where it runs. Should the log grow much longer, SQLite does it by itself.
- Where commits wait for the disk the log has that length from the start, so that they overwrite it.
- What SQLite keeps aside while it works lies beside the database, not in a directory for temporary
  files: there may be none, or a small one in memory, and a takeover sets aside a whole database.
- A database that was removed or replaced under this process commits nothing more: see `check_in_place`.

How it works. There are three connections: the committer's, one for point reads, one for pages, which may
run in another thread than the event loop's. `:memory:` has one connection for all three, so it must be
driven from one thread.

SQLite is that of APSW: the same wherever trikv runs, and a newer one than systems bring for Python's own
module. No other may open the files within this process: once it closes them, the locks of both are gone.

What it does not know: what is in the tables (see `store`), threads, trio.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import apsw

from trikv.storage.data_files import OpenFiles

Durability = Literal["fsync", "os"]

FILE_NAME = "trikv.sqlite3"
LOCK_NAME = "lock"  # a database too, and empty: SQLite's locks work alike on every system
APPLICATION_ID = 0x74726B76  # "trkv": tells our files from other programs'
FORMAT = 3

#: What SQLite raises. APSW adds what Python says of a text that is spoilt: it is no UTF-8.
DatabaseFault = (apsw.Error, UnicodeDecodeError)

#: Pages in the write-ahead log that make a checkpoint due: what is written often is written back once.
CHECKPOINT_PAGES = 4_000

#: How many times as much as the log must be free on a disk, or the log grows as it is written.
SPARE_DISK = 4

#: SQLite's default size of a page.
PAGE_BYTES = 4_096

_FIXED_PAGES = 2  # what a transaction writes beside its records
_RESERVED_BYTES = 2**20  # at a time
_LOG_PAGE_BYTES = PAGE_BYTES + 24  # with the header that it has in the log
_MANY_PAGES = 200  # more than that may be fewer in truth: the database may have no more

#: Of each connection: SQLite's own 2 MiB are too few for 10,000 small records.
_CACHE_KIB = 16 * 1024


class Database:
    """The connections to one file, or to memory where the path is None.

    Raises apsw.Error, OSError if it can't be opened; a new one gets its tables from `schema`, in SQL.
    """

    def __init__(self, path: Path | None, durability: Durability, schema: str) -> None:
        self.path = path
        self._waits_for_disk = durability == "fsync"
        self._log_pages = 0  # about so many, at most, since the last checkpoint
        self._lock = None if path is None else _lock(path.with_name(LOCK_NAME))
        self._connections: list[apsw.Connection] = []
        try:
            self.writer = self._connect(durability, schema)
            self.reader = self.writer if path is None else self._connect(durability, schema)
            self.pager = self.writer if path is None else self._connect(durability, schema)
            files = () if path is None else (path, log_of(path), path.with_name(LOCK_NAME))
            self._files = OpenFiles(files)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        if self._lock is not None:
            self._lock.close()

    def gone(self) -> str | None:
        """The path of a file that was removed or replaced since it was opened; None: there is none."""
        return self._files.gone()

    def check_in_place(self) -> None:
        """Raises apsw.ReadOnlyError where commits would go to a file that nobody finds again."""
        if (path := self._files.gone()) is not None:
            raise apsw.ReadOnlyError(f"{path} was removed or replaced while this node had it open")

    def _connect(self, durability: Durability, schema: str) -> apsw.Connection:
        connection = apsw.Connection(":memory:" if self.path is None else str(self.path))
        connection.set_busy_timeout(5_000)
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)  # else it plans anew for each key
        self._connections.append(connection)
        if self.path is not None:
            where = str(self.path.parent.resolve()).replace("'", "''")
            connection.execute(f"PRAGMA temp_store_directory = '{where}'")
        new = self._is_new(connection)  # first: the mode is written into the file
        connection.execute("PRAGMA journal_mode = WAL")
        level = "FULL" if durability == "fsync" else "NORMAL"
        connection.execute(f"PRAGMA synchronous = {level}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {2 * CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: else data stays in the drive
        if new:
            connection.execute(
                f"BEGIN IMMEDIATE; {schema} PRAGMA application_id = {APPLICATION_ID};"
                f"PRAGMA user_version = {FORMAT}; COMMIT;"
            )
        return connection

    def _is_new(self, connection: apsw.Connection) -> bool:
        """Whether the database is empty. Raises apsw.NotADBError if it is not ours."""
        application_id = connection.execute("PRAGMA application_id").get
        user_version = connection.execute("PRAGMA user_version").get
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
        if (application_id, user_version, tables) == (0, 0, 0):
            return True
        if application_id != APPLICATION_ID:
            raise apsw.NotADBError(f"{self.path} belongs to another program")
        if user_version != FORMAT:
            raise apsw.NotADBError(
                f"{self.path} has format {user_version}, this trikv reads format {FORMAT}"
            )
        return False

    @contextmanager
    def synced(self) -> Iterator[None]:
        """Inside, a commit waits for the disk whatever the durability. Not inside a transaction."""
        if not self._waits_for_disk:
            self.writer.execute("PRAGMA synchronous = FULL")
        try:
            yield
        finally:
            if not self._waits_for_disk:
                self.writer.execute("PRAGMA synchronous = NORMAL")

    # -- the log ------------------------------------------------------------------------------------

    def reserve(self) -> None:
        """Give the log its length before it is written, where commits wait for the disk."""
        if self._waits_for_disk and self.path is not None:
            _reserve(log_of(self.path), CHECKPOINT_PAGES * _LOG_PAGE_BYTES)

    def wrote(self, pages: int) -> None:
        """A transaction has changed so many pages, if no two of its changes were on the same."""
        if pages > _MANY_PAGES:
            pages = min(pages, self.writer.execute("PRAGMA page_count").get)
        self._log_pages += pages

    def committed(self) -> None:
        """A transaction was committed."""
        self._log_pages += _FIXED_PAGES

    def checkpoint_is_due(self) -> bool:
        """Whether the log has grown so long that it should be written back."""
        return self._log_pages >= CHECKPOINT_PAGES and self.path is not None

    def checkpoint(self) -> None:
        """Write the log back into the database: not inside a transaction.

        Where it fails nothing is lost, as all of it is in the log: it is tried again later.
        """
        self._log_pages = 0
        with suppress(apsw.Error):
            _, pages, written = self.writer.execute("PRAGMA wal_checkpoint(PASSIVE)").get
            self._log_pages = pages - written  # all of it, but where somebody was reading


def log_of(path: Path) -> Path:
    """Where SQLite keeps a database's write-ahead log."""
    return path.with_name(f"{path.name}-wal")


def _lock(path: Path) -> apsw.Connection:
    """Held while a node lives: two in one directory would undo each other's promises."""
    connection = apsw.Connection(str(path))
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except apsw.Error as error:
        connection.close()
        if isinstance(error, apsw.BusyError):
            raise apsw.BusyError("another node is using it") from None
        raise
    return connection


def _reserve(log: Path, size: int) -> None:
    """Make the write-ahead log so long.

    Where a file grows, each fsync has to bring its new length to the disk as well, which takes as long
    as what is written. What lies behind the log's end is nothing to SQLite, as it has no checksum.
    """
    with suppress(OSError), log.open("r+b") as file:
        before = file.seek(0, os.SEEK_END)
        if shutil.disk_usage(log).free < SPARE_DISK * size:
            return
        try:
            for _ in range(before, size, _RESERVED_BYTES):
                file.write(bytes(_RESERVED_BYTES))
            file.flush()
            os.fsync(file.fileno())
        except OSError:  # there is less room than it seemed
            os.truncate(log, before)
