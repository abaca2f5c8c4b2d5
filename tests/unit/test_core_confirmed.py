"""How far all is confirmed, as the leader finds and a follower is told; up to where was purged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.simulation.fleet import open_fleet
from tests.support import open_cluster, open_follower, put, until
from trikv.model.node_state import NodeState
from trikv.model.progress import Issued
from trikv.model.quorum import Voters
from trikv.model.record import Entry
from trikv.model.version import NO_VERSION, Epoch, Version
from trikv.observe.change_stream import Watch
from trikv.protocol.messages import Batch, LeaderName, decode_replicate, encode_batch
from trikv.replication.follower import Follower
from trikv.replication.leader import Leader
from trikv.storage.group_commit import Committer, run_inline
from trikv.storage.store import Store

BOSS = LeaderName("boss")
EPOCH = Epoch(3, "a")


class FakeLink:
    def __init__(self, name: str, watermark_us: int | None) -> None:
        self.name = name
        self.watermark_us = watermark_us


def leader_of(marks: Sequence[int | None], voters: Sequence[Voters], resolved_us: int) -> Leader:
    """A leader that has nothing but links which are so far."""

    class Clock:
        epoch = EPOCH

    leader: Any = object.__new__(Leader)
    leader.links = [FakeLink(f"f{i}", mark) for i, mark in enumerate(marks)]
    leader.in_force = tuple(voters)
    leader._clock = Clock()
    leader._issued = Issued(resolved_us)
    leader._confirmed_us = -1
    found: Leader = leader
    return found


@given(
    marks=st.lists(st.none() | st.integers(0, 9), max_size=5),
    quorums=st.lists(
        st.tuples(
            st.frozensets(st.sampled_from(["f0", "f1", "f2", "f3", "f4", "f9"])), st.integers(0, 3)
        ),
        min_size=1,
        max_size=2,
    ),
)
def test_what_is_confirmed_is_what_enough_followers_have_come_to(
    marks: list[int | None], quorums: list[tuple[frozenset[str], int]]
) -> None:
    voters = [Voters(members | {"boss"}, quorum) for members, quorum in quorums]
    confirmed = leader_of(marks, voters, 9).confirmed
    expected = None
    for us in range(10):
        ahead = {f"f{i}" for i, mark in enumerate(marks) if mark is not None and mark >= us}
        if all(one.met_by(ahead) for one in voters):
            expected = Version(EPOCH, us)
    assert confirmed == expected


def test_what_is_confirmed_stays_so() -> None:
    leader = leader_of([7, 5, None], [Voters(frozenset({"f0", "f1", "f2"}), 2)], 9)
    assert leader.confirmed == Version(EPOCH, 5)
    leader.links[1].watermark_us = None  # type: ignore[misc]  # its disk is empty
    assert leader.confirmed == Version(EPOCH, 5)
    leader.links[2].watermark_us = 6  # type: ignore[misc]
    assert leader.confirmed == Version(EPOCH, 6)
    leader.in_force = (Voters(frozenset({"f0", "f1", "f2"}), 3),)
    assert leader.confirmed == Version(EPOCH, 6)


async def test_what_came_before_this_leadership_is_confirmed_once_enough_are_brought_in(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(2, write_quorum=2) as fleet:
        await fleet.put("n0", "a", 1)
        for name in fleet.names:
            fleet.crash(name)
        await fleet.start("n1")
        await fleet.start("n0", leads=True, write_quorum=2)
        await fleet.wait_live("n0", 1)

        def confirmed(name: str) -> Version | None:
            node = fleet.nodes[name]
            source = node.follower or node.leader
            return None if source is None else source.confirmed

        assert confirmed("n0") is None
        assert confirmed("n1") is None
        await fleet.start("n2")
        await fleet.wait_live("n0", 2)
        held = fleet.stores["n0"].get("a")
        assert held is not None
        assert (confirmed("n0") or NO_VERSION) > held.version
        await until(lambda: confirmed("n1") == confirmed("n0"))


# -- what a follower is told ----------------------------------------------------------------------------


@pytest.fixture
async def follower(autojump_clock: MockClock) -> AsyncIterator[Follower]:
    async with open_follower(EPOCH) as follower:
        yield follower


def at(us: int, epoch: Epoch = EPOCH) -> Version:
    return Version(epoch, us)


def test_what_is_confirmed_travels_with_a_batch() -> None:
    batch = decode_replicate(encode_batch(BOSS, EPOCH, [], confirmed=at(7)))
    assert isinstance(batch, Batch)
    assert batch.confirmed == at(7)


async def test_a_follower_tells_what_is_confirmed_as_far_as_it_has_it(follower: Follower) -> None:
    assert [follower.confirmed] == [None]
    await follower.merge_batch(Batch(BOSS, EPOCH, [], confirmed=at(3)))
    assert follower.confirmed == at(3)
    await follower.merge_batch(Batch(BOSS, EPOCH, [], confirmed=at(9)))
    assert follower.confirmed == at(5)  # its watermark
    await follower.merge_batch(Batch(BOSS, EPOCH, [], watermark=at(8), confirmed=at(4)))  # late
    assert follower.confirmed == at(8)


async def test_a_follower_that_was_not_brought_in_yet_cannot_tell(follower: Follower) -> None:
    await follower.merge_batch(Batch(BOSS, EPOCH, [], confirmed=at(4)))
    later = Epoch(4, "b")
    await follower.merge_batch(Batch(BOSS, later, [], confirmed=at(9, later)))
    assert [follower.confirmed] == [None]
    await follower.merge_batch(
        Batch(BOSS, later, [], watermark=at(6, later), established=True, confirmed=at(7, later))
    )
    assert follower.confirmed == at(6, later)


@pytest.mark.parametrize(("watermark_us", "purged"), [(3, at(4)), (4, NO_VERSION)])
async def test_one_that_is_brought_in_from_behind_the_floor_may_lack_tombstones(
    watermark_us: int, purged: Version, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    with closing(Store.open(None)) as store:
        state = NodeState(
            "n1", "one", "c", promised=EPOCH, established=EPOCH, watermark=at(watermark_us)
        )
        with store.transaction():
            store.set_state(state)
        committer = Committer(store, run_inline)
        nursery.start_soon(committer.run)
        follower, later = Follower(committer, state), Epoch(4, "b")
        batch = Batch(BOSS, later, [], watermark=at(6, later), floor=at(4), established=True)
        await follower.merge_batch(batch)
        assert store.purged == purged
        committer.close()
        await wait_all_tasks_blocked()


async def test_a_leader_whose_disk_was_empty_may_lack_tombstones_that_others_have_purged(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(2, write_quorum=1) as fleet:
        await fleet.put("n0", "a", 1)
        assert (await fleet.ask("n0", "DELETE", "/kv/{key}", key="a"))[0] == 200
        await until(lambda: all(store.get("a") is None for store in fleet.stores.values()))
        floor = fleet.stores["n1"].state.floor
        assert NO_VERSION < fleet.stores["n1"].purged <= floor
        fleet.crash("n0")
        fleet.wipe("n0")
        await fleet.start("n0", leads=True, write_quorum=1)
        await fleet.wait_leads("n0")
        assert fleet.stores["n0"].purged == floor
        fleet.crash("n0")
        assert fleet.stores["n0"].purged == floor  # it is on the disk


# -- what was purged ------------------------------------------------------------------------------------


def tombstones(store: Store, count: int) -> None:
    with store.transaction():
        store.merge([Entry(at(i), [(f"k{i}", "")]) for i in range(1, count + 1)])
        store.set_state(
            store.state._replace(
                promised=EPOCH, established=EPOCH, watermark=at(count), floor=at(count)
            )
        )


def purge(store: Store, limit: int = 100) -> int:
    with store.transaction():
        return store.purge(limit)


def test_a_purge_is_noted_on_the_disk(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        assert store.purged == NO_VERSION
        tombstones(store, 5)
        assert purge(store, 2) == 2
        assert store.purged == at(2)
        with store.transaction():
            store.set_purged(at(1))  # it never falls
    with closing(Store.open(tmp_path)) as store:
        assert store.purged == at(2)
        assert purge(store) == 3
        assert purge(store) == 0
        assert store.purged == at(5)


def test_a_purge_that_is_not_committed_is_not_noted() -> None:
    with closing(Store.open(None)) as store:
        tombstones(store, 3)
        with pytest.raises(ZeroDivisionError):
            _fail_in_a_purge(store)
        assert store.purged == NO_VERSION
        assert store.get("k1") is not None


def _fail_in_a_purge(store: Store) -> None:
    with store.transaction():
        store.purge(2)
        raise ZeroDivisionError


def test_what_is_kept_for_readers_is_purged_later() -> None:
    with closing(Store.open(None)) as store:
        tombstones(store, 5)
        store.kept = at(2)
        assert purge(store) == 2
        assert store.purged == at(2)
        store.kept = None
        assert purge(store) == 3


def test_the_newest_version_is_told_to_scans(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        assert store.newest_version() is None
        tombstones(store, 3)
        assert store.newest_version() == at(3) == store.greatest_version()


# -- what a watched follower is told, and when ----------------------------------------------------------


async def test_what_others_confirm_reaches_a_watched_follower_without_a_write(
    autojump_clock: MockClock,
) -> None:
    """With lags between: the last acknowledgement that counts comes long after its own."""
    async with open_cluster(2, write_quorum=2) as cluster:
        first, second = cluster.leader.links
        (follower, _) = cluster.followers.values()
        assert follower.follower is not None
        with follower.watches.entered(Watch(follower)):
            await until(lambda: first._watched)
            await trio.sleep(3)
            cluster.leader.lag.of[second.url] = cluster.leader.lag.of[second.url]._replace(
                min_delay_ms=500, max_delay_ms=500
            )
            status, body = await put(cluster.node, "a", 1)
            assert status == 200
            began = trio.current_time()
            version = Version.parse(body["version"])
            await until(lambda: (follower.follower.confirmed or NO_VERSION) >= version)  # type: ignore[union-attr]
            assert trio.current_time() - began <= 0.2
        await until(lambda: not first._watched)
