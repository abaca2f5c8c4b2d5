"""The map on SQLite: what is merged converges, what is committed stays, what is read is paged whole."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import apsw
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.unit.stored import EPOCH, held, merge, record, spoil_text
from tests.unit.strategies import close_epochs, close_records, close_versions, keys, records
from trikv.errors import StorageFailed
from trikv.model.node_state import NodeState
from trikv.model.record import RESERVED_PREFIX, Record, entries_of, wins
from trikv.model.version import NO_EPOCH, NO_VERSION, PLAIN_EPOCH, Epoch, Version
from trikv.storage.database import FILE_NAME
from trikv.storage.digest import EMPTY_DIGEST
from trikv.storage.store import Store

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


def promise(store: Store, epoch: Epoch) -> None:
    store.set_state(store.state._replace(promised=epoch))


class HalfWay(Exception):
    """What goes wrong in the middle of a transaction."""


def change_half_way(store: Store, some: Iterable[Record], epoch: Epoch) -> None:
    """Change everything there is to change, then fail."""
    with store.transaction():
        store.merge(entries_of(some))
        promise(store, epoch)
        raise HalfWay


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


@pytest.mark.parametrize("many", [0, 1, 2])
def test_writes_of_many_keys_merge_by_the_same_rule(
    monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr("trikv.storage.record_table.MANY_PAIRS", many)
    check_convergence(StoreReplica)


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
            self.store.merge(entries_of(some))
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
        assert EMPTY_DIGEST.add(held(self.store)) == EMPTY_DIGEST.add(self.model.values())
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


def test_a_transaction_that_sqlite_has_ended_by_itself_fails_with_what_sqlite_said() -> None:
    # As it does on a full disk, or out of memory: then there is nothing left to roll back.
    with closing(Store.open(None)) as store:
        store._writer.execute(
            "CREATE TEMP TRIGGER full BEFORE INSERT ON records WHEN new.key = 'b'"
            " BEGIN SELECT RAISE(ROLLBACK, 'database or disk is full'); END"
        )
        before = store.state

        def fill() -> None:
            with store.transaction():
                store.set_state(before._replace(node_id="n1"))
                store.merge(entries_of([record("a", 1), record("b", 1)]))

        with pytest.raises(apsw.Error, match=r"^database or disk is full$"):
            fill()
        assert (store.get("a"), store.state) == (None, before)
        with store.transaction():
            store.merge(entries_of([record("a", 1)]))
        assert store.get("a") == record("a", 1)


def test_readers_see_committed_data_only(on_disk: Store) -> None:
    merge(on_disk, [record("a", 1)])
    with on_disk.transaction():
        on_disk.merge(entries_of([record("a", 2), record("b", 2)]))
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


@pytest.mark.parametrize("back", [False, True])
def test_a_page_and_the_rest_of_its_last_write_are_of_one_moment(
    on_disk: Store, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    """Commits run in another thread, and one of them may fall between any two statements."""
    merge(on_disk, [record(key, 1) for key in "abc"])
    rest_of = on_disk._whole_write

    def commit_first(page: list[Record], beyond: str) -> list[Record]:
        merge(on_disk, [record("a" if back else "c", 2)])
        return rest_of(page, beyond)

    monkeypatch.setattr(on_disk, "_whole_write", commit_first)
    if back:
        page = on_disk.page_back(NO_VERSION, None, 2, 10**6)
    else:
        page = on_disk.page_by_version(None, 2, 10**6)
    assert sorted(page) == [record(key, 1) for key in "abc"]


def test_a_synced_transaction_waits_for_the_disk_whatever_the_durability(tmp_path: Path) -> None:
    def level(store: Store) -> object:
        return store.database.writer.execute("PRAGMA synchronous").get

    with closing(Store.open(tmp_path, "os")) as store:
        with store.transaction():
            assert level(store) == 1  # NORMAL
        with store.transaction(synced=True):
            assert level(store) == 2  # FULL
        with pytest.raises(HalfWay), store.transaction(synced=True):
            raise HalfWay
        assert level(store) == 1


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
    with memory.shut_buffer():
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
    with closing(apsw.Connection(str(tmp_path / FILE_NAME))) as other:
        other.execute("PRAGMA busy_timeout = 0")
        (busy, _, _) = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").get
    assert busy == 0
    assert (tmp_path / f"{FILE_NAME}-wal").stat().st_size == 0


def test_no_statement_is_planned_anew_for_what_it_is_bound_to(on_disk: Store) -> None:
    planned: list[object] = []

    def asked(*what: object) -> int:  # whoever plans a statement asks first whether it may be run
        planned.append(what)
        return apsw.SQLITE_OK

    database = on_disk.database
    for connection in (database.writer, database.reader, database.pager):
        connection.authorizer = asked
    for i in range(10):
        if i == 2:
            assert planned
            planned.clear()
        one = record(f"k{i}", i)
        merge(on_disk, [one])
        assert on_disk.get(one.key) == on_disk.peek(one.key) == one
        assert on_disk.page_by_key(one.key, 9, 999) == []
        assert on_disk.page_by_version(one.version, 9, 999) == []
        with on_disk.transaction():
            assert on_disk.current(one.key) == one
    assert not planned


def test_a_list_does_not_walk_the_keys_below_its_prefix(memory: Store) -> None:
    merge(memory, [record(f"a{i:04}", i) for i in range(1_000)])
    merge(memory, [record("z", 1_000)])
    steps: list[int] = []

    def ran(event: dict[str, Any]) -> None:
        steps.append(event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"])

    memory._pager.trace_v2(apsw.SQLITE_TRACE_PROFILE, ran)
    for after in ("", "a0500", "y", "z"):
        assert memory.page_by_key(after, 9, 999, prefix="z") == (
            [] if after == "z" else [record("z", 1_000)]
        )
    assert len(steps) == 4
    assert max(steps) < 100


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


def test_a_text_that_is_spoilt_is_said_to_be_so_by_every_read(memory: Store) -> None:
    spoil_text(memory)
    reads: list[Callable[[], object]] = [
        lambda: memory.get("k"),
        lambda: memory.peek("k"),
        lambda: memory.page_by_key("", 9, 999),
        lambda: memory.page_by_version(None, 9, 999),
        memory.newest_version,
    ]
    for read in reads:
        with pytest.raises(StorageFailed, match=r"could not read its database: .*utf-8"):
            read()


def test_after_a_read_that_failed_half_way_the_next_sees_what_came_since(on_disk: Store) -> None:
    merge(on_disk, [record(f"k{i}", i) for i in range(5)])
    spoil_text(on_disk)
    with pytest.raises(StorageFailed) as failed:
        on_disk.page_by_key("", 9, 999)
    merge(on_disk, [record("new", 9)])
    assert on_disk.peek("new") == record(
        "new", 9
    )  # `failed` holds on to all that the read had open
    assert failed.value.__context__ is not None


def test_a_database_that_breaks_is_said_to_be_broken_by_every_read(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        merge(store, [record(f"k{i:04}", i, f'"{"x" * 500}"') for i in range(500)])
    file = tmp_path / FILE_NAME
    size = file.stat().st_size
    with closing(Store.open(tmp_path)) as store:
        with file.open("r+b") as broken:  # all but the first pages, which tell what the file is
            broken.seek(8 * 4096)
            broken.write(b"\xff" * (size - 8 * 4096))
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
