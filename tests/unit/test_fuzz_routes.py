"""Every route, asked anything: an answer in time, never a 500, and nothing changed by a refusal.

The routes are taken from the table, so that a new one is asked too: with the queries and bodies that
are given for it below, or else with any. Five nodes are asked: a leader and its two followers, a node
that does not lead yet, and a follower that has never heard of a leader. Requests go through the real web
app, under the mock clock; what they name as epoch 1.a is the leader's own.

After each request
- the status and the code are those that the documents know, of that route, and a problem is complete
- if it was a refusal, every node's map and all that it knows of itself are what they were
- no node contradicts itself
and at the end each node answers, and the leader, unless it was told of a higher epoch, takes a write.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.support import MemoryNetwork, lone_leaf, open_cluster, open_memory_node
from tests.unit import fuzzing as fuzz
from tests.unit.fuzzing import bodies_like, examples, often, shaped
from tests.unit.inprocess import Answered, Client
from trikv.config import Config
from trikv.errors import QuorumNotMet, StorageFailed
from trikv.model.node_state import NodeState
from trikv.model.version import NO_VERSION
from trikv.network.simulated_lag import LagRange
from trikv.web.routes import ROUTES, Route

API = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")

#: Each code that clients may see, with its status.
CODES = {
    code: int(status)
    for code, status in re.findall(r"^\| `(\w+)` \| (\d{3}) \|", API, re.MULTILINE)
}
#: What any route may say, of a request that is none of its own.
GENERAL = {"bad_request", "too_large", "request_timeout", "method_not_allowed", "no_such_route"}

#: Refusals that tell what the map holds: a version was issued to look, and watermarks may pass it.
SPEND_A_VERSION = {"not_found", "version_conflict", "read_timeout"}

#: An answer is due: twice the longest wait that a request may ask for, and the longest of our own.
PATIENCE_S = 2 * 600 + 60

#: By then all that was accepted has gone where it goes.
QUIET_S = 30

NODES = ("leader", "follower1", "follower2", "candidate", "lone")


def errors_of(name: str) -> set[str]:
    """The codes that the documents list for a route, by the end of its section."""
    section = API.split(f"\n### {name}\n", 1)[1].split("\n### ", 1)[0].split("\n## ", 1)[0]
    listed = section.rsplit("\nErrors: ", 1)[1].split("\n\n", 1)[0]
    codes = set(re.findall(r"`(\w+)`", listed))
    if "[PUT]" in listed:
        codes |= errors_of("PUT /kv/{key}")
    if "/admin/partition`]" in listed:
        codes |= errors_of("POST /admin/partition")
    return codes


LISTED = {
    f"{route.method} {route.path}": errors_of(f"{route.method} {route.path}") for route in ROUTES
}

# -- what is asked ----------------------------------------------------------------------------------

_read = {"min_version": fuzz.version_texts, "timeout_ms": st.sampled_from(["1", "300", "0300"])}
PARAMETERS: Mapping[str, st.SearchStrategy[str]] = {
    **_read,
    "trace": st.sampled_from(["true", "false"]),
    "ready": st.sampled_from(["true", "false"]),
    "leads": st.sampled_from(["true", "false"]),
    "data": st.sampled_from(["true", "false"]),
    "consistency": st.sampled_from(["local", "linearizable"]),
    "prefix": fuzz.key_texts,
    "after": fuzz.key_texts | fuzz.version_texts,
    "limit": st.integers(0, 3).map(str),
    "epoch": fuzz.epoch_texts,
}
QUERIES: Mapping[str, Sequence[str]] = {
    "PUT /kv/{key}": ["trace"],
    "DELETE /kv/{key}": ["trace"],
    "POST /batch": ["trace"],
    "GET /kv/{key}": ["consistency", *_read],
    "GET /kv": ["prefix", "after", "limit", *_read],
    "GET /watch": ["prefix", "after"],
    "GET /replica/records": ["after", "limit", "epoch"],
    "GET /health": ["ready", "leads"],
    "GET /": [],
    "GET /metrics": [],
    "GET /events": [],
    **{f"GET /{name}": [] for name in ("ui", "ui/{file}", "openapi.json", "docs")},
    "GET /admin/replica-status": ["data"],
    **{
        name: []
        for name in ("GET /dump", "GET /replica", "POST /replicate", "POST /replica/promise")
    },
    **{f"POST /admin/{name}": [] for name in ("quorum", "lag", "partition", "admit")},
}
_follower = fuzz.quoted(often(st.sampled_from(["follower1", "http://follower2"]), fuzz.odd_texts))
BODIES: Mapping[str, st.SearchStrategy[str]] = {
    "PUT /kv/{key}": shaped({"value": fuzz.values}),
    "POST /batch": shaped({"operations": fuzz.array_of(fuzz.operation)}),
    "POST /replicate": fuzz.batch | fuzz.plain,
    "POST /replica/promise": fuzz.asked_promise,
    "POST /admin/quorum": shaped(
        {"write_quorum": st.integers(-1, 3).map(str), "force": st.sampled_from(["true", "false"])}
    ),
    "POST /admin/lag": shaped(
        {"min_delay_ms": st.just("0"), "max_delay_ms": st.just("9"), "follower": _follower}
    ),
    "POST /admin/partition": shaped({"follower": _follower, "cut": st.just("true")}),
    "POST /admin/admit": shaped({"follower": _follower}),
}
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "PUT\u00df")
_etags = fuzz.version_texts.map('"{}"'.format) | st.just("*") | fuzz.odd_texts
HEADERS: Mapping[str, st.SearchStrategy[str]] = {
    "if-match": _etags,
    "if-none-match": st.just("*") | fuzz.odd_texts,
    "last-event-id": fuzz.version_texts | fuzz.odd_texts,
    "x-request-id": st.just("a/1:b") | fuzz.odd_texts,
    "accept": st.lists(
        st.sampled_from(["text/plain", "application/openmetrics-text", "*/*"])
        | st.sampled_from(["text/plain;version=x", "text/plain;version=99.0.0; escaping=no", ";="])
        | st.sampled_from(["application/openmetrics-text; version=1.0.0; q=0.5; escaping=dots"])
        | fuzz.odd_texts
    ).map(",".join),
    **{
        name: fuzz.odd_texts
        for name in ("content-type", "content-length", "host", "expect", "accept-encoding", "range")
    },
    **{
        name: st.sampled_from(["chunked", "gzip", "identity, chunked", "", "DELETE", "\xff"])
        for name in ("transfer-encoding", "content-encoding", "x-http-method-override", "cookie")
    },
}


class Asked(NamedTuple):
    node: str
    route: str
    """Whose request it resembles."""
    method: str
    target: bytes
    body: bytes | Sequence[bytes]
    headers: Mapping[str, str]


@st.composite
def requests(draw: st.DrawFn, route: Route) -> Asked:
    """A request for that route, or almost."""
    name = f"{route.method} {route.path}"
    method = draw(often(st.just(route.method), st.sampled_from(METHODS)))
    key = _escaped(draw(often(fuzz.key_texts, fuzz.odd_texts)))
    target = route.path.replace("{key}", key).replace("{file}", "app.js")
    known = QUERIES.get(name, list(PARAMETERS))
    pairs = []
    for parameter in draw(st.lists(st.sampled_from(known), max_size=2)) if known else ():
        pairs.append((parameter, draw(often(PARAMETERS[parameter], fuzz.odd_texts))))
    if draw(st.integers(0, 7)) == 7:
        pairs.append((draw(st.sampled_from(list(PARAMETERS)) | fuzz.odd_texts), "1"))
    if pairs:
        target += "?" + "&".join(f"{_escaped(a)}={_escaped(b)}" for a, b in pairs)
    raw = target.encode()
    if draw(st.integers(0, 7)) == 7:
        raw = draw(fuzz.mutated(st.just(raw)))
    usual = BODIES.get(name, fuzz.json_texts if route.method != "GET" else st.just(""))
    body: bytes | Sequence[bytes] = draw(bodies_like(usual))
    if isinstance(body, bytes) and draw(st.integers(0, 7)) == 7:
        body = [body[:3], body[3:]]
    headers = draw(often(st.just({}), _some_headers))
    printable = bytes(byte for byte in raw if 0x21 <= byte <= 0x7E)  # as the server lets through
    return Asked(
        draw(st.sampled_from(NODES) | st.just("leader")), name, method, printable, body, headers
    )


_some_headers = st.lists(
    st.sampled_from(list(HEADERS)), min_size=1, max_size=2, unique=True
).flatmap(
    lambda names: st.fixed_dictionaries({name: HEADERS[name].map(_sendable) for name in names})
)


def _sendable(text: str) -> str:
    """What a header may hold on the wire."""
    return re.sub(r"[^\x20-\x7e]", "", text).strip()


def _escaped(text: str) -> str:
    return quote(text.encode("utf-8", "replace"), safe="*'\"")


def without_marks(looks: Any) -> Any:
    """The same with every node's watermark and floor left out."""
    return {
        name: [
            part._replace(watermark=NO_VERSION, floor=NO_VERSION)
            if isinstance(part, NodeState)
            else part
            for part in look
        ]
        for name, look in looks.items()
    }


