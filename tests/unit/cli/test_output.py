"""Tables, bars, colours, and texts that a terminal would obey."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.cli.console import Stream
from trikv.cli.output import (
    Cell,
    Output,
    bar,
    cells,
    clip,
    count,
    duration,
    milliseconds,
    pad,
    plural,
    shown_json,
    sparkline,
    table,
    visible,
)

TEXTS = st.text(st.characters(codec=None), max_size=30)


@given(TEXTS)
def test_what_is_shown_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    assert visible(text).isprintable()
    assert visible(text) == text or not text.isprintable()


@given(st.recursive(TEXTS | st.integers() | st.none(), st.lists, max_leaves=5))
def test_json_that_is_shown_is_the_same_json(value: object) -> None:
    for indent in (None, 2):
        shown = shown_json(value, indent=indent)
        assert json.loads(shown) == value
        assert all(line.isprintable() for line in shown.split("\n"))


@given(TEXTS.map(visible), st.integers(1, 40))
def test_a_text_that_is_cut_short_fits(text: str, width: int) -> None:
    cut = clip(text, width)
    assert cells(cut) <= width
    assert cut == text or cut.endswith("…")
    assert cells(pad(text, width)) == max(width, cells(text))


def test_wide_characters_and_marks_are_counted_as_a_terminal_does() -> None:
    assert [cells(text) for text in ("abc", "日本", "e\u0301", "")] == [3, 4, 1, 0]


ROWS: list[tuple[Cell, ...]] = [
    ("one", ("live", "green"), "12", "x" * 100),
    ("two", "", "1,200", "y"),
]
HEADS = ("name", "link", ">keys", "what")


def test_a_table_has_columns_and_fits_a_terminal() -> None:
    lines = table(HEADS, ROWS, width=40, coloured=False)
    assert lines[0] == "name  link   keys  what"
    assert lines[1] == "one   live     12  " + "x" * 20 + "…"
    assert lines[2] == "two         1,200  y"
    assert all(len(line) <= 40 for line in lines)
    assert table(HEADS, ROWS, width=None, coloured=False)[1].endswith("x" * 100)


def test_a_table_is_the_same_without_its_colours() -> None:
    plain = table(HEADS, ROWS, width=60, coloured=False)
    coloured = table(HEADS, ROWS, width=60, coloured=True)
    assert [without_colours(line) for line in coloured] == plain
    assert "\x1b[32mlive" in coloured[1]


def without_colours(line: str) -> str:
    while "\x1b[" in line:
        before, _, after = line.partition("\x1b[")
        line = before + after.partition("m")[2]
    return line


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    terminal: bool, environment: Mapping[str, str], coloured: bool
) -> None:
    output = Output(out=Stream(terminal=terminal), err=Stream(), environment=environment)
    assert output.coloured is coloured
    assert ("\x1b" in output.paint("x", "red")) is coloured
    as_json = Output(as_json=True, out=Stream(terminal=terminal), environment=environment)
    assert not as_json.coloured


def test_bars_show_whatever_is_not_nothing() -> None:
    assert [bar(fraction, 4) for fraction in (0, 0.001, 0.25, 0.3, 1, 2)] == [
        *("", "▏", "█", "█▎", "████", "████")
    ]
    assert sparkline([0, 1, 2, 4]) == "▁▂▄█"
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([]) == ""


def test_numbers_are_short() -> None:
    assert [milliseconds(value) for value in (0.04, 9.96, 12.3, 999.4, 1500, 90_000)] == [
        *("0.0 ms", "10.0 ms", "12 ms", "999 ms", "1.5 s", "90 s")
    ]
    assert [duration(value) for value in (0.1, 59.6, 121, 7300)] == [
        *("0.1 s", "60 s", "2 min", "2 h")
    ]
    assert [plural("follower", n) for n in (0, 1, 2)] == [
        "0 followers",
        "1 follower",
        "2 followers",
    ]
    assert count(1234567) == "1,234,567"
