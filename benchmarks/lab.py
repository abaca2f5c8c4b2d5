"""The original lab's design, written afresh: what trikv grew out of, as a peer to compare it with.

    PUT /kv/{key}      at the leader: into a dict, then one POST /replicate to each follower, all at
                       once, each behind its simulated lag; answers at the quorum's last confirmation,
                       503 if it cannot be met. The other deliveries go on
    GET /kv/{key}      any node, from its dict
    POST /replicate    into the dict, if the timestamp is not older
    GET /dump, /health, POST /admin/quorum

FastAPI on uvicorn, handlers that are all `async`, one asyncio.Lock around the dict, one shared
`httpx.AsyncClient`, nothing on disk. Faithful, not crippled: no access log, and nothing that the lab's
report does not describe. Run it with `uvicorn --factory benchmarks.lab:create_app`; settings come from
the environment, under the lab's names. BENCHMARK_KEYS alone is ours: so many keys are there at the
start, as writing them through this design, one by one, would take minutes.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from benchmarks.workloads import VALUE_BYTES, key_name


class WriteRequest(BaseModel):
    value: str


class ReplicateRequest(BaseModel):
    key: str
    value: str
    timestamp: float


class QuorumRequest(BaseModel):
    write_quorum: int


@dataclass(frozen=True, slots=True)
class Record:
    value: str
    timestamp: float


@dataclass(slots=True)
class Settings:
    role: str
    node_id: str
    write_quorum: int
    min_delay_ms: float
    max_delay_ms: float
    request_timeout_s: float
    follower_urls: list[str]


def read_settings() -> Settings:
    env = os.environ
    return Settings(
        role=env.get("ROLE", "leader"),
        node_id=env.get("NODE_ID", "node"),
        write_quorum=int(env.get("WRITE_QUORUM", "3")),
        min_delay_ms=float(env.get("MIN_DELAY_MS", "0")),
        max_delay_ms=float(env.get("MAX_DELAY_MS", "1000")),
        request_timeout_s=float(env.get("REQUEST_TIMEOUT", "5")),
        follower_urls=[url for url in env.get("FOLLOWER_URLS", "").split(",") if url],
    )


@dataclass(slots=True)
class Store:
    """Key to record; of two timestamps the later stays, of two equal ones the one that came last."""

    records: dict[str, Record] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def set(self, key: str, value: str, timestamp: float) -> None:
        async with self.lock:
            current = self.records.get(key)
            if current is None or timestamp >= current.timestamp:
                self.records[key] = Record(value, timestamp)

    async def get(self, key: str) -> Record | None:
        async with self.lock:
            return self.records.get(key)


@dataclass(slots=True)
class Replicator:
    """The leader's end: one POST per follower and write, on one client for all of them."""

    settings: Settings
    client: httpx.AsyncClient
    deliveries: set[asyncio.Task[bool]] = field(default_factory=set)

    async def deliver(self, url: str, body: dict[str, Any]) -> bool:
        settings = self.settings
        delay_ms = random.uniform(settings.min_delay_ms, settings.max_delay_ms)
        await asyncio.sleep(delay_ms / 1000)
        try:
            answer = await self.client.post(f"{url}/replicate", json=body)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    async def replicate(self, body: dict[str, Any]) -> int:
        """Confirmations when the quorum was complete, or when everyone had answered."""
        tasks = [asyncio.create_task(self.deliver(u, body)) for u in self.settings.follower_urls]
        for task in tasks:  # asyncio keeps no reference to a task that nobody awaits
            self.deliveries.add(task)
            task.add_done_callback(self.deliveries.discard)
        acks = 0
        if self.settings.write_quorum == 0:
            return acks
        for one in asyncio.as_completed(tasks):
            acks += await one
            if acks >= self.settings.write_quorum:
                break
        return acks


def create_app() -> FastAPI:
    settings = read_settings()
    store = Store()
    for number in range(int(os.environ.get("BENCHMARK_KEYS", "0"))):
        store.records[key_name(number)] = Record("x" * VALUE_BYTES, 0.0)
    replicators: list[Replicator] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with httpx.AsyncClient(timeout=settings.request_timeout_s) as client:
            replicators.append(Replicator(settings, client))
            yield

    app = FastAPI(lifespan=lifespan)

    @app.put("/kv/{key}")
    async def put_value(key: str, request: WriteRequest) -> dict[str, Any]:
        if settings.role != "leader":
            raise HTTPException(status_code=403, detail="only the leader takes writes")
        timestamp = time.time()
        await store.set(key, request.value, timestamp)
        body = {"key": key, "value": request.value, "timestamp": timestamp}
        acks = await replicators[0].replicate(body)
        if acks < settings.write_quorum:
            told = {"message": "quorum not met", "follower_acks": acks}
            raise HTTPException(status_code=503, detail={**told, "required": settings.write_quorum})
        return {"key": key, "value": request.value, "follower_acks": acks, "quorum_met": True}

    @app.get("/kv/{key}")
    async def get_value(key: str) -> dict[str, str]:
        record = await store.get(key)
        if record is None:
            raise HTTPException(status_code=404, detail="no such key")
        return {"key": key, "value": record.value}

    @app.post("/replicate")
    async def replicate(request: ReplicateRequest) -> dict[str, str]:
        await store.set(request.key, request.value, request.timestamp)
        return {"status": "ok"}

    @app.get("/dump")
    async def dump() -> dict[str, str]:
        async with store.lock:
            return {key: record.value for key, record in store.records.items()}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "role": settings.role, "node_id": settings.node_id}

    @app.post("/admin/quorum")
    async def set_quorum(request: QuorumRequest) -> dict[str, int]:
        settings.write_quorum = request.write_quorum
        return {"write_quorum": settings.write_quorum}

    return app
