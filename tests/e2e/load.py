"""A steady mixed load: ten clients that put, delete, write on conditions and in batches, and remember
what they were told."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from loadgen.check.history import Call, History, Shown
from loadgen.check.verdict import judge
from tests.e2e.cluster import NodeProcess, until

KEYS = [f"key{index:02}" for index in range(40)]

#: After an answer that says "not now".
PAUSE_S = 0.05


class MixedLoad:
    """Asks the leader at `url`, which may be changed while it runs."""

    def __init__(self, url: str, clients: int = 10, seed: int = 0) -> None:
        self.url = url
        self.calls: list[Call] = []
        self.codes: Counter[str] = Counter()
        self.longest_gap_s = 0.0
        """The longest time without any confirmed write."""
        self._seed = seed
        self._unique = 0
        self._last_confirmed = time.monotonic()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, args=(index, random.Random(f"{seed} {index}")))
            for index in range(clients)
        ]

    @property
    def confirmed(self) -> int:
        return self.codes["200"]

    @contextmanager
    def running(self) -> Iterator[None]:
        self._last_confirmed = time.monotonic()
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join(60)

    def goes_on(self, writes: int = 100, timeout_s: float = 60) -> None:
        """Until so many more are confirmed."""
        before = self.confirmed
        until(lambda: self.confirmed >= before + writes, f"{writes} more are confirmed", timeout_s)

    def check(self, *nodes: NodeProcess) -> None:
        """What the clients were told, and what these nodes hold now, is as promised."""
        final = {}
        for node in nodes:
            items = node.get("/kv?prefix=key&limit=1000")["items"]
            final[node.name] = {one["key"]: Shown(one["value"], one["version"]) for one in items}
        judged = judge(History(self.calls, [], final))
        assert judged.is_clean, str(judged)

    def _client(self, index: int, rng: random.Random) -> None:
        versions: dict[str, str] = {}
        with httpx.Client(timeout=30, trust_env=False) as http:
            while not self._over.is_set():
                call, (method, path, content, headers) = self._next(index, rng, versions)
                try:
                    answer = http.request(method, self.url + path, json=content, headers=headers)
                    body = answer.json()
                    call.take(answer.status_code, body, time.monotonic())
                except (httpx.HTTPError, ValueError):
                    body = {}
                with self._lock:
                    self.calls.append(call)
                    ok = call.status == 200
                    self.codes["200" if ok else call.code or "no answer"] += 1
                    if ok:
                        now = time.monotonic()
                        self.longest_gap_s = max(self.longest_gap_s, now - self._last_confirmed)
                        self._last_confirmed = now
                for key in call.writes:
                    if body.get("version"):
                        versions[key] = body["version"]
                if call.status in (0, 503):
                    time.sleep(PAUSE_S)

    def _next(
        self, index: int, rng: random.Random, versions: dict[str, str]
    ) -> tuple[Call, tuple[Any, ...]]:
        """The next request: what is noted of it, and its method, path, body and headers."""
        key = rng.choice(KEYS)
        with self._lock:
            self._unique += 1
            value = f"{self._seed}.{self._unique}"
        call = Call(index, self.url, "write", time.monotonic(), writes={key: value})
        put = ("PUT", f"/kv/{key}", {"value": value})
        match rng.randrange(10):
            case 0:
                call.writes, call.expected = {key: None}, {key: "*"}
                return call, ("DELETE", f"/kv/{key}", None, {})
            case 1 | 2 if key in versions:
                call.expected = {key: versions[key]}
                return call, (*put, {"If-Match": f'"{versions[key]}"'})
            case 3:
                call.expected = {key: None}
                return call, (*put, {"If-None-Match": "*"})
            case 4 | 5:
                other = rng.choice([k for k in KEYS if k != key])
                call.writes = {key: value, other: None}
                operations: list[dict[str, Any]] = [
                    {"op": "put", "key": key, "value": value},
                    {"op": "delete", "key": other},
                ]
                return call, ("POST", "/batch", {"operations": operations}, {})
        return call, (*put, {})
