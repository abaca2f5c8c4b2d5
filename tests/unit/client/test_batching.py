"""Concurrent writes share batches, and nobody fails for another: on trio and on asyncio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.client.wires import A, Asked, AsyncWire, Reply, Wire, problem, run_async
from trikv.client import (
    Batching,
    Client,
    ClientError,
    InvalidRequest,
    OutcomeUnknown,
    Put,
    Unavailable,
    Written,
)
from trikv.client.batching import Waiting, take
from trikv.protocol.messages import MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS

backends = pytest.mark.parametrize("backend", ["trio", "asyncio"])

Answers = Callable[[Asked], Reply | Exception]


def keys_of(asked: Asked) -> list[str]:
    return [operation["key"] for operation in asked.json()["operations"]]


class Leader:
    """Takes batches, and says what it was told to say to some keys."""

    def __init__(self, delay_s: float = 0, **refusals: Reply) -> None:
        self.delay_s = delay_s
        self.refusals = refusals
        self.map: dict[str, Any] = {}
        self.count = 0

    def __call__(self, asked: Asked) -> Reply | Exception:
        operations = asked.json()["operations"]
        assert len({one["key"] for one in operations}) == len(operations)
        for index, one in enumerate(operations):
            if (refusal := self.refusals.get(one["key"])) is not None:
                document = dict(refusal.document)
                if "field" in document:
                    document["field"] = document["field"].format(index)
                return Reply(refusal.status, document, refusal.content_type)
        self.map |= {one["key"]: one.get("value", "gone") for one in operations}
        self.count += 1
        answer = {"version": f"1.aa-{self.count}", "follower_acks": 1}
        return Reply(200, answer, delay_s=self.delay_s)


def play(backend: str, wire: Wire, scenario: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Client(A, transport=AsyncWire(wire)) as client:
            await scenario(client)

    run_async(backend, run)


async def gather(*calls: Awaitable[Any]) -> list[Any]:
    """The results, or errors of the client, of calls that are made at once."""
    results: list[Any] = [None] * len(calls)

    async def run(index: int, call: Awaitable[Any]) -> None:
        try:
            results[index] = await call
        except ClientError as error:
            results[index] = error

    async with anyio.create_task_group() as tasks:
        for index, call in enumerate(calls):
            tasks.start_soon(run, index, call)
    return results


@backends
def test_concurrent_writes_share_a_batch_and_its_version(backend: str) -> None:
    leader = Leader()
    wire = Wire(leader)

    async def scenario(client: Client) -> None:
        async with client.batching() as together:
            alone = await together.put("first", 0)
            assert alone == Written("1.aa-1", 1)
            done = await gather(
                *[together.put(f"k{i}", i) for i in range(50)], together.delete("first")
            )
            assert all(isinstance(one, Written) for one in done)

    play(backend, wire, scenario)
    assert leader.map == {"first": "gone", **{f"k{i}": i for i in range(50)}}
    assert len(wire.seen) <= 3


@backends
def test_a_second_write_of_a_key_waits_for_the_next_batch(backend: str) -> None:
    leader = Leader()
    wire = Wire(leader)

    async def scenario(client: Client) -> None:
        async with client.batching() as together:
            done = await gather(*[together.put("k", i) for i in range(3)])
            assert len({one.version for one in done}) == 3

    play(backend, wire, scenario)
    assert [keys_of(asked) for asked in wire.seen] == [["k"]] * 3


@backends
def test_a_bad_value_fails_nobody_else(backend: str) -> None:
    too_large = problem("too_large", 413, field="operations[{}].value")
    strange = problem("bad_request", 400)
    leader = Leader(large=too_large, odd=strange)
    wire = Wire(leader)

    async def scenario(client: Client) -> None:
        async with client.batching() as together:
            keys = ["a", "b", "large", "c", "odd", "d", "e", ""]
            done = await gather(*[together.put(key, key) for key in keys])
            failed = {k: one for k, one in zip(keys, done, strict=True) if type(one) is not Written}
            assert failed.keys() == {"large", "odd", ""}
            assert all(type(one) is InvalidRequest for one in failed.values())
            large: Any = failed["large"]
            assert (large.key, large.field) == ("large", "value")

    play(backend, wire, scenario)
    assert leader.map.keys() == {"a", "b", "c", "d", "e"}


@backends
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (problem("quorum_not_met", 503, version="1.aa-9"), OutcomeUnknown),
        (httpx.ReadError("reset"), OutcomeUnknown),
        (httpx.ConnectError("refused"), Unavailable),
    ],
    ids=str,
)
def test_each_caller_is_told_what_became_of_the_batch(
    backend: str, reply: Reply | Exception, kind: type[ClientError]
) -> None:
    async def scenario(client: Client) -> None:
        async with client.batching(timeout_s=1) as together:
            one, other = await gather(together.put("a", 1), together.put("b", 2))
            assert type(one) is type(other) is kind
            assert (one.key, other.key) == ("a", "b")
            assert one.version == ("1.aa-9" if isinstance(reply, Reply) else None)

    play(backend, Wire(lambda _: reply), scenario)


@backends
def test_a_caller_that_is_cancelled_takes_back_what_has_not_left(backend: str) -> None:
    leader = Leader(delay_s=5)
    wire = Wire(leader)

    async def scenario(client: Client) -> None:
        async with client.batching() as together:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(together.put, "first", 1)
                await anyio.sleep(1)
                with anyio.move_on_after(1):
                    await together.put("never", 1)
                with anyio.move_on_after(5):
                    await together.put("flying", 1)
                await together.put("after", 1)

    play(backend, wire, scenario)
    assert leader.map.keys() == {"first", "flying", "after"}


@backends
def test_an_error_in_the_block_comes_out_as_it_is(backend: str) -> None:
    async def scenario(client: Client) -> None:
        async def fail() -> None:
            async with client.batching() as together:
                opened.append(together)
                await together.put("a", 1)
                raise KeyError("mine")

        opened: list[Batching] = []
        with pytest.raises(KeyError, match="mine"):
            await fail()
        with pytest.raises(RuntimeError, match="over"):
            await opened[0].put("b", 1)

    play(backend, Wire(Leader()), scenario)


@backends
def test_a_block_that_is_cancelled_lets_nobody_wait(backend: str) -> None:
    async def scenario(client: Client) -> None:
        outcomes: list[Any] = []

        async def write(together: Batching, key: str) -> None:
            outcomes.extend(await gather(together.put(key, 1)))

        async with anyio.create_task_group() as tasks:
            with anyio.move_on_after(3):
                async with client.batching() as together:
                    tasks.start_soon(write, together, "flies")
                    await anyio.sleep(1)
                    tasks.start_soon(write, together, "waits")
                    await anyio.sleep(100)
        assert sorted(type(one).__name__ for one in outcomes) == ["OutcomeUnknown", "Unavailable"]

    play(backend, Wire(lambda _: Reply()), partial(scenario))


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, MAX_BATCH_BYTES * 2))),
    st.integers(0, 3000),
)
def test_fuzz_batches_hold_each_key_once_in_order_and_within_bounds(
    wanted: list[tuple[str, int]], more: int
) -> None:
    queue = [Waiting(Put(key, 1), size) for key, size in wanted]
    queue += [Waiting(Put(f"x{i}", 1), 100) for i in range(more)]
    asked = list(queue)
    sent = []
    while queue:
        batch = take(queue)
        assert 1 <= len(batch) <= MAX_BATCH_OPERATIONS
        assert len(batch) == 1 or sum(one.size for one in batch) <= MAX_BATCH_BYTES
        assert len({one.operation.key for one in batch}) == len(batch)
        sent += batch
    assert len(sent) == len(asked)
    for key in "abcdef":  # writes of one key go out in the order in which they came
        assert [one for one in sent if one.operation.key == key] == [
            one for one in asked if one.operation.key == key
        ]
