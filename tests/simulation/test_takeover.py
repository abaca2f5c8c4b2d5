"""Restarts, takeovers, emptied disks: who leads, who is refused, and that nothing confirmed is lost."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.simulation.fleet import Fleet, open_fleet
from tests.support import until
from trikv.model.membership import KEY
from trikv.model.version import NO_EPOCH, Epoch
from trikv.network.peers import configuration_in
from trikv.replication.link import LinkState
from trikv.storage.store import Store


async def write(fleet: Fleet, name: str, count: int, tag: str) -> dict[str, str]:
    """So many confirmed writes; what the map must show."""
    written = {}
    for index in range(count):
        status, body = await fleet.put(name, f"key{index}", f"{tag}{index}")
        assert status == 200, body
        written[f"key{index}"] = f"{tag}{index}"
    return written


async def test_a_cluster_is_born_only_once_every_member_has_promised(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(3, started=False) as fleet:
        for name in ("n1", "n2"):
            await fleet.start(name)
        await fleet.start("n0", leads=True, write_quorum=1)
        await trio.sleep(30)
        status, body = await fleet.put("n0", "a", 1)
        assert (status, body["code"]) == (503, "not_ready")
        assert "http://n3" in body["detail"]
        status, health = await fleet.ask("n0", "GET", "/health?ready=true")
        assert status == 503
        assert "http://n3" in health["waiting_for"][0]
        await fleet.start("n3")
        await fleet.wait_live("n0", 3)
        assert (await fleet.put("n0", "a", 1))[0] == 200
        clusters = {store.state.cluster for store in fleet.stores.values()}
        assert len(clusters) == 1
        assert clusters != {""}


async def test_a_leader_that_starts_again_has_all_that_was_confirmed(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet() as fleet:
        written = await write(fleet, "n0", 5, "a")
        first = fleet.nodes["n0"].epoch
        fleet.crash("n0")
        await fleet.start("n0", leads=True, write_quorum=3)
        await fleet.wait_live("n0", 5)
        assert fleet.nodes["n0"].epoch > first
        await fleet.wait_quiet("n0")
        assert await fleet.dumps() == dict.fromkeys(fleet.names, written)


async def test_an_emptied_leader_takes_over_what_its_followers_hold(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet() as fleet:
        written = await write(fleet, "n0", 5, "a")
        cluster = fleet.stores["n0"].state.cluster
        fleet.crash("n0")
        fleet.wipe("n0")
        await fleet.start("n0", leads=True, write_quorum=3)
        await fleet.wait_live("n0", 5)
        await fleet.wait_quiet("n0")
        assert await fleet.dumps() == dict.fromkeys(fleet.names, written)
        assert fleet.stores["n0"].state.cluster == cluster


async def test_a_follower_takes_over_with_two_others_and_nothing_confirmed_is_lost(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet() as fleet:
        written = await write(fleet, "n0", 5, "a")
        for name in ("n0", "n1", "n2", "n3"):  # n3 comes back as the leader
            fleet.crash(name)
        await fleet.start("n3", leads=True, write_quorum=2)
        await fleet.wait_leads("n3")
        # The quorum that is in force is the old one, until as many have confirmed the new one.
        status, body = await fleet.put("n3", "b", 1)
        assert (status, body["code"]) == (503, "not_enough_followers")
        assert body["required"] == 3
        await fleet.start("n2")
        await fleet.wait_live("n3", 3)
        await until(lambda: fleet.nodes["n3"].require_leader().write_quorum == 2)
        assert (await fleet.put("n3", "b", 1))[0] == 200
        for name in ("n0", "n1"):
            await fleet.start(name)
        await fleet.wait_live("n3", 5)
        await fleet.wait_quiet("n3")
        assert await fleet.dumps() == {name: {**written, "b": 1} for name in fleet.names}


async def test_a_takeover_waits_for_as_many_as_a_confirmed_write_can_be_missing_on(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet() as fleet:
        await write(fleet, "n0", 1, "a")
        for name in fleet.names:
            fleet.crash(name)
        await fleet.start("n1", leads=True, write_quorum=3)
        await fleet.start("n2")
        await trio.sleep(60)
        assert fleet.nodes["n1"].leader is None  # two of N - k = 3
        assert "1 more to promise" in fleet.nodes["n1"].waiting_for[0]
        await fleet.start("n3")
        await fleet.wait_leads("n1")


async def test_a_new_node_does_not_count_for_a_takeover(autojump_clock: MockClock) -> None:
    async with open_fleet() as fleet:
        written = await write(fleet, "n0", 3, "a")
        for name in fleet.names:
            fleet.crash(name)
        fleet.wipe("n3")
        await fleet.start("n1", leads=True, write_quorum=3)
        await fleet.start("n2")
        await fleet.start("n3")
        await trio.sleep(60)
        assert fleet.nodes["n1"].leader is None
        await fleet.start("n4")
        # n3 is brought in only once a third, besides n2 and n4, can say that nobody else leads.
        await fleet.wait_live("n1", 2)
        await trio.sleep(60)
        assert fleet.nodes["n1"].require_leader().live_links == 2
        await fleet.start("n5")
        await fleet.wait_live("n1", 4)
        assert (await fleet.dumps())["n3"] == written


async def test_an_old_leader_that_wakes_up_confirms_nothing_any_more(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet() as fleet:
        written = await write(fleet, "n0", 3, "a")
        for other in fleet.names[1:]:
            fleet.cut.add(frozenset(("n0", other)))
        fleet.crash("n1")
        await fleet.start("n1", leads=True, write_quorum=3)
        await fleet.wait_live("n1", 4)
        assert (await fleet.put("n1", "key0", "new"))[0] == 200
        fleet.cut.clear()
        old = fleet.nodes["n0"].leader
        assert old is not None
        await until(lambda: old.deposed is not None)
        status, body = await fleet.put("n0", "key0", "lost")
        assert (status, body["code"]) == (503, "not_ready")
        status, body = await fleet.ask("n0", "GET", "/health?ready=true")
        assert (status, body["leads"]) == (503, False)
        link = next(ln for ln in fleet.nodes["n1"].require_leader().links if ln.url == "http://n0")
        await until(lambda: "ROLE=leader" in (link.reason or ""))
        fleet.crash("n0")
        await fleet.start("n0")
        await fleet.wait_live("n1", 5)
        await fleet.wait_quiet("n1")
        assert await fleet.dumps() == {name: {**written, "key0": "new"} for name in fleet.names}


async def test_what_only_a_lost_leader_had_is_overruled_when_it_comes_back(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet() as fleet:
        written = await write(fleet, "n0", 3, "a")
        for other in fleet.names[1:]:
            fleet.cut.add(frozenset(("n0", other)))
        # Written at n0 alone: a new key, and one that was confirmed before.
        for key in ("key0", "stray"):
            status, body = await fleet.put("n0", key, "unconfirmed")
            assert status == 503, body
            if body["code"] == "not_enough_followers":
                break
        assert fleet.stores["n0"].get("key0").version  # type: ignore[union-attr]
        fleet.crash("n0")
        fleet.cut.clear()
        fleet.crash("n1")
        await fleet.start("n1", leads=True, write_quorum=3)
        await fleet.wait_live("n1", 4)
        await fleet.start("n0")
        await fleet.wait_live("n1", 5)
        await fleet.wait_quiet("n1")
        assert await fleet.dumps() == dict.fromkeys(fleet.names, written)


async def test_a_new_follower_waits_until_enough_others_have_answered_again(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet() as fleet:
        written = await write(fleet, "n0", 3, "a")
        fleet.crash("n5")
        fleet.wipe("n5")
        for other in ("n1", "n2", "n3"):
            fleet.cut.add(frozenset(("n0", other)))
        leader = fleet.nodes["n0"].require_leader()
        await until(lambda: leader.live_links == 1)
        await fleet.start("n5")
        link = next(link for link in leader.links if link.url == "http://n5")
        await trio.sleep(60)
        assert link.state is LinkState.CONNECTING
        assert "new node" in (link.reason or "")
        assert fleet.stores["n5"].state.established == NO_EPOCH
        fleet.cut.clear()
        await fleet.wait_live("n0", 5)
        await fleet.wait_quiet("n0")
        assert (await fleet.dumps())["n5"] == written


async def test_an_operator_may_admit_a_new_node(autojump_clock: MockClock) -> None:
    async with open_fleet(2, write_quorum=2) as fleet:
        fleet.crash("n2")
        fleet.wipe("n2")
        fleet.cut.add(frozenset(("n0", "n1")))
        await until(lambda: fleet.nodes["n0"].require_leader().live_links == 0)
        await fleet.start("n2")
        await trio.sleep(30)
        assert fleet.nodes["n0"].require_leader().live_links == 0
        status, body = await fleet.ask("n0", "POST", "/admin/admit", {"follower": "n2"})
        assert (status, body["admitted"]) == (200, True)
        await fleet.wait_live("n0", 1)


async def test_a_node_of_another_cluster_is_refused_by_name(autojump_clock: MockClock) -> None:
    async with open_fleet(1, write_quorum=1) as fleet:
        fleet.crash("n0")
        fleet.crash("n1")
        fleet.wipe("n1")
        await fleet.start("n1", leads=True, write_quorum=0, others=[])
        await fleet.wait_leads("n1")  # it has founded a cluster of its own
        fleet.crash("n1")
        await fleet.start("n1")
        await fleet.start("n0", leads=True, write_quorum=1)
        await fleet.wait_leads("n0")
        link = fleet.nodes["n0"].require_leader().links[0]
        await until(lambda: "wrong_cluster" in (link.reason or ""))
        assert fleet.stores["n0"].state.cluster in (link.reason or "")


async def test_a_start_that_changes_two_members_is_refused_with_the_difference(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet() as fleet:
        fleet.crash("n0")
        await fleet.start("n0", leads=True, write_quorum=3, others=["n1", "n2", "n3"])
        await until(lambda: not fleet.is_up("n0"))
        (said,) = (line for line in fleet.trace if "n0 ends itself: " in line)
        assert "FOLLOWER_URLS: expected " in said
        assert "n4 is missing, n5 is missing" in said


async def test_one_member_may_be_left_out_at_a_start(autojump_clock: MockClock) -> None:
    async with open_fleet(3, write_quorum=1) as fleet:
        written = await write(fleet, "n0", 3, "a")
        fleet.crash("n0")
        fleet.crash("n3")
        await fleet.start("n0", leads=True, write_quorum=1, others=["n1", "n2"])
        await fleet.wait_live("n0", 2)
        assert (await fleet.dumps())["n1"] == written
        reconfiguration = fleet.nodes["n0"].require_leadership().reconfiguration
        await until(lambda: reconfiguration.configuration.previous == ())
        assert reconfiguration.configuration.members.keys() == {"n0", "n1", "n2"}


async def test_two_nodes_that_want_to_lead_end_with_one_leader(autojump_clock: MockClock) -> None:
    async with open_fleet(4, write_quorum=2) as fleet:
        written = await write(fleet, "n0", 3, "a")
        for name in ("n0", "n1", "n2"):
            fleet.crash(name)
        for name in ("n1", "n2"):
            await fleet.start(name, leads=True, write_quorum=2)
        await fleet.start("n0")
        await trio.sleep(120)
        leading = [
            name
            for name in ("n1", "n2")
            if (leader := fleet.nodes[name].leader) is not None and leader.deposed is None
        ]
        assert len(leading) == 1
        assert (await fleet.put(leading[0], "key0", "b"))[0] == 200
        assert (await fleet.dumps())[leading[0]] == {**written, "key0": "b"}


async def test_with_quorum_zero_a_leader_leads_alone(autojump_clock: MockClock) -> None:
    async with open_fleet(2, write_quorum=0) as fleet:
        written = await write(fleet, "n0", 3, "a")
        await fleet.wait_quiet("n0")
        for name in fleet.names:
            fleet.crash(name)
        await fleet.start("n0", leads=True, write_quorum=0)
        await fleet.wait_leads("n0")
        assert (await fleet.dumps())["n0"] == written
        assert (await fleet.put("n0", "key0", 1))[0] == 200


async def test_a_raised_quorum_is_in_force_once_the_old_one_has_confirmed_it(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(5, write_quorum=2) as fleet:
        for other in ("n4", "n5"):
            fleet.cut.add(frozenset(("n0", other)))
        leader = fleet.nodes["n0"].require_leader()
        await until(lambda: leader.live_links == 3)
        status, body = await fleet.ask("n0", "POST", "/admin/quorum", {"write_quorum": 5})
        assert (status, body["write_quorum"], body["previous_write_quorum"]) == (200, 5, 2)
        reconfiguration = fleet.nodes["n0"].require_leadership().reconfiguration
        await trio.sleep(5)
        # In force, but not settled: a takeover goes by both until five are past it.
        assert {v.write_quorum for v in reconfiguration.configuration.all_voters} == {5, 2}
        assert (await fleet.put("n0", "a", 1))[1]["code"] == "not_enough_followers"
        fleet.cut.clear()
        await until(lambda: reconfiguration.configuration.previous == ())
        assert (await fleet.put("n0", "a", 1))[0] == 200


async def test_a_lowered_quorum_is_not_in_force_before_the_old_one_has_confirmed_it(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(5, write_quorum=5) as fleet:
        leader = fleet.nodes["n0"].require_leader()
        fleet.cut.add(frozenset(("n0", "n5")))  # not noticed yet
        status, body = await fleet.ask("n0", "POST", "/admin/quorum", {"write_quorum": 1})
        assert (status, body["code"]) == (503, "quorum_not_met")
        assert leader.write_quorum == 5
        status, health = await fleet.ask("n0", "GET", "/health")
        assert (health["write_quorum"], health["pending_write_quorum"]) == (5, 1)
        assert (await fleet.put("n0", "a", 1))[1]["code"] == "not_enough_followers"
        status, body = await fleet.ask(
            "n0", "POST", "/admin/quorum", {"write_quorum": 1, "force": True}
        )
        assert status == 200
        assert "warning" in body
        assert (await fleet.put("n0", "a", 1))[0] == 200
        assert leader.write_quorum == 1


async def test_a_pending_quorum_takes_effect_when_the_missing_follower_comes_back(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(3, write_quorum=3) as fleet:
        fleet.cut.add(frozenset(("n0", "n3")))
        status, _ = await fleet.ask("n0", "POST", "/admin/quorum", {"write_quorum": 1})
        assert status == 503
        fleet.cut.clear()
        leader = fleet.nodes["n0"].require_leader()
        await until(lambda: leader.write_quorum == 1)


async def test_a_leader_that_has_promised_higher_commits_nothing_of_its_own_any_more(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(2, write_quorum=1) as fleet:
        node = fleet.nodes["n0"]

        def promise_elsewhere(store: Store) -> None:
            store.set_state(store.state._replace(promised=Epoch(9, "z")))

        # As when a promise and a write come in the same moment: the leader has not heard of it yet.
        await node.committer.commit(promise_elsewhere)
        status, body = await fleet.put("n0", "late", 1)
        assert (status, body["code"]) == (503, "not_ready")
        assert "9.z" in body["detail"]
        assert fleet.stores["n0"].get("late") is None


async def test_a_member_whose_disk_is_emptied_after_its_promise_does_not_speak(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet() as fleet:
        # Confirmed on n0, n1, n4 and n5 alone.
        for other in ("n2", "n3"):
            fleet.cut.add(frozenset(("n0", other)))
        await until(lambda: fleet.nodes["n0"].require_leader().live_links == 3)
        written = await write(fleet, "n0", 2, "a")
        for name in fleet.names:
            fleet.crash(name)
        fleet.cut.clear()
        await fleet.start("n2", leads=True, write_quorum=3)
        await fleet.start("n1")
        await trio.sleep(5)
        assert "1 more to promise" in fleet.nodes["n2"].waiting_for[0]
        # n1 has promised; now it loses all that it had to say, and only then n3 makes three.
        fleet.crash("n1")
        fleet.wipe("n1")
        await fleet.start("n1")
        await fleet.start("n3")
        await trio.sleep(60)
        assert fleet.nodes["n2"].leader is None
        await fleet.start("n4")
        await fleet.wait_leads("n2")
        assert (await fleet.dumps())["n2"] == written


async def test_a_change_of_the_quorum_that_only_a_lost_leader_had_is_overruled(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(5, write_quorum=3) as fleet:
        for other in fleet.names[1:]:
            fleet.cut.add(frozenset(("n0", other)))
        status, body = await fleet.ask("n0", "POST", "/admin/quorum", {"write_quorum": 1})
        assert (status, body["code"]) == (503, "quorum_not_met")
        fleet.crash("n0")
        fleet.cut.clear()
        fleet.crash("n1")
        await fleet.start("n1", leads=True, write_quorum=3)
        await fleet.wait_live("n1", 4)
        fleet.crash("n1")
        await fleet.start("n1")
        await fleet.start("n0", leads=True, write_quorum=1)
        await fleet.wait_live("n0", 5)
        reconfiguration = fleet.nodes["n0"].require_leadership().reconfiguration
        await until(lambda: reconfiguration.configuration.previous == ())
        await fleet.wait_quiet("n0")
        for store in fleet.stores.values():
            found = configuration_in(store.get(KEY))
            assert found is not None
            assert found[1] == reconfiguration.configuration
