"""What bodies of requests may take of a node's memory, all together.

Rules
- The first `FREE_BYTES` of each body are not counted: nearly all bodies are smaller. What they take is
  bounded by the number of connections.
- Bytes are counted as they come, and not by what a request announces, which costs its client nothing.
- A body that would go beyond is refused, and what it held is free again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trikv.errors import Overloaded

#: 128 MiB: three of the largest bodies by default, one where MAX_VALUE_BYTES is as high as may be.
MAX_BODIES_BYTES = 128 * 2**20

#: Of each body, and not counted.
FREE_BYTES = 64 * 2**10

#: When a client whose body is refused should come back.
RETRY_AFTER_S = 1


class BodyBudget:
    """The budget of one node."""

    def __init__(self, limit_bytes: int = MAX_BODIES_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    @contextmanager
    def hold(self) -> Iterator[HeldBody]:
        """A share that is given back at the end of the block."""
        held = HeldBody(self)
        try:
            yield held
        finally:
            held.resize(0)


class HeldBody:
    """The share of one body."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._counted_bytes = 0

    def resize(self, size_bytes: int) -> None:
        """Hold a body of this size. Raises Overloaded where it does not fit; then the share stays."""
        more = max(0, size_bytes - FREE_BYTES) - self._counted_bytes
        if more > 0 and self._budget.held_bytes + more > self._budget.limit_bytes:
            raise Overloaded(
                f"the bodies of requests in progress take {self._budget.limit_bytes} bytes, "
                "which is all they may",
                retry_after_s=RETRY_AFTER_S,
            )
        self._counted_bytes += more
        self._budget.held_bytes += more
