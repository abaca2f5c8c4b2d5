"""Nodes as processes of this machine: how one is started, followed by its log, and told to stop.

For programs that run a cluster of their own: `trikv cluster`, and the load generator.

Rules
- None of a node's settings leaks in from the environment of the program that starts it.
- A node logs straight into a file beside its data: a file never fills up as a pipe would, and is
  complete whatever happens to us.
- A node runs in a process group of its own, so that a terminal's Ctrl-C reaches only the program that
  started it, which then stops its nodes in order.
- A node's standard input is a pipe that its starter holds open and never writes to. When the starter
  is gone, however it went, the pipe ends, and the node stops by itself.
"""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import trio

from trikv.config import SETTINGS

HOST = "127.0.0.1"

#: Below what Linux (32768) and others (49152) give to outgoing connections: one of those could take the
#: port of a node that is down for a moment.
PORTS = range(15_000, 32_000)

_PORT_TRIES = 1_000
_POLL_S = 0.02
_LOG_TAIL_LINES = 8

_STARTED = re.compile(r'\bnode\.started\b.*?\burl="?(https?://[^\s"]+)')


@dataclass(frozen=True, slots=True)
class Node:
    """One node's process and where it logs: behind what an earlier start of the node has logged."""

    name: str
    process: trio.Process
    log: Path
    log_begins: int = 0

    @property
    def is_up(self) -> bool:
        """Whether the process is there, paused or not."""
        return self.process.poll() is None

    def log_text(self) -> str:
        """All that the process has logged so far."""
        with self.log.open("rb") as stream:
            stream.seek(self.log_begins)
            return stream.read().decode("utf-8", errors="replace")

    def log_tail(self) -> str:
        """The end of the log, set apart for an error message."""
        lines = self.log_text().splitlines()[-_LOG_TAIL_LINES:]
        return "".join(f"\n    {line}" for line in lines) or "\n    (it logged nothing)"


async def spawn(directory: Path, name: str, settings: Mapping[str, str]) -> Node:
    """Start a node's process; its data and its log are in `directory`. `started_url` waits for it."""
    ours = {setting.name for setting in SETTINGS}
    env = {key: value for key, value in os.environ.items() if key.upper() not in ours}
    env |= {
        "NODE_ID": name,
        "HOST": HOST,
        "PORT": "0",
        "DATA_DIR": str(directory / name),
        "LOG_LEVEL": "INFO",
        **settings,
    }
    log = directory / f"{name}.log"
    begins = log.stat().st_size if log.exists() else 0
    with _open_for_child(log) as stream:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "trikv", "--stop-at-eof"],
            env=env,
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=stream,
            **_own_process_group(),
        )
    return Node(name, process, log, begins)


def _open_for_child(log: Path) -> BinaryIO:
    return log.open("ab")


def _own_process_group() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def started_url_in(log_text: str) -> str | None:
    """The URL in a node's `node.started` line, once it is there."""
    started = _STARTED.search(log_text)
    return None if started is None else started[1]


async def started_url(node: Node) -> str:
    """The node's URL, once it says it; that a node may die first is the caller's affair."""
    while (url := started_url_in(node.log_text())) is None:  # noqa: ASYNC110 - a file has no event
        await trio.sleep(_POLL_S)
    return url


def ask_to_stop(process: trio.Process) -> None:
    """As a terminal or a container engine does it; who is gone already is left alone."""
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        try:
            process.send_signal(signal.CTRL_BREAK_EVENT)
        except OSError:  # no console to send it through
            process.kill()
    else:
        process.terminate()


def is_free(port: int) -> bool:
    """Whether nobody listens there, on loopback."""
    with socket.socket() as probe:
        if sys.platform != "win32":  # where it would let two listen on one port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_ports(rng: random.Random, count: int) -> list[int]:
    """Ports of loopback on which nobody listens. Raises OSError."""
    found: list[int] = []
    for port in rng.sample(PORTS, _PORT_TRIES):
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"no {count} free ports on {HOST} between {PORTS[0]} and {PORTS[-1]}")
