"""The change stream: every key's latest change after a version, in version order, then live.

Rules
- What is told is complete and confirmed: up to a *bound*, the leader's `confirmed`, or a follower's, all
  that was written is in the map, or something newer of its key is. A node that was not brought in yet
  has no bound, and tells nothing.
- The node's own records are not told. A key that was deleted is told as its tombstone; but one who
  knows nothing yet is not told of keys that were gone before it came.
- *Where to resume.* That all up to V was told is not enough. A record up to V may be missing in the map
  that is read, since a newer write of its key, one that is not confirmed yet, has taken its place; if
  that write is then lost with its leader, the older record is back, and would be told to nobody who
  resumes after V. So V is a place to resume from only once all is confirmed that was in the map when it
  was read. It is never inside a write: those of a batch share a version.
- *Reset.* Tombstones that were purged are told to nobody. A reader that comes from before a purge may
  know keys that are gone for good: it is told to forget all, and then everything from the beginning.
  Those who read hold purges back, so that nobody is overtaken.
- A place beyond all that a leader has issued, and that no other leadership can have issued (see
  `Leader.confirm_read`), is none of this cluster's: reset. A follower can't know, and may be behind: it
  waits for a while, then sends the reader away.
- It ends, and says why, when the node stops or leads no more, and when the reader is too slow. The
  reader goes on elsewhere.

How it works. Nothing is queued for a reader: there is its place in the map, and a page at a time is read
from there once the last was taken. With nothing to read it waits for an event that there is anyway (an
acknowledgement, a batch), so writes cost nothing more where nobody watches; and it reads at most every
`LOOK_S`, so many writes cost one read.

What it does not know: HTTP, how messages are encoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import trio

from trikv.errors import InvalidParameter, NotReady, Overloaded, StorageFailed, TrikvError
from trikv.model.record import RESERVED_PREFIX, Record
from trikv.model.version import Version
from trikv.storage.store import Store, reaches_end

if TYPE_CHECKING:
    from trikv.node.node import Node

#: Readers of one node: each reads and encodes once more what is written.
MAX_WATCHERS = 100

#: A page: what is encoded and sent at a time.
PAGE_RECORDS = 500
PAGE_BYTES = 2**18

#: A reader is told what is new at most so often: many writes cost one look.
LOOK_S = 0.02

#: With nothing to tell, a dead connection is told from an idle one; the client gives up after 30 s.
HEARTBEAT_S = 5.0

#: A reader that takes longer for one page holds back purges, and is sent away.
SLOW_S = 30.0

#: A node that is behind its reader for so long sends it to another.
BEHIND_S = 10.0

#: While a takeover goes on there is no event that tells its end.
TAKEOVER_LOOK_S = 0.5

#: What a refused reader is told: by then another one may have left.
RETRY_AFTER_S = 5


class Change(NamedTuple):
    """A key's latest record. `resume`: all is told that one needs to go on from there."""

    record: Record
    resume: Version | None


class Reset(NamedTuple):
    """Forget what was told: everything follows anew."""

    reason: str


class Heartbeat(NamedTuple):
    """Still here."""

    resume: Version | None


class End(NamedTuple):
    """The last message: go on elsewhere."""

    code: str
    reason: str


Message = Change | Reset | Heartbeat | End


