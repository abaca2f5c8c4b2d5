"""A leader whose clock has run out, whose node stops, whose disk refuses its own changes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.simulation.fleet import open_fleet
from tests.support import open_cluster, put
from trikv.errors import NotReady
from trikv.model.version import MAX_ISSUED_US, MAX_TIMESTAMP_US
from trikv.network.simulated_lag import LagRange
from trikv.node.node import DRAIN_S


@pytest.mark.parametrize("beyond_us", [MAX_TIMESTAMP_US, MAX_ISSUED_US + 1])
async def test_past_the_last_timestamp_writes_are_refused_unwritten_until_the_clock_is_set(
    autojump_clock: MockClock, beyond_us: int
) -> None:
    async with open_fleet(2, write_quorum=1) as fleet:
        clock, right_us = fleet.clocks["n0"], fleet.clocks["n0"].offset_us
        # What no follower would take no leader issues, or none could ever count on from it.
        clock.offset_us = beyond_us
        status, body = await fleet.put("n0", "a", 1)
        assert (status, body["code"]) == (503, "not_ready")
        assert body["detail"] == (
            "this node can't issue versions: this node's clock is past the year 2245: expected one that "
            "is right"
        )
        clock.offset_us = right_us
        assert (await fleet.put("n0", "b", 2))[0] == 200
        await fleet.wait_quiet("n0")
        assert await fleet.dumps() == {name: {"b": 2} for name in fleet.names}


async def test_a_leader_that_cannot_commit_because_it_stops_was_not_deposed(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        leader = cluster.leader
        cluster.node.committer.close()
        with pytest.raises(NotReady, match=r"^this node is stopping$"):
            await leader.spread(lambda store: [("a", "1")])
        assert leader.deposed is None
        assert leader.live_links == 1
        assert leader.resolved_us == leader.issued_us  # nobody waits for what will not come
        assert cluster.node.store.get("a") is None


@pytest.mark.parametrize("lag_ms", [0, 60_000])
@pytest.mark.parametrize("drain_s", [0.1, 5])
async def test_a_write_that_the_disk_holds_up_is_delivered_if_a_stop_has_the_time_for_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, lag_ms: int, drain_s: float
) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        leader = cluster.leader
        leader.lag.set(LagRange(lag_ms, lag_ms))
        run_blocking = cluster.node.committer._run_blocking

        async def slow(work: Callable[[], Any]) -> Any:
            await trio.sleep(1)
            return await run_blocking(work)

        monkeypatch.setattr(cluster.node.committer, "_run_blocking", slow)
        answers = []

        async def write() -> None:
            answers.append((await put(cluster.node, "a", 1), trio.current_time()))

        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            nursery.start_soon(write)
            await trio.sleep(0.5)
            await leader.drain(drain_s)  # nothing is with the links yet
            waited_s = trio.current_time() - began - 0.5
        ((status, body), ended) = answers[0]
        assert cluster.node.store.get("a") is not None
        (follower,) = cluster.followers.values()
        if (
            drain_s == 5
        ):  # it does not wait out a lag that nobody would see, nor longer than it must
            assert status == 200
            assert 0.5 <= waited_s < 2
            assert follower.store.get("a") is not None
        else:
            assert waited_s == pytest.approx(0.1)
            assert (status, body["code"]) == (503, "quorum_not_met")
            assert "before this node stopped" in body["detail"]
            assert ended - began == pytest.approx(1)  # and not after the write timeout
            await trio.sleep(1)
            assert follower.store.get("a") is None  # the next start brings it there


@pytest.mark.parametrize(("crashes", "waits_s"), [(False, DRAIN_S), (True, 0)])
async def test_a_stop_waits_for_what_is_on_its_way_and_a_crash_for_nothing(
    autojump_clock: MockClock, crashes: bool, waits_s: float
) -> None:
    ends_at = -1.0
    with suppress(ZeroDivisionError):
        async with open_cluster(1, write_quorum=0) as cluster:
            cluster.leader.lag.set(LagRange(60_000, 60_000))
            assert (await put(cluster.node, "a", 1))[0] == 200
            await trio.sleep(1)  # its delivery waits out the lag by now
            ends_at = trio.current_time()
            if crashes:
                raise ZeroDivisionError
    assert trio.current_time() - ends_at == pytest.approx(waits_s)


async def test_a_full_disk_holds_the_floor_back_and_says_so_and_the_leader_leads_on(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_fleet(2, write_quorum=1) as fleet:
        leadership = fleet.nodes["n0"].require_leadership()
        with caplog.at_level(logging.WARNING, "trikv"):
            assert (await fleet.put("n0", "a", 1))[0] == 200
            fleet.disks["n0"].full = True  # before the followers know how far they are
            before = leadership.floor
            await trio.sleep(5)
        told = [one for one in caplog.records if one.getMessage() == "storage.failed"]
        assert told
        reason = vars(told[0])["fields"]["reason"]
        assert str(reason) == "database or disk is full"
        assert leadership.floor == fleet.stores["n0"].state.floor == before
        assert leadership.leader.live_links == 2
        fleet.disks["n0"].full = False
        await trio.sleep(5)
        assert leadership.floor == fleet.stores["n0"].state.floor > before
