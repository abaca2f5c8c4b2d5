"""Group commit: one transaction for all that wait, and nobody is told before it is on disk.

`HeldDisk` is how blocking work is run here: inline, but only when the test lets it, so that a test
decides what gathers while the disk is busy. `CountedStore` counts transactions, and fails where it is
told to.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.unit.stored import spoil_text
from trikv.errors import NotReady, StaleEpoch, StorageFailed
from trikv.model.record import Entry, Record
from trikv.model.version import Epoch, Version
from trikv.storage import group_commit
from trikv.storage.database import FILE_NAME
from trikv.storage.group_commit import (
    LONG_S,
    MAX_GROUP,
    QUICK_S,
    Change,
    Committer,
    DiskWatch,
    run_in_thread,
    run_inline,
)
from trikv.storage.store import Store

T = TypeVar("T")

#: Commits that wait for nothing, until a disk is trusted: 0.9 ** 22 is below a tenth.
TRUSTED = 22


class HeldDisk:
    """Runs work once it is `ready`; a disk that is not makes whoever waits for it gather."""

    def __init__(self) -> None:
        self.ready = trio.Event()
        self.ready.set()
        self.finished = 0

    async def __call__(self, work: Callable[[], T]) -> T:
        await self.ready.wait()
        try:
            return await run_inline(work)
        finally:
            self.finished += 1


class CountedStore(Store):
    """In memory; `failing` keys make their transaction fail, as a full disk would."""

    def __init__(self) -> None:
        super().__init__(None, "fsync")
        self.commits = 0
        self.failing: set[str] = set()
        self.failing_commits = 0

    @contextmanager
    def transaction(self, *, synced: bool = False) -> Iterator[None]:
        with super().transaction(synced=synced):
            yield
            written = {key for (key,) in self._writer.execute("SELECT key FROM records")}
            if bad := written & self.failing:
                self.failing_commits += 1
                raise apsw.IOError(f"disk I/O error at {min(bad)}")
        self.commits += 1


def put(key: str, timestamp_us: int = 1) -> Change[str]:
    """A change that writes one record and returns its key."""

    def change(store: Store) -> str:
        store.merge([Entry(Version(Epoch(1, "a"), timestamp_us), [(key, "1")])])
        return key

    return change


def refuse(store: Store) -> None:
    raise StaleEpoch("no", promised="9.z")


class Bench:
    """A committer at work on a store, and what became of the changes given to it."""

    def __init__(self, committer: Committer, store: CountedStore, disk: HeldDisk) -> None:
        self.committer, self.store, self.disk = committer, store, disk
        self.outcomes: dict[str, object] = {}

    async def commit(self, name: str, change: Change[object] | None = None) -> None:
        try:
            self.outcomes[name] = await self.committer.commit(change or put(name))
        except (StaleEpoch, StorageFailed, NotReady) as error:
            self.outcomes[name] = error

    @asynccontextmanager
    async def busy_disk(self) -> AsyncIterator[trio.Nursery]:
        """What is started inside waits for the disk together; at the end it is done."""
        self.disk.ready = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.commit, "first")  # takes the committer's attention
            await wait_all_tasks_blocked()
            yield nursery
            await wait_all_tasks_blocked()
            assert self.outcomes.keys().isdisjoint({"first"})
            self.disk.ready.set()

    def keys(self) -> list[str]:
        return [record.key for record in self.store.page_by_key("", 10**6, 10**9)]


@pytest.fixture
async def bench(autojump_clock: MockClock, nursery: trio.Nursery) -> AsyncIterator[Bench]:
    disk = HeldDisk()
    with closing(CountedStore()) as store:
        committer = Committer(store, disk)
        nursery.start_soon(committer.run)
        yield Bench(committer, store, disk)
        committer.close()
        await wait_all_tasks_blocked()


async def test_a_change_returns_its_result_once_it_is_committed(bench: Bench) -> None:
    assert await bench.committer.commit(put("a")) == "a"
    assert bench.keys() == ["a"]
    assert bench.store.commits == 1


async def test_what_gathers_while_the_disk_is_busy_shares_one_transaction(bench: Bench) -> None:
    names = [f"k{i:03}" for i in range(100)]
    async with bench.busy_disk() as nursery:
        for name in names:
            nursery.start_soon(bench.commit, name)
    assert bench.store.commits == 2
    assert bench.outcomes == {name: name for name in ["first", *names]}
    assert bench.keys() == ["first", *names]


async def test_a_group_is_bounded(bench: Bench) -> None:
    async with bench.busy_disk() as nursery:
        for i in range(MAX_GROUP + 1):
            nursery.start_soon(bench.commit, f"k{i}")
    assert bench.store.commits == 3


async def test_more_than_a_few_groups_wait_their_turn(bench: Bench) -> None:
    async with bench.busy_disk() as nursery:
        for i in range(3 * MAX_GROUP + 100):
            nursery.start_soon(bench.commit, f"k{i}")
    assert len(bench.outcomes) == 3 * MAX_GROUP + 101
    assert len(bench.keys()) == 3 * MAX_GROUP + 101


async def test_changes_are_applied_in_the_order_of_their_calls(bench: Bench) -> None:
    applied: list[int] = []

    async def commit(index: int) -> None:
        await bench.committer.commit(lambda store: applied.append(index))

    async with bench.busy_disk() as nursery:
        for index in range(50):
            nursery.start_soon(commit, index)
            await wait_all_tasks_blocked()
    assert applied == list(range(50))


async def test_a_change_sees_what_the_one_before_it_wrote(bench: Bench) -> None:
    seen: list[Record | None] = []
    async with bench.busy_disk() as nursery:
        nursery.start_soon(bench.commit, "a")
        await wait_all_tasks_blocked()
        nursery.start_soon(bench.commit, "look", lambda store: seen.append(store.get("a")))
    assert [record.key for record in seen if record] == ["a"]


async def test_nobody_is_told_before_the_transaction_is_committed(bench: Bench) -> None:
    async with bench.busy_disk() as nursery:
        nursery.start_soon(bench.commit, "a")
        await wait_all_tasks_blocked()
        assert (bench.outcomes, bench.store.commits) == ({}, 0)


async def test_a_change_that_refuses_fails_alone(bench: Bench) -> None:
    async with bench.busy_disk() as nursery:
        nursery.start_soon(bench.commit, "a")
        nursery.start_soon(bench.commit, "refused", refuse)
        nursery.start_soon(bench.commit, "b")
    assert isinstance(bench.outcomes.pop("refused"), StaleEpoch)
    assert bench.outcomes == {"first": "first", "a": "a", "b": "b"}
    assert bench.keys() == ["a", "b", "first"]
    assert bench.store.commits == 2


async def test_in_a_group_that_fails_each_change_is_tried_alone(bench: Bench) -> None:
    bench.store.failing = {"bad"}
    async with bench.busy_disk() as nursery:
        for name in ("a", "bad", "b"):
            nursery.start_soon(bench.commit, name)
        nursery.start_soon(bench.commit, "refused", refuse)
    error = bench.outcomes.pop("bad")
    assert isinstance(error, StorageFailed)
    assert "disk I/O error at bad" in error.detail
    assert isinstance(bench.outcomes.pop("refused"), StaleEpoch)
    assert bench.outcomes == {"first": "first", "a": "a", "b": "b"}
    assert bench.keys() == ["a", "b", "first"]
    assert bench.store.failing_commits == 2  # in the group, then alone


async def test_after_a_failure_the_committer_goes_on(bench: Bench) -> None:
    bench.store.failing = {"bad"}
    with pytest.raises(StorageFailed):
        await bench.committer.commit(put("bad"))
    assert await bench.committer.commit(put("good")) == "good"
    bench.store.failing = set()
    assert await bench.committer.commit(put("bad")) == "bad"


async def test_a_disk_that_refuses_is_logged_once_and_so_is_that_it_works_again(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "trikv")
    bench.store.failing = {"large"}
    for index in range(60):  # on a nearly full disk small changes fit, and large ones do not
        await bench.commit("large")
        await bench.commit(f"small{index}")
    assert [record.getMessage() for record in caplog.records] == ["storage.failed"]
    monkeypatch.setattr(group_commit, "RECOVERED_S", 0.0)
    for index in range(3):
        await bench.commit(f"after{index}")
    await bench.commit("large")
    said = [record.getMessage() for record in caplog.records]
    assert said == ["storage.failed", "storage.recovered", "storage.failed"]


async def test_a_cancelled_callers_change_still_lands(bench: Bench) -> None:
    async with bench.busy_disk() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(bench.commit, "other")
            async with trio.open_nursery() as callers:
                callers.start_soon(bench.commit, "cancelled")
                await wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
    assert bench.outcomes == {"first": "first", "other": "other"}
    assert bench.keys() == ["cancelled", "first", "other"]


async def test_close_drains_what_waits_and_takes_no_more(bench: Bench) -> None:
    async with bench.busy_disk() as nursery:
        nursery.start_soon(bench.commit, "waiting")
        await wait_all_tasks_blocked()
        bench.committer.close()
        await bench.commit("late")
    assert isinstance(bench.outcomes.pop("late"), NotReady)
    assert bench.outcomes == {"first": "first", "waiting": "waiting"}
    assert bench.keys() == ["first", "waiting"]


async def test_run_ends_after_close_once_all_is_committed(autojump_clock: MockClock) -> None:
    with closing(CountedStore()) as store:
        committer = Committer(store, HeldDisk())
        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(committer.run)
                assert await committer.commit(put("a")) == "a"
                committer.close()
        assert store.commits == 1


async def test_a_bug_in_a_change_is_not_swallowed(autojump_clock: MockClock) -> None:
    with closing(CountedStore()) as store:
        committer = Committer(store, HeldDisk())
        with pytest.RaisesGroup(
            ZeroDivisionError, StorageFailed
        ):  # the second: whoever waits is told
            async with trio.open_nursery() as nursery:
                nursery.start_soon(committer.run)
                await committer.commit(lambda _: 1 / 0)
        assert store.commits == 0


# -- on a real disk, in a real thread -------------------------------------------------------------------


def committed_keys(directory: Path) -> list[str]:
    """What another process would see now."""
    with closing(apsw.Connection(str(directory / FILE_NAME))) as other:
        return [key for (key,) in other.execute("SELECT key FROM records ORDER BY key")]


async def test_commit_returns_only_after_the_commit_seen_from_another_connection(
    tmp_path: Path,
) -> None:
    with closing(Store.open(tmp_path)) as store:
        committer = Committer(store, run_in_thread)
        during: list[list[str]] = []

        async def one(index: int) -> None:
            key = f"k{index:02}"

            def change(store: Store) -> None:
                put(key)(store)
                during.append([k for k in committed_keys(tmp_path) if k == key])

            await committer.commit(change)
            assert key in committed_keys(tmp_path)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(committer.run)
            async with trio.open_nursery() as callers:
                for index in range(30):
                    callers.start_soon(one, index)
            committer.close()
        assert during == [[]] * 30  # not there yet while the change itself ran
    assert len(committed_keys(tmp_path)) == 30


async def test_a_failing_trigger_fails_one_write_and_nobody_elses(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        store._writer.execute(
            "CREATE TRIGGER full BEFORE INSERT ON records WHEN NEW.key = 'bad'"
            " BEGIN SELECT RAISE(ABORT, 'no space left'); END"
        )
        committer = Committer(store, run_in_thread)
        failed: list[str] = []

        async def one(key: str) -> None:
            try:
                await committer.commit(put(key))
            except StorageFailed as error:
                failed.append(f"{key}: {error}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(committer.run)
            async with trio.open_nursery() as callers:
                for key in ("a", "b", "bad", "c"):
                    callers.start_soon(one, key)
            committer.close()
        assert failed == ["bad: this node could not commit: no space left"]
    assert committed_keys(tmp_path) == ["a", "b", "c"]


async def test_a_spoilt_text_that_a_change_reads_fails_that_change_alone(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        spoil_text(store)
        committer = Committer(store, run_in_thread)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(committer.run)
            with pytest.raises(StorageFailed, match=r"could not commit: .*utf-8"):
                await committer.commit(lambda store: store.current("k"))
            assert await committer.commit(put("a")) == "a"
            committer.close()


async def test_a_locked_database_is_a_storage_failure(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        store._writer.execute("PRAGMA busy_timeout = 0")
        committer = Committer(store, run_in_thread)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(committer.run)
            with closing(apsw.Connection(str(tmp_path / FILE_NAME))) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(StorageFailed, match="database is locked"):
                    await committer.commit(put("a"))
                other.execute("ROLLBACK")
            assert await committer.commit(put("a")) == "a"
            committer.close()
    assert committed_keys(tmp_path) == ["a"]


async def test_a_committer_that_is_cancelled_lets_nobody_wait(autojump_clock: MockClock) -> None:
    with closing(CountedStore()) as store:
        committer = Committer(store, HeldDisk())
        told = 0

        async def wait() -> None:
            nonlocal told
            with trio.CancelScope(shield=True):
                try:
                    await committer.commit(lambda _: None)
                except (StorageFailed, NotReady):
                    told += 1

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for _ in range(5 * MAX_GROUP):
                    nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await committer.run()
        assert told == 5 * MAX_GROUP


class Clock:
    """Each commit takes as long as the test says."""

    def __init__(self) -> None:
        self.now_s = self.took_s = 0.0
        self.computed_s = self.computes_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def computed(self) -> float:
        return self.computed_s

    def work(self) -> int:
        self.now_s += self.took_s
        self.computed_s += self.computes_s
        return threading.get_ident()


class WatchedDisk:
    """A DiskWatch, and commits that take as long as a test says."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.watch = DiskWatch(self.clock, self.clock.computed)

    def commit(self, waits_s: float, computes_s: float = 0.0, times: int = 1) -> None:
        self.clock.took_s, self.clock.computes_s = waits_s + computes_s, computes_s
        for _ in range(times):
            self.watch.timed(self.clock.work)

    def until_quick(self, waits_s: float = 0.0) -> int:
        """How many commits it takes until the next would need no thread."""
        for number in range(1000):
            if self.watch.quick:
                return number
            self.commit(waits_s)
        raise AssertionError("it is never trusted")


