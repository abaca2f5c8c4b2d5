"""Pools, and the dialects that their requests are in."""

from __future__ import annotations

import base64
import json

import pytest

from benchmarks import resp
from benchmarks.dialects import EtcdDialect, HttpDialect, PlainDialect, RedisDialect, TrikvDialect
from benchmarks.workloads import VALUE_BYTES, Dialect, dump_pool, key_name, make_pool

HOST = "127.0.0.1:8000"
DIALECTS: list[Dialect] = [
    TrikvDialect(HOST),
    PlainDialect(HOST),
    EtcdDialect(HOST),
    RedisDialect(),
]


def body_of(request: bytes) -> bytes:
    """The body of a request, which is as long as its head says."""
    head, _, body = request.partition(b"\r\n\r\n")
    told = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")]
    assert [int(line.split()[1]) for line in told] == ([len(body)] if body else [])
    return body


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: type(dialect).__name__)
@pytest.mark.parametrize("workload", ["put", "get-local", "mix", "batch"])
def test_a_pool_is_the_same_for_the_same_seed_and_comes_back_from_its_file(
    dialect: Dialect, workload: str
) -> None:
    if workload in dialect.lacks:
        pytest.skip(dialect.lacks[workload])
    pool = make_pool(workload, dialect, seed=1)
    assert pool == make_pool(workload, dialect, seed=1)
    assert pool != make_pool(workload, dialect, seed=2)
    assert resp.read_pool(dump_pool(pool)) == pool


def test_one_request_in_ten_of_a_mix_is_a_put() -> None:
    pool = make_pool("mix", TrikvDialect(HOST), seed=1)
    puts = sum(request.startswith(b"PUT ") for request in pool)
    assert puts * 10 == len(pool)


def test_a_pool_of_large_values_is_small() -> None:
    pool = make_pool("put", TrikvDialect(HOST), seed=1, keys=10, value_bytes=1_000_000)
    assert len(pool) == 64
    assert len(json.loads(body_of(pool[0]))["value"]) == 1_000_000


@pytest.mark.parametrize(
    ("dialect", "size"), [(TrikvDialect(HOST), 1000), (EtcdDialect(HOST), 128)]
)
def test_a_batch_has_different_keys(dialect: HttpDialect, size: int) -> None:
    told = json.loads(body_of(make_pool("batch", dialect, seed=1)[0]))
    puts = (
        told["operations"] if "operations" in told else [p["request_put"] for p in told["success"]]
    )
    assert len({put["key"] for put in puts}) == size


def test_etcd_is_asked_in_base64_and_serializable_where_local_is_enough() -> None:
    dialect = EtcdDialect(HOST)
    local = json.loads(body_of(dialect.get("key1", linearizable=False)))
    assert base64.b64decode(local["key"]) == b"key1"
    assert local["serializable"] is True
    assert "serializable" not in json.loads(body_of(dialect.get("key1", linearizable=True)))


def test_trikv_is_judged_by_what_its_answers_say() -> None:
    dialect = TrikvDialect(HOST)
    put = dialect.put("key1", "x")
    confirmed = b'{"follower_acks":3,"quorum_met":true}'
    assert dialect.problem(put, 200, confirmed) is None
    assert dialect.problem(put, 503, confirmed) is not None
    assert dialect.problem(put, 200, b'{"follower_acks":2,"quorum_met":true}') is not None
    assert dialect.problem(dialect.get("a", linearizable=False), 200, b'{"value":"x"}') is None
    assert dialect.problem(dialect.get("a", linearizable=False), 200, b"{}") is not None
    batch = dialect.batch([("a", "b")])
    part = b'{"operations":1,"follower_acks":3,"quorum_met":true}'
    assert "not the whole batch" in str(dialect.problem(batch, 200, part))


def test_etcd_is_judged_by_what_its_answers_say() -> None:
    dialect = EtcdDialect(HOST)
    get = dialect.get("a", linearizable=True)
    assert dialect.problem(get, 200, b'{"header":{},"count":"1"}') is None
    assert dialect.problem(get, 200, b'{"header":{}}') is not None
    assert dialect.problem(dialect.put("a", "b"), 200, b'{"header":{}}') is None
    assert dialect.problem(dialect.batch([("a", "b")]), 200, b'{"succeeded":true}') is not None


def test_redis_answers_are_as_long_as_expected() -> None:
    dialect, value = RedisDialect(), "x" * VALUE_BYTES
    assert dialect.answer_bytes(dialect.put("a", value)) == len(b"+OK\r\n:3\r\n")
    got = f"${VALUE_BYTES}\r\n{value}\r\n"
    assert dialect.answer_bytes(dialect.get("a", linearizable=False)) == len(got)
    batch = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n+OK\r\n:5\r\n"
    assert dialect.answer_bytes(dialect.batch([("a", value), ("b", value)])) == len(batch)


def test_redis_has_confirmed_what_three_replicas_have() -> None:
    assert RedisDialect.succeeded(b"+OK\r\n:3\r\n")
    assert not RedisDialect.succeeded(b"+OK\r\n:2\r\n")
    with pytest.raises(ValueError, match="LOADING"):
        RedisDialect.succeeded(b"-LOADING\r\n")


def test_key_names_are_equally_long_and_in_order() -> None:
    assert [key_name(0), key_name(999_999)] == ["key0000000", "key0999999"]
