"""Whatever a client does: the nodes live, answer it rightly, keep their memory, and confirm writes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.attacks import ATTACKS
from tests.hostile.harness import HEADINGS, run_attack

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc"),
]


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """The rows, shown at the end."""
    rows: list[str] = []
    yield rows
    print("", HEADINGS, *rows, sep="\n")


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_stops_no_node_and_no_client(name: str, tmp_path: Path, table: list[str]) -> None:
    outcome = run_attack(ATTACKS[name], tmp_path)
    table.append(outcome.row())
    assert not outcome.wrong
    assert outcome.took_ms, "no write was confirmed beside the attack"
