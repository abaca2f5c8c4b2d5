"""A disk that can lose what was not synced, fill up, and fail.

`SimulatedStore` is the real store, in memory. After each of its commits the disk takes an image of the
database. With `synchronous=FULL`, which is asked of SQLite at each commit and not of the settings, that
image is on the disk when the commit returns. Else it is *unsynced*: a loss of power leaves what was
synced last, or any one of the later commits: a write-ahead log loses its end and nothing before it.

A failed fsync is as SQLite has it: the commit is refused and rolled back, and yet its frames may be in
the log. If the power is lost before the next commit, it may be there after all: a *phantom*.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import apsw

from trikv.model.node_state import NodeState
from trikv.storage.database import Durability
from trikv.storage.store import Store

FSYNC_LEVEL = 2  # PRAGMA synchronous = FULL

#: Of so many unsynced commits the oldest has been written by the system by itself.
MAX_UNSYNCED = 50


class Disk:
    """One node's disk: what a start finds on it, and what ails it."""

    def __init__(self) -> None:
        self.image: bytes | None = None
        """What is on it for certain; None: it is empty."""
        self.unsynced: list[bytes] = []
        self.phantom: bytes | None = None
        self.full = False
        self.failing = False
        """Each commit fails when it is synced."""
        self.slow_s = 0.0
        """How long it takes at most, if that is longer than the others' disks take."""
        self.watched: Callable[[NodeState, NodeState], None] | None = None
        """Is told what a node knew of itself before and after a commit that has changed it."""
        self.copy: bytes | None = None
        """A copy of its image, for `put_back`."""

    def committed(self, image: bytes, *, synced: bool) -> None:
        self.phantom = None
        if synced:
            self.image = image
            self.unsynced.clear()
        else:
            self.unsynced.append(image)
            if len(self.unsynced) > MAX_UNSYNCED:
                self.image = self.unsynced.pop(0)

    def power_lost(self, rng: random.Random) -> None:
        """What was not synced may be gone, what was refused may be there."""
        phantoms = [self.phantom] if self.phantom is not None else []
        self.image = rng.choice([self.image, *self.unsynced, *phantoms])
        self.phantom = None
        self.unsynced.clear()

    def write_back(self) -> None:
        """The system writes, by itself, what it was given."""
        if self.unsynced:
            self.image = self.unsynced[-1]
            self.unsynced.clear()

    def wipe(self) -> None:
        self.image = self.phantom = None
        self.unsynced.clear()

    def put_back(self) -> None:
        """What is on it is that copy."""
        self.wipe()
        self.image = self.copy


def copied_state(image: bytes) -> NodeState:
    """What the node of an image knows of itself."""
    disk = Disk()
    disk.image = image
    with closing(SimulatedStore(disk)) as store:
        return store.state


class SimulatedStore(Store):
    """A store as a start finds it on a disk. Once frozen it changes nothing any more."""

    def __init__(self, disk: Disk, durability: Durability = "fsync") -> None:
        super().__init__(None, durability)
        self._disk = disk
        self.frozen = False
        if disk.image is not None:
            self._restore(disk.image)

    def _restore(self, image: bytes) -> None:
        with closing(apsw.Connection(":memory:")) as source:
            source.deserialize("main", image)
            with self._writer.backup("main", source, "main") as backup:
                backup.step()
        self._load()

    @contextmanager
    def transaction(self, *, synced: bool = False) -> Iterator[None]:
        if self.frozen:
            raise apsw.ReadOnlyError("this disk belongs to a later start")
        changes, before = self._writer.total_changes(), self.state
        with super().transaction(synced=synced):
            yield
            on_disk = self._writer.execute("PRAGMA synchronous").get >= FSYNC_LEVEL
            changed = self._writer.total_changes() > changes
            if changed and self._disk.full:
                raise apsw.FullError("database or disk is full")
            if changed and self._disk.failing:
                self._disk.phantom = self._image()
                raise apsw.IOError("disk I/O error")
        if changed and not self._writer.in_transaction:
            self._disk.committed(self._image(), synced=on_disk)
            if self._disk.watched is not None and self.state != before:
                self._disk.watched(before, self.state)

    def _image(self) -> bytes:
        image = self._writer.serialize("main")
        assert image is not None  # it has tables
        return image

    def close(self) -> None:
        """Once closed it is looked at by the tests yet, and changes nothing any more."""
        if not self.frozen:
            self._disk.write_back()  # a close syncs, too
            self.frozen = True
