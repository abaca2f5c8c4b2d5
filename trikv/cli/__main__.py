"""What the script `trikv`, and `python -m trikv.cli`, begin with.

The rest is imported inside a function because that takes a moment, and Ctrl-C may come during that, too.
A stream that the shell has closed (`>&-`) is given a place where what is written goes nowhere.
"""

from __future__ import annotations

import os
import sys

from trikv import early


def run() -> int:
    """The command line of this process; its exit code."""
    try:
        for name in ("stdin", "stdout", "stderr"):
            if getattr(sys, name) is None:
                nowhere = open(os.devnull, "r" if name == "stdin" else "w")  # noqa: SIM115 - for good
                setattr(sys, name, nowhere)
        if sys.argv[1:2] == ["serve"]:
            early.listen()
        early.require_dependencies()
        from trikv.cli.main import main

        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(run())
