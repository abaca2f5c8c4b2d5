"""Holds answers against the description of the API: `tests.support.call` does so with all it gets.

Stricter than the description: a field that it does not know is an error here, so that none is added to
an answer and forgotten there.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema_rs
import msgspec

from trikv.web.exchange import Answer
from trikv.web.openapi import document


def check_answer(method: str, path: str, answer: Answer) -> None:
    """Raises AssertionError if it is not one that the route's description promises."""
    kind = answer.content_type.partition(";")[0]
    where = f"{method} {path} answered {answer.status} in {kind}"
    promised = _promised(method, path, answer.status)
    assert promised is not None, f"{where}: no such status is promised"
    _check_headers(method, answer)
    if answer.status == 304:
        assert answer.body == b""
        return
    assert kind in promised, f"{where}: promised is {', '.join(promised)}"
    if isinstance(answer.body, bytes) and kind.endswith("json"):
        validator = _validator(method, path, answer.status, kind)
        wrong = [error.message for error in validator.iter_errors(msgspec.json.decode(answer.body))]
        assert not wrong, f"{where}: {wrong[0]}: {answer.body[:300]!r}"


def _check_headers(method: str, answer: Answer) -> None:
    """Hold what is so of every answer of a method or a status. Raises AssertionError."""
    if method == "GET" or answer.status >= 400:
        kept = answer.headers.get("Cache-Control")
        assert kept == "no-store" or (kept == "no-cache" and answer.status in (200, 304)), (
            f"Cache-Control: {kept}"
        )
    if answer.status == 503:
        assert int(answer.headers.get("Retry-After", 0)) >= 1, "no Retry-After"


def _promised(method: str, path: str, status: int) -> dict[str, Any] | None:
    operation = document()["paths"][path][method.lower()]
    response = operation["responses"].get(str(status))
    return None if response is None else response["content"]


@cache
def _validator(
    method: str, path: str, status: int, kind: str
) -> jsonschema_rs.Draft202012Validator:
    promised = _promised(method, path, status)
    assert promised is not None
    schema = {**promised[kind]["schema"], "components": document()["components"]}
    return jsonschema_rs.Draft202012Validator(strict(schema))


def strict(schema: Any) -> Any:
    """The same, and no object may have more than is said of it."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    stricter = {name: strict(one) for name, one in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        stricter.setdefault("additionalProperties", False)
    return stricter
