"""The map on SQLite: what is merged converges, what is committed stays, what is read is paged whole."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.unit.strategies import close_epochs, close_records, close_versions, keys, records
from trikv.errors import SettingError, StorageFailed
from trikv.messages import RESERVED_PREFIX
from trikv.state import NodeState
from trikv.store import (
    APPLICATION_ID,
    CHECKPOINT_PAGES,
    EMPTY_DIGEST,
    FILE_NAME,
    FORMAT,
    LOCK_NAME,
    SPARE_DISK,
    Store,
    digest_of,
)
from trikv.version import NO_EPOCH, NO_VERSION, PLAIN_EPOCH, Epoch, Record, Version, wins

EPOCH = Epoch(1, "a")
STATE = NodeState(
    node_id="node",
    instance="i",
    cluster="c",
    promised=Epoch(7, "x"),
    established=Epoch(6, "b"),
    led=Epoch(2, "i"),
    watermark=Version(Epoch(6, "b"), 12),
    floor=Version(Epoch(6, "b"), 11),
)


def record(key: str, timestamp_us: int, value: str = "1") -> Record:
    return Record(key, value, Version(EPOCH, timestamp_us))


def merge(store: Store, some: Iterable[Record]) -> None:
    with store.transaction():
        store.merge(some)


def promise(store: Store, epoch: Epoch) -> None:
    store.set_state(store.state._replace(promised=epoch))


class HalfWay(Exception):
    """What goes wrong in the middle of a transaction."""


def change_half_way(store: Store, some: Iterable[Record], epoch: Epoch) -> None:
    """Change everything there is to change, then fail."""
    with store.transaction():
        store.merge(some)
        promise(store, epoch)
        raise HalfWay


def held(store: Store) -> list[Record]:
    """All that a store holds, in key order."""
    return sorted(store.page_by_version(None, 10**6, 10**9))


def shown(some: Iterable[Record]) -> list[Record]:
    """Those whose keys are not reserved, in key order."""
    return sorted(one for one in some if not one.key.startswith(RESERVED_PREFIX))


def modelled(some: Iterable[Record]) -> list[Record]:
    """What any replica must hold that has merged these records: the rule in words, on a dict."""
    model: dict[str, Record] = {}
    for one in some:
        if wins(one, model.get(one.key)):
            model[one.key] = one
    return sorted(model.values())


@pytest.fixture
def memory() -> Iterator[Store]:
    with closing(Store.open(None)) as store:
        yield store


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path)) as store:
        yield store


# -- convergence ----------------------------------------------------------------------------------------


class Replica(Protocol):
    """What the property below is about: something that merges records."""

    def merge(self, some: Sequence[Record], /) -> None: ...
    def held(self) -> list[Record]: ...
    def close(self) -> None: ...


class StoreReplica:
    """The real store."""

    def __init__(self) -> None:
        self._store = Store.open(None)

    def merge(self, some: Sequence[Record], /) -> None:
        merge(self._store, some)

    def held(self) -> list[Record]:
        return held(self._store)

    def close(self) -> None:
        self._store.close()


class DictReplica:
    """A dict, with a rule for when a record replaces another: the way to get it wrong."""

    def __init__(self, replaces: Callable[[Record, Record], bool]) -> None:
        self._replaces = replaces
        self._held: dict[str, Record] = {}

    def merge(self, some: Sequence[Record], /) -> None:
        for new in some:
            if new.key not in self._held or self._replaces(new, self._held[new.key]):
                self._held[new.key] = new

    def held(self) -> list[Record]:
        return sorted(self._held.values())

    def close(self) -> None:
        pass


#: To look for a failure known to be there: the same way each time, and not for its smallest form.
DETERMINED = settings(derandomize=True, database=None, phases=[Phase.generate])


def check_convergence(make_replica: Callable[[], Replica], tuning: settings = DETERMINED) -> None:
    """The property: replicas that have got the same records hold the same map, the one of the rule.

    Each gets them in an order of its own, some of them again, cut into batches of its own.
    """

    @tuning
    @given(data=st.data(), some=st.lists(close_records, max_size=12), replicas=st.integers(1, 4))
    def converge(data: st.DataObject, some: list[Record], replicas: int) -> None:
        for _ in range(replicas):
            again = data.draw(st.lists(st.sampled_from(some), max_size=4)) if some else []
            order = data.draw(st.permutations(some + again))
            cuts = data.draw(st.lists(st.integers(0, len(order)), max_size=3).map(sorted))
            with closing(make_replica()) as replica:
                for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True):
                    replica.merge(order[start:end])
                assert replica.held() == modelled(some)

    converge()


def test_replicas_converge_whatever_the_order_the_batches_and_the_repetitions() -> None:
    check_convergence(StoreReplica, settings(max_examples=200))


WRONG_RULES: dict[str, Callable[[Record, Record], bool]] = {
    "the lab's: a timestamp at least as great": (
        lambda new, old: new.version.timestamp_us >= old.version.timestamp_us
    ),
    "a greater timestamp": lambda new, old: new.version.timestamp_us > old.version.timestamp_us,
    "a version at least as great": lambda new, old: new.version >= old.version,
    "a greater version": lambda new, old: new.version > old.version,
    "the last to come": lambda new, old: True,
    "the first to come": lambda new, old: False,
    "versions as text": (
        lambda new, old: (str(new.version), new.value) > (str(old.version), old.value)
    ),
}


@pytest.mark.parametrize("rule", WRONG_RULES.values(), ids=WRONG_RULES)
def test_the_property_finds_every_wrong_rule(rule: Callable[[Record, Record], bool]) -> None:
    with pytest.raises(AssertionError):
        check_convergence(lambda: DictReplica(rule))


def test_the_property_passes_the_right_rule() -> None:
    check_convergence(lambda: DictReplica(wins))


def test_two_writes_of_one_instant_diverge_under_the_labs_rule_and_not_under_ours() -> None:
    one, other = record("k", 5, '"one"'), record("k", 5, '"other"')
    lab = WRONG_RULES["the lab's: a timestamp at least as great"]
    for make, equal in ((lambda: DictReplica(lab), False), (StoreReplica, True)):
        with closing(make()) as first, closing(make()) as second:
            first.merge([one, other])
            second.merge([other, one])
            assert (first.held() == second.held()) is equal


@given(st.lists(records, max_size=8), st.randoms())
def test_any_records_at_all_converge(some: list[Record], order: random.Random) -> None:
    with closing(Store.open(None)) as store:
        shuffled = some * 2
        order.shuffle(shuffled)
        merge(store, shuffled)
        assert held(store) == modelled(some)


# -- the store and a dict agree -------------------------------------------------------------------------


class StoreAgreesWithDict(RuleBasedStateMachine):
    """The same operations on a store in a directory and on a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.store = Store.open(Path(self.directory.name), "os")
        self.model: dict[str, Record] = {}
        self.promised = NO_EPOCH

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()

    def _apply(self, some: Iterable[Record]) -> None:
        for one in some:
            if wins(one, self.model.get(one.key)):
                self.model[one.key] = one

    @rule(some=st.lists(close_records | records, max_size=5))
    def merge(self, some: list[Record]) -> None:
        merge(self.store, some)
        self._apply(some)

    @rule(some=st.lists(close_records, max_size=5), epoch=close_epochs)
    def take_a_batch(self, some: list[Record], epoch: Epoch) -> None:
        with self.store.transaction():
            promise(self.store, epoch)
            self.store.merge(some)
        self.promised = epoch
        self._apply(some)

    @rule(some=st.lists(close_records, min_size=1, max_size=5), epoch=close_epochs)
    def fail_half_way(self, some: list[Record], epoch: Epoch) -> None:
        with pytest.raises(HalfWay):
            change_half_way(self.store, some, epoch)

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = Store.open(Path(self.directory.name), "os")

    @rule(key=st.sampled_from("abc") | keys)
    def get(self, key: str) -> None:
        assert self.store.get(key) == self.model.get(key)

    @rule(after=st.sampled_from(["", "a"]) | keys, limit=st.integers(1, 4), size=st.integers(1, 20))
    def page_by_key(self, after: str, limit: int, size: int) -> None:
        following = [r for r in shown(self.model.values()) if r.key > after]
        page = self.store.page_by_key(after, limit, size)
        assert page == following[: len(page)]
        assert bool(page) == bool(following)
        assert len(page) <= limit

    @rule(after=st.none() | close_versions, limit=st.integers(1, 4), size=st.integers(1, 20))
    def page_by_version(self, after: Version | None, limit: int, size: int) -> None:
        in_order = sorted(self.model.values(), key=lambda r: (r.version, r.key))
        following = [r for r in in_order if after is None or r.version > after]
        page = self.store.page_by_version(after, limit, size)
        assert page == following[: len(page)]
        assert bool(page) == bool(following)
        assert not page or all(r.version > page[-1].version for r in following[len(page) :])

    @invariant()
    def same(self) -> None:
        assert held(self.store) == sorted(self.model.values())
        assert self.store.state.promised == self.promised
        assert digest_of([held(self.store)]) == digest_of([list(self.model.values())])
        versions = [r.version for r in self.model.values()]
        assert self.store.greatest_version() == max(versions, default=None)
        for bound in [NO_VERSION, *versions[:3]]:
            behind = sum(version > bound for version in versions)
            assert self.store.count_after(bound, 10**6) == behind
            assert self.store.count_after(bound, 1) == min(behind, 1)


