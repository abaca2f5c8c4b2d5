"""How large a store is: counted seldom, never waited for long, and told with its age."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock

from tests.support import until
from trikv.errors import StorageFailed
from trikv.model.record import Record, entries_of
from trikv.model.version import Epoch, Version
from trikv.observe.store_size import (
    COUNT_PAUSE,
    DELAY_EVERY_S,
    DELAY_WINDOW_S,
    FRESH_S,
    LoopDelay,
    Survey,
)
from trikv.storage.store import Store

T = TypeVar("T")


def records(count: int, value: str = "1") -> list[Record]:
    return [Record(f"k{i}", value, Version(Epoch(1, "a"), 1 + i)) for i in range(count)]


def fill(store: Store, some: list[Record]) -> None:
    with store.transaction():
        store.merge(entries_of(some))


class Disk:
    """Runs what is asked of it, each time so slowly; and tells what time it is by that."""

    def __init__(self, took_s: float = 0.0) -> None:
        self.took_s = took_s
        self.now_s = 100.0
        self.asked = 0
        self.broken = False

    def clock_s(self) -> float:
        self.now_s += self.took_s / 2  # looked at once before and once after
        return self.now_s

    async def scan(self, work: Callable[[], T]) -> T:
        self.asked += 1
        await trio.sleep(self.took_s)
        if self.broken:
            raise StorageFailed("broken")
        return work()


async def test_records_and_tombstones_are_counted_and_files_measured(
    tmp_path: Path, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    store = Store.open(tmp_path)
    fill(store, records(7))
    fill(store, [Record("k1", "", Version(Epoch(2, "a"), 1))])
    disk = Disk()
    survey = Survey(store, disk.scan, disk.scan, disk.clock_s)
    assert survey.records is None
    nursery.start_soon(survey.run)
    await survey.ask()
    found: tuple[object, ...] = (survey.records, survey.tombstones)
    assert found == (7, 1)
    assert set(survey.file_bytes) == {"database", "wal"}
    assert all(size > 0 for size in survey.file_bytes.values())
    assert survey.free_bytes is not None
    nursery.cancel_scope.cancel()
    store.close()


async def test_a_store_in_memory_has_no_files(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    disk = Disk()
    survey = Survey(Store.open(None), disk.scan, disk.scan, disk.clock_s)
    nursery.start_soon(survey.run)
    await survey.ask()
    found: tuple[object, ...] = (survey.records, survey.file_bytes, survey.free_bytes)
    assert found == (0, {}, None)
    nursery.cancel_scope.cancel()


async def test_nothing_is_looked_at_unless_somebody_asks(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    disk = Disk()
    nursery.start_soon(Survey(Store.open(None), disk.scan, disk.scan, disk.clock_s).run)
    await trio.sleep(3600)
    assert disk.asked == 0
    nursery.cancel_scope.cancel()


async def test_counting_takes_a_thousandth_of_the_time(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    store, disk = Store.open(None), Disk(took_s=1 / 16)  # twice that is less than FRESH_S
    survey = Survey(store, disk.scan, disk.scan, disk.clock_s)
    nursery.start_soon(survey.run)
    await survey.ask()
    fill(store, records(3))
    before_s = disk.now_s
    await survey.ask()
    assert survey.records == 0  # too early to count again
    assert survey.count_age_s > 0
    disk.now_s = before_s + COUNT_PAUSE * disk.took_s
    await survey.ask()
    assert survey.records == 3
    nursery.cancel_scope.cancel()


async def test_a_slow_disk_is_not_waited_for_and_its_answer_is_there_the_next_time(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    disk = Disk(took_s=50.0)
    survey = Survey(Store.open(None), disk.scan, disk.scan, disk.clock_s)
    nursery.start_soon(survey.run)
    for _ in range(3):  # one look for all that ask meanwhile
        began = trio.current_time()
        await survey.ask()
        assert trio.current_time() - began == pytest.approx(FRESH_S)
        assert survey.records is None
    await until(lambda: survey.records is not None)
    assert trio.current_time() < 110  # the one that was asked for meanwhile has not begun, or just
    nursery.cancel_scope.cancel()


async def test_what_cannot_be_read_stays_as_it_was_known(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    store, disk = Store.open(None), Disk()
    survey = Survey(store, disk.scan, disk.scan, disk.clock_s)
    nursery.start_soon(survey.run)
    await survey.ask()
    fill(store, records(3))
    disk.broken = True
    disk.now_s += 1
    await survey.ask()
    assert survey.records == 0
    disk.broken = False
    await survey.ask()
    assert survey.records == 3
    nursery.cancel_scope.cancel()


# -- the event loop's delay -------------------------------------------------------------------------


async def test_an_event_loop_that_is_held_up_is_noticed(nursery: trio.Nursery) -> None:
    clock = MockClock()
    delay = LoopDelay()

    async def main() -> None:
        async with trio.open_nursery() as inside:
            inside.start_soon(delay.run)
            await trio.testing.wait_all_tasks_blocked()
            clock.jump(DELAY_EVERY_S + 0.03)  # as if nobody had got a turn for 30 ms too long
            await trio.testing.wait_all_tasks_blocked()
            assert delay.largest_s == pytest.approx(0.03)
            clock.jump(DELAY_EVERY_S)
            await trio.testing.wait_all_tasks_blocked()
            inside.cancel_scope.cancel()

    await trio.to_thread.run_sync(lambda: trio.run(main, clock=clock))
    assert sum(delay.delays_s.counts) == 2
    assert delay.delays_s.total == pytest.approx(0.03)


def test_the_largest_delay_is_forgotten_after_one_to_two_windows() -> None:
    delay = LoopDelay()
    seen = []
    for second in range(100):
        delay.note(float(second), 0.5 if second == 10 else 0.001)
        seen.append(delay.largest_s)
    long = [second for second, largest in enumerate(seen) if largest == 0.5]
    assert long[0] == 10
    assert DELAY_WINDOW_S <= len(long) <= 2 * DELAY_WINDOW_S
    assert long == list(range(10, 10 + len(long)))
