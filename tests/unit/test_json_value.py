"""A JSON value comes back as it was, or is refused: nothing is bent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.strategies import json_values, texts
from trikv.errors import BadRequest, InvalidBody, MalformedJson
from trikv.protocol import json_value


def same(a: Any, b: Any) -> bool:
    """Equal, and of equal types all the way down: 1, 1.0 and true are three values, -0.0 is not 0.0."""
    return repr(a) == repr(b)


@given(json_values, st.booleans(), st.sampled_from([None, 2, "\t"]))
def test_any_value_comes_back_unchanged(value: Any, ascii_only: bool, indent: Any) -> None:
    sent = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    text = json_value.encode(json_value.decode(sent), "value")
    assert same(json.loads(text), value)


@given(json_values)
def test_the_stored_form_is_a_fixed_point(value: Any) -> None:
    text = json_value.encode(value, "value")
    assert json_value.encode(json_value.decode(text.encode()), "value") == text
    assert text
    assert "\n" not in text


@given(st.text('{}[]:,"\\ud8c0019eE+-.ntfalsru ', max_size=40))
def test_what_is_accepted_is_what_the_sender_meant(body: str) -> None:
    try:
        text = json_value.encode(json_value.decode(body.encode()), "value")
    except BadRequest:
        return
    assert same(json.loads(text), json.loads(body))


@given(st.binary())
def test_any_bytes_are_a_value_or_refused(body: bytes) -> None:
    try:
        text = json_value.encode(json_value.decode(body), "value")
    except BadRequest:
        return
    assert same(json.loads(text), json.loads(body))


def test_the_stored_form_is_compact_and_readable() -> None:
    value = json_value.decode(b' { "b" : [1, 2.50, -0.0, 1E2], "a" : "\\u00e9\\/" } ')
    assert json_value.encode(value, "value") == '{"b":[1,2.5,-0.0,100.0],"a":"é/"}'


def test_the_order_of_names_is_kept() -> None:
    text = '{"b":1,"a":2,"c":3}'
    assert json_value.encode(json_value.decode(text.encode()), "value") == text


def test_large_integers_are_exact() -> None:
    for digits in (20, 309, 4300):
        text = "7" * digits
        assert json_value.encode(json_value.decode(text.encode()), "value") == text


@pytest.mark.parametrize(
    "text", ["1.7976931348623157e+308", "5e-324", "2.2250738585072014e-308", "0.1", "1e-323"]
)
def test_floats_at_the_edges_are_exact(text: str) -> None:
    assert json_value.encode(json_value.decode(text.encode()), "value") == text


@pytest.mark.parametrize("text", ["0.0", "-0.0", "0e5", "0e-999", "0.000e999", "-0E+1"])
def test_zero_is_zero_however_it_is_written(text: str) -> None:
    assert json_value.decode(text.encode()) == 0


@pytest.mark.parametrize("body", [b"1e309", b"-1e309", b"[1e999]", b"1" + b"0" * 400 + b".0"])
def test_a_number_that_overflows_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidBody, match="too large"):
        json_value.decode(body)


@pytest.mark.parametrize("body", [b"1e-324", b"-1e-400", b"0.0001e-330", b"0." + b"0" * 400 + b"1"])
def test_a_number_that_vanishes_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidBody, match="too close to zero"):
        json_value.decode(body)


@pytest.mark.parametrize("body", [b"7" * 4301, b"-" + b"7" * 4301, b"[" + b"7" * 100_000 + b"]"])
def test_an_integer_beyond_4300_digits_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidBody, match="4300 digits"):
        json_value.decode(body)


@pytest.mark.parametrize("body", [b"NaN", b"Infinity", b"-Infinity", b"[1,NaN]"])
def test_what_is_not_finite_is_not_json(body: bytes) -> None:
    with pytest.raises(MalformedJson, match="finite"):
        json_value.decode(body)


@given(st.lists(texts, min_size=1, unique=True), st.data())
def test_a_name_that_stands_twice_is_refused(names: list[str], data: st.DataObject) -> None:
    twice = data.draw(st.sampled_from(names))
    pairs = ",".join(f"{json.dumps(name)}:1" for name in [*names, twice])
    with pytest.raises(InvalidBody, match="stands twice"):
        json_value.decode(f'[{{"a":{{{pairs}}}}}]'.encode())


@pytest.mark.parametrize(
    "body",
    [b'"\\ud800"', b'{"a":["\\udfff"]}', b'{"\\ud800":1}', b'"\\udc00\\ud800"', b'"\\uDBFFx"'],
)
def test_a_lone_surrogate_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidBody, match="my_field holds a lone surrogate") as refusal:
        json_value.encode(json_value.decode(body), "my_field")
    assert refusal.value.extra == {"field": "my_field"}


def nested(depth: int, kind: type) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


@pytest.mark.parametrize("kind", [list, dict])
def test_64_levels_are_taken_and_65_are_not(kind: type) -> None:
    json_value.encode(nested(64, kind), "value")
    json_value.encode([nested(63, kind)] * 3, "value")
    for depth in (65, 66, 500, 10_000):
        with pytest.raises(InvalidBody, match="value nests deeper than 64 levels"):
            json_value.encode(nested(depth, kind), "value")


def test_brackets_in_strings_do_not_nest() -> None:
    value = ["[{" * 500, {"[" * 200: "{" * 200}]
    assert json_value.encode(value, "value") == json.dumps(
        value, separators=(",", ":"), ensure_ascii=False
    )


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_bodies_that_nest_without_end_are_refused_before_they_hurt(opening: bytes) -> None:
    with pytest.raises(BadRequest):
        json_value.encode(json_value.decode(opening * 200_000), "value")


def test_an_error_says_where_a_body_stops_being_json() -> None:
    with pytest.raises(MalformedJson, match="line 2 column 3"):
        json_value.decode(b"{\n  x: 1}")
    with pytest.raises(MalformedJson, match=r"not UTF-8: .* at byte 2"):
        json_value.decode(b'["\xff"]')


def test_long_texts_are_clipped_in_errors() -> None:
    assert json_value.clip("a" * 40) == "a" * 40
    assert json_value.clip("a" * 41) == "a" * 37 + "..."
    with pytest.raises(InvalidBody) as refusal:
        json_value.decode(b'{"' + b"a" * 9999 + b'":1,"' + b"a" * 9999 + b'":2}')
    assert len(refusal.value.detail) < 200


@given(texts)
def test_a_string_is_encoded_as_a_value_would_be(text: str) -> None:
    assert json_value.encode_string(text) == json_value.encode(text, "value")


def test_a_repeated_name_is_found_in_time_that_grows_with_the_names() -> None:
    names = 300_000  # each looked for among all before it, this would take an hour
    fields = ",".join(f'"{index}":0' for index in range(names))
    with pytest.raises(InvalidBody, match=f"'{names - 1}' stands twice"):
        json_value.decode(f'{{{fields},"{names - 1}":1}}'.encode())


@given(json_values, st.booleans(), st.sampled_from([None, 2, "\t"]))
def test_no_value_is_smaller_than_is_found_without_decoding_it(
    value: Any, ascii_only: bool, indent: Any
) -> None:
    sent = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    stored = json_value.encode(value, "value").encode()
    assert json_value.least_encoded_bytes(sent) <= len(stored)
    assert (
        json_value.least_encoded_bytes(sent) == json_value.least_encoded_bytes(stored)
        or b"\\u" in sent
    )
