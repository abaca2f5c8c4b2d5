"""What a nemesis needs of a cluster, whether its nodes are processes or containers.

A `System` knows its nodes by their names, and of each: whether it is up, and in which role it was
started last. It keeps a node's address and disk through all starts. What is asked for twice is done
once: a node that is down can be killed, one that runs can be resumed, without effect.

Nothing here waits for the *cluster*: `start` returns when the process serves, not when it leads or
has caught up. Whoever is cancelled in the middle of a call finds the node up or down, never lost.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import httpx
import msgspec

#: Whoever asks, asks again.
ASK_TIMEOUT_S = 1.0

#: What a node never writes unless it has met something that nobody foresaw.
COMPLAINTS = (" ERROR ", "Traceback")


class System(Protocol):
    """Nodes that can be hurt. Every call may raise ClusterError."""

    @property
    def names(self) -> Sequence[str]:
        """All nodes, the one that leads at first in front."""

    def url(self, name: str) -> str:
        """Where a node answers clients; always the same."""

    async def ask(self, name: str, path: str) -> dict[str, Any]:
        """What a node answers to a GET, whatever the status; {} if it does not."""

    def is_up(self, name: str) -> bool:
        """Whether it runs; a paused one does."""

    def leads(self, name: str) -> bool:
        """Whether it was started to lead."""

    async def start(self, name: str, *, leads: bool) -> None:
        """Start a node that is down, with what is on its disk, and wait until it serves."""

    async def kill(self, name: str) -> None:
        """End it at once: no `finally` of its runs."""

    async def pause(self, name: str) -> None:
        """Stop it where it is."""

    async def resume(self, name: str) -> None:
        """Let it go on."""

    async def wipe(self, name: str) -> None:
        """Empty the disk of a node that is down."""

    async def cut(self, name: str, leader: str) -> None:
        """Cut a follower off its leader."""

    async def reconnect(self, name: str, leader: str) -> None:
        """Undo that."""

    async def complaints(self) -> list[str]:
        """What the nodes have logged that no fault explains: errors and tracebacks."""

    async def save_logs(self, folder: Path) -> None:
        """Write what every node has logged to a folder."""


async def ask(url: str) -> dict[str, Any]:
    """`System.ask`, for nodes that answer HTTP."""
    async with httpx.AsyncClient(timeout=ASK_TIMEOUT_S, trust_env=False) as client:
        try:
            answer = await client.get(url)
            told: dict[str, Any] = msgspec.json.decode(answer.content)
            return told
        except (httpx.TransportError, msgspec.MsgspecError):
            return {}


def complaints_in(folder: Path) -> list[str]:
    """`System.complaints`, from the logs in a folder."""
    found = []
    for log in sorted(folder.glob("*.log")):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if any(word in line for word in COMPLAINTS):
                found.append(f"{log.stem} logged: {line}")
    return found


def copy_logs(here: Path, there: Path) -> None:
    """`System.save_logs`, from the logs in a folder."""
    there.mkdir(parents=True, exist_ok=True)
    for log in here.glob("*.log"):
        shutil.copyfile(log, there / log.name)
