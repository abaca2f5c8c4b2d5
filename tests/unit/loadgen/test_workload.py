"""The writes: balanced, unique, repeatable; and made by exactly as many workers as asked for."""

from collections import Counter
from dataclasses import replace

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from loadgen import workload
from loadgen.api import Leader
from loadgen.workload import Sample, Write, plan_writes
from tests.unit.loadgen.fakes import URL, FakeCluster, problem

WRITES = [Write(i, f"loadgen-key-{i % 3}", f"value {i}") for i in range(40)]


def make(
    fake: FakeCluster, workers: int, quorum: int = 3, timeout_s: float = 30
) -> tuple[list[Sample], list[Sample]]:
    """The samples of WRITES made by so many workers, and those that were told of on the way."""
    told: list[Sample] = []

    async def main() -> list[Sample]:
        leaders = [Leader(URL, timeout_s=timeout_s, transport=fake) for _ in range(workers)]
        return await workload.make_writes(leaders, WRITES, quorum, told.append)

    return trio.run(main, clock=MockClock(autojump_threshold=0)), told


@given(st.integers(0, 999), st.integers(1, 5), st.integers(1, 300), st.integers(1, 40))
def test_writes_are_dealt_out_evenly_and_every_value_is_unique(
    seed: int, quorum: int, writes: int, keys: int
) -> None:
    planned = plan_writes(seed=seed, run_id="r", quorum=quorum, writes=writes, keys=keys)
    assert len(planned) == writes
    assert len({write.value for write in planned}) == writes
    used = Counter(write.key for write in planned)
    assert set(used) <= set(workload.key_names(keys))
    assert len(used) == min(writes, keys)
    assert max(used.values()) - min(used.values()) <= 1


def test_a_seed_repeats_the_order_of_the_keys_on_any_machine() -> None:
    planned = plan_writes(seed=1, run_id="r", quorum=3, writes=10, keys=4)
    assert [write.key[-1] for write in planned] == list("1220013310")


def test_values_differ_between_quorums_and_runs_and_orders_between_quorums_and_seeds() -> None:
    def planned(seed: int = 1, run_id: str = "a", quorum: int = 1) -> list[Write]:
        return plan_writes(seed=seed, run_id=run_id, quorum=quorum, writes=50, keys=10)

    def keys(writes: list[Write]) -> list[str]:
        return [write.key for write in writes]

    values = [w.value for q in (1, 2) for run in "ab" for w in planned(run_id=run, quorum=q)]
    assert len(set(values)) == 200
    assert keys(planned()) == keys(planned(run_id="b"))
    assert keys(planned()) != keys(planned(quorum=2))
    assert keys(planned()) != keys(planned(seed=2))


def test_keys_sort_as_they_count() -> None:
    assert workload.key_names(1) == ["loadgen-key-0"]
    names = workload.key_names(101)
    assert names == sorted(names)
    assert len(set(names)) == 101


@pytest.mark.parametrize("workers", [1, 7, 40])
def test_exactly_as_many_writes_are_in_flight_as_there_are_workers(workers: int) -> None:
    fake = FakeCluster()
    samples, told = make(fake, workers)
    assert fake.most_in_flight == workers
    assert samples == told
    assert sorted(sample.write.index for sample in samples) == list(range(40))


def test_every_connection_is_used_once_before_the_first_write() -> None:
    fake = FakeCluster()
    make(fake, 7)
    assert fake.requests[:7] == ["GET /health"] * 7
    assert fake.requests.count("GET /health") == 7


def test_without_overhead_a_latency_is_the_ideal() -> None:
    samples, _ = make(FakeCluster(write_quorum=3), 10)
    for sample in samples:
        assert sample.latency_ms == pytest.approx(sample.ideal_ms)
        assert sample.overhead_ms == pytest.approx(0, abs=1e-6)


def test_what_a_write_takes_beyond_its_ideal_is_its_overhead() -> None:
    samples, _ = make(FakeCluster(overhead_s=0.007), 10)
    assert all(sample.overhead_ms == pytest.approx(7) for sample in samples)


def test_failed_writes_are_counted_by_code_and_stop_nothing() -> None:
    def refuse_some(request: httpx.Request) -> httpx.Response | None:
        if request.method != "PUT":
            return None
        if b"value 3" in request.content:
            return problem(503, "overloaded")
        if b"value 7" in request.content:
            raise httpx.ReadError("gone")
        if b"value 9" in request.content:
            return httpx.Response(502, text="<html>bad gateway</html>")
        return None

    samples, _ = make(FakeCluster(intercept=refuse_some), 10)
    assert len(samples) == 40
    codes = Counter(sample.failure for sample in samples)
    assert codes == {"overloaded": 11, "connection_lost": 1, "http_502": 1, None: 27}
    assert all((s.answer is None) == (s.ideal_ms is None) for s in samples)


def test_a_write_without_an_answer_times_out() -> None:
    fake = FakeCluster()

    class Mute(FakeCluster):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "PUT":
                raise httpx.ReadTimeout("too long")
            return await fake.handle_async_request(request)

    samples, _ = make(Mute(), 10)
    assert {sample.failure for sample in samples} == {"timeout"}


@pytest.mark.parametrize("change", ["acks", "met", "value"])
def test_a_200_that_does_not_confirm_the_write_is_a_failure(change: str) -> None:
    class Liar(FakeCluster):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await super().handle_async_request(request)
            if request.method != "PUT":
                return response
            body = response.json()
            body |= {"acks": {"follower_acks": 2}, "met": {"quorum_met": False}}.get(
                change, {"value": "another"}
            )
            return httpx.Response(200, json=body)

    samples, _ = make(Liar(), 10)
    assert {sample.failure for sample in samples} == {"false_confirmation"}


def test_a_sample_ends_when_its_answer_is_there() -> None:
    sample = Sample(WRITES[0], 1, started_s=10.0, latency_ms=250.0, failure="overloaded")
    assert sample.finished_s == 10.25
    assert replace(sample, latency_ms=0).finished_s == 10
