"""What a batch may not say, and what a follower makes of answers that come out of order."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import open_follower
from trikv.errors import InvalidBody, StaleEpoch, WrongNode
from trikv.model.membership import KEY
from trikv.model.node_state import NodeState
from trikv.model.record import Entry
from trikv.model.version import NO_EPOCH, Epoch, Version
from trikv.protocol.messages import Batch, LeaderName, decode_replicate
from trikv.replication.follower import Follower

BOSS = LeaderName("boss")
EPOCH = Epoch(3, "a")


@pytest.fixture
async def follower(autojump_clock: MockClock) -> AsyncIterator[Follower]:
    async with open_follower(EPOCH) as follower:
        yield follower


@pytest.mark.parametrize("instance", ["", "n 1", "N1", "a" * 33, "é"])
def test_a_batch_for_what_can_be_no_instance_is_refused_by_its_field(instance: str) -> None:
    body = {"leader": {"node_id": "boss"}, "epoch": "3.a", "records": [], "follower": instance}
    with pytest.raises(InvalidBody, match=r"^follower: expected 1 to 32") as refusal:
        decode_replicate(msgspec.json.encode(body))
    assert refusal.value.extra == {"field": "follower"}
    good = decode_replicate(msgspec.json.encode({**body, "follower": "a" * 32}))
    assert isinstance(good, Batch)
    assert good.follower == "a" * 32


@pytest.mark.parametrize(
    "value", ["1", "{}", '{"members":{"n1":null},"write_quorum":1}', '{"members":[]}']
)
async def test_a_record_of_the_configuration_that_is_none_is_refused_with_its_batch(
    follower: Follower, value: str
) -> None:
    version = Version(Epoch(4, "b"), 9)
    first = Entry(version, [("a", "1")])
    for second, field in (
        (Entry(version, [(KEY, value)]), "records[1].value"),
        (Entry(version, [("b", "1"), (KEY, value)]), "records[1].values"),
    ):
        with pytest.raises(InvalidBody, match=rf"^{re.escape(field)}: not a conf") as refusal:
            await follower.merge_batch(Batch(BOSS, version.epoch, [first, second]))
        assert refusal.value.extra == {"field": field}
    # Nothing of it is on the disk, the promise included; nor does it follow that leader.
    store = follower._committer._store
    assert (store.get("a"), store.get(KEY), store.state.promised) == (None, None, EPOCH)
    assert (follower.leader, follower.state.promised) == (None, EPOCH)


async def test_an_older_answer_takes_nothing_back_and_wakes_nobody(follower: Follower) -> None:
    now = follower.state
    looked: list[Version] = []

    def reached() -> bool:
        looked.append(follower.state.watermark)
        return follower.caught_up(Version(EPOCH, 7))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follower.until, reached, 60, "7 was not reached")
        await wait_all_tasks_blocked()
        older = now._replace(watermark=Version(EPOCH, 4))
        lower = NodeState("n1", "one", "c", promised=Epoch(2, "z"), established=NO_EPOCH)
        for late in (older, lower):
            follower.learn(late)
            await wait_all_tasks_blocked()
            assert follower.state is now
        assert looked == [now.watermark]
        follower.learn(now._replace(watermark=Version(EPOCH, 7)))
    assert follower.state.watermark == Version(EPOCH, 7)
    assert looked == [now.watermark, Version(EPOCH, 7)]


async def test_a_heartbeat_that_would_change_nothing_is_looked_at_like_any_batch(
    follower: Follower,
) -> None:
    at_rest = Batch(BOSS, EPOCH, [], "one", Version(EPOCH, 5), Version(EPOCH, 5))
    assert await follower.merge_batch(at_rest) == EPOCH  # its floor moves: nothing is left to purge

    async def no_more(*_: object, **__: object) -> None:
        raise AssertionError("a heartbeat took a transaction")

    follower._committer.commit = no_more  # type: ignore[method-assign, assignment]
    assert await follower.merge_batch(at_rest) == EPOCH
    with pytest.raises(StaleEpoch):
        await follower.merge_batch(at_rest._replace(epoch=Epoch(2, "z")))
    with pytest.raises(WrongNode):
        await follower.merge_batch(at_rest._replace(follower="another"))
    for news in (
        at_rest._replace(epoch=Epoch(4, "b"), watermark=None, floor=None),
        at_rest._replace(watermark=Version(EPOCH, 6)),
    ):
        with pytest.raises(AssertionError, match="took a transaction"):
            await follower.merge_batch(news)
