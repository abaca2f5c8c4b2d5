"""The writes: which value goes to which key, and the workers that make them.

*Which*: balanced. The writes of one quorum are dealt out evenly to the keys (the first keys get
one more where it does not divide) and then shuffled; seed and quorum alone decide the order, on any
machine. Every value is unique, within the run and, by the run's id, across runs: a replica that
holds an old value can never look right.

*How*: exactly `concurrency` workers, each with its own connection and one write in flight, all
taking the next write from one list until it is empty: a closed loop, as in the lab. Connections
are set up and used once before the first write. Latency is the client's: from handing over the
request to having the parsed answer. A failed write is counted by its code and stops nothing.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import trio

from loadgen import theory
from loadgen.api import Leader, WriteAnswer
from loadgen.errors import ApiError


@dataclass(frozen=True, slots=True)
class Write:
    """One write to make."""

    index: int
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One write that was made: confirmed (`answer`), or failed (`failure`, a code)."""

    write: Write
    quorum: int
    started_s: float
    latency_ms: float
    answer: WriteAnswer | None = None
    failure: str | None = None

    @property
    def finished_s(self) -> float:
        """The moment of the answer, on the clock of `started_s`."""
        return self.started_s + self.latency_ms / 1000

    @property
    def ideal_ms(self) -> float | None:
        """The k-th smallest of the lags that this very write drew; None if it failed."""
        if self.answer is None:
            return None
        lags_ms = [follower.lag_ms for follower in self.answer.trace.followers]
        return theory.kth_smallest(lags_ms, self.quorum)

    @property
    def overhead_ms(self) -> float | None:
        """What the write took beyond its ideal; None if it failed."""
        ideal_ms = self.ideal_ms
        return None if ideal_ms is None else self.latency_ms - ideal_ms


def key_names(count: int) -> list[str]:
    """The keys written to: a name space of our own, so that nobody's data is overwritten."""
    width = len(str(count - 1))
    return [f"loadgen-key-{number:0{width}}" for number in range(count)]


def plan_writes(*, seed: int, run_id: str, quorum: int, writes: int, keys: int) -> list[Write]:
    """The writes of one quorum, in the order in which they are started."""
    names = key_names(keys)
    dealt = [names[number % keys] for number in range(writes)]
    # A text seed is hashed by a fixed algorithm: the same order on any machine and Python.
    random.Random(f"{seed}/{quorum}").shuffle(dealt)
    return [Write(i, key, f"{run_id}/quorum-{quorum}/write-{i}") for i, key in enumerate(dealt)]


async def make_writes(
    leaders: Sequence[Leader],
    writes: Sequence[Write],
    quorum: int,
    on_sample: Callable[[Sample], None],
) -> list[Sample]:
    """Make all writes, one worker to each of `leaders`; returns the samples as they finished.

    Cancelled, it leaves the writes in flight to their fate. Raises ApiError only if the request
    that is sent ahead fails: there is no leader to measure.
    """
    samples: list[Sample] = []

    async def worker(leader: Leader, shared: Iterator[Write]) -> None:
        for write in shared:
            sample = await _make_write(leader, write, quorum)
            samples.append(sample)
            on_sample(sample)

    async with trio.open_nursery() as nursery:
        for leader in leaders:
            nursery.start_soon(leader.health)
    to_do = iter(writes)
    async with trio.open_nursery() as nursery:
        for leader in leaders:
            nursery.start_soon(worker, leader, to_do)
    return samples


async def _make_write(leader: Leader, write: Write, quorum: int) -> Sample:
    answer: WriteAnswer | None = None
    failure: str | None = None
    started_s = trio.current_time()
    try:
        answer = await leader.write(write.key, write.value)
    except ApiError as error:
        failure = error.code
    latency_ms = (trio.current_time() - started_s) * 1000
    if answer is not None and not _confirms(answer, write, quorum):
        answer, failure = None, "false_confirmation"
    return Sample(write, quorum, started_s, latency_ms, answer, failure)


def _confirms(answer: WriteAnswer, write: Write, quorum: int) -> bool:
    """Whether a 200 says what it must: our key and value, acknowledged by a quorum."""
    return (
        answer.key == write.key
        and answer.value == write.value
        and answer.quorum_met
        and answer.follower_acks >= quorum
        and len(answer.trace.followers) >= quorum
    )
