"""What is on its way to a follower is held until it ends, and each parcel is told of once, in order."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import trikv.outbox
from trikv.messages import MAX_BATCH_BYTES, MAX_BATCH_RECORDS
from trikv.outbox import MAX_OUTBOX_BYTES, MAX_OUTBOX_RECORDS, Outbox
from trikv.parcel import Encoded, Parcel


class Clock:
    """Parcels note when they were made, by trio's clock, which does not run here."""

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


class Told:
    """What parcels were told, in the order in which they were."""

    def __init__(self) -> None:
        self.heard: list[tuple[Parcel, bool]] = []

    def watch(self, parcel: Parcel) -> Parcel:
        parcel.told = lambda counts: self.heard.append((parcel, counts))
        return parcel


def is_full(parcels: list[Parcel]) -> bool:
    """Whether nothing more goes into this request, by the bounds below."""
    contents = [one.content for one in parcels if one.content is not None]
    return sum(one.records for one in contents) >= 6 or sum(one.size for one in contents) >= 60


class OutboxAgreesWithModel(RuleBasedStateMachine):
    """A link's life: what is accepted waits out its lag, is queued, travels, arrives or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(trikv.outbox, "MAX_BATCH_RECORDS", 6)
        self.patch.setattr(trikv.outbox, "MAX_BATCH_BYTES", 60)
        self.outbox = Outbox()
        self.told = Told()
        self.lagging: list[Parcel] = []
        self.queued: list[Parcel] = []
        self.travelling: list[Parcel] = []
        self.undecided: list[Parcel] = []
        self.due: list[tuple[Parcel, bool]] = []
        self.own: list[Parcel] = []
        self.live = False

    def teardown(self) -> None:
        self.patch.undo()

    def ends(self, parcels: list[Parcel], counts: bool) -> None:
        self.due += [(parcel, counts) for parcel in parcels]
        parcels.clear()

    @rule(records=st.integers(1, 4), size=st.sampled_from([10, 20, 30, 45]), lags=st.booleans())
    def accept(self, records: int, size: int, lags: bool) -> None:
        parcel = self.told.watch(self.outbox.accept(content(records, size)))
        if lags:
            self.lagging.append(parcel)
        else:
            self.outbox.queue(parcel)
            self.queued.append(parcel)

    @precondition(lambda self: self.lagging)
    @rule(data=st.data(), up=st.booleans())
    def lag_is_over(self, data: st.DataObject, up: bool) -> None:
        parcel = self.lagging.pop(data.draw(st.integers(0, len(self.lagging) - 1)))
        if up:
            self.outbox.queue(parcel)
            self.queued.append(parcel)
        else:
            self.outbox.end(parcel, False)
            self.due.append((parcel, False))

    def page(self, empty: bool) -> Parcel:
        return self.told.watch(Parcel(None, establishes=1) if empty else Parcel(content()))

    @rule(empty=st.booleans())
    def a_page_of_the_links_own(self, empty: bool) -> None:
        parcel = self.page(empty)
        self.own.append(parcel)
        self.outbox.queue(parcel)
        self.queued.append(parcel)

    @rule(empty=st.booleans())
    def a_page_finds_the_link_down(self, empty: bool) -> None:
        parcel = self.page(empty)
        self.outbox.end(parcel, False)
        self.due.append((parcel, False))

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
    def each_is_told_once_in_order_what_became_of_it(self) -> None:
        assert self.told.heard == self.due


TestOutboxAgreesWithModel = OutboxAgreesWithModel.TestCase


def test_it_has_room_up_to_its_bounds() -> None:
    outbox = Outbox()
    assert outbox.has_room(MAX_OUTBOX_RECORDS, MAX_OUTBOX_BYTES)
    assert not outbox.has_room(MAX_OUTBOX_RECORDS + 1, 0)
    assert not outbox.has_room(0, MAX_OUTBOX_BYTES + 1)
    parcel = outbox.accept(content(2, 3))
    assert outbox.has_room(MAX_OUTBOX_RECORDS - 2, MAX_OUTBOX_BYTES - 3)
    assert not outbox.has_room(MAX_OUTBOX_RECORDS - 1, 0)
    assert not outbox.has_room(0, MAX_OUTBOX_BYTES - 2)
    outbox.end(parcel, True)
    assert outbox.has_room(MAX_OUTBOX_RECORDS, MAX_OUTBOX_BYTES)


@pytest.mark.parametrize(("records", "size"), [(MAX_BATCH_RECORDS, 1), (1, MAX_BATCH_BYTES)])
def test_a_request_that_has_come_to_a_bound_takes_no_more(records: int, size: int) -> None:
    outbox = Outbox()
    parcels = [outbox.accept(content(records, size)), outbox.accept(content())]
    for parcel in parcels:
        outbox.queue(parcel)
    assert outbox.take() == parcels[:1]
    outbox.arrived(live=True)
    assert outbox.take() == parcels[1:]


def test_what_was_acknowledged_by_a_follower_that_went_down_before_it_was_live_has_failed() -> None:
    outbox, told = Outbox(), Told()
    parcel = told.watch(outbox.accept(content()))
    outbox.queue(parcel)
    outbox.take()
    assert list(outbox.arrived(live=False)) == [parcel]
    assert told.heard == []
    outbox.fail()
    outbox.decide(True)
    assert told.heard == [(parcel, False)]


def test_what_arrives_after_a_failure_is_nothing() -> None:
    """The link has gone down while its request was answered: it was told of already."""
    outbox, told = Outbox(), Told()
    parcel = told.watch(outbox.accept(content()))
    outbox.queue(parcel)
    assert outbox.take() == [parcel]
    outbox.fail()
    assert not outbox.arrived(live=True)
    assert told.heard == [(parcel, False)]


def test_what_is_told_finds_the_parcel_gone_and_may_fail_the_rest() -> None:
    """A quorum that has become impossible may end the leadership, and with it every link."""
    outbox, told = Outbox(), Told()
    parcels = [outbox.accept(content()) for _ in range(4)]
    left: list[int] = []

    def fails(counts: bool) -> None:
        left.append(outbox.records)
        outbox.fail()
        told.heard.append((parcels[0], counts))

    for parcel in parcels:
        told.watch(parcel)
        outbox.queue(parcel)
    parcels[0].told = fails
    outbox.fail()
    assert left == [3]
    assert told.heard == [(parcel, False) for parcel in parcels]
    assert (outbox.records, outbox.size, outbox.since, outbox.queued) == (0, 0, None, False)