def with_epoch(content: bytes, epoch: str) -> bytes:
    """A text in which 1.a is that epoch."""
    return re.sub(rb"\b1\.a\b", epoch.encode(), content)


# -- who is asked -----------------------------------------------------------------------------------


class Lab:
    """The five nodes, and what becomes of them."""

    def __init__(self, clients: Mapping[str, Client]) -> None:
        self.clients = clients
        self.epoch = str(clients["leader"].node.epoch)

    @property
    def leads(self) -> bool:
        leader = self.clients["leader"].node.leader
        return leader is not None and leader.deposed is None

    def looks(self) -> Any:
        """All that a refusal must leave as it was, of every node."""
        return {name: self._looks(client) for name, client in self.clients.items()}

    def _looks(self, client: Client) -> Any:
        node = client.node
        look: list[Any] = [node.store.state, node.store.page_by_version(None, 10**6, 10**9)]
        if node.follower is not None:
            look += [node.follower.state, node.follower.leader]
        if node.leadership is not None:
            leader, changes = node.leadership.leader, node.leadership.reconfiguration
            look += [leader.in_force, leader.deposed, leader.inflight_writes, leader.lag.default]
            look += [dict(leader.lag.of), changes.configuration, changes.pending]
            look += [node.wires.is_cut(link.url) for link in leader.links]
        return look

    async def ask(self, asked: Asked) -> None:
        before = self.looks()
        chunks = [asked.body] if isinstance(asked.body, bytes) else asked.body
        sent = [with_epoch(chunk, self.epoch) for chunk in chunks]
        with trio.fail_after(PATIENCE_S):
            answer = await self.clients[asked.node].ask(
                asked.method,
                with_epoch(asked.target, self.epoch),
                sent[0] if isinstance(asked.body, bytes) else sent,
                headers=asked.headers,
            )
        code = check_answer(asked, answer)
        if code is None or code in (QuorumNotMet.code, StorageFailed.code):
            await self.calm()
        elif asked.node == "leader" and code in SPEND_A_VERSION:
            await self.calm()
            assert without_marks(self.looks()) == without_marks(before), (asked, answer)
        else:
            assert self.looks() == before, (asked, answer)
        for client in self.clients.values():
            client.node.store.state.check_invariants()

    async def calm(self) -> None:
        """Undo what was changed of the network and the quorum, and wait until nothing moves."""
        node = self.clients["leader"].node
        if self.leads and (leadership := node.leadership) is not None:
            leadership.leader.lag.set(LagRange(0, 0))
            for link in leadership.links:
                leadership.wires.heal(link.url)
            if leadership.leader.write_quorum != 1 or leadership.reconfiguration.pending:
                await self.clients["leader"].post(
                    "/admin/quorum", {"write_quorum": 1, "force": True}
                )
        await trio.sleep(QUIET_S)

    async def still_works(self) -> None:
        await self.calm()
        for client in self.clients.values():
            assert (await client.get("/health"))["status"] == "ok"
        written = await self.clients["leader"].put("after", {"all": "this"})
        if self.leads:
            assert written.status == 200, written
            assert (await self.clients["leader"].get("/dump"))["after"] == {"all": "this"}
        else:
            assert (written.status, written.json()["code"]) == (503, "not_ready")


