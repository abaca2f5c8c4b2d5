"""A cluster as one writer of a key sees it, small enough to be obviously right: leaders, what is lost
between them, requests that arrive late, and the truth about every write.

Each leadership has a map. A write is applied to the map of the leader that it reaches, and to nothing
else; it is *confirmed*, or it stays unconfirmed until the leader confirms it or a takeover happens. A
takeover begins with all confirmed writes of the former leader's map, and with any of the others. The
old leader may go on, deposed without knowing it: it takes writes into its map, and confirms none.

`written` is the truth: our writes that are part of the history which confirmed reads can see.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.unit.client.wires import Asked, Reply, not_leader, problem
from trikv.model.version import Epoch, Version

URLS = ("http://n0:1", "http://n1:1", "http://n2:1")


@dataclass(frozen=True)
class Write:
    """A write that was applied: in a leadership's log, in the order of versions. A value of None
    deletes."""

    version: Version
    key: str
    value: Any
    ours: bool = False
    """Written by the client that is tested, and not by somebody else."""


@dataclass
class Leadership:
    number: int
    node: int
    log: list[Write]
    confirmed: int
    """The first so many of the log are."""

    def current(self, key: str) -> Write | None:
        return next((w for w in reversed(self.log) if w.key == key), None)


@dataclass
class Model:
    rng: random.Random
    faults: float = 0.5
    others_write: tuple[Any, ...] = (None, "other")
    clock_us: int = 0
    leaderships: list[Leadership] = field(default_factory=lambda: [Leadership(1, 0, [], 0)])
    on_the_way: list[Asked] = field(default_factory=list)

    @property
    def leader(self) -> Leadership:
        return self.leaderships[-1]

    def happens(self, chance: float = 1.0) -> bool:
        return self.rng.random() < chance * self.faults

    # -- what goes on besides -------------------------------------------------------------------------

    def world(self) -> None:
        """Anything that may happen between two requests."""
        if self.happens(0.3):
            self.takeover()
        if self.happens(0.3):
            self.leader.confirmed = len(self.leader.log)
        if self.on_the_way and self.happens(0.5):
            late = self.on_the_way.pop(self.rng.randrange(len(self.on_the_way)))
            node = URLS.index(late.node)
            self._serve(self._led_by(node), late)
        if self.happens(0.3):
            self.somebody()

    def takeover(self) -> None:
        old = self.leader
        some = [w for w in old.log[old.confirmed :] if self.rng.random() < 0.5]
        log = [*old.log[: old.confirmed], *some]
        node = self.rng.choice([n for n in range(3) if n != old.node])
        self.leaderships.append(Leadership(old.number + 1, node, log, len(log)))

    def somebody(self) -> None:
        """Another client writes or deletes the key."""
        value = self.rng.choice(self.others_write)
        present = self.leader.current("k")
        if value is None and (present is None or present.value is None):
            return
        self._apply(self.leader, "k", value)
        self.leader.confirmed = len(self.leader.log)

    def finish(self) -> None:
        """All that is on its way arrives, and all is confirmed."""
        while self.on_the_way:
            late = self.on_the_way.pop()
            self._serve(self._led_by(URLS.index(late.node)), late)
        self.leader.confirmed = len(self.leader.log)

    @property
    def written(self) -> list[str]:
        """The versions of our writes in the history: the last leadership's log holds all of it."""
        return [str(one.version) for one in self.leader.log if one.ours]

    def _led_by(self, node: int) -> Leadership | None:
        """The leadership that a node takes itself to have: its last, if it has not heard of
        another."""
        led = [one for one in self.leaderships if one.node == node]
        if not led or (led[-1] is not self.leader and self.rng.random() < 0.5):
            return None
        return led[-1]

    # -- requests -------------------------------------------------------------------------------------

    def answer(self, asked: Asked) -> Reply | Exception:
        self.world()
        led = self._led_by(URLS.index(asked.node))
        if self.happens(0.3):
            return httpx.ConnectError("refused")
        if self.happens(0.2) and asked.method != "GET":
            self.on_the_way.append(asked)
            return httpx.ReadError("reset: the request goes on alone")
        reply = self._serve(led, asked)
        self.world()
        if self.happens(0.3):
            return httpx.ReadError("reset: the answer is lost")
        return reply

    def _serve(self, led: Leadership | None, asked: Asked) -> Reply:
        if led is None:
            return not_leader(URLS[self.leader.node])
        if asked.method == "GET":
            return self._read(led, asked)
        if self.happens(0.2):
            return problem("not_enough_followers", 503)
        current = led.current("k")
        version = None if current is None or current.value is None else current.version
        body = asked.json() if asked.body else {}
        value = body.get("value")
        one = next((op for op in body.get("operations", []) if op["key"] == "k"), None)
        if one is not None:
            value = one["value"]
        if not self._holds(asked, one, version):
            if led is not self.leader:
                return problem("read_timeout", 504)  # a refusal is a read: it is not confirmed
            led.confirmed = len(led.log)
            return problem("version_conflict", 412, key="k", version=version and str(version))
        if asked.method == "DELETE" and version is None:
            return problem("not_found", 404)
        new = self._apply(led, "k", value, ours=True)
        if led is not self.leader or self.happens(0.5):
            if self.happens(0.3):
                return problem("storage_failed", 507)
            return problem("quorum_not_met", 503, version=str(new))
        led.confirmed = len(led.log)
        return Reply(200, {"version": str(new), "follower_acks": 1})

    def _holds(self, asked: Asked, one: Any, version: Version | None) -> bool:
        shown = None if version is None else str(version)
        if one is not None:
            return "if_version" not in one or one["if_version"] == shown
        if "if-none-match" in asked.headers:
            return version is None
        match = asked.headers.get("if-match")
        return match is None or (shown is not None and match in ("*", f'"{shown}"'))

    def _read(self, led: Leadership, asked: Asked) -> Reply:
        if led is not self.leader:
            return problem("read_timeout", 504)
        led.confirmed = len(led.log)
        current = led.current("k")
        if current is None or current.value is None:
            return problem("not_found", 404)
        document = {"key": "k", "value": current.value, "version": str(current.version)}
        return Reply(200, json.loads(json.dumps(document)))

    def _apply(self, led: Leadership, key: str, value: Any, *, ours: bool = False) -> Version:
        self.clock_us += 1
        version = Version(Epoch(led.number, "aa"), self.clock_us)
        led.log.append(Write(version, key, value, ours))
        return version
