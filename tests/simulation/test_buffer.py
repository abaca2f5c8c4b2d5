"""A node whose store keeps large writes whole: what scans, peers and successors see of them."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.simulation.fleet import Fleet, open_fleet
from trikv.node.node import REST_S
from trikv.storage import write_buffer

pytestmark = pytest.mark.trio


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_buffer, "LEAST_PAIRS", 2)


async def write(fleet: Fleet, name: str, value: int, keys: str = "abc") -> int:
    operations = [{"op": "put", "key": key, "value": value} for key in keys]
    status, _ = await fleet.ask(name, "POST", "/batch", {"operations": operations})
    return status


async def test_a_list_shows_what_is_buffered(autojump_clock: MockClock) -> None:
    async with open_fleet(1, write_quorum=1) as fleet:
        assert await write(fleet, "n0", 1) == 200
        for name in ("n0", "n1"):
            assert fleet.stores[name].buffers
            status, answer = await fleet.ask(name, "GET", "/kv")
            assert status == 200
            assert [(item["key"], item["value"]) for item in answer["items"]] == [
                (key, 1) for key in "abc"
            ]
            assert not fleet.stores[name].buffers


async def test_a_list_beside_large_writes_is_one_state_of_the_map(
    autojump_clock: MockClock,
) -> None:
    """Also where emptying the buffer, and the page, wait for a slow disk."""
    async with open_fleet(1, write_quorum=0) as fleet:
        fleet.disk_s = 0.02
        lists = 0
        async with trio.open_nursery() as nursery:

            async def keep_writing(values: range) -> None:
                for value in values:
                    assert await write(fleet, "n0", value) == 200

            for start in (0, 100):
                nursery.start_soon(keep_writing, range(start, start + 100))
            assert await write(fleet, "n0", -1) == 200
            while lists < 100:
                status, answer = await fleet.ask("n0", "GET", "/kv")
                assert status == 200
                assert [item["key"] for item in answer["items"]] == ["a", "b", "c"]
                assert len({item["version"] for item in answer["items"]}) == 1
                lists += 1


async def test_where_the_disk_is_full_what_is_buffered_can_be_read_still(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(1, write_quorum=1) as fleet:
        assert await write(fleet, "n0", 1) == 200
        for full in (True, False):
            fleet.disks["n0"].full = full
            status, answer = await fleet.ask("n0", "GET", "/kv")
            assert (status, [item["value"] for item in answer["items"]]) == (200, [1] * 3)
            assert (await fleet.ask("n0", "GET", "/kv/{key}", key="a"))[0] == 200
            assert fleet.stores["n0"].buffers is full


async def test_a_follower_is_brought_up_to_date_with_what_its_leader_has_buffered(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(2, write_quorum=1) as fleet:
        fleet.crash("n2")
        for value in range(5):
            assert await write(fleet, "n0", value, "abcd"[value % 3 :]) == 200
        assert fleet.stores["n0"].buffers
        await fleet.start("n2")
        await fleet.wait_live("n0", 2)
        await fleet.wait_quiet("n0")
        assert (await fleet.ask("n2", "GET", "/kv/{key}", key="d"))[1]["value"] == 4
        await fleet.assert_equal()


async def test_a_leader_started_on_another_disk_reads_what_was_buffered_there(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(2, write_quorum=1) as fleet:
        assert await write(fleet, "n0", 1) == 200
        await fleet.wait_quiet("n0")
        for name in ("n0", "n1", "n2"):
            fleet.crash(name)
        fleet.wipe("n0")
        for name in ("n1", "n2"):
            assert fleet.stores[name].buffers
            await fleet.start(name)
        await fleet.start("n0", leads=True, write_quorum=1)
        await fleet.wait_live("n0", 2)
        await fleet.wait_quiet("n0")
        await fleet.assert_equal()
        assert (await fleet.ask("n0", "GET", "/kv/{key}", key="c"))[1]["value"] == 1


async def test_a_buffer_that_nothing_comes_to_is_emptied_and_its_tombstones_are_purged(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(1, write_quorum=1) as fleet:
        assert await write(fleet, "n0", 1) == 200
        assert (await fleet.ask("n0", "DELETE", "/kv/{key}", key="a"))[0] == 200
        fleet.disks["n1"].full = True  # it tries again
        await trio.sleep(3 * REST_S)
        fleet.disks["n1"].full = False
        await trio.sleep(3 * REST_S)
        assert not any(fleet.stores[name].buffers for name in ("n0", "n1"))
        assert (await fleet.put("n0", "d", 2))[0] == 200  # the floor rises once more
        await trio.sleep(10)
        for name in ("n0", "n1"):
            assert fleet.stores[name].count() == (4, 0)  # b, c, d, and the configuration
            assert fleet.stores[name].get("a") is None


async def test_a_buffer_that_large_writes_come_to_is_let_be(autojump_clock: MockClock) -> None:
    async with open_fleet(1, write_quorum=1) as fleet:
        for value in range(10):
            assert await write(fleet, "n0", value) == 200
            await trio.sleep(0.9 * REST_S)
            assert fleet.stores["n0"].buffers
