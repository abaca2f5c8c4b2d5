"""Requests to a node, each recorded as a `Call`: what was asked, when, and what was told.

The rules of `history` are kept here and nowhere else:

    answered 200       `ok`; what a read or a list shows is in `shown`, a write's version in `version`
    404 of a read      the key is ABSENT; so it is for a delete, which expects that it is there
    412                the key has the version that the refusal names, or is ABSENT
    a problem else     its code says whether it can have happened; `quorum_not_met` names the version
    no answer          unknown: hung up, timed out, connection lost, an answer that nobody can read
    no connection      nothing was sent, so nothing is recorded

A write whose task is cancelled is recorded like one that nobody answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, Self
from urllib.parse import quote, urlencode

import httpx
import msgspec
import trio

from loadgen.check.history import Call, History, Shown

CONNECT_TIMEOUT_S = 0.5
#: The most that a client waits. Longer than a node's own patience, so that it may be the node that says
#: what happened.
ANSWER_TIMEOUT_S = 3.0
#: What a read asks a node to wait at most for what it wants.
READ_TIMEOUT_MS = 1000
#: As many keys as a page of a list may have.
LIST_KEYS = 1000
# Shorter than a server keeps an idle connection.
KEEPALIVE_S = 4.0

#: A problem's code, if a status came without a problem document.
UNREADABLE = "unreadable"


class Recorder:
    """A history that grows, and its clock."""

    def __init__(self) -> None:
        self.history = History()
        self.not_sent = 0
        """Requests for which there was no connection."""
        self.completed: Counter[str] = Counter()
        """How many calls have ended, by outcome; for who watches."""
        self._zero = trio.current_time()

    def now(self) -> float:
        """Seconds since the recorder was made."""
        return trio.current_time() - self._zero

    def note(self, call: Call) -> None:
        self.history.calls.append(call)
        self.completed[call.outcome] += 1


class Told(NamedTuple):
    """A call that has ended, and the whole body of its answer, {} if there was none."""

    call: Call
    body: dict[str, Any]


class Connection:
    """One client's way to all nodes; use it with `async with`. A request at a time.

    Every request returns None if there was no connection.
    """

    def __init__(
        self,
        client: int,
        url_of: Callable[[str], str],
        recorder: Recorder,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._client = client
        self._url_of = url_of
        self._recorder = recorder
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(keepalive_expiry=KEEPALIVE_S),
            transport=transport,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *ended: Any) -> None:
        await self._http.__aexit__(*ended)

    async def put(
        self, node: str, key: str, value: Any, expected: dict[str, str | None], patience_s: float
    ) -> Told | None:
        """`PUT`, with the preconditions of `Call.expected`."""
        headers = {}
        if key in expected:
            version = expected[key]
            match version:
                case None:
                    headers["If-None-Match"] = "*"
                case "*":
                    headers["If-Match"] = "*"
                case _:
                    headers["If-Match"] = f'"{version}"'
        call = self._write(node, {key: value}, expected)
        body = msgspec.json.encode({"value": value})
        return await self._ask(call, "PUT", _path(key), patience_s, body, headers)

    async def delete(self, node: str, key: str, patience_s: float) -> Told | None:
        """`DELETE`: it expects that the key is there."""
        call = self._write(node, {key: None}, {key: "*"})
        return await self._ask(call, "DELETE", _path(key), patience_s)

    async def batch(
        self, node: str, writes: dict[str, Any], expected: dict[str, str | None], patience_s: float
    ) -> Told | None:
        """`POST /batch`; a value None is a delete."""
        operations: list[dict[str, Any]] = []
        for key, value in writes.items():
            how = {"op": "delete"} if value is None else {"op": "put", "value": value}
            condition = {"if_version": expected[key]} if key in expected else {}
            operations.append({**how, "key": key, **condition})
        call = self._write(node, writes, expected)
        body = msgspec.json.encode({"operations": operations})
        return await self._ask(call, "POST", "/batch", patience_s, body)

    async def read(
        self,
        node: str,
        key: str,
        patience_s: float,
        *,
        linearizable: bool = False,
        min_version: str | None = None,
    ) -> Told | None:
        """`GET` of a key."""
        asked: dict[str, Any] = {"timeout_ms": READ_TIMEOUT_MS}
        if linearizable:
            asked["consistency"] = "linearizable"
        if min_version is not None:
            asked["min_version"] = min_version
        call = self._call(node, "read", linearizable=linearizable, min_version=min_version)
        path = f"{_path(key)}?{urlencode(asked)}"
        return await self._ask(call, "GET", path, patience_s)

    async def list_keys(self, node: str, prefix: str, min_version: str) -> Told | None:
        """All keys with a prefix. Every page is as new as `min_version`, and so is the whole."""
        asked = {"min_version": min_version, "timeout_ms": READ_TIMEOUT_MS}
        call = self._call(node, "list", min_version=min_version)
        path = _list_path(prefix, asked)
        shown: dict[str, Shown] = {}
        while True:
            told = await self._ask(call, "GET", path, ANSWER_TIMEOUT_S, note=False)
            if told is None or not call.ok:
                break
            shown |= call.shown
            if told.body["next"] is None:
                call.shown = shown
                break
            path = _list_path(prefix, {**asked, "after": told.body["next"]})
        if told is not None:
            self._recorder.note(call)
        return told

    # -- one request --------------------------------------------------------------------------------

    def _write(self, node: str, writes: dict[str, Any], expected: dict[str, str | None]) -> Call:
        call = self._call(node, "write")
        call.writes, call.expected = writes, expected
        return call

    def _call(self, node: str, kind: Any, **more: Any) -> Call:
        return Call(self._client, node, kind, self._recorder.now(), **more)

    async def _ask(
        self,
        call: Call,
        method: str,
        path: str,
        patience_s: float,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        note: bool = True,
    ) -> Told | None:
        """Send it, complete the call, and note it."""
        body: dict[str, Any] = {}
        call.status, call.code, call.shown, call.answered = 0, "", {}, None  # no page before
        url = self._url_of(call.node) + path
        is_sent = True
        try:
            with trio.move_on_after(patience_s):
                answer = await self._http.request(method, url, content=content, headers=headers)
                status, body = _read(answer)
                call.take(status, body, self._recorder.now())
        except (httpx.ConnectError, httpx.ConnectTimeout):
            self._recorder.not_sent += 1
            is_sent = False
        except httpx.TransportError:
            pass  # it may have arrived
        finally:
            if is_sent and note:
                self._recorder.note(call)
        return Told(call, body) if is_sent else None


def _path(key: str) -> str:
    return f"/kv/{quote(key, safe='/')}"


def _list_path(prefix: str, asked: dict[str, Any]) -> str:
    return f"/kv?{urlencode({'prefix': prefix, 'limit': LIST_KEYS, **asked})}"


def _read(answer: httpx.Response) -> tuple[int, dict[str, Any]]:
    """Status and body. An answer that cannot be read is none: status 0."""
    try:
        body = msgspec.json.decode(answer.content, type=dict[str, Any])
    except msgspec.MsgspecError:
        return 0, {"code": UNREADABLE}
    if answer.status_code == 200:
        return 200, body
    return answer.status_code, {"code": UNREADABLE, **body}


async def final_state(url: str, prefix: str) -> dict[str, Shown]:
    """What a node holds, of all keys with a prefix. Raises httpx.TransportError, KeyError."""
    shown: dict[str, Shown] = {}
    async with httpx.AsyncClient(timeout=ANSWER_TIMEOUT_S, trust_env=False) as client:
        path = _list_path(prefix, {})
        while True:
            body = msgspec.json.decode((await client.get(url + path)).content)
            shown |= {i["key"]: Shown(i["value"], i["version"]) for i in body["items"]}
            if body["next"] is None:
                return shown
            path = _list_path(prefix, {"after": body["next"]})
