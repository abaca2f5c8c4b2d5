"""The shapes of answers and problems, as JSON Schema 2020-12: for `described`.

Bodies of requests need none: theirs are made from the types that decode them (see `openapi`). What is
answered is put together by hand for speed, so its shape is written down here, and the tests hold every
answer that they get against it.

Pure.
"""

from __future__ import annotations

from typing import Any

from trikv import errors
from trikv.errors import TrikvError
from trikv.model.record import MAX_KEY_BYTES

Schema = dict[str, Any]

ANYTHING: Schema = {"description": "Any JSON value."}
TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
YES_NO: Schema = {"type": "boolean"}
TRUE: Schema = {"type": "boolean", "description": "Always `true`."}
"""Not a `const`: clients of OpenAPI Generator compare one with the text "true", and refuse it."""
MS: Schema = {"type": "number", "minimum": 0, "description": "Milliseconds."}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def maybe(schema: Schema) -> Schema:
    """It, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def many(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def constant(value: str | int) -> Schema:
    """One value only. Its type is named beside it: code generators do not derive it."""
    return {"type": "string" if isinstance(value, str) else "integer", "const": value}


def fields(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """An object with these fields; there may be more in a later version."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
    }


def allowed(*names: str) -> dict[str, Schema]:
    """Optional texts of these names."""
    return dict.fromkeys(names, TEXT)


KEY = ref("Key")
VERSION = ref("Version")

_range = {"min_delay_ms": MS, "max_delay_ms": MS}
_followed = {"url": TEXT, "node_id": maybe(TEXT)}
_write = {
    "version": VERSION,
    "follower_acks": COUNT,
    "quorum_met": TRUE,
}
_trace = {"trace": ref("Trace")}
_data = {
    "data": maybe({"type": "object", "description": "Keys and values."}),
    "data_left_out": COUNT,
}

COMPONENTS: dict[str, Schema] = {
    "Key": {
        "type": "string",
        "minLength": 1,
        "description": f"UTF-8, at most {MAX_KEY_BYTES} bytes; not one of the reserved ones.",
    },
    "Version": {
        "type": "string",
        "pattern": "^(0|[1-9][0-9]{0,9})\\.[0-9a-z]{1,32}-(0|[1-9][0-9]{0,15})$",
        "description": "Number and instance of an epoch, and a time in microseconds.",
        "examples": ["3.0f4c2a9d81e7-1700000000000000"],
    },
    "Epoch": {
        "type": "string",
        "pattern": "^(0|[1-9][0-9]{0,9})\\.[0-9a-z]{1,32}$",
        "examples": ["3.0f4c2a9d81e7"],
    },
    "Item": fields({"key": KEY, "value": ANYTHING, "version": VERSION}),
    "NodeName": fields({"node_id": TEXT, "url": maybe(TEXT)}),
    "TracedFollower": fields({**_followed, "lag_ms": MS, "ack_ms": maybe(MS)}),
    "Trace": fields(
        {
            "commit_ms": maybe(MS),
            "quorum_ms": maybe(MS),
            "followers": many(ref("TracedFollower")),
        }
    ),
    "Written": fields({"key": KEY, "value": ANYTHING, **_write}, _trace),
    "Deleted": fields({"key": KEY, "deleted": TRUE, **_write}, _trace),
    "BatchWritten": fields({"operations": {"type": "integer", "minimum": 1}, **_write}, _trace),
    "Items": fields({"items": many(ref("Item")), "next": maybe(TEXT)}),
    "FollowerLag": fields({**_followed, **_range}),
    "Lag": fields({**_range, "followers": many(ref("FollowerLag"))}),
    "Health": fields(
        {
            "status": constant("ok"),
            "role": one_of("leader", "follower"),
            "node_id": TEXT,
            "url": maybe(TEXT),
            "ready": YES_NO,
            "waiting_for": many(TEXT),
            "software_version": TEXT,
            "cluster": maybe(TEXT),
            "epoch": ref("Epoch"),
        },
        {
            "leads": YES_NO,
            "write_quorum": COUNT,
            "pending_write_quorum": maybe(COUNT),
            "settled": YES_NO,
            "environment_write_quorum": COUNT,
            "followers": COUNT,
            "live_links": COUNT,
            "inflight_writes": COUNT,
            "lag": ref("Lag"),
            "leader": ref("NodeName"),
            "leader_heard_ms": COUNT,
        },
    ),
    "QuorumChanged": fields(
        {"write_quorum": COUNT, "previous_write_quorum": COUNT}, allowed("warning")
    ),
    "Partition": fields({**_followed, "cut": YES_NO}),
    "Admitted": fields({**_followed, "admitted": TRUE}),
    "LeaderReplica": fields(
        {
            "node_id": TEXT,
            "epoch": ref("Epoch"),
            "write_quorum": COUNT,
            "records": COUNT,
            "digest": TEXT,
            **_data,
        }
    ),
    "FollowerReplica": fields(
        {
            **_followed,
            "status": one_of("match", "mismatch", "unreachable"),
            "link": one_of("connecting", "syncing", "live", "down", "cut"),
            "link_reason": maybe(TEXT),
            "lag_records": COUNT,
            "lag_ms": MS,
            "rate_records_s": {"type": "number", "minimum": 0},
            "records": maybe(COUNT),
            "digest": maybe(TEXT),
            "differing_keys": many(TEXT),
            "differing_keys_total": maybe(COUNT),
            "error": maybe(TEXT),
            **_data,
        }
    ),
    "ReplicaStatus": fields(
        {"leader": ref("LeaderReplica"), "followers": many(ref("FollowerReplica"))}
    ),
    "Dump": {"type": "object", "description": "Every key and its value."},
    "PlainReplicated": fields({"status": constant("ok")}),
}

#: What the problem documents of an error hold beside the usual: always, and at times.
EXTRA: dict[type[TrikvError], tuple[dict[str, Schema], dict[str, Schema]]] = {
    errors.MalformedJson: ({}, allowed("field")),
    errors.InvalidKey: ({"field": TEXT}, {}),
    errors.InvalidBody: ({"field": TEXT}, {}),
    errors.InvalidParameter: ({"field": TEXT}, {}),
    errors.TooLarge: ({"field": TEXT}, {}),
    errors.NotFound: ({"key": TEXT}, {}),
    errors.NotLeader: ({"leader": maybe(ref("NodeName"))}, {}),
    errors.StaleEpoch: ({"promised": ref("Epoch")}, {}),
    errors.WrongCluster: ({"cluster": TEXT}, {}),
    errors.HasLeader: ({"promised": ref("Epoch")}, {}),
    errors.VersionConflict: ({"key": TEXT, "version": maybe(VERSION)}, {}),
    errors.Overloaded: ({"retry_after_s": COUNT}, {}),
    errors.NotEnoughFollowers: ({"live_links": COUNT, "required": COUNT}, {}),
    errors.NotReady: ({}, {"waiting_for": many(TEXT)}),
    errors.ReadTimeout: (
        {},
        {"live_links": COUNT, "required": COUNT, "watermark": VERSION},
    ),
    errors.QuorumNotMet: (
        {"version": VERSION, "follower_acks": COUNT, "required": COUNT},
        {},
    ),
}
