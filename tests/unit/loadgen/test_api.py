"""The client of the leader: every answer becomes what it should, every failure one clear error."""

from collections.abc import Callable

import httpx
import pytest
import trio

from loadgen.api import Leader, version_order
from loadgen.errors import ApiError, NotALeader, Unreachable
from tests.unit.loadgen.fakes import URL, FakeCluster, problem


def leader(answer: Callable[[httpx.Request], httpx.Response]) -> Leader:
    return Leader(URL, timeout_s=5, transport=httpx.MockTransport(answer))


async def test_a_leaders_health_is_typed() -> None:
    health = await Leader(URL, timeout_s=5, transport=FakeCluster(lag=(1, 2.5))).health()
    assert (health.write_quorum, health.followers, health.live_links) == (3, 5, 5)
    assert (health.lag.min_delay_ms, health.lag.max_delay_ms) == (1, 2.5)
    assert health.lag.followers[4].node_id == "follower5"


async def test_a_follower_is_told_apart_from_a_leader() -> None:
    fake = FakeCluster(role="follower")
    with pytest.raises(NotALeader, match="is follower1, a follower: expected the URL of the lead"):
        await Leader(URL, timeout_s=5, transport=fake).health()


async def test_a_key_travels_as_one_path_segment() -> None:
    fake = FakeCluster(lag=(0, 0))
    answer = await Leader(URL, timeout_s=5, transport=fake).write("a/b %?ü", "v")
    assert answer.key == "a/b %?ü"
    assert fake.data["a/b %?ü"] == (1, "v")


async def test_a_trace_comes_with_every_write() -> None:
    answer = await Leader(URL, timeout_s=5, transport=FakeCluster(lag=(1, 2))).write("k", "v")
    assert answer.follower_acks == 3
    assert len(answer.trace.followers) == 5
    assert all(1 <= follower.lag_ms <= 2 for follower in answer.trace.followers)
    assert sum(follower.ack_ms is None for follower in answer.trace.followers) == 2


async def test_a_refusal_carries_the_nodes_code_and_reason() -> None:
    client = leader(lambda request: problem(503, "not_ready", "no leadership yet"))
    with pytest.raises(ApiError, match="503 not_ready: no leadership yet") as caught:
        await client.write("k", "v")
    assert caught.value.code == "not_ready"


@pytest.mark.parametrize(
    "body", [b"<html>nginx</html>", b"\xff\xfe", b"{}", b'{"detail":"x"}', b""]
)
async def test_a_refusal_that_is_no_problem_document_is_shown(body: bytes) -> None:
    client = leader(lambda request: httpx.Response(502, content=body))
    with pytest.raises(
        ApiError, match=r"answered PUT .* with 502: .* \(expected a trikv leader\)"
    ) as caught:
        await client.write("k", "v")
    assert caught.value.code == "http_502"


@pytest.mark.parametrize(
    "body", [b"<html></html>", b"\xff", b"[]", b'{"status":"ok","role":"leader","node_id":"x"}']
)
async def test_an_answer_that_no_leader_gives_is_an_error(body: bytes) -> None:
    client = leader(lambda request: httpx.Response(200, content=body))
    with pytest.raises(ApiError, match="not what a trikv leader answers") as caught:
        await client.health()
    assert caught.value.code == "unexpected_answer"


async def test_a_long_foreign_answer_is_cut_short() -> None:
    client = leader(lambda request: httpx.Response(404, text="x" * 10_000))
    with pytest.raises(ApiError) as caught:
        await client.health()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (httpx.ConnectError("refused"), "connect_failed", r"cannot connect to .* \(refused\)"),
        (httpx.ConnectTimeout("slow"), "timeout", "no answer in time from .* to GET /health"),
        (httpx.ReadTimeout("slow"), "timeout", "no answer in time"),
        (httpx.ReadError(""), "connection_lost", r"lost the connection .* \(ReadError\)"),
        (httpx.RemoteProtocolError("bad"), "connection_lost", r"lost the connection .* \(bad\)"),
    ],
)
async def test_no_answer_is_unreachable(error: Exception, code: str, text: str) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(Unreachable, match=text) as caught:
        await leader(fail).health()
    assert caught.value.code == code


async def test_a_quorum_that_was_not_set_as_asked_is_an_error() -> None:
    answer = {"write_quorum": 3, "previous_write_quorum": 3}
    client = leader(lambda request: httpx.Response(200, json=answer))
    with pytest.raises(ApiError, match="was asked for quorum 2 and set 3"):
        await client.set_quorum(2)


async def test_a_version_of_a_wrong_form_is_an_error() -> None:
    class Strange(FakeCluster):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            body = (await super().handle_async_request(request)).json()
            return httpx.Response(200, json={**body, "version": "7"})

    client = Leader(URL, timeout_s=5, transport=Strange(lag=(0, 0)))
    with pytest.raises(ApiError, match=r"version '7': expected NUMBER\.INSTANCE-TIMESTAMP"):
        await client.write("k", "v")


@pytest.mark.parametrize("version", ["", "1", "1.ab", "x.ab-1", "1.ab-", "1.ab-x", "-1.ab-2"])
def test_what_is_no_version_has_no_order(version: str) -> None:
    with pytest.raises(ValueError, match="expected NUMBER"):
        version_order(version)


def test_versions_compare_by_epoch_and_then_by_time() -> None:
    versions = ["9.ab-5", "10.ab-1", "9.ab-10", "10.ab-2"]
    assert sorted(versions, key=version_order) == ["9.ab-5", "9.ab-10", "10.ab-1", "10.ab-2"]


def test_https_needs_a_context() -> None:
    with pytest.raises(ValueError, match="needs an ssl_context"):
        Leader("https://leader.test", timeout_s=5)


async def test_a_connection_refused_for_real_is_told_so() -> None:
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    async with Leader(f"http://127.0.0.1:{port}", timeout_s=5) as client:
        with pytest.raises(Unreachable, match=f"cannot connect to http://127.0.0.1:{port}"):
            await client.health()
