"""Catching up, interrupted: whatever has arrived by then, no batch of it is in parts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

import trikv.replication.link
import trikv.storage.reverse_scan
from tests.simulation.fleet import Fleet, open_fleet
from tests.simulation.test_interrupted import Interruption
from tests.support import until
from trikv.errors import PeerFailed
from trikv.model.record import entries_of
from trikv.model.version import Version
from trikv.network.simulated_lag import LagRange
from trikv.observe.change_stream import Message, Reset, Watch

BATCH = {
    "operations": [{"op": "put", "key": "a", "value": 2}, {"op": "put", "key": "b", "value": 2}]
}


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trikv.replication.link, "PAGE_RECORDS", 1)


async def write_unheard(fleet: Fleet) -> None:
    """A batch, and one of its keys once more: on the disk of n0, and nowhere else."""
    assert (await fleet.put("n0", "old", 1))[0] == 200
    await fleet.wait_quiet("n0")
    for other in ("n1", "n2"):
        fleet.cut.add(frozenset(("n0", other)))
    async with trio.open_nursery() as nursery:  # both, before it knows that it is alone
        nursery.start_soon(fleet.ask, "n0", "POST", "/batch", BATCH)
        await trio.sleep(0.01)
        nursery.start_soon(fleet.put, "n0", "a", 3)
    store = fleet.stores["n0"]
    assert [record.value for key in "ab" if (record := store.get(key))] == ["3", "2"]


@pytest.mark.parametrize("at", range(12))
async def test_a_leader_that_crashes_while_a_follower_catches_up_leaves_no_part_of_a_batch(
    autojump_clock: MockClock, at: int
) -> None:
    """Its successor has what that follower was sent. Found by a random walk with a mutant, seed 391."""
    async with open_fleet(2, write_quorum=1) as fleet:
        await write_unheard(fleet)
        fleet.network.before = Interruption(fleet, "n0", "n0", at)
        fleet.cut.discard(frozenset(("n0", "n2")))
        await trio.sleep(5)
        if "n0" in fleet.nodes:
            fleet.crash("n0")
        fleet.network.before = None
        fleet.crash("n2")
        await fleet.start("n2", leads=True, write_quorum=1)
        await fleet.wait_live("n2", 1)
        held = (await fleet.dumps())["n2"]
        assert (held.get("a"), held.get("b")) in ((None, None), (2, 2), (3, None), (3, 2)), held


@pytest.mark.parametrize("at", range(12))
async def test_a_takeover_that_is_interrupted_keeps_no_part_of_a_batch(
    autojump_clock: MockClock, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has read so far is not merged."""
    monkeypatch.setattr("trikv.web.peer.SCAN_BYTES", 1)
    async with open_fleet(2, write_quorum=1) as fleet:
        await write_unheard(fleet)
        fleet.crash("n0")
        await fleet.start("n0")  # as a follower: a speaker, whose map is read
        fleet.cut.clear()
        fleet.crash("n2")
        fleet.network.before = interruption = Interruption(fleet, "n2", "n2", at)
        await fleet.start("n2", leads=True, write_quorum=1)
        await until(lambda: interruption.happened or trio.current_time() > 60)
        fleet.network.before = None
        fleet.crash("n0")
        if "n2" in fleet.nodes:
            fleet.crash("n2")
        await fleet.start("n2", leads=True, write_quorum=1)
        await fleet.wait_live("n2", 1)
        held = (await fleet.dumps())["n2"]
        assert (held.get("a"), held.get("b")) in ((None, None), (2, 2), (3, None), (3, 2)), held


async def test_what_is_written_while_a_page_travels_comes_with_the_next(
    autojump_clock: MockClock,
) -> None:
    """However long its own lag is: what it takes the place of is not missed in the map."""
    async with open_fleet(2, write_quorum=1) as fleet:
        fleet.crash("n2")
        for key in "abc":
            assert (await fleet.put("n0", key, 1))[0] == 200
        assert (await fleet.ask("n0", "POST", "/batch", BATCH))[0] == 200
        for key in "de":
            assert (await fleet.put("n0", key, 1))[0] == 200
        written = False

        async def write(url: str, target: str, body: bytes | None) -> None:
            nonlocal written
            if body is not None and b'"key":"e"' in body and not written:
                written = True
                leader = fleet.nodes["n0"].require_leader()
                leader.lag.set(LagRange(60_000, 60_000))
                fleet.nursery.start_soon(fleet.put, "n0", "a", 3)
                await trio.sleep(0.1)
            if written and body is not None and b'"key":"b"' in body and b'"value":2' in body:
                assert b'"key":"a","value":3' in body or fleet.stores["n2"].get("a") is not None

        fleet.network.before = write
        await fleet.start("n2")
        await until(lambda: written)
        await until(lambda: fleet.stores["n2"].get("c") is not None)


