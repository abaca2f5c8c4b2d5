"""`trikv`: the commands, and every way in which one ends.

Exit codes are those of `outcome`. What is expected to go wrong is one line on standard error (and with
`--json` one document); a traceback is a bug of ours, and says so.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click
from click.shell_completion import shell_complete

from trikv import __version__
from trikv.cli import bench, cluster, completion, control, keys, serve, status
from trikv.cli.outcome import (
    ClosedPipe,
    CommandError,
    ExitCode,
    failed,
    interrupted,
    leaves,
    usage_error,
)
from trikv.cli.output import Output, let_go

EPILOG = """\
Exit codes: 0 done; 1 no (not there, not well, not equal); 2 bad usage; 3 refused; 4 nobody could, and
nothing was written; 5 it may have been written; 6 failed on this machine; 130 Ctrl-C.

Nodes: --url, or TRIKV_URLS with commas between, or http://127.0.0.1:8000. All there is to know:
docs/cli.md.
"""


#: What other programs call our commands.
ALIASES = {"del": "delete", "rm": "delete", "ls": "list", "set": "put"}

#: Options that may stand before the command, too, and how many arguments each takes.
_ANYWHERE = {"--json": 0, "--url": 1, "--timeout": 1}


class _InOrder(click.Group):
    """Its commands are told in the order in which they are added, and found by other names, too."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            begun = [name for name in self.commands if name.startswith(error.command_name)]
            if not begun:
                raise
            meant = " or ".join(map(repr, begun))
            raise click.UsageError(f"{error.message} Did you mean {meant}?", ctx) from None


@click.group(
    "trikv", cls=_InOrder, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, message="trikv %(version)s")
def trikv() -> None:
    """A replicated key-value store: run nodes, ask them, watch them at work."""


@click.command("help", hidden=True)
@click.argument("command", required=False)
@click.pass_context
def show_help(context: click.Context, command: str | None) -> ExitCode:
    """Print what COMMAND does, or which commands there are."""
    root = context.find_root()
    if command is None:
        Output().line(root.get_help())
        return ExitCode.DONE
    found = trikv.get_command(context, command)
    if found is None:
        raise click.UsageError(f"No such command {command!r}.", context)
    Output().line(found.get_help(click.Context(found, parent=root, info_name=found.name)))
    return ExitCode.DONE


@click.command("version", hidden=True)
def show_version() -> ExitCode:
    """Print which version of trikv this is."""
    Output().line(f"trikv {__version__}")
    return ExitCode.DONE


for _command in (
    serve.serve,
    cluster.cluster,
    keys.get,
    keys.put,
    keys.delete,
    keys.list_keys,
    keys.watch,
    status.status,
    control.quorum,
    control.lag,
    control.cut,
    control.heal,
    bench.bench,
    completion.completion,
    show_help,
    show_version,
):
    trikv.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    instruction = os.environ.get(completion.VARIABLE)
    if instruction:
        return shell_complete(trikv, {}, "trikv", completion.VARIABLE, instruction)
    options = given[: given.index("--")] if "--" in given else given
    output = Output(as_json="--json" in options)
    try:
        code = _run(given)
        output.flush()
        return code
    except CommandError as error:
        output.error(error)
        return error.exit_code
    except (ClosedPipe, BrokenPipeError):
        let_go(sys.stdout)
        return ExitCode.CLOSED_PIPE
    except KeyboardInterrupt:
        output.error(interrupted())
        return ExitCode.INTERRUPTED
    except Exception as error:
        traceback.print_exc()
        first = next(leaves(error))
        output.error(failed(f"a bug in trikv: {first!r}", code="internal_error"))
        return ExitCode.FAILED


def _run(arguments: list[str]) -> int:
    try:
        with trikv.make_context("trikv", _command_first(arguments)) as context:
            code: int | None = trikv.invoke(context)
            return code or 0
    except click.exceptions.Exit as done:  # --help, --version
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        hint = None
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f"{error.ctx.get_usage()}\nMore: {error.ctx.command_path} --help"
        raise usage_error(" ".join(error.format_message().split()), hint=hint) from None


def _command_first(arguments: list[str]) -> list[str]:
    """The same with options that stand before the command behind it: `trikv --json status`."""
    size = 0
    while size < len(arguments) and (name := arguments[size].partition("=")[0]) in _ANYWHERE:
        size += 1 if "=" in arguments[size] else 1 + _ANYWHERE[name]
    return [*arguments[size : size + 1], *arguments[:size], *arguments[size + 1 :]]
