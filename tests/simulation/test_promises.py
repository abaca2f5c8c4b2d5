"""Promises that are forgotten, noticed too late, or not synced: none of it may let two leaders confirm
writes, or lose a confirmed one."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.simulation.disk import SimulatedStore
from tests.simulation.fleet import Fleet, open_fleet
from tests.support import until
from trikv.errors import PeerFailed
from trikv.model.version import Epoch
from trikv.storage.store import Store


def cut(fleet: Fleet, *pairs: tuple[str, str]) -> None:
    fleet.cut |= {frozenset(pair) for pair in pairs}


def heal(fleet: Fleet, *pairs: tuple[str, str]) -> None:
    fleet.cut -= {frozenset(pair) for pair in pairs}


async def linearizable(fleet: Fleet, name: str, key: str) -> tuple[int, object]:
    target = "/kv/{key}?consistency=linearizable&timeout_ms=3000"
    status, body = await fleet.ask(name, "GET", target, None, key)
    return status, body.get("value")


async def test_a_promise_that_was_lost_with_its_disk_does_not_count_for_a_takeover(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(3, write_quorum=1) as fleet:
        leader, candidate, emptied, other = fleet.names
        assert (await fleet.put(leader, "k", "first"))[0] == 200
        await fleet.wait_quiet(leader)
        # One node sleeps through the leader's next start, so it speaks for an earlier epoch only.
        fleet.crash(emptied)
        fleet.crash(leader)
        await fleet.start(leader, leads=True, write_quorum=1)
        await fleet.wait_live(leader, 2)
        await trio.sleep(3)
        # A candidate gathers: it reaches that node alone, which promises.
        cut(fleet, (leader, candidate), (candidate, other), (leader, emptied))
        fleet.crash(candidate)
        await fleet.start(emptied)
        await fleet.start(candidate, leads=True, write_quorum=1)
        await until(lambda: fleet.stores[emptied].state.promised.number == 3)
        await trio.sleep(3)
        # The disk is emptied, the old leader brings the node in again, and the network turns.
        fleet.crash(emptied)
        fleet.wipe(emptied)
        cut(fleet, (candidate, emptied))
        heal(fleet, (leader, emptied))
        await fleet.start(emptied)
        await fleet.wait_live(leader, 2)
        cut(fleet, (leader, other))
        heal(fleet, (candidate, other))
        await trio.sleep(20)
        status, _ = await fleet.put(leader, "k", "second")
        assert fleet.nodes[candidate].leader is None  # it has two promises of the three it needs
        assert status == 200
        heal(fleet, (candidate, emptied))
        await fleet.wait_live(candidate, 2)
        assert await linearizable(fleet, candidate, "k") == (200, "second")


async def test_a_member_that_was_brought_in_again_after_it_forgot_its_promise_is_read(
    autojump_clock: MockClock,
) -> None:
    """The same, but the candidate reaches the emptied node when it asks again."""
    async with open_fleet(3, write_quorum=1) as fleet:
        leader, candidate, emptied, other = fleet.names
        assert (await fleet.put(leader, "k", "first"))[0] == 200
        await fleet.wait_quiet(leader)
        cut(fleet, (leader, candidate), (candidate, other))
        fleet.crash(candidate)
        cut(fleet, (leader, emptied))
        await trio.sleep(3)
        await fleet.start(candidate, leads=True, write_quorum=1)
        await until(lambda: fleet.stores[emptied].state.promised.number == 2)
        fleet.crash(emptied)
        fleet.wipe(emptied)
        cut(fleet, (candidate, emptied))
        heal(fleet, (leader, emptied))
        await fleet.start(emptied)
        await fleet.wait_live(leader, 2)
        fleet.crash(other)
        assert (await fleet.put(leader, "k", "second"))[0] == 200  # on the emptied node alone
        heal(fleet, (candidate, emptied), (candidate, other))
        await fleet.start(other)
        await fleet.wait_live(candidate, 2)
        assert await linearizable(fleet, candidate, "k") == (200, "second")


async def test_a_promise_made_before_leading_begins_is_noticed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is on the disk, and whoever made it has not had a turn yet to depose anybody."""
    end_staging, rival = Store.end_staging, Epoch(500, "9")
    ends = 0

    def promise_at_the_end(store: Store) -> None:
        nonlocal ends
        end_staging(store)
        if store.state.led.number > 0 and store.state.promised < rival:  # all else is done
            ends += 1
            store.set_state(store.state._replace(promised=rival))

    monkeypatch.setattr(Store, "end_staging", promise_at_the_end)
    async with open_fleet(2, write_quorum=1) as fleet:
        assert ends == 1
        assert fleet.nodes["n0"].require_leader().epoch > rival
        assert (await fleet.put("n0", "a", 1))[0] == 200


