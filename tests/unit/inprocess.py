"""Nodes in this process, asked through their real web app.

`Client` speaks ASGI itself: the bytes of a target and a body go in as a test wrote them, where an HTTP
library would tidy them up first (it resolves `..`, escapes a lone `%`, adds what is missing). Between
each other the nodes use the in-memory network of `tests.support`, so all runs under the mock clock.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote

import trio
from hypercorn.typing import ASGIReceiveEvent, ASGISendEvent, HTTPScope

from tests.support import MemoryNetwork, open_memory_node
from trikv.config import Config
from trikv.network.simulated_lag import LagRange
from trikv.node.node import Node
from trikv.storage.store import Store
from trikv.web.app import create_app


class NoAnswer(Exception):
    """The app ended without having answered: its client had left."""


@dataclass(frozen=True)
class Answered:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """What asks one node."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._app: Any = create_app(node)

    async def ask(
        self,
        method: str,
        target: str | bytes,
        body: bytes | Sequence[bytes] = b"",
        *,
        headers: Mapping[str, str] | None = None,
        stalls: bool = False,
        leave: trio.Event | None = None,
    ) -> Answered:
        """One request, to the end of its answer. A sequence of bodies is sent in chunks.

        If it `stalls`, the end of the body never comes. With `leave`, the client disconnects at that
        event; from a stream of events, which has no end, it does so at once. Raises NoAnswer.
        """
        leave = trio.Event() if leave is None else leave
        raw = target.encode("ascii") if isinstance(target, str) else target
        raw_path, _, query = raw.partition(b"?")
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        chunks = [body] if isinstance(body, bytes) else list(body)
        if isinstance(body, bytes):
            sent.setdefault("content-length", str(len(body)))
        scope: HTTPScope = {
            "type": "http",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(raw_path.decode("ascii")),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
            "state": {},  # type: ignore[typeddict-item]
            "extensions": {},
        }
        status: int | None = None
        answered: dict[str, str] = {}
        parts: list[bytes] = []

        async def receive() -> ASGIReceiveEvent:
            await trio.lowlevel.checkpoint()
            if chunks:
                chunk = chunks.pop(0)
                return {"type": "http.request", "body": chunk, "more_body": stalls or bool(chunks)}
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(event: ASGISendEvent) -> None:
            nonlocal status
            await trio.lowlevel.checkpoint()
            if event["type"] == "http.response.start":
                status = event["status"]
                answered.update((n.decode(), v.decode()) for n, v in event["headers"])
                if answered.get("content-type") == "text/event-stream":
                    leave.set()
            elif event["type"] == "http.response.body":
                parts.append(event["body"])

        await self._app(scope, receive, send)
        if status is None:
            raise NoAnswer
        return Answered(status, answered, b"".join(parts))

    async def get(self, target: str | bytes) -> Any:
        """The JSON of a GET that must succeed."""
        answer = await self.ask("GET", target)
        assert answer.status == 200, answer
        return answer.json()

    async def put(self, key: str, value: Any, query: str = "") -> Answered:
        """Write a value under a key that needs no escaping."""
        return await self.ask("PUT", f"/kv/{key}{query}", json.dumps({"value": value}).encode())

    async def post(self, target: str, content: Any) -> Answered:
        return await self.ask("POST", target, json.dumps(content).encode())


@asynccontextmanager
async def open_client(
    role: Literal["leader", "follower"],
    *,
    store: Store | None = None,
    **settings: Any,
) -> AsyncIterator[Client]:
    """One node on its own, and what asks it."""
    config = Config(**{"role": role, "node_id": role, "lag": LagRange(0, 0), **settings})
    async with open_memory_node(config, MemoryNetwork(), f"http://{role}", store=store) as node:
        yield Client(node)
