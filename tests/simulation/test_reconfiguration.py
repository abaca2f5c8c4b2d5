"""Changes of the quorum and of the members, and what may come between: each of these has lost a
confirmed write, or made replicas differ, before it was guarded against."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.simulation.fleet import Fleet, open_fleet
from tests.support import until
from trikv.model.membership import KEY
from trikv.model.quorum import Voters
from trikv.model.record import entries_of
from trikv.network.peers import configuration_in
from trikv.network.simulated_lag import LagRange, SimulatedLag
from trikv.node.node import Node


class SlowDisk:
    """Commits of a node take `delay_s` longer."""

    def __init__(self, node: Node) -> None:
        self.delay_s = 0.0
        self._inner = node.committer._run_blocking
        node.committer._run_blocking = self

    async def __call__(self, work: Any) -> Any:
        with trio.CancelScope(shield=True):
            await trio.sleep(self.delay_s)
        return await self._inner(work)


async def change(fleet: Fleet, write_quorum: int) -> tuple[int, dict[str, Any]]:
    return await fleet.ask("n0", "POST", "/admin/quorum", {"write_quorum": write_quorum})


async def test_from_quorum_zero_a_change_needs_every_follower(autojump_clock: MockClock) -> None:
    async with open_fleet(3, write_quorum=0) as fleet:
        fleet.crash("n3")  # it may lead alone, as long as it has not heard of the change
        leader = fleet.nodes["n0"].require_leader()
        status, body = await change(fleet, 2)
        assert (status, body["code"]) == (503, "quorum_not_met")
        assert leader.write_quorum == 0
        await fleet.start("n3")
        await until(lambda: leader.write_quorum == 2)


async def test_a_member_that_is_added_does_not_count_before_it_is_one(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow: set[str] = set()
    monkeypatch.setattr(SimulatedLag, "draw_ms", lambda _, url: 60_000.0 if url in slow else 0.0)
    async with open_fleet(4, started=False) as fleet:
        four = ["n0", "n1", "n2", "n3"]
        for name in four[1:]:
            await fleet.start(name)
        await fleet.start("n0", leads=True, write_quorum=2, others=four)
        await fleet.wait_live("n0", 3)
        await fleet.wait_quiet("n0")
        fleet.crash("n0")
        slow |= {"http://n2", "http://n3"}  # they promise, and are not brought up to date yet
        await fleet.start("n4")
        await fleet.start("n0", leads=True, write_quorum=2)
        await fleet.wait_live(
            "n0", 2
        )  # n1, and n4, which is no member until two of n1, n2, n3 say so
        status, body = await fleet.put("n0", "w", 1)
        assert (status, body["code"]) == (503, "not_enough_followers")
        slow.clear()
        await fleet.wait_live("n0", 4, timeout_s=200)
        assert (await fleet.put("n0", "w", 1))[0] == 200


async def test_a_raised_quorum_is_not_settled_before_what_the_old_one_confirmed_has_arrived(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(5, write_quorum=1) as fleet:
        leader = fleet.nodes["n0"].require_leader()
        reconfiguration = fleet.nodes["n0"].require_leadership().reconfiguration
        leader.lag.set(LagRange(2000, 2000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(change, fleet, 5)
            await trio.sleep(0.5)
            # Begun under quorum 1, and confirmed by n1 alone: the others get it much later.
            leader.lag.set(LagRange(60_000, 60_000))
            leader.lag.set(LagRange(0, 0), "http://n1")
            assert (await fleet.put("n0", "w", 1))[0] == 200
            leader.lag.set(LagRange(0, 0))
            await trio.sleep(5)
            assert leader.write_quorum == 5
            assert not reconfiguration.settled
            for name in fleet.names:
                fleet.crash(name)
        await fleet.start("n5", leads=True, write_quorum=5)
        await fleet.start("n4")
        await trio.sleep(20)
        assert fleet.nodes["n5"].leader is None
        for name in ("n0", "n1", "n2", "n3"):
            await fleet.start(name)
        await fleet.wait_live("n5", 5)
        assert (await fleet.dumps())["n5"] == {"w": 1}


async def test_a_change_that_comes_into_force_while_the_next_is_written_is_kept_in_mind(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(5, write_quorum=3) as fleet:
        leader = fleet.nodes["n0"].require_leader()
        reconfiguration = fleet.nodes["n0"].require_leadership().reconfiguration
        disk = SlowDisk(fleet.nodes["n0"])
        leader.lag.set(LagRange(1000, 1000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(change, fleet, 1)
            await trio.sleep(0.99)
            disk.delay_s = 0.5
            nursery.start_soon(change, fleet, 5)  # on disk half a second after 1 could be in force
            for _ in range(20):
                await trio.sleep(0.1)
                voters = {v.write_quorum for v in reconfiguration.configuration.all_voters}
                assert leader.write_quorum in voters
            disk.delay_s = 0


async def test_a_start_that_leaves_a_member_out_still_needs_the_old_members_promises(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(2, write_quorum=1) as fleet:
        fleet.cut.add(frozenset(("n0", "n1")))
        assert (await fleet.put("n0", "w", 1))[0] == 200  # on n0 and n2
        fleet.crash("n0")
        fleet.wipe("n0")
        fleet.cut.clear()
        await fleet.start("n0", leads=True, write_quorum=1, others=["n1"])
        await trio.sleep(20)
        assert fleet.nodes["n0"].leader is None
        assert "FOLLOWER_URLS leaves out" in fleet.nodes["n0"].waiting_for[0]


async def test_a_late_batch_does_not_bring_back_what_was_deleted_and_purged(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(3, write_quorum=3) as fleet:
        assert (await fleet.put("n0", "k", 1))[0] == 200
        base, target, body = next(
            one
            for one in reversed(fleet.network.seen)
            if one[0] == "http://n1" and one[2] and b'"key":"k"' in one[2]
        )
        assert (await fleet.ask("n0", "DELETE", "/kv/{key}", None, "k"))[0] == 200
        await trio.sleep(10)
        assert [store.get("k") for store in fleet.stores.values()] == [None] * 4
        reply = await fleet.network.request("n0", "POST", base + target, body, timeout_s=1)
        assert reply.status == 200
        assert (await fleet.dumps())["n1"] == {}


async def test_a_removed_member_that_is_taken_back_brings_nothing_back(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(3, write_quorum=1) as fleet:
        assert (await fleet.put("n0", "k", 1))[0] == 200
        await fleet.wait_quiet("n0")
        await trio.sleep(5)
        fleet.crash("n3")
        fleet.crash("n0")
        three = ["n0", "n1", "n2"]
        await fleet.start("n0", leads=True, write_quorum=1, others=three)
        await fleet.wait_live("n0", 2)
        assert (await fleet.ask("n0", "DELETE", "/kv/{key}", None, "k"))[0] == 200
        await trio.sleep(10)
        assert [fleet.stores[name].get("k") for name in three] == [None] * 3
        fleet.crash("n0")
        fleet.wipe("n0")  # what it knew of the floor is gone, too
        await fleet.start("n3")
        await fleet.start("n0", leads=True, write_quorum=1)
        await fleet.wait_live("n0", 3)
        await fleet.wait_quiet("n0")
        assert await fleet.dumps() == {name: {} for name in fleet.names}


async def test_an_old_copy_of_a_followers_data_is_brought_up_to_date(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(3, write_quorum=2) as fleet:
        for key in ("kept", "changed", "deleted"):
            assert (await fleet.put("n0", key, "old"))[0] == 200
        await fleet.wait_quiet("n0")
        copied = fleet.stores["n1"]
        copy = (copied.page_by_version(None, 10**6, 10**9), copied.state)
        assert (await fleet.put("n0", "changed", "new"))[0] == 200
        assert (await fleet.ask("n0", "DELETE", "/kv/{key}", None, "deleted"))[0] == 200
        await trio.sleep(10)  # its tombstone is purged everywhere
        fleet.crash("n1")
        fleet.wipe("n1")
        with fleet.stores["n1"].transaction():
            fleet.stores["n1"].merge(entries_of(copy[0]))
            fleet.stores["n1"].set_state(copy[1])
        await until(lambda: fleet.nodes["n0"].require_leader().live_links == 2)
        await fleet.start("n1")
        await fleet.wait_live("n0", 3)
        await fleet.wait_quiet("n0")
        assert await fleet.dumps() == {
            name: {"kept": "old", "changed": "new"} for name in fleet.names
        }


async def test_a_client_that_leaves_in_the_middle_of_a_change_leaves_nothing_half_done(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(3, write_quorum=2) as fleet:
        disk = SlowDisk(fleet.nodes["n0"])
        disk.delay_s = 0.2
        with trio.move_on_after(0.1):
            await change(fleet, 1)
        disk.delay_s = 0
        await trio.sleep(5)
        await fleet.wait_quiet("n0")
        values = {store.get("\0configuration") for store in fleet.stores.values()}
        assert len(values) == 1


@pytest.mark.parametrize("steps", range(6))
async def test_a_wire_cut_and_healed_in_one_breath_loses_nothing(
    steps: int, autojump_clock: MockClock
) -> None:
    async with open_fleet(2, write_quorum=1) as fleet:

        async def partition(cut: bool) -> None:
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            asked = {"follower": "n2", "cut": cut}
            await fleet.ask("n0", "POST", "/admin/partition", asked)

        for index in range(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fleet.put, "n0", f"k{index}", index)
                nursery.start_soon(partition, True)
                nursery.start_soon(partition, False)
            await partition(False)
            await trio.sleep(3)
        await fleet.wait_quiet("n0")
        await fleet.assert_equal()


async def test_two_addresses_of_one_member_remove_no_other(autojump_clock: MockClock) -> None:
    async with open_fleet(2, write_quorum=1) as fleet:
        for name in ("n0", "n1"):
            fleet.crash(name)
        fleet.network.nodes["http://n1"] = fleet.nodes["n2"]  # n2 answers at n1's address, too
        await fleet.start("n0", leads=True, write_quorum=1)
        await trio.sleep(20)
        del fleet.network.nodes["http://n1"]
        await fleet.start("n1")
        await fleet.wait_live("n0", 2)
        configuration = fleet.nodes["n0"].require_leadership().reconfiguration.configuration
        assert configuration.members.keys() == {"n0", "n1", "n2"}


async def test_an_operators_word_holds_for_one_admission_that_waits(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(2, write_quorum=2) as fleet:
        status, body = await fleet.ask("n0", "POST", "/admin/admit", {"follower": "n2"})
        assert (status, body["field"]) == (422, "follower")
        assert "is live" in body["detail"]


async def test_a_member_that_is_left_out_holds_the_floor_down_until_that_is_settled(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(2, write_quorum=2) as fleet:
        assert (await fleet.put("n0", "w", 1))[0] == 200
        await fleet.wait_quiet("n0")
        fleet.cut.add(frozenset(("n0", "n2")))
        assert (await fleet.put("n0", "w", 2))[0] == 503  # on n0 and n1 only
        for name in fleet.names:
            fleet.crash(name)
        fleet.cut.clear()
        await fleet.start("n1")
        # Without n2, and with a quorum that the old one cannot confirm: pending for ever.
        await fleet.start("n0", leads=True, write_quorum=1, others=["n0", "n1"])
        await fleet.wait_live("n0", 1)
        await trio.sleep(10)
        for name in ("n0", "n1"):
            fleet.crash(name)
        for _ in range(2):  # n2 may lead alone (N - k = 1), and goes above
            await fleet.start("n2", leads=True, write_quorum=2)
            await fleet.wait_leads("n2")
            fleet.crash("n2")
        await fleet.start("n2", leads=True, write_quorum=2)
        for name in ("n0", "n1"):
            await fleet.start(name)
        await fleet.wait_live("n2", 2)
        await fleet.wait_quiet("n2")
        await fleet.assert_equal()


async def test_from_quorum_zero_a_removed_member_may_lead_alone_and_replicas_end_equal(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(3, write_quorum=0) as fleet:
        for key in ("x", "y"):
            assert (await fleet.put("n0", key, 1))[0] == 200
        await fleet.wait_quiet("n0")
        for name in ("n0", "n3"):
            fleet.crash(name)
        await fleet.start("n0", leads=True, write_quorum=0, others=["n0", "n1", "n2"])
        await fleet.wait_live("n0", 2)
        assert (await fleet.ask("n0", "DELETE", "/kv/{key}", None, "x"))[0] == 200
        await fleet.wait_quiet("n0")
        await trio.sleep(10)
        for name in ("n0", "n1", "n2"):
            fleet.crash(name)
        await fleet.start("n3", leads=True, write_quorum=0)
        await fleet.wait_leads("n3")
        fleet.crash("n3")
        await fleet.start("n3", leads=True, write_quorum=0)
        for name in ("n0", "n1", "n2"):
            await fleet.start(name)
        await fleet.wait_live("n3", 3)
        await fleet.wait_quiet("n3")
        await fleet.assert_equal()


@pytest.mark.parametrize("leader", ["n0", "n1"])
async def test_an_old_copy_neither_speaks_nor_leads_with_what_it_holds(
    leader: str, autojump_clock: MockClock
) -> None:
    async with open_fleet(3, write_quorum=2) as fleet:
        for key in ("x", "y"):
            assert (await fleet.put("n0", key, 1))[0] == 200
        await fleet.wait_quiet("n0")
        held, state = fleet.stores["n1"].page_by_version(None, 99, 10**6), fleet.stores["n1"].state
        await trio.sleep(5)
        assert (await fleet.ask("n0", "DELETE", "/kv/{key}", None, "x"))[0] == 200
        await fleet.wait_quiet("n0")
        await trio.sleep(10)
        for name in fleet.names:
            fleet.crash(name)
        fleet.wipe("n1")
        with fleet.stores["n1"].transaction():
            fleet.stores["n1"].merge(entries_of(held))
            fleet.stores["n1"].set_state(state)
        if leader == "n0":
            fleet.wipe("n0")
        for name in fleet.names:
            if name != leader:
                await fleet.start(name)
        await fleet.start(leader, leads=True, write_quorum=2)
        await fleet.wait_live(leader, 3)
        await fleet.wait_quiet(leader)
        assert await fleet.dumps() == {name: {"y": 1} for name in fleet.names}


async def test_two_members_may_exchange_their_addresses(autojump_clock: MockClock) -> None:
    async with open_fleet(3, write_quorum=1) as fleet:
        assert (await fleet.put("n0", "w", 1))[0] == 200
        await fleet.wait_quiet("n0")
        fleet.crash("n0")
        nodes = fleet.network.nodes
        nodes["http://n1"], nodes["http://n2"] = nodes["http://n2"], nodes["http://n1"]
        await fleet.start("n0", leads=True, write_quorum=1)
        await fleet.wait_live("n0", 3)


async def test_a_change_that_another_has_replaced_is_not_said_to_be_in_force(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(5, write_quorum=3) as fleet:
        fleet.nodes["n0"].require_leader().lag.set(LagRange(3000, 3000))
        answers: list[tuple[int, dict[str, Any]]] = []

        async def first() -> None:
            answers.append(await change(fleet, 5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await trio.sleep(0.5)
            status, _ = await fleet.ask(
                "n0", "POST", "/admin/quorum", {"write_quorum": 2, "force": True}
            )
            assert status == 200
        ((status, body),) = answers
        assert (status, body["code"]) == (503, "quorum_not_met")
        assert "a later change" in body["detail"]


async def test_what_was_confirmed_before_a_change_to_quorum_zero_survives_the_leader(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(3, write_quorum=2) as fleet:
        leader = fleet.nodes["n0"].require_leader()
        leader.lag.set(LagRange(60_000, 60_000), "http://n3")
        assert (await fleet.put("n0", "w", 1))[0] == 200  # n3 gets it a minute later
        leader.lag.set(LagRange(0, 0), "http://n3")
        assert (await change(fleet, 0))[0] == 200
        await trio.sleep(3)
        reconfiguration = fleet.nodes["n0"].require_leadership().reconfiguration
        assert not reconfiguration.settled
        for name in ("n0", "n3"):
            fleet.crash(name)
        for other in ("n1", "n2"):
            fleet.cut.add(frozenset(("n3", other)))
        await fleet.start("n3", leads=True, write_quorum=2)
        await trio.sleep(5)
        assert fleet.nodes["n3"].leader is None  # it knows of quorum 0, and must not lead alone yet
        fleet.cut.clear()
        await fleet.wait_live("n3", 2)
        await trio.sleep(5)
        assert await fleet.dumps() == {name: {"w": 1} for name in ("n1", "n2", "n3")}


async def test_a_change_to_quorum_zero_settles_once_all_are_past_it(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(3, write_quorum=2) as fleet:
        reconfiguration = fleet.nodes["n0"].require_leadership().reconfiguration
        assert (await change(fleet, 0))[0] == 200
        await until(lambda: reconfiguration.settled)


async def test_a_client_that_leaves_does_not_take_back_a_change(autojump_clock: MockClock) -> None:
    async with open_fleet(5, write_quorum=3) as fleet:
        node = fleet.nodes["n0"]
        reconfiguration = node.require_leadership().reconfiguration
        disk = SlowDisk(node)
        disk.delay_s = 0.5
        with trio.move_on_after(0.2):
            await reconfiguration.change(1, force=False)
        disk.delay_s = 0
        await until(lambda: reconfiguration.settled and node.require_leader().write_quorum == 1)
        assert {len(kept_in_mind(fleet, name)) for name in fleet.names} == {1}


async def test_what_a_full_disk_refused_of_a_change_is_tried_again(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(3, write_quorum=1) as fleet:
        await fleet.wait_quiet("n0")
        node = fleet.nodes["n0"]
        reconfiguration = node.require_leadership().reconfiguration
        for other in ("n2", "n3"):
            fleet.cut.add(frozenset(("n0", other)))
        await until(lambda: node.require_leader().live_links == 1)
        assert (await change(fleet, 2))[0] == 200
        fleet.disks["n0"].full = True
        fleet.cut.clear()
        await fleet.wait_live("n0", 3)
        await trio.sleep(5)
        assert not reconfiguration.settled
        fleet.disks["n0"].full = False
        await until(lambda: reconfiguration.settled)


async def test_a_change_keeps_in_mind_what_the_one_before_it_replaced(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(5, write_quorum=1) as fleet:
        leader = fleet.nodes["n0"].require_leader()
        leader.lag.set(LagRange(60_000, 60_000))
        leader.lag.set(LagRange(0, 0), "http://n1")
        assert (await fleet.put("n0", "w", 1))[0] == 200  # under quorum 1: on n0 and n1
        leader.lag.set(LagRange(0, 0))
        assert (await change(fleet, 3))[0] == 200
        assert (await change(fleet, 2))[0] in (
            200,
            503,
        )  # in force, or pending, which is the same here
        assert sorted(v.write_quorum for v in kept_in_mind(fleet, "n5")) == [1, 2, 3]
        for name in fleet.names:
            fleet.crash(name)
        for name in ("n2", "n3", "n4"):
            await fleet.start(name)
        await fleet.start("n5", leads=True, write_quorum=2)
        await trio.sleep(20)
        assert fleet.nodes["n5"].leader is None  # four would do for 2, and for 1 it takes five
        await fleet.start("n1")
        await fleet.wait_live("n5", 4)
        assert fleet.stores["n5"].get("w") is not None


def kept_in_mind(fleet: Fleet, name: str) -> tuple[Voters, ...]:
    """All voters that a takeover minds which finds this node's configuration."""
    found = configuration_in(fleet.stores[name].get(KEY))
    assert found is not None
    return found[1].all_voters