def test_a_disk_is_trusted_after_some_quick_commits_and_not_before() -> None:
    assert WatchedDisk().until_quick() == TRUSTED
    assert WatchedDisk().until_quick(QUICK_S / 2) > TRUSTED


def test_a_disk_that_is_slow_in_the_mean_is_not_trusted() -> None:
    disk = WatchedDisk()
    disk.until_quick()
    disk.commit(1.5 * QUICK_S, times=100)
    assert not disk.watch.quick
    disk.commit(0.0)
    assert not disk.watch.quick


def test_commits_that_are_a_little_slow_now_and_then_say_nothing_of_the_disk() -> None:
    disk = WatchedDisk()
    disk.until_quick()
    for _ in range(100):
        disk.commit(QUICK_S / 4, times=19)
        disk.commit(3 * QUICK_S)
        assert disk.watch.quick


def test_a_disk_that_stalls_is_distrusted_at_once_and_for_the_longer_the_longer_it_did() -> None:
    distrusted: list[int] = []
    for stalled in (15, 150, 1500):
        disk = WatchedDisk()
        disk.until_quick()
        disk.commit(0.0, times=100)
        disk.commit(stalled * QUICK_S)
        distrusted.append(disk.until_quick())
    assert 0 < distrusted[0] < distrusted[1] < distrusted[2] < 100


