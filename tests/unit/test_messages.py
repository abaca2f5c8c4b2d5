"""What travels arrives as it left; what does not fit is refused with the field's name.

The bad bodies are in `test_web_bad_input`, through the real app.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.strategies import (
    encoded_values,
    entries,
    epochs,
    json_values,
    keys,
    records,
    versions,
)
from trikv.errors import InvalidBody, InvalidKey, TooLarge
from trikv.model.record import MAX_KEY_BYTES, Entry, Record, entries_of
from trikv.model.version import PLAIN_EPOCH, Epoch, Version
from trikv.protocol import json_value
from trikv.protocol.messages import (
    LARGEST_VALUE_BYTES,
    MAX_BATCH_BYTES,
    MAX_REPLICATE_BODY_BYTES,
    MAX_REPLICATE_RECORDS,
    Batch,
    LeaderName,
    RecordsAnswer,
    ReplicaAnswer,
    check_key,
    check_key_bytes,
    decode_record,
    decode_replicate,
    encode_batch,
    encode_entry,
    encode_map,
    encode_record,
    encode_records_page,
)
from trikv.protocol.requests import LagBody, PutBody, QuorumBody, decode_body

BOSS = LeaderName("boss", "http://boss:8000")
EPOCH = Epoch(3, "a")
SAME = [Record(key, "1", Version(EPOCH, us)) for key in "abc" for us in (1, 2)]


def held_by(batch: Batch) -> list[Record]:
    return [record for entry in batch.entries for record in entry.records]


@given(st.lists(entries, max_size=5), epochs.filter(lambda epoch: epoch.number >= 1))
def test_a_batch_arrives_as_it_left(some: list[Entry], epoch: Epoch) -> None:
    body = encode_batch(BOSS, epoch, [encode_entry(entry) for entry in some])
    batch = decode_replicate(body)
    assert isinstance(batch, Batch)
    assert batch._replace(entries=[]) == Batch(BOSS, epoch, [])
    assert sorted(held_by(batch)) == sorted(r for entry in some for r in entry.records)


@given(st.lists(records | st.sampled_from(SAME), max_size=9))
def test_records_are_the_same_in_entries_in_their_order(some: list[Record]) -> None:
    assert [record for entry in entries_of(some) for record in entry.records] == some


def test_several_values_of_one_write_travel_in_short_and_what_it_deletes_beside_them() -> None:
    text = encode_entry(Entry(Version(EPOCH, 7), [("a", "1"), ("b", ""), ('"', '"v"')]))
    assert text == (
        r'{"version":"3.a-7","values":{"a":1,"\"":"v"}},{"key":"b","version":"3.a-7","deleted":true}'
    )
    one = Entry(Version(EPOCH, 7), [("a", ""), ("b", "null")])
    assert encode_entry(one) == ",".join(map(encode_record, one.records))


@given(st.lists(records, max_size=5), st.none() | versions)
def test_a_page_arrives_as_it_left(some: list[Record], following: Version | None) -> None:
    page = decode_body(encode_records_page(some, following), RecordsAnswer)
    assert [decode_record(record, "record") for record in page.records] == some
    assert page.next == (None if following is None else str(following))


@given(st.lists(records, unique_by=lambda record: record.key, max_size=5))
def test_a_map_shows_what_is_not_deleted(some: list[Record]) -> None:
    shown = json.loads(f"{{{encode_map(some)}}}")
    assert shown == {r.key: json.loads(r.value) for r in some if not r.deleted}


def test_a_deleted_record_and_one_that_is_null_are_told_apart() -> None:
    version = Version(EPOCH, 7)
    assert encode_record(Record("k", "", version)) == '{"key":"k","version":"3.a-7","deleted":true}'
    assert (
        encode_record(Record("k", "null", version)) == '{"key":"k","version":"3.a-7","value":null}'
    )


def test_a_leader_without_a_url_of_its_own_may_lead() -> None:
    batch = decode_replicate(encode_batch(LeaderName("boss"), EPOCH, []))
    assert batch == Batch(LeaderName("boss", None), EPOCH, [])


@given(keys.filter(lambda key: not key.startswith("\0")), json_values)
def test_the_plain_form_becomes_a_record_below_every_leaders(key: str, value: Any) -> None:
    body = json.dumps({"key": key, "value": value, "timestamp": 1700000000.123456}).encode()
    record = decode_replicate(body)
    assert record == Record(
        key, json_value.encode(value, "value"), Version(PLAIN_EPOCH, 1_700_000_000_123_456)
    )
    assert record.version < Version(Epoch(1, "0"), 0)


@given(st.floats(0, 9e9))
def test_plain_timestamps_are_kept_to_the_microsecond(seconds: float) -> None:
    body = json.dumps({"key": "k", "value": 1, "timestamp": seconds}).encode()
    record = decode_replicate(body)
    assert isinstance(record, Record)
    assert abs(record.version.timestamp_us - seconds * 1e6) <= 1
    assert Version.parse(str(record.version)) == record.version


def test_a_plain_timestamp_may_be_a_whole_number() -> None:
    record = decode_replicate(b'{"key":"k","value":1,"timestamp":12}')
    assert isinstance(record, Record)
    assert record.version.timestamp_us == 12_000_000


def test_records_that_a_leader_took_over_from_the_plain_form_travel_too() -> None:
    record = Record("k", "1", Version(PLAIN_EPOCH, 5))
    batch = decode_replicate(encode_batch(BOSS, EPOCH, [encode_record(record)]))
    assert isinstance(batch, Batch)
    assert held_by(batch) == [record]


def test_nodes_may_exchange_reserved_keys_and_clients_may_not() -> None:
    record = Record("\0members", "1", Version(EPOCH, 1))
    batch = decode_replicate(encode_batch(BOSS, EPOCH, [encode_record(record)]))
    assert isinstance(batch, Batch)
    assert held_by(batch) == [record]
    with pytest.raises(InvalidKey, match="reserved"):
        check_key("\0members")


@pytest.mark.parametrize(
    "key", ["k", "k" * MAX_KEY_BYTES, "é" * (MAX_KEY_BYTES // 2), "a\0b", "\n"]
)
def test_a_key_is_1_to_512_bytes_of_utf8(key: str) -> None:
    check_key(key)


@pytest.mark.parametrize(
    "key", ["", "k" * (MAX_KEY_BYTES + 1), "é" * (MAX_KEY_BYTES // 2) + "x", "\ud800"]
)
def test_any_other_key_is_refused_and_the_field_named(key: str) -> None:
    with pytest.raises(InvalidKey, match=r"records\[3\]\.key: expected") as refusal:
        check_key_bytes(key, "records[3].key")
    assert refusal.value.extra == {"field": "records[3].key"}
    assert len(refusal.value.detail) < 200


def test_client_bodies_take_their_fields_and_no_others() -> None:
    assert decode_body(b'{"value":null}', PutBody) == PutBody(None)
    assert decode_body(b'{"write_quorum":3}', QuorumBody) == QuorumBody(3)
    lag = b'{"min_delay_ms":0,"max_delay_ms":1.5,"follower":null}'
    assert decode_body(lag, LagBody) == LagBody(0, 1.5, None)
    with pytest.raises(InvalidBody, match="'vlaue': unknown field; known here: value"):
        decode_body(b'{"value":1,"vlaue":1}', PutBody)


def test_bodies_between_nodes_may_hold_fields_of_a_newer_version() -> None:
    body = b'{"node_id":"n","promised":"1.a","records":3,"digest":"00","more":1}'
    assert decode_body(body, ReplicaAnswer) == ReplicaAnswer("n", "1.a", 3, "00")


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        (
            b"[]",
            "$",
            "the body: Expected `object`, got `array`; "
            'expected {"leader": …, "epoch": …, "records": …}',
        ),
        (b"{}", "leader", "leader: required, but missing"),
        (b'{"leader":{}}', "leader.node_id", "leader.node_id: required, but missing"),
        (
            b'{"leader":{"node_id":"n"},"epoch":"1.a","records":[{"key":1}]}',
            "records[0].key",
            "records[0].key: Expected `str`, got `int`",
        ),
    ],
)
def test_an_error_names_the_field_and_what_was_expected(body: bytes, field: str, said: str) -> None:
    with pytest.raises(InvalidBody) as refusal:
        decode_replicate(body)
    assert refusal.value.detail == said
    assert refusal.value.extra == {"field": field}


@given(encoded_values)
def test_a_records_text_is_its_value_as_stored(value: str) -> None:
    assert f'"value":{value}}}' in encode_record(Record("k", value, Version(EPOCH, 1)))


def test_the_largest_batch_fits_the_bound_on_its_body() -> None:
    # A batch is closed once it holds MAX_BATCH_BYTES; the last record to go in may be the largest.
    largest = encode_record(Record("\x01" * MAX_KEY_BYTES, "", Version(EPOCH, 1)))
    assert MAX_BATCH_BYTES + LARGEST_VALUE_BYTES + len(largest) < MAX_REPLICATE_BODY_BYTES


LARGEST = f'"{"x" * (LARGEST_VALUE_BYTES - 2)}"'


def test_the_largest_value_travels_and_a_larger_one_is_refused() -> None:
    def body(*values: str) -> bytes:
        entry = Entry(Version(EPOCH, 1), [(str(i), value) for i, value in enumerate(values)])
        return encode_batch(BOSS, EPOCH, [encode_entry(entry)])

    batch = decode_replicate(body(LARGEST))
    assert isinstance(batch, Batch)
    assert held_by(batch) == [Record("0", LARGEST, Version(EPOCH, 1))]
    larger = f'"x{LARGEST[1:]}'
    with pytest.raises(TooLarge, match=rf"^records\[0\]\.value: .* {LARGEST_VALUE_BYTES} bytes"):
        decode_replicate(body(larger))
    with pytest.raises(TooLarge, match=r"^records\[0\]\.values: expected at most"):
        decode_replicate(body("1", larger))
    plain = b'{"key": "a", "timestamp": 1, "value": %b}'
    assert isinstance(decode_replicate(plain % LARGEST.encode()), Record)
    with pytest.raises(TooLarge, match=r"^value: expected at most"):
        decode_replicate(plain % larger.encode())


@pytest.mark.parametrize("together", [True, False], ids=["of one write", "each alone"])
def test_more_records_than_any_leader_sends_are_refused(together: bool) -> None:
    def body(count: int) -> bytes:
        pairs = [(str(i), "1") for i in range(count)]
        if together:
            entries = [Entry(Version(EPOCH, 1), pairs)]
        else:
            entries = [Entry(Version(EPOCH, i + 1), [pair]) for i, pair in enumerate(pairs)]
        return encode_batch(BOSS, EPOCH, list(map(encode_entry, entries)))

    whole = decode_replicate(body(MAX_REPLICATE_RECORDS))
    assert isinstance(whole, Batch)
    assert len(held_by(whole)) == MAX_REPLICATE_RECORDS
    expected = (
        rf"^records: expected at most {MAX_REPLICATE_RECORDS}, got {MAX_REPLICATE_RECORDS + 1}"
    )
    with pytest.raises(InvalidBody, match=expected):
        decode_replicate(body(MAX_REPLICATE_RECORDS + 1))
