"""What a map's live records come to, in one number that does not depend on their order. Pure.

Two maps with the same digest hold the same records, but for a chance of about 1 in 2**128; where two
differ, `parity` finds the keys. A digest is a sum: it is made page by page, in any order.

What it does not know: where the records lie.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from trikv.model.record import Record
from trikv.storage.record_table import size_of

#: A digest is a sum modulo this: 128 bits of blake2b for each record.
_DIGEST_MODULUS = 1 << 128


class Digest(NamedTuple):
    """An order-independent hash over (key, version, value) of the live records; how much they are."""

    records: int
    total: int
    size_bytes: int = 0
    """Of their keys and values."""

    @property
    def text(self) -> str:
        return f"{self.total:032x}"

    def add(self, records: Iterable[Record]) -> Digest:
        """The digest of these live records too."""
        count, total, size = self
        for record in records:
            if record.deleted:
                continue
            text = f"{record.key}\0{record.version}\0{record.value}"
            total += int.from_bytes(blake2b(text.encode(), digest_size=16).digest())
            count += 1
            size += size_of(record)
        return Digest(count, total % _DIGEST_MODULUS, size)


EMPTY_DIGEST = Digest(0, 0)