@asynccontextmanager
async def open_lab() -> AsyncIterator[Lab]:
    candidate = Config(node_id="candidate", follower_urls=("http://nobody",))
    lone = Config(node_id="lone", role="follower")
    network = MemoryNetwork()
    async with (
        open_cluster(2, write_quorum=1, max_value_bytes=4_000) as cluster,
        open_memory_node(candidate, network, "http://candidate", leads=False) as not_yet,
        open_memory_node(lone, network, "http://lone") as never,
    ):
        nodes = (cluster.node, *cluster.followers.values(), not_yet, never)
        lab = Lab({name: Client(node) for name, node in zip(NODES, nodes, strict=True)})
        assert (await lab.clients["leader"].put("kept", 1)).status == 200
        plain = {"key": "kept", "value": 1, "timestamp": 1}
        assert (await lab.clients["lone"].post("/replicate", plain)).status == 200
        await lab.calm()
        yield lab


def run(asked: Sequence[Asked]) -> None:
    async def main() -> None:
        async with open_lab() as lab:
            for one in asked:
                await lab.ask(one)
            await lab.still_works()

    try:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    except BaseExceptionGroup as group:
        raise lone_leaf(group) from None


# -- what is answered -------------------------------------------------------------------------------


def check_answer(asked: Asked, answer: Answered) -> str | None:
    """The code of a refusal, None of anything else. Fails unless it is as documented."""
    kind = answer.headers.get("content-type")
    assert re.fullmatch("[!-~]{1,128}", answer.headers.get("x-request-id", "none")), answer
    if asked.method.upper() == "HEAD":
        assert answer.status in {200, 304, 307, *CODES.values()} - {500}
        return None if answer.status in (200, 304) else "?"
    if answer.status == 307:
        assert answer.headers["location"] == "ui"
        assert path_of(asked) == "/"
        return None
    if answer.status == 304:
        assert (answer.body, kind) == (b"", None)
        return None
    if (answer.status, kind) == (200, "text/event-stream"):
        assert asked.target.startswith((b"/watch", b"/events")), answer
        return None
    if answer.status == 200 and asked.target.partition(b"?")[0] == b"/metrics":
        assert kind is not None
        assert kind.startswith(("text/plain", "application/openmetrics-text"))
        return None
    if answer.status == 200 and asked.target.startswith((b"/ui", b"/docs")):
        assert kind is not None
        assert kind.startswith("text/")
        return None
    assert answer.status == 200 or "x-request-id" in answer.headers
    content = fuzz.decoded(answer.body)
    if answer.status == 200 or (answer.status == 503 and content.get("status") == "ok"):
        assert kind == "application/json", answer
        return None if answer.status == 200 else "?"
    assert kind == "application/problem+json", answer
    code: str = content["code"]
    assert code != "internal_error", answer
    assert CODES[code] == answer.status == content["status"], answer
    assert code in listed_for(asked) | GENERAL, (asked, answer)
    assert content["type"] == f"urn:trikv:problem:{code}"
    assert content["title"] == HTTPStatus(answer.status).phrase
    assert 0 < len(content["detail"]) < 10_000
    assert "\n" not in content["detail"]
    if code in ("invalid_body", "invalid_parameter", "invalid_key", "too_large"):
        assert isinstance(content["field"], str)
    if code in ("quorum_not_met", "not_enough_followers"):
        assert isinstance(content["required"], int)
    if code == "overloaded":
        assert answer.headers["retry-after"] == str(content["retry_after_s"])
    if code == "method_not_allowed":
        assert answer.headers["allow"]
    return code


