"""What clients were told, and whether what is there in the end can be true to it.

Of each key the last confirmed write must be there, or one that came after it. A write whose outcome is
not known may have happened, or not; one that was refused has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trikv.version import Version

DELETED = None


@dataclass
class History:
    """What clients were told: of each key, every write that may have happened, and its version."""

    unique: int = 0
    confirmed: dict[str, list[tuple[Version, Any]]] = field(default_factory=dict)
    possible: dict[str, list[tuple[Version | None, Any]]] = field(default_factory=dict)
    refused: int = 0

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
        elif status == 0 or body.get("code") in ("quorum_not_met", "storage_failed"):
            for key, value in writes.items():
                self.possible.setdefault(key, []).append((version, value))
        else:
            self.refused += 1

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
