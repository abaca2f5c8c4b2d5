"""Each mutant still finds its guard, and is still Python. (Whether it is caught: `tox -e mutants`.)"""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.mutants.mutants import MUTANTS


@pytest.mark.parametrize("name", MUTANTS)
def test_it_finds_its_guard(name: str) -> None:
    spec = find_spec(MUTANTS[name].module)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8")
    ast.parse(MUTANTS[name].mutate(source))
