"""The list of mutants: which guard, where, and how it is broken.

`test`: the test that was written for this guard, where the general simulation does not notice, with the
reason.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    name: str
    module: str
    old: str
    new: str
    test: str | None = None
    also: tuple[tuple[str, str], ...] = ()
    """Other texts of the module and what takes their place."""

    def mutate(self, source: str) -> str:
        """The module's source with the guard broken. Raises ValueError if it is not there once."""
        for old, new in ((self.old, self.new), *self.also):
            if source.count(old) != 1:
                raise ValueError(f"{self.name}: found {source.count(old)} times in {self.module}")
            source = source.replace(old, new)
        return source


_ALL = (
    # -- what is on disk
    Mutant(
        "acknowledge before commit",  # which then comes with the next transaction
        "trikv.store",
        '        self._writer.execute("BEGIN IMMEDIATE")\n'
        "        try:\n"
        "            yield\n"
        '            self._writer.execute("COMMIT")\n',
        "        if self._writer.in_transaction:\n"
        '            self._writer.execute("COMMIT")\n'
        '        self._writer.execute("BEGIN IMMEDIATE")\n'
        "        try:\n"
        "            yield\n",
    ),
    Mutant(
        "no fsync",
        "trikv.database",
        'level = "FULL" if durability == "fsync" else "NORMAL"',
        'level = "NORMAL"',
    ),
    Mutant(
        "promise not durable",
        "trikv.follower",
        "store.set_state(state._replace(promised=epoch, cluster=state.cluster or cluster))\n"
        "        return store.state",
        "store.state = state._replace(promised=epoch, cluster=state.cluster or cluster)\n"
        "        return store.state",
    ),
    Mutant(
        "a batch that overtakes what waits for the disk",
        "trikv.committer",
        "if alone and not self._busy and not self._waiting and not self._closed and self._quick():",
        "if alone and not self._busy and not self._closed and self._quick():",
        # Not by the walks: batches merge in whatever order.
        "tests/unit/test_committer.py",
    ),
    Mutant(
        "a batch of which only what is plain is read",
        "trikv.glance",
        "    if sum([len(item[0]) for item in found]) != len(text):\n",
        "    if text and not found:\n",
    ),
    Mutant(
        "a key that stands twice, of which one value is lost",
        "trikv.glance",
        '    if len(dict(pairs)) != len(pairs):\n        raise ValueError("a key twice")\n',
        "    pairs = [*dict(pairs).items()]\n",
        # Not by the walks: no leader sends such an entry.
        "tests/unit/test_glance.py",
    ),
    Mutant(
        "texts with escapes taken for plain ones",
        "trikv.glance",
        "    if length != len(text):\n        return None\n",
        "",
        # Not by the walks: their values have none.
        "tests/unit/test_glance.py",
    ),
    Mutant(
        "a batch split",
        "trikv.leader",
        "            store.merge([Entry(version, pairs)])\n            return pairs",
        "            store.merge([Entry(version, pairs[:1])])\n"
        "            async def rest() -> None:\n"
        "                try:\n"
        "                    await self.committer.commit(\n"
        "                        lambda store: store.merge([Entry(version, pairs[1:])]))\n"
        "                except TrikvError:\n"
        "                    pass\n"
        "            self._fanout._nursery.start_soon(rest)\n"
        "            return pairs",
    ),
    Mutant(
        "a page that ends inside a write",
        "trikv.store",
        "            page.extend(map(record_of, rows))\n",
        "",
    ),
    Mutant(
        "merge with >=",
        "trikv.table",
        'WHERE ({new}) > ({old})"',
        'WHERE ({new[:-16]}) >= ({old[:-len(table) - 8]})"',  # all but the value
        # No leader issues a version twice, so no run of real nodes comes to this.
        "tests/unit/test_store.py",
    ),
    Mutant(
        "epochs ranked as they come",
        "trikv.ranks",
        "return (below + above) // 2 if above - below > 1 else None",
        "return start + len(self._known)",
        # Nor do two leaderships of one number, as they come, both leave records everywhere.
        "tests/unit/test_ranks.py",
    ),
    Mutant(
        "a read that failed half way keeps what it saw",
        "trikv.table",
        "    with closing(rows):",
        "    if True:",
        # It takes a database with a text that is spoilt.
        "tests/unit/test_store.py",
    ),
    Mutant(
        "ranks spread without the records",
        "trikv.ranks",
        "UPDATE records SET epoch = (SELECT new FROM moved WHERE old = epoch)",
        "UPDATE records SET epoch = epoch",
        # It takes some thirty leaderships of one number.
        "tests/unit/test_ranks.py",
    ),
    Mutant(
        "a rank kept in mind that was rolled back",
        "trikv.store",
        "            self._ranks.forget()\n",
        "",
        # It takes a disk that fails at the first write of a leadership.
        "tests/unit/test_ranks.py",
    ),
    # -- the write buffer
    Mutant(
        "what leaves the buffer is lost",
        "trikv.store",
        "            ripe.append(buffer.leave())\n        self._merge(ripe)\n\n    def _merge",
        "            buffer.leave()\n        self._merge(ripe)\n\n    def _merge",
    ),
    Mutant(
        "a buffer that is not read at a start",
        "trikv.store",
        "        self._buffer.load()\n",
        "",
    ),
    Mutant(
        "a buffer that keeps what was rolled back",
        "trikv.store",
        "            self._buffer.forget()\n",
        "",
    ),
    Mutant(
        "a read that does not look into the buffer",
        "trikv.store",
        "return buffered if buffered is not None and wins(buffered, merged) else merged",
        "return merged",
    ),
    Mutant(
        "what is buffered taken for the newest there is",
        "trikv.store",
        "return buffered if buffered is not None and wins(buffered, merged) else merged",
        "return buffered if buffered is not None else merged",
    ),
    Mutant(
        "a condition that does not see what the same transaction buffers",
        "trikv.buffer",
        "        for kept in reversed(self._added):\n",
        "        for kept in ():\n",
        # Not by the walks: a client's condition is on what it was told, which is committed.
        "tests/unit/test_buffer.py",
    ),
    Mutant(
        "a scan beside the buffer",
        "trikv.store",
        "        return not self._buffer.empty\n",
        "        return False\n",
        also=(
            (
                "        assert self.buffered_up_to is None or self._pager.in_transaction\n",
                "",
            ),
        ),
    ),
    Mutant(
        "a buffer that is not shut while it is scanned",
        "trikv.buffer",
        "        if self._shut:\n",
        "        if False:\n",
    ),
    Mutant(
        "an older write buffered after a newer one",
        "trikv.buffer",
        "        if newest is not None and version <= newest:\n",
        "        if False:\n",
    ),
    Mutant(
        "a tombstone purged from above what it deleted",
        "trikv.store",
        " if lowest is None or one.version < lowest\n",
        "\n",
    ),
    Mutant(
        "a takeover that compares without the buffer",
        "trikv.store",
        "        self.empty_buffer()\n        self.end_staging()\n",
        "        self.end_staging()\n",
        # Not by the walks: it takes a takeover by a node that slept through another.
        "tests/unit/test_buffer.py",
        also=(("        assert not self._buffer.holds_any\n", ""),),
    ),
    Mutant(
        "versions by the wall clock alone",
        "trikv.version",
        "max(self._now_us(), self.last_us + 1)",
        "self._now_us()",
    ),
    # -- epochs
    Mutant(
        "no epoch check at /replicate",
        "trikv.follower",
        "    check_epoch(state, batch.epoch)\n    check_step(state, batch.epoch)\n    if batch",
        "    if batch",
    ),
    Mutant(
        "no epoch check of promises",
        "trikv.follower",
        "        check_epoch(state, epoch)\n        check_step(state, epoch)\n        store.set",
        "        store.set",
    ),
    Mutant(
        "a leader that does not look at its promise",
        "trikv.leader",
        "            if store.state.promised != self.epoch:\n"
        '                raise NotReady(f"this node has promised {store.state.promised} meanwhile")\n',
        "",
        # Not by the walks: its followers have promised the same, most often, and refuse it.
        "tests/simulation/test_takeover.py",
    ),
    Mutant(
        "a batch for another instance",
        "trikv.follower",
        "if batch.follower not in (None, state.instance):",
        "if False:",
        # Not by the walks: a disk is emptied while a batch is on its way: once in thousands of runs.
        "tests/simulation/test_link.py",
    ),
    # -- quorums
    Mutant(
        "one acknowledgement too few",
        "trikv.quorum",
        "return len(self.members & followers) >= self.write_quorum\n",
        "return len(self.members & followers) >= self.write_quorum - 1\n",
    ),
    Mutant(
        "an acknowledgement counted twice",
        "trikv.quorum",
        "        self._met = self._met or all_met_by(self.voters, self.acked)\n",
        "        self._told = getattr(self, '_told', 0) + 1\n"
        "        self._met = all(self._told >= one.write_quorum for one in self.voters)\n",
        # Not by the walks: a link delivers once, and no node has two links (which is tested, too).
        "tests/unit/test_quorum.py",
    ),
    Mutant(
        "an acknowledgement of a syncing follower counts",
        "trikv.outbox",
        "            if live or parcel not in self._held:\n",
        "            if True:\n",
        # Not by the walks: it takes the loss of that very follower's leader before it is live.
        "tests/simulation/test_link.py",
    ),
    Mutant(
        "a lowered quorum in force too soon",
        "trikv.reconfiguration",
        "return self._leader.enough(holders) and all(v.members <= heard for v in alone)",
        "return True",
        # Not by the walks: it takes a takeover by those that the new quorum did not ask.
        "tests/simulation/test_takeover.py",
    ),
    Mutant(
        "the quorum before forgotten too soon",
        "trikv.reconfiguration",
        "if (link.watermark_us or 0) >= self._bound_us",
        "if True",
        # Not by the walks: the same.
        "tests/simulation/test_reconfiguration.py",
    ),
    Mutant(
        "a takeover minds the newest quorum only",
        "trikv.configuration",
        "return max(voters.lacking(promised) for voters in self.all_voters)",
        "return self.voters.lacking(promised)",
        # Not by the walks: the same.
        "tests/simulation/test_reconfiguration.py",
    ),
    # -- watermarks, floors
    Mutant(
        "the watermark too early",
        "trikv.link",
        "known = self._outstanding.watermark_us(self._host.resolved_us)",
        "known = self._host.resolved_us",
    ),
    Mutant(
        "a tombstone purged too early",
        "trikv.leadership",
        "lowest_us = min((us or 0 for us in stored), default=self.resolved_us)",
        "lowest_us = max((us or 0 for us in stored), default=self.resolved_us)",
    ),
    Mutant(
        "a late batch brings back the dead",
        "trikv.follower",
        "store.merge([entry for entry in batch.entries if entry.version > floor])",
        "store.merge(batch.entries)",
    ),
    Mutant(
        "min_version without waiting",
        "trikv.follower",
        "return self.state.watermark >= version",
        "return True",
    ),
    Mutant(
        "what was turned away is not read again",
        "trikv.link",
        "            self._enter(LinkState.SYNCING)\n            self._behind.set()\n",
        "",
    ),
    Mutant(
        "the map sent from its oldest record on",
        "trikv.store",
        '" ORDER BY epoch DESC, timestamp_us DESC, key DESC LIMIT ?7"',
        '" ORDER BY epoch, timestamp_us, key LIMIT ?7"',
        "tests/simulation/test_catch_up.py",
    ),
    # -- takeovers, handshakes
    Mutant(
        "a takeover that hears one too few",
        "trikv.quorum",
        "return len(self.members) - self.write_quorum if self.write_quorum > 0 else 0",
        "return len(self.members) - self.write_quorum - 1 if self.write_quorum > 0 else 0",
    ),
    Mutant(
        "a takeover that counts a new node",
        "trikv.takeover",
        "return {s.node_id for s in states if not s.new and not is_stale(s, floor)}",
        "return {s.node_id for s in states}",
        # Not by the walks: a walk seldom has so few nodes up that a new one is needed.
        "tests/simulation/test_takeover.py",
    ),
    Mutant(
        "a takeover that reads nobody",
        "trikv.takeover",
        "return [] if state.led == own or own > base else speakers",
        "return []",
    ),
    Mutant(
        "strays merged instead of overruled",
        "trikv.leadership",
        "        await self.leader.spread(make)\n",
        "        await self.leader.committer.commit(lambda store: store.merge(entries_of(strays)))\n",
        also=(("Record, Version, wins\n", "Record, Version, entries_of, wins\n"),),
    ),
    Mutant(
        "strays left alone",
        "trikv.leadership",
        "        await self.leader.spread(make)\n",
        "        pass\n",
    ),
    Mutant(
        "a new leader keeps its own strays",
        "trikv.takeover",
        "        store.merge([Entry(version, pairs)])\n\n\ndef _promise_itself",
        "\n\ndef _promise_itself",
        # Not by the walks: it takes a takeover by a node that slept through another.
        "tests/simulation/test_interrupted.py",
    ),
    Mutant(
        "a new node brought in at once",
        "trikv.handshake",
        "        await host.admit(link)\n",
        "",
        # Not by the walks: it takes another leadership built on the very promise that was forgotten.
        "tests/simulation/test_takeover.py",
    ),
    # -- the write path, reads
    Mutant(
        "a write that leaves with its client",
        "trikv.leader",
        "        self._submit(make, write)\n        await write.decided.wait()\n",
        "        write.committed, self.committer.after = trio.Event(), lambda: None\n"
        "        self._submit(make, write)\n"
        "        await write.committed.wait()\n"
        "        self._committed = [write]\n"
        "        self._fan_out()\n"
        "        await write.decided.wait()\n",
        # Not by the walks: a client must leave within a commit, and its key not be written again.
        "tests/simulation/test_write_path.py",
    ),
    Mutant(
        "a precondition looked at before the transaction",
        "trikv.leader",
        "        def make(store: Store) -> Sequence[Pair]:\n"
        "            for index, operation in enumerate(operations):\n",
        "        before = [self.store.get(operation.key) for operation in operations]\n\n"
        "        def make(store: Store) -> Sequence[Pair]:\n"
        "            store = type('Before', (), {'current': lambda _, key: next(\n"
        "                r for o, r in zip(operations, before) if o.key == key)})()\n"
        "            for index, operation in enumerate(operations):\n",
    ),
    Mutant(
        "a heartbeat that looks at no promise",
        "trikv.follower",
        "            and _after(self.state, batch) == self.state\n",
        "",
        # Not by the walks: an old leader must be read that is cut off while its successor confirms.
        "tests/unit/test_core_batches.py",
    ),
    Mutant(
        "a linearizable read without a heartbeat",
        "trikv.leader",
        "            return self.enough(fresh) and (\n",
        "            return (\n",
        # Not by the walks: an old leader must be read that is cut off while its successor confirms.
        "tests/unit/test_web_writes.py",
    ),
    Mutant(
        "a linearizable read of what is not confirmed",
        "trikv.leader",
        "                record is None or self.enough(self.holders(record.version))\n",
        "                True\n",
        # Not by the walks: what was read must be lost then.
        "tests/unit/test_web_writes.py",
    ),
    Mutant(
        "a refusal that nobody confirmed",
        "trikv.leader",
        "            await self.confirm_read(lambda: refused.told, self.write_timeout_s)\n",
        "            pass\n",
    ),
    Mutant(
        "a leader that goes on after it was refused",
        "trikv.leader",
        "        if self.deposed is not None:\n            raise NotReady(\n",
        "        if False:\n            raise NotReady(\n",
        # Not by the walks: its followers refuse whatever it goes on to do.
        "tests/simulation/test_takeover.py",
    ),
    # -- watching: the walks have no readers; others have (test_watch_walk.py)
    Mutant(
        "a leader tells what is not confirmed",
        "trikv.leader",
        "return None if self._confirmed_us < 0 else Version(self.epoch, self._confirmed_us)",
        "return Version(self.epoch, self.resolved_us)",
        "tests/unit/test_watch.py",
    ),
    Mutant(
        "a follower tells what is not confirmed",
        "trikv.follower",
        "return min(self.state.watermark, self._confirmed)",
        "return self.state.watermark",
        "tests/unit/test_watch.py",
    ),
    Mutant(
        "a follower tells what is not complete",
        "trikv.follower",
        "return min(self.state.watermark, self._confirmed)",
        "return self._confirmed",
        "tests/simulation/test_watch_walk.py",
    ),
    Mutant(
        "a reader may resume anywhere",
        "trikv.watch",
        "if newest is None or (bound is not None and newest <= bound):",
        "if True:",
        "tests/unit/test_watch.py",
    ),
    Mutant(
        "a purge that nobody noted",
        "trikv.store",
        "            self.set_purged(victims[-1].version)\n",
        "",
        "tests/simulation/test_watch_walk.py",
    ),
    Mutant(
        "an empty disk that knows of no purge",
        "trikv.follower",
        "                if state.established > before.established and before.watermark < state.floor:\n"
        "                    store.set_purged(state.floor)\n",
        "",
        "tests/unit/test_watch.py",
    ),
    Mutant(
        "a purge that overtakes readers",
        "trikv.store",
        "bound = floor if kept is None else min(floor, kept)",
        "bound = floor",
        "tests/unit/test_watch.py",
    ),
)

MUTANTS = {mutant.name: mutant for mutant in _ALL}
