"""A stop that is asked for before the node can hear it: while Python imports the rest. Import it first.

The kernel drops a SIGTERM that process 1 has no handler for, as in a container, and any other process
would end with the wrong exit code.

It must import nothing that takes long.
"""

from __future__ import annotations

import signal
from types import FrameType

#: Whether a signal came that asks to stop.
stop_asked = False


def _note(number: int, frame: FrameType | None) -> None:
    global stop_asked
    stop_asked = True


def listen() -> None:
    """Note SIGTERM and Ctrl-C from now on, and do nothing else about them."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _note)
