"""The feed: what viewers are shown, and that nobody waits for them, nor pays where nobody looks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import Cluster, open_cluster, put
from trikv.errors import Overloaded
from trikv.model.quorum import Voters
from trikv.model.version import Version
from trikv.network.simulated_lag import LagRange
from trikv.observe.dashboard_feed import (
    FRAME_S,
    FRAME_WRITES,
    MAX_VIEWERS,
    QUIET_S,
    RECENT_WRITES,
    VIEWER_FRAMES,
    Viewer,
)
from trikv.replication.outbox import Encoded
from trikv.replication.write import Ack, CommitGroup, Delivery, Write

Told = dict[str, Any]


async def first(viewer: Viewer) -> Told:
    """The state that everyone is sent first."""
    ((name, data),) = await viewer.next()
    assert name == "state"
    told: Told = json.loads(data)
    return told


async def until(viewer: Viewer, true: Callable[[Told], bool]) -> Told:
    """The first frame of which that is true."""
    with trio.fail_after(60):
        while True:
            for name, data in await viewer.next():
                assert name == "frame"
                told: Told = json.loads(data)
                if true(told):
                    return told


def shows(**facts: object) -> Callable[[Told], bool]:
    """Whether a frame has a write with these facts."""
    return lambda told: any(facts.items() <= write.items() for write in told["writes"])


def stagger(cluster: Cluster) -> None:
    for place, url in enumerate(cluster.urls, start=1):
        cluster.leader.lag.set(LagRange(200 * place, 200 * place), url)


async def test_the_state_tells_who_leads_and_every_link(autojump_clock: MockClock) -> None:
    async with open_cluster(3, write_quorum=2) as cluster:
        cluster.leader.lag.set(LagRange(5, 7), cluster.urls[1])
        with cluster.node.feed.viewing() as viewer:
            told = await first(viewer)
        node, leader = told["node"], told["leader"]
        assert (node["role"], node["ready"], node["waiting_for"]) == ("leader", True, [])
        assert node["epoch"] == str(cluster.leader.epoch)
        assert (leader["leads"], leader["write_quorum"], leader["settled"]) == (True, 2, True)
        assert [link["url"] for link in leader["links"]] == cluster.urls
        assert {link["state"] for link in leader["links"]} == {"live"}
        assert [link["max_delay_ms"] for link in leader["links"]] == [0, 7, 0]
        assert (told["follower"], told["writes"]) == (None, [])


async def test_a_write_is_shown_from_its_commit_to_its_last_acknowledgement(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with open_cluster(3, write_quorum=2) as cluster:
        stagger(cluster)
        with cluster.node.feed.viewing() as viewer:
            await first(viewer)
            await trio.sleep(2 * FRAME_S)
            nursery.start_soon(put, cluster.node, "a", 1)
            (write,) = (await until(viewer, shows(key="a", outcome="pending")))["writes"]
            assert write["followers"] == [[200, None], [400, None], [600, None]]
            assert (write["commit_ms"], write["quorum_ms"], write["ended"]) == (0, None, False)
            (write,) = (await until(viewer, shows(outcome="confirmed")))["writes"]
            assert write["quorum_ms"] == 400
            assert write["followers"] == [[200, 200], [400, 400], [600, None]]
            told = await until(viewer, shows(ended=True))
            assert told["writes"][0]["followers"][2] == [600, 600]
            issued_us = Version.parse(write["version"]).timestamp_us
            assert [link["watermark_us"] for link in told["leader"]["links"]] == [issued_us] * 3


async def test_an_acknowledgement_that_is_counted_after_the_deliveries_ended_is_shown(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        with cluster.node.feed.viewing() as viewer:
            await first(viewer)
            write = Write((Voters(frozenset({"boss", "a", "b"}), 1),))
            write.written = [("late", "1")]
            group = CommitGroup([write], Encoded("", records=1))
            group.deliveries = [Delivery(f"http://{name}", name, 0.0) for name in "ab"]
            one, other = (Ack(way, way.url[-1], trio.current_time()) for way in group.deliveries)
            group.add(one)
            group.decide()
            assert cluster.leader.seen is not None
            cluster.leader.seen(write)
            (shown,) = (await until(viewer, shows(key="late", ended=True)))["writes"]
            assert shown["followers"] == [[0, 0], [0, None]]
            group.add(other)
            (shown,) = (await until(viewer, shows(key="late")))["writes"]
            assert shown["followers"] == [[0, 0], [0, 0]]


async def test_what_had_no_room_in_a_frame_is_shown_in_a_later_one(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with open_cluster(2, write_quorum=1) as cluster:
        with cluster.node.feed.viewing() as viewer:
            await first(viewer)
            await trio.sleep(2 * FRAME_S)
            number = RECENT_WRITES
            for index in range(number):
                nursery.start_soon(put, cluster.node, f"k{index}", 1)
            last: dict[int, Told] = {}

            def complete(told: Told) -> bool:
                assert len(told["writes"]) <= FRAME_WRITES
                last.update((write["id"], write) for write in told["writes"])
                ended = [write["ended"] for write in last.values()]
                return len(ended) == number and all(ended)

            await until(viewer, complete)
            for write in last.values():
                assert None not in [ack for _, ack in write["followers"]]


async def test_one_who_comes_takes_no_change_from_the_others(autojump_clock: MockClock) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        with cluster.node.feed.viewing() as viewer:
            await first(viewer)
            await trio.sleep(2 * FRAME_S)
            await put(cluster.node, "a", 1)
            with cluster.node.feed.viewing() as another:  # before there was a frame of it
                assert shows(key="a", ended=True)(await first(another))
            await until(viewer, shows(key="a", ended=True))


async def test_what_was_counted_is_told_once(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with open_cluster(3, write_quorum=2) as cluster:
        await put(cluster.node, "before", 1)
        with cluster.node.feed.viewing() as viewer:
            await first(viewer)
            await trio.sleep(2 * FRAME_S)
            for key in "abc":
                await put(cluster.node, key, 1)
            nobody = {"confirmed": 0, "unconfirmed": 0, "refused": 0}
            told = await until(viewer, lambda told: told["counts"] != nobody)
            assert told["counts"] == nobody | {"confirmed": 3}
            histogram = told["histogram"]
            assert sum(histogram["quorum"]) == sum(histogram["commit"]) == 3
            assert len(histogram["quorum"]) == len(histogram["bounds_ms"]) + 1
            for url in cluster.urls:
                cluster.node.wires.cut(url)
            status, _ = await put(cluster.node, "d", 1)
            assert status == 503
            told = await until(viewer, lambda told: told["counts"] != nobody)
            assert told["counts"] == nobody | {"refused": 1}


async def test_a_write_without_its_quorum_is_unconfirmed(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with open_cluster(3, write_quorum=3, write_timeout_s=1.03) as cluster:
        cluster.leader.lag.set(LagRange(5000, 5000), cluster.urls[0])
        with cluster.node.feed.viewing() as viewer:
            await first(viewer)
            await trio.sleep(2 * FRAME_S)
            assert (await put(cluster.node, "a", 1))[0] == 503
            told = await until(viewer, shows(outcome="unconfirmed"))
            assert told["counts"]["unconfirmed"] == 1
            await until(viewer, shows(outcome="confirmed", ended=True))  # late, as it may be


async def test_a_frame_is_bounded_and_says_what_it_leaves_out(autojump_clock: MockClock) -> None:
    writes = RECENT_WRITES + 10
    async with open_cluster(3, write_quorum=2) as cluster:
        with cluster.node.feed.viewing() as viewer:
            await first(viewer)
            await trio.sleep(2 * FRAME_S)
            for index in range(writes):
                await put(cluster.node, f"key{index}", 1)
            told = await until(viewer, lambda told: told["writes"])
            newest = [f"key{index}" for index in range(writes - FRAME_WRITES, writes)]
            assert [write["key"] for write in told["writes"]] == newest
            assert told["writes_left_out"] == writes - FRAME_WRITES
            told = await until(viewer, lambda told: told["writes"])  # older ones, which had to wait
            assert told["writes_left_out"] == 0


async def test_with_nothing_new_there_is_a_frame_now_and_then(autojump_clock: MockClock) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        with cluster.node.feed.viewing() as viewer:
            await first(viewer)
            await trio.sleep(2 * FRAME_S)
            await viewer.next()
            began, frames = trio.current_time(), 0
            while trio.current_time() < began + 10 * QUIET_S:
                frames += len(await viewer.next())
            assert 9 <= frames <= 11


async def test_a_cut_wire_is_shown_at_once(autojump_clock: MockClock) -> None:
    async with open_cluster(2, write_quorum=1) as cluster:
        with cluster.node.feed.viewing() as viewer:
            await first(viewer)
            await trio.sleep(2 * FRAME_S)
            await viewer.next()
            began = trio.current_time()
            cluster.node.wires.cut(cluster.urls[1])
            await until(viewer, lambda told: told["leader"]["links"][1]["state"] == "cut")
            assert trio.current_time() - began <= FRAME_S


async def test_a_viewer_that_takes_nothing_loses_frames_is_told_and_gets_the_state(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        feed = cluster.node.feed
        with feed.viewing() as slow, feed.viewing() as quick:
            await first(slow)
            await first(quick)
            seen: list[str] = []
            for index in range(VIEWER_FRAMES + 5):
                await put(cluster.node, f"key{index}", 1)
                told = await until(quick, lambda told: told["writes"])
                seen += [write["key"] for write in told["writes"]]
            assert seen == [f"key{index}" for index in range(VIEWER_FRAMES + 5)]
            (lost, state) = await slow.next()
            assert lost[0] == "lost"
            assert json.loads(lost[1])["frames"] > VIEWER_FRAMES
            assert state[0] == "state"
            told = json.loads(state[1])
            keys = [write["key"] for write in told["writes"]]
            assert keys == [f"key{index}" for index in range(VIEWER_FRAMES + 5)]
            assert told["counts"]["confirmed"] == VIEWER_FRAMES + 5  # what the lost ones told
            assert sum(told["histogram"]["quorum"]) == VIEWER_FRAMES + 5
            await put(cluster.node, "after", 1)
            told = await until(slow, shows(key="after"))  # it goes on like any other
            assert told["counts"]["confirmed"] == 1


async def test_where_nobody_looks_nothing_is_kept(autojump_clock: MockClock) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        feed, leader = cluster.node.feed, cluster.leader

        def keeps_nothing() -> bool:
            return leader.seen is None and not feed._recent and not feed._viewers

        await put(cluster.node, "a", 1)
        assert keeps_nothing()
        with feed.viewing() as viewer:
            await first(viewer)
            await trio.sleep(2 * FRAME_S)
            await put(cluster.node, "b", 1)
            assert leader.seen is not None
            assert len(feed._recent) == 1
        await trio.sleep(2 * FRAME_S)
        await put(cluster.node, "c", 1)
        assert keeps_nothing()
        with feed.viewing() as viewer:  # and it begins anew
            assert (await first(viewer))["writes"] == []
            await put(cluster.node, "d", 1)


async def test_a_follower_shows_whom_it_follows_and_how_far_it_is(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(2, write_quorum=2) as cluster:
        follower = next(iter(cluster.followers.values()))
        with follower.feed.viewing() as viewer:
            told = await first(viewer)
            assert told["leader"] is None
            assert told["follower"]["leader"]["node_id"] == cluster.leader.node_id
            before = told["follower"]["records"]
            _, body = await put(cluster.node, "a", 1)
            told = await until(viewer, lambda told: told["follower"]["records"] == before + 1)
            issued_us = Version.parse(body["version"]).timestamp_us
            await until(viewer, lambda told: told["follower"]["watermark_us"] == issued_us)


async def test_a_stop_ends_it_with_a_word(autojump_clock: MockClock) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        ends: list[list[tuple[str, str]]] = []

        async def look() -> None:
            with cluster.node.feed.viewing() as viewer:
                while messages := await viewer.next():
                    ends.append(messages)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await wait_all_tasks_blocked()
            cluster.node.begin_stop()
        assert ends[-1] == [("end", '{"reason":"this node is stopping"}')]


async def test_so_many_may_look_and_no_more(autojump_clock: MockClock) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        feed = cluster.node.feed
        views = [feed.viewing() for _ in range(MAX_VIEWERS)]
        for view in views:
            feed.check_room()
            view.__enter__()
        with pytest.raises(Overloaded, match="look at this node already"):
            feed.check_room()
        views.pop().__exit__(None, None, None)
        feed.check_room()
        for view in views:
            view.__exit__(None, None, None)
