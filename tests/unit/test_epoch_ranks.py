"""Epochs are one integer each in a database, in their order, however they come and whoever reads."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.stored import held, merge
from trikv.errors import SettingError, StorageFailed
from trikv.model.record import Record, entries_of
from trikv.model.version import MAX_EPOCH_NUMBER, MAX_TIMESTAMP_US, Epoch, Version
from trikv.storage import epoch_ranks
from trikv.storage.database import FILE_NAME
from trikv.storage.epoch_ranks import Ranks
from trikv.storage.store import Store

#: Ranks for one number: twice as many as there are instances, so that they run out between two.
LITTLE_ROOM = 16

INSTANCES = "abcdefgh"

epochs = st.builds(
    Epoch, st.sampled_from([0, 1, 2, MAX_EPOCH_NUMBER]), st.sampled_from(sorted(INSTANCES))
)
versions = st.builds(Version, epochs, st.sampled_from([0, 1, 2, MAX_TIMESTAMP_US]))


def written(version: Version, value: str = "1") -> Record:
    """A record whose key is its own version's."""
    return Record(f"{version}", value, version)


def above(store: Store, version: Version) -> list[Version]:
    """The versions above it, in order, by the page."""
    return [one.version for one in store.page_by_version(version, 10**6, 10**9)]


@given(
    groups=st.lists(st.lists(versions, max_size=6), max_size=6),
    staged=st.lists(versions, max_size=4),
    bounds=st.lists(versions, min_size=1, max_size=4),
)
def test_versions_are_read_in_their_order_whatever_epochs_came_before(
    groups: list[list[Version]], staged: list[Version], bounds: list[Version]
) -> None:
    with pytest.MonkeyPatch.context() as patch, closing(Store.open(None)) as store:
        patch.setattr(epoch_ranks, "ROOM", LITTLE_ROOM)
        for group in groups:
            merge(store, map(written, group))
        with store.transaction():
            store.begin_staging()
            store.stage(map(written, staged))
            store.merge_staged()
            store.end_staging()
        all_of_them = sorted({*(version for group in groups for version in group), *staged})
        assert [one.version for one in held(store)] == sorted(all_of_them, key=str)
        assert store.greatest_version() == max(all_of_them, default=None)
        for bound in bounds:  # of epochs that are there, and of others
            greater = [version for version in all_of_them if version > bound]
            lesser = [version for version in all_of_them if version < bound]
            assert above(store, bound) == greater
            assert store.count_after(bound, 10**6) == len(greater)
            back = store.page_back(min(bounds), bound, 10**6, 10**9)
            between = [version for version in lesser if version > min(bounds)]
            assert [one.version for one in back] == between[::-1]


@given(versions=st.lists(versions, unique=True, max_size=12), floor=versions)
def test_a_purge_ends_at_the_floor_whether_or_not_a_record_is_of_its_epoch(
    versions: list[Version], floor: Version
) -> None:
    with closing(Store.open(None)) as store:
        merge(store, [written(version, value="") for version in versions])
        state = store.state._replace(
            promised=floor.epoch, established=floor.epoch, watermark=floor, floor=floor
        )
        with store.transaction():
            store.set_state(state)
            store.purge(10**6)
        assert {one.version for one in held(store)} == {one for one in versions if one > floor}