TestStoreAgreesWithDict = StoreAgreesWithDict.TestCase
TestStoreAgreesWithDict.settings = settings(deadline=None, max_examples=40, stateful_step_count=15)


# -- transactions ---------------------------------------------------------------------------------------


def test_nothing_of_a_failed_transaction_stays(memory: Store) -> None:
    merge(memory, [record("a", 1)])
    with pytest.raises(HalfWay):
        change_half_way(memory, [record("a", 2), record("b", 2)], Epoch(9, "z"))
    assert held(memory) == [record("a", 1)]
    assert memory.state.promised == NO_EPOCH


def test_a_transaction_can_follow_a_failed_one(memory: Store) -> None:
    with pytest.raises(HalfWay):
        change_half_way(memory, [record("a", 2)], EPOCH)
    merge(memory, [record("a", 1)])
    assert held(memory) == [record("a", 1)]


def test_readers_see_committed_data_only(on_disk: Store) -> None:
    merge(on_disk, [record("a", 1)])
    with on_disk.transaction():
        on_disk.merge([record("a", 2), record("b", 2)])
        assert on_disk.get("a") == record("a", 1)
        assert on_disk.get("b") is None
        assert held(on_disk) == [record("a", 1)]
        assert on_disk.page_by_version(None, 9, 999) == [record("a", 1)]
    assert held(on_disk) == [record("a", 2), record("b", 2)]


