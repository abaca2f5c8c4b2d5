"""What clients asked of a store, and what they were told: one `Call` for each request.

A history is a list of calls and, at the end, what each node holds. It is all that `verdict` goes by, and
can be written to a file and read back.

    outcome   ok        it was answered with 200
              refused   it certainly did nothing; a 412, and the 404 of a delete, tell what is there
              unknown   it may have happened, or may yet: no answer, or one that says so

Moments are seconds on one clock, the same for all clients. Values of a history are JSON scalars, and
unique: no two writes write the same one. None stands for a key that is not there, or is deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

#: Problems after which a write may be there.
UNKNOWN_CODES = frozenset({"quorum_not_met", "storage_failed"})

#: Problems that say for certain that nothing was written.
REFUSED_CODES = frozenset(
    {
        "not_leader",
        "not_ready",
        "not_enough_followers",
        "overloaded",
        "version_conflict",
        "not_found",
        "read_timeout",  # of a refusal that could not be confirmed
    }
)


class Order(NamedTuple):
    """A version as it is compared: of all writes, the later one has the greater."""

    epoch: int
    instance: str
    timestamp_us: int

    @classmethod
    def of(cls, text: str) -> Order:
        """Read `NUMBER.INSTANCE-TIMESTAMP`. Raises ValueError."""
        epoch, _, timestamp_us = text.partition("-")
        number, _, instance = epoch.partition(".")
        return cls(int(number), instance, int(timestamp_us))


class Shown(msgspec.Struct, frozen=True, array_like=True):
    """A key's value as a node showed it, with its version if it told that."""

    value: Any
    version: str | None = None


#: A key that a node said is not there.
ABSENT = Shown(None)


class Call(msgspec.Struct, omit_defaults=True):
    """One request and its answer.

    `writes` are a put's, delete's or batch's values by key, None for a delete. `expected` holds the
    preconditions: the version that a key must have, None for a key that must not be there, "*" for one
    that must. `shown` is what the answer told of keys: a read's, a list's, a refusal's.
    """

    client: int
    node: str
    kind: Literal["write", "read", "list"]
    begun: float
    answered: float | None = None
    status: int = 0
    code: str = ""
    writes: dict[str, Any] = {}
    expected: dict[str, str | None] = {}
    linearizable: bool = False
    min_version: str | None = None
    shown: dict[str, Shown] = {}
    version: str | None = None

    def take(self, status: int, body: Mapping[str, Any], at: float) -> None:
        """Note what an answer says: its status, its decoded body, and when it came."""
        self.status, self.code, self.answered = status, str(body.get("code", "")), at
        if self.kind == "write" and (status == 200 or self.code in UNKNOWN_CODES):
            self.version = body.get("version")
        elif self.code == "version_conflict":
            version = body["version"]
            self.shown = {body["key"]: Shown(None, version) if version else ABSENT}
        elif self.code == "not_found":
            self.shown = {body["key"]: ABSENT}
        elif self.kind == "list" and status == 200:
            self.shown = {one["key"]: Shown(one["value"], one["version"]) for one in body["items"]}
        elif self.kind == "read" and status == 200:
            self.shown = {body["key"]: Shown(body["value"], body["version"])}

    @property
    def outcome(self) -> Literal["ok", "refused", "unknown"]:
        if self.status == 200:
            return "ok"
        if self.code in REFUSED_CODES or 400 <= self.status < 500:
            return "refused"
        return "unknown"

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"


class Fault(msgspec.Struct):
    """Something that was done to the store: from when to when, to whom."""

    kind: str
    node: str
    begun: float
    ended: float | None = None


class History(msgspec.Struct):
    """All calls, all faults, and what each node holds in the end: key to value and version."""

    calls: list[Call] = []
    faults: list[Fault] = []
    final: dict[str, dict[str, Shown]] = {}

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, text: bytes) -> History:
        """Raises msgspec.MsgspecError."""
        return msgspec.json.decode(text, type=cls)
