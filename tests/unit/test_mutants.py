"""Each mutant still finds its guard, and is still Python. (Whether it is caught: `tox -e mutants`.)"""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.mutants.__main__ import is_noticed
from tests.mutants.mutants import MUTANTS


@pytest.mark.parametrize("name", MUTANTS)
def test_it_finds_its_guard(name: str) -> None:
    for module in MUTANTS[name].modules:
        spec = find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).read_text(encoding="utf-8")
        assert ast.dump(ast.parse(MUTANTS[name].mutate(module, source))) != ast.dump(
            ast.parse(source)
        )


@pytest.mark.parametrize("name", MUTANTS)
def test_it_says_what_must_notice_it(name: str) -> None:
    mutant = MUTANTS[name]
    assert mutant.noticed
    re.compile(mutant.noticed)
    assert mutant.test is None or Path(mutant.test).is_file()


def test_what_fails_by_itself_is_not_noticed_by_anybody() -> None:
    mutant = MUTANTS["a batch split"]
    assert not is_noticed(mutant, "AttributeError: 'Fanout' object has no attribute '_nursery'")
    assert not is_noticed(mutant, "Broken: not quiet after 300 s")
    assert is_noticed(mutant, "Broken: 2 anomalies: torn_batch: 'a': read at n1")
