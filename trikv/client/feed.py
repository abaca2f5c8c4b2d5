"""A watch that survives: from the events of one stream after the other to the changes of one.

Where to resume. The version of the last change that came is no place to resume from: the rest of its
batch may still be missing, and `after` leaves out all that has that version; and nodes do not vouch for
every version at once (docs/design.md says why). So `resume` is what they say: the `id` of an event, or
a heartbeat's version. What then comes a second time is passed over.

A stream may end at any moment, and at any node: a disconnected one, one that says `end` (a reader that
is too slow, a node that stops), one that is silent for too long. All the same, the next begins at
`resume`, at the next node. `reset` says that this cannot be done without a gap: the watch starts over,
and tells so.

Pure.
"""

from __future__ import annotations

import json
import random
from typing import Any, NamedTuple

from trikv.client import wire
from trikv.client.calls import backoff_s
from trikv.client.model import Change, Reset
from trikv.client.nodes import Nodes
from trikv.client.wire import Answer, Request
from trikv.model.version import Version
from trikv.protocol.sse import Event, EventParser

#: A stream that is silent for so long is given up: a node sends heartbeats much more often.
SILENCE_S = 30.0

#: How long a node may take to begin its answer.
OPEN_S = 5.0


class Told(NamedTuple):
    """What a stream has told: a change, a reset, or None where only `resume` has moved.

    `resume` is where to go on for one who has taken in this and all before.
    """

    what: Change | Reset | None
    resume: str | None


class Feed:
    """One watch, across all its streams: `opened` begins one, `lost` ends it."""

    def __init__(
        self, nodes: Nodes, prefix: str, after: str | None, node: str, rng: random.Random
    ) -> None:
        self.node = node
        self.resume = after
        self._nodes = nodes
        self._prefix = prefix
        self._rng = rng
        self._parser = EventParser()
        self._told: dict[str, Version] = {}  # the keys told after `resume`
        self._failures = 0

    @property
    def request(self) -> Request:
        """What opens the next stream, at `node`."""
        request = wire.get_request("/watch", prefix=self._prefix, after=self.resume)
        return Request("GET", request.target, headers={"accept": "text/event-stream"})

    def opened(self, answer: Answer) -> list[Told]:
        """A node has answered; what is to be told ahead of its stream.

        Raises Refused (no node would open one), ValueError (this is none, another node may have one).
        """
        if answer.status != 200:
            reading = wire.read(self.node, answer)
            if reading.meaning is wire.Meaning.REFUSED:
                raise wire.refusal(reading)
            raise ValueError(reading.detail)
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            raise ValueError(f"{self.node} answered something else than a stream")
        self._parser = EventParser()
        if self.resume is None and self._told:
            # From the beginning again: what was told and is gone for good by now would not be told.
            self._told = {}
            return [Told(Reset("the stream ended before there was a version to resume from"), None)]
        return []

    def lost(self, now_s: float, *, failed: bool = True) -> float:
        """A stream has ended, or did not begin: how long to wait before the next, in seconds.

        `failed`: the node is to be avoided for a while.
        """
        if failed:
            self._nodes.failed(self.node, now_s)
        self.node = self._nodes.ring(self._nodes.after(self.node), now_s)[0]
        self._failures += 1
        return backoff_s(self._failures, self._rng)

    def feed(self, chunk: bytes) -> tuple[list[Told], bool]:
        """What the next bytes of the stream tell, and whether the node says that it ends.

        Raises ValueError: this is no stream of ours.
        """
        told: list[Told] = []
        for event in self._parser.feed(chunk):
            match event.kind:
                case "change":
                    change = self._change(_decoded(event))
                    if event.id:
                        self._complete(Version.parse(event.id))
                    told.append(Told(change, self.resume))
                case "reset":
                    reason = _text(_decoded(event), "reason")
                    self.resume, self._told = None, {}
                    told.append(Told(Reset(reason), None))
                case "heartbeat":
                    document = _decoded(event)
                    if document.get("version", "") is not None:  # null: there is no such place yet
                        self._complete(_version(document))
                    told.append(Told(None, self.resume))
                case "end":
                    return told, True
                case _:
                    continue  # a newer node says more than we know
            self._failures = 0
        return told, False

    def _change(self, document: dict[str, Any]) -> Change | None:
        version, key = _version(document), _text(document, "key")
        deleted = document.get("deleted") is True
        if not deleted and "value" not in document:
            raise ValueError("a change without a value")
        before = self._told.get(key)
        if (before is not None and before >= version) or not self._is_after_resume(version):
            return None  # it was told before
        self._told[key] = version
        return Change(key, document.get("value"), str(version), deleted)

    def _is_after_resume(self, version: Version) -> bool:
        return self.resume is None or version > Version.parse(self.resume)

    def _complete(self, version: Version) -> None:
        """All up to a version has been told."""
        if self._is_after_resume(version):
            self.resume = str(version)
            self._told = {key: told for key, told in self._told.items() if told > version}


def _decoded(event: Event) -> dict[str, Any]:
    document = json.loads(event.data)
    if not isinstance(document, dict):
        raise ValueError(f"a {event.kind} that is no object")
    return document


def _text(document: dict[str, Any], name: str) -> str:
    text = document.get(name)
    if not isinstance(text, str):
        raise ValueError(f"{name}: expected a text")
    return text


def _version(document: dict[str, Any]) -> Version:
    return Version.parse(_text(document, "version"))
