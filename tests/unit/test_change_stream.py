"""The change stream: what it tells, where it can be resumed, when it starts over, and how it ends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trio
from trio.testing import MockClock

import trikv.observe.change_stream
from tests.support import (
    Cluster,
    MemoryNetwork,
    call,
    open_cluster,
    open_memory_node,
    put,
    read_body,
    until,
)
from tests.unit.inprocess import Client, open_client
from trikv.config import Config
from trikv.errors import PeerFailed, StorageFailed
from trikv.model.version import Epoch, Version
from trikv.node.node import Node
from trikv.observe.change_stream import BEHIND_S, HEARTBEAT_S, SLOW_S
from trikv.web.sse import OPENING


class Event(NamedTuple):
    kind: str
    data: Any
    id: str | None


class Stream:
    """What one reader has got."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.pace_s = 0.0
        self.ended = trio.Event()
        self._answer: Any = None

    async def run(self, node: Node, query: str, headers: Mapping[str, str]) -> None:
        answer = await call(node, "GET", f"/watch{query}", headers=headers)
        assert answer.status == 200, answer
        assert answer.content_type == "text/event-stream"
        assert answer.headers == {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        assert not isinstance(answer.body, bytes)
        async with aclosing(answer.body) as body:  # type: ignore[type-var]
            async for chunk in body:
                if chunk == OPENING:
                    continue
                self.chunks.append(chunk)
                await trio.sleep(self.pace_s)
        self.ended.set()

    @property
    def events(self) -> list[Event]:
        found = []
        for frame in b"".join(self.chunks).decode().split("\n\n")[:-1]:
            lines = dict(line.split(": ", 1) for line in frame.split("\n"))
            found.append(Event(lines["event"], json.loads(lines["data"]), lines.get("id")))
        return found

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]

    @property
    def told(self) -> list[tuple[str, Any]]:
        """Keys and values, None for one that was deleted."""
        return [(one.data["key"], one.data.get("value")) for one in self.of("change")]

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = {}
        for event in self.events:
            if event.kind == "reset":
                state = {}
            elif event.kind == "change" and "deleted" in event.data:
                state.pop(event.data["key"], None)
            elif event.kind == "change":
                state[event.data["key"]] = event.data["value"]
        return state

    @property
    def resume(self) -> str | None:
        """Where a browser would go on."""
        ids = [event.id for event in self.events if event.id is not None]
        return (ids[-1] or None) if ids else None

    async def knows(self, state: Mapping[str, Any]) -> None:
        try:
            await until(lambda: self.state == state, timeout_s=60)
        except trio.TooSlowError:
            raise AssertionError(f"{self.state} instead of {state}") from None


@asynccontextmanager
async def watching(
    node: Node, query: str = "", *, pace_s: float = 0.0, **headers: str
) -> AsyncIterator[Stream]:
    """A reader of one node, which leaves at the end of the block."""
    stream = Stream()
    stream.pace_s = pace_s
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run, node, query, named)
        yield stream
        nursery.cancel_scope.cancel()


async def told_by_now(node: Node, query: str = "", *, pace_s: float = 0, **headers: str) -> Stream:
    """What a reader gets in the first seconds."""
    async with watching(node, query, pace_s=pace_s, **headers) as stream:
        await trio.sleep(3)
    return stream


async def delete(node: Node, key: str) -> None:
    assert (await call(node, "DELETE", "/kv/{key}", key=key)).status == 200


async def write_batch(node: Node, keys: Sequence[str], value: Any) -> str:
    operations = [{"op": "put", "key": key, "value": value} for key in keys]
    answer = await call(node, "POST", "/batch", json.dumps({"operations": operations}).encode())
    assert answer.status == 200
    version: str = json.loads(await read_body(answer))["version"]
    return version


def nodes_of(cluster: Cluster) -> list[Node]:
    return [cluster.node, *cluster.followers.values()]


