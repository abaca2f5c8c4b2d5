"""What a write does to one key, and under which condition.

Rules
- A condition is checked against the leader's own record inside the transaction that would write, so
  that nothing comes between.
- A refusal says what the map holds, so it is a read too: see `Leader.confirm_read`.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from trikv.errors import NotFound, TrikvError, VersionConflict
from trikv.model.record import Record
from trikv.model.version import Version


class Precondition(NamedTuple):
    """`present`: the key must be there (or must not); `versions`: and have one of these."""

    present: bool | None = None
    versions: frozenset[Version] | None = None

    def holds(self, current: Record | None) -> bool:
        """Whether it holds for a record that is there, or for None."""
        if self.present is not None and self.present is not (current is not None):
            return False
        return self.versions is None or (current is not None and current.version in self.versions)


ANYTHING = Precondition()
ABSENT = Precondition(present=False)
PRESENT = Precondition(present=True)


class Operation(NamedTuple):
    """A put of an encoded value, or with "" a delete; `must_exist`: of what is there."""

    key: str
    value: str
    precondition: Precondition = ANYTHING
    must_exist: bool = False

    @property
    def unconditional(self) -> bool:
        """Nothing that the map holds could refuse it."""
        return not self.must_exist and self.precondition == ANYTHING

    def refusal(
        self, record: Record | None, place: str = ""
    ) -> tuple[TrikvError, Record | None] | None:
        """Why it is refused where the map has that record of its key, and what that record is."""
        current = None if record is None or record.deleted else record
        if not self.precondition.holds(current):
            version = None if current is None else str(current.version)
            found = "there is no such key" if current is None else f"it has {version}"
            return (
                VersionConflict(
                    f"{place}key {self.key!r}: the precondition does not hold: {found}",
                    key=self.key,
                    version=version,
                ),
                record,
            )
        if self.must_exist and current is None:
            return NotFound(f"{place}there is no key {self.key!r}", key=self.key), record
        return None


def match_versions(versions: Sequence[Version]) -> Precondition:
    """The key must have one of these versions."""
    return Precondition(present=True, versions=frozenset(versions))
