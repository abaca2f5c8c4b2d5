"""`get`, `put`, `delete`, `list`, `watch`: the client's methods, one command each."""

from __future__ import annotations

import functools
import math
import shlex
import sys
import time
from typing import Any

import click
import trio

from trikv.cli.options import (
    Callback,
    Number,
    Setup,
    TakesNegativeNumbers,
    ask,
    asks_nodes,
)
from trikv.cli.outcome import CommandError, ExitCode, interrupted, usage_error
from trikv.cli.output import Output, clip, plural, shown_json, visible
from trikv.client import Change, Item, Reset, Watch, Written
from trikv.client.admin import AdminClient
from trikv.errors import TrikvError
from trikv.protocol import json_value
from trikv.protocol.messages import LARGEST_VALUE_BYTES

#: Keys that `list` shows in a terminal, unless it is asked for more.
LIST_KEYS = 100


@click.command("get")
@click.argument("key")
@click.option(
    "--consistency",
    type=click.Choice(["linearizable", "local"]),
    help="linearizable (the default): confirmed, and the latest. local: what any node holds now.",
)
@click.option("--min-version", metavar="VERSION", help="Wait until the node is so far.")
@click.option("--raw", is_flag=True, help="A text without its quotes.")
@asks_nodes
def get(setup: Setup, key: str, consistency: Any, min_version: str | None, raw: bool) -> ExitCode:
    """Print the value of KEY, as JSON.

    Exit code 1 if the key is not there.
    """

    async def work(client: AdminClient) -> ExitCode:
        item = await client.get(key, consistency=consistency, min_version=min_version)
        if item is None:
            raise not_there(key)
        show_item(setup.output, item, raw=raw)
        return ExitCode.DONE

    return ask(setup, work)


def not_there(key: str) -> CommandError:
    return CommandError(f"there is no key {key!r}", ExitCode.NO, code="not_found", key=key)


def show_item(output: Output, item: Item, *, raw: bool) -> None:
    if output.as_json:
        output.document({"key": item.key, "value": item.value, "version": item.version})
    elif raw and isinstance(item.value, str):
        output.line(visible(item.value) if output.is_terminal else item.value)
    else:
        text = shown_json(item.value)
        if output.width is not None and len(text) > output.width:
            text = shown_json(item.value, indent=2)
        output.line(text)
    if output.is_terminal:
        output.say(f"version {item.version}")


@click.command("put", cls=TakesNegativeNumbers)
@click.argument("key")
@click.argument("value", required=False)
@click.option("--string", "as_text", is_flag=True, help="VALUE is a text, not JSON.")
@click.option("--if-version", metavar="VERSION", help="Only if the key has this version.")
@click.option("--if-absent", is_flag=True, help="Only if the key is not there.")
@click.option("--if-present", is_flag=True, help="Only if the key is there.")
@asks_nodes
def put(
    setup: Setup,
    key: str,
    value: str | None,
    as_text: bool,
    if_version: str | None,
    if_absent: bool,
    if_present: bool,
) -> ExitCode:
    """Write VALUE, which is JSON, under KEY.

    Returns once the write is confirmed. VALUE - is read from standard input, and so is one that is
    left out where that is no terminal.
    """
    if value is None:
        if sys.stdin.isatty():
            raise usage_error("VALUE: expected JSON, or - for standard input")
        value = "-"
    if (if_version is not None) + if_absent + if_present > 1:
        raise usage_error("--if-version, --if-absent, --if-present: expected one at most")
    decoded = read_value(value, as_text=as_text)

    async def work(client: AdminClient) -> ExitCode:
        written = await client.put(
            key, decoded, if_version=if_version, if_absent=if_absent, if_present=if_present
        )
        show_written(setup.output, {"key": key}, "written", written)
        return ExitCode.DONE

    return ask(setup, work, write=True)


