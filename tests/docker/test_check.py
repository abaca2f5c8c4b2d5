"""The check of a history on the containers of the compose file: a short run, and nothing left of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadgen.check.history import History
from loadgen.check.plan import KINDS
from tests.docker.test_compose import (
    BUILD_SECONDS,
    REPOSITORY,
    ports_in_use,
    run,
    why_there_is_no_engine,
)

#: Long enough for some faults, too short for ten of each; beside it, start, peace and removal.
DURATION_SECONDS = 25
AROUND_SECONDS = 240.0

pytestmark = pytest.mark.timeout(BUILD_SECONDS + DURATION_SECONDS + 2 * AROUND_SECONDS)


@pytest.fixture(autouse=True)
def _engine() -> None:
    reason = why_there_is_no_engine()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI runs the container tests, and {reason}")
        pytest.skip(f"needs a Docker engine with Compose v2: {reason}")
    taken = ports_in_use()
    if taken:
        pytest.fail(f"the compose file publishes ports that are in use: {taken}")


def leftovers() -> list[str]:
    """Whatever carries the name of a project of a check."""
    listings = (
        ("docker", "ps", "--all", "--format", "{{.Names}}"),
        ("docker", "volume", "ls", "--format", "{{.Name}}"),
        ("docker", "network", "ls", "--format", "{{.Name}}"),
    )
    names = [name for command in listings for name in run(*command).split()]
    return [name for name in names if name.startswith("trikv-check-")]


def test_a_short_run_on_containers_finds_nothing_wrong_and_leaves_nothing(tmp_path: Path) -> None:
    before = leftovers()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "loadgen", "--check", "--containers", "--seed", "1"),
            *("--duration", str(DURATION_SECONDS), "--output", str(tmp_path)),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS + DURATION_SECONDS + AROUND_SECONDS,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "anomalies: 0\n" in done.stdout
    assert "INVALID: nothing is wrong, but too little was done" in done.stdout, done.stderr
    history = History.from_json((tmp_path / "history.json").read_bytes())
    assert {fault.kind for fault in history.faults} & set(KINDS)
    assert sorted(history.final) == [*(f"follower{n}" for n in range(1, 6)), "leader"]
    assert len(history.calls) > 100
    assert (tmp_path / "check-logs" / "leader.log").stat().st_size > 0
    assert leftovers() == before
    assert ports_in_use() == []
