"""One run of something costly for all who ask for it at the same time.

Rules
- One run at a time, however many ask.
- Who asks is given the result of a run that was begun after that: never of what was so before. So those
  who ask during a run share the next one, which one of them makes.
- One who leaves in the middle of a run of his own leaves it to the next who waits.
- Nothing is kept once nobody waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from trikv.errors import TrikvError

T = TypeVar("T")


class Shared(Generic[T]):
    def __init__(self) -> None:
        self._one_at_a_time = trio.Lock()
        self._begun = 0
        self._ended: tuple[int, T | None, TrikvError | None] = (0, None, None)
        self._waiting = 0

    async def get(self, run: Callable[[], Awaitable[T]]) -> T:
        """The result of a run that began after this call. Raises the TrikvError that it ended with."""
        asked_after = self._begun
        self._waiting += 1
        try:
            async with self._one_at_a_time:
                number, result, error = self._ended
                if number <= asked_after:
                    result, error = await self._make(run)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._ended = (0, None, None)
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # None only beside an error, or where T has it

    async def _make(self, run: Callable[[], Awaitable[T]]) -> tuple[T | None, TrikvError | None]:
        self._begun += 1
        number = self._begun
        result, error = None, None
        try:
            result = await run()
        except TrikvError as refusal:
            error = refusal
        self._ended = (number, result, error)
        return result, error
