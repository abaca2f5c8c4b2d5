"""Clients of a store under a nemesis: what they ask, of whom, and what they remember.

Each is a task with connections of its own, that asks one thing after the other with short pauses:
puts, deletes and batches, each with and without preconditions; reads of every kind; lists.

*Whom.* A client thinks of one node as the leader. It believes a `not_leader` that names another, and
tries any other node when it gets no answer or is told `not_ready`. Now and then it asks a node at random
what only a leader should do, or the one that it took for the leader before: an old leader must not be
trusted merely because nobody asks it.

*What it remembers.* The versions that it has seen of each key, for preconditions, and its *session*: the
greatest version that it was confirmed or read linearizably. Reads with `min_version` ask for that.

*Which keys.* A few at a time, each of which gives way to a new one after a while: the history of one key
stays short, and old keys must stay as they are through all that comes. Half of them are never deleted:
a delete of unknown outcome explains every absence from then on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import trio

from loadgen.check.history import Call, Order
from loadgen.check.recorder import ANSWER_TIMEOUT_S, Connection, Told

#: How often each thing is done, in a hundred. Lists are long, so they are rare.
MIX = {
    "put": 22,
    "put_if_match": 9,
    "put_if_present": 3,
    "put_if_absent": 6,
    "delete": 8,
    "batch": 8,
    "batch_if_match": 6,
    "read_linearizable": 15,
    "read_local": 8,
    "read_min_version": 14,
    "list": 1,
}
MUST_LEAD = frozenset(MIX) - {"read_local", "read_min_version", "list"}

#: A closed loop without pauses would only make the history longer.
THINK_S = 0.04
#: Before a client asks again that got no answer.
SULK_S = 0.05

ANY_NODE = 0.05
FORMER_LEADER = 0.03
OLD_KEY = 0.08
#: How long a client waits; then it asks somebody else, while a leader that is asleep has its question.
PATIENCE_S = (0.5, ANSWER_TIMEOUT_S)
#: A write whose client hangs up early has an unknown outcome.
IMPATIENT = 0.03
IMPATIENCE_S = (0.001, 0.1)
LINEARIZABLE_AND_MIN_VERSION = 0.2

BATCH_DELETES = 0.3

REMEMBERED_VERSIONS = 4
#: Every so often one key gives way to a new one.
ROTATE_S = 10.0


class Keys:
    """The keys in use at a moment, and the ones before them."""

    def __init__(self, prefix: str, count: int) -> None:
        self.prefix = prefix
        self._count = count

    def at(self, place: int, now_s: float, *, age: int = 0) -> str:
        """The key at one of the places, or one of its predecessors."""
        turns = int(now_s / ROTATE_S + place) // self._count
        return f"{self.prefix}{place}/{max(0, turns - age)}"

    def some(
        self, rng: random.Random, now_s: float, count: int = 1, *, deletable: bool = False
    ) -> list[str]:
        """Different ones, or all if there are no more; perhaps only such as may be deleted."""
        places = range(0, self._count, 2 if deletable else 1)
        return [self.at(place, now_s) for place in rng.sample(places, min(count, len(places)))]

    def may_be_deleted(self, key: str) -> bool:
        """Those of every other place may."""
        return int(key.removeprefix(self.prefix).partition("/")[0]) % 2 == 0

    def old(self, rng: random.Random, now_s: float) -> str:
        """One that is not in use any more, if there is one."""
        return self.at(rng.randrange(self._count), now_s, age=rng.randint(1, 5))


class Client:
    """One client; `run` is its task."""

    def __init__(
        self,
        number: int,
        connection: Connection,
        nodes: Sequence[str],
        keys: Keys,
        rng: random.Random,
        now: Callable[[], float],
        *,
        linearizable: bool = True,
    ) -> None:
        self._number = number
        self._connection = connection
        self._nodes = nodes
        self._keys = keys
        self._rng = rng
        self._now = now
        self._mix = {k: n for k, n in MIX.items() if linearizable or k != "read_linearizable"}
        self.leader = nodes[0]
        self.former_leader = self._confirmed_by = nodes[0]
        self.session: str | None = None
        self._seen: dict[str, list[str]] = {}
        self._written = 0

    async def run(self, until_s: float) -> None:
        """Ask one thing after the other, until then on the clock of `now`."""
        while self._now() < until_s:
            await trio.sleep(self._rng.expovariate(1 / THINK_S))
            (what,) = self._rng.choices(list(self._mix), list(self._mix.values()))
            node = self._whom(what)
            told = await self._ask(what, node)
            if told is not None:
                self._remember(told.call)
            if what in MUST_LEAD and node == self.leader:
                await self._look_for_the_leader(told)

    def _whom(self, what: str) -> str:
        lot = self._rng.random() if what in MUST_LEAD else 0.0
        if lot < ANY_NODE:
            return self._rng.choice(self._nodes)
        return self.former_leader if lot < ANY_NODE + FORMER_LEADER else self.leader

    async def _ask(self, what: str, node: str) -> Told | None:
        if what.startswith("batch"):
            keys = self._keys.some(self._rng, self._now(), self._rng.randint(2, 3))
            return await self._batch(node, keys, conditional=what == "batch_if_match")
        if what == "list":
            if self.session is None:
                return None
            return await self._connection.list_keys(node, self._keys.prefix, self.session)
        (key,) = self._keys.some(self._rng, self._now(), deletable=what == "delete")
        if what.startswith("read"):
            return await self._read(what, node, key)
        if what == "delete":
            return await self._connection.delete(node, key, self._patience_s())
        expected = self._expected(what, key)
        value = self._value()
        return await self._connection.put(node, key, value, expected, self._patience_s())

    async def _read(self, what: str, node: str, key: str) -> Told | None:
        if self._rng.random() < OLD_KEY:
            key = self._keys.old(self._rng, self._now())
        linearizable = what == "read_linearizable"
        min_version = self.session if what == "read_min_version" else None
        if linearizable and self._rng.random() < LINEARIZABLE_AND_MIN_VERSION:
            min_version = self.session
        return await self._connection.read(
            node, key, self._patience_s(), linearizable=linearizable, min_version=min_version
        )

    async def _batch(self, node: str, keys: list[str], *, conditional: bool) -> Told | None:
        writes: dict[str, Any] = {}
        for key in keys:
            is_delete = self._keys.may_be_deleted(key) and self._rng.random() < BATCH_DELETES
            writes[key] = None if is_delete else self._value()
        expected: dict[str, str | None] = {}
        if conditional:
            key = self._rng.choice(keys)
            expected = {key: self._rng.choice([None, *self._seen.get(key, [])])}
        return await self._connection.batch(node, writes, expected, self._patience_s())

    def _expected(self, what: str, key: str) -> dict[str, str | None]:
        match what:
            case "put_if_absent":
                return {key: None}
            case "put_if_present":
                return {key: "*"}
            case "put_if_match" if key in self._seen:
                # Mostly the newest, so that many succeed.
                return {key: self._rng.choice([*self._seen[key], self._seen[key][-1]])}
            case _:
                return {}

    def _value(self) -> Any:
        """One that nobody else writes, ever."""
        self._written += 1
        return f"{self._number}-{self._written}"

    def _patience_s(self) -> float:
        if self._rng.random() < IMPATIENT:
            return self._rng.uniform(*IMPATIENCE_S)
        return self._rng.uniform(*PATIENCE_S)

    def _remember(self, call: Call) -> None:
        versions = {key: one.version for key, one in call.shown.items()}
        if call.ok and call.version is not None:
            versions |= dict.fromkeys(call.writes, call.version)
        for key, version in versions.items():
            if version is not None:
                seen = self._seen.setdefault(key, [])
                if version not in seen:
                    seen.append(version)
                    del seen[:-REMEMBERED_VERSIONS]
                if call.ok and (call.kind == "write" or call.linearizable):
                    self.session = max(self.session or version, version, key=Order.of)

    async def _look_for_the_leader(self, told: Told | None) -> None:
        """After an answer of the node that we took for the leader, or the lack of one."""
        if told is not None and told.call.ok and self._confirmed_by != self.leader:
            self.former_leader, self._confirmed_by = self._confirmed_by, self.leader
        others = [node for node in self._nodes if node != self.leader]
        if told is not None and told.call.code == "not_leader":
            named = (told.body.get("leader") or {}).get("node_id")
            self.leader = named if named in others else self._rng.choice(others)
        elif told is None or told.call.code == "not_ready" or told.call.answered is None:
            self.leader = self._rng.choice(others)
            await trio.sleep(SULK_S)
