"""The clients of a simulation: what they ask, and the history of what they were told."""

from __future__ import annotations

import random
from typing import Any, Literal, get_args

import trio

from loadgen.check.history import Call, Order
from tests.simulation.fleet import Answered, Fleet

KEYS = ("a", "b", "c", "d")

Kind = Literal[
    "put",
    "delete",
    "create",  # If-None-Match: *
    "update",  # If-Match: the last version that was seen
    "batch",
    "update_batch",  # the first key only if it has the last version that was seen
    "read",  # linearizable, as all that go to the leader
    "read_here",
    "read_session",  # with the min_version of the client's session
    "list_here",
    "list_session",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

READ_TIMEOUT_MS = 3000

#: A client that does not hang up waits for any answer.
PATIENT_S = 60.0


class Clients:
    def __init__(self, fleet: Fleet) -> None:
        self.calls: list[Call] = []
        self.promised_nothing = False
        """The quorum may be 0 from now on: no client writes, nor is told of what it wrote."""
        self._fleet = fleet
        self._moments = 0
        self._unique = 0
        self._last: dict[str, str] = {}  # of each key, the version that was seen last
        self._session: dict[int, str] = {}  # of each client, up to where it has to be shown

    def random_call(self, rng: random.Random, *, mostly_reads: bool = False) -> tuple[Any, ...]:
        """Arguments for `ask`."""
        patience_s = rng.uniform(0, 0.4) if rng.random() < 0.1 else PATIENT_S
        kind = "read" if mostly_reads and rng.random() < 0.8 else rng.choice(KINDS)
        keys = tuple(rng.sample(KEYS, rng.choice((2, 2, 3)) if "batch" in kind else 1))
        return rng.randrange(3), kind, keys, rng.randrange(60), patience_s

    async def ask(
        self, client: int, kind: Kind, keys: tuple[str, ...], nth: int, patience_s: float
    ) -> None:
        """One request. `nth`: of those that may be asked, which node."""
        here = kind.endswith(("_here", "_session"))
        name = self._node(nth, anyone=here)
        if name is None:
            return
        call = self._call(client, name, kind, keys)
        if call.writes and self.promised_nothing:
            return
        asked = self._request(call, kind, keys)
        self.calls.append(call)
        self._fleet.note(f"client {client} asks {name} {kind} {call.writes or ','.join(keys)}")
        told: Answered = (0, {})  # a client that hangs up is told nothing
        with trio.move_on_after(patience_s):
            told = await self._fleet.ask(name, *asked)
        if told[0] and not (call.writes and self.promised_nothing):
            call.take(*told, self._moment())
        self._remember(call)

    def _node(self, nth: int, *, anyone: bool) -> str | None:
        nodes = self._fleet.nodes
        names = sorted(n for n in nodes if anyone or nodes[n].config.role == "leader")
        return names[nth % len(names)] if names else None

    def _call(self, client: int, name: str, kind: Kind, keys: tuple[str, ...]) -> Call:
        key = keys[0]
        call = Call(client, name, "write", self._moment())
        match kind:
            case "read" | "read_here" | "read_session":
                call.kind, call.linearizable = "read", kind == "read"
            case "list_here" | "list_session":
                call.kind = "list"
            case "delete":
                call.writes, call.expected = {key: None}, {key: "*"}
            case _:
                call.writes = {key: self._value() for key in keys}
        if kind == "create":
            call.expected = {key: None}
        elif kind in ("update", "update_batch"):
            call.expected = {key: self._last.get(key)}
        elif kind.endswith("_session"):
            call.min_version = self._session.get(client)
        return call

    def _request(self, call: Call, kind: Kind, keys: tuple[str, ...]) -> tuple[Any, ...]:
        """What `Fleet.ask` takes: method, target, content, key, headers."""
        key = keys[0]
        query = f"timeout_ms={READ_TIMEOUT_MS}"
        if call.min_version is not None:
            query += f"&min_version={call.min_version}"
        if call.linearizable:
            query += "&consistency=linearizable"
        if call.kind == "list":
            return ("GET", f"/kv?{query}")
        if call.kind == "read":
            return ("GET", f"/kv/{{key}}?{query}", None, key)
        if kind == "delete":
            return ("DELETE", "/kv/{key}", None, key)
        if "batch" in kind:
            operations: list[dict[str, Any]] = [
                {"op": "put", "key": k, "value": value} for k, value in call.writes.items()
            ]
            if key in call.expected:
                operations[0]["if_version"] = call.expected[key]
            return ("POST", "/batch", {"operations": operations})
        headers = {}
        if key in call.expected:
            known = call.expected[key]
            headers = {"if-none-match": "*"} if known is None else {"if-match": f'"{known}"'}
        return ("PUT", "/kv/{key}", {"value": call.writes[key]}, key, headers)

    def _remember(self, call: Call) -> None:
        for key, one in call.shown.items():
            if one.version is not None:
                self._last[key] = one.version
        if call.ok and call.version is not None:
            self._last.update(dict.fromkeys(call.writes, call.version))
        sure = [call.version] if call.ok else []
        if call.linearizable:
            sure += [one.version for one in call.shown.values()]
        for version in sure:
            before = self._session.get(call.client)
            if version is not None and (before is None or Order.of(version) > Order.of(before)):
                self._session[call.client] = version

    def _moment(self) -> float:
        """Each is after all before it."""
        self._moments += 1
        return float(self._moments)

    def _value(self) -> int:
        self._unique += 1
        return self._unique
