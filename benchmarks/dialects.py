"""How each system is asked, as bytes, and how its answers are judged. Pure.

trikv and the lab speak JSON over HTTP; etcd's JSON gateway too, with keys and values in base64; Redis
speaks RESP. `problem` judges single answers to requests of a pool before it is used: that a write was
confirmed by the quorum, that a read found its value, that a batch was whole.
"""

from __future__ import annotations

import base64
import json
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from benchmarks.workloads import VALUE_BYTES, Dialect

QUORUM = 3

TRIKV_BATCH = 1_000
#: etcd takes no more in a transaction, unless it is started with --max-txn-ops.
ETCD_BATCH = 128
REDIS_BATCH = 1_000


class HttpDialect(Dialect):
    """JSON over HTTP/1.1, with the headers that a careful client sends."""

    def __init__(self, host: str, quorum: int = QUORUM) -> None:
        self.host = host
        self.quorum = quorum

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        """A whole request."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\n"
        if body is None:
            return f"{head}\r\n".encode()
        content = json.dumps(body, separators=(",", ":")).encode()
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        return head.encode() + content

    @abstractmethod
    def problem(self, request: bytes, status: int, body: bytes) -> str | None:
        """What is wrong with the answer to a request of a pool; None if it is right."""


class PlainDialect(HttpDialect):
    """The routes of the lab's design, which trikv has kept."""

    lacks = {  # noqa: RUF012
        "get-linearizable": "the lab's design has no linearizable reads",
        "batch": "the lab's design has no batches",
    }

    def put(self, key: str, value: str) -> bytes:
        return self.request("PUT", f"/kv/{key}", {"value": value})

    def get(self, key: str, *, linearizable: bool) -> bytes:
        query = "?consistency=linearizable" if linearizable else ""
        return self.request("GET", f"/kv/{key}{query}")

    def batch(self, pairs: Sequence[tuple[str, str]]) -> bytes:
        raise NotImplementedError(self.lacks["batch"])

    def problem(self, request: bytes, status: int, body: bytes) -> str | None:
        if status != 200:
            return f"status {status}: {body[:200]!r}"
        told = json.loads(body)
        if request.startswith(b"GET"):
            return None if isinstance(told.get("value"), str) else f"no value: {told}"
        if not told["quorum_met"] or told["follower_acks"] < self.quorum:
            return f"not confirmed: {told}"
        if request.startswith(b"POST") and told["operations"] != self.batch_size:
            return f"not the whole batch: {told}"
        return None


class TrikvDialect(PlainDialect):
    batch_size = TRIKV_BATCH
    lacks = {}  # noqa: RUF012

    def batch(self, pairs: Sequence[tuple[str, str]]) -> bytes:
        operations = [{"op": "put", "key": key, "value": value} for key, value in pairs]
        return self.request("POST", "/batch", {"operations": operations})


class EtcdDialect(HttpDialect):
    """The JSON gateway of etcd 3.4 and later. The bodies' names are those of its protocol buffers."""

    batch_size = ETCD_BATCH

    def put(self, key: str, value: str) -> bytes:
        return self.request("POST", "/v3/kv/put", {"key": b64(key), "value": b64(value)})

    def get(self, key: str, *, linearizable: bool) -> bytes:
        body: dict[str, Any] = {"key": b64(key)}
        if not linearizable:
            body["serializable"] = True
        return self.request("POST", "/v3/kv/range", body)

    def batch(self, pairs: Sequence[tuple[str, str]]) -> bytes:
        puts = [{"request_put": {"key": b64(key), "value": b64(value)}} for key, value in pairs]
        return self.request("POST", "/v3/kv/txn", {"success": puts})

    def problem(self, request: bytes, status: int, body: bytes) -> str | None:
        if status != 200:
            return f"status {status}: {body[:200]!r}"
        told = json.loads(body)
        if b" /v3/kv/range " in request[:40]:
            return None if told.get("count") == "1" else f"no value: {told}"
        if b" /v3/kv/txn " in request[:40]:
            whole = told.get("succeeded") and len(told.get("responses", ())) == self.batch_size
            return None if whole else f"not the whole transaction: {body[:200]!r}"
        return None if "header" in told else f"not written: {told}"


class RedisDialect(Dialect):
    """RESP. A write is `SET` and `WAIT 3`, sent at once: confirmed when WAIT answers 3 or more."""

    batch_size = REDIS_BATCH
    lacks = {  # noqa: RUF012
        "get-linearizable": "Redis has no linearizable reads: a master does not ask its replicas",
    }
    WAIT_MS = 5_000

    def put(self, key: str, value: str) -> bytes:
        return self.command("SET", key, value) + self.wait()

    def get(self, key: str, *, linearizable: bool) -> bytes:
        return self.command("GET", key)

    def batch(self, pairs: Sequence[tuple[str, str]]) -> bytes:
        sets = b"".join(self.command("SET", key, value) for key, value in pairs)
        return self.command("MULTI") + sets + self.command("EXEC") + self.wait()

    @classmethod
    def wait(cls) -> bytes:
        return cls.command("WAIT", str(QUORUM), str(cls.WAIT_MS))

    @staticmethod
    def command(*words: str) -> bytes:
        parts = [f"*{len(words)}\r\n"] + [f"${len(w.encode())}\r\n{w}\r\n" for w in words]
        return "".join(parts).encode()

    @staticmethod
    def answer_bytes(request: bytes) -> int:
        """How long the answer to a request of a pool is, if it is a success."""
        sets = request.count(b"$3\r\nSET\r\n")
        waited = len(b":3\r\n")
        if request.startswith(b"*1\r\n$5\r\nMULTI\r\n"):
            queued = len(b"+OK\r\n") + sets * len(b"+QUEUED\r\n")
            return queued + len(f"*{sets}\r\n") + sets * len(b"+OK\r\n") + waited
        if sets:
            return len(b"+OK\r\n") + waited
        return len(f"${VALUE_BYTES}\r\n") + VALUE_BYTES + len(b"\r\n")

    @staticmethod
    def succeeded(answer: bytes) -> bool:
        """Whether an answer of that length is a success. Raises ValueError if it is none at all."""
        if answer.startswith(b"$"):
            return True
        if answer.startswith(b"+OK\r\n") and answer[-4:-3] == b":":
            return int(answer[-3:-2]) >= QUORUM
        raise ValueError(f"Redis answered {answer[:100]!r}")


def b64(text: str) -> str:
    """As etcd's gateway wants bytes."""
    return base64.b64encode(text.encode()).decode()
