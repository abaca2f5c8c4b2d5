"""Whether replicas are equal, and where not.

Digests tell (an order-independent hash over key, version and value: see `trikv.storage.digest`). Where
they differ, both maps are read in version order, page by page, and walked side by side: a record that
only one side has names a key that differs. Small maps are always compared in full, and shown. What is
shown of larger ones, if it is asked for, has a bound in bytes, whatever the number of keys.

What is compared is a moving thing while writes are on their way: a key may count as different merely
because its record arrived between two pages. Once all is quiet the answer is exact.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from trikv.errors import PeerFailed, Superseded
from trikv.model.record import RESERVED_PREFIX, Record
from trikv.model.version import Version
from trikv.network.peers import Remote
from trikv.node.node import SCAN_BYTES, SCAN_RECORDS, Node
from trikv.replication.link import Link
from trikv.storage.digest import Digest
from trikv.storage.record_table import size_of

#: Maps up to this many keys, and bytes of keys and values, are shown in full without being asked for.
SHOWN_KEYS = 1_000
SHOWN_UNASKED_BYTES = 2**20

#: Bytes of keys and values that are shown in one answer, in equal shares for all replicas.
SHOWN_BYTES = 16 * 2**20

#: Differing keys are listed up to this many; their number is always given.
LISTED_KEYS = 100


class Shown:
    """What is shown of a map: the records that come first, up to so many bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.records: dict[str, Record] = {}
        self._left_bytes = max_bytes
        self._full = False

    @property
    def full(self) -> bool:
        """Whether one did not fit: no further one is taken then."""
        return self._full

    def add(self, record: Record) -> None:
        """Take it, if it fits. Of what was written meanwhile, and is read twice, the later stays."""
        self._full = self._full or size_of(record) > self._left_bytes
        if not self._full:
            self._left_bytes -= size_of(record)
            self.records[record.key] = record

    def left_out(self, records: int) -> int:
        """How many of so many records are not shown."""
        return max(records - len(self.records), 0) if self._full else 0


def is_small(records: int, size_bytes: int) -> bool:
    """Whether a map is shown without being asked for."""
    return records <= SHOWN_KEYS and size_bytes <= SHOWN_UNASKED_BYTES


@dataclass(frozen=True)
class Replica:
    """What one follower holds beside the leader: `status` is match, mismatch or unreachable."""

    status: str
    records: int | None = None
    digest: str | None = None
    differing_keys: Sequence[str] = ()
    differing_keys_total: int | None = None
    data: Shown | None = None
    error: str | None = None


async def compare(
    node: Node, own: Digest, link: Link, timeout_s: float, show_bytes: int | None
) -> Replica:
    """One follower beside this node, whose digest is `own`; with its data up to `show_bytes`.

    Without such a number only a small map is shown.
    """
    remote = Remote(node.wires, link.url, timeout_s)
    try:
        summary = await remote.summary()
        if show_bytes is None and is_small(
            max(summary.records, own.records), max(summary.size_bytes, own.size_bytes)
        ):
            show_bytes = SHOWN_UNASKED_BYTES
        equal = (summary.records, summary.digest) == (own.records, own.text)
        differing: set[str] = set()
        data = None if show_bytes is None else Shown(show_bytes)
        if data is not None or not equal:
            # The walk is newer than the digests, which may have been taken a moment apart.
            theirs = _records(remote)
            async with aclosing(_own_records(node)) as ours, aclosing(theirs):
                differing = await _walk(ours, theirs, data, whole=not equal)
                equal = not differing
    except (PeerFailed, Superseded) as failure:
        return Replica("unreachable", error=failure.detail)
    return Replica(
        "match" if equal else "mismatch",
        records=summary.records,
        digest=summary.digest,
        differing_keys=sorted(differing)[:LISTED_KEYS],
        differing_keys_total=len(differing),
        data=data,
    )


async def _records(remote: Remote) -> AsyncGenerator[Record]:
    async with aclosing(remote.pages()) as pages:
        async for page in pages:
            for record in page:
                yield record


async def _own_records(node: Node) -> AsyncGenerator[Record]:
    after: Version | None = None
    while page := await node.page_by_version(after, SCAN_RECORDS, SCAN_BYTES):
        for record in page:
            yield record
        after = page[-1].version


async def _walk(
    ours: AsyncIterator[Record],
    theirs: AsyncIterator[Record],
    data: Shown | None,
    *,
    whole: bool,
) -> set[str]:
    """The keys of records that only one side has; tombstones count as absence on both.

    Shows their live records in `data` on the way. Unless it is to be the `whole` map, it goes no further
    than that takes.
    """
    differing: set[str] = set()
    mine, other = await _next_live(ours), await _next_live(theirs)
    while mine is not None or other is not None:
        if not whole and (data is None or data.full):
            break
        step_mine = other is None or (mine is not None and _place(mine) <= _place(other))
        step_other = mine is None or (other is not None and _place(other) <= _place(mine))
        if mine != other:
            differing.update(
                r.key for r, step in ((mine, step_mine), (other, step_other)) if r and step
            )
        if step_other and other is not None and data is not None:
            data.add(other)
        mine = await _next_live(ours) if step_mine else mine
        other = await _next_live(theirs) if step_other else other
    return differing


def _place(record: Record) -> tuple[Version, str]:
    return record.version, record.key


async def _next_live(records: AsyncIterator[Record]) -> Record | None:
    async for record in records:
        if not record.deleted and not record.key.startswith(RESERVED_PREFIX):
            return record
    return None
