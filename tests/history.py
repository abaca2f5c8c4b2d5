"""What clients were told, and whether what is there in the end can be true to it.

Of each key the last confirmed write must be there, or one that came after it. A write whose outcome is
not known may have happened, or not; one that was refused has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loadgen.check.linearizability import NEVER, Operation, is_linearizable
from trikv.version import Version

DELETED = None

#: Codes of writes that may have happened.
UNKNOWN = ("quorum_not_met", "storage_failed")


@dataclass
class History:
    """What clients were told: of each key, every write that may have happened, and its version."""

    unique: int = 0
    confirmed: dict[str, list[tuple[Version, Any]]] = field(default_factory=dict)
    possible: dict[str, list[tuple[Version | None, Any]]] = field(default_factory=dict)
    refused: int = 0
    operations: dict[str, list[Operation]] = field(default_factory=dict)
    """Of each key, for the oracle; the moments are those of `moment`."""
    moments: int = 0

    def moment(self) -> int:
        """Each is after all before it."""
        self.moments += 1
        return self.moments

    def observe(
        self, begun: int, status: int, body: Mapping[str, Any], writes: Mapping[str, Any]
    ) -> None:
        """The same answer as `note`, for the oracle: writes that were not refused."""
        known = status == 200
        if known or status == 0 or body.get("code") in UNKNOWN:
            answered = self.moment() if known else NEVER
            for key, value in writes.items():
                self.operations.setdefault(key, []).append(
                    Operation("write", begun, answered, value)
                )

    def saw(self, begun: int, key: str, value: Any) -> None:
        """A read that had to be linearizable."""
        self.operations.setdefault(key, []).append(
            Operation("read", begun, self.moment(), expected=(value,))
        )

    def value(self) -> int:
        self.unique += 1
        return self.unique

    def note(self, status: int, body: Mapping[str, Any], writes: Mapping[str, Any]) -> None:
        """One answer; status 0 is none. `writes`: key to value, DELETED for a delete."""
        version = None if body.get("version") is None else Version.parse(body["version"])
        if status == 200:
            assert version is not None
            for key, value in writes.items():
                self.confirmed.setdefault(key, []).append((version, value))
                self.possible.setdefault(key, []).append((version, value))
        elif status == 0 or body.get("code") in UNKNOWN:
            for key, value in writes.items():
                self.possible.setdefault(key, []).append((version, value))
        else:
            self.refused += 1

    def check_linearizable(self, final: Mapping[str, Any]) -> None:
        """There is an order of everything that explains what was seen, and what is there now."""
        for key, operations in self.operations.items():
            begun = self.moment()
            expected = (final.get(key, DELETED),)
            now = Operation("read", begun, self.moment(), expected=expected)
            assert is_linearizable([*operations, now]), (key, sorted(operations, key=str), now)

    def check(self, final: Mapping[str, Any]) -> None:
        """Of each key the last confirmed write is there, or one that came after it."""
        for key, confirmed in self.confirmed.items():
            last = max(confirmed)
            after = [last[1]] + [
                value
                for version, value in self.possible[key]
                if version is None or version > last[0]
            ]
            found = final.get(key, DELETED)
            assert found in after, f"{key}: {found!r}, of {after} expected ({last[0]} confirmed)"
