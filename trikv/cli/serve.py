"""`serve`: one node, as `python -m trikv` runs it. Exit codes and settings are that one's."""

from __future__ import annotations

import click


@click.command("serve")
@click.option(
    "--stop-at-eof",
    is_flag=True,
    help="Stop when standard input ends: with the program that started the node.",
)
def serve(stop_at_eof: bool) -> int:
    """Run one node until it is told to stop.

    All settings come from the environment: see docs/operations.md. Exit codes: 0 after a stop that was
    asked for, 2 for a bad setting or a port in use, 1 for a crash.
    """
    # Not before it is needed: a server takes longer to import than most commands to run.
    from trikv.__main__ import run_node

    return run_node(stop_at_eof=stop_at_eof)
