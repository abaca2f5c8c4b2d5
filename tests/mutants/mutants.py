"""The list of mutants: which guard, where, how it is broken, and what must notice.

`noticed`: what is said when it is noticed, a regular expression: the kind of anomaly, or the assertion
that fails. `test`: the test that was written for this guard, where the general simulation does not
notice, with the reason.
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
    elsewhere: tuple[tuple[str, str, str], ...] = ()
    """The same in other modules, named first: where one guard stands behind another."""
    noticed: str = ""

    @property
    def modules(self) -> set[str]:
        return {self.module, *(module for module, _, _ in self.elsewhere)}

    def mutate(self, module: str, source: str) -> str:
        """A module's source with the guard broken. Raises ValueError if it is not there once."""
        here = ((self.module, old, new) for old, new in ((self.old, self.new), *self.also))
        for where, old, new in (*here, *self.elsewhere):
            if where != module:
                continue
            if source.count(old) != 1:
                raise ValueError(f"{self.name}: found {source.count(old)} times in {module}")
            source = source.replace(old, new)
        return source


#: The oracle's verdict on what clients were told.
ANOMALIES = r"^Broken: \d+ anomalies"

#: What a node knows on its disk went back, or cannot be.
ON_DISK = r"^Broken: .*(fell from|below the floor|was led by|another instance)"

#: Some code finds at once that it was misled.
INVARIANT = r"^AssertionError: |^Broken: "

#: Any of these.
BROKEN = r"^(Broken|AssertionError): "

#: An assertion of the test that is named.
ITS_TEST = r"::test_\w+.* - (.*AssertionError|assert |Failed: |.*Broken|.*TooSlowError)"

