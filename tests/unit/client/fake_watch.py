"""A node's `GET /watch`, as small as it can be: an ASGI app over a log of writes.

It tells the latest change of every key after a version, in version order, and ends when it has told
all that it holds, or wherever its test wants it cut: in the middle of a batch, or of a character. It
does not vouch for each version.
"""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from tests.unit.client.wires import Asked, Reply
from trikv.model.version import Epoch, Version

Message = MutableMapping[str, Any]


def version(number: int) -> str:
    return str(Version(Epoch(1, "aa"), number))


@dataclass
class FakeWatch:
    """`log[i]` is the write with the version i + 1: values by key, None deletes."""

    rng: random.Random
    log: list[dict[str, Any]] = field(default_factory=list)
    purged: int = 0
    """Tombstones up to this one are gone."""
    faults: float = 0.0
    lag: int = 0
    """A node may be so many writes behind."""

    def latest(self, upto: int | None = None) -> dict[str, tuple[int, Any]]:
        found: dict[str, tuple[int, Any]] = {}
        for number, write in enumerate(self.log[:upto], 1):
            found |= {key: (number, value) for key, value in write.items()}
        return {
            key: (number, value)
            for key, (number, value) in found.items()
            if value is not None or number > self.purged
        }

    def state(self, prefix: str) -> dict[str, Any]:
        return {
            key: value
            for key, (_, value) in self.latest().items()
            if value is not None and key.startswith(prefix)
        }

    def events(self, prefix: str, after: int | None) -> str:
        told = ""
        if after is not None and after < self.purged:
            told += event("reset", {"reason": "purged"})
            after = None
        holds = len(self.log) - self.rng.randint(0, self.lag)
        last = 0
        changes = [
            (key, number, value)
            for key, (number, value) in sorted(
                self.latest(holds).items(), key=lambda one: one[1][0]
            )
            if number > (after or 0) and key.startswith(prefix)
        ]
        for index, (key, number, value) in enumerate(changes):
            if number != last and last and self.rng.random() < 0.3:
                told += event("heartbeat", {"version": version(last)})
            shown = {"deleted": True} if value is None else {"value": value}
            ends = index + 1 == len(changes) or changes[index + 1][1] > number
            sure = number if ends and self.rng.random() < 0.7 else None
            told += event("change", {"key": key, **shown, "version": version(number)}, sure)
            last = number
            if self.rng.random() < 0.2:
                told += ": still here\n\n"
        if holds > 0:
            told += event("heartbeat", {"version": version(max(holds, after or 0))})
        elif self.rng.random() < 0.5:
            told += event("heartbeat", {"version": None})
        return told

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        query = parse_qs(scope["query_string"].decode())
        after = int(query["after"][0].rpartition("-")[2]) if "after" in query else None
        body = self.events(query.get("prefix", [""])[0], after).encode()
        if self.rng.random() < self.faults:
            body = body[: self.rng.randint(0, len(body))]
        elif self.rng.random() < 0.5:
            body += event("end", {"reason": "too slow", "code": "slow_reader"}).encode()
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while body:
            size = self.rng.randint(1, 200)
            await send({"type": "http.response.body", "body": body[:size], "more_body": True})
            body = body[size:]
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def answer(self, asked: Asked) -> Reply:
        """The same for a wire, without an event loop."""
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        query = "&".join(f"{name}={text}" for name, text in asked.query.items())
        running: Any = self({"query_string": query.encode()}, receive, send)
        try:
            running.send(None)
        except StopIteration:
            pass
        else:
            raise AssertionError("the fake waits for something")
        pieces = tuple(message["body"] for message in sent[1:])
        return Reply(200, content_type="text/event-stream", content=pieces)


def event(kind: str, data: Any, number: int | None = None) -> str:
    identity = "" if number is None else f"id: {version(number)}\n"
    return f"event: {kind}\n{identity}data: {json.dumps(data, ensure_ascii=False)}\n\n"
