"""`python -m loadgen`: hands over to `loadgen.cli.main`, once it is sure that it can be imported.

The import is inside a function because it takes a moment, and Ctrl-C may come during that, too.
"""

import sys
from importlib.util import find_spec

NEEDED = ("httpx", "matplotlib", "msgspec", "rich", "trio")


def _run() -> int:
    try:
        missing = [name for name in NEEDED if find_spec(name) is None]
        if missing:
            print(
                f"loadgen: not installed: {', '.join(missing)}; "
                'expected what pip install "trikv[loadgen]" installs',
                file=sys.stderr,
            )
            return 1
        from loadgen.cli import main

        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(_run())
