"""The whole experiment on a fake cluster in simulated time: what it does, in order, and finds."""

import httpx
import pytest
import trio
from trio.testing import MockClock

from loadgen import experiment
from loadgen.api import Leader
from loadgen.cluster import wait_until_live
from loadgen.errors import ApiError, LoadgenError, NotALeader, Unreachable, UsageError
from loadgen.results import Plan
from loadgen.theory import UniformLag
from tests.unit.loadgen.fakes import URL, FakeCluster, Listener, plan, problem, run_on


def test_measured_means_are_those_of_the_drawn_order_statistics() -> None:
    run = run_on(FakeCluster(overhead_s=0.004))
    assert [result.quorum for result in run.results] == [1, 2, 3, 4, 5]
    for result in run.results:
        latency = result.latency
        assert latency is not None
        assert latency.mean_ms == pytest.approx(latency.drawn_ideal_mean_ms + 4)
        assert latency.overhead_p50_ms == pytest.approx(4)
        assert latency.overhead_p99_ms == pytest.approx(4)
        assert latency.expected_mean_ms == pytest.approx(result.quorum * 1000 / 6 + 4)
        assert latency.as_expected
    assert run.ok
    assert run.like_the_lab


def test_means_over_many_seeds_miss_the_theory_no_more_often_than_chance() -> None:
    outside = 0
    for seed in range(40):
        run = run_on(FakeCluster(seed=seed), plan(quorums=(1, 3, 5)))
        outside += sum(not r.latency.as_expected for r in run.results if r.latency)
    assert outside <= 4  # of 120; 0.3 are expected


def test_each_quorum_is_set_before_its_writes_and_every_value_is_written_once() -> None:
    fake, listener = FakeCluster(), Listener()
    run_on(fake, plan(quorums=(4, 2)), listener)
    assert [sample.quorum for sample in listener.samples] == [4] * 100 + [2] * 100
    assert all(
        sample.answer is not None and sample.answer.follower_acks == sample.quorum
        for sample in listener.samples
    )
    assert len(fake.values) == len(set(fake.values)) == 200
    assert [result.quorum for result in listener.results] == [4, 2]


def test_replicas_lag_at_the_last_answer_and_match_once_settled() -> None:
    run = run_on(FakeCluster())
    lagging = [result.at_last_answer.lagging_copies for result in run.results]
    assert lagging[0] > 0
    assert lagging[-1] == 0
    assert lagging == [result.under_way for result in run.results]
    assert all(result.settled.ok and result.settled.in_time for result in run.results)
    assert [follower.status for follower in run.final_parity] == ["match"] * 5
    assert {follower.compared for follower in run.final_parity} == {"values"}


def test_every_quorum_starts_from_settled_replicas() -> None:
    fake = FakeCluster()
    seen: list[int] = []

    class Watching(Listener):
        def writing(self, quorum: int, writes: int) -> None:
            status = fake._replica_status()
            seen.append(sum(follower["lag_records"] for follower in status["followers"]))

    run_on(fake, audience=Watching())
    assert seen == [0] * 5


def test_the_lag_is_set_for_the_run_and_given_back() -> None:
    fake = FakeCluster(write_quorum=2, lag=(7, 8))
    fake.own_lag[fake.urls[0]] = (1, 2)
    run = run_on(fake, plan(lag=UniformLag(10, 20), quorums=(5,)))
    assert run.results[0].latency is not None
    assert 10 <= run.results[0].latency.min_ms <= run.results[0].latency.max_ms <= 20.001
    assert (fake.write_quorum, fake.lag, fake.own_lag) == (2, (7, 8), {fake.urls[0]: (1, 2)})


def test_settings_are_given_back_when_the_run_fails() -> None:
    fake = FakeCluster(write_quorum=2, lag=(7, 8))

    def break_off(request: httpx.Request) -> httpx.Response | None:
        if request.url.path == "/admin/replica-status":
            return problem(503, "not_ready")
        return None

    fake.intercept = break_off
    with pytest.raises(LoadgenError, match="not_ready"):
        run_on(fake)
    assert (fake.write_quorum, fake.lag) == (2, (7, 8))


@pytest.mark.parametrize("after_s", [0.5, 3, 7.2, 20])
def test_settings_are_given_back_when_the_run_is_cancelled(after_s: float) -> None:
    fake = FakeCluster(write_quorum=2, lag=(7, 8))

    async def main() -> bool:
        with trio.move_on_after(after_s) as scope:
            await experiment.run_on_found_cluster(
                lambda followers: plan(writes=200),
                experiment.connector(URL, 1000, fake),
                Listener(),
                wait_s=0,
                problems=[],
            )
        return scope.cancelled_caught

    assert trio.run(main, clock=MockClock(autojump_threshold=0))
    assert (fake.write_quorum, fake.lag) == (2, (7, 8))