_ALL = (
    # -- what is on disk
    Mutant(
        "acknowledge before commit",  # which then comes with the next transaction
        "trikv.storage.store",
        '        self._writer.execute("BEGIN IMMEDIATE")\n'
        "        try:\n"
        "            yield\n"
        "            self.database.check_in_place()\n"
        '            self._writer.execute("COMMIT")\n',
        "        if self._writer.in_transaction:\n"
        '            self._writer.execute("COMMIT")\n'
        '        self._writer.execute("BEGIN IMMEDIATE")\n'
        "        try:\n"
        "            yield\n",
        noticed=ON_DISK,
    ),
    Mutant(
        "no fsync",
        "trikv.storage.database",
        'level = "FULL" if durability == "fsync" else "NORMAL"',
        'level = "NORMAL"',
        noticed=ON_DISK,
    ),
    Mutant(
        "promise not durable",
        "trikv.replication.follower",
        "store.set_state(state._replace(promised=epoch, cluster=state.cluster or cluster))\n"
        "        return store.state",
        "store.state = state._replace(promised=epoch, cluster=state.cluster or cluster)\n"
        "        return store.state",
        noticed=BROKEN,
    ),
    Mutant(
        "a batch that overtakes what waits for the disk",
        "trikv.storage.group_commit",
        "if alone and not self._busy and not self._waiting and not self._closed and self._quick():",
        "if alone and not self._busy and not self._closed and self._quick():",
        # Not by the walks: batches merge in whatever order.
        "tests/unit/test_group_commit.py",
        noticed="test_one_that_expects_no_company_comes_behind_what_waits.* - ",
    ),
    Mutant(
        "a batch of which only what is plain is read",
        "trikv.protocol.canonical",
        "    if sum([len(item[0]) for item in found]) != len(text):\n",
        "    if text and not found:\n",
        noticed=ANOMALIES,
    ),
    Mutant(
        "a key that stands twice, of which one value is lost",
        "trikv.protocol.canonical",
        '    if len(dict(pairs)) != len(pairs):\n        raise ValueError("a key twice")\n',
        "    pairs = [*dict(pairs).items()]\n",
        # Not by the walks: no leader sends such an entry.
        "tests/unit/test_canonical.py",
        noticed="test_what_is_not_quite_an_entry_is_not_read_at_a_glance.* - ",
    ),
    Mutant(
        "texts with escapes taken for plain ones",
        "trikv.protocol.canonical",
        "    if length != len(text):\n        return None\n",
        "",
        # Not by the walks: their values have none.
        "tests/unit/test_canonical.py",
        noticed="test_what_is_not_quite_texts_in_short_is_not_read_at_a_glance.* - ",
    ),
    Mutant(
        "a batch split",
        "trikv.replication.leader",
        "            store.merge([Entry(version, pairs)])\n            return pairs",
        "            store.merge([Entry(version, pairs[:1])])\n"
        "            if pairs[1:] and not self.committer._closed:\n"
        "                self.committer.submit(\n"
        "                    lambda store: store.merge([Entry(version, pairs[1:])]),\n"
        "                    lambda result, error: None)\n"
        "            return pairs",
        noticed="torn_batch",
    ),
    Mutant(
        "a page that ends inside a write",
        "trikv.storage.store",
        "            page.extend(map(record_of, rows))\n",
        "",
        noticed=ANOMALIES,
    ),
    Mutant(
        "a page read in two statements",
        "trikv.storage.store",
        "        if self._pager.in_transaction:  # see",
        "        if True:  # see",
        # Seldom by the walks: the leader must be lost once a follower has that page, and no more.
        test="tests/unit/test_store.py",
        noticed=rf"{ANOMALIES}|test_a_page_and_the_rest_of_its_last_write_are_of_one_moment.* - ",
    ),
    Mutant(
        "a clock that issues what no follower takes",
        "trikv.model.version",
        "        if issued_us > MAX_ISSUED_US:\n",
        "        if issued_us > MAX_TIMESTAMP_US:\n",
        noticed="Broken: not quiet",
    ),
    Mutant(
        "merge with >=",
        "trikv.storage.record_table",
        'WHERE ({new}) > ({old})"',
        'WHERE ({new[:-16]}) >= ({old[:-len(table) - 8]})"',  # all but the value
        # No leader issues a version twice, so no run of real nodes comes to this.
        "tests/unit/test_store.py",
        noticed="test_replicas_converge_whatever_the_order_the_batches_and_the_repetitions.* - ",
    ),
    Mutant(
        "epochs ranked as they come",
        "trikv.storage.epoch_ranks",
        "return (below + above) // 2 if above - below > 1 else None",
        "return start + len(self._known)",
        # Nor do two leaderships of one number, as they come, both leave records everywhere.
        "tests/unit/test_epoch_ranks.py",
        noticed="test_versions_are_read_in_their_order_whatever_epochs_came_before.* - ",
    ),
    Mutant(
        "a read that failed half way keeps what it saw",
        "trikv.storage.record_table",
        "    with closing(rows):",
        "    if True:",
        # It takes a database with a text that is spoilt.
        "tests/unit/test_store.py",
        noticed="test_after_a_read_that_failed_half_way_the_next_sees_what_came_since.* - ",
    ),
    Mutant(
        "ranks spread without the records",
        "trikv.storage.epoch_ranks",
        "UPDATE records SET epoch = (SELECT new FROM moved WHERE old = epoch)",
        "UPDATE records SET epoch = epoch",
        # It takes some thirty leaderships of one number.
        "tests/unit/test_epoch_ranks.py",
        noticed="test_versions_are_read_in_their_order_whatever_epochs_came_before.* - ",
    ),
    Mutant(
        "a rank kept in mind that was rolled back",
        "trikv.storage.store",
        "            self._ranks.forget()\n",
        "",
        # It takes a disk that fails at the first write of a leadership.
        "tests/unit/test_epoch_ranks.py",
        noticed="test_a_rank_that_was_rolled_back_is_forgotten.* - ",
    ),
    # -- the write buffer
    Mutant(
        "what leaves the buffer is lost",
        "trikv.storage.store",
        "            ripe.append(buffer.leave())\n        self._merge(ripe)\n\n    def _merge",
        "            buffer.leave()\n        self._merge(ripe)\n\n    def _merge",
        noticed=ANOMALIES,
    ),
    Mutant(
        "a buffer that is not read at a start",
        "trikv.storage.store",
        "        self._buffer.load()\n",
        "",
        noticed=ANOMALIES,
    ),
    Mutant(
        "a buffer that keeps what was rolled back",
        "trikv.storage.store",
        "            self._buffer.forget()\n",
        "",
        noticed=ANOMALIES,
    ),
    Mutant(
        "a read that does not look into the buffer",
        "trikv.storage.store",
        "return buffered if buffered is not None and wins(buffered, merged) else merged",
        "return merged",
        noticed=ANOMALIES,
    ),
    Mutant(
        "what is buffered taken for the newest there is",
        "trikv.storage.store",
        "return buffered if buffered is not None and wins(buffered, merged) else merged",
        "return buffered if buffered is not None else merged",
        noticed=ANOMALIES,
    ),
    Mutant(
        "a condition that does not see what the same transaction buffers",
        "trikv.storage.write_buffer",
        "        for kept in reversed(self._added):\n",
        "        for kept in ():\n",
        # Not by the walks: a client's condition is on what it was told, which is committed.
        "tests/unit/test_write_buffer.py",
        noticed="TestBufferedStoreAgreesWithDict.* - ",
    ),
    Mutant(
        "a scan beside the buffer",
        "trikv.storage.store",
        "        return not self._buffer.empty\n",
        "        return False\n",
        also=(
            (
                "        assert self.buffered_up_to is None or self._pager.in_transaction\n",
                "",
            ),
        ),
        noticed=ANOMALIES,
    ),
    Mutant(
        "a buffer that is not shut while it is scanned",
        "trikv.storage.write_buffer",
        "        if self._shut:\n",
        "        if False:\n",
        noticed=INVARIANT,
    ),
    Mutant(
        "an older write buffered after a newer one",
        "trikv.storage.write_buffer",
        "        if newest is not None and version <= newest:\n",
        "        if False:\n",
        noticed=ANOMALIES,
    ),
    Mutant(
        "a tombstone purged from above what it deleted",
        "trikv.storage.store",
        " if lowest is None or one.version < lowest\n",
        "\n",
        noticed=ANOMALIES,
    ),
    Mutant(
        "a takeover that compares without the buffer",
        "trikv.storage.store",
        "        self.empty_buffer()\n        self.end_staging()\n",
        "        self.end_staging()\n",
        # Not by the walks: it takes a takeover by a node that slept through another.
        "tests/unit/test_write_buffer.py",
        also=(("        assert not self._buffer.holds_any\n", ""),),
        noticed="TestBufferedStoreAgreesWithDict.* - ",
    ),
    Mutant(
        "versions by the wall clock alone",
        "trikv.model.version",
        "max(self._now_us(), self.last_us + 1)",
        "self._now_us()",
        noticed=INVARIANT,
    ),
    # -- epochs
    Mutant(
        "no epoch check at /replicate",
        "trikv.replication.follower",
        "    check_epoch(state, batch.epoch)\n    check_step(state, batch.epoch)\n    if batch",
        "    if batch",
        noticed=INVARIANT,
    ),
    Mutant(
        "no epoch check of promises",
        "trikv.replication.follower",
        "        check_epoch(state, epoch)\n        check_step(state, epoch)\n        store.set",
        "        store.set",
        noticed=INVARIANT,
    ),
    Mutant(
        "a leader that does not look at its promise",
        "trikv.replication.leader",
        "            if store.state.promised != self.epoch:\n"
        '                raise NotReady(f"this node has promised {store.state.promised} meanwhile")\n',
        "",
        # Not by the walks: its followers have promised the same, most often, and refuse it.
        "tests/simulation/test_takeover.py",
        noticed="test_a_leader_that_has_promised_higher_commits_nothing_of_its_own_any_more.* - ",
    ),
    Mutant(
        "a batch for another instance",
        "trikv.replication.follower",
        "if batch.follower not in (None, state.instance):",
        "if False:",
        # Not by the walks: a disk is emptied while a batch is on its way: once in thousands of runs.
        "tests/simulation/test_link.py",
        noticed="test_a_batch_for_a_disk_that_was_emptied_since_is_refused.* - ",
    ),
    # -- quorums
    Mutant(
        "one acknowledgement too few",
        "trikv.model.quorum",
        "return len(self.members & followers) >= self.write_quorum\n",
        "return len(self.members & followers) >= self.write_quorum - 1\n",
        noticed=INVARIANT,
    ),
    Mutant(
        "an acknowledgement counted twice",
        "trikv.model.quorum",
        "        self._met = self._met or all_met_by(self.voters, self.acked)\n",
        "        self._told = getattr(self, '_told', 0) + 1\n"
        "        self._met = all(self._told >= one.write_quorum for one in self.voters)\n",
        # Not by the walks: a link delivers once, and no node has two links (which is tested, too).
        "tests/unit/test_quorum.py",
        noticed="test_the_quorum_is_met_exactly_when_enough_followers_have_acknowledged.* - ",
    ),
    Mutant(
        "a clone of the channel that is not closed",
        "trikv.replication.replicate",
        "        with acks:  # each delivery owns a clone: the channel ends with the last of them\n",
        "        if True:\n",
        # Not by the walks: an impossible quorum is then known at the timeout, which is right, and late.
        "tests/simulation/test_replicate.py",
        noticed=ITS_TEST,
    ),
    Mutant(
        "an ACK that is sent before the follower has the records",
        "trikv.replication.replicate",
        "            if await link.deliver(batch):\n",
        "            self._background.start_soon(link.deliver, batch)\n            if True:\n",
        "tests/simulation/test_replicate.py",
        noticed=rf"{ITS_TEST}|{BROKEN}",
    ),
    Mutant(
        "a delivery that dies with its request",
        "trikv.replication.leader",
        "        except trio.Cancelled:\n            if write.commit_ms",
        "        except trio.Cancelled:\n"
        "            self._background.cancel_scope.cancel()\n"
        "            if write.commit_ms",
        "tests/simulation/test_replicate.py",
        noticed=rf"{ITS_TEST}|{BROKEN}",
    ),
    Mutant(
        "a reservation made after the commit's step",
        "trikv.replication.leader",
        "                self._replication.begin(group, self.links)\n",
        "                async def later(group: Any = group) -> None:\n"
        "                    self._replication.begin(group, self.links)\n\n"
        "                self._background.start_soon(later)\n",
        "tests/simulation/test_replicate.py",
        noticed=rf"{ITS_TEST}|{BROKEN}",
    ),
    Mutant(
        "writers wait for room at a quorum alone",
        "trikv.replication.leader",
        "        return pacing.quorum_is_idle(live, self.enough)\n",
        "        return True\n",
        # Not by the walks: links that fall back to syncing break no promise.
        "tests/simulation/test_keeping_up.py",
        noticed=ITS_TEST,
    ),
    Mutant(
        "a change that forgets a pending one",
        "trikv.takeover.quorum_change",
        "                (*leader.in_force, *self.configuration.all_voters),\n",
        "                (*leader.in_force, *self.configuration.previous),\n",
        # Not by a few walks: it takes three changes, and a takeover by those that the last asks for.
        "tests/simulation/test_reconfiguration.py",
        noticed=rf"{ITS_TEST}|{BROKEN}",
    ),
    Mutant(
        "an acknowledgement of a syncing follower counts",
        "trikv.replication.outbox",
        "            if live or batch not in self._held:\n",
        "            if True:\n",
        # Not by the walks: it takes the loss of that very follower's leader before it is live.
        "tests/simulation/test_link.py",
        noticed="test_an_acknowledgement_of_a_follower_that_catches_up_counts_once_it_is_live.* - ",
    ),
    Mutant(
        "a lowered quorum in force too soon",
        "trikv.takeover.quorum_change",
        "return self._leader.enough(holders) and all(v.members <= heard for v in alone)",
        "return True",
        # Not by the walks: it takes a takeover by those that the new quorum did not ask.
        "tests/simulation/test_takeover.py",
        noticed="test_a_follower_takes_over_with_two_others_and_nothing_confirmed_is_lost.* - ",
    ),
    Mutant(
        "the quorum before forgotten too soon",
        "trikv.takeover.quorum_change",
        "if (link.watermark_us or 0) >= self._bound_us",
        "if True",
        # Not by the walks: the same.
        "tests/simulation/test_reconfiguration.py",
        noticed="test_a_raised_quorum_is_not_settled_before_what_the_old_one_confirmed_has_arrived.* - ",
    ),
    Mutant(
        "a takeover minds the newest quorum only",
        "trikv.model.membership",
        "return max(voters.lacking(promised) for voters in self.all_voters)",
        "return self.voters.lacking(promised)",
        # Not by the walks: the same.
        "tests/simulation/test_reconfiguration.py",
        noticed="test_a_raised_quorum_is_not_settled_before_what_the_old_one_confirmed_has_arrived.* - ",
    ),
    # -- watermarks, floors
    Mutant(
        "the watermark too early",
        "trikv.replication.link",
        "known = self._outstanding.watermark_us(self._host.resolved_us)",
        "known = self._host.resolved_us",
        noticed=ANOMALIES,
    ),
    Mutant(
        "a tombstone purged too early",
        "trikv.takeover.leadership",
        "lowest_us = min((us or 0 for us in stored), default=self.resolved_us)",
        "lowest_us = max((us or 0 for us in stored), default=self.resolved_us)",
        noticed=ON_DISK,
    ),
    Mutant(
        "a late batch brings back the dead",
        "trikv.replication.follower",
        "store.merge([entry for entry in batch.entries if entry.version > floor])",
        "store.merge(batch.entries)",
        noticed=ANOMALIES,
    ),
    Mutant(
        "min_version without waiting",
        "trikv.replication.follower",
        "return self.state.watermark >= version",
        "return True",
        noticed=ANOMALIES,
    ),
    Mutant(
        "what was turned away is not read again",
        "trikv.replication.link",
        "            self._enter(LinkState.SYNCING)\n            self._behind.set()\n",
        "",
        noticed=ANOMALIES,
    ),
    Mutant(
        "the map sent from its oldest record on",
        "trikv.storage.store",
        '" ORDER BY epoch DESC, timestamp_us DESC, key DESC LIMIT ?7"',
        '" ORDER BY epoch, timestamp_us, key LIMIT ?7"',
        "tests/simulation/test_catch_up.py",
        noticed="test_a_leader_that_crashes_while_a_follower_catches_up_leaves_no_part_of_a_batch.* - ",
    ),
    # -- takeovers, handshakes
    Mutant(
        "a takeover that hears one too few",
        "trikv.model.quorum",
        "return len(self.members) - self.write_quorum if self.write_quorum > 0 else 0",
        "return len(self.members) - self.write_quorum - 1 if self.write_quorum > 0 else 0",
        noticed=ANOMALIES,
    ),
    Mutant(
        "a takeover that counts a new node",
        "trikv.takeover.takeover",
        "return {s.node_id for s in states if not s.new and not is_stale(s, floor)}",
        "return {s.node_id for s in states}",
        # Not by the walks: a walk seldom has so few nodes up that a new one is needed.
        "tests/simulation/test_takeover.py",
        noticed="test_a_new_node_does_not_count_for_a_takeover.* - ",
    ),
    Mutant(
        "a takeover that reads nobody",
        "trikv.takeover.takeover",
        "return [] if own > base else speakers",
        "return []",
        noticed=ANOMALIES,
    ),
    Mutant(
        "strays merged instead of overruled",
        "trikv.takeover.leadership",
        "        await self.leader.spread(make)\n",
        "        await self.leader.committer.commit(lambda store: store.merge(entries_of(strays)))\n",
        also=(("Pair, Record, wins\n", "Pair, Record, entries_of, wins\n"),),
        noticed=ANOMALIES,
    ),
    Mutant(
        "strays left alone",
        "trikv.takeover.leadership",
        "        await self.leader.spread(make)\n",
        "        pass\n",
        noticed=ANOMALIES,
    ),
    Mutant(
        "a new leader keeps its own strays",
        "trikv.takeover.takeover",
        "        store.merge([Entry(version, pairs)])\n\n\n@asynccontextmanager",
        "\n\n@asynccontextmanager",
        # Not by the walks: it takes a takeover by a node that slept through another.
        "tests/simulation/test_interrupted.py",
        noticed="test_a_takeover_may_be_interrupted_at_any_request.* - ",
    ),
    Mutant(
        "a new node brought in at once",
        "trikv.replication.handshake",
        "        await host.admit(link)\n",
        "",
        # Not by the walks: it takes another leadership built on the very promise that was forgotten.
        "tests/simulation/test_takeover.py",
        noticed="test_a_new_node_does_not_count_for_a_takeover.* - ",
    ),
    Mutant(
        "a promise that is forgotten while others are gathered",
        "trikv.takeover.takeover",
        "            if not await self._ask_again(candidate):\n",
        "            if False:\n",
        noticed=ANOMALIES,
    ),
    Mutant(
        "a takeover that does not look at its promise last",
        "trikv.takeover.takeover",
        "        # until then a promise that this node makes deposes nobody.\n"
        "        _check_own_promise(self._store, candidate.epoch)\n",
        "",
        # Not by the walks: a candidate asks twice, and the second time it ends the leadership.
        "tests/simulation/test_promises.py",
        noticed="test_a_promise_made_before_leading_begins_is_noticed.* - ",
    ),
    Mutant(
        "a linearizable read that does not look at the promise",
        "trikv.replication.leader",
        "if (promised := self.store.state.promised) != self.epoch:\n                raise",
        "if (promised := self.epoch) != self.epoch:\n                raise",
        # Not by the walks: a leadership that begins looks at it, too.
        "tests/simulation/test_promises.py",
        noticed="test_a_linearizable_read_looks_at_the_promise_after_its_round.* - ",
    ),
    Mutant(
        "a candidate that leads with a promise to another",
        "trikv.takeover.takeover",
        "            _check_own_promise(store, candidate.epoch)\n            if speaker:\n",
        "            if speaker:\n",
        elsewhere=(
            (
                "trikv.replication.leader",
                "if (promised := self.store.state.promised) != self.epoch:\n                raise",
                "if (promised := self.epoch) != self.epoch:\n                raise",
            ),
        ),
        also=(
            (
                "        # until then a promise that this node makes deposes nobody.\n"
                "        _check_own_promise(self._store, candidate.epoch)\n",
                "",
            ),
        ),
        noticed=ANOMALIES,
    ),
    Mutant(
        "a leader that reads nobody since it led",
        "trikv.takeover.takeover",
        "        return [] if own > base else speakers\n",
        "        return [] if state.led == own or own > base else speakers\n",
        noticed=ANOMALIES,
    ),
    Mutant(
        "a promise that is not synced",
        "trikv.replication.follower",
        "    return await committer.commit(change, synced=True)\n",
        "    return await committer.commit(change)\n",
        noticed=ANOMALIES,
    ),
    # -- changes of the configuration
    Mutant(
        "a quorum of 0 that settles before all are past it",
        "trikv.takeover.quorum_change",
        "        if voters.write_quorum == 0:\n"
        "            return voters.members <= {*past_bound, self._leader.node_id}\n",
        "",
        noticed=ANOMALIES,
    ),
    Mutant(
        "a change that forgets what the one before replaced",
        "trikv.takeover.quorum_change",
        "(*leader.in_force, *self.configuration.all_voters),",
        "leader.in_force,",
        noticed=ANOMALIES,
    ),
    Mutant(
        "a change that a client takes back half-way",
        "trikv.takeover.quorum_change",
        "            with trio.CancelScope(shield=True):\n"
        "                self.version = version = await self._write(wanted)\n",
        "            self.version = version = await self._write(wanted)\n",
        noticed="Broken: .* goes by .* not settled",
    ),
    Mutant(
        "settling that a full disk ends for good",
        "trikv.takeover.quorum_change",
        "            await trio.sleep(RETRY_S)\n",
        "            return\n",
        noticed="Broken: .* goes by .* not settled",
    ),
    # -- the write path, reads
    Mutant(
        "a write that leaves with its client",
        "trikv.replication.leader",
        "        self._submit(make, write)\n        try:\n",
        "        write.committed, self.committer.after = trio.Event(), lambda: None\n"
        "        self._submit(make, write)\n"
        "        await write.committed.wait()\n"
        "        self._committed = [write]\n"
        "        self._replicate_committed()\n"
        "        try:\n",
        # Not by the walks: a client must leave within a commit, and its key not be written again.
        "tests/simulation/test_write_path.py",
        noticed=rf"test_a_client_that_leaves_in_the_middle_of_a_commit_does_not_take_its_.* - |{BROKEN}",
    ),
    Mutant(
        "a precondition looked at before the transaction",
        "trikv.replication.leader",
        "        def make(store: Store) -> Sequence[Pair]:\n"
        "            for index, operation in enumerate(operations):\n",
        "        before = [self.store.get(operation.key) for operation in operations]\n\n"
        "        def make(store: Store) -> Sequence[Pair]:\n"
        "            store = type('Before', (), {'current': lambda _, key: next(\n"
        "                r for o, r in zip(operations, before) if o.key == key)})()\n"
        "            for index, operation in enumerate(operations):\n",
        noticed=ANOMALIES,
    ),
    Mutant(
        "a heartbeat that looks at no promise",
        "trikv.replication.follower",
        "            and _after(self.state, batch) == self.state\n",
        "",
        # Not by the walks: an old leader must be read that is cut off while its successor confirms.
        "tests/unit/test_core_batches.py",
        noticed="test_a_heartbeat_that_would_change_nothing_is_looked_at_like_any_batch.* - ",
    ),
    Mutant(
        "a linearizable read without a heartbeat",
        "trikv.replication.leader",
        "            return self.enough(fresh) and (\n",
        "            return (\n",
        # Not by the walks: an old leader must be read that is cut off while its successor confirms.
        "tests/unit/test_web_writes.py",
        noticed="test_a_refusal_that_cannot_be_confirmed_is_a_timeout.* - ",
    ),
    Mutant(
        "a linearizable read of what is not confirmed",
        "trikv.replication.leader",
        "                record is None or self.enough(self.holders(record.version))\n",
        "                True\n",
        # Not by the walks: what was read must be lost then.
        "tests/unit/test_web_writes.py",
        noticed="test_a_refusal_waits_until_what_it_tells_is_confirmed.* - ",
    ),
    Mutant(
        "a refusal that nobody confirmed",
        "trikv.replication.leader",
        "            await self.confirm_read(lambda: refused.told, self.write_timeout_s)\n",
        "            pass\n",
        noticed=ANOMALIES,
    ),
    Mutant(
        "a leader that goes on after it was refused",
        "trikv.replication.leader",
        "        if self.deposed is not None:\n            raise NotReady(\n",
        "        if False:\n            raise NotReady(\n",
        # Not by the walks: its followers refuse whatever it goes on to do.
        "tests/simulation/test_takeover.py",
        noticed="test_an_old_leader_that_wakes_up_confirms_nothing_any_more.* - ",
    ),
    # -- watching: the walks have no readers; others have (test_watch_walk.py)
    Mutant(
        "a leader tells what is not confirmed",
        "trikv.replication.leader",
        "return None if self._confirmed_us < 0 else Version(self.epoch, self._confirmed_us)",
        "return Version(self.epoch, self.resolved_us)",
        "tests/unit/test_change_stream.py",
        noticed="test_what_is_not_confirmed_is_told_by_nobody_until_it_is.* - ",
    ),
    Mutant(
        "a follower tells what is not confirmed",
        "trikv.replication.follower",
        "return min(self.state.watermark, self._confirmed)",
        "return self.state.watermark",
        "tests/unit/test_change_stream.py",
        noticed="test_what_is_not_confirmed_is_told_by_nobody_until_it_is.* - ",
    ),
    Mutant(
        "a follower tells what is not complete",
        "trikv.replication.follower",
        "return min(self.state.watermark, self._confirmed)",
        "return self._confirmed",
        "tests/simulation/test_watch_walk.py",
        noticed="test_whoever_watches_ends_with_what_is_there.* - ",
    ),
    Mutant(
        "a reader may resume anywhere",
        "trikv.observe.change_stream",
        "if newest is None or (bound is not None and newest <= bound):",
        "if True:",
        "tests/unit/test_change_stream.py",
        noticed="test_what_hides_behind_an_unconfirmed_write_is_not_passed_over_for_good.* - ",
    ),
    Mutant(
        "a purge that nobody noted",
        "trikv.storage.store",
        "            self.set_purged(victims[-1].version)\n",
        "",
        "tests/simulation/test_watch_walk.py",
        noticed="test_whoever_watches_ends_with_what_is_there.* - ",
    ),
    Mutant(
        "an empty disk that knows of no purge",
        "trikv.replication.follower",
        "                if before.watermark < state.floor:  # it was",
        "                if False:  # it was",
        "tests/unit/test_change_stream.py",
        noticed="test_a_follower_with_an_empty_disk_knows_that_it_lacks_what_others_have_purged.* - ",
    ),
    Mutant(
        "an old copy that knows of no purge",
        "trikv.replication.follower",
        "                if before.watermark < state.floor:  # it was",
        "                if before.established < state.established and before.watermark < state.floor:"
        "  # it was",
        "tests/simulation/test_catch_up.py",
        noticed="test_an_old_copy_put_back_in_the_same_epoch_notes_what_was_purged_meanwhile.* - ",
    ),
    Mutant(
        "a purge that overtakes readers",
        "trikv.storage.store",
        "bound = floor if kept is None else min(floor, kept)",
        "bound = floor",
        "tests/unit/test_change_stream.py",
        noticed="test_a_map_of_many_pages_is_told_whole_while_it_is_written.* - ",
    ),
)

MUTANTS = {mutant.name: mutant for mutant in _ALL}