def read_value(given: str, *, as_text: bool) -> Any:
    """VALUE, decoded. Raises CommandError."""
    name, raw = "VALUE", b""
    if given == "-":
        name, raw = "standard input", _standard_input()
    try:
        if given != "-":
            raw = given.encode()
        return raw.decode() if as_text else json_value.decode(raw)
    except UnicodeError:
        raise usage_error(f"{name}: expected UTF-8", field="value") from None
    except TrikvError as error:
        about_body = error.detail.startswith("the body ")
        why = error.detail.removeprefix("the body") if about_body else f": {error.detail}"
        text = "" if given == "-" else f": {json_value.clip(given)!r}"
        raise usage_error(
            f"{name}{why}{text}",
            hint="To write a text as it stands: --string",
            field="value",
        ) from None


def _standard_input() -> bytes:
    """All of it, up to what no node would take (every character of it may be escaped)."""
    try:
        return sys.stdin.buffer.read(6 * LARGEST_VALUE_BYTES + 1)
    except KeyboardInterrupt:
        raise interrupted() from None
    except OSError as error:
        raise usage_error(f"standard input: {error.strerror or error}", field="value") from None


def show_written(output: Output, about: dict[str, Any], done: str, written: Written) -> None:
    if output.as_json:
        told = {"version": written.version, "follower_acks": written.follower_acks}
        output.document(about | told)
        return
    acks = written.follower_acks
    by = "as a later read shows" if acks is None else f"on {plural('follower', acks)}"
    output.line(f"{done}, and confirmed {by}: version {written.version}")


@click.command("delete")
@click.argument("key")
@click.option("--if-version", metavar="VERSION", help="Only if the key has this version.")
@asks_nodes
def delete(setup: Setup, key: str, if_version: str | None) -> ExitCode:
    """Delete KEY.

    Returns once that is confirmed. Exit code 1 if the key is not there.
    """

    async def work(client: AdminClient) -> ExitCode:
        written = await client.delete(key, if_version=if_version)
        if written is None:
            raise not_there(key)
        show_written(setup.output, {"key": key, "deleted": True}, "deleted", written)
        return ExitCode.DONE

    return ask(setup, work, write=True)


def takes_prefix(function: Callback) -> Callback:
    """A command with a prefix, as an argument or as `--prefix`."""

    @click.argument("beginning", required=False, metavar="[PREFIX]")
    @click.option("--prefix", metavar="TEXT", help="Only keys that begin so; as PREFIX.")
    @functools.wraps(function)
    def with_prefix(
        *given: Any, beginning: str | None, prefix: str | None, **arguments: Any
    ) -> ExitCode:
        if beginning is not None and prefix is not None:
            raise usage_error("PREFIX, --prefix: expected one at most")
        return function(*given, prefix=beginning or prefix or "", **arguments)

    return with_prefix


@click.command("list")
@takes_prefix
@click.option(
    "--limit",
    type=Number(1, 10**9, "keys", whole=True),
    metavar="KEYS",
    help=f"So many at most. Default: {LIST_KEYS} in a terminal, else all.",
)
@click.option("--all", "no_limit", is_flag=True, help="All keys.")
@click.option("--min-version", metavar="VERSION", help="Wait until the node is so far.")
@click.option("--versions", is_flag=True, help="Show versions, too.")
@asks_nodes
def list_keys(
    setup: Setup,
    prefix: str,
    limit: int | None,
    no_limit: bool,
    min_version: str | None,
    versions: bool,
) -> ExitCode:
    """Print keys and values, in the order of the keys."""
    output = setup.output
    if limit is not None and no_limit:
        raise usage_error("--limit, --all: expected one at most")
    if limit is None and not no_limit and output.is_terminal and not output.as_json:
        limit = LIST_KEYS

    async def work(client: AdminClient) -> ExitCode:
        shown = 0
        async for item in client.list(prefix, min_version=min_version):
            if shown == limit:
                output.say("… and more: --all, or a higher --limit")
                break
            shown += 1
            show_listed(output, item, versions=versions)
        if not shown:
            output.say("no keys" + (f" that begin with {visible(prefix)!r}" if prefix else ""))
        return ExitCode.DONE

    return ask(setup, work)