def test_what_commits_compute_is_not_the_disks_doing_unless_it_is_long() -> None:
    disk = WatchedDisk()
    disk.until_quick()
    disk.commit(QUICK_S / 2, 2 * QUICK_S, times=100)
    assert disk.watch.quick
    disk.commit(0.0, 1.5 * LONG_S, times=100)
    assert not disk.watch.quick


def test_a_disk_that_refuses_quickly_is_quick_and_its_error_is_passed_on() -> None:
    disk = DiskWatch(Clock(), lambda: 0.0)

    def refuse() -> None:
        raise OSError("no space")

    for _ in range(TRUSTED):
        with pytest.raises(OSError, match="no space"):
            disk.timed(refuse)
    assert disk.quick


async def test_commits_run_by_what_runs_blocking_work_until_the_disk_is_quick(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    clock, held = Clock(), HeldDisk()
    disk = DiskWatch(clock, clock.computed)
    with closing(CountedStore()) as store:
        committer = Committer(store, held, disk)
        nursery.start_soon(committer.run)
        for number in range(TRUSTED + 5):
            await committer.commit(put(f"{number}"))
        assert (held.finished, store.commits) == (TRUSTED, TRUSTED + 5)
        clock.took_s = 15 * QUICK_S
        disk.timed(clock.work)
        await committer.commit(put("slow"))
        assert (held.finished, store.commits) == (TRUSTED + 1, TRUSTED + 6)
        committer.close()
        await wait_all_tasks_blocked()


class QuickDisk(DiskWatch):
    """Quick, unless a test says otherwise."""

    quick = True


async def never(work: Callable[[], T]) -> T:
    raise AssertionError("nothing here is to be run as blocking work")


async def test_who_commits_on_a_quick_disk_gives_others_their_turn(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    with closing(CountedStore()) as store:
        committer = Committer(store, never, QuickDisk())
        nursery.start_soon(committer.run)
        turns = 0

        def again(*_: object) -> None:
            if turns < 5 and store.commits < 100:
                committer.submit(put("a"), again)

        again()
        for _ in range(5):
            await trio.lowlevel.checkpoint()
            turns += 1
        assert 0 < store.commits <= 6
        committer.close()
        await wait_all_tasks_blocked()


async def test_one_that_expects_no_company_is_committed_at_once_on_a_quick_disk() -> None:
    with closing(CountedStore()) as store:
        committer = Committer(store, never, QuickDisk())
        after: list[int] = []
        committer.after = lambda: after.append(store.commits)
        # Nobody runs the committer, so nobody else can have done it.
        assert await committer.commit(put("a"), alone=True) == "a"
        assert store.get("a") is not None
        with pytest.raises(StaleEpoch):
            await committer.commit(refuse, alone=True)
        store.failing.add("b")
        with pytest.raises(StorageFailed, match="disk I/O error at b"):
            await committer.commit(put("b"), alone=True)
        assert store.get("b") is None
        assert committer.tally.failures == 1
        assert after == [1, 2, 2]
        committer.close()
        with pytest.raises(NotReady):
            await committer.commit(put("c"), alone=True)
        assert store.get("c") is None


async def test_one_that_expects_no_company_waits_its_turn_where_the_disk_is_not_quick(
    bench: Bench,
) -> None:
    for disk in (None, DiskWatch(Clock())):
        bench.committer._disk = disk
        finished = bench.disk.finished
        assert await bench.committer.commit(put("a"), alone=True) == "a"
        assert bench.disk.finished == finished + 1


async def test_one_that_expects_no_company_comes_behind_what_waits(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    with closing(CountedStore()) as store:
        committer = Committer(store, never, QuickDisk())
        order: list[str] = []

        def note(name: str) -> Change[None]:
            return lambda _: order.append(name)

        committer.submit(note("first"), lambda *_: None)
        nursery.start_soon(partial(committer.commit, note("second"), alone=True))
        await wait_all_tasks_blocked()
        assert order == []
        nursery.start_soon(committer.run)
        await wait_all_tasks_blocked()
        assert order == ["first", "second"]
        committer.close()
        await wait_all_tasks_blocked()


def many(store: Store) -> None:
    """So much that the log wants to be written back."""
    while not store.database.checkpoint_is_due():
        store.merge([Entry(Version(Epoch(1, "a"), 2), [(f"{i}", "1") for i in range(100)])])


@pytest.mark.parametrize("alone", [False, True])
async def test_checkpoints_run_apart_between_groups_and_commits_wait_for_them(
    tmp_path: Path, autojump_clock: MockClock, alone: bool
) -> None:
    began, may_end = trio.Event(), trio.Event()
    checkpoints: list[object] = []

    async def slowly(work: Callable[[], T]) -> T:
        began.set()
        await may_end.wait()
        checkpoints.append(work)
        return work()

    with closing(Store.open(tmp_path, "fsync")) as store:
        committer = Committer(store, slowly, QuickDisk())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(committer.run)
            await committer.commit(put("a"), alone=alone)
            assert not began.is_set()
            # Who waits for a commit does not wait for the checkpoint.
            await committer.commit(many, alone=alone)
            await began.wait()
            assert store.database.checkpoint_is_due()
            nursery.start_soon(partial(committer.commit, put("b"), alone=alone))
            await wait_all_tasks_blocked()
            assert store.get("b") is None
            may_end.set()
            await wait_all_tasks_blocked()
            assert store.get("b") is not None
            assert checkpoints == [store.database.checkpoint]
            assert not store.database.checkpoint_is_due()
            committer.close()


async def test_what_follows_a_commit_follows_it_whoever_has_left(bench: Bench) -> None:
    followed: list[tuple[str | None, object]] = []
    groups: list[int] = []
    bench.committer.after = lambda: groups.append(len(followed))

    async def leave(scope: trio.CancelScope, name: str) -> None:
        with scope:
            bench.committer.submit(lambda _: name, lambda *told: followed.append(told))
            await trio.sleep_forever()

    scopes = [trio.CancelScope() for _ in range(3)]
    async with bench.busy_disk() as nursery:
        for index, scope in enumerate(scopes):
            nursery.start_soon(leave, scope, f"w{index}")
            await wait_all_tasks_blocked()
        scopes[1].cancel()
        await wait_all_tasks_blocked()
        assert followed == []
        for scope in scopes:
            scope.cancel()
    await wait_all_tasks_blocked()
    assert followed == [("w0", None), ("w1", None), ("w2", None)]
    assert groups == [0, 3]  # of the first, and of these three


async def test_what_follows_a_refusal_or_a_failure_is_told_why(bench: Bench) -> None:
    followed: list[tuple[object, object]] = []

    def follow(result: object, error: object) -> None:
        followed.append((result, error))

    with pytest.raises(StaleEpoch) as refused:
        await bench.committer.commit(refuse)
    bench.store.failing = {"bad"}
    bench.committer.submit(refuse, follow)
    bench.committer.submit(put("bad"), follow)
    bench.committer.submit(put("good"), follow)
    await wait_all_tasks_blocked()
    (first, second, third) = followed
    assert first[0] is second[0] is None
    assert str(first[1]) == str(refused.value)
    assert isinstance(second[1], StorageFailed)
    assert third == ("good", None)
    bench.committer.close()
    with pytest.raises(NotReady):
        bench.committer.submit(put("late"), follow)
    assert len(followed) == 3


async def test_whoever_is_to_end_with_the_node_ends_and_does_not_fail(bench: Bench) -> None:
    bench.committer.close()
    with trio.CancelScope() as scope:
        scope.cancel()
        await bench.committer.commit(put("late"))
    assert scope.cancelled_caught
