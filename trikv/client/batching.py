"""Concurrent puts and deletes that share a `POST /batch`.

One batch is in flight at a time; what is asked for meanwhile waits, and travels in the next one. So a
lone write goes out at once, and the more come together, the larger the batches: no timer is needed.
(The nodes do the same with their disks and links.)

Rules
- A key is in a batch once: a second write of it waits for the next one, behind the first.
- Nobody fails for another. Keys and values are checked before they wait. If the node refuses one for a
  reason that only it knows (the value is too large), that one is taken out, and the rest sent again: a
  refused batch was not written.
- A caller that is cancelled takes its write along if that has not left yet. If it has, it may happen.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from trikv.client import wire
from trikv.client.errors import ClientError, OutcomeUnknown, Refused, Unavailable
from trikv.client.model import Delete, Operation, Put, Written
from trikv.protocol.messages import MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS

SendBatch = Callable[[Sequence[Operation]], Awaitable[Written]]

_PLACE = re.compile(r"operations\[(\d+)\]")


@dataclass(eq=False)
class Waiting:
    """One write, until its outcome is known."""

    operation: Operation
    size: int
    done: anyio.Event = field(default_factory=anyio.Event)
    outcome: Written | ClientError | None = None

    def end(self, outcome: Written | ClientError) -> None:
        self.outcome = outcome
        self.done.set()


def take(queue: list[Waiting]) -> list[Waiting]:
    """The next batch, taken out of the queue: as much as fits, each key once, the oldest first."""
    taken: list[Waiting] = []
    left: list[Waiting] = []
    keys: set[str] = set()
    size = 0
    full = False
    for waiting in queue:
        key = waiting.operation.key
        full = full or (
            bool(taken)
            and (size + waiting.size > MAX_BATCH_BYTES or len(taken) == MAX_BATCH_OPERATIONS)
        )
        if full or key in keys:
            left.append(waiting)
        else:
            taken.append(waiting)
            size += waiting.size
        keys.add(key)  # what comes later of a key that waits must not overtake it
    queue[:] = left
    return taken


class Batching:
    """Writes of many tasks, together. See `Client.batching`."""

    def __init__(self, send: SendBatch) -> None:
        self._send_batch = send
        self._queue: list[Waiting] = []
        self._flying: list[Waiting] = []
        self._called = anyio.Event()
        self._closed = False

    async def put(self, key: str, value: Any) -> Written:
        """Write a key, and return once the write is confirmed. Its version is that of its batch.

        Raises InvalidRequest, Unavailable (nothing was written), OutcomeUnknown.
        """
        return await self._write(Put(key, value))

    async def delete(self, key: str) -> Written:
        """Delete a key, whether it is there or not. Raises as `put` does."""
        return await self._write(Delete(key))

    async def _write(self, operation: Operation) -> Written:
        if self._closed:
            raise RuntimeError("this batching is over")
        waiting = Waiting(operation, len(wire.operation_text(operation).encode()))
        self._queue.append(waiting)
        self._called.set()
        try:
            await waiting.done.wait()
        finally:
            if waiting in self._queue:
                self._queue.remove(waiting)
        if isinstance(waiting.outcome, Written):
            return waiting.outcome
        assert waiting.outcome is not None
        raise waiting.outcome

    def _close(self) -> None:
        """Take no more; `_pump` ends once all that waits has gone out."""
        self._closed = True
        self._called.set()

    async def _pump(self) -> None:
        """Send batch after batch."""
        try:
            while self._queue or not self._closed:
                if self._queue:
                    await self._fly(take(self._queue))
                else:
                    self._called = anyio.Event()
                    await self._called.wait()
        finally:  # nobody waits for ever, whatever happened
            for waiting in self._flying:
                if waiting.outcome is None:
                    waiting.end(
                        _of(waiting, OutcomeUnknown("batching was ended", code="no_answer"))
                    )
            for waiting in self._queue:
                waiting.end(_of(waiting, Unavailable("batching was ended", code="no_answer")))

    async def _fly(self, batch: list[Waiting]) -> None:
        """Send a batch; where it is refused, without whoever it is refused for."""
        self._flying = batch
        groups = [batch]
        while groups:
            group = groups.pop(0)
            try:
                written = await self._send_batch([waiting.operation for waiting in group])
            except Refused as refused:
                groups[:0] = _without_culprit(group, refused)
            except ClientError as error:
                for waiting in group:
                    waiting.end(_of(waiting, error))
            else:
                for waiting in group:
                    waiting.end(written)
        self._flying = []


def _without_culprit(group: list[Waiting], refused: Refused) -> list[list[Waiting]]:
    """What to send instead of a batch that was refused; the one it was refused for ends."""
    if len(group) == 1:
        group[0].end(_of(group[0], refused))
        return []
    place = _PLACE.match(refused.field or "")
    if place is not None and int(place[1]) < len(group):
        culprit = group.pop(int(place[1]))
        culprit.end(_of(culprit, refused))
        return [group]
    half = len(group) // 2
    return [group[:half], group[half:]]


def _of(waiting: Waiting, error: ClientError) -> ClientError:
    """An error of a batch as that of one of its writes: each caller raises its own."""
    key = waiting.operation.key
    own = type(error)(
        f"{key!r}: {error.detail}",
        code=error.code,
        status=error.status,
        version=error.version,
        key=key,
        field=_PLACE.sub("", error.field).removeprefix(".") if error.field else None,
        node=error.node,
    )
    own.__cause__ = error
    return own


@asynccontextmanager
async def open_batching(send: SendBatch) -> AsyncIterator[Batching]:
    """Batching within a block, at whose end all that waits has gone out."""
    batching = Batching(send)
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(batching._pump)
        try:
            yield batching
        except Exception as error:  # the caller's own: it is not to come out of here as a group
            failure = error
        finally:
            batching._close()
    if failure is not None:
        raise failure
