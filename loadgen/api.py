"""The leader's HTTP API, typed, as a client sees it.

A `Leader` holds one kept-alive connection: whoever wants to measure latency opens one for itself
and sends a request ahead, so that setting up a connection is never measured. Answers are decoded
into the structs below and checked; fields that we do not know are ignored, so that a newer node
serves an older load generator. What fails becomes one of three errors: `Unreachable` (no answer),
`ApiError` (a refusal, with the code of its problem document, or an answer of an unexpected shape),
`NotALeader`.

Proxies and certificates named in the environment are not used: a latency measured through a
proxy would be that of the proxy.
"""

import re
import ssl
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from loadgen.errors import ApiError, NotALeader, Unreachable
from trikv.errors import error_text

Number = int | float
T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0
# Shorter than any server keeps an idle connection: a reused one must not meet its own closing.
KEEPALIVE_S = 4.0
# Enough of a foreign answer to recognise it by, and no more.
EXCERPT_CHARACTERS = 120

# What msgspec raises for bytes that are no answer of a leader's; the last for brackets without end.
_NOT_AN_ANSWER = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_VERSION = re.compile(r"(\d+)\.[^-]+-(\d+)")


class FollowerLag(msgspec.Struct, frozen=True):
    """The lag in force for one follower. Whole numbers stay whole: they are sent back as found."""

    url: str
    min_delay_ms: Number
    max_delay_ms: Number
    node_id: str | None = None


class Lag(msgspec.Struct, frozen=True):
    """The lag for all followers, and what is in force for each."""

    min_delay_ms: Number
    max_delay_ms: Number
    followers: list[FollowerLag]


class Health(msgspec.Struct, frozen=True):
    """Any node's `GET /health`; followers leave out what only a leader has."""

    status: str
    role: str
    node_id: str
    software_version: str = "unknown"
    url: str | None = None
    ready: bool = True
    epoch: str | None = None
    write_quorum: int | None = None
    followers: int | None = None
    live_links: int | None = None
    lag: Lag | None = None


class LeaderHealth(msgspec.Struct, frozen=True):
    """A leader's `GET /health`: everything that the experiment relies on."""

    node_id: str
    ready: bool
    write_quorum: int
    followers: int
    live_links: int
    lag: Lag
    software_version: str = "unknown"
    epoch: str | None = None


class FollowerTrace(msgspec.Struct, frozen=True):
    """One follower's part in a write: the lag drawn for it, and when it acknowledged."""

    url: str
    lag_ms: Number
    node_id: str | None = None
    ack_ms: Number | None = None


class Trace(msgspec.Struct, frozen=True):
    """What `?trace=true` adds to the answer of a write."""

    commit_ms: Number
    followers: list[FollowerTrace]
    quorum_ms: Number | None = None


class WriteAnswer(msgspec.Struct, frozen=True):
    """The answer to a confirmed write."""

    key: str
    value: Any
    version: str
    follower_acks: int
    quorum_met: bool
    trace: Trace


class QuorumAnswer(msgspec.Struct, frozen=True):
    """The answer of `POST /admin/quorum`."""

    write_quorum: int
    previous_write_quorum: int


class LeaderReplica(msgspec.Struct, frozen=True):
    """The leader's own map in `GET /admin/replica-status`."""

    node_id: str
    records: int
    digest: str
    data: dict[str, Any] | None = None
    data_left_out: int = 0


class FollowerReplica(msgspec.Struct, frozen=True):
    """A follower's map, as the leader compared it with its own."""

    url: str
    status: str
    node_id: str | None = None
    link: str | None = None
    lag_records: int | None = None
    records: int | None = None
    digest: str | None = None
    data: dict[str, Any] | None = None
    data_left_out: int = 0
    differing_keys: list[str] = []
    differing_keys_total: int = 0
    error: str | None = None


class ReplicaStatus(msgspec.Struct, frozen=True):
    """`GET /admin/replica-status`."""

    leader: LeaderReplica
    followers: list[FollowerReplica]


class Problem(msgspec.Struct, frozen=True):
    """An RFC 9457 problem document, as far as we read it."""

    code: str
    detail: str = ""


def version_order(version: str) -> tuple[int, int]:
    """A version as (epoch number, timestamp), which is how versions of one run compare.

    Raises ValueError if it is not of the form NUMBER.INSTANCE-TIMESTAMP.
    """
    matched = _VERSION.fullmatch(version)
    if matched is None:
        raise ValueError(f"version {version!r}: expected NUMBER.INSTANCE-TIMESTAMP")
    return int(matched[1]), int(matched[2])


