"""What is read at a glance, and what is left to be read with care. Both read alike: `test_fuzz_*`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from trikv.errors import InvalidBody
from trikv.model.record import Entry, Record
from trikv.model.version import Epoch, Version
from trikv.protocol import canonical, messages
from trikv.protocol.messages import LeaderName, encode_batch, encode_entry, encode_record

VERSION = Version(Epoch(3, "0f4c2a9d81e7"), 1_700_000_000_000_000)
PLAIN_VALUES = ['"v"', '""', '"é😀\x7f"', '"a, b: {[]}"', "0", "-17", "true", "false", "null", ""]
OTHER_VALUES = ["1.5", "[]", '{"a":1}', '"\\n"', '"\\""', "1" * 19]


def records_of(values: list[str]) -> list[Record]:
    return [Record(f"k{i}", value, VERSION) for i, value in enumerate(values)]


def text_of(records: list[Record]) -> str:
    return ",".join(map(encode_record, records))


def short(*pairs: tuple[str, str]) -> str:
    return encode_entry(Entry(VERSION, pairs))


def read(text: str) -> list[Record] | None:
    """What is read at a glance, one after the other."""
    found = canonical.entries(text)
    return None if found is None else [record for entry in found for record in entry.records]


def test_records_with_plain_values_are_read_at_a_glance_and_others_are_not() -> None:
    plain = records_of(PLAIN_VALUES)
    assert read(text_of(plain)) == plain
    assert read("") == []
    for value in OTHER_VALUES:
        assert read(text_of([*plain, *records_of([value])])) is None


def test_entries_in_short_are_read_at_a_glance_between_whatever_records() -> None:
    plain = records_of(PLAIN_VALUES)
    values = [record for record in plain if not record.deleted]
    brief, alone = encode_entry(Entry(VERSION, [(r.key, r.value) for r in values])), text_of(plain)
    assert brief.startswith('{"version":"3.0f4c2a9d81e7-1700000000000000","values":{"k0":"v",')
    for order in ([0], [0, 0], [0, 1], [1, 0], [1, 0, 1], [1, 0, 0, 1, 1, 0]):
        text = ",".join((brief, alone)[one] for one in order)
        assert read(text) == [record for one in order for record in (values, plain)[one]]
        for value in OTHER_VALUES:
            assert read(f"{text},{short(('a', '1'), ('b', value))}") is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text + ",",
        lambda text: "," + text,
        lambda text: text + " ",
        lambda text: text + text,
        lambda text: text[:-1],
        lambda text: text.replace("}},{", "}}{"),
        lambda text: text.replace("}},{", "}},,{"),
        lambda text: text.replace("}},{", "},{"),
        lambda text: text.replace('"b"', '"a"'),
        lambda text: text.replace('"b"', '"\\u0062"'),
        lambda text: text.replace('"b"', '""'),
        lambda text: text.replace('"b"', f'"{"b" * 129}"'),
        lambda text: text.replace('"values":{', '"values":{,'),
        lambda text: text.replace('"values":', '"values": '),
        lambda text: text.replace('"values":{"a":1,"b":"}}"}', '"values":{}'),
        lambda text: text.replace('"values"', '"deleted":true,"values"'),
        lambda text: text.replace("3.0f", "03.0f"),
        lambda text: text.replace("-17", "-x"),
    ],
)
def test_what_is_not_quite_an_entry_is_not_read_at_a_glance(spoil: Callable[[str], str]) -> None:
    text = ",".join([short(("a", "1"), ("b", '"}}"'))] * 2)
    assert read(text) == records_of_pairs([("a", "1"), ("b", '"}}"')] * 2)
    assert spoil(text) != text
    assert read(spoil(text)) is None


TEXTS = [("a", '"1"'), ("b", '"}}"'), ("é", '"😀\x7f"'), ("c" * 128, '""')]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace('"1"', '"\\u0031"'),
        lambda text: text.replace('"1"', '"\x1f"'),
        lambda text: text.replace('"1"', '"1" '),
        lambda text: text.replace('"1"', '"1",'),
        lambda text: text.replace('"1"', '["1"]'),
        lambda text: text.replace('"1"', "1.5"),
        lambda text: text.replace('"1"', '"1","a":"1"'),
        lambda text: text.replace('"1"', '"1"},{"a":"1"'),
        lambda text: text.replace('"1"', '"1"},"other":{"d":"1"'),
        lambda text: text.replace('{"a"', '{"b"'),
        lambda text: text.replace('{"a"', '{"\\u0061"'),
        lambda text: text.replace('{"a"', '{ "a"'),
        lambda text: text.replace('{"a"', '{""'),
        lambda text: text.replace('{"a"', '{"\n"'),
        lambda text: text.replace("ccc", "cccc", 1),
    ],
)
def test_what_is_not_quite_texts_in_short_is_not_read_at_a_glance(
    spoil: Callable[[str], str],
) -> None:
    text = short(*TEXTS)
    assert read(text) == records_of_pairs(TEXTS)
    assert spoil(text) != text
    assert read(spoil(text)) is None


def records_of_pairs(pairs: list[tuple[str, str]]) -> list[Record]:
    return [Record(key, value, VERSION) for key, value in pairs]


@pytest.mark.parametrize(
    "text",
    [
        text_of(records_of(["1", "2"])) + ",",
        "," + text_of(records_of(["1"])),
        text_of(records_of(["1"])) + " ",
        text_of(records_of(["1", "2"])).replace("},{", "}{"),
        text_of(records_of(["1", "2"])).replace("},{", "},,{"),
        text_of(records_of(["1"])).replace('"value"', '"Value"'),
        text_of(records_of(["1"])).replace(":1}", ":1,}"),
        text_of([Record("a\\b", "1", VERSION)]),
        text_of([Record("\0a", "1", VERSION)]),
        text_of([Record("a" * 129, "1", VERSION)]),
        text_of([Record("", "1", VERSION)]),
        text_of(records_of(["1"])).replace("3.0f", "03.0f"),
        text_of(records_of(["1"])).replace("3.0f", "9999999999.0f"),
    ],
)
def test_what_is_not_quite_a_record_is_not_read_at_a_glance(text: str) -> None:
    assert read(text) is None


def test_a_batch_of_plain_records_needs_no_careful_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    records = records_of(PLAIN_VALUES)
    leader = LeaderName("leader", "http://leader:1")
    told = {"follower": "0a", "watermark": VERSION, "floor": VERSION, "established": True}
    body = encode_batch(leader, VERSION.epoch, list(map(encode_record, records)), **told)  # type: ignore[arg-type]
    carefully = messages._decode_replicate(body)
    first = messages.decode_replicate(body)
    assert first == carefully
    monkeypatch.setattr(messages, "_decode_replicate", None)
    again = messages.decode_replicate(body)  # what it says of itself is known by now
    assert again == carefully
    assert isinstance(again, messages.Batch)
    assert isinstance(first, messages.Batch)
    assert again.entries is not first.entries  # as the batch may be changed by who has it


def test_what_is_wrong_with_a_batch_is_said_as_ever() -> None:
    body = encode_batch(LeaderName("leader"), Epoch(0, "a"), [text_of(records_of(["1"]))])
    with pytest.raises(InvalidBody, match="epoch number is at least 1"):
        messages.decode_replicate(body)
    with pytest.raises(InvalidBody, match=r"records\[0\]: expected either a value"):
        messages.decode_replicate(body.replace(b"0.a", b"1.a").replace(b"value", b"valve"))


OPERATIONS: list[dict[str, Any]] = [
    {"op": "put", "key": "a", "value": "text, {with} [all] kinds"},
    {"op": "delete", "key": "é"},
    {"op": "put", "key": "b" * 128, "value": None},
    {"op": "put", "key": "c", "value": 12},
]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" , ", " : ")])
def test_operations_are_read_at_a_glance_however_they_are_spaced(
    indent: int | None, separators: tuple[str, str]
) -> None:
    for operations in (OPERATIONS, OPERATIONS[:1], []):
        text = json.dumps(
            {"operations": operations}, indent=indent, separators=separators, ensure_ascii=False
        )
        expected = [
            (one["key"], json.dumps(one["value"]) if "value" in one else "") for one in operations
        ]
        assert canonical.operations(f" {text}\r\n".encode()) == expected


@pytest.mark.parametrize(
    "operation",
    [
        '{"op":"put","key":"a","value":1.5}',
        '{"op":"put","key":"a","value":1,"if_version":null}',
        '{"op":"put","key":"a"}',
        '{"op":"delete","key":"a","value":1}',
        '{"op":"delete","key":"a"},',
        '{"key":"a","op":"delete"}',
        '{"op":"Put","key":"a","value":1}',
        '{"op":"put","key":"\\u0061","value":1}',
        '{"op":"put","key":"","value":1}',
        "",
        "1",
    ],
)
def test_an_operation_that_is_not_plain_is_not_read_at_a_glance(operation: str) -> None:
    plain = '{"op":"put","key":"z","value":1}'
    assert canonical.operations(f'{{"operations":[{plain},{operation}]}}'.encode()) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"operations":[]',
        b'{"operations":[]}]',
        b'{"operations":[],"more":1}',
        b'\xef\xbb\xbf{"operations":[]}',
        b'{"operations":[{"op":"delete","key":"\xff"}]}',
        b'{"operations":[{"op":"delete","key":"\xed\xa0\x80"}]}',
        b"",
        b"[]",
    ],
)
def test_a_body_that_is_not_just_operations_is_not_read_at_a_glance(body: bytes) -> None:
    assert canonical.operations(body) is None


@pytest.mark.parametrize(
    "around",
    [
        "SPACE",
        '"x"SPACE',
        '{"op":"delete","key":"a"}SPACE1',
        '{"op":"delete","key":"a"},SPACE1',
        '{"op":"put"SPACE1',
        '{SPACE"op"SPACE:SPACE"put"SPACE,SPACE"key"SPACE:SPACE"a"SPACE,SPACE"value"SPACE:SPACE1SPACE1',
    ],
)
def test_much_space_is_read_but_once(around: str) -> None:
    """Read again from each of its characters, this much of it would take hours."""
    text = around.replace("SPACE", " " * 4_000_000)
    assert canonical.operations(f'{{"operations":[{text}]}}'.encode()) in (None, [])