async def test_a_candidate_that_promises_while_it_reads_does_not_lead(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(3, write_quorum=1) as fleet:
        first, second, slow, read = fleet.names
        assert (await fleet.put(first, "k", "old"))[0] == 200
        await fleet.wait_quiet(first)
        held, go = trio.Event(), trio.Event()

        async def before(base: str, target: str, body: bytes | None) -> None:
            reads = target.startswith("/replica/records") and base == f"http://{read}"
            if reads and not held.is_set():
                held.set()
                await go.wait()

        fleet.network.before = before
        for name in (first, second, slow):
            fleet.crash(name)
        await fleet.start(second)
        await fleet.start(slow, leads=True, write_quorum=1, request_timeout_s=100.0)
        await held.wait()  # it has the promises that it needs, and reads
        fleet.crash(second)
        await fleet.start(first)
        cut(fleet, (second, read))
        await fleet.start(second, leads=True, write_quorum=1)
        await fleet.wait_live(second, 1)
        cut(fleet, (second, slow), (slow, first))
        assert (await fleet.put(second, "k", "new"))[0] == 200
        go.set()
        await trio.sleep(10)
        assert fleet.nodes[slow].leader is None
        fleet.cut.clear()
        # It tries above what it has promised, once its requests are over, and reads once more.
        await fleet.wait_live(slow, 2, timeout_s=400)
        assert await linearizable(fleet, slow, "k") == (200, "new")


async def test_a_linearizable_read_looks_at_the_promise_after_its_round(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(2, write_quorum=1) as fleet:
        assert (await fleet.put("n0", "k", 1))[0] == 200
        await fleet.wait_quiet("n0")
        store = fleet.stores["n0"]

        async def promise_meanwhile(base: str, target: str, body: bytes | None) -> None:
            if target == "/replicate" and store.state.promised.number < 500:
                with (
                    store.transaction()
                ):  # whoever made it has not had a turn yet to depose anybody
                    store.set_state(store.state._replace(promised=Epoch(500, "9")))

        fleet.network.before = promise_meanwhile
        status, body = await fleet.ask("n0", "GET", "/kv/{key}?consistency=linearizable", None, "k")
        assert (status, body["code"]) == (503, "not_ready")


# -- DURABILITY=os: what is not synced may be gone when the power fails ---------------------------------


def lose_power(fleet: Fleet, name: str, kept: int) -> None:
    """Crash a node's machine: of the commits that were not synced only the first `kept` are left."""
    disk = fleet.disks[name]
    images = [disk.image, *disk.unsynced]
    fleet.crash(name)
    disk.image = images[min(kept, len(images) - 1)]
    fleet.stores[name] = SimulatedStore(disk)


async def test_a_leader_that_lost_its_last_writes_with_the_power_finds_them_at_its_followers(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(3, started=False) as fleet:
        for name in fleet.names[1:]:
            await fleet.start(name, durability="os")
        await fleet.start("n0", leads=True, write_quorum=2, durability="os")
        await fleet.wait_live("n0", 3)
        await fleet.wait_quiet("n0")
        await trio.sleep(3)
        before = len(fleet.disks["n0"].unsynced)
        assert (await fleet.put("n0", "k", 1))[0] == 200
        lose_power(fleet, "n0", before)
        assert fleet.stores["n0"].get("k") is None
        await fleet.start("n0", leads=True, write_quorum=2, durability="os")
        await fleet.wait_live("n0", 3)
        await fleet.wait_quiet("n0")
        assert await fleet.dumps() == {name: {"k": 1} for name in fleet.names}


async def test_a_promise_is_synced_whatever_the_durability(autojump_clock: MockClock) -> None:
    async with open_fleet(2, started=False) as fleet:
        for name in fleet.names[1:]:
            await fleet.start(name, durability="os")
        await fleet.start("n0", leads=True, write_quorum=1, durability="os")
        await fleet.wait_live("n0", 2)
        await fleet.wait_quiet("n0")
        await trio.sleep(3)
        cut(fleet, ("n0", "n1"), ("n0", "n2"))
        fleet.crash("n1")
        before = len(fleet.disks["n2"].unsynced)
        await fleet.start("n1", leads=True, write_quorum=1, durability="os")
        await fleet.wait_leads("n1")
        cut(fleet, ("n1", "n2"))
        lose_power(fleet, "n2", before)
        heal(fleet, ("n0", "n2"))
        await fleet.start("n2", durability="os")
        await trio.sleep(10)
        status, body = await fleet.put("n0", "k", 1)
        assert (status, body["code"]) == (503, "not_ready"), "two leaders confirm"


# -- asking again: what it costs ------------------------------------------------------------------------


async def test_a_member_that_fails_every_second_time_ends_no_takeover_and_is_not_flooded(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(2, write_quorum=1) as fleet:
        assert (await fleet.put("n0", "a", 1))[0] == 200
        await fleet.wait_quiet("n0")
        fleet.crash("n0")
        fleet.crash("n1")
        asked = 0

        async def fail_each_second(base: str, target: str, body: bytes | None) -> None:
            nonlocal asked
            if target == "/replica/promise" and base == "http://n2":
                asked += 1
                if asked % 2 == 0:
                    raise PeerFailed(f"{base}{target}: refused")

        fleet.network.before = fail_each_second
        await fleet.start("n0", leads=True, write_quorum=1)
        await fleet.wait_leads("n0", timeout_s=20)
        assert asked < 10
