"""What each method of a client comes to: a plan is a call's steps, made from checked arguments.

`Plans` is what `Client`, `SyncClient` and their sessions share. Arguments are checked when a plan is
made or begun, before anything is sent. With a `SessionState` the plans keep that up to date and read
by it.

A session's promise rests on the node's: a read with `min_version=V` waits until the node holds
everything up to V. `version` is the greatest version that the session has been confirmed or shown; so
what it reads next is not older, from whichever node.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trikv.client import wire
from trikv.client.calls import (
    Call,
    Steps,
    Wanted,
    ask_any,
    found,
    read_leader,
    strange_answer,
    wait_ms,
    write,
)
from trikv.client.errors import InvalidRequest, Refused
from trikv.client.feed import Feed
from trikv.client.model import Consistency, Delete, Item, Operation, Put, Written
from trikv.client.nodes import Nodes
from trikv.client.wire import Request
from trikv.model.version import Version
from trikv.protocol.messages import MAX_BATCH_OPERATIONS

#: Keys in a page of a list: some milliseconds of work for a node.
PAGE_KEYS = 500


class SessionState:
    """What a session has seen. `node` is the one that it reads from as long as that answers."""

    def __init__(self, version: str | None, node: str) -> None:
        self.node = node
        self._seen: Version | None = None
        if version is not None:
            self.saw(wire.checked_version(version, "version"))

    @property
    def version(self) -> str | None:
        return None if self._seen is None else str(self._seen)

    def saw(self, version: str) -> None:
        seen = Version.parse(version)
        if self._seen is None or seen > self._seen:
            self._seen = seen


@dataclass
class Listing:
    """How far a list has come. Pages come from one node as long as it answers."""

    prefix: str
    min_version: str | None
    node: str
    after: str = ""
    done: bool = False
    newest: str | None = None
    """The greatest version in it so far: another node must have come as far."""

    def may_hold(self, key: str) -> bool:
        """Whether a key can be in the next page."""
        return key.startswith(self.prefix) and key.encode() > self.after.encode()


class Plans:
    """The calls of one client, or of one of its sessions. `now` tells seconds on a clock of its
    own."""

    def __init__(
        self,
        nodes: Nodes,
        timeout_s: float,
        now: Callable[[], float],
        rng: random.Random,
        session: SessionState | None = None,
    ) -> None:
        if not timeout_s > 0:
            raise ValueError(f"timeout_s: expected more than 0, got {timeout_s!r}")
        self.nodes = nodes
        self.timeout_s = timeout_s
        self.session = session
        self._now = now
        self._rng = rng

    def for_session(self, version: str | None) -> Plans:
        """The same for a new session, which has seen `version`. Raises InvalidRequest."""
        node = self.nodes.reader()
        if node == self.nodes.leader:  # it has enough to do
            node = self.nodes.after(node)
        session = SessionState(version, node)
        return Plans(self.nodes, self.timeout_s, self._now, self._rng, session)

    def call(self, timeout_s: float | None) -> Call:
        if timeout_s is None:
            timeout_s = self.timeout_s
        elif not timeout_s > 0:
            raise ValueError(f"timeout_s: expected more than 0, got {timeout_s!r}")
        return Call(self.nodes, self._now, timeout_s, self._rng)

    # -- writes -----------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        value: Any,
        if_version: str | None,
        if_absent: bool,
        if_present: bool,
        unique_value: bool,
        timeout_s: float | None,
    ) -> Steps[Written]:
        text = wire.encoded(value)
        wanted = Wanted(
            wire.put_request(
                key, text, if_version=if_version, if_absent=if_absent, if_present=if_present
            ),
            key,
            conditional=if_version is not None or if_absent or if_present,
            repeatable=if_version is not None,
            absent=if_absent,
            unique_text=text if unique_value else None,
        )
        return (yield from self._write(wanted, timeout_s))

    def delete(
        self, key: str, if_version: str | None, timeout_s: float | None
    ) -> Steps[Written | None]:
        wanted = Wanted(
            wire.delete_request(key, if_version=if_version),
            key,
            conditional=if_version is not None,
            repeatable=if_version is not None,
        )
        try:
            return (yield from self._write(wanted, timeout_s))
        except Refused as refused:
            if refused.code == "not_found":
                return None
            raise

    def batch(self, operations: Sequence[Operation], timeout_s: float | None) -> Steps[Written]:
        if not 1 <= len(operations) <= MAX_BATCH_OPERATIONS:
            raise InvalidRequest(
                f"operations: expected 1 to {MAX_BATCH_OPERATIONS}, got {len(operations)}",
                code="invalid_body",
                field="operations",
            )
        texts = []
        for index, operation in enumerate(operations):
            try:
                texts.append(wire.operation_text(operation))
            except InvalidRequest as error:
                place = f"operations[{index}]"
                raise InvalidRequest(
                    f"{place}.{error.detail}",
                    code=error.code,
                    field=f"{place}.{error.field}",
                    key=operation.key,
                ) from None
            except TypeError as error:
                raise TypeError(f"operations[{index}]: {error}") from None
        repeatable = any(operation.if_version is not None for operation in operations)
        absent = any(isinstance(operation, Put) and operation.if_absent for operation in operations)
        written = [operation.key for operation in operations if not isinstance(operation, Delete)]
        wanted = Wanted(
            wire.batch_request(texts),
            written[0] if written else None,
            one_key=False,
            conditional=repeatable or absent,
            repeatable=repeatable,
        )
        return (yield from self._write(wanted, timeout_s))

    def _write(self, wanted: Wanted, timeout_s: float | None) -> Steps[Written]:
        written = yield from write(self.call(timeout_s), wanted)
        if self.session is not None:
            self.session.saw(written.version)
        return written

    # -- reads ------------------------------------------------------------------------------------

    def get(
        self,
        key: str,
        consistency: Consistency | None,
        min_version: str | None,
        timeout_s: float | None,
    ) -> Steps[Item | None]:
        """`consistency` None: linearizable, or `local` where there is a version to wait for."""
        if min_version is not None:
            min_version = wire.checked_version(min_version, "min_version")
        if consistency not in (None, "linearizable", "local"):
            raise InvalidRequest(
                f"consistency: expected linearizable or local, got {consistency!r}",
                code="invalid_parameter",
                field="consistency",
            )
        if consistency is None:
            local = self.session is not None or min_version is not None
            consistency = "local" if local else "linearizable"
        min_version = self._at_least(min_version)
        call = self.call(timeout_s)
        if consistency == "linearizable":
            item = yield from read_leader(call, key, min_version)
        else:
            wire.checked_key(key)

            def make(_: str, attempt_s: float) -> Request:
                wait = None if min_version is None else wait_ms(attempt_s)
                return wire.get_key_request(key, min_version=min_version, timeout_ms=wait)

            reading = yield from ask_any(call, make, self._reader())
            if self.session is not None:
                self.session.node = reading.node
            item = found(key, reading)
        if self.session is not None and item is not None:
            self.session.saw(item.version)
        return item

    def listing(self, prefix: str, min_version: str | None) -> Listing:
        """The beginning of a list. Raises InvalidRequest."""
        if min_version is not None:
            min_version = wire.checked_version(min_version, "min_version")
        first = self.nodes.leader if self.session is None else self.session.node
        return Listing(wire.checked_prefix(prefix), min_version, first)

    def page(self, listing: Listing, timeout_s: float | None) -> Steps[Sequence[Item]]:
        """The next page of a list."""
        least = self._at_least(listing.min_version)
        pinned = listing.node

        def make(node: str, attempt_s: float) -> Request:
            elsewhere = listing.newest is not None and node != pinned
            return wire.get_request(
                "/kv",
                prefix=listing.prefix,
                after=listing.after,
                limit=PAGE_KEYS,
                min_version=later(least, listing.newest) if elsewhere else least,
                timeout_ms=wait_ms(attempt_s) if least or elsewhere else None,
            )

        reading = yield from ask_any(self.call(timeout_s), make, pinned)
        if reading.meaning is not wire.Meaning.DONE:
            raise wire.refusal(reading)
        items, following = _page_of(reading, listing)
        listing.node = reading.node
        listing.after, listing.done = following or "", following is None
        for item in items:
            listing.newest = later(listing.newest, item.version)
        if self.session is not None and listing.newest is not None:
            self.session.saw(listing.newest)
        return items

    def feed(self, prefix: str, after: str | None) -> Feed:
        """A watch. Raises InvalidRequest."""
        if after is not None:
            after = wire.checked_version(after, "after")
        return Feed(self.nodes, wire.checked_prefix(prefix), after, self._reader(), self._rng)

    def _at_least(self, min_version: str | None) -> str | None:
        return min_version if self.session is None else later(min_version, self.session.version)

    def _reader(self) -> str:
        return self.nodes.reader() if self.session is None else self.session.node


def later(one: str | None, other: str | None) -> str | None:
    """The later of two versions, where there are two."""
    if one is None or other is None:
        return one or other
    return max(one, other, key=Version.parse)


def _page_of(reading: wire.Reading, listing: Listing) -> tuple[Sequence[Item], str | None]:
    """The items of a page of this list, and where the next one begins. Raises Refused."""
    match reading.document:
        case {"items": [*given], "next": None | str() as following}:
            items = [wire.item_of(item) if isinstance(item, dict) else None for item in given]
            ours = [item for item in items if item is not None and listing.may_hold(item.key)]
            if len(ours) == len(items):
                return ours, following
    raise wire.refusal(strange_answer(reading))
