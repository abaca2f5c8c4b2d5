"""What was found is given back: after success, error and cancellation; and what cannot be is told."""

from collections.abc import Callable

import httpx
import pytest
import trio
from trio.testing import MockClock

from loadgen import lending
from loadgen.api import Leader
from tests.unit.loadgen.fakes import URL, FakeCluster, problem


def connector(fake: FakeCluster) -> Callable[[], Leader]:
    return lambda: Leader(URL, timeout_s=5, transport=fake)


def lend(fake: FakeCluster, error: Exception | None = None) -> list[str]:
    """Take the settings, change them, raise `error` if there is one; returns the problems."""
    problems: list[str] = []

    async def main() -> None:
        connect = connector(fake)
        async with connect() as leader:
            found = await leader.health()
            async with lending.lent_settings(connect, found, problems):
                await leader.set_lag(0, 1000)
                await leader.set_quorum(5)
                if error is not None:
                    raise error

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return problems


def a_cluster_with_its_own_settings() -> FakeCluster:
    fake = FakeCluster(write_quorum=2, lag=(5, 50))
    fake.own_lag[fake.urls[1]] = (0, 0)
    fake.own_lag[fake.urls[4]] = (100.5, 900)
    return fake


def assert_as_found(fake: FakeCluster) -> None:
    assert fake.write_quorum == 2
    assert fake.lag == (5, 50)
    assert fake.own_lag == {fake.urls[1]: (0, 0), fake.urls[4]: (100.5, 900)}


def test_quorum_general_lag_and_every_followers_own_lag_are_given_back() -> None:
    fake = a_cluster_with_its_own_settings()
    problems = lend(fake)
    assert problems == []
    assert_as_found(fake)
    assert fake.requests[-4:] == ["POST /admin/lag"] * 3 + ["POST /admin/quorum"]


def test_they_are_given_back_after_an_error_which_goes_on() -> None:
    fake = a_cluster_with_its_own_settings()
    with pytest.raises(RuntimeError, match="the experiment broke"):
        lend(fake, RuntimeError("the experiment broke"))
    assert_as_found(fake)


def test_they_are_given_back_when_the_run_is_cancelled() -> None:
    fake = a_cluster_with_its_own_settings()
    problems: list[str] = []

    async def main() -> None:
        connect = connector(fake)
        async with connect() as leader:
            found = await leader.health()
            with trio.move_on_after(3) as scope:
                async with lending.lent_settings(connect, found, problems):
                    await leader.set_quorum(5)
                    await leader.set_lag(0, 1000)
                    await trio.sleep_forever()
            assert scope.cancelled_caught

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert problems == []
    assert_as_found(fake)


def test_numbers_go_back_as_they_came() -> None:
    fake = FakeCluster(lag=(0, 1000))
    lend(fake)
    assert [type(bound) for bound in fake.lag] == [int, int]


def test_a_leader_that_is_away_for_a_moment_is_asked_again() -> None:
    fake = a_cluster_with_its_own_settings()
    refusals: list[httpx.Response | Exception] = [
        httpx.ConnectError("refused"),
        problem(503, "overloaded"),
    ]

    def away(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.startswith("/admin/") or fake.write_quorum != 5:
            return None
        refusal = refusals.pop(0) if refusals else None
        if isinstance(refusal, Exception):
            raise refusal
        return refusal

    fake.intercept = away
    problems = lend(fake)
    assert problems == []
    assert_as_found(fake)
    assert refusals == []


def test_what_is_refused_for_good_is_told_with_the_request_that_does_it() -> None:
    fake = a_cluster_with_its_own_settings()

    def refuse_lag_of_the_second(request: httpx.Request) -> httpx.Response | None:
        if b"follower2" in request.content:
            return problem(422, "invalid_body", "follower: no such follower")
        return None

    fake.intercept = refuse_lag_of_the_second
    problems = lend(fake)
    assert problems == [
        "the lag of http://leader.test was not given back (http://leader.test answered POST "
        "/admin/lag with 422 invalid_body: follower: no such follower); to do it by hand: POST "
        '/admin/lag {"min_delay_ms":0,"max_delay_ms":0,"follower":"http://follower2.test"}'
    ]
    assert fake.write_quorum == 2
    assert fake.lag == (5, 50)


def test_a_leader_that_is_gone_costs_a_bounded_wait_and_every_step_is_told() -> None:
    fake = a_cluster_with_its_own_settings()

    def gone(request: httpx.Request) -> httpx.Response | None:
        if fake.write_quorum == 5:
            raise httpx.ConnectError("refused")
        return None

    fake.intercept = gone
    clock = MockClock(autojump_threshold=0)
    problems: list[str] = []

    async def main() -> float:
        connect = connector(fake)
        async with connect() as leader:
            found = await leader.health()
            started_s = trio.current_time()
            async with lending.lent_settings(connect, found, problems):
                await leader.set_quorum(5)
            return trio.current_time() - started_s

    took_s = trio.run(main, clock=clock)
    assert took_s == pytest.approx(lending.GIVE_BACK_TIMEOUT_S)
    assert len(problems) == 4
    assert "refused" in problems[0]
    assert problems[3].endswith('POST /admin/quorum {"write_quorum":2}')


def test_a_leader_that_never_answers_is_given_up() -> None:
    fake = a_cluster_with_its_own_settings()

    class Mute(FakeCluster):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if fake.write_quorum == 5:
                await trio.sleep_forever()
            return await fake.handle_async_request(request)

    problems: list[str] = []

    async def main() -> None:
        connect = connector(Mute())
        async with connect() as leader:
            found = await leader.health()
            async with lending.lent_settings(connect, found, problems):
                await leader.set_quorum(5)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert len(problems) == 4
    assert "no answer in time" in problems[0]
