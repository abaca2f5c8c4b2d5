"""The description of the API: `GET /openapi.json` in OpenAPI 3.1, made from what the node itself uses.

- paths and methods from the table of routes
- bodies from the types that decode them
- problems from the classes of errors, each with its status, code and fields
- the rest from `described`

https://spec.openapis.org/oas/v3.1.0

Pure; made once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec

from trikv import __version__, errors
from trikv.errors import TrikvError
from trikv.protocol import messages
from trikv.web.described import ALWAYS, DESCRIBED, HEADERS, TAGS, Described, Parameter
from trikv.web.exchange import JSON, PROBLEM_JSON
from trikv.web.identity import MAX_REQUEST_ID
from trikv.web.schemas import COMPONENTS, EXTRA, KEY, TEXT, Schema, constant, fields, ref

_REF = "#/components/schemas/{name}"
_ANSWERS = (
    messages.ReplicateAnswer,
    messages.ReplicaAnswer,
    messages.RecordsAnswer,
    messages.PromiseAnswer,
)
_IN_PATH = {
    "key": ("The rest of the path, percent-encoded; slashes may stand as they are.", KEY),
    "file": ("One of the dashboard's files.", TEXT),
}
#: The headers that every answer of a status has.
_ALSO: dict[int, tuple[str, ...]] = {HTTPStatus.SERVICE_UNAVAILABLE: ("Retry-After",)}
_REQUEST_ID = Parameter(
    "X-Request-ID",
    "An id of your own; the answer has the same.",
    {"type": "string", "pattern": f"^[A-Za-z0-9._~:/+=@-]{{1,{MAX_REQUEST_ID}}}$"},
    "header",
)


@cache
def document() -> dict[str, Any]:
    """The whole description."""
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for (method, path), described in DESCRIBED.items():
        paths[path][method.lower()] = _operation(method, path, described)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "trikv",
            "version": __version__,
            "summary": "A replicated key-value store.",
            "description": "Every error is a problem document (RFC 9457) with a stable `code`.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [],
        "tags": [{"name": name, "description": meaning} for name, meaning in TAGS.items()],
        "paths": dict(paths),
        "components": {"schemas": _used(_schemas(), paths)},
    }


def _operation(method: str, path: str, described: Described) -> dict[str, Any]:
    parameters = [_parameter(one) for one in (*described.parameters, _REQUEST_ID)]
    for name, (meaning, schema) in _IN_PATH.items():
        if f"{{{name}}}" in path:
            told = {"name": name, "in": "path", "required": True}
            parameters.insert(0, {**told, "description": meaning, "schema": schema})
    operation: dict[str, Any] = {
        "operationId": described.operation,
        "summary": described.summary,
        "tags": [described.tag],
        "parameters": parameters,
        "responses": _responses(method, described),
    }
    if described.takes:
        schemas = [ref(kind.__name__) for kind in described.takes]
        schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    return operation


def _parameter(one: Parameter) -> dict[str, Any]:
    return {
        "name": one.name,
        "in": one.place,
        "description": one.meaning,
        "schema": one.schema,
    }


def _responses(method: str, described: Described) -> dict[str, Any]:
    cached = ("Cache-Control",) if method == "GET" else ()
    responses: dict[str, Any] = {}
    for status in described.statuses:
        content = {kind: {"schema": schema} for kind, schema in described.gives.items()}
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "headers": _headers(*described.headers, *cached, *_ALSO.get(status, ())),
            "content": {} if status == HTTPStatus.NOT_MODIFIED else content,
        }
    by_status: dict[int, list[str]] = defaultdict(list)
    for error in refusals(described):
        by_status[error.status].append(error.code)
    by_status[500].append("internal_error")
    for status, codes in sorted(by_status.items()):
        schema = _problems(codes)
        known = responses.setdefault(str(status), {"description": "", "content": {}})
        known["description"] = ", ".join(f"`{code}`" for code in codes)
        also = ("Location",) if "not_leader" in codes else _ALSO.get(status, ())
        known["headers"] = _headers("Cache-Control", *also)
        known["content"][PROBLEM_JSON] = {"schema": schema}
    return responses


def _problems(codes: Sequence[str]) -> Schema:
    """One of these problems; clients tell them apart by `code`."""
    schemas = {code: ref(problem_name(code)) for code in codes}
    if len(schemas) == 1:
        return schemas[codes[0]]
    mapping = {code: schema["$ref"] for code, schema in schemas.items()}
    return {
        "oneOf": list(schemas.values()),
        "discriminator": {"propertyName": "code", "mapping": mapping},
    }


def refusals(described: Described) -> list[type[TrikvError]]:
    """The errors that a route may answer with, each once."""
    return list(dict.fromkeys([*ALWAYS, *described.refuses]))


def _headers(*names: str) -> dict[str, Any]:
    return {
        name: {"description": HEADERS[name][0], "schema": HEADERS[name][1]}
        for name in (*names, "X-Request-ID")
    }


def problem_name(code: str) -> str:
    """What the schema of a problem is called: `problem_not_leader`."""
    return f"problem_{code}"


def _schemas() -> dict[str, Schema]:
    kinds = {kind for described in DESCRIBED.values() for kind in described.takes}
    _, decoded = msgspec.json.schema_components(
        sorted({*kinds, *_ANSWERS}, key=lambda kind: kind.__name__), ref_template=_REF
    )
    usual = {
        problem_name(error.code): _problem(error)
        for error in _all_errors()
        if error.code not in ("refused", "peer_failed", "superseded")
    }
    internal = _problem_fields("internal_error", 500, {}, {"request_id": TEXT})
    return {**COMPONENTS, **_portable(decoded), **usual, problem_name("internal_error"): internal}


def _used(schemas: Mapping[str, Schema], paths: object) -> dict[str, Schema]:
    """The schemas that the paths refer to, directly or through others, in their order."""
    found: set[str] = set()
    left: list[object] = [paths]
    while left:
        match left.pop():
            case {"$ref": str(target)}:
                name = target.rpartition("/")[2]
                if name not in found:
                    found.add(name)
                    left.append(schemas[name])
            case dict() as item:
                left.extend(item.values())
            case list() as items:
                left.extend(items)
    return {name: schema for name, schema in schemas.items() if name in found}


def _portable(schema: Any) -> Any:
    """Return it with patterns in JSON Schema's syntax (`$` for `\\Z`), and the type of choices named."""
    if isinstance(schema, list):
        return [_portable(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    told = {name: _portable(value) for name, value in schema.items()}
    if isinstance(pattern := told.get("pattern"), str):
        told["pattern"] = pattern.replace("\\Z", "$")
    if "enum" in told:
        told = {"type": "string", **told}
    return told


def _problem(error: type[TrikvError]) -> Schema:
    required, optional = EXTRA.get(error, ({}, {}))
    schema = _problem_fields(error.code, error.status, {"detail": TEXT, **required}, optional)
    meaning = " ".join((error.__doc__ or "").split())
    written = "It may have been written." if error.may_have_written else "Nothing was written."
    return {**schema, "description": meaning or written}


def _problem_fields(
    code: str, status: int, required: dict[str, Schema], optional: dict[str, Schema]
) -> Schema:
    usual = {
        "type": constant(f"urn:trikv:problem:{code}"),
        "title": TEXT,
        "status": constant(status),
        "code": constant(code),
    }
    return fields({**usual, **required}, optional)


def _all_errors() -> Iterable[type[TrikvError]]:
    """Every error with a code of its own."""

    def below(parent: type[TrikvError]) -> Iterable[type[TrikvError]]:
        for child in parent.__subclasses__():
            if "code" in vars(child):
                yield child
            yield from below(child)

    return below(errors.TrikvError)


@cache
def encoded() -> bytes:
    """The description as it is sent."""
    return msgspec.json.encode(document())
