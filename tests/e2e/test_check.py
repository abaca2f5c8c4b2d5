"""`python -m loadgen --check` for real: processes killed, paused, cut off, emptied, replaced."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio

from loadgen.check.history import History, Shown
from loadgen.check.plan import KINDS
from loadgen.check.verdict import judge
from tests.e2e.test_loadgen import Place, read_until

#: Long enough for a few faults, too short for ten of each.
SHORT = ("--check", "--duration", "20", "--seed", "1")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def history_of(place: Place) -> History:
    return History.from_json((place.reports / "history.json").read_bytes())


def lose_what_was_confirmed(history: History) -> None:
    """As if the disks of all nodes had been emptied. (Of a single key it might be explained.)"""
    for shown in history.final.values():
        shown.clear()


def make_reads_stale(history: History) -> None:
    """As if linearizable reads showed what was first in a key."""
    first: dict[str, tuple[float, Shown]] = {}
    for call in sorted(history.calls, key=lambda call: call.answered or 0.0):
        if not call.ok or call.answered is None:
            continue
        for key, value in call.writes.items():
            if value is not None:
                first.setdefault(key, (call.answered, Shown(value, call.version)))
        for key in call.shown:
            if call.linearizable and key in first and first[key][0] < call.begun - 1:
                call.shown[key] = first[key][1]


async def test_a_short_run_finds_nothing_wrong_and_says_that_it_was_too_short(place: Place) -> None:
    done = await place.run(*SHORT)
    out, error = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 1, error + out
    assert "anomalies: 0\n" in out
    assert "INVALID: nothing is wrong, but too little was done" in out
    for kind in KINDS:
        assert re.search(rf"invalid: {kind} was met \d times?, expected at least 10", error), error
    assert "Traceback" not in error
    assert (place.reports / "history.png").read_bytes().startswith(b"\x89PNG")
    assert "| batch |" in place.read("check.md")
    await place.assert_nothing_left()

    history = history_of(place)
    assert {fault.kind for fault in history.faults} & set(KINDS)
    assert len(history.calls) > 100
    assert len(history.final) == 6
    assert {call.kind for call in history.calls} == {"write", "read", "list"}
    for put_in, check in (
        (lose_what_was_confirmed, "not_caught_up"),
        (make_reads_stale, "not_linearizable"),
    ):
        changed = history_of(place)
        put_in(changed)
        assert check in {anomaly.check for anomaly in judge(changed).anomalies}


async def test_left_alone_all_is_well(place: Place) -> None:
    done = await place.run("--check", "--duration", "10", "--nemesis", "none", "--lag", "0")
    assert done.returncode == 0, done.stderr.decode()
    out = done.stdout.decode()
    assert "OK: nothing that was confirmed is lost" in out
    assert "faults: none" in out
    await place.assert_nothing_left()


async def test_with_quorum_0_a_takeover_loses_what_was_confirmed_and_it_is_found(
    place: Place,
) -> None:
    # Every record stays with its leader for a while; leaders die.
    promised_nothing = ("--quorum", "0", "--lag", "300-600", "--nemesis", "takeover")
    done = await place.run("--check", "--duration", "30", "--seed", "3", *promised_nothing)
    error = done.stderr.decode()
    assert done.returncode == 1
    assert "ANOMALIES: the store broke a promise" in done.stdout.decode()
    assert "not_caught_up: " in error or "not_linearizable: " in error
    assert "ANOMALIES" in place.read("check.md")
    await place.assert_nothing_left()


async def test_after_ctrl_c_nothing_is_left_but_what_was_recorded(place: Place) -> None:
    process = await trio.lowlevel.open_process(
        place.command("--check", "--nemesis", "pause,takeover"),
        env=place.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    await read_until(process.stdout, b"own cluster")
    await trio.sleep(13)  # some pauses: a paused process must go, too
    process.send_signal(signal.SIGINT)
    error = await read_until(process.stderr, b"stopping")
    error += b"".join([chunk async for chunk in process.stderr])
    assert await process.wait() == 130
    assert b"Traceback" not in error
    content: dict[str, Any] = json.loads(place.read("history.json"))
    assert len(content["calls"]) > 100
    assert content["faults"]
    await place.assert_nothing_left()
