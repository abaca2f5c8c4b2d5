"""The lab's experiment: each write quorum in turn, on one cluster.

    set the quorum → make the writes → look at the replicas at once → wait until they have settled
    → look again → the next quorum

Because every quorum starts from settled replicas, what lags at its last answer is its own doing.
The first look goes out on a connection that is open already, the moment the last answer is in.
"""

import ssl
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Protocol

import httpx
import trio

from loadgen import parity, workload
from loadgen.api import Leader, LeaderHealth
from loadgen.cluster import local_cluster, wait_until_live
from loadgen.errors import ApiError, UsageError
from loadgen.lending import lent_settings
from loadgen.parity import Look
from loadgen.results import Plan, QuorumResult, Run, latency_of
from loadgen.theory import OrderStatistic
from loadgen.workload import Sample

# What comes on top of the longest lag before we call an answer overdue. Longer than the node's
# own patience, so that it is the node that says what went wrong.
ANSWER_MARGIN_S = 30.0
# What comes on top of the longest lag before replicas that still differ are reported as such.
SETTLE_MARGIN_S = 15.0

Connect = Callable[[], Leader]


class Audience(Protocol):
    """Who is told how far a run has got. Calls return at once."""

    def step(self, text: str) -> None:
        """Something that takes a while has begun, or got further."""

    def say(self, text: str) -> None:
        """Something worth keeping on the screen."""

    def warn(self, text: str) -> None:
        """Something is not as it should be, but the run goes on."""

    def writing(self, quorum: int, writes: int) -> None:
        """The writes of a quorum begin."""

    def wrote(self, sample: Sample) -> None:
        """A write was made."""

    def settling(self, look: Look) -> None:
        """The replicas were compared while they settle."""

    def quorum_done(self, result: QuorumResult) -> None:
        """All is known about one quorum."""


def connector(
    url: str, longest_lag_ms: float, transport: httpx.AsyncBaseTransport | None = None
) -> Connect:
    """A function that opens a new connection to the leader, patient enough for this lag."""
    context: ssl.SSLContext | None = None
    if url.startswith("https:"):
        context = httpx.create_ssl_context(trust_env=False)
    timeout_s = longest_lag_ms / 1000 + ANSWER_MARGIN_S

    def connect() -> Leader:
        return Leader(url, timeout_s=timeout_s, transport=transport, ssl_context=context)

    return connect


async def run_on_own_cluster(plan: Plan, audience: Audience) -> Run:
    """The experiment on a cluster that exists only for it."""
    async with local_cluster(
        lag=plan.lag,
        lag_seed=plan.seed,
        write_quorum=plan.quorums[0],
        on_progress=audience.step,
    ) as cluster:
        audience.say(
            f"own cluster: a leader at {cluster.leader_url} and "
            f"{len(cluster.follower_urls)} followers on loopback"
        )
        connect = connector(cluster.leader_url, plan.lag.max_ms)
        return await _run(plan, connect, audience, own_cluster=True, problems=[])


async def run_on_found_cluster(
    plan_for: Callable[[int], Plan],
    connect: Connect,
    audience: Audience,
    *,
    wait_s: float,
    problems: list[str],
) -> Run:
    """The experiment on a cluster that is up; its quorum and lag are given back.

    `plan_for` makes the plan once the number of followers is known, or raises UsageError.
    `problems` receives a line for whatever could not be given back, even if the run fails.
    """
    async with connect() as leader:
        found = await wait_until_live(leader, wait_s=wait_s, on_wait=audience.step)
        url = leader.url
        if found.followers == 0:
            raise UsageError(f"{url} leads no followers: the experiment needs at least one")
        if found.live_links == 0:
            raise ApiError(
                f"{url} has a live link to none of its {found.followers} followers",
                code="no_live_links",
            )
        plan = plan_for(found.followers)
        if found.live_links < found.followers:
            audience.warn(
                f"only {found.live_links} of {found.followers} followers are linked: "
                "expect failed writes and replicas that differ"
            )
        audience.say(f"cluster at {url}: {found.followers} followers")
        async with lent_settings(connect, found, problems):
            await leader.set_lag(plan.lag.min_ms, plan.lag.max_ms)
            return await _run(plan, connect, audience, own_cluster=False, problems=problems)


async def _run(
    plan: Plan, connect: Connect, audience: Audience, *, own_cluster: bool, problems: list[str]
) -> Run:
    started_at, started_s = datetime.now(UTC), trio.current_time()
    async with connect() as leader:
        health = await leader.health()
        results = []
        for quorum in plan.quorums:
            results.append(await run_quorum(plan, quorum, health, connect, audience))
            audience.quorum_done(results[-1])
        return Run(
            plan=plan,
            leader_url=leader.url,
            own_cluster=own_cluster,
            leader=health,
            started_at=started_at,
            duration_s=trio.current_time() - started_s,
            results=results,
            problems=problems,
        )


async def run_quorum(
    plan: Plan, quorum: int, health: LeaderHealth, connect: Connect, audience: Audience
) -> QuorumResult:
    """One quorum: its writes, and both looks at the replicas."""
    writes = workload.plan_writes(
        seed=plan.seed, run_id=plan.run_id, quorum=quorum, writes=plan.writes, keys=plan.keys
    )
    async with AsyncExitStack() as stack:
        leaders: Sequence[Leader] = [
            await stack.enter_async_context(connect())
            for _ in range(min(plan.concurrency, plan.writes))
        ]
        await leaders[0].set_quorum(quorum)
        audience.writing(quorum, plan.writes)
        samples = await workload.make_writes(leaders, writes, quorum, audience.wrote)
        look, _ = await parity.look(leaders[0])
        last_answer_s = max(sample.finished_s for sample in samples)
        settled = await parity.settle(
            leaders[0],
            samples,
            run_id=plan.run_id,
            timeout_s=plan.lag.max_ms / 1000 + SETTLE_MARGIN_S,
            on_look=audience.settling,
        )
    statistic = OrderStatistic(quorum, health.followers, plan.lag)
    return QuorumResult(
        statistic=statistic,
        samples=samples,
        latency=latency_of(samples, statistic),
        at_last_answer=look,
        under_way=parity.copies_under_way(samples, last_answer_s),
        settled=settled,
    )
