"""Each answer of a node becomes a call as `history` wants it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trio

from loadgen.check.clients import Client, Keys
from loadgen.check.history import ABSENT, Call, Shown
from loadgen.check.recorder import ANSWER_TIMEOUT_S, Connection, Recorder, Told

V1, V2 = "1.abc-1700000000000001", "1.abc-1700000000000002"

Handler = Callable[[httpx.Request], httpx.Response]


def problem(status: int, code: str, **more: Any) -> Handler:
    return lambda request: httpx.Response(status, json={"code": code, **more})


def answer(**body: Any) -> Handler:
    return lambda request: httpx.Response(200, json=body)


def failing(error: type[Exception]) -> Handler:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error("no luck")

    return fail


class Desk:
    """A recorder, and a connection to a node that answers the same to everything."""

    def __init__(self, handler: Handler) -> None:
        self.asked: list[httpx.Request] = []
        self.recorder = Recorder()
        self.handler = handler
        self.connection = Connection(
            3, lambda name: f"http://{name}.test", self.recorder, httpx.MockTransport(self._take)
        )

    def _take(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.handler(request)

    @property
    def call(self) -> Call:
        (call,) = self.recorder.history.calls
        return call

    async def put(self, expected: dict[str, str | None] | None = None) -> Told | None:
        return await self.connection.put("n1", "a/1", "v", expected or {}, ANSWER_TIMEOUT_S)


async def test_a_confirmed_put_has_its_version_and_shows_nothing() -> None:
    desk = Desk(answer(key="a/1", value="v", version=V1))
    assert await desk.put() is not None
    call = desk.call
    assert (call.client, call.node, call.kind, call.outcome) == (3, "n1", "write", "ok")
    assert (call.writes, call.version, call.shown) == ({"a/1": "v"}, V1, {})
    assert call.answered is not None
    assert call.answered >= call.begun
    assert desk.asked[0].url == "http://n1.test/kv/a/1"


@pytest.mark.parametrize(
    ("expected", "header", "value"),
    [(None, "if-none-match", "*"), ("*", "if-match", "*"), (V1, "if-match", f'"{V1}"')],
)
async def test_a_precondition_is_sent_and_recorded(
    expected: str | None, header: str, value: str
) -> None:
    desk = Desk(problem(412, "version_conflict", key="a/1", version=V2))
    await desk.put({"a/1": expected})
    assert desk.asked[0].headers[header] == value
    assert desk.call.expected == {"a/1": expected}
    assert desk.call.shown == {"a/1": Shown(None, V2)}
    assert desk.call.outcome == "refused"


async def test_a_conflict_with_nothing_shows_that_the_key_is_absent() -> None:
    desk = Desk(problem(412, "version_conflict", key="a/1", version=None))
    await desk.put({"a/1": V1})
    assert desk.call.shown == {"a/1": ABSENT}


async def test_a_delete_expects_that_the_key_is_there_and_a_404_shows_that_it_is_not() -> None:
    desk = Desk(problem(404, "not_found", key="a"))
    await desk.connection.delete("n1", "a", ANSWER_TIMEOUT_S)
    assert (desk.call.writes, desk.call.expected) == ({"a": None}, {"a": "*"})
    assert (desk.call.shown, desk.call.outcome) == ({"a": ABSENT}, "refused")


async def test_a_batch_has_puts_deletes_and_conditions() -> None:
    desk = Desk(answer(operations=2, version=V2))
    await desk.connection.batch("n1", {"a": "x", "b": None}, {"b": V1}, ANSWER_TIMEOUT_S)
    assert desk.asked[0].read() == (
        b'{"operations":[{"op":"put","value":"x","key":"a"},'
        b'{"op":"delete","key":"b","if_version":"' + V1.encode() + b'"}]}'
    )
    assert (desk.call.writes, desk.call.version) == ({"a": "x", "b": None}, V2)


async def test_a_quorum_that_was_not_met_is_unknown_and_has_a_version() -> None:
    desk = Desk(problem(503, "quorum_not_met", version=V1))
    await desk.put()
    assert (desk.call.outcome, desk.call.version, desk.call.shown) == ("unknown", V1, {})


@pytest.mark.parametrize("error", [httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError])
async def test_a_request_that_nobody_answered_is_unknown(error: type[Exception]) -> None:
    desk = Desk(failing(error))
    assert await desk.put() is not None
    assert (desk.call.outcome, desk.call.answered, desk.call.status) == ("unknown", None, 0)


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout])
async def test_a_request_that_was_not_sent_is_not_recorded(error: type[Exception]) -> None:
    desk = Desk(failing(error))
    assert await desk.put() is None
    assert desk.recorder.history.calls == []
    assert desk.recorder.not_sent == 1


async def test_an_answer_that_cannot_be_read_is_none() -> None:
    desk = Desk(lambda request: httpx.Response(200, content=b'{"key": "a/'))
    await desk.put()
    assert (desk.call.outcome, desk.call.version) == ("unknown", None)


async def test_a_client_that_hangs_up_or_is_cancelled_leaves_an_unknown_call(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    recorder = Recorder()
    transport = httpx.MockTransport(never)
    connection = Connection(0, lambda name: "http://n.test", recorder, transport)
    await connection.put("n", "a", "hangs up", {}, 0.5)
    with trio.move_on_after(1):
        await connection.put("n", "a", "is cancelled", {}, 60)
    calls = recorder.history.calls
    assert [call.outcome for call in calls] == ["unknown", "unknown"]
    assert [call.writes["a"] for call in calls] == ["hangs up", "is cancelled"]


async def test_a_read_shows_value_and_version_or_that_there_is_nothing() -> None:
    desk = Desk(answer(key="a", value=[1], version=V1))
    await desk.connection.read("n2", "a", 3, linearizable=True, min_version=V1)
    assert desk.asked[0].url.params["consistency"] == "linearizable"
    assert desk.asked[0].url.params["min_version"] == V1
    assert (desk.call.shown, desk.call.linearizable) == ({"a": Shown([1], V1)}, True)
    desk = Desk(problem(404, "not_found", key="a"))
    await desk.connection.read("n2", "a", 3)
    assert desk.call.shown == {"a": ABSENT}
    desk = Desk(problem(504, "read_timeout"))
    await desk.connection.read("n2", "a", 3, min_version=V1)
    assert desk.call.shown == {}


async def test_a_list_is_one_call_of_all_its_pages() -> None:
    pages = {
        None: {"items": [{"key": "a", "value": 1, "version": V1}], "next": "a"},
        "a": {"items": [{"key": "b", "value": 2, "version": V2}], "next": None},
    }
    desk = Desk(lambda request: httpx.Response(200, json=pages[request.url.params.get("after")]))
    await desk.connection.list_keys("n", "", V1)
    assert len(desk.asked) == 2
    assert desk.call.shown == {"a": Shown(1, V1), "b": Shown(2, V2)}
    assert (desk.call.kind, desk.call.min_version, desk.call.outcome) == ("list", V1, "ok")


async def test_a_list_that_breaks_off_shows_nothing() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if "after" in request.url.params:
            return httpx.Response(504, json={"code": "read_timeout"})
        return httpx.Response(
            200, json={"items": [{"key": "a", "value": 1, "version": V1}], "next": "a"}
        )

    desk = Desk(handler)
    await desk.connection.list_keys("n", "", V1)
    assert (desk.call.shown, desk.call.outcome) == ({}, "refused")


def test_keys_give_way_one_after_the_other_and_old_ones_are_known() -> None:
    keys = Keys("p/", 3)
    assert [keys.at(place, 0.0) for place in range(3)] == ["p/0/0", "p/1/0", "p/2/0"]
    moments = [[keys.at(place, now_s) for place in range(3)] for now_s in (9.9, 10.1, 20.1, 30.1)]
    assert moments == [
        ["p/0/0", "p/1/0", "p/2/0"],
        ["p/0/0", "p/1/0", "p/2/1"],
        ["p/0/0", "p/1/1", "p/2/1"],
        ["p/0/1", "p/1/1", "p/2/1"],
    ]
    assert keys.at(0, 30.1, age=1) == "p/0/0"
    assert keys.at(0, 30.1, age=5) == "p/0/0"


def test_every_other_key_is_never_deleted() -> None:
    keys, rng = Keys("p/", 5), random.Random(1)
    found = {key for _ in range(100) for key in keys.some(rng, 0.0, 2, deletable=True)}
    assert found == {"p/0/0", "p/2/0", "p/4/0"}
    assert all(keys.may_be_deleted(key) for key in found)
    assert not keys.may_be_deleted("p/3/12")
    assert Keys("p/", 1).some(rng, 0.0, 3) == ["p/0/0"]


async def test_a_client_finds_the_leader_and_remembers_its_session(
    autojump_clock: trio.testing.MockClock,
) -> None:
    recorder, written = Recorder(), 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal written
        if request.url.host == "a.test":
            raise httpx.ConnectError("it is down")
        if request.url.host == "b.test" and request.method != "GET":
            return problem(403, "not_leader", leader={"node_id": "c", "url": "?"})(request)
        if request.method == "GET":
            return problem(404, "not_found", key="a")(request)
        written += 1
        return answer(version=f"1.abc-{written}")(request)

    transport = httpx.MockTransport(handler)
    connection = Connection(0, lambda name: f"http://{name}.test", recorder, transport)
    client = Client(0, connection, "abc", Keys("", 4), random.Random(5), recorder.now)
    await client.run(10.0)
    assert client.leader == "c"
    assert client.session == f"1.abc-{written}"
    calls = recorder.history.calls
    values = [v for call in calls for v in call.writes.values() if v is not None]
    assert len(values) == len(set(values)) > 50
    assert {call.min_version is not None for call in calls if call.kind == "list"} <= {True}
    assert recorder.not_sent > 0
