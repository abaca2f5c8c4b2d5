"""What calls take and return: plain values, without behaviour.

Versions are texts, as the API has them: `1.746ea5a723a7-1795349206428488`. Values are whatever JSON
can carry: None, bool, int, float, str, and lists and dicts of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

#: `linearizable`: confirmed, and the latest. `local`: what the node that is asked holds at this
#: moment.
Consistency = Literal["linearizable", "local"]


@dataclass(frozen=True, slots=True)
class Item:
    """A key with the value and the version that it has."""

    key: str
    value: Any
    version: str


@dataclass(frozen=True, slots=True)
class Written:
    """A write that happened: it is confirmed, as docs/design.md promises it.

    `follower_acks` is how many followers had confirmed it when it was answered: None if it is known
    from a later read and not from the write's own answer.
    """

    version: str
    follower_acks: int | None = None


@dataclass(frozen=True, slots=True)
class Put:
    """One write of a batch.

    `if_version`: the version that the key must have. `if_absent`: it must not be there.
    """

    key: str
    value: Any
    if_version: str | None = None
    if_absent: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """One delete of a batch. That the key is not there is no error, unless `if_version` asks for
    it."""

    key: str
    if_version: str | None = None


Operation = Put | Delete


@dataclass(frozen=True, slots=True)
class Change:
    """What a watch tells: the latest state of a key. Of a deleted key the value is None."""

    key: str
    value: Any
    version: str
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """What a watch tells when it starts over: forget all that it told before; all keys follow anew."""

    reason: str
