"""What is on its way to a follower is held until it ends, and each batch ends once."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import trikv.replication.outbox
from trikv.protocol.messages import MAX_BATCH_BYTES, MAX_BATCH_RECORDS
from trikv.replication.outbox import (
    MAX_OUTBOX_BATCHES,
    MAX_OUTBOX_BYTES,
    MAX_OUTBOX_RECORDS,
    Encoded,
    Outbox,
    OutgoingBatch,
)


class Clock:
    """Batches note when they were made, by trio's clock, which does not run here."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio.current_time", Clock())


def content(records: int = 1, size: int = 10) -> Encoded:
    return Encoded("x" * size, records, [1])


def is_full(batches: list[OutgoingBatch]) -> bool:
    """Whether nothing more goes into this request, by the bounds below."""
    contents = [one.content for one in batches if one.content is not None]
    return sum(one.records for one in contents) >= 6 or sum(one.size for one in contents) >= 60


class OutboxAgreesWithModel(RuleBasedStateMachine):
    """A link's life: what is accepted waits out its lag, is queued, travels, arrives or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(trikv.replication.outbox, "MAX_BATCH_RECORDS", 6)
        self.patch.setattr(trikv.replication.outbox, "MAX_BATCH_BYTES", 60)
        self.outbox = Outbox()
        self.made: list[OutgoingBatch] = []
        self.lagging: list[OutgoingBatch] = []
        self.queued: list[OutgoingBatch] = []
        self.travelling: list[OutgoingBatch] = []
        self.undecided: list[OutgoingBatch] = []
        self.due: dict[OutgoingBatch, bool] = {}
        self.own: list[OutgoingBatch] = []
        self.live = False

    def teardown(self) -> None:
        self.patch.undo()

    def ends(self, batches: list[OutgoingBatch], counts: bool) -> None:
        self.due.update(dict.fromkeys(batches, counts))
        batches.clear()

    @rule(records=st.integers(1, 4), size=st.sampled_from([10, 20, 30, 45]), lags=st.booleans())
    def reserve(self, records: int, size: int, lags: bool) -> None:
        batch = self.outbox.reserve(content(records, size))
        self.made.append(batch)
        if lags:
            self.lagging.append(batch)
        else:
            self.outbox.queue(batch)
            self.queued.append(batch)

    @precondition(lambda self: self.lagging)
    @rule(data=st.data(), up=st.booleans())
    def lag_is_over(self, data: st.DataObject, up: bool) -> None:
        batch = self.lagging.pop(data.draw(st.integers(0, len(self.lagging) - 1)))
        if up:
            self.outbox.queue(batch)
            self.queued.append(batch)
        else:
            self.outbox.end(batch, False)
            self.due[batch] = False

    def page(self, empty: bool) -> OutgoingBatch:
        self.made.append(OutgoingBatch(None, establishes=1) if empty else OutgoingBatch(content()))
        return self.made[-1]

    @rule(empty=st.booleans())
    def a_page_of_the_links_own(self, empty: bool) -> None:
        batch = self.page(empty)
        self.own.append(batch)
        self.outbox.queue(batch)
        self.queued.append(batch)

    @rule(empty=st.booleans())
    def a_page_finds_the_link_down(self, empty: bool) -> None:
        batch = self.page(empty)
        self.outbox.end(batch, False)
        self.due[batch] = False

    @precondition(lambda self: not self.travelling)
    @rule()
    def take(self) -> None:
        taken = list(self.outbox.take())
        assert taken == self.queued[: len(taken)]
        del self.queued[: len(taken)]
        assert not is_full(taken[:-1])
        assert is_full(taken) or not self.queued
        self.travelling = taken

    @rule()
    def arrive(self) -> None:
        assert list(self.outbox.arrived(live=self.live)) == self.travelling
        counted = [one for one in self.travelling if self.live or one in self.own]
        self.undecided += [one for one in self.travelling if one not in counted]
        self.travelling = []
        self.ends(counted, True)

    @rule()
    def the_link_is_live(self) -> None:
        self.live = True
        self.outbox.decide(True)
        self.ends(self.undecided, True)

    @rule()
    def the_link_is_syncing(self) -> None:
        self.live = False

    @rule()
    def the_link_is_down(self) -> None:
        self.live = False
        self.outbox.fail()
        for failed in (self.travelling, self.queued, self.undecided):
            self.ends(failed, False)

    @invariant()
    def what_is_on_its_way_is_counted(self) -> None:
        lists = (self.lagging, self.queued, self.travelling, self.undecided)
        held = [one for some in lists for one in some if one not in self.own]
        contents = [one.content for one in held if one.content is not None]
        assert self.outbox.records == sum(one.records for one in contents)
        assert self.outbox.size == sum(one.size for one in contents)
        assert self.outbox.queued == bool(self.queued)
        assert self.outbox.since == min((one.since for one in held), default=None)

    @invariant()
    def each_has_ended_as_it_is_due(self) -> None:
        ended = {one: one.acknowledged for one in self.made if one.ended.is_set()}
        assert ended == self.due


TestOutboxAgreesWithModel = OutboxAgreesWithModel.TestCase


def test_it_has_room_up_to_its_bounds() -> None:
    outbox = Outbox()
    assert outbox.has_room(MAX_OUTBOX_RECORDS, MAX_OUTBOX_BYTES)
    assert not outbox.has_room(MAX_OUTBOX_RECORDS + 1, 0)
    assert not outbox.has_room(0, MAX_OUTBOX_BYTES + 1)
    batch = outbox.reserve(content(2, 3))
    assert outbox.has_room(MAX_OUTBOX_RECORDS - 2, MAX_OUTBOX_BYTES - 3)
    assert not outbox.has_room(MAX_OUTBOX_RECORDS - 1, 0)
    assert not outbox.has_room(0, MAX_OUTBOX_BYTES - 2)
    outbox.end(batch, True)
    assert outbox.has_room(MAX_OUTBOX_RECORDS, MAX_OUTBOX_BYTES)
    batches = [outbox.reserve(content(0, 0)) for _ in range(MAX_OUTBOX_BATCHES)]
    assert not outbox.has_room(0, 0)
    outbox.end(batches[7], False)
    assert outbox.has_room(0, 0)


@pytest.mark.parametrize(("records", "size"), [(MAX_BATCH_RECORDS, 1), (1, MAX_BATCH_BYTES)])
def test_a_request_that_has_come_to_a_bound_takes_no_more(records: int, size: int) -> None:
    outbox = Outbox()
    batches = [outbox.reserve(content(records, size)), outbox.reserve(content())]
    for batch in batches:
        outbox.queue(batch)
    assert outbox.take() == batches[:1]
    outbox.arrived(live=True)
    assert outbox.take() == batches[1:]


def test_what_was_acknowledged_by_a_follower_that_went_down_before_it_was_live_has_failed() -> None:
    outbox = Outbox()
    batch = outbox.reserve(content())
    outbox.queue(batch)
    outbox.take()
    assert list(outbox.arrived(live=False)) == [batch]
    assert not batch.ended.is_set()
    outbox.fail()
    outbox.decide(True)
    assert batch.ended.is_set()
    assert not batch.acknowledged


def test_what_arrives_after_a_failure_is_nothing() -> None:
    """The link has gone down while its request was answered: it has ended already."""
    outbox = Outbox()
    batch = outbox.reserve(content())
    outbox.queue(batch)
    assert outbox.take() == [batch]
    outbox.fail()
    assert not outbox.arrived(live=True)
    assert batch.ended.is_set()
    assert not batch.acknowledged