class Watches:
    """All who read changes from one node, and which tombstones they have yet to read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._needs: dict[Watch, Version | None] = {}

    def __len__(self) -> int:
        return len(self._needs)

    def check_room(self) -> None:
        """Raises Overloaded."""
        if len(self) >= MAX_WATCHERS:
            raise Overloaded(
                f"{MAX_WATCHERS} readers watch this node already", retry_after_s=RETRY_AFTER_S
            )

    @contextmanager
    def entered(self, watch: Watch) -> Iterator[None]:
        """It counts inside."""
        self.needs_from(watch, watch.known)
        try:
            yield
        finally:
            self._needs.pop(watch, None)
            self._keep()

    def needs_from(self, watch: Watch, version: Version | None) -> None:
        """The tombstones above this version it needs; None: none that is there yet."""
        self._needs[watch] = version
        self._keep()

    def _keep(self) -> None:
        needed = (version for version in self._needs.values() if version is not None)
        self._store.kept = min(needed, default=None)


class Watch:
    """What one reader of one node is told: `next` after `next`, until that is empty."""

    def __init__(self, node: Node, prefix: str = "", after: Version | None = None) -> None:
        """`after`: it knows all up to there. Without, it knows nothing."""
        self._node = node
        self._prefix = prefix
        self._place = after  # it has been told all up to here
        self._fresh_to: Version | None = None  # what was gone up to here it never knew
        self._resume = after
        self._told_resume = after
        self._last_told: Version | None = None
        self._unsure: tuple[Version, Version] | None = None  # a place, and what makes it a safe one
        self._ended = False
        self._given_at: float | None = None
        self._silent_since = self._behind_since = trio.current_time()
        self._read_at = -LOOK_S

    @property
    def known(self) -> Version | None:
        """Tombstones up to here it need not be told of; None: it knows nothing."""
        if self._place is None or self._fresh_to is None:
            return self._place or self._fresh_to
        return max(self._place, self._fresh_to)

    async def next(self) -> Sequence[Message]:
        """What comes next, to be sent together, as long as that takes; [] after the last."""
        if self._ended:
            return []
        messages = await self._next()
        self._given_at = self._silent_since = trio.current_time()
        self._ended = isinstance(messages[-1], End)
        for message in messages:
            if isinstance(message, Change | Heartbeat) and message.resume is not None:
                self._told_resume = message.resume
            if isinstance(message, Change):
                self._last_told = message.record.version
        return messages

    async def _next(self) -> Sequence[Message]:
        if self._given_at is not None and trio.current_time() - self._given_at > SLOW_S:
            return [End("slow_reader", f"this reader took more than {SLOW_S:g} s for one page")]
        while True:
            if (end := self._end()) is not None:
                return [end]
            try:
                messages = await self._look()
            except StorageFailed as failure:
                return [End(failure.code, failure.detail)]
            if messages:
                return messages
            if self._owes() or trio.current_time() >= self._silent_since + HEARTBEAT_S:
                return [Heartbeat(self._resume)]

    def _owes(self) -> bool:
        """Whether changes were told beyond where it knows to resume, and it could know better."""
        last, told = self._last_told, self._told_resume
        return last is not None and self._resume != told and (told is None or told < last)

    def _end(self) -> End | None:
        """Whether the node can tell no more."""
        if self._node.stopping.is_set():
            return End("stopping", "this node is stopping")
        leader = self._node.leader
        if leader is not None and leader.deposed is not None:
            return End("deposed", f"this node does not lead any more: {leader.deposed}")
        return None

    def _bound(self) -> Version | None:
        """Up to here all can be told; None: nothing."""
        source = self._node.follower or self._node.leader
        bound = None if source is None else source.confirmed
        # One that was just brought in may not have heard yet what is confirmed there.
        return None if bound is not None and bound < self._node.store.purged else bound

    async def _look(self) -> Sequence[Message]:
        """Read a page, or wait for something to read; what is to be told of it, which may be nothing."""
        bound, now = self._bound(), trio.current_time()
        behind = bound is not None and self._place is not None and bound < self._place
        if bound is None or not behind:
            self._behind_since = now
        elif now >= self._behind_since + BEHIND_S:
            return [End("behind", f"this node has come to {bound}, which is before {self._place}")]
        if behind and self._is_beyond_all() and await self._leads_for_sure():
            return [self._reset(f"{self._place} was issued by nobody who has led here")]
        if bound is None or behind or bound == self._place:
            await self._wait()
            return []
        return await self._read(bound)

    async def _wait(self) -> None:
        """Until there may be news, or it is time for a heartbeat."""
        node = self._node  # no checkpoint since the bound was looked at: no news is missed
        with trio.move_on_at(self._silent_since + HEARTBEAT_S):
            if node.follower is not None:
                await node.follower.moved()
            elif node.leader is not None:
                await node.leader.until_progress()
            else:
                with trio.move_on_after(TAKEOVER_LOOK_S):
                    await node.stopping.wait()
            await trio.sleep_until(self._read_at + LOOK_S)

    def _is_beyond_all(self) -> bool:
        """Whether this is the leader, and has not issued what the reader says it knows."""
        leader, place = self._node.leader, self._place
        if leader is None or place is None:
            return False
        return place > Version(leader.epoch, leader.issued_us)

    async def _leads_for_sure(self) -> bool:
        """Whether this leader knows that no other leadership had begun by now."""
        try:
            await self._node.require_leader().confirm_read(lambda: None, HEARTBEAT_S)
        except InvalidParameter:
            return True  # with quorum 0 nothing is promised, and there is nobody to ask
        except TrikvError:
            return False
        return True

    async def _read(self, bound: Version) -> Sequence[Message]:
        node, store = self._node, self._node.store
        if self._place is None:
            self._fresh_to = bound
            node.watches.needs_from(self, bound)
        page, newest = await node.scan(partial(_page, store, self._place))
        known = self.known
        if self._place is not None and known is not None and known < store.purged:
            return [self._reset("deletions that this reader was not told of are forgotten here")]
        shown = [record for record in page if record.version <= bound]
        end = len(shown) < len(page) or reaches_end(page, PAGE_RECORDS, PAGE_BYTES)
        if shown:  # else it has come too early by a moment, and the next one should not wait
            self._read_at = trio.current_time()
        place = self._place = bound if end else shown[-1].version
        node.watches.needs_from(self, self.known)
        sure = self._make_sure(place, newest)
        return self._changes([record for record in shown if self._is_told(record)], sure)

    def _make_sure(self, place: Version, newest: Version | None) -> bool:
        """Whether one can resume here by now; else it can once `newest` is confirmed."""
        bound = self._bound()
        if newest is None or (bound is not None and newest <= bound):
            self._resume, self._unsure = place, None
            return True
        if self._unsure is not None and bound is not None and self._unsure[1] <= bound:
            self._resume, self._unsure = self._unsure[0], None
        if self._unsure is None:
            self._unsure = place, newest
        return False

    def _is_told(self, record: Record) -> bool:
        if not record.key.startswith(self._prefix) or record.key.startswith(RESERVED_PREFIX):
            return False
        fresh = self._fresh_to is not None and record.version <= self._fresh_to
        return not (record.deleted and fresh)

    def _changes(self, told: Sequence[Record], sure: bool) -> Sequence[Change]:
        """With places to resume from, at the last change of a write."""
        if not told:
            return []
        changes = [Change(record, None) for record in told]
        if sure:
            for index, (record, following) in enumerate(pairwise(told)):
                if following.version > record.version:
                    changes[index] = Change(record, record.version)
            changes[-1] = Change(told[-1], self._resume)  # up to where there was no more
        elif self._resume != self._told_resume:
            changes[0] = Change(told[0], self._resume)  # of an earlier page, all told by now
        return changes

    def _reset(self, reason: str) -> Reset:
        self._place = self._fresh_to = self._unsure = None
        self._resume = self._told_resume = self._last_told = None
        self._node.watches.needs_from(self, None)
        return Reset(reason)


def _page(store: Store, after: Version | None) -> tuple[Sequence[Record], Version | None]:
    """A page of the map, and the newest version in it by then."""
    page = store.page_by_version(after, PAGE_RECORDS, PAGE_BYTES)
    return page, store.newest_version()


def check_watchable(node: Node) -> None:
    """Raises NotReady, Overloaded."""
    if node.stopping.is_set():
        raise NotReady("this node is stopping", waiting_for=[])
    if node.leader is not None:
        node.leader.check_leads()
    node.watches.check_room()