@pytest.mark.parametrize("order", [INSTANCES, INSTANCES[::-1], "ahbgcfde"])
def test_where_there_is_no_rank_left_between_two_they_are_spread_with_their_records(
    monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    monkeypatch.setattr(epoch_ranks, "ROOM", LITTLE_ROOM)
    spread: list[int] = []

    class Noted(Ranks):
        def _spread(self, number: int) -> None:
            spread.append(number)
            super()._spread(number)

    monkeypatch.setattr("trikv.storage.store.Ranks", Noted)
    with closing(Store.open(None)) as store:
        neighbours = [Version(Epoch(number, "z"), 1) for number in (6, 8)]
        merge(store, map(written, neighbours))
        some = [Version(Epoch(7, instance), 1) for instance in order]
        for version in some:
            merge(store, [written(version)])
        assert above(store, neighbours[0]) == [*sorted(some), neighbours[1]]
        # One that loses against what is there loses after all that moving, too.
        merge(store, [Record(f"{some[1]}", "2", min(some)._replace(timestamp_us=0))])
        assert above(store, neighbours[0]) == [*sorted(some), neighbours[1]]
    assert set(spread) == {7}


def test_all_of_one_group_get_ranks_before_any_of_it_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(epoch_ranks, "ROOM", LITTLE_ROOM)
    with closing(Store.open(None)) as store:
        some = [Version(Epoch(7, instance), 1) for instance in INSTANCES]
        merge(store, map(written, some))
        assert above(store, Version(Epoch(0, "0"), 0)) == some


class HalfWay(Exception):
    pass


def test_a_rank_that_was_rolled_back_is_forgotten(memory: Store) -> None:
    first = written(Version(Epoch(7, "a"), 1))

    def fail() -> None:
        with memory.transaction():
            memory.merge(entries_of([first]))
            raise HalfWay

    with pytest.raises(HalfWay):
        fail()
    merge(memory, [first])
    assert held(memory) == [first]


def test_ranks_that_were_given_are_known_after_opening_again(tmp_path: Path) -> None:
    some = [written(Version(Epoch(7, instance), 1)) for instance in "bca"]
    for one in some:
        with closing(Store.open(tmp_path)) as store:
            merge(store, [one])
    with closing(Store.open(tmp_path)) as store:
        assert store.page_by_version(None, 9, 999) == sorted(some)


def test_no_read_by_version_sorts_or_looks_at_more_than_it_returns(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = Version(Epoch(1, "a"), 1)
    some = [written(version._replace(timestamp_us=i)) for i in range(100)]
    merge(memory, some)
    plans: list[str] = []

    class Explained:
        """The connection, which notes how SQLite goes about each query; as inside a transaction."""

        in_transaction = True

        def execute(self, query: str, parameters: Sequence[Any] = ()) -> Any:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", parameters).fetchall()
            plans.append(" / ".join(str(step[3]) for step in plan))
            return connection.execute(query, parameters)

    connection = memory._pager
    monkeypatch.setattr(memory, "_pager", Explained())
    memory.page_by_version(version, 5, 999)
    memory.page_back(version, some[50].version, 5, 999)
    memory.count_after(version, 5)
    memory.newest_version()
    monkeypatch.setattr(memory, "_writer", Explained())
    memory.purge(5)
    assert len(plans) == 7
    for plan in plans:
        assert "TEMP B-TREE" not in plan
        assert ("SEARCH records" in plan) or plan.startswith("SCAN records USING INDEX")


def test_a_database_without_its_epochs_is_told(memory: Store) -> None:
    merge(memory, [written(Version(Epoch(1, "a"), 1))])
    memory._writer.execute("DROP TABLE epochs")
    with pytest.raises(StorageFailed, match="no such table: epochs"):
        held(memory)


@pytest.mark.parametrize(
    "spoil",
    [
        "DELETE FROM epochs WHERE rank = -1",
        "DELETE FROM epochs WHERE number = 2",
        "DELETE FROM epochs",
        "UPDATE epochs SET rank = rank + 1 WHERE number = 2",
        "UPDATE epochs SET number = 9 WHERE number = 2",
        "UPDATE epochs SET instance = 'z' WHERE (number, instance) = (1, 'a')",
        f"UPDATE records SET epoch = 3 * {epoch_ranks.ROOM} WHERE key LIKE '2%'",
        "UPDATE records SET epoch = -2 WHERE key LIKE '2%'",
    ],
)
def test_epochs_that_are_not_whole_are_refused_when_the_store_is_opened(
    tmp_path: Path, spoil: str
) -> None:
    some = [written(Version(Epoch(*epoch), 1)) for epoch in [(1, "a"), (1, "b"), (2, "a")]]
    with closing(Store.open(tmp_path)) as store:
        merge(store, some)
    Store.open(tmp_path).close()
    with closing(apsw.Connection(str(tmp_path / FILE_NAME))) as other:
        other.execute(spoil)
        assert other.total_changes() >= 1
    with pytest.raises(SettingError, match="what it says of epochs is not whole"):
        Store.open(tmp_path)
