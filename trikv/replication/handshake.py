"""Bringing a follower in: what a leader asks of one that was not brought in its state yet.

Rules
- A new node is admitted only once it is known that no other leadership was built on a promise that it
  may have forgotten with its disk (`Host.admit`).
- What the follower holds above its floor (a new node: all it holds, it may be left from a handshake that
  did not end), and the leader has not or has older, is a *stray*, a write that was never confirmed. The
  leader overrules it: it writes its own value of that key, or a tombstone, again, as a write of its own
  epoch. A stray is never merged: two replicas of different pasts would mix.
- Then the follower is sent the map from its floor, up to which all nodes that are not new are the same.
- A node whose watermark is below the floor is *stale*: an old copy of its data was put back, or it was
  no member for a while. Tombstones that it would need may be gone, and it may have forgotten a promise.
  It is brought in like a new node: admitted, and all that it holds is looked at.

It can be interrupted anywhere: until the follower stores that it is established, at the end, it is what
it was before, with records more that the next handshake finds again.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from trikv.model.node_state import NodeState
from trikv.model.version import NO_VERSION, Version
from trikv.network.peers import Remote

if TYPE_CHECKING:
    from trikv.replication.host import Host
    from trikv.replication.link import Link


def is_stale(state: NodeState, floor: Version) -> bool:
    """Whether a node that is not new is further behind than any member can be."""
    return not state.new and state.watermark < floor


async def begin(link: Link, host: Host, remote: Remote, told: NodeState) -> Version:
    """Admit it and overrule its strays; the version after which it has to be sent the map.

    Raises PeerFailed, Superseded.
    """
    after = told.floor
    if told.new or is_stale(told, host.floor):
        await host.admit(link)
        after = NO_VERSION
    async with aclosing(remote.pages(after, host.candidate.epoch)) as pages:
        async for page in pages:
            await host.overrule(told.node_id, page)
    return after
