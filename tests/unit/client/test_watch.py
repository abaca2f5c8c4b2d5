"""A watch tells every key's latest state, without a gap and nothing twice, however its streams end."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.client.fake_watch import FakeWatch, event, version
from tests.unit.client.wires import (
    SHELLS,
    SILENCE,
    A,
    Asked,
    AsyncWire,
    B,
    C,
    FakeClock,
    Reply,
    Shell,
    SyncClientOnAClock,
    SyncWire,
    Wire,
    play,
    problem,
    run_async,
)
from trikv.client import Change, Client, InvalidRequest, Refused, Reset
from trikv.model.version import Version

per_shell = pytest.mark.parametrize("shell", SHELLS)


class Reader:
    """What a program makes of a watch: the state so far. It checks what it is told."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.versions: dict[str, Version] = {}
        self.resets = 0

    def take(self, told: Change | Reset) -> None:
        if isinstance(told, Reset):
            self.state, self.versions = {}, {}
            self.resets += 1
            return
        came = Version.parse(told.version)
        before = self.versions.get(told.key)
        assert before is None or came > before, "told twice, or the older one last"
        self.versions[told.key] = came
        if told.deleted:
            self.state.pop(told.key, None)
        else:
            self.state[told.key] = told.value


def random_write(rng: random.Random) -> dict[str, Any]:
    keys = rng.sample([f"{p}{i}ä" for p in "kx" for i in range(4)], rng.choice([1, 1, 2, 5]))
    return {key: rng.choice([None, 1, "zwei", {"ö": []}]) for key in keys}


def one_watch(seed: int) -> None:
    """Writes go on while streams are cut, nodes lag, tombstones are purged, and readers begin anew."""
    rng = random.Random(seed)
    fake = FakeWatch(rng, faults=rng.choice([0.0, 0.5, 0.9]), lag=rng.choice([0, 3]))
    writes = rng.randrange(1, 20)
    fake.log = [random_write(rng) for _ in range(rng.randrange(6))]

    def answer(asked: Asked) -> Reply | Exception:
        nonlocal writes
        if rng.random() < fake.faults / 2:
            failures: list[Reply | Exception] = [
                httpx.ConnectError("refused"),
                httpx.ReadError("reset"),
                problem("not_ready", 503),
                Reply(200, "<html>", "text/html"),
            ]
            return rng.choice(failures)
        if writes:
            writes -= 1
            fake.log.append(random_write(rng) if writes else {"k-last": True})
        else:
            fake.faults, fake.lag = 0, 0
        if rng.random() < 0.2:
            fake.purged = rng.randint(fake.purged, len(fake.log) - 1)
        return fake.answer(asked)

    reader = Reader()
    wire = Wire(answer, clock=FakeClock())
    after: str | None = None
    with SyncClientOnAClock((A, B, C), wire.clock, transport=SyncWire(wire)) as client:
        while "k-last" not in reader.state:
            if after is None:
                reader = Reader()
            reader.versions = {}  # what was told after `version` may be told again to another reader
            with client.watch("k", after=after) as changes:
                for told in changes:
                    reader.take(told)
                    if "k-last" in reader.state:
                        break
                    if rng.random() < 0.1:  # this program ends, and another goes on from there
                        break
                after = changes.version
    assert reader.state == fake.state("k")


@settings(max_examples=500)
@given(seed=st.integers(0, 2**40))
def test_fuzz_a_watch_ends_at_the_state_of_the_nodes(seed: int) -> None:
    one_watch(seed)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_a_watch_reads_an_asgi_app_to_its_state(backend: str) -> None:
    fake = FakeWatch(random.Random(1), [random_write(random.Random(i)) for i in range(30)])
    fake.log.append({"k-last": 1})
    fake.faults = 0.7

    async def run() -> None:
        async with Client([A, B], transport=httpx.ASGITransport(fake)) as client:
            reader = Reader()
            async with client.watch("k") as changes:
                async for told in changes:
                    reader.take(told)
                    if "k-last" in reader.state:
                        break
            assert reader.state == fake.state("k")

    run_async(backend, run)


