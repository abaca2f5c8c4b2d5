"""The write buffer: what is kept whole is as good as merged, for every reader, at every moment."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import apsw
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.stored import EPOCH, held, merge, record
from trikv.errors import SettingError
from trikv.model.node_state import NodeState
from trikv.model.record import Entry, Record, wins
from trikv.model.version import NO_VERSION, Epoch, Version
from trikv.storage import write_buffer
from trikv.storage.database import FILE_NAME
from trikv.storage.store import Store

KEYS = "abcd"
LAST = Epoch(9, "z")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes of two keys are kept already, and soon leave."""
    monkeypatch.setattr(write_buffer, "LEAST_PAIRS", 2)
    monkeypatch.setattr(write_buffer, "MAX_RECORDS", 6)


def written(timestamp_us: int, keys: str = "ab") -> Entry:
    """A write of these keys, each with its time and key as the value."""
    return Entry(Version(EPOCH, timestamp_us), [(key, f'"{timestamp_us}{key}"') for key in keys])


def write(store: Store, *entries: Entry) -> None:
    with store.transaction():
        store.merge(entries)


def scanned(store: Store) -> list[Record]:
    """All that there is, in key order, as a scan finds it."""
    with store.shut_buffer():
        while store.buffers:
            with store.transaction():
                store.empty_buffer(limit=1)
        return held(store)


def rows(store: Store) -> tuple[int, int]:
    """How many writes are kept, and how many records are in the map."""
    query = "SELECT (SELECT count(*) FROM buffered), (SELECT count(*) FROM records)"
    found: tuple[int, int] = store._writer.execute(query).get
    return found


# -- it and a dict agree --------------------------------------------------------------------------------

few_epochs = st.sampled_from([Epoch(1, "a"), Epoch(1, "b"), Epoch(2, "a")])
some_versions = st.builds(Version, few_epochs, st.integers(1, 20))
some_pairs = st.dictionaries(
    st.sampled_from(KEYS), st.sampled_from(["1", '"é"', '"\\"\\ud83d"', "", "[]"]), min_size=1
)
some_entries = st.lists(
    st.builds(Entry, some_versions, some_pairs.map(lambda pairs: list(pairs.items()))), max_size=4
)


class HalfWay(Exception):
    """What goes wrong in the middle of a transaction."""