def path_of(asked: Asked) -> str:
    """The path as the app reads it: after the host of an absolute target, `/` if there is none."""
    path = asked.target.partition(b"?")[0].decode()
    _, absolute, rest = path.partition("://")
    return "/" + rest.partition("/")[2] if absolute and not path.startswith("/") else path or "/"


def listed_for(asked: Asked) -> set[str]:
    """The codes that the documents list for the route that it came to."""
    path = path_of(asked)
    path = "/kv/{key}" if path.startswith("/kv/") else path
    path = "/ui/{file}" if path.startswith("/ui/") else path
    method = asked.method.upper().replace("HEAD", "GET")
    return LISTED.get(f"{method} {path}", set())


@examples(25)
@given(st.lists(st.sampled_from(ROUTES).flatmap(requests), min_size=6, max_size=20))
def test_whatever_is_asked_is_answered_and_a_refusal_changes_nothing(asked: list[Asked]) -> None:
    run(asked)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
@examples(7)
@given(data=st.data())
def test_every_route_survives_whatever_it_is_asked(route: Route, data: st.DataObject) -> None:
    run(data.draw(st.lists(requests(route), min_size=6, max_size=16)))


def test_there_are_queries_and_bodies_for_every_route() -> None:
    assert set(QUERIES) == set(LISTED)
    assert set(BODIES) == {name for name in LISTED if name.startswith(("PUT ", "POST "))}
