"""Stores for the tests.

And trio's scheduler shuffles ready tasks; Hypothesis must hold that shuffle, or nothing replays.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import hypothesis
import pytest
import trio

from trikv.storage.store import Store

hypothesis.register_random(trio._core._run._r)


@pytest.fixture
def memory() -> Iterator[Store]:
    with closing(Store.open(None)) as store:
        yield store


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path)) as store:
        yield store
