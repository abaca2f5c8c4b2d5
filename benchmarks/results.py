"""Files of results: one for each run, written again after every part of it, whole or not at all.

A run that is cut off leaves what it had. Nothing is ever merged into a file: `report` takes, for each
figure, the newest file that has it.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.errors import BenchmarkError

FOLDER = Path(__file__).with_name("results")
#: Quick runs show that all works; their figures are not for the report.
QUICK_FOLDER = FOLDER / "quick"


class ResultsFile:
    """One run's file. `content` is what will be in it; `save` writes it."""

    def __init__(self, kind: str, folder: Path, directory: Path | None, **options: Any) -> None:
        self.content: dict[str, Any] = {
            "kind": kind,
            "started_at": machine.now(),
            "ended_at": None,
            "options": options,
            "machine": machine.facts(directory),
            "git": machine.commit(),
            "versions": machine.packages(),
            "problems": [],
        }
        stamp = re.sub(r"[^0-9T]", "", self.content["started_at"][:19])
        self.path = folder / f"{kind}-{stamp}.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BenchmarkError(f"cannot make {folder} ({error})") from None

    def save(self) -> None:
        """Write the file."""
        self.content["ended_at"] = machine.now()
        write_text(self.path, json.dumps(self.content, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place, and move it there."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def read_all(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The runs of a kind, the newest first."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob(f"{kind}-*.json")]
    return sorted(runs, key=lambda run: str(run["started_at"]), reverse=True)
