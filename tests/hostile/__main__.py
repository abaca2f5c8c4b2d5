"""The table of docs/testing.md: `python -m tests.hostile [--of CHECKOUT] [NAME …]`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.hostile.attacks import ATTACKS
from tests.hostile.harness import HEADINGS, run_attack


def main() -> None:
    """Run the attacks of that name, or all, and show what came; nothing is asserted."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument(
        "--of", type=Path, metavar="CHECKOUT", help="attack the nodes of another one"
    )
    parser.add_argument("name", nargs="*", help=f"any of: {', '.join(ATTACKS)}")
    arguments = parser.parse_args()
    print(HEADINGS)
    for name in arguments.name or ATTACKS:
        with tempfile.TemporaryDirectory(prefix="trikv-hostile-") as directory:
            outcome = run_attack(ATTACKS[name], Path(directory), arguments.of)
        print(outcome.row(), flush=True)


if __name__ == "__main__":
    main()
