"""The merge path: fence, commit, acknowledge.

Rules
- A follower acknowledges only what it has committed to disk.
- It promises the highest epoch that it has seen, on disk, and refuses what comes from a lower one
  (StaleEpoch, naming the promise): a leader that was replaced while it slept cannot write here.
- The fence and the merge are one transaction, so no batch of an old leader slips in between.
- The plain form, which has no epoch, is taken only by a node that has promised none.

What it does not know: HTTP, who else follows.
"""

from __future__ import annotations

from trikv import logs
from trikv.committer import Committer
from trikv.errors import HasLeader, StaleEpoch
from trikv.messages import Batch, LeaderName
from trikv.store import Store
from trikv.version import NO_EPOCH, Epoch, Record


class Follower:
    def __init__(self, committer: Committer, promised: Epoch) -> None:
        self._committer = committer
        self.promised = promised
        self.leader: LeaderName | None = None
        """Whom it follows, as far as it has heard since it started."""

    async def merge_batch(self, batch: Batch) -> Epoch:
        """Commit a leader's batch; the epoch it was taken in.

        Raises StaleEpoch, with the promise, and StorageFailed; nothing is acknowledged then.
        """

        def change(store: Store) -> None:
            promised = store.promised()
            if batch.epoch < promised:
                raise StaleEpoch(
                    f"epoch {batch.epoch} is over: this node has promised {promised}",
                    promised=str(promised),
                )
            if batch.epoch > promised:
                store.promise(batch.epoch)
            store.merge(batch.records)

        await self._committer.commit(change)
        if batch.epoch >= self.promised:
            if self.leader != batch.leader or batch.epoch != self.promised:
                logs.info("follower.follows", leader=batch.leader.node_id, epoch=batch.epoch)
            self.promised, self.leader = batch.epoch, batch.leader
        return batch.epoch

    async def merge_plain(self, record: Record) -> None:
        """Commit one record in the lab's form. Raises HasLeader, StorageFailed."""

        def change(store: Store) -> None:
            promised = store.promised()
            if promised != NO_EPOCH:
                raise HasLeader(
                    f"this node follows a leader (epoch {promised}) and takes records from it only",
                    promised=str(promised),
                )
            store.merge([record])

        await self._committer.commit(change)
