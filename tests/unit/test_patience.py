"""One patience for many waits."""

from __future__ import annotations

import trio
import trio.testing
from trio.testing import MockClock

from trikv.patience import Patience


async def test_each_wait_ends_when_its_time_is_up_or_earlier(autojump_clock: MockClock) -> None:
    patience = Patience(2.0)
    ended: dict[int, float] = {}

    async def wait(index: int, done: trio.Event) -> None:
        patience.limit(done)
        await done.wait()
        ended[index] = trio.current_time()

    began = trio.current_time()
    async with trio.open_nursery() as waits:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(patience.run)
            await trio.sleep(1)
            events = [trio.Event() for _ in range(6)]
            for index, event in enumerate(events):
                waits.start_soon(wait, index, event)
                await trio.sleep(0.5)  # the first is given up at 3 s, the second at 3.5 s, …
                if index == 2:
                    events[2].set()
            await trio.sleep(5)
            late = trio.Event()
            waits.start_soon(wait, 6, late)
            await trio.sleep(3)
            nursery.cancel_scope.cancel()
    waited = {index: round(at - began, 3) for index, at in ended.items()}
    assert waited == {0: 3.0, 1: 3.5, 2: 2.5, 3: 4.5, 4: 5.0, 5: 5.5, 6: 11.0}


async def test_what_has_ended_is_not_kept(autojump_clock: MockClock) -> None:
    patience = Patience(60)
    for _ in range(1000):
        done = trio.Event()
        patience.limit(done)
        done.set()
    assert len(patience._waits) == 1