async def test_a_change_that_goes_back_and_forth_forgets_nothing_that_is_not_settled(
    autojump_clock: MockClock,
) -> None:
    """2 → 4, in force and unsettled; → 2, pending; → 4: the record must still name 2."""
    async with open_fleet(4, write_quorum=2) as fleet:
        leader = fleet.nodes["n0"].require_leader()
        for url in ("http://n3", "http://n4"):
            leader.lag.set(LagRange(60_000, 60_000), url)
        assert (await fleet.put("n0", "w", 1))[0] == 200  # under 2: on n0, n1 and n2
        leader.lag.set(LagRange(0, 0))
        assert (await change(fleet, 4))[0] == 200
        fleet.cut.add(frozenset(("n0", "n4")))  # so the next change stays pending
        with trio.move_on_after(0.5):
            await change(fleet, 2)
        fleet.cut.clear()
        await fleet.wait_live("n0", 4)
        with trio.move_on_after(0.5):
            await change(fleet, 4)
        await until(lambda: fleet.stores["n3"].state.watermark.timestamp_us > 0)
        assert sorted({v.write_quorum for v in kept_in_mind(fleet, "n0")}) == [2, 4]
        for name in fleet.names:
            fleet.crash(name)
        await fleet.start("n4")
        await fleet.start("n3", leads=True, write_quorum=2)
        await trio.sleep(20)
        assert fleet.nodes["n3"].leader is None  # for 4 it takes one promise, for 2 it takes three
