"""Whether replicas are equal, and where not.

Digests tell (an order-independent hash over key, version and value: see `trikv.digest`). Where
they differ, both maps are read in version order, page by page, and walked side by side: a record that
only one side has names a key that differs. Small maps are always compared in full, and shown.

What is compared is a moving thing while writes are on their way: a key may count as different merely
because its record arrived between two pages. Once all is quiet the answer is exact.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from trikv.digest import Digest
from trikv.errors import PeerFailed, Superseded
from trikv.link import Link
from trikv.messages import RESERVED_PREFIX
from trikv.node import SCAN_BYTES, SCAN_RECORDS, Node
from trikv.peers import Remote
from trikv.version import Record, Version

#: Maps up to this many keys are shown in full without being asked for.
SHOWN_KEYS = 1_000

#: Differing keys are listed up to this many; their number is always given.
LISTED_KEYS = 100


@dataclass(frozen=True)
class Replica:
    """What one follower holds beside the leader: `status` is match, mismatch or unreachable."""

    status: str
    records: int | None = None
    digest: str | None = None
    differing_keys: Sequence[str] = ()
    differing_keys_total: int | None = None
    data: Sequence[Record] | None = None
    error: str | None = None


async def compare(node: Node, own: Digest, link: Link, timeout_s: float, show: bool) -> Replica:
    """One follower beside this node, whose digest is `own`; with its data if `show`."""
    remote = Remote(node.wires, link.url, timeout_s)
    try:
        summary = await remote.summary()
        small = max(summary.records, own.records) <= SHOWN_KEYS
        equal = (summary.records, summary.digest) == (own.records, own.text)
        differing: set[str] = set()
        data: list[Record] | None = [] if show or small else None
        if data is not None or not equal:
            # The walk is newer than the digests, which may have been taken a moment apart.
            theirs = _records(remote)
            async with aclosing(_own_records(node)) as ours, aclosing(theirs):
                differing = await _walk(ours, theirs, data)
                equal = not differing
    except (PeerFailed, Superseded) as failure:
        return Replica("unreachable", error=failure.detail)
    return Replica(
        "match" if equal else "mismatch",
        records=summary.records,
        digest=summary.digest,
        differing_keys=sorted(differing)[:LISTED_KEYS],
        differing_keys_total=len(differing),
        # What is written meanwhile may be read twice, the newer record later.
        data=None if data is None else list({record.key: record for record in data}.values()),
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
    ours: AsyncIterator[Record], theirs: AsyncIterator[Record], data: list[Record] | None
) -> set[str]:
    """The keys of records that only one side has; tombstones count as absence on both.

    Appends their live records to `data` on the way.
    """
    differing: set[str] = set()
    mine, other = await _next_live(ours), await _next_live(theirs)
    while mine is not None or other is not None:
        step_mine = other is None or (mine is not None and _place(mine) <= _place(other))
        step_other = mine is None or (other is not None and _place(other) <= _place(mine))
        if mine != other:
            differing.update(
                r.key for r, step in ((mine, step_mine), (other, step_other)) if r and step
            )
        if step_other and other is not None and data is not None:
            data.append(other)
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
