"""Group commit: many waiting, one transaction, one fsync.

Rules
- It is told that a change is committed only after the transaction that holds it is, with the durability
  that the store was opened with. Nobody else changes the store.
- Changes are applied in the order in which they were submitted; what is to follow a change (`then`)
  follows it even if whoever wanted it has left meanwhile.
- A change may refuse (raise a TrikvError) as long as it has written nothing yet; then only its own
  caller hears of it.
- If a group cannot be committed, each of its changes is tried alone, so that one that does not fit on
  a full disk fails nobody else. One that fails alone raises StorageFailed to its caller.

How it works. One task takes the first change that waits, drains what else has queued up meanwhile, and
runs them in one transaction in a worker thread. While it waits for the disk, the next group gathers:
the slower the disk, the larger the groups. No timer is needed.

A thread takes a commit to the disk and its outcome back, for more than a quick disk takes itself: while
it is quick (see `DiskWatch`) commits run here and now. Then one that expects no company, such as a
follower's batch, is not even handed to the task.

Every now and then the database wants a checkpoint: it runs between two groups, in the thread whatever
the disk is like. It says nothing of how quick a commit is.

How blocking work is run is a parameter (`RunBlocking`): simulated time and threads do not mix.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import trio

from trikv import log
from trikv.counters import CommitTally
from trikv.errors import NotReady, StorageFailed, TrikvError
from trikv.storage.database import DatabaseFault
from trikv.storage.store import Store

T = TypeVar("T")

#: A change is a function of the store, run inside the transaction.
Change = Callable[[Store], T]

#: Changes in one transaction. Beyond a few hundred an fsync is paid off already.
MAX_GROUP = 512

#: A disk that commits wait for no longer, in the mean, is quick: a thread would cost a good part of it.
QUICK_S = 0.003

#: Commits that take longer in all belong in a thread, whatever takes their time.
LONG_S = 0.010

#: How much of these means the last commit makes up: one that took ten times as long is enough.
LAST_SHARE = 0.1

#: What a disk is taken for that has done nothing yet: after some twenty quick commits it is trusted.
UNKNOWN_S = 0.030


#: A disk that has refused nothing for so long works again: on a nearly full one small changes fit, and
#: large ones between them do not.
RECOVERED_S = 10.0


class RunBlocking(Protocol):
    async def __call__(self, work: Callable[[], T]) -> T: ...


async def run_in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a worker thread. Not cancellable: a transaction ends by itself."""
    return await trio.to_thread.run_sync(work)


async def run_inline(work: Callable[[], T]) -> T:
    """Run blocking work here and now: for stores in memory and for simulated time."""
    try:
        return work()
    finally:
        await trio.lowlevel.cancel_shielded_checkpoint()


class DiskWatch:
    """What a disk did of late, which is what is known of it.

    A slow one must not hold up everything else that the node does: where commits wait long for it in
    the mean, the next belong in a thread. One that stalls holds the node up once, and is distrusted for
    the longer the longer that took. A commit that was a little slow says nothing: where more processes
    run than the machine has cores, it may have waited for one of these. What a commit computes is not
    the disk's doing, and counts only where it is long.
    """

    def __init__(
        self,
        clock_s: Callable[[], float] = time.perf_counter,
        computed_s: Callable[[], float] = time.thread_time,
    ) -> None:
        self._clock_s = clock_s
        self._computed_s = computed_s
        self._waited_s = self._took_s = UNKNOWN_S  # in the mean

    @property
    def quick(self) -> bool:
        """Whether the next commit needs no thread."""
        return self._waited_s <= QUICK_S and self._took_s <= LONG_S

    def timed(self, work: Callable[[], T]) -> T:
        """Do it, and learn from how long it took."""
        began_s, computed_s = self._clock_s(), self._computed_s()
        try:
            return work()
        finally:
            took_s = self._clock_s() - began_s
            waited_s = took_s - (self._computed_s() - computed_s)
            self._took_s += LAST_SHARE * (took_s - self._took_s)
            self._waited_s += LAST_SHARE * (waited_s - self._waited_s)


#: Hears what became of a change: its result, or why it is not committed.
Then = Callable[[T | None, TrikvError | None], None]


class _Waiting:
    """One change, and what became of it."""

    def __init__(self, change: Change[Any], then: Then[Any], *, synced: bool = False) -> None:
        self.change = change
        self.then = then
        self.synced = synced
        self.result: Any = None
        self.error: TrikvError | None = None
        self.ended = False

    def end(self) -> None:
        self.ended = True
        self.then(None if self.error is not None else self.result, self.error)


def _nothing_to_do() -> None:
    pass


