"""Whatever comes in, each decoder returns something well formed or raises what it says that it raises.

One test for each thing that turns bytes or text from outside into something: bodies, versions, headers,
queries, settings, a database's file, what another node answers, what the load generator is told. An
exception that a decoder does not document fails the test by itself. What was accepted is looked at as
well: it must have the type that it claims, and survive the way out and in again.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
import trio
from hypothesis import assume, given
from hypothesis import strategies as st

from loadgen import api, options
from loadgen.errors import LoadgenError
from tests.unit import fuzzing as fuzz
from tests.unit.fuzzing import bodies_like, examples, odd_texts, shaped
from tests.unit.strategies import close_versions
from tests.unit.strategies import entries as any_entries
from trikv.config import SETTINGS, read_config
from trikv.errors import (
    BadRequest,
    InvalidBody,
    InvalidKey,
    InvalidParameter,
    MalformedJson,
    PeerFailed,
    SettingError,
    StorageFailed,
    Superseded,
)
from trikv.model import membership
from trikv.model.node_state import NodeState, facts_of, state_of
from trikv.model.operation import Precondition
from trikv.model.record import MAX_KEY_BYTES, Entry, Record, entries_of
from trikv.model.version import MAX_EPOCH_NUMBER, MAX_TIMESTAMP_US, Epoch, Version, is_instance
from trikv.network.peers import Candidate, Remote, decode_reply
from trikv.network.transport import HttpTransport, Reply
from trikv.protocol import canonical, json_value, messages, requests
from trikv.protocol.messages import Batch
from trikv.protocol.urls import base_url
from trikv.storage.database import FILE_NAME, LOCK_NAME
from trikv.storage.store import Store
from trikv.web import kv
from trikv.web.exchange import Request, boolean, key_of, parameters, query_of, version, whole
from trikv.web.kv import precondition_of

CLIENT_BODIES = [
    kind for kind in requests._ClientBody.__subclasses__() if kind is not requests.OperationBody
]
#: What each field of a client's body holds when it is right.
FIELDS = {
    "value": fuzz.values,
    "operations": fuzz.array_of(fuzz.operation),
    "write_quorum": st.integers(-1, 4).map(str),
    "force": st.sampled_from(["true", "false"]),
    "follower": fuzz.quoted(odd_texts),
    "cut": st.sampled_from(["true", "false"]),
    "min_delay_ms": st.integers(0, 9).map(str),
    "max_delay_ms": st.floats(0, 9).map(repr),
    "key": fuzz.quoted(fuzz.key_texts),
    "timestamp": st.integers(0, 9).map(str),
}


def check_reason(error: BadRequest) -> None:
    """A refusal names a field, in a text that can be sent."""
    assert isinstance(error.extra["field"], str)
    for text in (error.detail, error.extra["field"]):
        assert len(text.encode()) < 10_000
    assert "\n" not in error.detail


def check_version(found: Version) -> None:
    (number, instance), timestamp_us = found
    assert 0 <= number <= MAX_EPOCH_NUMBER
    assert 0 <= timestamp_us <= MAX_TIMESTAMP_US
    assert re.fullmatch("[0-9a-z]{1,32}", instance, re.ASCII)
    assert Version.parse(str(found)) == found


def check_record(found: Record) -> None:
    """A record that may be stored and sent on: its way out and in again changes nothing."""
    assert 1 <= len(found.key.encode()) <= MAX_KEY_BYTES
    check_version(found.version)
    sent = requests.decode_body(messages.encode_record(found).encode(), messages.WireRecord)
    assert messages.decode_record(sent, "record") == found


# -- bodies -----------------------------------------------------------------------------------------


@examples(300)
@given(bodies_like(fuzz.json_texts))
def test_a_body_is_a_value_that_can_be_kept_or_refused(body: bytes) -> None:
    try:
        value = json_value.decode(body)
    except MalformedJson:
        return None
    except InvalidBody as error:
        return check_reason(error)
    try:
        text = json_value.encode(value, "value")
    except InvalidBody as error:
        return check_reason(error)
    text.encode()
    assert json_value.encode(json_value.decode(text.encode()), "value") == text
    assert repr(fuzz.decoded(text.encode())) == repr(value) == repr(fuzz.decoded(body))
    return None


@pytest.mark.parametrize("kind", CLIENT_BODIES, ids=lambda kind: kind.__name__)
@examples(100)
@given(data=st.data())
def test_a_clients_body_has_its_types_or_is_refused(
    kind: type[msgspec.Struct], data: st.DataObject
) -> None:
    fields = {name: FIELDS[name] for name in kind.__struct_fields__}
    body = data.draw(bodies_like(shaped(fields)))
    try:
        found = requests.decode_body(body, kind)
    except MalformedJson:
        return
    except InvalidBody as error:
        return check_reason(error)
    given_names = set(json.loads(body))
    assert given_names <= set(kind.__struct_fields__)
    assert msgspec.convert(msgspec.to_builtins(found), kind, strict=True) is not None
    return None


@examples(400)
@given(bodies_like(fuzz.batch | fuzz.plain))
def test_what_is_to_be_replicated_is_well_formed_or_refused(body: bytes) -> None:
    try:
        found = messages.decode_replicate(body)
    except MalformedJson:
        return
    except (InvalidBody, InvalidKey) as error:
        return check_reason(error)
    if isinstance(found, Record):
        check_record(found)
        assert found.version.epoch.number == 0
        assert not found.key.startswith("\0")
        return None
    assert found.epoch.number >= 1
    for entry in found.entries:
        for one in entry.records:
            check_record(one)
    for bound in filter(None, (found.watermark, found.floor, found.confirmed)):
        check_version(bound)
    assert found.follower is None or is_instance(found.follower)
    leader, epoch, entries, follower, watermark, floor, established, confirmed = found
    sent = messages.encode_batch(
        leader,
        epoch,
        [messages.encode_entry(one) for one in entries],
        follower=follower,
        watermark=watermark,
        floor=floor,
        established=established,
        confirmed=confirmed,
    )
    assert messages.decode_replicate(sent) == found
    return None


@examples(100)
@given(bodies_like(fuzz.batch), st.data())
def test_a_real_batch_with_a_few_bytes_changed_is_well_formed_or_refused(
    other: bytes, data: st.DataObject
) -> None:
    some = data.draw(st.lists(any_entries, max_size=3))
    leader = messages.LeaderName("boss", "http://boss:1")
    real = messages.encode_batch(leader, Epoch(3, "a"), [messages.encode_entry(e) for e in some])
    body = data.draw(fuzz.mutated(st.just(real)))
    with suppress(BadRequest):
        found = messages.decode_replicate(body)
        for entry in found.entries if isinstance(found, Batch) else entries_of([found]):
            for one in entry.records:
                check_record(one)


def outcome(call: Callable[[], object]) -> object:
    """What it returns, or is refused with."""
    try:
        return call()
    except BadRequest as error:
        return type(error), error.detail, error.extra


_encoded_batches = st.builds(
    lambda entries, watermark: messages.encode_batch(
        messages.LeaderName("boss"),
        Epoch(1, "a"),
        [messages.encode_entry(one) for one in entries],
        watermark=watermark,
    ),
    st.lists(any_entries, max_size=4),
    st.none() | close_versions,
)


@examples(400)
@given(_encoded_batches | fuzz.mutated(_encoded_batches) | bodies_like(fuzz.batch))
def test_a_batch_that_is_read_at_a_glance_is_read_as_with_care(body: bytes) -> None:
    at_a_glance = outcome(lambda: messages.decode_replicate(body))
    assert at_a_glance == outcome(lambda: messages._decode_replicate(body))


_plain_operations = fuzz.array_of(
    st.sampled_from(
        [
            *('{"op":"put","key":"a","value":1}', '{"op":"delete","key":"b"}'),
            *(' { "op" : "put" , "key" : "c" , "value" : "d" } ', '{"op": "delete", "key": "a"}'),
            *(
                '{"op":"put","key":"e","value":[1.5]}',
                '{"op":"put","key":"\\n","value":"12345678"}',
            ),
        ]
    )
).map(lambda text: f'{{"operations":{text}}}'.encode())


@examples(400)
@given(
    _plain_operations
    | fuzz.mutated(_plain_operations)
    | bodies_like(shaped({"operations": fuzz.array_of(fuzz.operation)}))
)
def test_operations_that_are_read_at_a_glance_are_read_as_with_care(body: bytes) -> None:
    node: Any = SimpleNamespace(config=SimpleNamespace(max_value_bytes=9))
    at_a_glance = outcome(lambda: kv._operations(node, body))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canonical, "operations", lambda _: None)
        assert at_a_glance == outcome(lambda: kv._operations(node, body))


@examples(200)
@given(odd_texts | fuzz.epoch_texts | fuzz.version_texts)
def test_versions_and_epochs_have_one_text_form(text: str) -> None:
    for parse in (Version.parse, version, Epoch.parse):
        with suppress(ValueError):
            found = parse(text)
            assert str(found) == text
            check_version(found if isinstance(found, Version) else Version(found, 0))
    with suppress(InvalidBody):
        assert messages.decode_epoch(text).number >= 1


@examples(150)
@given(bodies_like(fuzz.configuration_record))
def test_a_configuration_is_one_that_can_be_or_refused(body: bytes) -> None:
    try:
        sent = requests.decode_body(body, messages.WireRecord)
        found = membership.decode(messages.decode_record(sent, "record").value)
    except (BadRequest, ValueError):
        return
    assert all(0 <= v.write_quorum < len(v.members) for v in found.all_voters)
    assert found.lacking(set()) >= 0
    assert membership.decode(membership.encode(found)) == found


@examples(100)
@given(
    st.dictionaries(st.sampled_from(NodeState._fields) | odd_texts, odd_texts | fuzz.version_texts)
)
def test_facts_are_a_state_or_refused(facts: dict[str, str]) -> None:
    with suppress(ValueError):
        state = state_of(facts)
        assert state_of(facts_of(state)) == state


# -- keys, queries, headers -------------------------------------------------------------------------


@examples(200)
@given(st.binary(max_size=20) | st.text("%0aAfFgGeE9\0+/.é", max_size=12).map(str.encode))
def test_a_raw_path_is_a_key_or_refused(raw: bytes) -> None:
    try:
        key = key_of(b"/kv/" + raw, b"/kv/")
    except InvalidKey as error:
        return check_reason(error)
    messages.check_key(key)
    escaped = "".join(f"%{byte:02x}" for byte in key.encode())
    assert key_of(f"/kv/{escaped}".encode(), b"/kv/") == key
    return None


@examples(200)
@given(
    st.binary(max_size=30)
    | st.text("a=&%01;+?#\0fF", max_size=20).map(str.encode)
    | st.lists(st.tuples(odd_texts, odd_texts), max_size=3).map(
        lambda pairs: "&".join(f"{a}={b}" for a, b in pairs).encode("utf-8", "replace")
    )
)
def test_a_query_is_parameters_or_refused(query: bytes) -> None:
    try:
        asked = parameters(
            Request(query=query_of(query)), a=boolean, b=whole(1, 9), limit=version, x=str
        )
    except InvalidParameter as error:
        return check_reason(error)
    assert set(asked) <= {"a", "b", "limit", "x"}
    return None


@examples(200)
@given(
    st.dictionaries(
        st.sampled_from(["if-match", "if-none-match"]),
        odd_texts | fuzz.version_texts.map('"{}"'.format) | st.text('*", 1.a-', max_size=12),
    )
)
def test_preconditions_are_understood_or_refused(headers: dict[str, str]) -> None:
    try:
        assert isinstance(precondition_of(Request(headers=headers)), Precondition)
    except InvalidParameter as error:
        check_reason(error)


# -- what other nodes answer ------------------------------------------------------------------------

ANSWERS: dict[type[msgspec.Struct], st.SearchStrategy[str]] = {
    messages.PromiseAnswer: fuzz.promise_answer(),
    messages.ReplicaAnswer: fuzz.replica_answer,
    messages.RecordsAnswer: fuzz.records_answer,
    messages.ReplicateAnswer: fuzz.replicate_answer,
}
statuses = st.sampled_from([200, 200, 200, 409, 409, 503, 100, 204, 302, 500, 999])


def check_failure(error: PeerFailed | Superseded, status: int) -> None:
    """What goes into a log, and to an operator."""
    assert len(error.detail.encode()) < 10_000
    if isinstance(error, Superseded):
        assert status != 200
        assert isinstance(error.extra["promised"], Epoch)


@pytest.mark.parametrize("kind", ANSWERS, ids=lambda kind: kind.__name__)
@examples(100)
@given(data=st.data(), status=statuses)
def test_an_answer_of_a_node_is_one_or_it_has_failed(
    kind: type[msgspec.Struct], data: st.DataObject, status: int
) -> None:
    body = data.draw(bodies_like(ANSWERS[kind] | fuzz.problem))
    try:
        found = decode_reply("http://peer", Reply(status, body), kind)
    except (PeerFailed, Superseded) as error:
        check_failure(error, status)
        return
    assert status == 200
    assert msgspec.json.encode(found)  # it may go on to a client


class _Answers:
    """A transport on which every request gets the next of these replies."""

    def __init__(self, replies: list[Reply]) -> None:
        self._replies = replies

    async def request(self, method: str, url: str, body: bytes | None = None, **_: Any) -> Reply:
        await trio.lowlevel.checkpoint()
        if not self._replies:
            raise PeerFailed(f"{url}: silent")
        return self._replies.pop(0)


def replies_like(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Reply]:
    return st.builds(Reply, statuses, bodies_like(fuzz.often(texts, fuzz.problem)))


@examples(200)
@given(
    st.tuples(
        replies_like(fuzz.promise_answer(st.just("2.a"))),
        replies_like(fuzz.replica_answer),
        replies_like(fuzz.records_answer),
        replies_like(fuzz.records_answer),
    )
)
def test_what_a_node_is_told_by_another_is_well_formed_or_that_has_failed(
    replies: tuple[Reply, ...],
) -> None:
    async def ask() -> None:
        remote = Remote(_Answers([*replies]), "http://peer", 1.0)
        candidate = Candidate(messages.LeaderName("me"), "a", "", Epoch(2, "a"))
        with suppress(PeerFailed, Superseded):
            promised = await remote.promise(candidate)
            assert promised.state.promised == Epoch(2, "a")
            promised.state.check_invariants()
        with suppress(PeerFailed, Superseded):
            summary = await remote.summary()
            assert summary.records >= 0
            json_value.encode([summary.digest, summary.node_id], "summary")  # it goes to a client
        with suppress(PeerFailed, Superseded):
            async for page in remote.pages():
                for one in page:
                    check_record(one)

    trio.run(ask)


# -- settings, and a database that is none ----------------------------------------------------------

_hosts = st.text("a.-_:[]0\u00e9\u2100", max_size=8) | st.just("a" * 64) | odd_texts
_urls = st.builds(
    "http{}://{}{}".format, st.sampled_from(["", "s"]), _hosts, odd_texts | st.just("")
)
settings_texts = st.one_of(odd_texts, _hosts, _urls, _urls.map("http://a,{}".format))


def check_setting(error: SettingError, *names: str) -> None:
    """The one line that an operator gets to see: it can be printed, and names a variable."""
    assert any(error.detail.startswith(f"{name}=") for name in names), error.detail
    assert "\n" not in error.detail
    error.detail.encode()


@examples(300)
@given(st.dictionaries(st.sampled_from([s.name for s in SETTINGS]), settings_texts, max_size=4))
def test_settings_are_read_or_one_is_named(environment: dict[str, str]) -> None:
    try:
        config = read_config(environment)
    except SettingError as error:
        return check_setting(error, *environment)
    assert all(base_url(url) == url for url in config.follower_urls)
    assert all(map(math.isfinite, (*config.lag, config.write_timeout_s)))
    assert 0 <= config.port <= 65535
    return None


@examples(60)
@given(_urls)
def test_every_url_that_settings_may_hold_can_be_asked(url: str) -> None:
    try:
        base = base_url(url)
        assume(not re.match(r"https?://[\[0-9]", base))  # that is an address, and may be anybody's
    except ValueError:
        return

    class NoNames(trio.abc.HostnameResolver):
        """A network on which no name is known."""

        async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
            raise OSError("no such name")

        async def getnameinfo(self, *_: Any) -> Any:
            raise OSError("no such name")

    async def ask() -> None:
        trio.socket.set_custom_hostname_resolver(NoNames())
        async with HttpTransport() as transport:
            with pytest.raises(PeerFailed):
                await transport.request("GET", f"{base}/replica", timeout_s=5)

    trio.run(ask)


def real_database() -> bytes:
    """A small database of ours, as it lies on the disk after a stop."""
    with TemporaryDirectory() as directory:
        store = Store.open(Path(directory), "os")
        with store.transaction():
            store.merge([Entry(Version(Epoch(1, "a"), 7), [("key", '"value"')])])
            store.set_state(
                NodeState("me", "abc", "c1", Epoch(2, "a"), Epoch(1, "a"))._replace(
                    watermark=Version(Epoch(1, "a"), 7), floor=Version(Epoch(1, "a"), 6)
                )
            )
        store.close()
        return (Path(directory) / FILE_NAME).read_bytes()


REAL_DATABASE = real_database()


WRITTEN = [at for at, byte in enumerate(REAL_DATABASE) if byte]
FACTS = [at for at in WRITTEN if at >= 4096]  # beyond the first page, which has the schema

spoiling = st.tuples(
    st.dictionaries(
        st.sampled_from(WRITTEN) | st.sampled_from(FACTS),
        st.just(1) | st.integers(1, 255),
        max_size=3,
    ),
    st.just(len(REAL_DATABASE)) | st.integers(0, len(REAL_DATABASE)),
)


def spoiled_database(changes: dict[int, int], size: int) -> bytes:
    """A database some of whose bits are others, cut off somewhere."""
    spoiled = bytearray(REAL_DATABASE)
    for at, bits in changes.items():
        spoiled[at] ^= bits
    return bytes(spoiled[:size])


@examples(300)
@given(
    spoiling,
    st.sampled_from([FILE_NAME, FILE_NAME, LOCK_NAME]),
    st.just(b"") | st.binary(max_size=99),
)
def test_a_file_that_is_no_database_of_ours_is_refused_or_read(
    changes: tuple[dict[int, int], int], name: str, rubbish: bytes
) -> None:
    content = rubbish or spoiled_database(*changes)
    with TemporaryDirectory() as directory:
        (Path(directory) / name).write_bytes(content)
        try:
            store = Store.open(Path(directory), "os")
        except SettingError as error:
            return check_setting(error, "DATA_DIR")
        try:
            store.state.check_invariants()
            with suppress(StorageFailed):
                for one in store.page_by_version(None, 100, 10_000):
                    assert isinstance(one, Record)
        finally:
            store.close()
    return None


# -- the load generator -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "check", [options.whole(0, 9), options.quorum_list, options.lag_range, options.leader_url]
)
@examples(60)
@given(text=odd_texts | _urls | st.text("0123-,. ", max_size=9))
def test_arguments_are_understood_or_refused(check: Callable[[str], object], text: str) -> None:
    with suppress(argparse.ArgumentTypeError):
        assert check(text) is not None


@examples(100)
@given(
    bodies_like(fuzz.json_texts | fuzz.problem),
    statuses.filter(lambda status: status != 100),
    st.sampled_from(["health", "write", "set_quorum", "set_lag", "replica_status"]),
)
def test_the_load_generator_survives_any_answer(body: bytes, status: int, asked: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=body)

    arguments = {"write": ("k", "v"), "set_quorum": (1,), "set_lag": (0, 1)}.get(asked, ())

    async def ask() -> None:
        transport = httpx.MockTransport(answer)
        async with api.Leader("http://leader", timeout_s=1, transport=transport) as leader:
            with suppress(LoadgenError):
                await getattr(leader, asked)(*arguments)

    trio.run(ask)
