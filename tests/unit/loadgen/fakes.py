"""A whole cluster behind one httpx transport: a fake leader that really replicates, on trio's clock.

Nothing is mocked: it draws lags, answers at the k-th smallest, lets the copies arrive at their
times, compares replicas, and changes quorum and lag on request. Under `MockClock` a run of minutes
takes none, and latencies are exactly the ideal ones.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import httpx
import trio
from trio.testing import MockClock

from loadgen.experiment import connector, run_on_found_cluster
from loadgen.parity import Look
from loadgen.results import Plan, QuorumResult, Run
from loadgen.theory import UniformLag
from loadgen.workload import Sample

URL = "http://leader.test"

Bounds = tuple[int | float, int | float]


@dataclass
class Copy:
    """A value on its way to a follower, and when it is there."""

    version: int
    value: Any
    arrives_s: float


@dataclass
class FakeCluster(httpx.AsyncBaseTransport):
    """The leader's API, with followers that live in a dict."""

    followers: int = 5
    write_quorum: int = 3
    lag: Bounds = (0, 1000)
    own_lag: dict[str, Bounds] = field(default_factory=dict)
    role: str = "leader"
    live_links: int | None = None
    seed: int = 0
    # What each write costs on top of its lag.
    overhead_s: float = 0.0
    # May answer a request itself, or raise, before the fake does.
    intercept: Callable[[httpx.Request], httpx.Response | None] = lambda request: None

    def __post_init__(self) -> None:
        self.urls = [f"http://follower{i}.test" for i in range(1, self.followers + 1)]
        self.random = random.Random(self.seed)
        self.version = 0
        self.data: dict[str, tuple[int, Any]] = {}
        self.copies: dict[str, dict[str, list[Copy]]] = {url: {} for url in self.urls}
        self.requests: list[str] = []
        self.values: list[Any] = []
        self.unreachable: set[str] = set()
        self.deaf: set[str] = set()
        self.in_flight = 0
        self.most_in_flight = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        path = request.url.raw_path.decode().partition("?")[0]
        self.requests.append(f"{request.method} {path}")
        answer = self.intercept(request)
        if answer is not None:
            return answer
        if request.method == "PUT":
            return await self._put(unquote(path.removeprefix("/kv/")), json.loads(request.content))
        match path:
            case "/health":
                return httpx.Response(200, json=self._health())
            case "/admin/quorum":
                return self._set_quorum(json.loads(request.content))
            case "/admin/lag":
                return self._set_lag(json.loads(request.content))
            case "/admin/replica-status":
                return httpx.Response(200, json=self._replica_status())
        return problem(404, "no_such_route")

    async def _put(self, key: str, body: dict[str, Any]) -> httpx.Response:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            self.version += 1
            version, value = self.version, body["value"]
            self.values.append(value)
            self.data[key] = (version, value)
            lags = {url: self.random.uniform(*self.own_lag.get(url, self.lag)) for url in self.urls}
            for url, lag_ms in lags.items():
                if url not in self.deaf:
                    arrives_s = trio.current_time() + lag_ms / 1000
                    self.copies[url].setdefault(key, []).append(Copy(version, value, arrives_s))
            heard = sorted(lag_ms for url, lag_ms in lags.items() if url not in self.deaf)
            if len(heard) < self.write_quorum:
                return problem(503, "quorum_not_met")
            quorum_ms = heard[self.write_quorum - 1]
            await trio.sleep(quorum_ms / 1000 + self.overhead_s)
            return httpx.Response(200, json=self._confirmed(key, version, value, lags, quorum_ms))
        finally:
            self.in_flight -= 1

    def _confirmed(
        self, key: str, version: int, value: Any, lags: dict[str, float], quorum_ms: float
    ) -> dict[str, Any]:
        return {
            "key": key,
            "value": value,
            "version": f"1.abc-{version}",
            "follower_acks": self.write_quorum,
            "quorum_met": True,
            "trace": {
                "commit_ms": 0,
                "quorum_ms": quorum_ms,
                "followers": [
                    {
                        "url": url,
                        "node_id": self._node_id(url),
                        "lag_ms": lag_ms,
                        "ack_ms": lag_ms if lag_ms <= quorum_ms else None,
                    }
                    for url, lag_ms in lags.items()
                ],
            },
        }

    def _node_id(self, url: str) -> str:
        return f"follower{self.urls.index(url) + 1}"

    def _health(self) -> dict[str, Any]:
        if self.role != "leader":
            return {"status": "ok", "role": self.role, "node_id": "follower1"}
        return {
            "status": "ok",
            "role": "leader",
            "node_id": "leader",
            "ready": True,
            "software_version": "9.9",
            "epoch": "1.abc",
            "write_quorum": self.write_quorum,
            "followers": self.followers,
            "live_links": self.followers if self.live_links is None else self.live_links,
            "lag": self.lag_answer(),
        }

    def lag_answer(self) -> dict[str, Any]:
        """What `/admin/lag` and `/health` say of the lag."""
        ranges = [(url, *self.own_lag.get(url, self.lag)) for url in self.urls]
        return {
            "min_delay_ms": self.lag[0],
            "max_delay_ms": self.lag[1],
            "followers": [
                {
                    "url": url,
                    "node_id": self._node_id(url),
                    "min_delay_ms": low,
                    "max_delay_ms": high,
                }
                for url, low, high in ranges
            ],
        }

    def _set_quorum(self, body: dict[str, Any]) -> httpx.Response:
        previous, self.write_quorum = self.write_quorum, body["write_quorum"]
        answer = {"write_quorum": self.write_quorum, "previous_write_quorum": previous}
        return httpx.Response(200, json=answer)

    def _set_lag(self, body: dict[str, Any]) -> httpx.Response:
        lag = (body["min_delay_ms"], body["max_delay_ms"])
        if "follower" in body:
            self.own_lag[body["follower"]] = lag
        else:
            self.lag, self.own_lag = lag, {}
        return httpx.Response(200, json=self.lag_answer())

    def held(self, url: str) -> dict[str, Any]:
        """What a follower holds now: of the copies that have arrived, the newest."""
        now = trio.current_time()
        arrived = {
            key: [copy for copy in copies if copy.arrives_s <= now]
            for key, copies in self.copies[url].items()
        }
        return {
            key: max(copies, key=lambda copy: copy.version).value
            for key, copies in arrived.items()
            if copies
        }

    def _replica_status(self) -> dict[str, Any]:
        ours = {key: value for key, (_, value) in self.data.items()}
        return {
            "leader": {"node_id": "leader", "records": len(ours), "digest": "d", "data": ours},
            "followers": [self._replica(url, ours) for url in self.urls],
        }

    def _replica(self, url: str, ours: dict[str, Any]) -> dict[str, Any]:
        common = {"url": url, "node_id": self._node_id(url)}
        if url in self.unreachable:
            return {**common, "status": "unreachable", "link": "down", "error": "it is gone"}
        theirs = self.held(url)
        differing = sorted(key for key in ours if ours[key] != theirs.get(key))
        now = trio.current_time()
        outstanding = sum(
            copy.arrives_s > now for copies in self.copies[url].values() for copy in copies
        )
        return {
            **common,
            "status": "mismatch" if differing else "match",
            "link": "live",
            "lag_records": outstanding,
            "records": len(theirs),
            "digest": "d",
            "data": theirs,
            "differing_keys": differing,
            "differing_keys_total": len(differing),
            "error": None,
        }