class Committer:
    def __init__(
        self, store: Store, run_blocking: RunBlocking, disk: DiskWatch | None = None
    ) -> None:
        """Commits and checkpoints by `run_blocking`; with a `disk`, commits as it allows."""
        self.tally = CommitTally()
        self.after: Callable[[], None] = _nothing_to_do
        """Called when all of a group have been told. It must not wait, nor raise."""
        self.failed: Callable[[Exception], None] = lambda error: None
        """Called when a change could not be committed. It must not wait, nor raise."""
        self.busy_since: float | None = None
        """When the transaction under way began, in trio's time."""
        self.reading = trio.Lock()
        """Held while a page is read, and during a checkpoint: beside a reader it could not end."""
        self._store = store
        self._run_blocking = run_blocking
        self._disk = disk
        self._waiting: deque[_Waiting] = deque()  # each of them is a caller: that is its bound
        self._wake = trio.Event()
        self._busy = False
        self._closed = False
        self._trouble = log.Trouble()
        self._failed_at = 0.0  # the last time

    def submit(self, change: Change[T], then: Then[T], *, synced: bool = False) -> None:
        """Run a change in its turn; once it is durable, or cannot be, `then` hears of it.

        In the order of the calls, whoever waits for it still. `then` must not wait, nor raise. What it
        hears of: StorageFailed if the change could not be committed, and what it refused with itself.

        Raises NotReady if the node is stopping.
        """
        if self._closed:
            raise NotReady("this node is stopping")
        self._waiting.append(_Waiting(change, then, synced=synced))
        self._wake.set()

    async def commit(self, change: Change[T], *, alone: bool = False, synced: bool = False) -> T:
        """Run a change and return its result once it is durable.

        `alone`: nothing else is to be expected that could share its transaction. Where nothing is going
        on, and the disk is quick, it is run at once, and nobody else has a turn meanwhile.
        `synced`: durable means on the disk, whatever the setting: a promise must never be forgotten.

        Raises StorageFailed if it could not be committed, NotReady if the node is stopping, and what
        the change itself refused with. Cancelling the caller does not take the change back.
        """
        done = trio.Event()
        outcome: list[tuple[Any, TrikvError | None]] = []

        def then(result: T | None, error: TrikvError | None) -> None:
            outcome.append((result, error))
            done.set()

        if alone and not self._busy and not self._waiting and not self._closed and self._quick():
            await self._commit_group([_Waiting(change, then, synced=synced)])
            if self._store.database.checkpoint_is_due():
                self._wake.set()
        else:
            try:
                self.submit(change, then, synced=synced)
            except NotReady:
                # Whoever is to end with the node ends here, and not with an error that nobody expects.
                await trio.lowlevel.checkpoint()
                raise
            await done.wait()
        ((result, error),) = outcome
        if error is not None:
            raise error
        returned: T = result
        return returned

    async def run(self) -> None:
        """Commit what comes, until `close` was called and everything that waited is done.

        If it is cancelled, what waits is told so: nobody waits for ever.
        """
        group: list[_Waiting] = []
        try:
            while True:
                self._busy = True
                if self._waiting:
                    most = min(MAX_GROUP, len(self._waiting))
                    group = [self._waiting.popleft() for _ in range(most)]
                    await self._commit_group(group)
                if self._store.database.checkpoint_is_due():
                    self.busy_since = trio.current_time()  # it waits for the disk as a commit does
                    async with self.reading:
                        await self._run_blocking(self._store.database.checkpoint)
                    self.busy_since = None
                self._busy = False
                if self._waiting:
                    await trio.lowlevel.checkpoint()
                elif self._closed:
                    return
                else:
                    self._wake = trio.Event()
                    await self._wake.wait()
        finally:
            self._closed = True
            for waiting in (*group, *self._waiting):
                if not waiting.ended:
                    waiting.error = StorageFailed("this node ended before it was clear")
                    waiting.end()

    def _quick(self) -> bool:
        return self._disk is not None and self._disk.quick

    async def _commit_group(self, group: Sequence[_Waiting]) -> None:
        """One transaction for all of them, or one for each. No waiting while the disk is quick."""
        began = self.busy_since = trio.current_time()
        try:
            await self._run_commit(partial(self._apply, group))
        except (*DatabaseFault, OSError) as error:
            if len(group) > 1:
                for waiting in group:
                    await self._commit_group([waiting])
                    await trio.lowlevel.checkpoint()
                return
            self.tally.failures += 1
            self.failed(error)
            group[0].error = StorageFailed(f"this node could not commit: {error}")
            self._failed_at = began
            if self._trouble.is_news(str(error)):
                log.warning("storage.failed", reason=error)
        else:
            if self._trouble.goes_on and began >= self._failed_at + RECOVERED_S:
                self._trouble.over()
                log.info("storage.recovered")
        finally:
            self.busy_since = None
        self.tally.committed(len(group), trio.current_time() - began)
        for waiting in group:
            waiting.end()
        self.after()

    async def _run_commit(self, work: Callable[[], None]) -> None:
        if self._disk is None:
            await self._run_blocking(work)
        elif self._disk.quick:
            self._disk.timed(work)
        else:
            await self._run_blocking(partial(self._disk.timed, work))

    def _apply(self, group: Sequence[_Waiting]) -> None:
        with self._store.transaction(synced=any(waiting.synced for waiting in group)):
            for waiting in group:
                waiting.error = None
                try:
                    waiting.result = waiting.change(self._store)
                except TrikvError as error:
                    waiting.error = error

    def close(self) -> None:
        """Take no further changes; `run` ends once the waiting ones are committed."""
        self._closed = True
        self._wake.set()
