"""Real processes, killed, paused and emptied under a mixed load: nothing confirmed is lost, and all
replicas end equal."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.e2e.cluster import NodeProcess, Nodes, open_nodes, until
from tests.e2e.load import MixedLoad


def check(nodes: Nodes, load: MixedLoad) -> None:
    """All is quiet, and up: every confirmed write is there, on every node."""
    nodes.wait_live(len(nodes.followers))
    nodes.wait_match()
    load.check(*nodes.all)
    assert load.confirmed > 100, load.codes


def test_a_leader_that_is_killed_and_started_again_has_every_confirmed_write(
    tmp_path: Path,
) -> None:
    with open_nodes(tmp_path) as nodes:
        load = MixedLoad(nodes.leader.url)
        with load.running():
            load.goes_on()
            nodes.leader.kill()
            nodes.restart(nodes.leader)
            load.goes_on()
        check(nodes, load)


def test_a_surviving_follower_takes_over_from_a_leader_that_died_with_two_others(
    tmp_path: Path,
) -> None:
    with open_nodes(tmp_path, REQUEST_TIMEOUT="1") as nodes:
        load = MixedLoad(nodes.leader.url)
        old, dead, heir = nodes.leader, nodes.followers[:2], nodes.followers[4]
        with load.running():
            load.goes_on()
            for node in (old, *dead):
                node.kill()
            heir.kill()
            nodes.promote(heir)
            nodes.restart(heir)
            load.url = heir.url
            # Three nodes are up, which is enough to take over, and one too few to confirm.
            until(lambda: heir.get("/health")["leads"], "it leads")
            until(lambda: load.codes["not_enough_followers"] > 0, "writes are refused, unwritten")
            nodes.restart(dead[0])
            load.goes_on()
            nodes.restart(old, dead[1])  # the old leader comes back as a follower, with its data
            load.goes_on()
        check(nodes, load)
        assert heir.put("after", 1).status_code == 200


def test_an_emptied_leader_does_not_wipe_the_cluster_and_an_emptied_follower_joins_as_new(
    tmp_path: Path,
) -> None:
    with open_nodes(tmp_path) as nodes:
        load = MixedLoad(nodes.leader.url)
        with load.running():
            load.goes_on()
            nodes.leader.kill()
            nodes.leader.empty()
            nodes.restart(nodes.leader)
            load.goes_on()
            nodes.followers[0].kill()
            nodes.followers[0].empty()
            nodes.restart(nodes.followers[0])
            load.goes_on()
        check(nodes, load)
        assert "a new node" not in str(nodes.leader.get("/admin/replica-status"))


def test_a_leader_that_wakes_up_after_a_takeover_confirms_nothing_any_more(tmp_path: Path) -> None:
    with open_nodes(tmp_path, REQUEST_TIMEOUT="1") as nodes:
        old, heir = nodes.leader, nodes.followers[0]
        load = MixedLoad(old.url)
        with load.running():
            load.goes_on()
            old.pause()
            heir.kill()
            nodes.promote(heir)
            nodes.restart(heir)
            until(lambda: heir.get("/health")["ready"], "the new leader is ready")
            load.url = (
                heir.url
            )  # those that still wait for the old one hear from it when it wakes up
            assert heir.put("moved", "on").status_code == 200
            old.wake()
            refused = MixedLoad(old.url, clients=2, seed=1)
            with refused.running():
                until(lambda: refused.codes["not_ready"] > 10, "the old leader refuses")
                assert old.ask("GET", "/health?ready=true").status_code == 503
            assert refused.confirmed == 0, refused.codes
            load.goes_on()
        assert "leader.deposed" in old.log()
        assert old.stop() == 0
        nodes.restart(old)
        load.calls += refused.calls
        check(nodes, load)
        assert heir.get("/kv/moved")["value"] == "on"


def test_all_nodes_killed_at_once_come_back_with_every_confirmed_write(tmp_path: Path) -> None:
    with open_nodes(tmp_path) as nodes:
        load = MixedLoad(nodes.leader.url)
        with load.running():
            load.goes_on(300)
            for node in nodes.all:
                node.process.kill()
            for node in nodes.all:
                node.kill()
            nodes.restart(*nodes.all)
            load.goes_on()
        check(nodes, load)


@pytest.mark.parametrize(
    ("owner", "heir", "write_quorum"),
    [("leader", "follower1", 2), ("follower1", "follower1", 1)],
)
def test_a_cluster_comes_back_from_a_copy_of_one_data_directory(
    tmp_path: Path, owner: str, heir: str, write_quorum: int
) -> None:
    """As docs/operations.md says: all else is lost; the copy follows, or leads."""
    with open_nodes(tmp_path, 2, write_quorum=write_quorum) as nodes:
        named = {node.name: node for node in nodes.all}
        saved, copy = named[owner], tmp_path / "copy"
        assert nodes.leader.put("a", 1).status_code == 200
        nodes.wait_match()
        cluster = nodes.leader.get("/health")["cluster"]
        assert saved.stop() == 0
        shutil.copytree(saved.data_dir, copy)
        nodes.restart(saved)
        nodes.wait_live(2)
        assert nodes.leader.put("late", 1).status_code == 200
        for node in nodes.all:
            node.kill()
            node.empty()

        shutil.copytree(copy, saved.data_dir)
        if named[heir] is not nodes.leader:
            nodes.promote(named[heir])
        nodes.leader.start()
        nodes.leader.wait_started()
        time.sleep(2)
        assert nodes.leader.get("/health")["leads"] is False  # it waits for all the others
        nodes.restart(*nodes.followers)
        nodes.wait_live(2)
        nodes.wait_match()
        assert nodes.leader.get("/health")["cluster"] == cluster
        assert nodes.leader.put("new", 2).status_code == 200
        nodes.wait_match()
        for node in nodes.all:
            assert node.get("/dump") == {"a": 1, "new": 2}


def test_a_wire_that_is_cut_over_the_api_heals_and_the_follower_catches_up(tmp_path: Path) -> None:
    with open_nodes(tmp_path) as nodes:
        load = MixedLoad(nodes.leader.url)
        with load.running():
            load.goes_on()
            told = nodes.leader.ask(
                "POST", "/admin/partition", {"follower": "follower2", "cut": True}
            )
            assert told.json()["cut"] is True
            load.goes_on(200)
            status = nodes.leader.get("/admin/replica-status")["followers"][1]
            assert (status["link"], status["status"]) == ("cut", "unreachable")
            assert status["lag_records"] > 0
            nodes.leader.ask("POST", "/admin/partition", {"follower": "follower2", "cut": False})
            load.goes_on()
        assert load.codes.keys() <= {"200", "version_conflict", "not_found"}, load.codes
        check(nodes, load)


def refuses_to_start(node: NodeProcess) -> str:
    """What a node says that does not start."""
    node.start()
    assert node.process.wait(30) == 2
    return node.log().splitlines()[-1]


def test_a_directory_of_another_node_is_refused_at_start(
    tmp_path: Path,
) -> None:
    with open_nodes(tmp_path, followers=1, write_quorum=1) as nodes:
        follower = nodes.followers[0]
        assert follower.stop() == 0
        follower.settings["NODE_ID"] = "another"
        assert "NODE_ID='another': expected 'follower1'" in refuses_to_start(follower)
        follower.settings["NODE_ID"] = "follower1"
        nodes.restart(follower)
        nodes.wait_live(1)
