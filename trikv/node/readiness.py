"""Why a node cannot do its work at the moment.

    its disk     the last commit failed, or one does not end; or its files are not there any more
    its leader   a follower does not hear it, or was not brought in its state yet
    its links    a leader has too few live ones, or does not lead yet

A commit that failed makes the node not ready until one succeeds again. With no traffic nobody would try,
so `DiskProbe` commits something small every `PROBE_S` for as long as it fails. A small commit may still
fit on a disk on which others do not: a disk that was full must also have room for a full batch.

What it does not know: HTTP, who asks.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

import apsw
import trio

from trikv.errors import NotReady, StorageFailed
from trikv.protocol.messages import MAX_BATCH_BYTES
from trikv.storage.group_commit import Committer, RunBlocking
from trikv.storage.store import Store

if TYPE_CHECKING:
    from trikv.node.node import Node

#: How often a disk that refuses commits is tried again.
PROBE_S = 1.0

#: A disk that was full must have so much free again: the largest batch fits.
ROOM_BYTES = MAX_BATCH_BYTES

#: A commit that takes longer makes the node not ready: its disk hangs.
COMMIT_S = 5.0

#: A follower that hears nothing for so long, five heartbeats, has lost its leader.
HEARD_S = 5.0


def reasons(node: Node) -> list[str]:
    """What the node waits for, in words; [] if it can do its work."""
    return [*_disk(node), *_role(node)]


def _disk(node: Node) -> list[str]:
    if (path := node.store.database.gone()) is not None:
        return [f"{path}, which was removed or replaced while the node had it open"]
    found = [] if node.disk.problem is None else [node.disk.problem]
    since = node.committer.busy_since
    if since is not None and (took_s := trio.current_time() - since) > COMMIT_S:
        found.append(f"its disk: a commit has taken {took_s:.0f} s so far")
    return found


def _role(node: Node) -> list[str]:
    follower = node.follower
    if follower is not None:
        if follower.leader is None:
            return ["a leader"]
        name = follower.leader.node_id
        if (silent_s := follower.silent_s) > HEARD_S:
            return [f"{name}, which has not been heard for {silent_s:.0f} s"]
        return [] if follower.ready else [f"{name} to bring it in"]
    if node.leadership is None:
        return [] if node.takeover is None else node.takeover.waiting_for
    leader = node.leadership.leader
    if leader.deposed is not None:
        return [f"a new start as a follower: {leader.deposed}"]
    if leader.enough(leader.live_followers):
        return []
    return [f"live links: {leader.live_links} of the {leader.write_quorum} that it needs"]


class DiskProbe:
    """Whether commits work, tried again and again once one has failed."""

    def __init__(self, committer: Committer, store: Store, run_blocking: RunBlocking) -> None:
        self.problem: str | None = None
        """What is wanted of the disk; None: the last commit succeeded."""
        self._committer = committer
        self._store = store
        self._run_blocking = run_blocking
        self._full = False
        self._failed = trio.Event()
        committer.failed = self._note

    def _note(self, error: Exception) -> None:
        """A commit failed."""
        full = isinstance(error, apsw.FullError)
        wanted = "room on its disk" if full else "a disk that takes its commits"
        self.problem = f"{wanted}: the last commit failed: {error}"
        self._full = full
        self._failed.set()

    async def run(self) -> None:
        """Probe while commits fail. Runs until it is cancelled."""
        while True:
            await self._failed.wait()
            while self.problem is not None:
                await trio.sleep(PROBE_S)
                self._failed = trio.Event()
                with suppress(StorageFailed, NotReady, OSError):  # then it is tried again
                    await self._probe()

    async def _probe(self) -> None:
        """Commit something small. Raises StorageFailed, NotReady, OSError."""
        await self._committer.commit(Store.rewrite_state)
        free = await self._run_blocking(self._free_bytes) if self._full else None
        if self._failed.is_set():  # another one failed meanwhile
            return
        self.problem = None
        if free is not None and free < ROOM_BYTES:
            self.problem = f"room on its disk: {free} bytes are free, of {ROOM_BYTES} for a batch"

    def _free_bytes(self) -> int | None:
        """What is free on the disk; None for a store in memory. Raises OSError."""
        path = self._store.database.path
        return None if path is None else shutil.disk_usage(path.parent).free
