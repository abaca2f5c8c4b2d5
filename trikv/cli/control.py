"""`quorum`, `lag`, `cut`, `heal`: what the leader is asked to change, or what it has in force."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from trikv.cli import survey as surveys
from trikv.cli.options import (
    Number,
    OptionalArgument,
    Setup,
    TakesNegativeNumbers,
    ask,
    asks_nodes,
)
from trikv.cli.outcome import CommandError, ExitCode, usage_error
from trikv.cli.output import Output, plural, visible
from trikv.cli.status import lag_range
from trikv.client.admin import AdminClient
from trikv.config import MAX_FOLLOWERS
from trikv.network.simulated_lag import MAX_DELAY_MS

_MS = Number(0, MAX_DELAY_MS, "ms")


async def leader_of(client: AdminClient, setup: Setup) -> surveys.Survey:
    """What the leader says of the cluster, its replicas uncompared. Raises CommandError."""
    survey = await surveys.take(client, timeout_s=setup.timeout_s, compare=False)
    if survey.leader_url is None:
        raise CommandError("; ".join(survey.problems), ExitCode.UNAVAILABLE, code="unreachable")
    return survey


@click.command("quorum", cls=TakesNegativeNumbers)
@click.argument(
    "followers",
    cls=OptionalArgument,
    metavar="[N]",
    required=False,
    type=Number(0, MAX_FOLLOWERS, "N", whole=True),
)
@click.option(
    "--force", is_flag=True, help="At once, whoever has confirmed it; says what that may cost."
)
@asks_nodes
def quorum(setup: Setup, followers: int | None, force: bool) -> ExitCode:
    """Show the write quorum, or make it N followers.

    It holds until the leader starts again.
    """
    if force and followers is None:
        raise usage_error("--force: expected N as well")
    output = setup.output

    async def work(client: AdminClient) -> ExitCode:
        if followers is None:
            show_quorum(output, await leader_of(client, setup))
            return ExitCode.DONE
        told = await client.set_quorum(followers, force=force)
        if output.as_json:
            output.document(told)
            return ExitCode.DONE
        before = told.get("previous_write_quorum")
        output.line(f"quorum {told.get('write_quorum')}, before {before}")
        if "warning" in told:
            output.say(f"warning: {visible(str(told['warning']))}", "yellow")
        return ExitCode.DONE

    return ask(setup, work, write=followers is not None)


def show_quorum(output: Output, survey: surveys.Survey) -> None:
    if output.as_json:
        names = ("pending_write_quorum", "environment_write_quorum", "settled")
        told = {"write_quorum": survey.write_quorum, "followers": survey.followers}
        output.document(told | {name: getattr(survey, name) for name in names})
        return
    output.line(f"quorum {survey.write_quorum} of {plural('follower', survey.followers or 0)}")
    if survey.pending_write_quorum is not None:
        output.line(f"{survey.pending_write_quorum} is asked for, and not confirmed yet")
    elif survey.settled is False:
        output.line("the last change is in force, and not settled: a takeover may not know of it")
    if survey.environment_write_quorum != survey.write_quorum:
        output.line(f"{survey.environment_write_quorum} again when the leader starts again")


@click.command("lag", cls=TakesNegativeNumbers)
@click.argument("least", cls=OptionalArgument, metavar="[MIN", required=False, type=_MS)
@click.argument("most", cls=OptionalArgument, metavar="MAX]", required=False, type=_MS)
@click.option("--follower", metavar="FOLLOWER", help="Of this one only: its node id or URL.")
@asks_nodes
def lag(setup: Setup, least: float | None, most: float | None, follower: str | None) -> ExitCode:
    """Show the simulated lag, or let it be MIN to MAX milliseconds.

    Without --follower it holds for all, whatever single ones had. It holds until the leader starts
    again. 0 0 turns it off.
    """
    if least is not None and most is None:
        raise usage_error("MIN MAX: expected both, in milliseconds")
    if least is not None and most is not None and least > most:
        raise usage_error(f"MIN MAX: expected MIN to be {most:g} at most, got {least:g}")
    if least is None and follower is not None:
        raise usage_error("--follower: expected MIN MAX as well")
    output = setup.output

    async def work(client: AdminClient) -> ExitCode:
        if least is None or most is None:
            survey = await leader_of(client, setup)
            show_lag(output, _lag_document(survey))
        else:
            show_lag(output, await client.set_lag(least, most, follower=follower))
        return ExitCode.DONE

    return ask(setup, work, write=least is not None)


def _lag_document(survey: surveys.Survey) -> dict[str, Any]:
    return {
        "min_delay_ms": survey.min_delay_ms,
        "max_delay_ms": survey.max_delay_ms,
        "followers": [
            {
                "url": node.url,
                "node_id": node.node_id,
                "min_delay_ms": node.min_delay_ms,
                "max_delay_ms": node.max_delay_ms,
            }
            for node in survey.nodes
            if node.min_delay_ms is not None
        ],
    }


def show_lag(output: Output, told: Mapping[str, Any]) -> None:
    if output.as_json:
        output.document(told)
        return
    general = lag_range(told.get("min_delay_ms"), told.get("max_delay_ms"))
    output.line(f"lag {general}")
    followers = surveys.objects(told, "followers")
    lags = [lag_range(one.get("min_delay_ms"), one.get("max_delay_ms")) for one in followers]
    if any(own != general for own in lags):
        rows = [
            (visible(str(one.get("node_id") or "?")), own, visible(str(one.get("url") or "?")))
            for one, own in zip(followers, lags, strict=True)
        ]
        output.lines(output.table(("node", ">lag", "URL"), rows))


@click.command("cut")
@click.argument("followers", metavar="FOLLOWER...", nargs=-1, required=True)
@asks_nodes
def cut(setup: Setup, followers: tuple[str, ...]) -> ExitCode:
    """Cut the wire from the leader to FOLLOWER, by node id or URL.

    Nothing travels on it until it is healed, or the leader starts again.
    """

    async def work(client: AdminClient) -> ExitCode:
        await _set_cut(setup.output, client, followers, True)
        return ExitCode.DONE

    return ask(setup, work, write=True)


@click.command("heal")
@click.argument("followers", metavar="[FOLLOWER]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every wire that is cut.")
@asks_nodes
def heal(setup: Setup, followers: tuple[str, ...], every: bool) -> ExitCode:
    """Heal the wire from the leader to FOLLOWER, by node id or URL."""
    if every == bool(followers):
        raise usage_error("expected the FOLLOWER whose wire is to be healed, or --all")

    async def work(client: AdminClient) -> ExitCode:
        names = followers
        if every:
            told = await client.replica_status()
            cuts = [one for one in surveys.objects(told, "followers") if one.get("link") == "cut"]
            names = tuple(str(one.get("url")) for one in cuts)
        await _set_cut(setup.output, client, names, False)
        return ExitCode.DONE

    return ask(setup, work, write=True)


async def _set_cut(
    output: Output, client: AdminClient, followers: tuple[str, ...], wanted: bool
) -> None:
    """One after the other: the first that is refused ends it, and those before it are told."""
    told: list[Mapping[str, Any]] = []
    try:
        for follower in followers:
            told.append(await client.set_cut(follower, wanted))
            if not output.as_json:
                name = visible(str(told[-1].get("node_id") or told[-1].get("url")))
                output.line(f"the wire to {name} is {'cut' if wanted else 'healed'}", flush=True)
    finally:
        if output.as_json and (told or not followers):
            output.document({"followers": told}, flush=True)
    if not followers and not output.as_json:
        output.line("no wire is cut")
