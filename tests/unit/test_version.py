"""Versions order all writes, and the merge rule picks one winner whatever the order."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.strategies import close_records, epochs, versions
from trikv.model.record import Record, wins
from trikv.model.version import (
    MAX_EPOCH_NUMBER,
    MAX_ISSUED_US,
    MAX_TIMESTAMP_US,
    NO_EPOCH,
    PLAIN_EPOCH,
    Epoch,
    Version,
    VersionClock,
    is_instance,
)


@given(versions)
def test_a_versions_text_form_round_trips(version: Version) -> None:
    assert Version.parse(str(version)) == version


@given(epochs)
def test_an_epochs_text_form_round_trips(epoch: Epoch) -> None:
    assert Epoch.parse(str(epoch)) == epoch


@given(st.lists(versions))
def test_versions_sort_as_tuples_do_also_after_a_trip_as_text(some: list[Version]) -> None:
    tuples = sorted((v.epoch.number, v.epoch.instance, v.timestamp_us) for v in some)
    travelled = sorted(Version.parse(str(v)) for v in some)
    assert [(*v.epoch, v.timestamp_us) for v in travelled] == tuples


def test_numbers_are_compared_as_numbers() -> None:
    assert Version.parse("10.a-1") > Version.parse("9.a-1")
    assert Version.parse("1.a-10") > Version.parse("1.a-9")


def test_the_epoch_decides_before_the_timestamp() -> None:
    assert Version(Epoch(2, "a"), 1) > Version(Epoch(1, "z"), MAX_TIMESTAMP_US)
    assert Version(Epoch(2, "b"), 1) > Version(Epoch(2, "a"), 9)


def test_the_text_form_is_what_the_documentation_shows() -> None:
    version = Version(Epoch(3, "0f4c2a9d81e7"), 1_700_000_000_000_000)
    assert str(version) == "3.0f4c2a9d81e7-1700000000000000"
    assert str(version.epoch) == "3.0f4c2a9d81e7"


NOT_VERSIONS = [
    "",
    "3.a",
    "3-5",
    "3.a-",
    ".a-5",
    "3.-5",
    "3.A-5",
    "3.a_b-5",
    "3.é-5",
    "03.a-5",
    "3.a-05",
    "-3.a-5",
    "3.a--5",
    "+3.a-5",
    "3.a-5 ",
    " 3.a-5",
    "3.a-5\n",
    "\n3.a-5",
    "3.a-5.0",
    "3.a-5e1",
    "٣.a-5",
    "3.a-٥",
    "3.a-²",
    f"{MAX_EPOCH_NUMBER + 1}.a-5",
    f"3.a-{MAX_TIMESTAMP_US + 1}",
    f"3.{'a' * 33}-5",
    "9" * 5000,
    "3.a-" + "9" * 5000,
    "\ud800.a-5",
]


@pytest.mark.parametrize("text", NOT_VERSIONS)
def test_what_is_no_version_is_refused_and_the_form_is_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"a version looks like 3\.0f4c") as refusal:
        Version.parse(text)
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize(
    "text",
    ["", "3", "3.", ".a", "03.a", "-3.a", "3.A", "3.a-5", "3.a\n", " 3.a", "٣.a", "9" * 5000],
)
def test_what_is_no_epoch_is_refused_and_the_form_is_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"an epoch looks like 3\.0f4c") as refusal:
        Epoch.parse(text)
    assert len(str(refusal.value)) < 1000


@given(st.text("0123456789.-ab\n"))
def test_a_version_has_one_text_form_only(text: str) -> None:
    try:
        version = Version.parse(text)
    except ValueError:
        return
    assert str(version) == text


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("0f4c2a9d81e7", True),
        ("a", True),
        ("", False),
        ("A", False),
        ("a" * 33, False),
        ("a\n", False),
    ],
)
def test_an_instance_is_1_to_32_digits_and_small_letters(text: str, is_one: bool) -> None:
    assert is_instance(text) is is_one


def test_no_leader_has_an_epoch_as_low_as_those_without_one() -> None:
    first = Epoch(1, "0")
    assert max(NO_EPOCH, PLAIN_EPOCH) < first
    assert NO_EPOCH < PLAIN_EPOCH


# -- the merge rule -------------------------------------------------------------------------------------


def version(timestamp_us: int) -> Version:
    return Version(Epoch(1, "a"), timestamp_us)


def test_a_later_write_wins_whatever_the_order() -> None:
    early, late = Record("k", "1", version(1)), Record("k", "0", version(2))
    assert wins(late, early)
    assert not wins(early, late)


def test_any_record_wins_over_none() -> None:
    assert wins(Record("k", "", version(0)), None)


def test_a_later_delete_wins_over_a_value_and_the_other_way_round() -> None:
    assert wins(Record("k", "", version(2)), Record("k", "1", version(1)))
    assert wins(Record("k", "1", version(2)), Record("k", "", version(1)))


def test_between_equal_versions_the_greater_value_wins() -> None:
    small, great = Record("k", '"a"', version(1)), Record("k", '"b"', version(1))
    assert wins(great, small)
    assert not wins(small, great)


def test_a_record_does_not_win_over_itself() -> None:
    record = Record("k", "1", version(1))
    assert not wins(record, record)


@given(st.lists(close_records, min_size=3, max_size=3))
def test_winning_is_a_strict_total_order_of_the_records_of_a_key(some: list[Record]) -> None:
    a, b, c = (record._replace(key="k") for record in some)
    assert wins(a, b) + wins(b, a) == (a != b)
    for x, y, z in itertools.permutations((a, b, c)):
        if wins(x, y) and wins(y, z):
            assert wins(x, z)


def test_only_an_empty_value_is_a_delete() -> None:
    assert Record("k", "", version(1)).deleted
    assert not any(Record("k", text, version(1)).deleted for text in ("null", '""', "0", "[]"))


# -- the clock ------------------------------------------------------------------------------------------


@given(
    readings=st.lists(st.integers(0, 10**16 // 2), min_size=1),
    seen_us=st.integers(0, 10**16 // 2),
)
def test_versions_strictly_increase_however_the_clock_behaves(
    readings: list[int], seen_us: int
) -> None:
    wall = iter(readings)
    clock = VersionClock(Epoch(1, "a"), lambda: next(wall), seen_us)
    issued = [clock.issue() for _ in readings]
    assert all(earlier < later for earlier, later in itertools.pairwise(issued))
    assert issued[0].timestamp_us > seen_us
    assert all(v.timestamp_us >= now for v, now in zip(issued, readings, strict=True))
    assert {v.epoch for v in issued} == {Epoch(1, "a")}


def test_a_version_is_the_time_where_the_clock_behaves() -> None:
    clock = VersionClock(Epoch(1, "a"), iter([1000, 2000, 5000]).__next__)
    assert [clock.issue().timestamp_us for _ in range(3)] == [1000, 2000, 5000]


def test_a_clock_that_stands_still_or_goes_back_is_overruled() -> None:
    clock = VersionClock(Epoch(1, "a"), iter([1000, 1000, 10, 1001]).__next__)
    assert [clock.issue().timestamp_us for _ in range(4)] == [1000, 1001, 1002, 1003]


def test_past_the_year_2245_no_version_is_issued() -> None:
    clock = VersionClock(Epoch(1, "a"), lambda: MAX_ISSUED_US)
    assert clock.issue().timestamp_us == MAX_ISSUED_US
    with pytest.raises(OverflowError):
        clock.issue()
