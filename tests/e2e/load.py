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

from tests.e2e.cluster import until
from tests.history import DELETED, History

KEYS = [f"key{index:02}" for index in range(40)]

#: After an answer that says "not now".
PAUSE_S = 0.05


class MixedLoad:
    """Asks the leader at `url`, which may be changed while it runs."""

    def __init__(self, url: str, clients: int = 10, seed: int = 0) -> None:
        self.url = url
        self.history = History()
        self.codes: Counter[str] = Counter()
        self.longest_gap_s = 0.0
        """The longest time without any confirmed write."""
        self._last_confirmed = time.monotonic()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, args=(random.Random(f"{seed} {index}"),))
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

    def _client(self, rng: random.Random) -> None:
        versions: dict[str, str] = {}
        with httpx.Client(timeout=30, trust_env=False) as http:
            while not self._over.is_set():
                method, path, content, headers, writes = self._next(rng, versions)
                try:
                    answer = http.request(method, self.url + path, json=content, headers=headers)
                    status, body = answer.status_code, answer.json()
                except (httpx.HTTPError, ValueError):
                    status, body = 0, {}
                with self._lock:
                    self.history.note(status, body, writes)
                    self.codes["200" if status == 200 else body.get("code", "no answer")] += 1
                    if status == 200:
                        now = time.monotonic()
                        self.longest_gap_s = max(self.longest_gap_s, now - self._last_confirmed)
                        self._last_confirmed = now
                for key in writes:
                    if body.get("version"):
                        versions[key] = body["version"]
                if status in (0, 503):
                    time.sleep(PAUSE_S)

    def _next(self, rng: random.Random, versions: dict[str, str]) -> tuple[Any, ...]:
        """The next request: method, path, body, headers, and what it writes."""
        key = rng.choice(KEYS)
        with self._lock:
            value = self.history.value()
        match rng.randrange(10):
            case 0:
                return "DELETE", f"/kv/{key}", None, {}, {key: DELETED}
            case 1 | 2 if key in versions:
                headers = {"If-Match": f'"{versions[key]}"'}
                return "PUT", f"/kv/{key}", {"value": value}, headers, {key: value}
            case 3:
                headers = {"If-None-Match": "*"}
                return "PUT", f"/kv/{key}", {"value": value}, headers, {key: value}
            case 4 | 5:
                other = rng.choice([k for k in KEYS if k != key])
                operations: list[dict[str, Any]] = [
                    {"op": "put", "key": key, "value": value},
                    {"op": "delete", "key": other},
                ]
                writes = {key: value, other: DELETED}
                return "POST", "/batch", {"operations": operations}, {}, writes
        return "PUT", f"/kv/{key}", {"value": value}, {}, {key: value}