def stream(*events: str, hangs: bool = False) -> Reply:
    body = "".join(events).encode()
    return Reply(200, content_type="text/event-stream", content=(body,), hangs=hangs)


def change(key: str, number: int, *, resume: int | None = None) -> str:
    """`resume`: where the node says that one can go on from, if it is not this change's version."""
    data = {"key": key, "value": number, "version": version(number)}
    return event("change", data, number if resume is None else resume or None)


@per_shell
def test_a_batch_that_a_stream_tells_half_of_is_told_whole(shell: Shell) -> None:
    replies = [
        stream(change("a", 1), change("b", 2, resume=0)),
        stream(change("b", 2, resume=0), change("c", 2), change("d", 3, resume=0)),
    ]

    async def scenario(client: Client) -> None:
        async with client.watch() as changes:
            told = [await anext(changes) for _ in range(4)]
            assert [one.key for one in told if isinstance(one, Change)] == ["a", "b", "c", "d"]
            resume = changes.version
            assert resume == version(2)

    wire = Wire(lambda _: replies.pop(0))
    play(shell, scenario, wire)
    assert [asked.query for asked in wire.seen] == [{}, {"after": version(1)}]
    assert wire.seen[0].headers["accept"] == "text/event-stream"


@per_shell
def test_what_is_still_to_be_told_is_not_claimed_as_told(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        async with client.watch("", after=version(1)) as changes:
            seen = []
            for _ in range(3):
                await anext(changes)
                seen.append(changes.version)
            assert seen == [version(1), version(3), version(3)]

    many = stream(
        change("a", 2, resume=0),
        change("b", 3),
        change("c", 4, resume=0),
        change("d", 5),
        hangs=True,
    )
    play(shell, scenario, Wire(lambda _: many))


@per_shell
def test_what_a_node_does_not_vouch_for_is_no_place_to_resume_from(shell: Shell) -> None:
    replies = [
        stream(change("a", 2, resume=0), change("b", 5, resume=3), change("c", 7, resume=0)),
        stream(change("z", 4, resume=0), change("b", 5, resume=0), change("c", 7, resume=0)),
    ]

    async def scenario(client: Client) -> None:
        async with client.watch(after=version(1)) as changes:
            told = [await anext(changes) for _ in range(4)]
            assert [one.key for one in told if isinstance(one, Change)] == ["a", "b", "c", "z"]

    wire = Wire(lambda _: replies.pop(0))
    play(shell, scenario, wire)
    assert [asked.query for asked in wire.seen] == [{"after": version(1)}, {"after": version(3)}]


@per_shell
def test_a_node_that_can_tell_nothing_yet_is_alive(shell: Shell) -> None:
    replies = [
        stream(event("heartbeat", {"version": None}), change("a", 1)),
        stream(change("b", 2)),
    ]

    async def scenario(client: Client) -> None:
        async with client.watch() as changes:
            assert await anext(changes) == Change("a", 1, version(1))
            assert await anext(changes) == Change("b", 2, version(2))

    wire = Wire(lambda _: replies.pop(0))
    play(shell, scenario, wire)
    assert wire.seen[1].query == {"after": version(1)}


@per_shell
def test_a_heartbeat_moves_the_version_to_resume_from(shell: Shell) -> None:
    replies = [
        stream(change("a", 1), event("heartbeat", {"version": version(9)})),
        stream(change("b", 10)),
    ]

    async def scenario(client: Client) -> None:
        async with client.watch() as changes:
            await anext(changes)
            await anext(changes)

    wire = Wire(lambda _: replies.pop(0))
    play(shell, scenario, wire)
    assert wire.seen[1].query == {"after": version(9)}


@per_shell
def test_a_reset_begins_anew(shell: Shell) -> None:
    replies = [
        stream(event("reset", {"reason": "purged"}), change("a", 1), change("b", 2, resume=0)),
        stream(change("b", 2), change("c", 3)),
    ]

    async def scenario(client: Client) -> None:
        async with client.watch(after=version(5)) as changes:
            assert await anext(changes) == Reset("purged")
            assert changes.version is None
            told = [await anext(changes) for _ in range(3)]
            assert [one.key for one in told if isinstance(one, Change)] == ["a", "b", "c"]

    wire = Wire(lambda _: replies.pop(0))
    play(shell, scenario, wire)
    assert [asked.query for asked in wire.seen] == [{"after": version(5)}, {"after": version(1)}]


@per_shell
def test_a_stream_that_is_lost_before_there_is_a_version_to_resume_from_begins_anew(
    shell: Shell,
) -> None:
    replies = [stream(change("a", 1, resume=0)), stream(change("b", 2))]

    async def scenario(client: Client) -> None:
        async with client.watch() as changes:
            assert await anext(changes) == Change("a", 1, version(1))
            assert isinstance(await anext(changes), Reset)
            assert await anext(changes) == Change("b", 2, version(2))

    play(shell, scenario, Wire(lambda _: replies.pop(0)))


@per_shell
@pytest.mark.parametrize(
    "first",
    [
        SILENCE,
        stream(hangs=True),
        stream(": nothing\n\n", hangs=True),
        stream(event("end", {"reason": "slow", "code": "slow_reader"})),
        stream("event: change\ndata: no json\n\n"),
        stream(event("change", {"key": "a", "version": "7"})),
        stream(event("change", {"key": "a", "version": version(1)})),
        stream(event("change", [])),
        stream(event("heartbeat", {})),
        problem("not_ready", 503),
        problem("storage_failed", 507),
        Reply(502, "<html>", "text/html"),
        Reply(200, {"fine": True}),
        httpx.ConnectTimeout(""),
        httpx.RemoteProtocolError("gone"),
    ],
    ids=str,
)
def test_a_stream_that_is_none_is_left_for_another_node(
    shell: Shell, first: Reply | Exception
) -> None:
    replies = [first, stream(change("a", 7))]

    async def scenario(client: Client) -> None:
        async with client.watch("a") as changes:
            assert await anext(changes) == Change("a", 7, version(7))

    wire = Wire(lambda _: replies.pop(0))
    play(shell, scenario, wire)
    assert wire.nodes[0] != wire.nodes[1]


@per_shell
def test_a_watch_that_no_node_would_open_says_so(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(Refused) as caught:
            async with client.watch() as changes:
                await anext(changes)
        assert caught.value.code == "no_such_route"
        with pytest.raises(InvalidRequest):
            client.watch(after="7")
        with pytest.raises(InvalidRequest):
            client.watch("x" * 513)

    play(shell, scenario, Wire(lambda _: problem("no_such_route", 404)))


@per_shell
def test_events_of_a_newer_node_are_passed_over(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        async with client.watch() as changes:
            assert await anext(changes) == Change("a", 1, version(1))

    play(shell, scenario, Wire(lambda _: stream(event("news", {}), change("a", 1))))


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_waiting_for_a_change_can_be_cancelled_and_taken_up_again(backend: str) -> None:
    replies = [
        stream(change("a", 1), change("b", 2, resume=0), hangs=True),
        stream(change("b", 2), change("c", 3)),
    ]
    wire = Wire(lambda _: replies.pop(0))

    async def run() -> None:
        async with Client(A, transport=AsyncWire(wire)) as client, client.watch() as changes:
            await anext(changes)
            await anext(changes)
            with anyio.move_on_after(5) as patience:
                await anext(changes)
            assert patience.cancelled_caught
            assert await anext(changes) == Change("c", 3, version(3))

    run_async(backend, partial(run))
    assert wire.seen[1].query == {"after": version(1)}
