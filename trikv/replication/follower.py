"""The merge path: fence, commit, acknowledge. And the promises, which every node makes.

Rules
- A node acknowledges only what it has committed to disk. A promise is synced whatever `DURABILITY` says:
  a loss of power that takes one would let two leaders confirm writes.
- It promises the highest epoch that it has seen, and refuses what comes from a lower one (StaleEpoch,
  naming the promise): a leader that was replaced while it slept cannot write here.
- The fence and the merge are one transaction, so no batch of an old leader slips in between.
- It takes nothing that was meant for another instance: a batch may have been on its way for long, to a
  node whose disk has been emptied since.
- It takes no record up to its floor: it holds that, or something newer, or has purged its tombstone.
- It keeps the watermark and the floor that its leader sends only once it was established in that
  leader's epoch; and it is established by that leader's word alone, at the end of a handshake.
- One that was further behind than the floor is brought in without the tombstones that were purged
  already, and notes that it may lack them: in a new epoch, or as an old copy in the same one.
- What is confirmed its leader tells it, too, and it is not kept on the disk.
- The plain form, which has no epoch, is taken only by a node that has promised none.

What it does not know: HTTP, who else follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from trikv import log
from trikv.counters import MergeTally
from trikv.errors import (
    HasLeader,
    InvalidBody,
    ReadTimeout,
    StaleEpoch,
    WrongCluster,
    WrongNode,
)
from trikv.model.membership import KEY
from trikv.model.node_state import NodeState
from trikv.model.record import Record, entries_of
from trikv.model.version import MAX_ISSUED_US, NO_EPOCH, Epoch, Version
from trikv.network.peers import Candidate, configuration_in
from trikv.protocol.messages import Batch, LeaderName
from trikv.storage.group_commit import Committer
from trikv.storage.store import Store

#: An epoch may be so far above the last: no cluster's leaders start more often while a node is away.
MAX_EPOCH_STEP = 1_000_000

#: Tombstones purged with one batch: not felt beside its fsync.
PURGE_RECORDS = 500


def check_epoch(state: NodeState, epoch: Epoch) -> None:
    """Raises StaleEpoch, which names the promise."""
    if epoch < state.promised:
        raise StaleEpoch(
            f"epoch {epoch} is over: {state.node_id} has promised {state.promised}",
            promised=str(state.promised),
        )


def check_step(state: NodeState, epoch: Epoch) -> None:
    """Raises InvalidBody if an epoch is out of all proportion: epochs count starts, and run out."""
    if epoch.number > state.promised.number + MAX_EPOCH_STEP:
        raise InvalidBody(
            f"epoch: expected at most {MAX_EPOCH_STEP} above {state.promised}, got {epoch}",
            field="epoch",
        )


def check_promised(state: NodeState, epoch: Epoch) -> None:
    """Raises StaleEpoch or WrongNode unless this is what it has promised.

    A node whose disk was emptied since it promised has nothing to say for that promise.
    """
    check_epoch(state, epoch)
    if epoch != state.promised:
        raise WrongNode(f"{state.node_id} has promised {state.promised}, not {epoch}")


async def promise(committer: Committer, candidate: Candidate) -> NodeState:
    """Promise a candidate's epoch, on disk; the node's state after.

    Raises StaleEpoch, WrongCluster, WrongNode, StorageFailed.
    """
    name, instance, cluster, epoch = candidate

    def change(store: Store) -> NodeState:
        state = store.state
        if name.node_id == state.node_id:
            other = "itself" if instance == state.instance else "another node with its NODE_ID"
            raise WrongNode(f"{state.node_id} was asked for a promise by {other}")
        if cluster and state.cluster and cluster != state.cluster:
            raise WrongCluster(
                f"{state.node_id} belongs to cluster {state.cluster}, not to {cluster}",
                cluster=state.cluster,
            )
        check_epoch(state, epoch)
        check_step(state, epoch)
        store.set_state(state._replace(promised=epoch, cluster=state.cluster or cluster))
        return store.state

    return await committer.commit(change, synced=True)


class Follower:
    def __init__(self, committer: Committer, state: NodeState) -> None:
        self._committer = committer
        self.state = state
        """What is on disk, as of the last batch."""
        self.leader: LeaderName | None = None
        """Whom it follows, as far as it has heard since it started."""
        self.heard_at: float | None = None
        """When its leader's last batch came or was taken, in trio's time."""
        self._confirmed: Version | None = None  # as far as its leaders have told since it started
        self.tally = MergeTally()
        self._moved = trio.Event()
        self.waiting = 0
        """How many readers wait for what batches bring."""
        self._purged_up_to: Version | None = None
        """The floor up to which no tombstone is left."""

    @property
    def ready(self) -> bool:
        """Whether it has been brought in the state of the leader that it has promised."""
        return not self.state.new and self.state.established == self.state.promised

    @property
    def silent_s(self) -> float:
        """How long ago it heard its leader; infinity: never since it started."""
        return math.inf if self.heard_at is None else trio.current_time() - self.heard_at

    @property
    def confirmed(self) -> Version | None:
        """Up to this version it holds all there is, or something newer, and all of it is confirmed.

        None as long as it cannot say.
        """
        if not self.ready or self._confirmed is None:
            return None
        return min(self.state.watermark, self._confirmed)

    async def merge_batch(self, batch: Batch) -> Epoch:
        """Commit a leader's batch; the epoch it was taken in.

        Raises StaleEpoch, WrongNode, InvalidBody, StorageFailed; nothing is acknowledged then.
        """

        def change(store: Store) -> tuple[NodeState, bool]:
            before = store.state
            state, floor = _after(before, batch), before.floor
            # Up to the floor it holds all there is: what comes so late could bring back the dead.
            store.merge([entry for entry in batch.entries if entry.version > floor])
            if state != before:
                store.set_state(state)
                if before.watermark < state.floor:  # it was brought in without what is purged there
                    store.set_purged(state.floor)
            if batch.floor is None or state.established != batch.epoch:
                return state, False
            return state, store.purge(PURGE_RECORDS) < PURGE_RECORDS

        if self.leader == batch.leader and batch.epoch == self.state.promised:
            self.heard_at = trio.current_time()  # a slow disk does not make the leader silent
        if self._changes_nothing(batch):
            await trio.lowlevel.checkpoint()
            state = self.state
        else:
            # Its leader has one request in flight.
            promises = batch.epoch > self.state.promised
            state, purged = await self._committer.commit(change, alone=True, synced=promises)
            if purged:
                self._purged_up_to = state.floor
        if self.leader != batch.leader or batch.epoch != self.state.promised:
            log.info("follower.follows", leader=batch.leader.node_id, epoch=batch.epoch)
        if state.established > self.state.established:
            log.info("follower.established", epoch=state.established, watermark=state.watermark)
        self.leader, self.heard_at = batch.leader, trio.current_time()
        if batch.confirmed is not None and state.established == batch.epoch:
            self._confirmed = max(batch.confirmed, self._confirmed or batch.confirmed)
        self.tally.took(sum([len(entry.pairs) for entry in batch.entries]))
        self.learn(state)
        return batch.epoch

    def _changes_nothing(self, batch: Batch) -> bool:
        """Whether all that it would do is on disk already, as of a heartbeat. Raises as `merge_batch`.

        A promise may be on its way to the disk meanwhile: it is answered later, so this comes before.
        """
        return (
            not batch.entries
            and self.state.floor == self._purged_up_to
            and _after(self.state, batch) == self.state
        )

    def learn(self, state: NodeState) -> None:
        """This state is on disk. Answers may come out of order: the newest stays."""
        if (state.promised, state.watermark) >= (self.state.promised, self.state.watermark):
            self.state = state
            self.wake()

    def wake(self) -> None:
        """Let those look again who wait for what batches bring."""
        self._moved.set()
        self._moved = trio.Event()

    async def moved(self) -> None:
        """Wait until a batch has brought something, or a promise was made."""
        await self._moved.wait()

    async def merge_plain(self, record: Record) -> None:
        """Commit one record in the lab's form. Raises HasLeader, StorageFailed."""

        def change(store: Store) -> None:
            promised = store.state.promised
            if promised != NO_EPOCH:
                raise HasLeader(
                    f"this node follows a leader (epoch {promised}) and takes records from it only",
                    promised=str(promised),
                )
            store.merge(entries_of([record]))

        await self._committer.commit(change)
        self.tally.took(1)

    async def until(self, true: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for what batches bring. Raises ReadTimeout."""
        self.waiting += 1
        try:
            with trio.move_on_after(timeout_s):
                while not true():
                    await self._moved.wait()
                return
        finally:
            self.waiting -= 1
        raise ReadTimeout(f"{what} within {timeout_s:g} s", watermark=str(self.state.watermark))

    def caught_up(self, version: Version) -> bool:
        """Whether it holds all that was written up to that version."""
        return self.state.watermark >= version


def _check_configuration(record: Record, field: str) -> None:
    """Raises InvalidBody, which names the field, unless it can be one."""
    try:
        configuration_in(record)
    except ValueError as error:
        raise InvalidBody(f"{field}: not a configuration: {error}", field=field) from None


def _after(state: NodeState, batch: Batch) -> NodeState:
    """A node's state after a batch. Raises what the batch is refused with."""
    check_epoch(state, batch.epoch)
    check_step(state, batch.epoch)
    if batch.follower not in (None, state.instance):
        raise WrongNode(
            f"this is {state.node_id}, instance {state.instance}; the batch is for {batch.follower}"
        )
    for index, entry in enumerate(batch.entries):
        epoch, timestamp_us = entry.version
        if epoch > batch.epoch or (epoch.number > 0 and timestamp_us > MAX_ISSUED_US):
            field = f"records[{index}].version"
            raise InvalidBody(
                f"{field}: expected none beyond epoch {batch.epoch} or the year 2245", field=field
            )
        for key, value in entry.pairs:
            if key == KEY:
                name = "value" if len(entry.pairs) == 1 else "values"
                _check_configuration(Record(key, value, entry.version), f"records[{index}].{name}")
    state = state._replace(promised=batch.epoch)
    if batch.watermark is not None:
        if batch.watermark.epoch != batch.epoch:
            raise InvalidBody(
                "watermark: expected a version of the batch's epoch", field="watermark"
            )
        if batch.established and state.established < batch.epoch:
            state = state._replace(established=batch.epoch, watermark=batch.watermark)
        elif state.established == batch.epoch:
            state = state._replace(watermark=max(state.watermark, batch.watermark))
    if batch.confirmed is not None and batch.confirmed.epoch != batch.epoch:
        raise InvalidBody("confirmed: expected a version of the batch's epoch", field="confirmed")
    if batch.floor is not None and state.established == batch.epoch:
        if batch.floor > state.watermark:
            raise InvalidBody("floor: expected at most the watermark", field="floor")
        state = state._replace(floor=max(state.floor, batch.floor))
    return state
