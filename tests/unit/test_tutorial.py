"""What the tutorial tells to type can be typed: commands and options are there, and so are routes."""

from __future__ import annotations

import re
import shlex
from urllib.parse import urlsplit

import pytest

from tests.unit.test_docs import TUTORIAL, text_of
from trikv.cli.main import trikv
from trikv.web.routes import ROUTES

LINES = re.findall(
    r"^(?:\$ .*|[.]venv/bin/trikv .*|curl .*|WRITTEN=.*)$", text_of(TUTORIAL), re.MULTILINE
)
#: What is typed, wherever in a line: after a prompt, in a loop, in a substitution, beside others.
TYPED = [
    typed
    for line in LINES
    for typed in re.findall(
        r"(?:^|^\$ |^[.]venv/bin/|; |do |until |\$\()((?:trikv|curl) [^;)]*)", line
    )
]
COMMANDS = [part for part in TYPED if part.startswith("trikv ")]
REQUESTS = [part for part in TYPED if part.startswith("curl ")]


def test_it_tells_of_all_that_it_should() -> None:
    told = {shlex.split(command)[1] for command in COMMANDS}
    assert told >= {"cluster", "quorum", "bench", "lag", "put", "get", "status", "cut", "heal"}
    assert len(REQUESTS) >= 6


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_that_there_is(command: str) -> None:
    _, name, *words = shlex.split(command)
    found = trikv.commands[name]
    with found.make_context(name, words):  # which reads the words, and does nothing
        pass


@pytest.mark.parametrize("request_", REQUESTS)
def test_every_request_goes_to_a_route(request_: str) -> None:
    words = shlex.split(request_)
    method = words[words.index("-X") + 1] if "-X" in words else "GET"
    (url,) = [word for word in words if word.startswith("http://127.0.0.1:800")]
    path = urlsplit(url).path
    assert "min_version=1" not in url, "nobody else's cluster issues the version of this page"
    assert any(
        route.method == method and re.fullmatch(route.path.replace("{key}", ".+"), path)
        for route in ROUTES
    )


def test_what_a_healed_wire_brings_is_waited_for() -> None:
    """A block is pasted at once: a read right behind `trikv heal` is answered 404 now and then."""
    for block in re.findall(
        r"^```console\n(.*?)^```$", text_of(TUTORIAL), re.DOTALL | re.MULTILINE
    ):
        for read in re.findall(
            r"^\$ trikv heal .*?^\$ ([^\n]*curl[^\n]*)", block, re.DOTALL | re.MULTILINE
        ):
            assert read.startswith("until curl -sf "), read


def test_what_is_to_be_pasted_at_once_is_nothing_but_commands() -> None:
    (block,) = re.findall(r"Paste these[^`]*^```(.*?)^```$", text_of(TUTORIAL), re.DOTALL | re.M)
    language, *lines = block.splitlines()
    assert language == "sh"
    assert len(lines) == 4
    assert not [line for line in lines if line.startswith(("$ ", "{"))]
