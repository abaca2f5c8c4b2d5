from __future__ import annotations

import pytest

from tests.unit.cli.console import Console


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Console:
    return Console(monkeypatch)
