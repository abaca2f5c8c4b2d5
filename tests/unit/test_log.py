"""One line an event, readable for people and programs, and nobody else's lines in another form."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from trikv import log

Lines = Callable[[], list[str]]


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    """What has been written to standard error since; logging is put back afterwards."""
    root = logging.getLogger()
    handlers, level, own_level = root.handlers[:], root.level, log.logger.level

    def written() -> list[str]:
        log.flush()
        return capfd.readouterr().err.splitlines()

    yield written
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    log.logger.setLevel(own_level)


def test_an_event_is_one_line_with_its_time_level_name_and_fields(lines: Lines) -> None:
    log.set_up("INFO")
    log.info("link.live", follower="http://f1:8000", records=3, seconds=0.25)
    (line,) = lines()
    moment, rest = line.split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment)
    assert rest == "INFO link.live follower=http://f1:8000 records=3 seconds=0.25"


@pytest.mark.parametrize(
    "text", ["two words", 'a "quote"', "a=b", "back\\slash", "", "a\nb", "a\rb"]
)
def test_a_value_that_would_not_stand_alone_is_written_as_json(lines: Lines, text: str) -> None:
    log.set_up("INFO")
    log.info("event", field=text)
    (line,) = lines()
    assert json.loads(line.partition("field=")[2]) == text


def test_an_exception_stays_on_its_events_line(lines: Lines) -> None:
    log.set_up("INFO")
    try:
        raise RuntimeError("first\nsecond")
    except RuntimeError as error:
        log.logger.error("request.failed", exc_info=error, extra={"fields": {"path": "/kv/a"}})
    (line,) = lines()
    assert "ERROR request.failed path=/kv/a exception=" in line
    assert "RuntimeError: first\nsecond" in json.loads(line.partition("exception=")[2])


def test_debug_is_silent_at_info(lines: Lines) -> None:
    log.set_up("INFO")
    log.event(logging.DEBUG, "connection.failed", error="x")
    assert lines() == []


def test_a_level_can_be_raised(lines: Lines) -> None:
    log.set_up("WARNING")
    log.info("node.started")
    log.warning("link.down")
    (line,) = lines()
    assert "WARNING link.down" in line


def test_librarys_lines_have_the_same_form_and_start_at_warning(lines: Lines) -> None:
    log.set_up("INFO")
    logging.getLogger("hypercorn").info("Running on %s", "http://x")
    logging.getLogger("hypercorn").warning("could not %s", "do it")
    (line,) = lines()
    assert line.endswith('WARNING log logger=hypercorn message="could not do it"')


#: C0, DEL, C1 (CSI, OSC, NEL), a zero-width space, ends of lines, and what turns the direction.
UNSEEN = "\x00\x1b\x7f\x85\x9b\x9d\u200b\u2028\u2029\u202e\u2066\ufeff\U000e0041"


@pytest.mark.parametrize("character", UNSEEN, ids=lambda character: f"U+{ord(character):04X}")
def test_what_a_terminal_would_obey_or_not_show_is_escaped(lines: Lines, character: str) -> None:
    log.set_up("INFO")
    text = f"a{character}b"
    log.info("event", field=text)
    logging.getLogger("library").warning("%s", text)
    for line in lines():
        assert line.isprintable()
        assert json.loads(re.split("field=|message=", line)[1]) == text


def test_other_scripts_stand_as_they_are(lines: Lines) -> None:
    log.set_up("INFO")
    log.info("event", field="Grüße", other="ключ 鍵 مفتاح")
    (line,) = lines()
    assert line.endswith('event field=Grüße other="ключ 鍵 مفتاح"')


def test_a_lone_surrogate_is_no_reason_to_lose_a_line(lines: Lines) -> None:
    log.set_up("INFO")
    log.info("event", field="\ud800")
    (line,) = lines()
    assert line.endswith('field="\\ud800"')


def test_a_librarys_line_with_the_wrong_arguments_is_told_and_raises_nothing(lines: Lines) -> None:
    log.set_up("INFO")
    logging.getLogger("library").warning("%d", "no number")
    (line,) = lines()
    assert line.startswith("log.failed error=")


def test_a_trouble_is_logged_once_for_each_line_and_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    trouble = log.Trouble()
    assert trouble.is_news("link.down", "full")
    assert not trouble.is_news("link.down", "full")
    assert trouble.is_news("link.down", "refused")
    assert not trouble.is_news("link.down", "full")
    now_s = log.REPEAT_S - 1
    assert not trouble.is_news("link.down", "full")
    now_s = log.REPEAT_S
    assert trouble.is_news("link.down", "full")
    assert not trouble.is_news("link.down", "full")
    assert trouble.goes_on
    trouble.over()
    assert trouble.is_news("link.down", "full")


def test_a_trouble_whose_lines_differ_each_time_takes_no_more_memory() -> None:
    trouble = log.Trouble()
    for count in range(1000):
        assert trouble.is_news(str(count))
    assert len(trouble._logged_s) <= log.KEPT_LINES


def test_what_cannot_be_raised_is_logged(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    log.set_up("INFO")
    monkeypatch.setattr(sys, "unraisablehook", log.unraisable)

    class Finalized:
        def __del__(self) -> None:
            raise RuntimeError("at the end")

    one = Finalized()
    del one
    (line,) = lines()
    assert " ERROR unraisable where=" in line
    assert "RuntimeError: at the end" in line
