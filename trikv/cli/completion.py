"""`completion`: what a shell is to be told so that it completes `trikv`.

Click knows how: the script asks `trikv` itself, with a variable in its environment, what may come
next.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from trikv.cli.outcome import ExitCode
from trikv.cli.output import Output

#: With it set, `trikv` is being asked by a shell.
VARIABLE = "_TRIKV_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> ExitCode:
    """Print what makes SHELL complete this command's words.

    \b
    bash:  eval "$(trikv completion bash)"     in ~/.bashrc
    zsh:   eval "$(trikv completion zsh)"      in ~/.zshrc, after compinit
    fish:  trikv completion fish > ~/.config/fish/completions/trikv.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    Output().line(kind(context.find_root().command, {}, "trikv", VARIABLE).source().rstrip())
    return ExitCode.DONE
