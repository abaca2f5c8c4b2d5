"""How the unit tests are chosen: the whole must cover the core, and some of them can be run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.covered import AROUND, FOLDERS, RANDOM, commands

ROOT = Path(__file__).parents[2]


def test_the_whole_is_asked_for_every_branch_of_the_core() -> None:
    first, second, third = commands([])
    assert first[:4] == ["coverage", "run", "-m", "pytest"]
    assert second[:3] == ["coverage", "report", "--fail-under=100"]
    assert {*AROUND} <= {*third}


@pytest.mark.parametrize("arguments", [["-k", "lag"], ["-x", "-k", "lag and not watch"]])
def test_some_of_them_are_run_without(arguments: list[str]) -> None:
    (command,) = commands(arguments)
    assert command == ["pytest", *arguments, *RANDOM, *FOLDERS]


@pytest.mark.parametrize(
    "chosen", ["tests/unit/test_simulated_lag.py", "tests/unit/test_simulated_lag.py::test_x"]
)
def test_a_file_is_run_by_itself(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert list(commands(["-q", chosen])) == [["pytest", "-q", chosen]]


def test_what_is_left_out_is_there() -> None:
    """A name that is not would leave out nothing."""
    ignored = [text.removeprefix("--ignore=") for text in RANDOM if text.startswith("--ignore=")]
    for name in (*ignored, *AROUND, *FOLDERS):
        assert (ROOT / name).exists()
