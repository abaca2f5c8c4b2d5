"""A digest tells maps apart, whatever the order and the pages that they are read in."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.stored import record
from tests.unit.strategies import close_records, records
from trikv.model.record import Record
from trikv.storage.digest import EMPTY_DIGEST


@given(st.lists(records, unique_by=lambda r: r.key), st.randoms())
def test_a_digest_does_not_depend_on_order_or_pages(
    some: list[Record], order: random.Random
) -> None:
    shuffled = some[:]
    order.shuffle(shuffled)
    cut = order.randint(0, len(some))
    assert EMPTY_DIGEST.add(shuffled[:cut]).add([]).add(shuffled[cut:]) == EMPTY_DIGEST.add(some)


@given(close_records, close_records)
def test_digests_of_different_records_differ(one: Record, other: Record) -> None:
    if one.deleted and other.deleted:
        assert EMPTY_DIGEST.add([one]) == EMPTY_DIGEST.add([other]) == EMPTY_DIGEST
    else:
        assert (EMPTY_DIGEST.add([one]) == EMPTY_DIGEST.add([other])) is (one == other)


def test_a_digest_tells_a_swap_of_two_values() -> None:
    straight = [record("a", 1, "1"), record("b", 1, "2")]
    swapped = [record("a", 1, "2"), record("b", 1, "1")]
    assert EMPTY_DIGEST.add(straight) != EMPTY_DIGEST.add(swapped)


def test_a_digest_counts_live_records_only() -> None:
    digest = EMPTY_DIGEST.add([record("a", 1), record("b", 2, ""), record("c", 3)])
    assert digest.records == 2
    assert digest == EMPTY_DIGEST.add([record("a", 1), record("c", 3)])
    assert len(digest.text) == 32
