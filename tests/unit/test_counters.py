"""Counting: histograms as Prometheus has them, and every outcome under its own name."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trikv.counters import (
    BATCH_BYTES,
    BATCH_RECORDS,
    DELAY_S,
    GROUP_SIZES,
    LATENCY_MS,
    LATENCY_S,
    OUTCOMES,
    Histogram,
    LinkTally,
    MergeTally,
    RequestTally,
    WriteTally,
)
from trikv.errors import NotReady, QuorumNotMet, TrikvError
from trikv.model.operation import Operation


@given(st.lists(st.floats(0, 100_000)), st.sampled_from([LATENCY_MS, BATCH_RECORDS, DELAY_S]))
def test_a_histogram_counts_each_value_up_to_its_bound(
    values: list[float], bounds: tuple[float, ...]
) -> None:
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    for place, bound in enumerate(bounds):
        assert sum(histogram.counts[: place + 1]) == sum(value <= bound for value in values)
    assert sum(histogram.counts) == len(values)
    assert histogram.total == pytest.approx(sum(values))


def test_bounds_rise_and_are_seconds_where_they_say_so() -> None:
    for bounds in (LATENCY_MS, LATENCY_S, GROUP_SIZES, BATCH_RECORDS, BATCH_BYTES, DELAY_S):
        assert list(bounds) == sorted(set(bounds))
    assert [bound * 1000 for bound in LATENCY_S] == pytest.approx(LATENCY_MS)


def test_a_write_is_counted_by_what_became_of_it() -> None:
    tally = WriteTally()
    assert set(tally.outcomes.values()) == {0}
    tally.confirmed(7.0, [Operation("a", "1"), Operation("b", ""), Operation("c", '""')])
    tally.failed(NotReady("no", waiting_for=[]))
    tally.failed(QuorumNotMet("no"))
    tally.failed(ZeroDivisionError())
    tally.failed(KeyboardInterrupt())
    counted = {outcome: count for outcome, count in tally.outcomes.items() if count}
    assert counted == {
        **dict.fromkeys(("confirmed", "not_ready", "quorum_not_met", "internal_error"), 1),
        "abandoned": 1,
    }
    assert tally.operations == {"put": 2, "delete": 1}
    assert tally.quorum_ms.total == 7.0


def test_an_outcome_that_nobody_foresaw_is_counted_under_its_code() -> None:
    class Strange(TrikvError):
        code = "strange"

    tally = WriteTally()
    tally.failed(Strange("?"))
    tally.failed(Strange("?"))
    assert tally.outcomes["strange"] == 2
    assert "strange" not in OUTCOMES


def test_a_heartbeat_is_a_request_and_no_batch() -> None:
    link, follower = LinkTally(), MergeTally()
    for records, size in ((0, 90), (3, 300), (0, 90)):
        link.answered(0.01, records, size)
        follower.took(records)
    assert sum(link.request_s.counts) == 3
    assert (sum(link.batch_records.counts), link.batch_records.total) == (1, 3)
    assert link.batch_bytes.total == 300
    assert (follower.batches, follower.records, follower.heartbeats) == (1, 3, 2)


def test_requests_are_counted_by_route_and_the_first_digit_of_the_status() -> None:
    tally = RequestTally()
    for status in (200, 201, 404, 503):
        tally.answered("GET", "/kv/{key}", status, 0.5)
    tally.problem("not_found")
    tally.problem("not_found")
    (route,) = tally.routes.values()
    assert route.classes == [0, 0, 2, 0, 1, 1]
    assert route.took_s.total == 2.0
    assert tally.problems == {"internal_error": 0, "not_found": 2}


async def test_a_cancelled_write_is_abandoned() -> None:
    tally = WriteTally()
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except BaseException as error:
            tally.failed(error)
            raise
    assert tally.outcomes["abandoned"] == 1
