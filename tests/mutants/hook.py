"""Import a module with one text in it replaced.

As a plugin of pytest (`-p tests.mutants.hook`) it takes the name of the mutant from the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

from tests.mutants.mutants import MUTANTS, Mutant

VARIABLE = "MUTANT"


class _Loader(SourceFileLoader):
    def __init__(self, mutant: Mutant, module: str, path: str) -> None:
        super().__init__(module, path)
        self._mutant = mutant

    def path_stats(self, path: str | bytes) -> Any:
        raise OSError("not from a cache, nor into one")

    def source_to_code(  # type: ignore[override]
        self, data: bytes, path: str, *, _optimize: int = -1
    ) -> CodeType:
        mutated = self._mutant.mutate(self.name, data.decode())
        return super().source_to_code(mutated.encode(), path)


class _Finder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._mutant.modules:
            return None
        spec = PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Loader(self._mutant, name, spec.origin)
        return spec


def install(name: str) -> None:
    """From now on that mutant is imported; its modules must not have been yet."""
    mutant = MUTANTS[name]
    assert not mutant.modules & sys.modules.keys()
    sys.meta_path.insert(0, _Finder(mutant))


if VARIABLE in os.environ:
    install(os.environ[VARIABLE])
