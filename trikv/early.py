"""A stop that is asked for before the node can hear it: while Python imports the rest. Import it first.

The kernel drops a SIGTERM that process 1 has no handler for, as in a container, and any other process
would end with the wrong exit code.

It must import nothing that takes long.
"""

from __future__ import annotations

import signal
import sys
from importlib.util import find_spec
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


def require_dependencies() -> None:
    """End with one line and exit code 2 in a Python that trikv is not installed for."""
    if any(find_spec(name) is None for name in ("apsw", "click", "quart_trio", "trio")):
        said = f"install trikv first: {sys.executable} -m pip install ."
        print(f"{said} (or use the Python of its environment: .venv/bin/python)", file=sys.stderr)
        sys.exit(2)
