"""JSON bodies as types: what clients send; and how any body becomes a type, or is refused.

Rules
- Every body is decoded by `json_value` (nothing bent) and then checked against a type. What does
  not fit is refused with the field's name and what was expected there.
- Bodies from clients may hold no unknown field: a misspelt one would be ignored in silence. What nodes
  send each other may (see `messages`), so that a newer node can talk to an older one.

Pure.
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypeVar

import msgspec

from trikv.errors import InvalidBody, MalformedJson
from trikv.protocol import json_value

S = TypeVar("S", bound=msgspec.Struct)


class _ClientBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class PutBody(_ClientBody, frozen=True):
    """`PUT /kv/{key}`"""

    value: Any


class OperationBody(_ClientBody, frozen=True):
    """One operation of a batch. `if_version`: the version that the key must have, null for none."""

    op: Literal["put", "delete"]
    key: str
    value: Any = msgspec.UNSET
    if_version: str | msgspec.UnsetType | None = msgspec.UNSET


class OperationsBody(_ClientBody, frozen=True):
    """`POST /batch`"""

    operations: list[OperationBody]


class QuorumBody(_ClientBody, frozen=True):
    """`POST /admin/quorum`"""

    write_quorum: int
    force: bool = False


class PartitionBody(_ClientBody, frozen=True):
    """`POST /admin/partition`"""

    follower: str
    cut: bool


class AdmitBody(_ClientBody, frozen=True):
    """`POST /admin/admit`"""

    follower: str


class LagBody(_ClientBody, frozen=True):
    """`POST /admin/lag`"""

    min_delay_ms: float
    max_delay_ms: float
    follower: str | None = None


class PlainBody(_ClientBody, frozen=True):
    """`POST /replicate` as the lab has it: one key, its time in seconds."""

    key: str
    value: Any
    timestamp: float


# -- decode ---------------------------------------------------------------------------------------------


def decode_body(body: bytes, kind: type[S]) -> S:
    """A body of that type. Raises MalformedJson or InvalidBody, which names the field."""
    try:
        decoded = json_value.decode(body)
    except MalformedJson as error:
        raise MalformedJson(f"{error.detail}; expected {shape(kind)}") from None
    return convert(decoded, kind)


def shape(kind: type[msgspec.Struct]) -> str:
    """Return what a body of that type looks like, with the fields that it must have."""
    needed = [f'"{field.name}": …' for field in msgspec.structs.fields(kind) if field.required]
    return f"{{{', '.join(needed)}}}"


#: What msgspec says; of our types only clients' forbid unknown fields, and a batch's are all that nest.
_UNKNOWN = re.compile(
    r"Object contains unknown field `(.*?)`( - at `\$\.operations\[\d+\]`)?", re.DOTALL
)
_MISSING = re.compile(r"Object missing required field `(.*)`")


def convert(decoded: Any, kind: type[S]) -> S:
    """What was decoded as that type. Raises InvalidBody, which names the field."""
    try:
        return msgspec.convert(decoded, kind)
    except UnicodeEncodeError:
        raise InvalidBody("a field's name holds a lone surrogate", field="$") from None
    except msgspec.ValidationError as error:
        if unknown := _UNKNOWN.fullmatch(str(error)):
            name = json_value.clip(unknown[1])
            inner = OperationBody if unknown[2] else kind
            known = ", ".join(inner.__struct_fields__)
            raise InvalidBody(f"{name!r}: unknown field; known here: {known}", field=name) from None
        # msgspec says what was expected, then where: "Expected `int`, got `str` - at `$.a`".
        said, _, where = str(error).partition(" - at ")
        field = where.strip("`").removeprefix("$.")
        if said.startswith("Invalid enum value"):
            said = f"expected put or delete, got {said.removeprefix('Invalid enum value ')}"
        if missing := _MISSING.fullmatch(said):
            field, said = f"{field}.{missing[1]}".removeprefix("."), "required, but missing"
        if not field:  # a bare value, as a rule
            said = f"{said}; expected {shape(kind)}"
        raise InvalidBody(f"{field or 'the body'}: {said}", field=field or "$") from None


def decode_value(body: bytes) -> str:
    """The value in a `PUT` body, encoded. Raises MalformedJson or InvalidBody."""
    found = json_value.plain_field(body)
    if found is not None and found[0] == "value":
        return found[1]
    return json_value.encode(decode_body(body, PutBody).value, "value")
