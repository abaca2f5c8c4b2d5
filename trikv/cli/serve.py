"""`serve`: one node, as `python -m trikv` runs it. Exit codes and settings are that one's."""

from __future__ import annotations

import click


class _ServeCommand(click.Command):
    """Who tries an option for a setting is told how it is set."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            given = error.option_name.partition("=")[0].lstrip("-")
            name = {"quorum": "WRITE_QUORUM", "followers": "FOLLOWER_URLS"}.get(
                given, given.replace("-", "_").upper()
            )
            # Not before it is needed, as below.
            from trikv.config import SETTINGS

            if name not in {setting.name for setting in SETTINGS}:
                raise
            raise click.UsageError(
                f"No such option '--{given}': settings come from the environment: "
                f"{name}=… trikv serve",
                ctx,
            ) from None


@click.command("serve", cls=_ServeCommand)
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
