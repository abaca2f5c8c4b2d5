"""A handshake and a takeover, interrupted by a crash at every single request: nothing is lost by it, and
the next one brings all to an end."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock

import trikv.replication.link
import trikv.web.peer
from tests.simulation.fleet import Fleet, open_fleet
from tests.support import until
from trikv.errors import PeerFailed

CONFIRMED = {f"key{index}": f"confirmed{index}" for index in range(6)}


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there is much to interrupt."""
    monkeypatch.setattr(trikv.replication.link, "PAGE_RECORDS", 2)
    monkeypatch.setattr(trikv.web.peer, "SCAN_BYTES", 100)


class Interruption:
    """Crashes a node at the n-th request that it takes part in; all requests are `leader`'s."""

    def __init__(self, fleet: Fleet, leader: str, name: str, at: int) -> None:
        self._leader = leader
        self._fleet = fleet
        self._name = name
        self._left = at
        self.happened = False

    async def __call__(self, url: str, target: str, body: bytes | None) -> None:
        await trio.lowlevel.checkpoint()
        if self.happened or not (self._name == self._leader or url == f"http://{self._name}"):
            return
        self._left -= 1
        if self._left < 0:
            self.happened = True
            self._fleet.crash(self._name)
            raise PeerFailed("its other end is gone")


async def prepare(fleet: Fleet) -> None:
    """Confirmed writes everywhere, and beyond them strays at n0, which then goes down."""
    for key, value in CONFIRMED.items():
        assert (await fleet.put("n0", key, value))[0] == 200
    await fleet.wait_quiet("n0")
    for other in fleet.names[1:]:
        fleet.cut.add(frozenset(("n0", other)))
    async with trio.open_nursery() as nursery:  # all at once, before it knows that it is alone
        for key in ("key0", "key3", "stray1", "stray2"):
            nursery.start_soon(fleet.put, "n0", key, "never confirmed")
    assert fleet.stores["n0"].get("stray2") is not None
    fleet.crash("n0")
    fleet.cut.clear()


async def finish(fleet: Fleet, leader: str) -> None:
    fleet.network.before = fleet.network.after = None
    for name in fleet.names:
        if name not in fleet.nodes:
            await fleet.start(name, leads=name == leader, write_quorum=1)
    await fleet.wait_live(leader, 2)
    await fleet.wait_quiet(leader)
    assert await fleet.dumps() == {name: CONFIRMED for name in fleet.names}
    for store in fleet.stores.values():
        store.state.check_invariants()
        assert store.state.established == fleet.nodes[leader].epoch


async def handshake(name: str, at: int) -> bool:
    """n0 comes back with strays under the new leader n1; `name` crashes at the n-th request."""
    async with open_fleet(2, write_quorum=1) as fleet:
        await prepare(fleet)
        fleet.crash("n1")
        await fleet.start("n1", leads=True, write_quorum=1)
        await fleet.wait_live("n1", 1)
        fleet.network.before = interruption = Interruption(fleet, "n1", name, at)
        await fleet.start("n0")
        await until(
            lambda: interruption.happened or fleet.nodes["n1"].require_leader().live_links == 2
        )
        await finish(fleet, "n1")
        return interruption.happened


async def takeover(name: str, wiped: bool, at: int) -> bool:
    """n0 takes over again, from a state that is behind, or from none; `name` crashes on the way."""
    async with open_fleet(2, write_quorum=1) as fleet:
        await prepare(fleet)
        fleet.crash("n1")
        await fleet.start("n1", leads=True, write_quorum=1)  # meanwhile another has led
        await fleet.wait_live("n1", 1)
        await trio.sleep(2)
        fleet.crash("n1")
        await fleet.start("n1")
        if wiped:
            fleet.wipe("n0")
        fleet.network.before = interruption = Interruption(fleet, "n0", name, at)
        await fleet.start("n0", leads=True, write_quorum=1)
        await until(
            lambda: (
                interruption.happened
                or ((leader := fleet.nodes["n0"].leader) is not None and leader.live_links == 2)
            )
        )
        await finish(fleet, "n0")
        return interruption.happened


def interrupt_everywhere(scenario: partial) -> int:  # type: ignore[type-arg]
    """Run it with one request more each time, until it runs to its end; how often it was interrupted."""
    for at in range(200):
        if not trio.run(partial(scenario, at=at), clock=MockClock(autojump_threshold=0)):
            return at
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("name", ["n0", "n1"])
def test_a_handshake_may_be_interrupted_at_any_request(name: str) -> None:
    assert interrupt_everywhere(partial(handshake, name)) >= 5


@pytest.mark.parametrize("wiped", [False, True])
@pytest.mark.parametrize("name", ["n0", "n1", "n2"])
def test_a_takeover_may_be_interrupted_at_any_request(name: str, wiped: bool) -> None:
    assert interrupt_everywhere(partial(takeover, name, wiped)) >= 3