def test_failed_writes_are_in_the_result_and_not_in_the_latency() -> None:
    fake = FakeCluster()
    fake.deaf.add(fake.urls[0])
    run = run_on(fake, plan(quorums=(4, 5)))
    four, five = run.results
    assert four.failures == {}
    assert five.failures == {"quorum_not_met": 100}
    assert five.latency is None
    assert not run.ok
    assert not run.settled_ok
    assert [f.status for f in run.final_parity].count("mismatch") == 1


def test_a_follower_that_is_gone_is_warned_of_and_reported() -> None:
    fake, listener = FakeCluster(live_links=4), Listener()
    fake.unreachable.add(fake.urls[3])
    fake.deaf.add(fake.urls[3])
    run = run_on(fake, plan(quorums=(1,)), listener)
    assert any(text.startswith("warning: only 4 of 5") for text in listener.told)
    assert [f.status for f in run.final_parity].count("unreachable") == 1
    assert not run.settled_ok


def test_a_quorum_that_the_cluster_cannot_meet_changes_nothing() -> None:
    fake = FakeCluster(followers=3)

    def refuse(followers: int) -> Plan:
        raise UsageError(f"only {followers}")

    async def main() -> None:
        await experiment.run_on_found_cluster(
            refuse, experiment.connector(URL, 1000, fake), Listener(), wait_s=0, problems=[]
        )

    with pytest.raises(UsageError, match="only 3"):
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert {request.split()[0] for request in fake.requests} == {"GET"}


@pytest.mark.parametrize(
    ("fake", "kind", "text"),
    [
        (FakeCluster(followers=0), UsageError, "leads no followers"),
        (FakeCluster(live_links=0), ApiError, "a live link to none of its 5 followers"),
        (FakeCluster(role="follower"), NotALeader, "expected the URL of the leader"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    fake: FakeCluster, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        run_on(fake)
    assert {request.split()[0] for request in fake.requests} == {"GET"}


def test_a_leader_that_is_still_starting_is_waited_for() -> None:
    fake = FakeCluster(live_links=0)

    def start_slowly(request: httpx.Request) -> httpx.Response | None:
        now_s = trio.current_time() - started[0]
        if now_s < 2:
            raise httpx.ConnectError("refused")
        fake.live_links = 5 if now_s > 4 else 3
        return None

    fake.intercept = start_slowly
    started = [0.0]
    told: list[str] = []

    async def main() -> float:
        started[0] = trio.current_time()
        async with Leader(URL, timeout_s=5, transport=fake) as leader:
            health = await wait_until_live(leader, wait_s=30, on_wait=told.append)
            assert health.live_links == 5
        return trio.current_time() - started[0]

    assert trio.run(main, clock=MockClock(autojump_threshold=0)) == pytest.approx(4, abs=0.1)
    assert any("cannot connect" in text for text in told)
    assert "http://leader.test: 3 of 5 followers linked" in told


def test_a_leader_that_does_not_come_is_not_waited_for_longer_than_asked() -> None:
    def refuse(request: httpx.Request) -> httpx.Response | None:
        raise httpx.ConnectError("refused")

    async def main() -> float:
        started_s = trio.current_time()
        async with Leader(URL, timeout_s=5, transport=FakeCluster(intercept=refuse)) as leader:
            with pytest.raises(Unreachable, match="cannot connect"):
                await wait_until_live(leader, wait_s=3, on_wait=lambda text: None)
        return trio.current_time() - started_s

    assert trio.run(main, clock=MockClock(autojump_threshold=0)) == pytest.approx(3, abs=0.1)


def test_a_run_with_problems_is_not_ok() -> None:
    problems: list[str] = []
    run = run_on(FakeCluster(), plan(quorums=(1,)), problems=problems)
    ok_before = run.ok
    problems.append("the lag was not given back")
    assert (ok_before, run.ok) == (True, False)


def test_fewer_writes_than_workers_need_fewer_workers() -> None:
    fake = FakeCluster()
    run = run_on(fake, plan(quorums=(1,), writes=3))
    assert fake.most_in_flight == 3
    assert len(run.results[0].samples) == 3


def test_one_write_has_no_standard_error_and_no_verdict() -> None:
    latency = run_on(FakeCluster(), plan(quorums=(2,), writes=1)).results[0].latency
    assert latency is not None
    assert latency.standard_error_ms is None
    assert latency.as_expected is None


def test_writes_a_second_count_from_the_first_request_to_the_last_answer() -> None:
    run = run_on(FakeCluster(), plan(quorums=(1,), lag=UniformLag(100, 100)))
    assert run.results[0].writes_per_s == pytest.approx(100)
