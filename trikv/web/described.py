"""What each route takes and gives, for those who have not read the code: one entry a route.

The entries are held against the handlers by tests: every route has one; every parameter that a handler
knows is here, and no other; every answer that any test gets is one that its entry promises, in status,
code and shape. Bodies are named by the types that decode them.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trikv import errors
from trikv.errors import TrikvError
from trikv.node.node import SCAN_RECORDS
from trikv.protocol import messages, requests
from trikv.protocol.messages import MAX_BATCH_OPERATIONS
from trikv.web.exchange import JSON
from trikv.web.kv import LIST_KEYS, MAX_LIST_KEYS, MAX_READ_TIMEOUT_MS, READ_TIMEOUT_MS
from trikv.web.schemas import COUNT, TEXT, VERSION, Schema, one_of, ref

STREAM = "text/event-stream"

#: The groups of routes. A tag becomes the name of a module or class in generated clients: one word.
TAGS = {
    "keys": "Keys",
    "peers": "Between nodes",
    "admin": "For operators and teachers",
    "pages": "To look at",
}


@dataclass(frozen=True)
class Parameter:
    """Something beside path and body; `place` is `query` or `header`."""

    name: str
    meaning: str
    schema: Schema = field(default_factory=lambda: TEXT)
    place: str = "query"


@dataclass(frozen=True)
class Described:
    """One route.

    `operation` is the method's name in generated clients, `gives` the media types of its success, each
    with a schema; `tag` is a key of `TAGS`.
    """

    operation: str
    summary: str
    gives: dict[str, Schema]
    tag: str
    parameters: tuple[Parameter, ...] = ()
    takes: tuple[type[Any], ...] = ()
    refuses: tuple[type[TrikvError], ...] = ()
    headers: tuple[str, ...] = ()
    statuses: tuple[int, ...] = (200,)
    example: str = ""


#: What may go wrong with any request.
ALWAYS: tuple[type[TrikvError], ...] = (
    errors.BadRequest,
    errors.InvalidParameter,
    errors.RequestTimeout,
    errors.TooLarge,
)

_BODY = (errors.MalformedJson, errors.InvalidBody)
_LEADER = (errors.NotLeader, errors.NotReady)
_WRITE = (
    *_LEADER,
    errors.InvalidKey,
    errors.VersionConflict,
    errors.Overloaded,
    errors.NotEnoughFollowers,
    errors.ReadTimeout,
    errors.QuorumNotMet,
    errors.StorageFailed,
)
_BOOLEAN: Schema = {"type": "string", "enum": ["true", "false"], "default": "false"}

_TRACE = Parameter("trace", "Tell what happened on the way.", _BOOLEAN)
_MIN_VERSION = Parameter(
    "min_version", "Wait until this node holds everything up to this version.", VERSION
)
_TIMEOUT_MS = Parameter(
    "timeout_ms",
    "How long to wait at most.",
    {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_READ_TIMEOUT_MS,
        "default": READ_TIMEOUT_MS,
    },
)
_UNCHANGED = Parameter(
    "If-None-Match", "Answer 304 if it has one of these tags still.", place="header"
)
_PREFIX = Parameter("prefix", "Only keys that begin so.")
_IF_MATCH = Parameter(
    "If-Match",
    "Write only if the key has one of these versions, each in quotes; `*`: if it is there. `W/` before "
    "one is passed over.",
    place="header",
)
_IF_NONE_MATCH = Parameter(
    "If-None-Match", "`*`: write only if the key is not there.", one_of("*"), "header"
)


def _json(name: str) -> dict[str, Schema]:
    return {JSON: ref(name)}


DESCRIBED: dict[tuple[str, str], Described] = {
    ("PUT", "/kv/{key}"): Described(
        "putKey",
        "Write a key; answered once the leader and a quorum of followers have it on disk",
        _json("Written"),
        "keys",
        (_TRACE, _IF_MATCH, _IF_NONE_MATCH),
        (requests.PutBody,),
        (*_BODY, *_WRITE),
        headers=("ETag", "Server-Timing"),
        example='-d \'{"value": "hello"}\'',
    ),
    ("GET", "/kv/{key}"): Described(
        "getKey",
        "Read a key",
        _json("Item"),
        "keys",
        (
            Parameter(
                "consistency",
                "`local`: what this node holds. `linearizable`: confirmed, the latest; at the leader.",
                {**one_of("local", "linearizable"), "default": "local"},
            ),
            _MIN_VERSION,
            _TIMEOUT_MS,
            _UNCHANGED,
        ),
        refuses=(
            errors.NotFound,
            errors.InvalidKey,
            errors.ReadTimeout,
            errors.StorageFailed,
            *_LEADER,
        ),
        headers=("ETag",),
        statuses=(200, 304),
    ),
    ("DELETE", "/kv/{key}"): Described(
        "deleteKey",
        "Delete a key: a write like any other",
        _json("Deleted"),
        "keys",
        (_TRACE, _IF_MATCH, _IF_NONE_MATCH),
        refuses=(errors.NotFound, *_WRITE),
        headers=("ETag", "Server-Timing"),
    ),
    ("GET", "/kv"): Described(
        "listKeys",
        "Keys in order, with values and versions, a page at a time",
        _json("Items"),
        "keys",
        (
            _PREFIX,
            Parameter("after", "Only keys after this one: the last page's `next`."),
            Parameter(
                "limit",
                "Keys in a page.",
                {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MAX_LIST_KEYS,
                    "default": LIST_KEYS,
                },
            ),
            _MIN_VERSION,
            _TIMEOUT_MS,
        ),
        refuses=(errors.ReadTimeout, errors.StorageFailed, errors.NotReady),
        example="?prefix=user/",
    ),
    ("POST", "/batch"): Described(
        "writeBatch",
        f"Up to {MAX_BATCH_OPERATIONS} writes, all or none, with one version",
        _json("BatchWritten"),
        "keys",
        (_TRACE,),
        (requests.OperationsBody,),
        (*_BODY, *_WRITE),
        headers=("ETag", "Server-Timing"),
        example='-d \'{"operations": [{"op": "put", "key": "a", "value": 1}]}\'',
    ),
    ("GET", "/dump"): Described(
        "dumpKeys", "Every key and value that this node holds, streamed", _json("Dump"), "keys"
    ),
    ("GET", "/watch"): Described(
        "watchKeys",
        "The latest change of every key after a version, then every further one",
        {STREAM: TEXT},
        "keys",
        (
            _PREFIX,
            Parameter("after", "Resume after this version: the last `id`.", VERSION),
            Parameter(
                "Last-Event-ID", "The same, as browsers send it; it wins.", VERSION, "header"
            ),
        ),
        refuses=(errors.Overloaded, errors.NotReady),
        example="?prefix=user/",
    ),
    ("POST", "/replicate"): Described(
        "replicate",
        "Take records from the leader; answered once they are on disk",
        {JSON: {"anyOf": [ref("ReplicateAnswer"), ref("PlainReplicated")]}},
        "peers",
        takes=(messages.BatchBody, requests.PlainBody),
        refuses=(
            *_BODY,
            errors.InvalidKey,
            errors.NotFollower,
            errors.StaleEpoch,
            errors.WrongNode,
            errors.HasLeader,
            errors.Overloaded,
            errors.NotReady,
            errors.StorageFailed,
        ),
    ),
    ("GET", "/replica"): Described(
        "getReplica",
        "What this node holds, in short",
        _json("ReplicaAnswer"),
        "peers",
        refuses=(errors.StorageFailed,),
    ),
    ("GET", "/replica/records"): Described(
        "listRecords",
        "The map in version order, a page at a time",
        _json("RecordsAnswer"),
        "peers",
        (
            Parameter("after", "Only records with greater versions.", VERSION),
            Parameter(
                "limit",
                "Records in a page.",
                {"type": "integer", "minimum": 1, "maximum": SCAN_RECORDS, "default": SCAN_RECORDS},
            ),
            Parameter("epoch", "Only while the node has promised this epoch.", ref("Epoch")),
        ),
        refuses=(errors.StaleEpoch, errors.WrongNode, errors.StorageFailed),
    ),
    ("POST", "/replica/promise"): Described(
        "promiseEpoch",
        "Take records of no lower epoch from now on",
        _json("PromiseAnswer"),
        "peers",
        takes=(messages.PromiseBody,),
        refuses=(
            *_BODY,
            errors.StaleEpoch,
            errors.WrongCluster,
            errors.WrongNode,
            errors.NotReady,
            errors.StorageFailed,
        ),
    ),
    ("GET", "/health"): Described(
        "getHealth",
        "Alive, and on request whether it can serve",
        _json("Health"),
        "admin",
        (
            Parameter("ready", "`true`: 503 while it waits for something.", _BOOLEAN),
            Parameter("leads", "`true`: 503 unless it leads, for load balancers.", _BOOLEAN),
        ),
        statuses=(200, 503),
    ),
    ("GET", "/metrics"): Described(
        "getMetrics",
        "What this node is, does and has counted, for Prometheus",
        {"text/plain": TEXT, "application/openmetrics-text": TEXT},
        "admin",
        (Parameter("Accept", "Which of the two formats.", place="header"),),
    ),
    ("POST", "/admin/quorum"): Described(
        "setQuorum",
        "Change the write quorum",
        _json("QuorumChanged"),
        "admin",
        takes=(requests.QuorumBody,),
        refuses=(
            *_BODY,
            *_LEADER,
            errors.NotEnoughFollowers,
            errors.QuorumNotMet,
            errors.StorageFailed,
        ),
        example="-d '{\"write_quorum\": 2}'",
    ),
    ("GET", "/admin/replica-status"): Described(
        "compareReplicas",
        "Every follower, compared with the leader",
        _json("ReplicaStatus"),
        "admin",
        (
            Parameter(
                "data",
                "`true`: keys and values of large maps, too; up to 16 MiB.",
                _BOOLEAN,
            ),
        ),
        refuses=(*_LEADER, errors.StorageFailed),
    ),
    ("POST", "/admin/lag"): Described(
        "setLag",
        "Change the simulated lag, of all followers or of one",
        _json("Lag"),
        "admin",
        takes=(requests.LagBody,),
        refuses=(*_BODY, *_LEADER),
        example='-d \'{"min_delay_ms": 0, "max_delay_ms": 200}\'',
    ),
    ("POST", "/admin/partition"): Described(
        "setPartition",
        "Cut the wire to a follower, or heal it",
        _json("Partition"),
        "admin",
        takes=(requests.PartitionBody,),
        refuses=(*_BODY, *_LEADER),
        example='-d \'{"follower": "follower1", "cut": true}\'',
    ),
    ("POST", "/admin/admit"): Described(
        "admitFollower",
        "Bring in a new node that waits for others",
        _json("Admitted"),
        "admin",
        takes=(requests.AdmitBody,),
        refuses=(*_BODY, *_LEADER),
        example='-d \'{"follower": "follower1"}\'',
    ),
    ("GET", "/events"): Described(
        "watchEvents",
        "What happens at this node, for those who look",
        {STREAM: TEXT},
        "pages",
        refuses=(errors.Overloaded,),
    ),
    ("GET", "/"): Described(
        "getRoot",
        "To the dashboard",
        {"text/plain": TEXT},
        "pages",
        headers=("Location",),
        statuses=(307,),
    ),
    ("GET", "/ui"): Described(
        "getDashboard",
        "The dashboard",
        {"text/html": TEXT},
        "pages",
        (_UNCHANGED,),
        headers=("ETag",),
        statuses=(200, 304),
    ),
    ("GET", "/ui/{file}"): Described(
        "getDashboardFile",
        "What the dashboard is made of",
        {"text/html": TEXT, "text/css": TEXT, "text/javascript": TEXT, "image/svg+xml": TEXT},
        "pages",
        (_UNCHANGED,),
        refuses=(errors.NoSuchRoute,),
        headers=("ETag",),
        statuses=(200, 304),
    ),
    ("GET", "/openapi.json"): Described(
        "getOpenapi",
        "This description, as OpenAPI 3.1",
        {JSON: {"type": "object"}},
        "pages",
        (_UNCHANGED,),
        headers=("ETag",),
        statuses=(200, 304),
    ),
    ("GET", "/docs"): Described(
        "getDocs",
        "The same for people",
        {"text/html": TEXT},
        "pages",
    ),
}

HEADERS: dict[str, tuple[str, Schema]] = {
    "ETag": ("The version, in quotes.", TEXT),
    "Server-Timing": ("With `trace=true`: what happened on the way.", TEXT),
    "Retry-After": ("When to come back, in seconds.", COUNT),
    "Location": ("Where to ask instead: the leader, if its URL is known.", TEXT),
    "Cache-Control": (
        "`no-cache`: a cache may keep it, and asks before each use; `no-store`: none may.",
        one_of("no-cache", "no-store"),
    ),
    "X-Request-ID": ("The id of the request.", TEXT),
}
