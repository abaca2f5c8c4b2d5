"""Changing the write quorum of a leader that leads: see `configuration` for the rules.

    begin     the new configuration is a record; it is committed and spread as any write is
    in force  as many followers hold it as the quorum in force asks for (or the change is forced)
    settled   as many as the new one asks for are past it with their watermarks: what came before is
              forgotten, in a record of its own

A change that cannot be confirmed stays pending, however long; a later one takes its place. Both are kept
in mind by the record that is written, until it is settled, so that a takeover at any moment between
satisfies all under which writes may have been confirmed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import trio

from trikv import logs
from trikv.configuration import KEY, Configuration, Voters, encode
from trikv.errors import NotReady, QuorumNotMet, StorageFailed
from trikv.leader import Leader
from trikv.store import Store
from trikv.version import Record, Version


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
        self._in_force = tuple(in_force)
        self.pending: int | None = None
        self._moved = (
            trio.Event()
        )  # set: something was written that takes the place of what is awaited
        self._one_at_a_time = trio.Lock()
        self._apply(self._in_force)
        if self._in_force != (configuration.voters,):
            self.pending = configuration.write_quorum

    def _apply(self, voters: tuple[Voters, ...]) -> None:
        self._in_force = voters
        self._leader.write_quorum = max(v.write_quorum for v in voters)

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
                leader.check_links(before)
            wanted = self.configuration.changed_to(
                self.configuration.members,
                write_quorum,
                (*self._in_force, *self.configuration.previous),
            )
            self.version = version = await self._write(wanted)
            self.configuration, self.pending = wanted, write_quorum
            logs.info("quorum.pending", write_quorum=write_quorum, in_force=before, forced=force)
            if force:
                self._put_in_force()
            self._moved.set()
        with trio.move_on_after(leader.write_timeout_s), suppress(NotReady):  # it is written
            await leader.until(lambda: not self._is_pending() or self.configuration is not wanted)
        if self._is_pending():
            raise QuorumNotMet(
                f"write_quorum {write_quorum} is written, and takes effect once {before} followers "
                "(the quorum in force) have confirmed it",
                version=str(version),
                follower_acks=leader.holders(version),
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
            if self.pending is not None:
                await leader.until(lambda: leader.holders(version) >= leader.write_quorum)
                if self.version == version:
                    self._put_in_force()
            if self.configuration.previous:
                quorum = self.configuration.write_quorum
                await leader.until(lambda: self._past(version) >= quorum)
                await self._forget_previous(version)

    async def _forget_previous(self, version: Version) -> None:
        async with self._one_at_a_time:
            if self.version != version:
                return
            settled = self.configuration.settled()
            try:
                self.version = await self._write(settled)
            except StorageFailed as error:  # the next change does it: until then, more is asked for
                logs.warning("storage.failed", reason=error.detail)
            else:
                self.configuration = settled

    def _is_pending(self) -> bool:
        return self.pending is not None

    def _put_in_force(self) -> None:
        before = self._leader.write_quorum
        self.pending = None
        self._apply((self.configuration.voters,))
        logs.info(
            "quorum.changed",
            write_quorum=self._leader.write_quorum,
            previous_write_quorum=before,
        )
        self._leader.progress()

    def _past(self, version: Version) -> int:
        """How many followers hold all that was written up to that version."""
        if version.epoch != self._leader.epoch:
            return self._leader.live_links
        us = version.timestamp_us
        return sum((link.watermark_us or 0) >= us for link in self._leader.links)

    async def _write(self, configuration: Configuration) -> Version:
        def make(store: Store, version: Version) -> Sequence[Record]:
            return [Record(KEY, encode(configuration), version)]

        return await self._leader.spread(make)
