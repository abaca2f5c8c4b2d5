"""What all commands take, checked: nodes, a timeout, --json; and how they come to a client.

Nodes are named with `--url`, again and again, or in `TRIKV_URLS` with commas or spaces between. A
command that asks a cluster is an async function of an `AdminClient`: `ask` runs it, and makes of
whatever ends it one of the errors of `outcome`.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import click
import trio
from click.core import ParameterSource

from trikv.cli.outcome import (
    ClosedPipe,
    CommandError,
    ExitCode,
    from_client,
    interrupted,
    leaves,
    usage_error,
)
from trikv.cli.output import Output
from trikv.client import ClientError
from trikv.client.admin import AdminClient
from trikv.client.calls import TIMEOUT_S
from trikv.client.nodes import node_url

URLS_VARIABLE = "TRIKV_URLS"
DEFAULT_URL = "http://127.0.0.1:8000"

#: Said where nothing answers at the default URL.
NOBODY_THERE = (
    f"Is a node running at {DEFAULT_URL}? `trikv cluster` starts some; "
    f"{URLS_VARIABLE} or --url names others."
)

#: After so long without an answer a person is told that there is none yet.
SILENT_S = 2.0

Callback = Callable[..., ExitCode]


@dataclass(frozen=True)
class Setup:
    """What a command was given beside its own arguments."""

    urls: tuple[str, ...]
    timeout_s: float
    output: Output
    timeout_given: bool = False


class Number(click.ParamType[float]):
    """A number between two bounds, in words that say so."""

    def __init__(self, low: float, high: float, unit: str, *, whole: bool = False) -> None:
        self.name = unit
        self._low, self._high, self._whole = low, high, whole
        self.expected = f"{'a whole number' if whole else 'a number'} from {low:g} to {high:g}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, int | float):  # a default
            return value
        pattern = r"[0-9]{1,12}" if self._whole else r"[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9}"
        if re.fullmatch(pattern, value) is None or not self._low <= float(value) <= self._high:
            self.fail(f"expected {self.expected}, got {value!r}", param, ctx)
        return int(value) if self._whole else float(value)


class TakesNegativeNumbers(click.Command):
    """A command for which a negative number is an argument, not an option that nobody knows."""

    ignore_unknown_options = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = {name for param in self.get_params(ctx) for name in param.opts}
        upto = args.index("--") if "--" in args else len(args)
        for arg in args[:upto]:
            name = arg.partition("=")[0]
            if re.match(r"-[^0-9]", arg) and name not in known:
                raise click.NoSuchOption(name, possibilities=_alike(name, known), ctx=ctx)
        return super().parse_args(ctx, args)


def _alike(name: str, known: Iterable[str]) -> list[str]:
    return sorted(option for option in known if len(name) > 2 and option.startswith(name[:5]))


class OptionalArgument(click.Argument):
    """An argument whose brackets, which the usage line shows, are not part of its name in errors."""

    def get_error_hint(self, ctx: click.Context | None) -> str:
        return f"'{self.human_readable_name.strip('[]')}'"


SECONDS = Number(0.05, 3600, "seconds")


def as_json_option(function: Callback) -> Callback:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        function
    )


def asks_nodes(function: Callback) -> Callback:
    """A command that asks nodes: it gets a Setup first."""

    @click.option(
        "--url",
        "urls",
        multiple=True,
        metavar="URL",
        help=f"A node; again for each. Else {URLS_VARIABLE}; else {DEFAULT_URL}.",
    )
    @click.option(
        "--timeout",
        type=SECONDS,
        default=TIMEOUT_S,
        metavar="SECONDS",
        help=f"How long to try. Default: {TIMEOUT_S:g}.",
    )
    @as_json_option
    @functools.wraps(function)
    def with_setup(
        urls: Sequence[str], timeout: float, as_json: bool, **arguments: Any
    ) -> ExitCode:
        source = click.get_current_context().get_parameter_source("timeout")
        setup = Setup(
            nodes_of(urls, os.environ),
            timeout,
            Output(as_json=as_json),
            timeout_given=source is not ParameterSource.DEFAULT,
        )
        return function(setup, **arguments)

    return with_setup


def nodes_of(given: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """The nodes to ask. Raises CommandError."""
    name = "--url"
    if not given:
        name = URLS_VARIABLE
        given = re.split(r"[,\s]+", environment.get(URLS_VARIABLE, "").strip(", \t\n"))
    try:
        urls = tuple(node_url(url) for url in given if url)
    except ValueError as error:
        raise usage_error(f"{name}: {error}", field=name) from None
    return urls or (DEFAULT_URL,)


def ask(
    setup: Setup,
    work: Callable[[AdminClient], Awaitable[ExitCode]],
    *,
    write: bool = False,
    silent: bool = False,
    answered: Callable[[], bool] = lambda: False,
    until_s: float | None = None,
) -> ExitCode:
    """Run what a command does. Raises CommandError, ClosedPipe.

    `write`: it is to change something, so that its caller wants to know whether it did. `silent`: it
    has something to show meanwhile. `answered`: whether a node has answered, where a command goes on
    after that. `until_s`: how long it goes on, unless that is the timeout.
    """

    async def all_of_it() -> ExitCode:
        async with (
            AdminClient(setup.urls, timeout_s=setup.timeout_s) as client,
            trio.open_nursery() as nursery,
        ):
            if not silent:
                nursery.start_soon(_say_that_it_takes_long, setup, answered, until_s)
            code = await work(client)
            nursery.cancel_scope.cancel()
        return code

    default = setup.urls == (DEFAULT_URL,)
    try:
        code = trio.run(all_of_it)
        if default and code is ExitCode.UNAVAILABLE and not setup.output.as_json:
            setup.output.say(NOBODY_THERE)
        return code
    except BaseException as error:
        try:
            explain(error, write=write)
        except CommandError as told:
            if default and told.code == "unreachable":
                told.hint = f"{told.hint}\n{NOBODY_THERE}" if told.hint else NOBODY_THERE
            raise


def explain(error: BaseException, *, write: bool) -> NoReturn:
    """Raise what an error comes to; what nobody expected is raised as it is."""
    found = list(leaves(error))
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in found):
        raise interrupted(write=write) from None
    for leaf in found:
        if isinstance(leaf, CommandError | ClosedPipe):
            raise leaf from None
        if isinstance(leaf, ClientError):
            raise from_client(leaf, write=write) from None
    raise error


async def _say_that_it_takes_long(
    setup: Setup, answered: Callable[[], bool], until_s: float | None
) -> None:
    if setup.output.err.isatty():
        await trio.sleep(SILENT_S)
        if not answered():
            seconds = setup.timeout_s if until_s is None else until_s
            until = "until Ctrl-C" if seconds == math.inf else f"for {seconds:g} s (--timeout)"
            setup.output.say(f"no answer yet; trying {until}")
