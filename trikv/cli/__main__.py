"""`python -m trikv.cli`: the command line where no `trikv` is on the path."""

from __future__ import annotations

import sys

from trikv.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
