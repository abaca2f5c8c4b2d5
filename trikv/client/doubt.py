"""What later answers say about a write whose own answer did not settle it.

An attempt of unknown outcome leaves a *doubt*: it may be in the map, it may be on its way there, or
lost. Sometimes what a confirmed read shows of the key settles it, and sometimes repeating it does.
What follows claims no more than is true under the promises of docs/design.md.

**A version belongs to one write.** `quorum_not_met` tells the version W of the write, which by then
was in its leader's map. A linearizable read, begun after that, that shows

- W itself: the write happened.
- a higher version of the same epoch: the leader that wrote W wrote that later, upon it. The write
  happened, and was overwritten. (For one key only: of a batch, the other keys may have been lost with
  that leader.)
- a lower version: a map that once held W never shows less of this key again, so the leadership that
  answers began without W, and it is confirmed: W will be overruled wherever it still is. The write
  never happened and never will. (For one key only, again.)
- a version of a later epoch, or no key: either is possible.

**A value tells nothing**, unless the caller promises that no other write, by anyone, has this value
(`unique_value`): two clients that both write "locked" must not both believe that they hold the lock.
With that promise the value proves that the write happened. Its absence proves nothing: the request may
still be on its way, or the value may have been overwritten.

**A write with `if_version` may be repeated.** Both attempts ask for the same version, which whichever
comes first takes away for ever, since no write will have that version again; the other is refused. So
it happens once at most, and an answer of 200 to any attempt says that it has. This holds for a batch
if one of its operations has an `if_version`. It does *not* hold for `if_absent`: written, deleted by
somebody else, and written again, the value would have come back from the dead.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from trikv.client import wire
from trikv.client.errors import OutcomeUnknown
from trikv.model.version import Version


@dataclass
class Doubt:
    """What is known of the attempts of one write, of `key` if of one, that may have happened."""

    key: str | None = None
    readings: list[wire.Reading] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.readings)

    def add(self, reading: wire.Reading) -> None:
        self.readings.append(reading)

    def clear(self) -> None:
        self.readings.clear()

    @property
    def versions(self) -> Sequence[Version]:
        """Of those attempts whose version a node has told."""
        told = (reading.version for reading in self.readings)
        return [Version.parse(version) for version in told if version is not None]

    @property
    def versions_are_known(self) -> bool:
        """Whether all are known of that may have happened."""
        return len(self.versions) == len(self.readings)

    def error(self, more: str = "") -> OutcomeUnknown:
        """The exception that says so: the last attempt's, with a version if it is the only one."""
        last = self.readings[-1]
        error = wire.outcome_unknown(last, f"{last.detail}{more}")
        only = self.versions_are_known and len(self.readings) == 1
        error.version = last.version if only else None
        error.key = self.key
        return error


@dataclass(frozen=True)
class Verdict:
    """`happened`: with that version, or None if it certainly never did and never will."""

    version: Version | None


def judge(doubt: Doubt, seen: Version | None, *, one_key: bool) -> Verdict | None:
    """What a linearizable read of a key that shows the version `seen`, or no key, says of a write of
    it.

    None: nothing.
    """
    if seen is None:
        return None
    versions = doubt.versions
    if seen in versions:
        return Verdict(seen)
    if not one_key:
        return None
    for version in versions:
        if version.epoch == seen.epoch and version < seen:
            return Verdict(version)
    if versions and doubt.versions_are_known and all(seen < version for version in versions):
        return Verdict(None)
    return None