class Cuttable(MemoryNetwork):
    """Requests to these URLs fail."""

    def __init__(self) -> None:
        super().__init__()
        self.cut: set[str] = set()
        self.before = self._look

    async def _look(self, base: str, target: str, body: bytes | None) -> None:
        if base in self.cut:
            await trio.lowlevel.checkpoint()
            raise PeerFailed(f"{base} is cut off")


F1, F2 = "http://follower1", "http://follower2"

# -- what is told -------------------------------------------------------------------------------------


async def test_every_node_tells_the_whole_map_in_version_order_and_then_what_comes(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(2, write_quorum=2) as cluster, trio.open_nursery() as nursery:
        for key in "cab":
            await put(cluster.node, key, key.upper())
        await put(cluster.node, "c", "again")
        streams = [Stream() for _ in nodes_of(cluster)]
        for stream, node in zip(streams, nodes_of(cluster), strict=True):
            nursery.start_soon(stream.run, node, "", {})
        for stream in streams:
            await stream.knows({"a": "A", "b": "B", "c": "again"})
            assert stream.told == [("a", "A"), ("b", "B"), ("c", "again")]
        await put(cluster.node, "d", [1, {"ü\n": None}])
        await delete(cluster.node, "a")
        for stream in streams:
            await stream.knows({"b": "B", "c": "again", "d": [1, {"ü\n": None}]})
            assert stream.told[3:] == [("d", [1, {"ü\n": None}]), ("a", None)]
            versions = [Version.parse(one.data["version"]) for one in stream.of("change")]
            assert versions == sorted(versions)
            assert stream.of("change")[-1].data.keys() == {"key", "version", "deleted"}
            assert {*stream.kinds()} <= {"change", "heartbeat"}
        await trio.sleep(2)
        for stream in streams:
            assert Version.parse(stream.resume or "") >= versions[-1]
        nursery.cancel_scope.cancel()


async def test_what_is_confirmed_is_told_at_once_by_the_leader_and_soon_by_followers(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(2, write_quorum=2) as cluster:
        for node, least_s, most_s in ((cluster.node, 0, 0.03), (cluster.followers[F1], 0, 0.2)):
            async with watching(node) as stream:
                await trio.sleep(7)
                await put(cluster.node, "k", trio.current_time())
                began = trio.current_time()
                while not stream.told:  # noqa: ASYNC110
                    await trio.sleep(0.001)
                assert least_s <= trio.current_time() - began <= most_s


async def test_what_is_not_confirmed_is_told_by_nobody_until_it_is(
    autojump_clock: MockClock,
) -> None:
    network = Cuttable()
    async with open_cluster(2, network=network, write_quorum=2) as cluster:
        await put(cluster.node, "a", 1)
        async with (
            watching(cluster.node) as leader,
            watching(cluster.followers[F1]) as follower,
        ):
            await leader.knows({"a": 1})
            await follower.knows({"a": 1})
            network.cut = {F2}
            status, body = await put(cluster.node, "b", 2)
            assert (status, body["code"]) == (503, "quorum_not_met")
            await trio.sleep(60)
            assert cluster.followers[F1].store.get("b") is not None
            assert leader.state == follower.state == {"a": 1}
            network.cut.clear()
            await leader.knows({"a": 1, "b": 2})
            await follower.knows({"a": 1, "b": 2})


async def test_what_hides_behind_an_unconfirmed_write_is_not_passed_over_for_good(
    autojump_clock: MockClock,
) -> None:
    """It is back if that write is lost with its leader: nobody may resume behind it."""
    network = Cuttable()
    async with open_cluster(2, network=network, write_quorum=2) as cluster:
        _, first = await put(cluster.node, "k", "old")
        _, last = await put(cluster.node, "other", 1)
        network.cut = {F2}
        assert (await put(cluster.node, "k", "new"))[0] == 503
        for node in (cluster.node, cluster.followers[F1]):
            stream = await told_by_now(node)
            assert stream.told == [("other", 1)]
            assert stream.resume is None
            later = await told_by_now(node, f"?after={first['version']}")
            assert later.told == [("other", 1)]
            assert later.resume in (None, first["version"])
        async with watching(cluster.node) as stream:
            await stream.knows({"other": 1})
            network.cut.clear()
            await stream.knows({"other": 1, "k": "new"})
            assert stream.resume is not None
            assert Version.parse(stream.resume) > Version.parse(last["version"])


async def test_with_quorum_0_what_is_written_is_told(autojump_clock: MockClock) -> None:
    async with open_client("leader") as client, watching(client.node) as stream:
        await put(client.node, "a", 1)
        await stream.knows({"a": 1})


async def test_a_batch_is_sent_whole_and_is_a_place_to_resume_from_at_its_end_only(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        await put(cluster.node, "first", 0)
        async with watching(cluster.node) as stream:
            await stream.knows({"first": 0})
            keys = [f"k{i:04}" for i in range(1000)]
            version = await write_batch(cluster.node, keys, 1)
            await until(lambda: len(stream.told) == 1001)
            (chunk,) = [one for one in stream.chunks if b"k0500" in one]
            assert chunk.count(b"event: change\n") == 1000
            *before, last = [one.id for one in stream.of("change")[1:]]
            assert before == [None] * 999
            assert last is not None
            assert Version.parse(last) >= Version.parse(version)
        again = await told_by_now(cluster.node, f"?after={version}")
        assert again.told == []


async def test_a_prefix_leaves_the_rest_out_and_the_nodes_own_records_are_never_told(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        for key in ("a/1", "b/1", "a", "ab"):
            await put(cluster.node, key, 1)
        stream = await told_by_now(cluster.node, "?prefix=a/")
        assert stream.told == [("a/1", 1)]
        assert (await told_by_now(cluster.node, "?prefix=%00")).told == []
        every = await told_by_now(cluster.node)
        assert [key for key, _ in every.told] == ["a/1", "b/1", "a", "ab"]


async def test_one_who_knows_nothing_is_not_told_of_what_was_deleted_before(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        await put(cluster.node, "a", 1)
        _, before = await put(cluster.node, "b", 1)
        await delete(cluster.node, "a")
        async with (
            watching(cluster.node) as fresh,
            watching(cluster.node, f"?after={before['version']}") as known,
        ):
            await trio.sleep(0.1)
            assert fresh.told == [("b", 1)]
            assert known.told == [("a", None)]
            await delete(cluster.node, "b")
            await trio.sleep(0.1)
            assert fresh.told == [("b", 1), ("b", None)]


async def test_a_map_of_many_pages_is_told_whole_while_it_is_written(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trikv.observe.change_stream, "PAGE_RECORDS", 3)
    async with open_cluster(1, write_quorum=1) as cluster:
        expected = {f"k{i}": i for i in range(40)}
        for key, value in expected.items():
            await put(cluster.node, key, value)
        async with watching(cluster.node, pace_s=0.1) as stream:
            for i in range(0, 39, 3):
                expected[f"k{i}"] = -i
                await put(cluster.node, f"k{i}", -i)
                await trio.sleep(0.07)
                await delete(cluster.node, f"k{i + 1}")
                expected.pop(f"k{i + 1}", None)
                await put(cluster.node, f"n{i}", 1)
                expected[f"n{i}"] = 1
            await stream.knows(expected)
            assert stream.kinds().count("reset") == 0


# -- where to resume ------------------------------------------------------------------------------------


async def test_a_reader_goes_on_after_the_last_version_that_it_saw_at_any_node(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(2, write_quorum=2) as cluster:
        await put(cluster.node, "a", 1)
        stream = await told_by_now(cluster.node)
        await put(cluster.node, "b", 2)
        await put(cluster.node, "a", 3)
        await trio.sleep(2)
        for node in nodes_of(cluster):
            later = await told_by_now(node, f"?after={stream.resume}")
            assert later.told == [("b", 2), ("a", 3)]


async def test_a_browser_resumes_where_it_was_and_not_where_its_address_says(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        _, first = await put(cluster.node, "a", 1)
        _, second = await put(cluster.node, "b", 2)
        await put(cluster.node, "c", 3)
        query = f"?after={first['version']}"
        assert (await told_by_now(cluster.node, query)).told == [("b", 2), ("c", 3)]
        resumed = await told_by_now(cluster.node, query, last_event_id=second["version"])
        assert resumed.told == [("c", 3)]
        assert (await told_by_now(cluster.node, query, last_event_id="")).told[0] == ("b", 2)


@pytest.mark.parametrize(
    ("query", "headers", "field"),
    [
        ("?after=7", {}, "after"),
        ("?after=", {}, "after"),
        ("", {"last-event-id": "seven"}, "Last-Event-ID"),
        ("?prefix=" + "x" * 513, {}, "prefix"),
        ("?key=a", {}, "key"),
    ],
)
async def test_what_is_asked_wrongly_is_refused_by_name(
    query: str, headers: Mapping[str, str], field: str, autojump_clock: MockClock
) -> None:
    async with open_client("follower") as client:
        answer = await call(client.node, "GET", f"/watch{query}", headers=headers)
        document = json.loads(await read_body(answer))
        assert (answer.status, document["code"]) == (422, "invalid_parameter")
        assert document["field"] == field
        assert len(client.node.watches) == 0


async def test_one_who_watches_a_rare_key_comes_to_resume_from_where_the_node_is(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        async with watching(cluster.node, "?prefix=rare") as stream:
            await trio.sleep(1)
            for i in range(40):
                _, last = await put(cluster.node, f"k{i}", i)
                await trio.sleep(0.5)
            await trio.sleep(HEARTBEAT_S)
        assert {*stream.kinds()} == {"heartbeat"}
        assert 4 <= len(stream.events) <= 6  # not one for each write
        for event in stream.events:
            assert event.id == event.data["version"]
        assert stream.resume is not None
        assert Version.parse(stream.resume) >= Version.parse(last["version"])
        assert (await told_by_now(cluster.node, f"?after={stream.resume}")).told == []


async def test_a_node_that_was_not_brought_in_yet_says_that_it_lives_and_nothing_more(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork()
    follower = Config(node_id="f", role="follower")
    leader = Config(node_id="l", follower_urls=("http://f",), write_quorum=1)
    async with open_memory_node(leader, network, "http://l", leads=False) as candidate:
        async with watching(candidate) as at_leader:
            await trio.sleep(31)
            async with (
                open_memory_node(follower, network, "http://f") as node,
                watching(node) as at_follower,
            ):
                assert {*at_leader.kinds()} == {"heartbeat"}
                assert len(at_leader.events) == 6
                assert {(one.data["version"], one.id) for one in at_leader.events} == {(None, None)}
                await until(lambda: candidate.leader is not None)
                await until(lambda: candidate.leader.live_links == 1)  # type: ignore[union-attr]
                await put(candidate, "a", 1)
                await at_leader.knows({"a": 1})
                await at_follower.knows({"a": 1})


# -- reset ----------------------------------------------------------------------------------------------


async def purged(cluster: Cluster, key: str) -> None:
    """Until its tombstone is gone everywhere."""
    for node in nodes_of(cluster):
        await until(lambda node=node: node.store.get(key) is None)  # type: ignore[misc]


async def test_one_who_comes_from_before_a_purge_is_told_to_forget_and_then_everything(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(2, write_quorum=1) as cluster:
        await put(cluster.node, "gone", 1)
        await put(cluster.node, "stays", 2)
        early = (await told_by_now(cluster.node)).resume
        await delete(cluster.node, "gone")
        late = (await told_by_now(cluster.node)).resume
        await put(cluster.node, "more", 3)
        await purged(cluster, "gone")
        for node in nodes_of(cluster):
            stream = await told_by_now(node, f"?after={early}")
            assert stream.kinds()[:3] == ["reset", "change", "change"]
            assert stream.events[0].id == ""  # a browser forgets where it was, too
            assert "deletions" in stream.events[0].data["reason"]
            assert stream.told == [("stays", 2), ("more", 3)]
            stream = await told_by_now(node, f"?after={late}")
            assert stream.kinds()[0] == "change"
            assert stream.told == [("more", 3)]


async def test_without_deletions_nobody_has_to_start_over(autojump_clock: MockClock) -> None:
    async with open_cluster(2, write_quorum=1) as cluster:
        await put(cluster.node, "a", 1)
        early = (await told_by_now(cluster.node)).resume
        for i in range(20):
            await put(cluster.node, "b", i)
            await trio.sleep(1)
        assert early is not None
        for node in nodes_of(cluster):
            assert node.store.state.floor > Version.parse(early)
            assert (await told_by_now(node, f"?after={early}")).told == [("b", 19)]


async def test_a_follower_with_an_empty_disk_knows_that_it_lacks_what_others_have_purged(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(2, write_quorum=1) as cluster:
        await put(cluster.node, "gone", 1)
        early = (await told_by_now(cluster.node)).resume
        await delete(cluster.node, "gone")
        await purged(cluster, "gone")
        await put(cluster.node, "a", 1)
        fresh = Config(node_id="follower2", role="follower")
        cluster.network.nodes.pop(F2)
        await until(lambda: cluster.leader.live_links == 1)
        async with open_memory_node(fresh, cluster.network, F2) as node:
            async with watching(node, f"?after={early}") as stream:
                await cluster.all_live()
                await stream.knows({"a": 1})
                assert stream.kinds()[0] == "reset"


async def test_those_who_read_are_not_overtaken_by_a_purge(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trikv.observe.change_stream, "PAGE_RECORDS", 1)
    async with open_cluster(1, write_quorum=1) as cluster:
        for i in range(20):
            await put(cluster.node, f"k{i:02}", i)
        await trio.sleep(3)
        (follower,) = cluster.followers.values()
        async with (
            watching(cluster.node, pace_s=2) as at_leader,
            watching(follower, pace_s=2) as at_follower,
        ):
            await trio.sleep(5)
            await delete(cluster.node, "k00")  # they know it
            await delete(cluster.node, "k19")
            for i in range(10):
                await put(cluster.node, "n", i)
                await trio.sleep(1)
            for node in nodes_of(cluster):
                assert node.store.get("k00") is not None
            expected = {f"k{i:02}": i for i in range(1, 19)} | {"n": 9}
            await at_leader.knows(expected)
            await at_follower.knows(expected)
            assert "reset" not in at_leader.kinds() + at_follower.kinds()
            assert ("k00", None) in at_leader.told
        for _ in range(5):
            await put(cluster.node, "n", 0)
            await trio.sleep(3)
        await purged(cluster, "k00")


async def test_a_purge_that_was_faster_all_the_same_starts_the_reader_over(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trikv.observe.change_stream, "PAGE_RECORDS", 1)
    async with open_cluster(1, write_quorum=1) as cluster:
        for i in range(5):
            await put(cluster.node, f"k{i}", i)
        async with watching(cluster.node, pace_s=1) as stream:
            await trio.sleep(1.5)
            assert len(stream.told) == 2
            await delete(cluster.node, "k0")
            store = cluster.node.store
            with store.transaction():
                store._writer.execute("DELETE FROM records WHERE key = 'k0'")
                store.set_purged(Version(cluster.leader.epoch, cluster.leader.resolved_us))
            await stream.knows({f"k{i}": i for i in range(1, 5)})
            assert stream.kinds().count("reset") == 1


@pytest.mark.parametrize("beyond", ["timestamp", "epoch"])
async def test_what_the_leader_has_never_issued_is_nowhere_to_resume_from(
    beyond: str, autojump_clock: MockClock
) -> None:
    async with open_cluster(2, write_quorum=1) as cluster:
        await put(cluster.node, "a", 1)
        epoch, last_us = cluster.leader.epoch, cluster.leader.issued_us
        asked = Version(epoch, last_us + 10**6)
        if beyond == "epoch":
            asked = Version(Epoch(epoch.number + 1, "x"), 1)
        stream = await told_by_now(cluster.node, f"?after={asked}")
        assert stream.kinds()[:2] == ["reset", "change"]
        assert stream.state == {"a": 1}
        assert str(asked) in stream.events[0].data["reason"]


@pytest.mark.parametrize("followers", [0, 1])
async def test_a_leader_of_quorum_0_knows_what_it_has_issued(
    autojump_clock: MockClock, followers: int
) -> None:
    async with open_cluster(followers, write_quorum=0) as cluster:
        await put(cluster.node, "a", 1)
        stream = await told_by_now(cluster.node, "?after=99.a-1")
        assert stream.kinds()[0] == "reset"


async def test_a_leader_that_may_have_been_replaced_does_not_say_what_was_never_issued(
    autojump_clock: MockClock,
) -> None:
    network = Cuttable()
    async with open_cluster(2, network=network, write_quorum=1) as cluster:
        network.cut = {F1, F2}
        async with watching(cluster.node, "?after=99.a-1") as stream:
            await stream.ended.wait()
        assert stream.kinds()[-1] == "end"
        assert "reset" not in stream.kinds()
        assert stream.events[-1].data["code"] == "behind"


async def test_a_follower_that_is_behind_its_reader_waits_and_then_sends_it_away(
    autojump_clock: MockClock,
) -> None:
    network = Cuttable()
    async with open_cluster(2, network=network, write_quorum=1) as cluster:
        await put(cluster.node, "a", 1)
        await trio.sleep(2)
        network.cut = {F2}
        await put(cluster.node, "b", 2)
        resume = (await told_by_now(cluster.node)).resume
        follower = cluster.followers[F2]
        async with watching(follower, f"?after={resume}") as stream:
            began = trio.current_time()
            await stream.ended.wait()
            assert trio.current_time() - began == pytest.approx(BEHIND_S, abs=0.1)
            assert stream.events[-1].kind == "end"
            assert stream.events[-1].data["code"] == "behind"
        async with watching(follower, f"?after={resume}") as stream:
            await trio.sleep(BEHIND_S - 2)
            network.cut.clear()
            await put(cluster.node, "c", 3)
            await until(lambda: stream.told == [("c", 3)])


# -- how it ends ----------------------------------------------------------------------------------------


async def test_a_reader_that_is_too_slow_is_told_so_and_goes_on_from_where_it_was(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trikv.observe.change_stream, "PAGE_RECORDS", 2)
    async with open_cluster(1, write_quorum=1) as cluster:
        for i in range(6):
            await put(cluster.node, f"k{i}", i)
        async with watching(cluster.node, pace_s=SLOW_S - 1) as stream:
            await trio.sleep(5 * SLOW_S)
            assert stream.state == {f"k{i}": i for i in range(6)}
            stream.pace_s = SLOW_S + 1
            await stream.ended.wait()
        assert stream.events[-1].kind == "end"
        assert stream.events[-1].data["code"] == "slow_reader"
        assert len(cluster.node.watches) == 0
        await put(cluster.node, "k6", 6)
        assert (await told_by_now(cluster.node, f"?after={stream.resume}")).told == [("k6", 6)]


async def test_a_node_that_stops_ends_its_streams_at_once(autojump_clock: MockClock) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        (follower,) = cluster.followers.values()
        lone = Config(node_id="lone", follower_urls=("http://nobody",))
        async with open_memory_node(lone, MemoryNetwork(), "http://x", leads=False) as candidate:
            for node in (follower, cluster.node, candidate):
                async with watching(node) as stream:
                    await trio.sleep(7)
                    node.begin_stop()
                    began = trio.current_time()
                    await stream.ended.wait()
                    assert trio.current_time() - began < 0.1
                    assert stream.events[-1] == (
                        "end",
                        {"reason": "this node is stopping", "code": "stopping"},
                        None,
                    )
                answer = await call(node, "GET", "/watch")
                assert answer.status == 503
                document = json.loads(await read_body(answer))
                assert document["code"] == "not_ready"
                assert "stopping" in document["detail"]


async def test_a_leader_that_leads_no_more_sends_its_readers_away(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(1, write_quorum=1) as cluster:
        leader = cluster.leader
        async with watching(cluster.node) as stream:
            await trio.sleep(1)
            leader.superseded("another leads")
            await stream.ended.wait()
            assert stream.events[-1].data["code"] == "deposed"
            assert "another leads" in stream.events[-1].data["reason"]
        answer = await call(cluster.node, "GET", "/watch")
        assert (answer.status, json.loads(await read_body(answer))["code"]) == (503, "not_ready")


async def test_a_database_that_cannot_be_read_ends_the_stream_and_says_so(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_client("leader") as client, watching(client.node) as stream:
        await put(client.node, "a", 1)
        await stream.knows({"a": 1})

        async def fail(work: Callable[[], Any]) -> Any:
            await trio.lowlevel.checkpoint()
            raise StorageFailed("this node could not read its database: gone")

        monkeypatch.setattr(client.node, "scan", fail)
        await put(client.node, "b", 1)
        await stream.ended.wait()
        assert stream.events[-1].data["code"] == "storage_failed"
        assert "gone" in stream.events[-1].data["reason"]


async def test_one_reader_too_many_is_refused_and_may_come_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trikv.observe.change_stream, "MAX_WATCHERS", 2)
    async with open_cluster(1, write_quorum=1) as cluster:
        async with watching(cluster.node), watching(cluster.node):
            await until(lambda: len(cluster.node.watches) == 2)
            answer = await call(cluster.node, "GET", "/watch")
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            assert json.loads(await read_body(answer))["code"] == "overloaded"
        assert len(cluster.node.watches) == 0
        # Those who were let in and did not begin yet do not count: they do once they begin.
        late = await call(cluster.node, "GET", "/watch")
        assert late.status == 200
        async with watching(cluster.node), watching(cluster.node):
            await until(lambda: len(cluster.node.watches) == 2)
            body = await read_body(late)
            assert body.startswith(b"event: end\n")
            assert b'"code":"overloaded"' in body
        await put(cluster.node, "a", 1)
        assert (await told_by_now(cluster.node)).told == [("a", 1)]


# -- what it costs --------------------------------------------------------------------------------------


async def test_many_writes_are_one_look_and_nobody_watching_is_none(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = MemoryNetwork()
    async with open_cluster(1, network=network, write_quorum=1) as cluster:
        reads = 0
        scan = cluster.node.scan

        async def counted(work: Callable[[], Any]) -> Any:
            nonlocal reads
            reads += 1
            return await scan(work)

        monkeypatch.setattr(cluster.node, "scan", counted)
        link = cluster.leader.links[0]

        async def write(count: int) -> None:
            for i in range(count):
                await put(cluster.node, f"k{i}", i)
                await trio.sleep(0.001)

        await trio.sleep(2)
        network.seen.clear()
        await write(100)
        sent = [body for _, _, body in network.seen if body and b'"key"' in body]
        assert reads == 0
        assert len(sent) >= 50
        assert not any(b'"confirmed"' in body for body in sent)
        assert not link._watched
        async with watching(cluster.node) as stream:
            await trio.sleep(1)
            assert len(stream.told) == 100
            before, ids = reads, len([one for one in stream.events if one.id])
            await write(200)  # in 0.2 s
            # Where to resume keeps up while it goes on, whatever is on its way.
            assert len([one for one in stream.events if one.id]) >= ids + 5
            await trio.sleep(1)
            assert len(stream.told) == 300
            assert 5 <= reads - before <= 15
        assert not cluster.leader._awaited or reads
        before = reads
        await write(50)
        assert reads == before


async def test_a_leader_tells_a_watched_follower_what_is_confirmed_and_stops_when_nobody_watches(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork()
    async with open_cluster(2, network=network, write_quorum=1) as cluster:
        links = cluster.leader.links
        async with watching(cluster.followers[F1]):
            await until(lambda: links[0]._watched)
            assert not links[1]._watched
            network.seen.clear()
            await put(cluster.node, "a", 1)
            await trio.sleep(0.5)
            told = {base for base, _, body in network.seen if body and b'"confirmed"' in body}
            assert F1 in told
        await until(lambda: not links[0]._watched)


# -- over HTTP ------------------------------------------------------------------------------------------


async def test_a_stream_outlives_every_timeout_of_the_web_framework(
    autojump_clock: MockClock,
) -> None:
    async with open_client("leader") as client, trio.open_nursery() as nursery:
        chunks: list[bytes] = []
        await _ask_for_chunks(nursery, client, chunks)
        await put(client.node, "a", 1)
        await trio.sleep(400)
        await put(client.node, "b", 2)
        await trio.sleep(1)
        assert b"".join(chunks).count(b"event: change\n") == 2
        nursery.cancel_scope.cancel()
    assert len(client.node.watches) == 0


async def _ask_for_chunks(nursery: trio.Nursery, client: Client, chunks: list[bytes]) -> None:
    """`GET /watch` through the web app, by a client that stays."""

    async def receive() -> Any:
        if not asked:
            asked.append(True)
            return {"type": "http.request", "body": b"", "more_body": False}
        await trio.sleep_forever()

    async def send(event: Any) -> None:
        await trio.lowlevel.checkpoint()
        chunks.append(event.get("body", b""))

    asked: list[bool] = []
    scope = {
        "type": "http",
        "asgi": {"spec_version": "2.1", "version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/watch",
        "raw_path": b"/watch",
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "state": {},
        "extensions": {},
    }
    nursery.start_soon(client._app, scope, receive, send)
    await until(lambda: len(chunks) > 0)


async def test_a_head_request_sees_the_head_of_a_stream_and_its_end(
    autojump_clock: MockClock,
) -> None:
    async with open_client("leader") as client:
        answer = await client.ask("HEAD", "/watch")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["content-type"] == "text/event-stream"
        assert len(client.node.watches) == 0


async def test_a_client_that_leaves_is_forgotten(autojump_clock: MockClock) -> None:
    async with open_client("leader") as client:
        for _ in range(3):
            answer = await client.ask("GET", "/watch")
            assert answer.status == 200
            assert answer.headers["cache-control"] == "no-store"
        assert len(client.node.watches) == 0


async def test_a_place_that_is_not_sure_yet_gives_way_to_no_later_one(
    autojump_clock: MockClock,
) -> None:
    """Or under a steady load there would never be one to resume from."""
    async with open_cluster(2, write_quorum=1) as cluster:
        await put(cluster.node, "a", 1)
        await until(lambda: cluster.leader.confirmed is not None)
        watching = trikv.observe.change_stream.Watch(cluster.node)
        first = cluster.leader.confirmed
        assert first is not None
        soon, later, far = (
            first._replace(timestamp_us=first.timestamp_us + us) for us in (1, 2, 10**12)
        )
        assert not watching._make_sure(first, soon)  # a page, while that was the newest in the map
        assert not watching._make_sure(later, far)
        assert watching._resume is None
        await trio.sleep(1)
        await put(cluster.node, "a", 2)
        await until(lambda: (cluster.leader.confirmed or first) > later)
        assert not watching._make_sure(far, far)
        assert watching._resume == first
