"""One call, from the question to the answer: whom to ask, what again, how long to wait, what it means.

Nothing here does I/O. A call is a generator: it yields what is to be done, a `Send` or a `Pause`, and
is sent what came of it (as httpx does it with its authentication). `trikv.client.aio` and
`trikv.client.sync` drive the same generators, the one with await, the other without.

Rules
- A call has one deadline; whatever it does is cut to what is left.
- Of a write, only what certainly was not written is tried again. `trikv.errors` says what that is; a
  request that has not begun to leave is the other case. All else is a doubt, and goes to the caller,
  or is settled as `trikv.client.doubt` tells where the caller has asked for something that can be.
- A read may be tried again whatever happened to it.
- Between two rounds through the nodes lies a pause, which doubles and is shortened at random, so that
  many clients do not knock at the same moment.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from trikv.client import wire
from trikv.client.doubt import Doubt, judge
from trikv.client.errors import Refused, Unavailable
from trikv.client.model import Item, Written
from trikv.client.nodes import Nodes, Search
from trikv.client.wire import Answer, Failure, Meaning, Reading, Request
from trikv.errors import NotFound, NotLeader, ReadTimeout, VersionConflict

T = TypeVar("T")

#: How long a call may take unless it says: a little longer than a node waits for a quorum by default,
#: so that its answer, which may tell the version, comes first.
TIMEOUT_S = 15.0

#: A takeover takes a second or so: soon again, then not too often.
FIRST_BACKOFF_S = 0.05
LAST_BACKOFF_S = 1.0

#: With less time than this left, a further attempt would only turn a clear answer into an unclear one.
LEAST_ATTEMPT_S = 0.02

#: A node waits this long for what a read asks for; then another one is asked.
READ_WAIT_S = 2.0

#: A read that is not answered within this long is asked of another node.
READ_ATTEMPT_S = 3.0

#: What only the leader says to what only the leader is asked: these tell what its map holds.
ONLY_OF_A_LEADER = frozenset({VersionConflict.code, NotFound.code})


@dataclass(frozen=True, slots=True)
class Send:
    """Ask a node; what came of it is sent back, an Answer or a Failure."""

    node: str
    request: Request
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for a while."""

    seconds: float


Steps = Generator[Send | Pause, Any, T]

#: A request for one node, and so many seconds.
Make = Callable[[str, float], Request]


def backoff_s(failures: int, rng: random.Random) -> float:
    """How long to wait after so many failures in a row."""
    longest_s: float = min(FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 16), LAST_BACKOFF_S)
    return longest_s * rng.uniform(0.5, 1)


class Call:
    """The time that one call has, and how it has gone so far."""

    def __init__(
        self, nodes: Nodes, now: Callable[[], float], timeout_s: float, rng: random.Random
    ) -> None:
        self.nodes = nodes
        self._now = now
        self._rng = rng
        self._timeout_s = timeout_s
        self._deadline_s = now() + timeout_s
        self._attempts = 0
        self._pauses = 0
        self._last: Reading | None = None
        self._last_s = 0.0  # how long that attempt might take

    @property
    def now_s(self) -> float:
        return self._now()

    @property
    def left_s(self) -> float:
        return self._deadline_s - self._now()

    def send(self, node: str, make: Make, attempt_s: float | None = None) -> Steps[Reading]:
        """One attempt. Raises Unavailable if there is no time for it."""
        left_s = self.left_s
        if self._attempts and left_s < LEAST_ATTEMPT_S:
            raise self.unavailable()
        timeout_s = max(0.0, left_s if attempt_s is None else min(attempt_s, left_s))
        self._attempts += 1
        request = make(node, timeout_s)
        given: Answer | Failure = yield Send(node, request, timeout_s)
        reading = wire.read(node, given, request.key)
        if isinstance(given, Failure):
            self.nodes.failed(node, self._now())
        else:
            self.nodes.answered(node)
        if reading.meaning is not Meaning.DONE and self._tells_more(reading, timeout_s):
            self._last, self._last_s = reading, timeout_s
        return reading

    def _tells_more(self, reading: Reading, timeout_s: float) -> bool:
        """Whether a failure says more than the one before it to whoever is told in the end."""
        if self._last is None:
            return True
        if reading.code == self._last.code == ReadTimeout.code:
            return (
                timeout_s >= self._last_s
            )  # the end of a call leaves a moment, which says nothing
        return reading.code != NotLeader.code  # who leads was known before

    def pause(self, at_least_s: float = 0.0) -> Steps[None]:
        """Wait before a further attempt. Raises Unavailable if there would be no time for one."""
        left_s = self.left_s - at_least_s
        if left_s < LEAST_ATTEMPT_S:
            raise self.unavailable()
        self._pauses += 1
        yield Pause(at_least_s + min(backoff_s(self._pauses, self._rng), left_s / 2))

    def unavailable(self) -> Unavailable:
        last = self._last
        tried = f"not done within {self._timeout_s:g} s, {self._attempts} attempts"
        if last is None:
            return Unavailable(tried, code="no_answer")
        return Unavailable(
            f"{tried}; the last: {last.detail}",
            code=last.code,
            status=last.status,
            node=last.node,
        )