def test_what_is_committed_is_there_after_opening_again(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        merge(store, [record("a", 1, '"é😀"'), record("gone", 2, "")])
        with store.transaction():
            store.set_state(STATE)
    with closing(Store.open(tmp_path)) as store:
        assert held(store) == [record("a", 1, '"é😀"'), record("gone", 2, "")]
        assert store.state == STATE


def test_what_is_committed_is_in_the_files_before_the_store_is_closed(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    with closing(Store.open(tmp_path / "original")) as store:
        merge(store, [record("a", 1)])
        # As after a kill: the files as they are now, without a close.
        for file in (tmp_path / "original").iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
    with closing(Store.open(copy)) as store:
        assert held(store) == [record("a", 1)]


@pytest.mark.parametrize(("durability", "synchronous"), [("fsync", 2), ("os", 1)])
def test_fsync_means_full_synchronous_mode(
    tmp_path: Path, durability: Any, synchronous: int
) -> None:
    with closing(Store.open(tmp_path, durability)) as store:
        assert store._writer.execute("PRAGMA synchronous").fetchone() == (synchronous,)
        assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_pages_may_be_read_in_another_thread_while_changes_are_made(on_disk: Store) -> None:
    merge(on_disk, [record(f"k{i}", i) for i in range(100)])
    seen: list[int] = []

    def read() -> None:
        seen.extend(len(on_disk.page_by_version(None, 1000, 10**6)) for _ in range(20))

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(20):
        merge(on_disk, [record(f"k{i}", 1000 + i)])
    reader.join()
    assert seen == [100] * 20


# -- paging ---------------------------------------------------------------------------------------------

paged = st.lists(st.builds(Record, keys, st.text("x", max_size=30), close_versions), max_size=30)


@given(some=paged, limit=st.integers(1, 10), max_bytes=st.integers(1, 200))
def test_pages_by_version_are_complete_in_order_and_never_split_a_write(
    some: list[Record], limit: int, max_bytes: int
) -> None:
    with closing(Store.open(None)) as store:
        merge(store, some)
        after, pages = None, []
        while page := store.page_by_version(after, limit, max_bytes):
            pages.append(page)
            after = page[-1].version
        read = [one for page in pages for one in page]
        assert read == sorted(held(store), key=lambda r: (r.version, r.key))
        writes = [{one.version for one in page} for page in pages]
        assert sum(map(len, writes)) == len(set().union(*writes))


@given(some=paged, limit=st.integers(1, 10), max_bytes=st.integers(1, 200))
def test_pages_by_key_are_complete_and_bounded(
    some: list[Record], limit: int, max_bytes: int
) -> None:
    with closing(Store.open(None)) as store:
        merge(store, some)
        after, read = "", []
        while page := store.page_by_key(after, limit, max_bytes):
            assert len(page) <= limit
            assert sum(len(r.key) + len(r.value) for r in page[:-1]) < max_bytes
            read += page
            after = page[-1].key
        assert read == shown(modelled(some))


def test_a_write_larger_than_a_page_is_one_page(memory: Store) -> None:
    write = [record(f"k{i:03}", 5, '"xxxxxxxxxx"') for i in range(100)]
    merge(memory, [record("before", 4), *write, record("zafter", 6)])
    pages = [memory.page_by_version(None, 1, 10)]
    while page := memory.page_by_version(pages[-1][-1].version, 1, 10):
        pages.append(page)
    assert pages == [[record("before", 4)], write, [record("zafter", 6)]]


def test_a_page_goes_on_after_a_version_that_is_no_longer_there(memory: Store) -> None:
    merge(memory, [record("a", 1), record("b", 2), record("c", 3)])
    (first,) = memory.page_by_version(None, 1, 1)
    merge(memory, [record("a", 4)])
    rest = memory.page_by_version(first.version, 10, 999)
    assert rest == [record("b", 2), record("c", 3), record("a", 4)]


def test_epochs_are_paged_in_their_order(memory: Store) -> None:
    versions = [
        Version(PLAIN_EPOCH, 99),
        Version(Epoch(1, "a"), 50),
        Version(Epoch(1, "b"), 2),
        Version(Epoch(9, "a"), 1),
        Version(Epoch(10, "a"), 0),
    ]
    some = [Record(f"k{i}", "1", version) for i, version in enumerate(versions)]
    merge(memory, reversed(some))
    assert memory.page_by_version(None, 9, 999) == some
    for index, version in enumerate(versions):
        assert memory.page_by_version(version, 9, 999) == some[index + 1 :]


def test_no_read_leaves_a_transaction_open_that_holds_back_checkpoints(
    on_disk: Store, tmp_path: Path
) -> None:
    merge(on_disk, [record(f"k{i:03}", i) for i in range(300)])
    # Partial reads of every kind: bounded by rows, by bytes, by a key.
    assert len(on_disk.page_by_key("", 2, 999)) == 2
    assert len(on_disk.page_by_key("", 100, 1)) == 1
    assert len(on_disk.page_by_version(None, 2, 999)) == 2
    assert len(on_disk.page_by_version(None, 100, 1)) == 1
    assert on_disk.get("k007") is not None
    assert on_disk.greatest_version() == record("k299", 299).version
    merge(on_disk, [record("k007", 400)])
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as other:
        other.execute("PRAGMA busy_timeout = 0")
        (busy, _, _) = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0
    assert (tmp_path / f"{FILE_NAME}-wal").stat().st_size == 0


def log_of(directory: Path) -> Path:
    return directory / f"{FILE_NAME}-wal"


def test_the_log_has_its_length_from_the_start_and_keeps_it(tmp_path: Path) -> None:
    for _ in range(2):
        with closing(Store.open(tmp_path)) as store:
            length = log_of(tmp_path).stat().st_size
            assert CHECKPOINT_PAGES * 4096 < length < CHECKPOINT_PAGES * 4096 * 1.1
            for timestamp_us in range(1, CHECKPOINT_PAGES // 4):
                merge(store, [record("k", timestamp_us)])
            store.checkpoint()
            merge(store, [record("l", 1)])
            assert log_of(tmp_path).stat().st_size == length
    with closing(Store.open(tmp_path / "os", "os")):
        assert log_of(tmp_path / "os").stat().st_size < 10**6


def test_what_lies_behind_the_logs_end_is_not_taken_for_records(tmp_path: Path) -> None:
    """After a crash, which leaves the log as it was, again and again."""
    before = tmp_path / "0"
    for crashes in range(5):
        with closing(Store.open(before)) as store:
            assert [one.key for one in store.page_by_key("", 99, 9_999)] == [
                f"{i}" for i in range(crashes)
            ]
            merge(store, [record(f"{crashes}", 1)])
            after = tmp_path / f"{crashes + 1}"
            after.mkdir()
            for name in (FILE_NAME, f"{FILE_NAME}-wal"):
                shutil.copyfile(before / name, after / name)
        before = after


@pytest.mark.parametrize("full", ["nearly", "while it is reserved"])
def test_without_room_the_log_is_no_longer_than_it_must_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    if full == "nearly":
        usage = shutil.disk_usage(tmp_path)._replace(free=SPARE_DISK * CHECKPOINT_PAGES * 4096)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    else:

        def no_room(_: int) -> None:
            raise OSError(errno.ENOSPC, "no space left on device")

        monkeypatch.setattr(os, "fsync", no_room)
    with closing(Store.open(tmp_path)) as store:
        assert log_of(tmp_path).stat().st_size < 10**6
        merge(store, [record("k", 1)])
        assert store.get("k") == record("k", 1)


@pytest.mark.parametrize(("batch", "size"), [(1, 100), (20, 100), (1, 50_000), (1_000, 100)])
def test_a_checkpoint_is_due_before_the_log_grows_long_and_empties_it(
    on_disk: Store, batch: int, size: int
) -> None:
    keys = random.Random(7)
    timestamp_us = 0
    for _ in range(3):
        while not on_disk.checkpoint_is_due():
            timestamp_us += 1
            key = keys.randrange(100_000)
            value = f'"{"x" * size}"'
            some = [record(f"{key + 7 * i}", timestamp_us, value) for i in range(batch)]
            merge(on_disk, some)
        assert on_disk.path is not None
        length = on_disk.path.with_name(f"{FILE_NAME}-wal").stat().st_size
        assert length < 3 * CHECKPOINT_PAGES * 4096
        on_disk.checkpoint()
        assert not on_disk.checkpoint_is_due()
        merge(on_disk, [record("k", timestamp_us)])
        with closing(sqlite3.connect(on_disk.path)) as other:
            _, logged, written_back = other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        assert logged == written_back < 10  # it began again from its start


def test_a_checkpoint_that_is_held_back_loses_nothing_and_is_made_up_for(
    on_disk: Store, tmp_path: Path
) -> None:
    some = [record(f"k{i:04}", i) for i in range(CHECKPOINT_PAGES)]
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM records").fetchall()  # it sees the log as it is now
        merge(on_disk, some)
        while not on_disk.checkpoint_is_due():
            merge(on_disk, some[:100])
        on_disk.checkpoint()
        assert not on_disk.checkpoint_is_due()
        assert held(on_disk) == some
        merge(on_disk, [record("k0000", CHECKPOINT_PAGES)])
    on_disk.checkpoint()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as other:
        _, logged, written_back = other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    assert logged == written_back
    with on_disk.transaction():
        on_disk.checkpoint()  # SQLite refuses it inside a transaction


def test_a_store_in_memory_has_no_log(memory: Store) -> None:
    for _ in range(CHECKPOINT_PAGES // 100):
        merge(memory, [record(f"k{i:04}", i) for i in range(100)])
    assert not memory.checkpoint_is_due()


# -- digests --------------------------------------------------------------------------------------------


@given(st.lists(records, unique_by=lambda r: r.key), st.randoms())
def test_a_digest_does_not_depend_on_order_or_pages(
    some: list[Record], order: random.Random
) -> None:
    shuffled = some[:]
    order.shuffle(shuffled)
    cut = order.randint(0, len(some))
    assert digest_of([shuffled[:cut], [], shuffled[cut:]]) == digest_of([some])


@given(close_records, close_records)
def test_digests_of_different_records_differ(one: Record, other: Record) -> None:
    if one.deleted and other.deleted:
        assert digest_of([[one]]) == digest_of([[other]]) == EMPTY_DIGEST
    else:
        assert (digest_of([[one]]) == digest_of([[other]])) is (one == other)


def test_a_digest_tells_a_swap_of_two_values() -> None:
    straight = [record("a", 1, "1"), record("b", 1, "2")]
    swapped = [record("a", 1, "2"), record("b", 1, "1")]
    assert digest_of([straight]) != digest_of([swapped])


def test_a_digest_counts_live_records_only() -> None:
    digest = digest_of([[record("a", 1), record("b", 2, ""), record("c", 3)]])
    assert digest.records == 2
    assert digest == digest_of([[record("a", 1), record("c", 3)]])
    assert len(digest.text) == 32


# -- opening --------------------------------------------------------------------------------------------


def test_the_directory_is_made_if_it_is_missing(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    Store.open(deep).close()
    assert (deep / FILE_NAME).exists()


def _in_a_file(directory: Path) -> Path:
    (directory / "file").write_text("not a directory")
    return directory / "file"


def _below_a_file(directory: Path) -> Path:
    return _in_a_file(directory) / "below"


def _directory_in_the_way(directory: Path) -> Path:
    (directory / FILE_NAME).mkdir()
    return directory


def _garbage(directory: Path) -> Path:
    (directory / FILE_NAME).write_bytes(b"this is not a database" * 1000)
    return directory


def _garbage_with_a_good_head(directory: Path) -> Path:
    Store.open(directory).close()
    file = directory / FILE_NAME
    file.write_bytes(file.read_bytes()[:100] + b"\xff" * 8000)
    return directory


def _cut_off(directory: Path) -> Path:
    Store.open(directory).close()
    file = directory / FILE_NAME
    file.write_bytes(file.read_bytes()[:4096])
    return directory


def _a_bit_flipped_in_the_schema(directory: Path) -> Path:
    Store.open(directory).close()
    file = directory / FILE_NAME
    file.write_bytes(file.read_bytes().replace(b"    value TEXT", b"    value UEXT"))
    return directory


def _facts_that_are_no_text(directory: Path) -> Path:
    Store.open(directory).close()
    file = directory / FILE_NAME
    with closing(sqlite3.connect(file)) as other:
        other.execute("INSERT INTO facts VALUES ('promised', 'SPOILED')")
        other.commit()
    content = file.read_bytes()
    at = content.index(b"promisedSPOILED")
    # In front of the two lie their types: 13 + 2 * length is a text, one less is a blob.
    assert content[at - 1] == 13 + 2 * len(b"SPOILED")
    file.write_bytes(content[: at - 1] + bytes([content[at - 1] - 1]) + content[at:])
    return directory


def _facts_that_contradict_each_other(directory: Path) -> Path:
    Store.open(directory).close()
    with closing(sqlite3.connect(directory / FILE_NAME)) as other:
        other.execute("INSERT INTO facts VALUES ('established', '1.a')")
        other.commit()
    return directory


def _garbage_for_a_lock(directory: Path) -> Path:
    (directory / LOCK_NAME).write_bytes(b"this is not a database" * 1000)
    return directory


def _another_programs(directory: Path) -> Path:
    with closing(sqlite3.connect(directory / FILE_NAME)) as other:
        other.execute("CREATE TABLE records (id INTEGER)")
    return directory


def _a_later_format(directory: Path) -> Path:
    Store.open(directory).close()
    with closing(sqlite3.connect(directory / FILE_NAME)) as other:
        other.execute(f"PRAGMA user_version = {FORMAT + 1}")
    return directory


@pytest.mark.parametrize(
    "make",
    [
        _in_a_file,
        _below_a_file,
        _directory_in_the_way,
        _garbage,
        _garbage_with_a_good_head,
        _cut_off,
        _a_bit_flipped_in_the_schema,
        _facts_that_are_no_text,
        _facts_that_contradict_each_other,
        _garbage_for_a_lock,
        _another_programs,
        _a_later_format,
    ],
)
def test_a_directory_that_cannot_be_used_is_a_setting_error_that_says_why(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    directory = make(tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(SettingError) as refusal:
        Store.open(directory).close()
    said = str(refusal.value)
    assert said.startswith(f"DATA_DIR={str(directory)!r}: expected ")
    assert len(said.splitlines()) == 1
    for file, content in before.items():
        assert file.read_bytes() == content


def test_two_nodes_do_not_share_a_directory(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        with pytest.raises(SettingError, match=r"^DATA_DIR=.*another node is using it"):
            Store.open(tmp_path)
        merge(store, [record("a", 1)])
    with closing(Store.open(tmp_path)) as store:
        assert held(store) == [record("a", 1)]


def test_a_file_of_ours_says_so() -> None:
    with TemporaryDirectory() as directory:
        Store.open(Path(directory)).close()
        with closing(sqlite3.connect(Path(directory) / FILE_NAME)) as other:
            assert other.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
            assert other.execute("PRAGMA user_version").fetchone() == (FORMAT,)
            assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# -- lists, tombstones, staging -------------------------------------------------------------------------


@given(
    some=st.lists(
        st.builds(
            Record,
            keys | st.text("ab", min_size=1, max_size=4),
            st.sampled_from(["", "1"]),
            close_versions,
        )
    ),
    prefix=st.text("ab\U0010ffff", max_size=2),
    after=st.text("ab", max_size=3),
)
def test_a_list_has_the_live_keys_with_its_prefix(
    some: list[Record], prefix: str, after: str
) -> None:
    with closing(Store.open(None)) as store:
        merge(store, some)
        live = [one for one in shown(modelled(some)) if not one.deleted and one.key > after]
        page = store.page_by_key(after, 10**6, 10**9, live_only=True, prefix=prefix)
        assert page == [one for one in live if one.key.startswith(prefix)]


@given(some=st.lists(close_records, max_size=12), floor=close_versions)
def test_a_purge_removes_the_tombstones_up_to_the_floor_and_nothing_else(
    some: list[Record], floor: Version
) -> None:
    last = Epoch(11, "z")
    with closing(Store.open(None)) as store:
        merge(store, some)
        with store.transaction():
            store.set_state(
                NodeState(promised=last, established=last, watermark=floor, floor=floor)
            )
        gone = [one for one in modelled(some) if one.deleted and one.version <= floor]
        counts = []
        for _ in range(3):
            with store.transaction():
                counts.append(store.purge(1))
        assert counts == [1] * min(3, len(gone)) + [0] * (3 - min(3, len(gone)))
        with store.transaction():
            store.purge(10**6)
        assert held(store) == [one for one in modelled(some) if one not in gone]


@given(own=st.lists(close_records, max_size=6), other=st.lists(close_records, max_size=6))
def test_what_was_staged_is_merged_and_what_was_held_beyond_it_is_told(
    own: list[Record], other: list[Record]
) -> None:
    with closing(Store.open(None)) as store:
        merge(store, own)
        with store.transaction():
            store.begin_staging()
            store.stage(other)
        assert held(store) == modelled(own)
        with store.transaction():
            strays = store.staged_strays()
            store.merge_staged()
            store.end_staging()
        assert held(store) == modelled([*own, *other])
        theirs = {one.key: one for one in modelled(other)}
        expected = [
            (one, theirs.get(one.key))
            for one in modelled(own)
            if wins(one, theirs.get(one.key)) and not (one.deleted and one.key not in theirs)
        ]
        assert sorted(strays, key=lambda stray: stray[0]) == expected


# -- a database that is broken --------------------------------------------------------------------------


def test_a_database_that_breaks_is_said_to_be_broken_by_every_read(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        merge(store, [record(f"k{i:04}", i, f'"{"x" * 500}"') for i in range(500)])
    file = tmp_path / FILE_NAME
    size = file.stat().st_size
    with file.open("r+b") as broken:  # all but the first pages, which tell what the file is
        broken.seek(8 * 4096)
        broken.write(b"\xff" * (size - 8 * 4096))
    with closing(Store.open(tmp_path)) as store:
        reads: list[Callable[[], object]] = [
            lambda: store.get("k0250"),
            lambda: store.peek("k0250"),
            lambda: store.page_by_key("", 10**6, 10**9),
            lambda: store.page_by_version(None, 10**6, 10**9),
            lambda: store.count_after(NO_VERSION, 10**6),
            store.greatest_version,
        ]
        for read in reads:
            with pytest.raises(StorageFailed, match="could not read its database"):
                read()
