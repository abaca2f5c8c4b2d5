"""The configuration: who the members are and how many followers confirm a write, as a record of the map.

Rules
- It lies under a reserved key that the API does not show, and is replicated as any record is.
- Members are known by their node ids; their URLs are where they were last.
- A change is a write, confirmed under the quorum in force before it takes effect. `previous` names what
  may have confirmed writes until the change is *settled*, that is, until the watermarks of as many
  followers as it asks for have passed it: so long, a takeover must satisfy all of them.
- A takeover needs, of each of these, promises from N - k members that are not new: a write is confirmed
  on k + 1 nodes, and N - k + k + 1 > N, so that every takeover meets every confirmed write. (Howard,
  Malkhi, Spiegelman 2016, "Flexible Paxos: Quorum intersection revisited".) With k = 0 nothing was
  promised to anyone, and nothing is needed.
- One member may change at a time.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

import msgspec

from trikv.errors import SettingError
from trikv.model.quorum import Voters
from trikv.model.record import RESERVED_PREFIX

KEY = f"{RESERVED_PREFIX}configuration"


class Configuration(msgspec.Struct, frozen=True):
    """Members, by node id, with their URLs; the write quorum; what it replaces, until settled."""

    members: dict[str, str | None]
    write_quorum: int
    previous: tuple[Voters, ...] = ()

    @property
    def voters(self) -> Voters:
        return Voters(frozenset(self.members), self.write_quorum)

    @property
    def all_voters(self) -> tuple[Voters, ...]:
        """All under which writes may have been confirmed."""
        return (self.voters, *self.previous)

    @property
    def asynchronous(self) -> bool:
        """Whether nobody was ever promised anything."""
        return all(voters.write_quorum == 0 for voters in self.all_voters)

    def lacking(self, promised: Set[str]) -> int:
        """How many promises a takeover is short of, at the worst of all voters."""
        return max(voters.lacking(promised) for voters in self.all_voters)

    def settled(self) -> Configuration:
        return Configuration(self.members, self.write_quorum)

    def changed_to(
        self, members: dict[str, str | None], write_quorum: int, in_force: Iterable[Voters]
    ) -> Configuration:
        """Its successor, which keeps those in mind under which writes may have been confirmed."""
        wanted = Voters(frozenset(members), write_quorum)
        previous = dict.fromkeys(v for v in in_force if v != wanted)
        return Configuration(members, write_quorum, tuple(previous))


def encode(configuration: Configuration) -> str:
    """As the value of a record: the same text for the same configuration."""
    return msgspec.json.encode(configuration, order="sorted").decode()


def decode(value: str) -> Configuration:
    """Raises ValueError if it is none, or one that can't be."""
    configuration = msgspec.json.decode(value, type=Configuration)
    for voters in configuration.all_voters:
        if not 0 <= voters.write_quorum < len(voters.members):
            raise ValueError(
                f"a write quorum of {voters.write_quorum} among {len(voters.members)} members"
            )
    return configuration


def check_change(old: Configuration, members: Set[str]) -> None:
    """Raises SettingError, naming the difference, if more than one member changes."""
    added, removed = members - old.members.keys(), old.members.keys() - members
    if len(added) + len(removed) > 1:
        difference = [f"{name} is new" for name in sorted(added)]
        difference += [f"{name} is missing" for name in sorted(removed)]
        raise SettingError(
            "FOLLOWER_URLS: expected the members of this cluster "
            f"({', '.join(sorted(old.members))}) with one change at most, but "
            f"{', '.join(difference)}; a member is known by its NODE_ID"
        )