def show_listed(output: Output, item: Item, *, versions: bool) -> None:
    """A key, a tab, its value; in a terminal cut short, and in columns as far as that goes."""
    if output.as_json:
        output.document({"key": item.key, "value": item.value, "version": item.version})
        return
    key, value = visible(item.key), shown_json(item.value)
    if output.width is None:
        output.line("\t".join([key, *([item.version] if versions else []), value]))
        return
    middle = f"  {output.paint(item.version, 'dim')}" if versions else ""
    room = output.width - max(20, len(key)) - 2 - (len(item.version) + 2 if versions else 0)
    output.line(f"{output.paint(f'{key:20}', 'cyan')}{middle}  {clip(value, max(room, 20))}")


@click.command("watch")
@takes_prefix
@click.option("--after", metavar="VERSION", help="Only what is later than this.")
@click.option(
    "--count",
    type=Number(1, 10**9, "changes", whole=True),
    metavar="CHANGES",
    help="End after so many.",
)
@asks_nodes
def watch(setup: Setup, prefix: str, after: str | None, count: int | None) -> ExitCode:
    """Print the latest change of every key, then all new ones.

    Ends with Ctrl-C, or after the time of --timeout if that is given, and then says where to go on.
    """
    output = setup.output
    opened: list[Watch] = []
    ends_s = setup.timeout_s if setup.timeout_given else math.inf

    async def work(client: AdminClient) -> ExitCode:
        told = 0
        async with client.watch(prefix, after=after) as changes:
            opened.append(changes)
            with trio.move_on_after(ends_s):
                async for change in changes:
                    show_change(output, change, changes)
                    told += isinstance(change, Change)
                    if told == count:
                        return ExitCode.DONE
        if not changes.reached:
            raise CommandError(
                f"no node could be watched within {ends_s:g} s",
                ExitCode.UNAVAILABLE,
                code="unreachable",
            )
        if changes.version is not None:
            output.say(to_go_on(prefix, changes.version))
        return ExitCode.DONE

    try:
        return ask(setup, work, answered=lambda: bool(opened and opened[0].reached), until_s=ends_s)
    except CommandError as error:
        resume = opened[0].version if opened else after
        if error.exit_code is ExitCode.INTERRUPTED and resume is not None:
            error.hint = to_go_on(prefix, resume)
            error.more["resume"] = resume
        raise


def to_go_on(prefix: str, resume: str) -> str:
    under = f"--prefix {shlex.quote(prefix)} " if prefix else ""
    return f"To go on from here: trikv watch {under}--after {resume}"


def show_change(output: Output, change: Change | Reset, changes: Watch) -> None:
    if isinstance(change, Reset):
        if output.as_json:
            told = {"type": "reset", "reason": change.reason, "resume": changes.version}
            output.document(told, flush=True)
        else:
            text = f"reset: {visible(change.reason)}; all keys follow anew"
            output.line(output.paint(text, "yellow"), flush=True)
        return
    if output.as_json:
        document = {
            "type": "change",
            "key": change.key,
            "value": change.value,
            "version": change.version,
            "deleted": change.deleted,
            "resume": changes.version,
        }
        output.document(document, flush=True)
        return
    when, key = time.strftime("%H:%M:%S"), visible(change.key)
    if output.width is None:
        value = "(deleted)" if change.deleted else shown_json(change.value)
        output.line(f"{when}\t{change.version}\t{key}\t{value}", flush=True)
        return
    room = max(20, output.width - len(when) - len(key) - 5)
    value = clip("(deleted)" if change.deleted else shown_json(change.value), room)
    value = output.paint(value, "red") if change.deleted else value
    output.line(f"{output.paint(when, 'dim')}  {output.paint(key, 'cyan')} = {value}", flush=True)