class Leader:
    """One kept-alive connection to the leader at `url`; use it with `async with`.

    `timeout_s` bounds the wait for an answer and must be longer than the longest lag. An https URL
    needs an `ssl_context`: shared between many leaders, for making one takes tens of milliseconds.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if url.startswith("https:") and ssl_context is None:
            raise ValueError("an https URL needs an ssl_context")
        self.url = url.rstrip("/")
        self._client = httpx.AsyncClient(
            base_url=self.url,
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
            limits=httpx.Limits(max_connections=1, keepalive_expiry=KEEPALIVE_S),
            # Without a context nothing is verified: that is for plain http, where nothing can be.
            verify=False if ssl_context is None else ssl_context,
            transport=transport,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, traceback)

    async def health(self) -> LeaderHealth:
        """The leader's health. Raises NotALeader if the node at this URL is a follower."""
        body = await self._request("GET", "/health")
        health = self._decode(body, Health)
        if health.role != "leader":
            raise NotALeader(
                f"{self.url} is {health.node_id}, a {health.role}: expected the URL of the leader"
            )
        return self._decode(body, LeaderHealth)

    async def write(self, key: str, value: str) -> WriteAnswer:
        """Write with `?trace=true`. Returns once the leader has confirmed; else raises ApiError."""
        path = f"/kv/{quote(key, safe='')}?trace=true"
        answer = self._decode(await self._request("PUT", path, {"value": value}), WriteAnswer)
        try:
            version_order(answer.version)
        except ValueError as error:
            raise ApiError(f"{self.url} answered {error}", code="unexpected_answer") from None
        return answer

    async def set_quorum(self, write_quorum: int) -> QuorumAnswer:
        """Change the write quorum; the answer names the old one, too."""
        body = await self.administer("quorum", {"write_quorum": write_quorum})
        answer = self._decode(body, QuorumAnswer)
        if answer.write_quorum != write_quorum:
            raise ApiError(
                f"{self.url} was asked for quorum {write_quorum} and set {answer.write_quorum}",
                code="unexpected_answer",
            )
        return answer

    async def set_lag(self, min_ms: Number, max_ms: Number) -> Lag:
        """Change the lag of all followers, which ends what single ones had of their own."""
        body = await self.administer("lag", {"min_delay_ms": min_ms, "max_delay_ms": max_ms})
        return self._decode(body, Lag)

    async def administer(self, route: str, body: dict[str, Any]) -> bytes:
        """`POST /admin/{route}`: the answer as it came, for whoever knows its shape."""
        return await self._request("POST", f"/admin/{route}", body)

    async def replica_status(self, *, all_data: bool = False) -> ReplicaStatus:
        """Every follower compared with the leader; `all_data` gives the values of any number."""
        path = "/admin/replica-status" + ("?data=true" if all_data else "")
        return self._decode(await self._request("GET", path), ReplicaStatus)

    async def _request(self, method: str, path: str, body: object = None) -> bytes:
        try:
            response = await self._client.request(
                method,
                path,
                content=None if body is None else msgspec.json.encode(body),
                headers=None if body is None else {"content-type": "application/json"},
            )
        except httpx.TimeoutException:
            raise Unreachable(
                f"no answer in time from {self.url} to {method} {path}", code="timeout"
            ) from None
        except httpx.ConnectError as error:
            raise Unreachable(
                f"cannot connect to {self.url} ({error_text(error)}): expected a trikv leader there",
                code="connect_failed",
            ) from None
        except httpx.TransportError as error:
            raise Unreachable(
                f"lost the connection to {self.url} ({error_text(error)})",
                code="connection_lost",
            ) from None
        if response.status_code != 200:
            raise self._refusal(method, path, response)
        return response.content

    def _refusal(self, method: str, path: str, response: httpx.Response) -> ApiError:
        asked = f"{self.url} answered {method} {path} with {response.status_code}"
        try:
            problem = msgspec.json.decode(response.content, type=Problem)
        except _NOT_AN_ANSWER:
            return ApiError(
                f"{asked}: {_excerpt(response.content)} (expected a trikv leader)",
                code=f"http_{response.status_code}",
            )
        return ApiError(f"{asked} {problem.code}: {problem.detail}", code=problem.code)

    def _decode(self, body: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except _NOT_AN_ANSWER as error:
            raise ApiError(
                f"{self.url} answered {_excerpt(body)}, not what a trikv leader answers ({error})",
                code="unexpected_answer",
            ) from None


def _excerpt(body: bytes) -> str:
    text = " ".join(body.decode("utf-8", "replace").split())
    return repr(text if len(text) <= EXCERPT_CHARACTERS else text[:EXCERPT_CHARACTERS] + "...")
