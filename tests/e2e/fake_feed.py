"""A node that is made up, for the dashboard alone: its files, and a stream of events as asked for.

It shows the page what no small machine can: fifty followers and a thousand writes a second, or a moment
held still. It knows the shape of the events (see `observe.dashboard_feed`), and nothing of replication.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trikv.counters import LATENCY_MS
from trikv.web.pages import FILES

EPOCH = "3.0f4c2a9d81e7"

#: Makes the data of one event from its number: of the first it is a `state`, of others a `frame`.
Feed = Callable[[int], dict[str, Any]]


class BusyFeed:
    """`writes` new ones in each event, on their way to `followers`, of `rate` writes a second in all."""

    def __init__(self, followers: int, writes: int, rate: int, lag_ms: int = 1000) -> None:
        self.followers, self.writes, self.rate, self.lag_ms = followers, writes, rate, lag_ms
        self._random = random.Random(1)
        self._id = 0

    def __call__(self, number: int) -> dict[str, Any]:
        now_us = time.time_ns() // 1000
        histogram: dict[str, Any] = {"bounds_ms": LATENCY_MS}
        for what in ("commit", "quorum"):
            histogram[what] = tuple(self._random.randrange(9) for _ in range(len(LATENCY_MS) + 1))
        return {
            "at_ms": now_us / 1000,
            "node": {
                "node_id": "leader",
                "url": "http://leader:8000",
                "role": "leader",
                "software_version": "0.1.0",
                "cluster": "29ca13e10650b6f7",
                "epoch": EPOCH,
                "ready": True,
                "waiting_for": [],
            },
            "leader": {
                "leads": True,
                "write_quorum": self.followers // 2,
                "pending_write_quorum": None,
                "settled": True,
                "inflight_writes": 40,
                "issued_us": now_us,
                "lag": {"min_delay_ms": 0.0, "max_delay_ms": float(self.lag_ms)},
                "links": [self._link(index, now_us) for index in range(self.followers)],
            },
            "follower": None,
            "writes": [self._write(now_us) for _ in range(self.writes)],
            "writes_left_out": self.rate // 10 - self.writes,
            "counts": {"confirmed": self.rate // 10, "unconfirmed": 0, "refused": 0},
            "histogram": histogram,
        }

    def _link(self, index: int, now_us: int) -> dict[str, Any]:
        state = {7: "cut", 13: "down", 19: "syncing", 31: "connecting"}.get(index, "live")
        return {
            "url": f"http://follower{index + 1}:8000",
            "node_id": f"follower{index + 1}",
            "state": state,
            "reason": None,
            "lag_ms": self._random.uniform(0, self.lag_ms),
            "min_delay_ms": 0.0,
            "max_delay_ms": float(self.lag_ms),
            "outbox_records": self._random.randrange(self.rate),
            "outbox_bytes": 9000,
            "rate_records_s": self.rate + self._random.uniform(-20, 20),
            "watermark_us": now_us - self._random.randrange(1_000_000),
        }

    def _write(self, now_us: int) -> dict[str, Any]:
        self._id += 1
        lags = [self._random.uniform(0, self.lag_ms) for _ in range(self.followers)]
        age = self._random.uniform(0, self.lag_ms * 1.2)
        acks = sorted(lag for lag in lags if lag < age)
        quorum = self.followers // 2
        quorum_ms = acks[quorum - 1] + 1 if len(acks) >= quorum else None
        return {
            "id": self._id,
            "version": f"{EPOCH}-{now_us - int(age * 1000) + self._id % 7}",
            "key": f"user/{self._random.randrange(10_000):05}",
            "operations": 1,
            "deleted": False,
            "began_ms": now_us / 1000 - age,
            "commit_ms": 0.7,
            "quorum_ms": quorum_ms,
            "outcome": "pending" if quorum_ms is None else "confirmed",
            "ended": len(acks) == self.followers,
            "followers": [[lag, lag + 1 if lag < age else None] for lag in lags],
        }


@contextmanager
def fake_node(feed: Feed, pause_s: float = 0.1) -> Iterator[str]:
    """Its URL. An event each `pause_s`."""
    stopping = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/ui").strip("/") or "index.html"
            if self.path == "/events":
                self._stream()
            elif self.path.startswith("/ui") and name in FILES:
                self._answer(200, FILES[name].content_type, FILES[name].body)
            else:
                self._answer(200, "application/json", b'{"items":[],"next":null}')

        def _answer(self, status: int, content_type: str, body: Any) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            number = 0
            try:
                while not stopping.is_set():
                    name = "frame" if number else "state"
                    data = json.dumps(feed(number))
                    self.wfile.write(f"event: {name}\ndata: {data}\n\n".encode())
                    self.wfile.flush()
                    number += 1
                    stopping.wait(pause_s)
            except OSError:
                return  # the page has left

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()