def ask_leader(call: Call, make: Make, attempt_s: float | None, *, read: bool) -> Steps[Reading]:
    """What the leader says: DONE, REFUSED, or of a write UNKNOWN. Raises Unavailable."""
    search = Search(call.nodes)
    while True:
        node = search.next(call.now_s)
        if node is None:
            yield from call.pause()
            search.again()
            continue
        reading = yield from call.send(node, make, attempt_s)
        match reading.meaning:
            case Meaning.DONE:
                search.leads(node)
                return reading
            case Meaning.REFUSED:
                if reading.code in ONLY_OF_A_LEADER:
                    search.leads(node)
                return reading
            case Meaning.UNKNOWN if not read:
                return reading
            case Meaning.LATER:
                yield from call.pause(reading.retry_after_s)
                # A leader that has lost its followers may have been replaced: the next node knows. One
                # that says when to come back is asked again.
                search.again(node if reading.retry_after_s else call.nodes.after(node))
            case _:
                search.named(reading.leader_url)


def ask_any(call: Call, make: Make, first: str) -> Steps[Reading]:
    """What any node says to a read, `first` asked first: DONE or REFUSED. Raises Unavailable."""
    while True:
        for node in call.nodes.ring(first, call.now_s):
            reading = yield from call.send(node, make, READ_ATTEMPT_S)
            if reading.meaning in (Meaning.DONE, Meaning.REFUSED):
                return reading
        yield from call.pause()


def wait_ms(timeout_s: float) -> int:
    """How long a node may wait on behalf of a read, so that its answer still comes in time."""
    return max(1, int(min(READ_WAIT_S, timeout_s * 0.8) * 1000))


def read_leader(call: Call, key: str, min_version: str | None = None) -> Steps[Item | None]:
    """A linearizable read. Raises Refused, Unavailable."""
    wire.checked_key(key)

    def make(_: str, timeout_s: float) -> Request:
        return wire.get_key_request(
            key,
            consistency="linearizable",
            min_version=min_version,
            timeout_ms=wait_ms(timeout_s),
        )

    return found(key, (yield from ask_leader(call, make, READ_ATTEMPT_S, read=True)))


def found(key: str, reading: Reading) -> Item | None:
    """The item that a read has found, or None. Raises Refused."""
    if reading.code == "not_found":
        return None
    if reading.meaning is Meaning.REFUSED:
        raise wire.refusal(reading)
    item = wire.item_of(reading.document)
    if item is None or item.key != key:
        raise wire.refusal(strange_answer(reading))
    return item


def strange_answer(reading: Reading) -> Reading:
    """An answer that says 200, and then not what such an answer says."""
    detail = f"{reading.node} answered 200, not as trikv does"
    return wire.strange(reading.node, reading.status, detail)


# -- writes -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """A write, and what may be done about an outcome that is not known.

    key          the key written, or of a batch one that is; None if it has only deletes
    one_key      it is no batch
    conditional  it asks for something, so that the caller wants to know whether it was so
    repeatable   it asks for a version
    absent       it asks for the key not to be there
    unique_text  the encoded value, if nobody else writes that
    """

    request: Request
    key: str | None
    one_key: bool = True
    conditional: bool = False
    repeatable: bool = False
    absent: bool = False
    unique_text: str | None = None


def write(call: Call, wanted: Wanted) -> Steps[Written]:
    """Write, and settle what is not clear if it can be.

    Raises Refused, Unavailable, OutcomeUnknown.
    """
    doubt = Doubt(wanted.key if wanted.one_key else None)
    try:
        while True:
            # An attempt that may be repeated leaves time for that.
            attempt_s = max(READ_ATTEMPT_S, call.left_s / 2) if wanted.repeatable else None
            reading = yield from ask_leader(call, lambda *_: wanted.request, attempt_s, read=False)
            if reading.meaning is Meaning.DONE:
                if (written := _written(reading)) is not None:
                    return written
                reading = strange_answer(reading)
            if reading.meaning is Meaning.UNKNOWN:
                doubt.add(reading)
                if wanted.repeatable:
                    yield from call.pause()
                    continue
            elif not doubt:
                raise wire.refusal(reading)
            settled = yield from _settle(call, wanted, doubt)
            if settled is not None:
                return settled
            doubt.clear()  # it certainly was not written
    except Unavailable as error:
        if doubt:
            raise doubt.error(f"; then {error.detail}") from error
        raise


def _written(reading: Reading) -> Written | None:
    acks = reading.document.get("follower_acks")
    if reading.version is None or type(acks) is not int:
        return None
    return Written(reading.version, acks)


def _settle(call: Call, wanted: Wanted, doubt: Doubt) -> Steps[Written | None]:
    """What a linearizable read says of it; None if it certainly did not happen and never will.

    Raises OutcomeUnknown, or Unavailable when time is up.
    """
    may_tell = wanted.unique_text is not None or (wanted.conditional and doubt.versions)
    if wanted.key is None or not may_tell:
        raise doubt.error()
    while True:
        try:
            item = yield from read_leader(call, wanted.key)
        except Refused as error:
            raise doubt.error(f"; it could not be looked up: {error.detail}") from error
        if item is not None and wanted.unique_text == wire.encoded(item.value):
            return Written(item.version)
        seen = None if item is None else wire.parse_version(item.version)
        verdict = judge(doubt, seen, one_key=wanted.one_key)
        if verdict is not None:
            return None if verdict.version is None else Written(str(verdict.version))
        if not _may_still_come(wanted, doubt, item):
            now = "is not there" if item is None else f"has version {item.version}"
            raise doubt.error(f"; {wanted.key!r} {now} now, which does not tell")
        yield from call.pause()


def _may_still_come(wanted: Wanted, doubt: Doubt, item: Item | None) -> bool:
    """Whether it may be on its way to the leader, so that a later read could tell more."""
    if (
        doubt.versions_are_known or wanted.repeatable
    ):  # it was there; or it was repeated, and refused
        return False
    return wanted.unique_text is not None and not (wanted.absent and item is not None)
