"""A found cluster's quorum and lag: taken for an experiment, and given back.

Whatever ends the experiment (its end, an error, Ctrl-C), the leader gets back the quorum and the
lag that it had: the general lag first, which ends every follower's own, then the lag of each
follower that had one of its own, then the quorum. Giving back is shielded from cancellation, has
a deadline, uses a connection of its own (the others may have been cut in mid-request) and tries
again while the leader is too busy or does not answer. What could not be given back is reported
together with the request that does it by hand.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import trio

from loadgen.api import Leader, LeaderHealth
from loadgen.errors import ApiError, Unreachable

GIVE_BACK_TIMEOUT_S = 10.0
RETRY_S = 0.5
# Refusals that pass by themselves.
PASSING = frozenset({"overloaded", "not_ready", "not_enough_followers", "quorum_not_met"})


@dataclass(frozen=True, slots=True)
class Step:
    """One request that gives something back: `POST /admin/{route}` with `body`."""

    route: str
    body: dict[str, Any]

    def __str__(self) -> str:
        return f"POST /admin/{self.route} {msgspec.json.encode(self.body).decode()}"


def steps_back(found: LeaderHealth) -> list[Step]:
    """What must be posted, in this order, for a leader to be as it was found."""
    lag = found.lag
    general = {"min_delay_ms": lag.min_delay_ms, "max_delay_ms": lag.max_delay_ms}
    steps = [Step("lag", general)]
    for follower in lag.followers:
        own = {"min_delay_ms": follower.min_delay_ms, "max_delay_ms": follower.max_delay_ms}
        if own != general:
            steps.append(Step("lag", {**own, "follower": follower.url}))
    return [*steps, Step("quorum", {"write_quorum": found.write_quorum})]


@asynccontextmanager
async def lent_settings(
    connect: Callable[[], Leader], found: LeaderHealth, problems: list[str]
) -> AsyncIterator[None]:
    """Whatever happens inside, the settings of `found` are given back at its end.

    What cannot be given back is added to `problems`, a line each, instead of raised: it must not
    hide what ended the experiment.
    """
    try:
        yield
    finally:
        problems += await give_back(connect, found)


async def give_back(connect: Callable[[], Leader], found: LeaderHealth) -> list[str]:
    """Give back lag and quorum, within a deadline, cancelled or not; returns what went wrong."""
    left = {str(step): (step, "no answer in time") for step in steps_back(found)}
    failed: list[str] = []
    url = ""
    with trio.CancelScope(shield=True) as scope:
        scope.deadline = trio.current_time() + GIVE_BACK_TIMEOUT_S
        async with connect() as leader:
            url = leader.url
            while left:
                name, (step, _) = next(iter(left.items()))
                try:
                    await leader.administer(step.route, step.body)
                except ApiError as error:
                    left[name] = (step, str(error))
                    if isinstance(error, Unreachable) or error.code in PASSING:
                        await trio.sleep(RETRY_S)
                        continue
                    failed.append(_problem(url, *left[name]))
                del left[name]
    return failed + [_problem(url, step, error) for step, error in left.values()]


def _problem(url: str, step: Step, error: str) -> str:
    return f"the {step.route} of {url} was not given back ({error}); to do it by hand: {step}"
