"""Those who watch, while writes that nobody confirmed are lost with their leader."""

from __future__ import annotations

from collections.abc import Sequence

import trio
from trio.testing import MockClock

from tests.simulation.fleet import Fleet, open_fleet
from tests.simulation.watchers import Watcher


async def unconfirmed(fleet: Fleet, *, reaches: Sequence[str] = (), **values: int) -> None:
    """A write of n0's that reaches these followers, and too few."""
    cut = {frozenset(("n0", name)) for name in fleet.names if name not in ("n0", *reaches)}
    fleet.cut |= cut
    operations = [{"op": "put", "key": key, "value": value} for key, value in values.items()]
    status, body = await fleet.ask("n0", "POST", "/batch", {"operations": operations})
    assert (status, body["code"]) == (503, "quorum_not_met")


async def take_over(fleet: Fleet, *lost: str) -> None:
    """n0 and these are lost with their disks, and n1 leads."""
    for name in ("n0", *lost):
        fleet.crash(name)
        fleet.wipe(name)
    fleet.cut.clear()
    fleet.crash("n1")
    await fleet.start("n1", leads=True, write_quorum=2)
    await fleet.wait_leads("n1")
    for name in ("n0", *lost):
        await fleet.start(name)
    await fleet.wait_live("n1", len(fleet.names) - 1)


async def test_what_an_unconfirmed_write_hid_is_told_after_it_was_lost(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(2, write_quorum=2) as fleet:
        await fleet.put("n0", "hidden", 1)
        await fleet.put("n0", "other", 2)
        await unconfirmed(fleet, hidden=3)
        watcher = Watcher(fleet, 0)
        watcher.stay("n0")
        fleet.nursery.start_soon(watcher.run)
        await trio.sleep(20)
        assert watcher.values == {"other": 2}
        await take_over(fleet)
        watcher.stay("n2")
        await watcher.check(fleet.nodes["n1"])
        assert watcher.values == {"hidden": 1, "other": 2}


async def test_what_was_not_confirmed_was_told_by_nobody_and_is_nowhere_after_it_was_lost(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(3, write_quorum=2) as fleet:
        await fleet.put("n0", "k", 1)
        await trio.sleep(3)
        watchers = [Watcher(fleet, 0), Watcher(fleet, 1)]
        for watcher, name in zip(watchers, ("n0", "n3"), strict=True):
            watcher.stay(name)
            fleet.nursery.start_soon(watcher.run)
        await trio.sleep(2)
        await unconfirmed(fleet, reaches=["n3"], k=2, new=3)
        await trio.sleep(20)
        assert fleet.stores["n3"].get("new") is not None
        assert [watcher.values for watcher in watchers] == [{"k": 1}] * 2
        await take_over(fleet, "n3")
        for watcher in watchers:
            watcher.stay("n2")
            await watcher.check(fleet.nodes["n1"])
            assert watcher.values == {"k": 1}