def problem(status: int, code: str, detail: str = "because") -> httpx.Response:
    """A problem document, as the node answers."""
    return httpx.Response(status, json={"code": code, "detail": detail, "status": status})


class Listener:
    """An audience that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.samples: list[Sample] = []
        self.results: list[QuorumResult] = []

    def step(self, text: str) -> None:
        """Keep the text."""
        self.told.append(text)

    def say(self, text: str) -> None:
        """Keep the text."""
        self.told.append(text)

    def warn(self, text: str) -> None:
        """Keep the text, marked."""
        self.told.append(f"warning: {text}")

    def writing(self, quorum: int, writes: int) -> None:
        """Keep that it began."""
        self.told.append(f"writing {writes} at quorum {quorum}")

    def wrote(self, sample: Sample) -> None:
        """Keep the sample."""
        self.samples.append(sample)

    def settling(self, look: Look) -> None:
        """Keep how many match."""
        self.told.append(f"{look.matching} match")

    def quorum_done(self, result: QuorumResult) -> None:
        """Keep the result."""
        self.results.append(result)


def plan(**changed: Any) -> Plan:
    """The lab's plan, but for what is changed."""
    given: dict[str, Any] = {
        "quorums": (1, 2, 3, 4, 5),
        "writes": 100,
        "concurrency": 10,
        "keys": 10,
        "lag": UniformLag(0, 1000),
        "seed": 7,
        "run_id": "f00d",
    }
    return Plan(**{**given, **changed})


def run_on(
    fake: FakeCluster,
    the_plan: Plan | None = None,
    audience: Listener | None = None,
    problems: list[str] | None = None,
) -> Run:
    """The whole experiment on a fake cluster, in simulated time."""
    the_plan = the_plan or plan()

    async def main() -> Run:
        return await run_on_found_cluster(
            lambda followers: the_plan,
            connector(URL, the_plan.lag.max_ms, fake),
            audience or Listener(),
            wait_s=0,
            problems=[] if problems is None else problems,
        )

    return trio.run(main, clock=MockClock(autojump_threshold=0))
