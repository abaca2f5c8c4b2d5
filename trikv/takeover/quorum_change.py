"""Changing the write quorum of a leader that leads: see `membership` for the rules.

    begin     the new configuration is a record; it is committed and spread as any write is
    in force  as many followers hold it as the quorum in force asks for (or the change is forced). From
              quorum 0, under which anyone may lead alone, all followers must hold it
    settled   as many as the new one asks for are past, with their watermarks, everything that was issued
              before it was in force, since that may have been confirmed under the old one; which is then
              forgotten, in a record of its own. With a new quorum of 0, all must be past it

A change that cannot be confirmed stays pending, however long; a later one takes its place. Both are kept
in mind by the record that is written, until it is settled, so that a takeover at any moment between
satisfies all under which writes may have been confirmed.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from contextlib import suppress

import trio

from trikv import log
from trikv.errors import NotEnoughFollowers, NotReady, QuorumNotMet, StorageFailed
from trikv.model.membership import KEY, Configuration, encode
from trikv.model.quorum import Voters
from trikv.model.version import Version
from trikv.replication.leader import Leader

#: What the disk refused is tried again after so long: a full disk may have room again.
RETRY_S = 1.0


class Reconfiguration:
    """The configuration of a leader, and its changes one after the other."""

    def __init__(
        self,
        leader: Leader,
        configuration: Configuration,
        version: Version,
        in_force: Sequence[Voters],
    ) -> None:
        """`in_force`: under all of these writes may have been confirmed before this leadership."""
        self._leader = leader
        self.configuration = configuration
        self.version = version
        self.pending: int | None = None
        self._moved = (
            trio.Event()
        )  # set: something was written that takes the place of what is awaited
        self._one_at_a_time = trio.Lock()  # held while something is written, or put in force
        self._latest: Configuration | None = None  # that a change has written
        self._applied: Configuration | None = None  # that was put in force
        self._bound_us = leader.issued_us
        """What was issued up to here may have been confirmed under what came before."""
        leader.in_force = tuple(in_force)
        if leader.in_force != (configuration.voters,):
            self.pending = configuration.write_quorum

    @property
    def settled(self) -> bool:
        """Whether a takeover need not mind any earlier quorum, or earlier members."""
        return self.pending is None and not self.configuration.previous

    async def change(self, write_quorum: int, *, force: bool) -> int:
        """Change the write quorum; the one in force before. Returns once it is in force.

        Raises NotEnoughFollowers or NotReady (nothing was written), QuorumNotMet (it is pending) or
        StorageFailed.
        """
        leader = self._leader
        async with self._one_at_a_time:
            before = leader.write_quorum
            leader.check_leads()
            if not force:
                self._check_links()
            wanted = self.configuration.changed_to(
                self.configuration.members,
                write_quorum,
                # Also those of a change that is pending: it may have been in force before.
                (*leader.in_force, *self.configuration.all_voters),
            )
            # A client that leaves does not take back what is committed: this leader must go by it. The
            # commit ends by itself, with the node at the latest.
            with trio.CancelScope(shield=True):
                self.version = version = await self._write(wanted)
            self.configuration, self.pending = wanted, write_quorum
            self._latest = wanted
            log.info("quorum.pending", write_quorum=write_quorum, in_force=before, forced=force)
            if force:
                self._put_in_force()
            self._moved.set()
        with trio.move_on_after(leader.write_timeout_s), suppress(NotReady):  # it is written
            await leader.until(lambda: self._applied is wanted or self._latest is not wanted)
        if self._applied is not wanted:
            replaced = "; a later change has taken its place" if self._latest is not wanted else ""
            raise QuorumNotMet(
                f"write_quorum {write_quorum} is written, and takes effect once enough followers have "
                f"confirmed it under the quorum in force, {before}{replaced}",
                version=str(version),
                follower_acks=len(leader.holders(version)),
                required=before,
            )
        return before

    async def run(self) -> None:
        """Put what is written in force, and settle it, for as long as this node leads."""
        while self._leader.deposed is None:
            self._moved = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._settle, self.version)
                await self._moved.wait()
                nursery.cancel_scope.cancel()

    async def _settle(self, version: Version) -> None:
        leader = self._leader
        with suppress(NotReady):  # a later leader does it
            if self._is_pending():
                await leader.until(lambda: self._may_be_in_force(leader.holders(version)))
                async with self._one_at_a_time:
                    if self.version == version and self._is_pending():
                        self._put_in_force()
            if self.configuration.previous:
                await leader.until(self._may_forget_previous)
                await self._forget_previous(version)

    def _check_links(self) -> None:
        """Raises NotEnoughFollowers, which names the way around."""
        try:
            self._leader.check_links()
        except NotEnoughFollowers as refusal:
            hint = 'under the quorum in force; {"force": true} does without them'
            raise NotEnoughFollowers(f"{refusal.detail} {hint}", **refusal.extra) from None

    def _may_be_in_force(self, holders: Set[str]) -> bool:
        """Whether these followers' having it is enough for the change to take effect."""
        alone = [voters for voters in self._leader.in_force if voters.write_quorum == 0]
        if self.configuration.write_quorum == 0:  # then those that stay members may go on as before
            alone = [v for v in alone if not v.members <= self.configuration.members.keys()]
        heard = {*holders, self._leader.node_id}
        return self._leader.enough(holders) and all(v.members <= heard for v in alone)

    def _may_forget_previous(self) -> bool:
        """Return if a takeover that minds the new quorum alone finds all that was confirmed before.

        With quorum 0 any member may lead without asking another: then all must have it.
        """
        past_bound = self._past_bound()
        voters = self.configuration.voters
        if voters.write_quorum == 0:
            return voters.members <= {*past_bound, self._leader.node_id}
        return voters.met_by(past_bound)

    async def _forget_previous(self, version: Version) -> None:
        """Write the settled configuration, again until the disk takes it."""
        while True:
            async with self._one_at_a_time:
                if self.version != version:
                    return
                settled = self.configuration.settled()
                with suppress(StorageFailed):  # the committer says so
                    self.version = await self._write(settled)
                    self.configuration = settled
                    return
            await trio.sleep(RETRY_S)

    def _is_pending(self) -> bool:
        return self.pending is not None

    def _put_in_force(self) -> None:
        leader, before = self._leader, self._leader.write_quorum
        self.pending = None
        leader.in_force = (self.configuration.voters,)
        self._applied = self.configuration
        self._bound_us = leader.issued_us
        log.info("quorum.changed", write_quorum=leader.write_quorum, previous_write_quorum=before)
        leader.progress()

    def _past_bound(self) -> set[str]:
        """The followers that hold all that may have been confirmed before this was in force."""
        return {
            link.name for link in self._leader.links if (link.watermark_us or 0) >= self._bound_us
        }

    async def _write(self, configuration: Configuration) -> Version:
        return await self._leader.spread(lambda store: [(KEY, encode(configuration))])
