"""The files of a data directory: are they still those that were opened, and who may read them.

Rules
- A file that was removed, moved away or replaced while it is open still takes writes, and nobody will
  ever find them. So whoever commits asks first whether the files at their paths are the open ones.
- What cannot be told, as the directory cannot be looked at, is no removal.

What it does not know: SQLite, who writes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class OpenFiles:
    """Files that this process has open, by path and inode. Make it right after they were opened."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._inodes = {os.fspath(path): _inode(path) for path in paths}

    def gone(self) -> str | None:
        """The first path at which the open file no longer is; None: all are in place."""
        for path, inode in self._inodes.items():
            try:
                if _inode(path) != inode:
                    return path
            except (FileNotFoundError, NotADirectoryError):
                return path
            except OSError:
                continue
        return None


def _inode(path: Path | str) -> tuple[int, int]:
    """What a file is, whatever its path. Raises OSError."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def readable_by_others(directory: Path) -> dict[str, str]:
    """The directory and the files in it that users other than the owner may use, with their modes."""
    if os.name == "nt":  # pragma: no cover - rights are lists there, and modes say nothing
        return {}
    modes = {}
    for path in (directory, *directory.iterdir()):
        with suppress(FileNotFoundError):  # SQLite's temporary files come and go
            modes[str(path)] = path.lstat().st_mode
    return {
        path: f"{stat.S_IMODE(mode):04o}"
        for path, mode in sorted(modes.items())
        if mode & _OTHERS and not stat.S_ISLNK(mode)
    }