class BufferedStoreAgreesWithDict(RuleBasedStateMachine):
    """The same on a store in a directory and on a dict: nothing shows what is buffered."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(write_buffer, "LEAST_PAIRS", 2)
        self.store = Store.open(Path(self.directory.name), "os")
        self.model: dict[str, Record] = {}
        self.floor = NO_VERSION

    @initialize(most=st.integers(2, 12))
    def bound(self, most: int) -> None:
        self.patch.setattr(write_buffer, "MAX_RECORDS", most)

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()
        self.patch.undo()

    def _merge(self, entries: Sequence[Entry]) -> None:
        """As followers do: what is up to the floor is not taken."""
        taken = [entry for entry in entries if entry.version > self.floor]
        self.store.merge(taken)
        for entry in taken:
            for one in entry.records:
                if wins(one, self.model.get(one.key)):
                    self.model[one.key] = one
        for key in KEYS:
            assert self.store.current(key) == self.model.get(key)

    @rule(entries=some_entries)
    def write(self, entries: list[Entry]) -> None:
        with self.store.transaction():
            self._merge(entries)

    def _purge(self, floor: Version) -> None:
        """What is hidden in the buffer by a tombstone may keep it; nothing else changes for anyone."""
        self.floor = max(floor, self.floor)
        self.store.set_state(
            NodeState(promised=LAST, established=LAST, watermark=self.floor, floor=self.floor)
        )
        self.store.purge(10**6)
        for key, one in [*self.model.items()]:
            if one.deleted and one.version <= self.floor and self.store.current(key) is None:
                del self.model[key]
        for key in KEYS:
            assert self.store.current(key) == self.model.get(key)

    @rule(entries=some_entries, floor=some_versions, emptied=st.none() | st.integers(1, 9))
    def write_and_purge(self, entries: list[Entry], floor: Version, emptied: int | None) -> None:
        with self.store.transaction():
            self._merge(entries)
            if emptied is not None:
                self.store.empty_buffer(limit=emptied)
            self._purge(floor)

    @rule(floor=some_versions)
    def purge_with_nothing_buffered(self, floor: Version) -> None:
        with self.store.transaction():
            self.store.empty_buffer()
        with self.store.transaction():
            self._purge(floor)
        assert not any(one.deleted and one.version <= self.floor for one in self.model.values())

    @rule(entries=some_entries, emptied=st.booleans())
    def fail_half_way(self, entries: list[Entry], emptied: bool) -> None:
        before = dict(self.model)

        def change() -> None:
            with self.store.transaction():
                self._merge(entries)
                if emptied:
                    self.store.empty_buffer()
                raise HalfWay

        with pytest.raises(HalfWay):
            change()
        self.model = before

    @rule(limit=st.integers(1, 9))
    def empty_a_little(self, limit: int) -> None:
        with self.store.transaction():
            self.store.empty_buffer(limit=limit)

    @rule()
    def scan(self) -> None:
        assert scanned(self.store) == sorted(self.model.values())

    @rule()
    def scan_on_a_full_disk(self) -> None:
        before = rows(self.store)
        found = self.store.as_if_emptied(lambda: held(self.store))
        assert found == sorted(self.model.values())
        assert rows(self.store) == before

    @rule(entries=some_entries)
    def scan_beside_a_write(self, entries: list[Entry]) -> None:
        before = sorted(self.model.values())
        with self.store.shut_buffer():
            assert scanned(self.store) == before
            with self.store.transaction():
                self._merge(entries)
            assert held(self.store) == sorted(self.model.values())

    @rule(staged=some_entries)
    def take_over(self, staged: list[Entry]) -> None:
        theirs: dict[str, Record] = {}
        for one in (one for entry in staged for one in entry.records):
            if wins(one, theirs.get(one.key)):
                theirs[one.key] = one
        with self.store.transaction():
            self.store.begin_staging()
            self.store.stage(theirs.values())
            strays = {ours.key: (ours, other) for ours, other in self.store.staged_strays()}
            self.store.end_staging()
        assert strays == {
            key: (one, theirs.get(key))
            for key, one in self.model.items()
            if wins(one, theirs.get(key)) and not (one.deleted and key not in theirs)
        }

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = Store.open(Path(self.directory.name), "os")

    @invariant()
    def same(self) -> None:
        for key in KEYS:
            assert self.store.get(key) == self.model.get(key)
        versions = [one.version for one in self.model.values()]
        assert self.store.greatest_version() == max(versions, default=None)
        assert rows(self.store)[0] * write_buffer.LEAST_PAIRS <= write_buffer.MAX_RECORDS


TestBufferedStoreAgreesWithDict = BufferedStoreAgreesWithDict.TestCase
TestBufferedStoreAgreesWithDict.settings = settings(
    deadline=None, max_examples=200, stateful_step_count=20
)


# -- what is kept, and what leaves ----------------------------------------------------------------------


def test_a_large_write_is_kept_and_only_what_is_still_the_newest_is_merged(memory: Store) -> None:
    for timestamp_us in range(1, 4):
        write(memory, written(timestamp_us))
    assert rows(memory) == (3, 0)
    write(memory, written(4, "ac"))  # 8 records are too many: the first write leaves, with nothing
    assert rows(memory) == (3, 0)
    write(memory, written(5, "cd"))  # and so does the second
    assert rows(memory) == (3, 0)
    write(memory, written(6, "cd"))  # of the third b is still the newest
    assert rows(memory) == (3, 1)
    assert memory.get("b") == record("b", 3, '"3b"')
    assert [one.version.timestamp_us for one in scanned(memory)] == [4, 3, 6, 6]
    assert rows(memory) == (0, 4)


def test_bytes_are_bounded_too(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_buffer, "MAX_BYTES", 60)  # a row here has 27
    for timestamp_us in range(1, 6):
        write(memory, written(timestamp_us))
    assert rows(memory) == (2, 0)


@pytest.mark.parametrize(
    "entry",
    [
        written(5, "a"),
        Entry(Version(EPOCH, 5), [("a", "1"), ("b", "")]),
        written(3, "ab"),
        written(2, "ab"),
        Entry(Version(EPOCH, 5), [("a", "1"), ("b", f'"{"x" * 100}"')]),
    ],
    ids=["a small one", "one that deletes", "the same again", "an older one", "one too large"],
)
def test_what_is_not_to_be_kept_is_merged_at_once(
    memory: Store, monkeypatch: pytest.MonkeyPatch, entry: Entry
) -> None:
    monkeypatch.setattr(write_buffer, "MAX_WRITE_BYTES", 100)
    write(memory, written(3, "cd"))
    write(memory, entry)
    assert rows(memory) == (1, len(entry.pairs))
    for one in entry.records:
        assert memory.get(one.key) == one


def purge(store: Store, up_to: int) -> int:
    """In a transaction."""
    floor = Version(EPOCH, up_to)
    store.set_state(NodeState(promised=EPOCH, established=EPOCH, watermark=floor, floor=floor))
    return store.purge(9)


def test_a_purge_leaves_what_hides_a_value_in_the_buffer(on_disk: Store) -> None:
    deleted = [record("a", 1, ""), record("b", 3, "")]
    merge(on_disk, deleted[:1])
    write(on_disk, written(2, "bc"))
    merge(on_disk, deleted[1:])
    with on_disk.transaction():
        on_disk.empty_buffer()  # others see what leaves until it is committed
        assert purge(on_disk, 4) == 1
        assert on_disk.current("b") == on_disk.get("b") == deleted[1]
    assert on_disk.get("a") is None
    assert on_disk.get("b") == deleted[1]
    with on_disk.transaction():
        assert purge(on_disk, 4) == 1
    assert on_disk.get("b") is None
    assert scanned(on_disk) == [record("c", 2, '"2c"')]


def test_a_purge_does_not_take_what_was_buffered_above_the_tombstone(memory: Store) -> None:
    merge(memory, [record("a", 1, "")])
    write(memory, written(2))
    with memory.transaction():
        assert purge(memory, 2) == 1
    assert scanned(memory) == written(2).records


# -- others that read meanwhile -------------------------------------------------------------------------


def test_what_is_not_committed_is_seen_by_nobody_else(on_disk: Store) -> None:
    write(on_disk, written(1))
    with on_disk.transaction():
        on_disk.merge([written(2), written(3, "cd")])
        assert on_disk.current("a") == record("a", 2, '"2a"')
        assert on_disk.get("a") == record("a", 1, '"1a"')
        assert on_disk.get("c") is None
        assert on_disk.greatest_version() == Version(EPOCH, 1)
    assert on_disk.get("a") == record("a", 2, '"2a"')
    assert on_disk.get("c") == record("c", 3, '"3c"')


def test_a_store_that_is_about_to_buffer_something_is_not_taken_for_one_that_does_not(
    on_disk: Store,
) -> None:
    with on_disk.transaction():
        on_disk.merge([written(1)])
        assert on_disk.buffers
    assert on_disk.buffers


def test_a_key_is_never_older_than_it_was_while_writes_come_and_leave_in_another_thread(
    on_disk: Store,
) -> None:
    last = 300
    write(on_disk, written(1, KEYS))
    began = threading.Event()

    def change() -> None:
        began.wait()
        for timestamp_us in range(2, last + 1):
            write(on_disk, written(timestamp_us, "ab" if timestamp_us % 3 else "cd"))

    writer = threading.Thread(target=change)
    writer.start()
    began.set()
    seen = dict.fromkeys(KEYS, NO_VERSION)
    while writer.is_alive():
        for key in KEYS:
            found = on_disk.get(key)
            assert found is not None
            assert found.version >= seen[key]
            assert found.value == f'"{found.version.timestamp_us}{key}"'
            seen[key] = found.version
    writer.join()
    assert max(one.version for one in scanned(on_disk)) == Version(EPOCH, last)


def test_what_was_deleted_is_not_seen_again_while_it_is_purged_in_another_thread(
    on_disk: Store,
) -> None:
    """Whatever leaves the buffer, or is purged, between the two looks of a reader."""
    deleted_us = [0]
    reading = threading.Lock()

    def change() -> None:
        for timestamp_us in range(10, 3_000, 10):
            write(on_disk, written(timestamp_us))
            merge(on_disk, [record("a", timestamp_us + 1, "")])
            deleted_us[0] = timestamp_us + 1
            with on_disk.transaction():
                on_disk.empty_buffer()
                purge(on_disk, timestamp_us + 2)
            with reading:  # a reader is in the loop that hears of each commit: it outlives no two
                pass
            with on_disk.transaction():
                purge(on_disk, timestamp_us + 2)

    writer = threading.Thread(target=change)
    writer.start()
    while writer.is_alive():
        with reading:
            before_us = deleted_us[0]
            found = on_disk.get("a")
        assert found is None or found.deleted or found.version.timestamp_us > before_us
    writer.join()


def test_pages_are_whole_while_large_writes_are_made_in_another_thread(on_disk: Store) -> None:
    write(on_disk, written(1, KEYS))
    lock, ended = threading.Lock(), threading.Event()  # as the committer has one task
    seen: set[Version] = set()

    def change() -> None:
        for timestamp_us in count(2):
            if ended.is_set():
                return
            with lock:
                write(on_disk, written(timestamp_us, KEYS))

    writer = threading.Thread(target=change)
    writer.start()
    try:
        while len(seen) < 10:
            with on_disk.shut_buffer():
                with lock:
                    if on_disk.buffers:
                        with on_disk.transaction():
                            on_disk.empty_buffer()
                for _ in range(5):
                    page = held(on_disk)
                    assert [one.key for one in page] == [*KEYS]
                    assert len({one.version for one in page}) == 1
                    seen.add(page[0].version)
    finally:
        ended.set()
        writer.join()


# -- a file that is broken ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    ["version = '1'", "pairs = '{\"a\":1}'", "pairs = '{'", "pairs = CAST(x'22ff' AS TEXT)"],
)
def test_what_is_broken_is_said_at_the_start(tmp_path: Path, broken: str) -> None:
    with closing(Store.open(tmp_path)) as store:
        write(store, written(1), written(2))
    with closing(apsw.Connection(str(tmp_path / FILE_NAME))) as other:
        other.execute(f"UPDATE buffered SET {broken} WHERE id = 2")
    with pytest.raises(SettingError, match=r"^DATA_DIR=.*(large writes is not whole|utf-8)"):
        Store.open(tmp_path)
