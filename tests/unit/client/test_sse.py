"""Server-sent events are read as the standard says, whatever pieces the network makes of them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trikv.protocol.sse import Event, EventParser, TooLong


def parse(chunks: list[bytes]) -> list[Event]:
    return parse_with(EventParser(), chunks)


def parse_with(parser: EventParser, chunks: list[bytes]) -> list[Event]:
    return [event for chunk in chunks for event in parser.feed(chunk)]


def read_whole(body: bytes) -> list[Event]:
    """The standard, word for word, on a stream that is there as a whole."""
    text = body.decode("utf-8", "replace")
    lines = re.split(r"\r\n|\n|\r", text[1:] if text.startswith("\ufeff") else text)[:-1]
    events, kind, data, last_id = [], "", "", ""
    for line in lines:
        if line == "":
            if data != "":
                events.append(Event(kind or "message", data[:-1], last_id))
            kind = data = ""
        elif line.startswith(":"):
            pass
        else:
            name, _, value = line.partition(":")
            if value.startswith(" "):
                value = value[1:]
            if name == "event":
                kind = value
            elif name == "data":
                data += value + "\n"
            elif name == "id" and "\0" not in value:
                last_id = value
    return events


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"data: one\n\n", [("message", "one", "")]),
        (b"data:one\r\rdata: two\r\n\r\n", [("message", "one", ""), ("message", "two", "")]),
        (b"event: change\nid: 7\ndata: {\ndata:  }\n\n", [("change", "{\n }", "7")]),
        (b": comment\n\nid: 1\n\ndata\n\n", [("message", "", "1")]),
        (b"id: a\x00b\ndata: x\n\n", [("message", "x", "")]),
        (b"\xef\xbb\xbfdata: bom\n\n", [("message", "bom", "")]),
        (b"data: a\r\ndata: b\r\n\r\n", [("message", "a\nb", "")]),
        (b"retry: 10\nnonsense\ndata: x\n\n", [("message", "x", "")]),
        (b"data: cut short\n", []),
        (b"data: \xff\n\n", [("message", "\ufffd", "")]),
    ],
)
def test_events_are_read_as_the_standard_says(
    body: bytes, events: list[tuple[str, str, str]]
) -> None:
    assert parse([body]) == [Event(*event) for event in events]
    assert parse([bytes([byte]) for byte in body]) == [Event(*event) for event in events]


BYTES = [b"\r", b"\n", b"\r\n", b":", b" ", b"data", b"data: ", b"event: e", b"id: ", b"\0", b"x"]
TORN = [b"\xc3", b"\xa4", b"\xef\xbb\xbf", "𝄞".encode(), b"\xff", b"", b"retry: 1"]
pieces = st.sampled_from([*BYTES, *TORN])


@given(st.lists(pieces, max_size=60), st.data())
def test_fuzz_any_stream_in_any_pieces_reads_like_the_whole(
    parts: list[bytes], data: st.DataObject
) -> None:
    body = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    chunks = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    whole = read_whole(body)
    assert parse(chunks) == whole


def test_an_event_without_an_end_is_not_kept_for_ever() -> None:
    parser = EventParser(max_event_bytes=1000)
    for _ in range(100):
        assert parser.feed(b": comments are not kept, however many\n") == []
    with pytest.raises(TooLong):
        parse_with(parser, [b"data: a line of it\n"] * 100)
    with pytest.raises(TooLong):
        EventParser(max_event_bytes=1000).feed(b"x" * 1001)
