"""Long absences, on real processes under a mixed load."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.cluster import open_nodes
from tests.e2e.load import MixedLoad
from tests.e2e.test_survival import check

#: What a load may be answered when nothing is wrong.
ORDINARY = {"200", "version_conflict", "not_found"}


def test_writes_never_stop_while_a_follower_is_dead_for_ten_seconds(tmp_path: Path) -> None:
    with open_nodes(tmp_path) as nodes:
        load = MixedLoad(nodes.leader.url)
        with load.running():
            load.goes_on()
            nodes.followers[0].kill()
            killed = time.monotonic()
            while time.monotonic() - killed < 10:
                load.goes_on(20)
            nodes.restart(nodes.followers[0])
            load.goes_on()
        assert load.codes.keys() <= ORDINARY, load.codes
        check(nodes, load)
        print(f"\nconfirmed {load.confirmed}, longest gap {load.longest_gap_s * 1000:.0f} ms")


@pytest.mark.timeout(180)
def test_a_wire_that_is_cut_for_a_minute(tmp_path: Path) -> None:
    with open_nodes(tmp_path) as nodes:
        load = MixedLoad(nodes.leader.url)
        with load.running():
            load.goes_on()
            nodes.leader.ask("POST", "/admin/partition", {"follower": "follower3", "cut": True})
            cut = time.monotonic()
            while time.monotonic() - cut < 60:
                load.goes_on(20)
            nodes.leader.ask("POST", "/admin/partition", {"follower": "follower3", "cut": False})
            load.goes_on()
        assert load.codes.keys() <= ORDINARY, load.codes
        check(nodes, load)
        print(f"\nconfirmed {load.confirmed}, longest gap {load.longest_gap_s * 1000:.0f} ms")
