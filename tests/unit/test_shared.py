"""However many ask for something costly at the same time: one run, begun after they asked."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trikv.errors import NotReady, StorageFailed
from trikv.observe.shared import Shared


class Costly:
    """Counts its runs; each takes a second, and its result is its number."""

    def __init__(self) -> None:
        self.begun = 0
        self.at_a_time = self.most_at_a_time = 0

    async def run(self) -> int:
        self.begun += 1
        number = self.begun
        self.at_a_time += 1
        self.most_at_a_time = max(self.most_at_a_time, self.at_a_time)
        try:
            await trio.sleep(1)
        finally:
            self.at_a_time -= 1
        return number


async def test_many_who_ask_during_a_run_share_the_next(autojump_clock: MockClock) -> None:
    shared, costly = Shared[int](), Costly()
    got: list[int] = []

    async def ask() -> None:
        got.append(await shared.get(costly.run))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(0.5)
        for _ in range(100):
            nursery.start_soon(ask)
    assert got == [1] + [2] * 100
    assert (costly.begun, costly.most_at_a_time) == (2, 1)
    assert trio.current_time() == 2
    assert await shared.get(costly.run) == 3, "it was kept for those who come later"


async def test_one_who_leaves_in_the_middle_leaves_the_run_to_the_next(
    autojump_clock: MockClock,
) -> None:
    shared, costly = Shared[int](), Costly()
    got: list[int] = []

    async def ask() -> None:
        got.append(await shared.get(costly.run))

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.5):
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            await shared.get(costly.run)
    with trio.move_on_after(0.5):
        await shared.get(costly.run)
    async with trio.open_nursery() as nursery:
        leaver = trio.CancelScope()

        async def leave() -> None:
            with leaver:
                await shared.get(costly.run)

        nursery.start_soon(leave)
        await wait_all_tasks_blocked()
        for _ in range(3):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        leaver.cancel()
    assert len(set(got[1:])) == 1
    assert costly.most_at_a_time == 1


async def test_a_run_that_fails_fails_for_all_who_share_it(autojump_clock: MockClock) -> None:
    shared, runs = Shared[int](), []

    async def fail() -> int:
        runs.append(1)
        await trio.sleep(1)
        raise StorageFailed("broken")

    async def ask() -> None:
        with pytest.raises(StorageFailed, match="broken"):
            await shared.get(fail)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask)
    assert len(runs) == 1

    async def refuse() -> int:
        await trio.lowlevel.checkpoint()
        raise NotReady("no")

    with pytest.raises(NotReady):
        await shared.get(refuse)