async def test_under_a_load_that_outruns_it_a_page_brings_what_is_newer_alone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trikv.storage.reverse_scan, "MAX_NEWER_PAGES", 2)
    async with open_fleet(2, write_quorum=1) as fleet:
        fleet.crash("n2")
        for key in "abcde":
            assert (await fleet.put("n0", key, 1))[0] == 200
        leadership = fleet.nodes["n0"].require_leadership()
        after = leadership.leader.store.state.floor
        first = await leadership.read_back(after, None, 1, 10**6)
        assert (first.newer, [r.key for r in first.older or ()]) == ([], ["e"])
        place = first.place(None)
        for key in "abc":
            assert (await fleet.put("n0", key, 2))[0] == 200
        second = await leadership.read_back(after, place, 1, 10**6)
        assert ([r.key for r in second.newer], second.older) == (["a", "b"], None)
        place = second.place(place)
        third = await leadership.read_back(after, place, 1, 10**6)
        assert ([r.key for r in third.newer], [r.key for r in third.older or ()]) == (["c"], ["d"])
        await fleet.start("n2")
        await fleet.wait_quiet("n0")
        await fleet.assert_equal()


async def test_a_link_that_cannot_read_the_map_is_down_and_tries_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_fleet(1, write_quorum=0) as fleet:
        fleet.crash("n1")
        assert (await fleet.put("n0", "a", 1))[0] == 200
        leadership = fleet.nodes["n0"].require_leadership()
        read_back, tries = leadership.read_back, 0

        async def fail_once(*how: object) -> object:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise PeerFailed("the disk is away")
            return await read_back(*how)  # type: ignore[arg-type]

        monkeypatch.setattr(leadership, "read_back", fail_once)
        await fleet.start("n1")
        await fleet.wait_quiet("n0")
        assert tries > 1
        await fleet.assert_equal()


async def test_catching_up_ends_under_a_steady_load_with_lag(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page waits out a lag in which more is written: it must not be waited for that none is."""
    monkeypatch.setattr(trikv.replication.link, "PAGE_RECORDS", 10)
    async with open_fleet(2, write_quorum=1) as fleet:
        fleet.nodes["n0"].require_leader().lag.set(LagRange(1000, 1000))

        async def write() -> None:
            for index in range(600):
                fleet.nursery.start_soon(fleet.put, "n0", f"key{index % 5}", index)
                await trio.sleep(0.1)

        fleet.crash("n2")
        fleet.nursery.start_soon(write)
        await trio.sleep(10)
        await fleet.start("n2")
        link = fleet.nodes["n0"].require_leader().links[1]
        await until(lambda: link.live, timeout_s=30)
        await trio.sleep(60)
        await fleet.wait_quiet("n0")
        await fleet.assert_equal()


async def test_an_old_copy_put_back_in_the_same_epoch_notes_what_was_purged_meanwhile(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(3, write_quorum=2) as fleet:
        assert (await fleet.put("n0", "a", 1))[0] == 200
        await fleet.wait_quiet("n0")
        await trio.sleep(3)
        copied = fleet.stores["n1"]
        records, state = copied.page_by_version(None, 10**6, 10**9), copied.state
        status, body = await fleet.put("n0", "gone", 1)
        assert status == 200
        await fleet.wait_quiet("n0")
        known_up_to = Version.parse(body["version"])
        assert (await fleet.ask("n0", "DELETE", "/kv/{key}", None, "gone"))[0] == 200
        await until(lambda: all(store.get("gone") is None for store in fleet.stores.values()))
        fleet.crash("n1")
        fleet.wipe("n1")
        with fleet.stores["n1"].transaction():
            fleet.stores["n1"].merge(entries_of(records))
            fleet.stores["n1"].set_state(state)
        await fleet.start("n1")
        await fleet.wait_live("n0", 3)
        await fleet.wait_quiet("n0")
        watch = Watch(fleet.nodes["n1"], after=known_up_to)
        with fleet.nodes["n1"].watches.entered(watch):
            messages = [message async for message in _until_quiet(watch)]
        # It can't say that `gone` was deleted, so it has to say that it can't.
        assert isinstance(messages[0], Reset)


async def _until_quiet(watch: Watch) -> AsyncIterator[Message]:
    """Yield what a reader is told within ten seconds."""
    with trio.move_on_after(10):
        while True:
            for message in await watch.next():
                yield message
