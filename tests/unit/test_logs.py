"""One line an event, readable for people and programs, and nobody else's lines in another form."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator

import pytest

from trikv import logs

Lines = Callable[[], list[str]]


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    """What has been written to standard error since; logging is put back afterwards."""
    root = logging.getLogger()
    handlers, level, own_level = root.handlers[:], root.level, logs.logger.level
    yield lambda: capsys.readouterr().err.splitlines()
    root.handlers[:] = handlers
    root.setLevel(level)
    logs.logger.setLevel(own_level)


def test_an_event_is_one_line_with_its_time_level_name_and_fields(lines: Lines) -> None:
    logs.set_up("INFO")
    logs.info("link.live", follower="http://f1:8000", records=3, seconds=0.25)
    (line,) = lines()
    moment, rest = line.split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment)
    assert rest == "INFO link.live follower=http://f1:8000 records=3 seconds=0.25"


@pytest.mark.parametrize(
    "text", ["two words", 'a "quote"', "a=b", "back\\slash", "", "a\nb", "a\rb"]
)
def test_a_value_that_would_not_stand_alone_is_written_as_json(lines: Lines, text: str) -> None:
    logs.set_up("INFO")
    logs.info("event", field=text)
    (line,) = lines()
    assert json.loads(line.partition("field=")[2]) == text


def test_an_exception_stays_on_its_events_line(lines: Lines) -> None:
    logs.set_up("INFO")
    try:
        raise RuntimeError("first\nsecond")
    except RuntimeError as error:
        logs.logger.error("request.failed", exc_info=error, extra={"fields": {"path": "/kv/a"}})
    (line,) = lines()
    assert "ERROR request.failed path=/kv/a exception=" in line
    assert "RuntimeError: first\nsecond" in json.loads(line.partition("exception=")[2])


def test_debug_is_silent_at_info(lines: Lines) -> None:
    logs.set_up("INFO")
    logs.event(logging.DEBUG, "connection.failed", error="x")
    assert lines() == []


def test_a_level_can_be_raised(lines: Lines) -> None:
    logs.set_up("WARNING")
    logs.info("node.started")
    logs.warning("link.down")
    (line,) = lines()
    assert "WARNING link.down" in line


def test_librarys_lines_have_the_same_form_and_start_at_warning(lines: Lines) -> None:
    logs.set_up("INFO")
    logging.getLogger("hypercorn").info("Running on %s", "http://x")
    logging.getLogger("hypercorn").warning("could not %s", "do it")
    (line,) = lines()
    assert line.endswith('WARNING log logger=hypercorn message="could not do it"')
