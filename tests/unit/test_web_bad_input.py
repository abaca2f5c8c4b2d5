"""Bad input is refused with a readable reason, and changes nothing.

Each case goes through `refused`, which checks what holds for every refusal: it is a problem document
that names its status, its code, a reason, and where a field is at fault the field; afterwards the map
is what it was, and the node answers.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.unit.inprocess import Answered, Client, open_client
from tests.unit.test_web import clients
from trikv.model.version import MAX_TIMESTAMP_US
from trikv.protocol.messages import MAX_BATCH_BYTES, MAX_REPLICATE_BODY_BYTES
from trikv.web.routes import ROUTES

KEPT = "kept"
EPOCH = "5.b"
MAX_VALUE_BYTES = 200


@pytest.fixture
async def leader() -> AsyncIterator[Client]:
    """A leader with one key in its map, and nobody to wait for."""
    async with open_client("leader", max_value_bytes=MAX_VALUE_BYTES) as client:
        assert (await client.put(KEPT, 1)).status == 200
        yield client


@pytest.fixture
async def follower() -> AsyncIterator[Client]:
    """A follower with one key in its map, which has not heard of a leader."""
    async with open_client("follower") as client:
        plain = {"key": KEPT, "value": 1, "timestamp": 1}
        assert (await client.post("/replicate", plain)).status == 200
        yield client


@pytest.fixture
async def led_follower(follower: Client) -> Client:
    """A follower that has promised EPOCH."""
    heartbeat = {"leader": {"node_id": "boss"}, "epoch": EPOCH, "records": []}
    assert (await follower.post("/replicate", heartbeat)).status == 200
    return follower


async def refused(
    client: Client,
    method: str,
    target: str | bytes,
    body: bytes | Sequence[bytes] = b"",
    *,
    status: int,
    code: str,
    field: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Any:
    """Ask, expect a refusal, check what every refusal owes; the problem document."""
    before = await client.get("/dump")
    answer = await client.ask(method, target, body, headers=headers)
    check_problem(answer)
    problem = answer.json()
    assert (answer.status, problem["code"]) == (status, code), problem
    if field is not None:
        assert problem["field"] == field, problem
    assert await client.get("/dump") == before
    assert (await client.get("/health"))["status"] == "ok"
    return problem


def check_problem(answer: Answered) -> None:
    """Whether an answer is a problem document, complete and fit to read."""
    assert answer.headers["content-type"] == "application/problem+json", answer
    problem = answer.json()
    assert problem["status"] == answer.status
    assert problem["code"]
    assert problem["title"]
    assert 0 < len(problem["detail"]) < 10_000
    assert "\n" not in problem["detail"]
    if answer.status == 422:
        assert isinstance(problem["field"], str)


# -- bodies that are not JSON, or JSON that would be bent ----------------------------------------------

TAKES_JSON = {
    "put": ("PUT", "/kv/k"),
    "quorum": ("POST", "/admin/quorum"),
    "lag": ("POST", "/admin/lag"),
    "replicate": ("POST", "/replicate"),
}

NOT_JSON = {
    "empty": b"",
    "blank": b" \n",
    "word": b"hello",
    "single quotes": b"{'value': 1}",
    "trailing comma": b'{"value": 1,}',
    "trailing garbage": b'{"value": 1} x',
    "two values": b'{"value": 1}{"value": 2}',
    "cut off": b'{"value": ',
    "cut off string": b'{"value": "',
    "raw control character": b'{"value": "\x01"}',
    "raw newline in a string": b'{"value": "\n"}',
    "bad escape": b'{"value": "\\x41"}',
    "hex": b'{"value": 0x10}',
    "leading zero": b'{"value": 01}',
    "plus": b'{"value": +1}',
    "bare point": b'{"value": .5}',
    "comment": b'{"value": 1 /* one */}',
    "NUL bytes": b"\0\0\0",
    "form": b"value=1",
    "latin-1": b'{"value": "caf\xe9"}',
    "utf-16": '{"value": 1}'.encode("utf-16"),
    "utf-32": '{"value": 1}'.encode("utf-32-le"),
    "surrogate bytes": b'{"value": "\xed\xa0\x80"}',
    "overlong bytes": b'{"value": "\xc0\xaf"}',
    "byte order mark": b'\xef\xbb\xbf{"value": 1}',
    "NaN": b'{"value": NaN}',
    "Infinity": b'{"value": Infinity}',
    "-Infinity": b'{"value": [{"a": -Infinity}]}',
}

BENT = {
    "1e999": b'{"value": 1e999}',
    "-1e999": b'{"value": [-1e999]}',
    "309 digits and a point": b'{"value": 1' + b"0" * 309 + b".0}",
    "1e-400": b'{"value": 1e-400}',
    "5000 digits": b'{"value": ' + b"7" * 5000 + b"}",
    "-5000 digits": b'{"value": {"a": -' + b"7" * 5000 + b"}}",
    "name twice": b'{"value": 1, "value": 1}',
    "name twice, escaped": b'{"value": 1, "v\\u0061lue": 1}',
    "name twice within": b'{"value": {"a": 1, "b": 2, "a": 3}}',
    "nesting 100000": b'{"value": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nesting 100000, objects": b'{"value": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "nesting 100000, unclosed": b"[" * 100_000,
}


@pytest.fixture
def client_for(leader: Client, follower: Client) -> Mapping[str, Client]:
    return {"put": leader, "quorum": leader, "lag": leader, "replicate": follower}


@pytest.mark.parametrize("route", TAKES_JSON)
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
async def test_what_is_not_json_is_malformed_on_every_route(
    client_for: Mapping[str, Client], route: str, body: bytes
) -> None:
    method, target = TAKES_JSON[route]
    await refused(client_for[route], method, target, body, status=400, code="malformed_json")


@pytest.mark.parametrize("route", ["put", "replicate"])
@pytest.mark.parametrize("body", BENT.values(), ids=BENT)
async def test_what_would_be_bent_is_refused(
    client_for: Mapping[str, Client], route: str, body: bytes
) -> None:
    # A small bound on values must not be what refuses them.
    client = client_for[route]
    if route == "put":
        async with open_client("leader") as roomy:
            await refused(roomy, "PUT", "/kv/k", body, status=422, code="invalid_body", field="$")
    else:
        await refused(
            client, "POST", "/replicate", body, status=422, code="invalid_body", field="$"
        )


async def test_a_byte_order_mark_is_called_by_its_name(leader: Client) -> None:
    body = NOT_JSON["byte order mark"]
    problem = await refused(leader, "PUT", "/kv/k", body, status=400, code="malformed_json")
    assert "byte order mark" in problem["detail"]


@pytest.mark.parametrize(
    "value",
    ['"\\ud800"', '["\\udc00"]', '{"\\udfff": 1}', '"\\udc00\\ud800"', '[[{"a": "\\uD8ff"}]]'],
)
async def test_lone_surrogates_in_a_value_are_refused(leader: Client, value: str) -> None:
    body = f'{{"value": {value}}}'.encode()
    problem = await refused(
        leader, "PUT", "/kv/k", body, status=422, code="invalid_body", field="value"
    )
    assert "surrogate" in problem["detail"]


async def test_a_surrogate_pair_is_a_character(leader: Client) -> None:
    answer = await leader.ask("PUT", "/kv/k", b'{"value": "\\ud83d\\ude00"}')
    assert answer.json()["value"] == "😀"
    assert "😀".encode() in answer.body


@pytest.mark.parametrize("route", TAKES_JSON)
@pytest.mark.parametrize(
    "body",
    [b'{"\\ud800": 1}', b'{"value": 1, "write_quorum": 0, "\\udfff": 1}'],
    ids=["alone", "beside others"],
)
async def test_lone_surrogates_in_a_field_name_are_refused(
    client_for: Mapping[str, Client], route: str, body: bytes
) -> None:
    method, target = TAKES_JSON[route]
    await refused(client_for[route], method, target, body, status=422, code="invalid_body")


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


@pytest.mark.parametrize(
    "value",
    [nested(64), '{"a":' * 63 + nested(1) + "}" * 63, f"[{nested(63)},{nested(63)}]"],
    ids=["lists", "objects", "twice"],
)
async def test_nesting_64_is_taken(value: str) -> None:
    async with open_client("leader") as client:
        answer = await client.ask("PUT", "/kv/deep", f'{{"value": {value}}}'.encode())
        assert answer.status == 200
        assert await client.get("/dump") == {"deep": json.loads(value)}
    async with open_client("follower") as client:
        body = f'{{"key": "deep", "value": {value}, "timestamp": 1}}'.encode()
        assert (await client.ask("POST", "/replicate", body)).status == 200
        assert await client.get("/dump") == {"deep": json.loads(value)}


@pytest.mark.parametrize(
    "value",
    [nested(65), '{"a":' * 64 + nested(1) + "}" * 64, f"[1,{nested(64)}]", nested(900)],
    ids=["lists", "objects", "beside", "900"],
)
async def test_nesting_65_is_refused(follower: Client, value: str) -> None:
    async with open_client("leader") as leader:
        body = f'{{"value": {value}}}'.encode()
        problem = await refused(
            leader, "PUT", "/kv/k", body, status=422, code="invalid_body", field="value"
        )
        assert "64" in problem["detail"]
    body = f'{{"key": "k", "value": {value}, "timestamp": 1}}'.encode()
    await refused(
        follower, "POST", "/replicate", body, status=422, code="invalid_body", field="value"
    )
    body = batch_body(records=[{"key": "k", "version": f"{EPOCH}-1", "value": json.loads(value)}])
    await refused(
        follower,
        "POST",
        "/replicate",
        body,
        status=422,
        code="invalid_body",
        field="records[0].value",
    )


# -- bodies of the wrong shape --------------------------------------------------------------------------

NOT_OBJECTS = [None, True, 0, 1.5, "text", [], [{"value": 1}]]


@pytest.mark.parametrize("route", TAKES_JSON)
@pytest.mark.parametrize("body", NOT_OBJECTS, ids=repr)
async def test_a_body_that_is_no_object_is_refused(
    client_for: Mapping[str, Client], route: str, body: Any
) -> None:
    method, target = TAKES_JSON[route]
    problem = await refused(
        client_for[route],
        method,
        target,
        json.dumps(body).encode(),
        status=422,
        code="invalid_body",
        field="$",
    )
    assert "object" in problem["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "value"),
        ({"Value": 1}, "Value"),
        ({"value": 1, "vlaue": 2}, "vlaue"),
        ({"value": 1, "": 2}, ""),
        ({"value": 1, "a`b - at `$.x`": 2}, "a`b - at `$.x`"),
        ({"value": 1, "x" * 1000: 2}, None),
    ],
)
async def test_a_put_takes_a_value_and_nothing_else(
    leader: Client, body: Any, field: str | None
) -> None:
    problem = await refused(
        leader, "PUT", "/kv/k", json.dumps(body).encode(), status=422, code="invalid_body"
    )
    if field:
        assert problem["field"] == field
        assert field in problem["detail"]
    assert len(problem["detail"]) < 300


@pytest.mark.parametrize(
    "write_quorum",
    [True, False, None, "0", "three", 0.5, -1, 1, 10**30, [], {}, [0], 1e300],
    ids=repr,
)
async def test_a_quorum_is_a_whole_number_of_followers(leader: Client, write_quorum: Any) -> None:
    body = json.dumps({"write_quorum": write_quorum}).encode()
    problem = await refused(
        leader,
        "POST",
        "/admin/quorum",
        body,
        status=422,
        code="invalid_body",
        field="write_quorum",
    )
    assert "int" in problem["detail"] or "from 0 (asynchronous) to 0" in problem["detail"]
    assert (await leader.get("/health"))["write_quorum"] == 0


LAG = {"min_delay_ms": 0, "max_delay_ms": 10}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"min_delay_ms": True}, "min_delay_ms"),
        ({"min_delay_ms": None}, "min_delay_ms"),
        ({"min_delay_ms": "1"}, "min_delay_ms"),
        ({"max_delay_ms": [1]}, "max_delay_ms"),
        ({"max_delay_ms": {}}, "max_delay_ms"),
        ({"max_delay_ms": 10**400}, "max_delay_ms"),
        ({"min_delay_ms": -1}, "max_delay_ms"),
        ({"min_delay_ms": 11}, "max_delay_ms"),
        ({"max_delay_ms": 600_001}, "max_delay_ms"),
        ({"max_delay_ms": 1e308}, "max_delay_ms"),
        ({"follower": 1}, "follower"),
        ({"follower": True}, "follower"),
        ({"follower": ""}, "follower"),
        ({"follower": "nobody"}, "follower"),
        ({"follower": "\ud800"}, "follower"),
        ({"folower": "nobody"}, "folower"),
    ],
    ids=repr,
)
async def test_a_lag_is_a_range_of_milliseconds(
    leader: Client, changes: Mapping[str, Any], field: str
) -> None:
    before = await leader.get("/health")
    await refused(
        leader,
        "POST",
        "/admin/lag",
        json.dumps({**LAG, **changes}).encode(),
        status=422,
        code="invalid_body",
        field=field,
    )
    assert await leader.get("/health") == before


@pytest.mark.parametrize("missing", LAG)
async def test_a_lag_has_both_ends(leader: Client, missing: str) -> None:
    body = json.dumps({name: value for name, value in LAG.items() if name != missing}).encode()
    await refused(
        leader, "POST", "/admin/lag", body, status=422, code="invalid_body", field=missing
    )


# -- keys -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "1 to 512 bytes"),
        (b"a" * 513, "513"),
        (b"%C3%A9" * 257, "514"),
        (b"%FF", "UTF-8"),
        (b"a%C3", "UTF-8"),
        (b"%ED%A0%80", "UTF-8"),
        (b"%C0%AF", "UTF-8"),
        (b"%", "hexadecimal"),
        (b"a%", "hexadecimal"),
        (b"%4", "hexadecimal"),
        (b"%zz", "hexadecimal"),
        (b"%+1", "hexadecimal"),
        (b"%4%31", "hexadecimal"),
        (b"%20%g0", "hexadecimal"),
        (b"%00", "NUL"),
        (b"%00config", "NUL"),
    ],
)
async def test_a_bad_key_is_refused(leader: Client, raw: bytes, reason: str) -> None:
    for method, body in (("PUT", b'{"value": 1}'), ("GET", b"")):
        problem = await refused(
            leader, method, b"/kv/" + raw, body, status=400, code="invalid_key", field="key"
        )
        assert reason in problem["detail"]


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (b"a", "a"),
        (b"a" * 512, "a" * 512),
        (b"%C3%A9" * 256, "é" * 256),
        (b"a%2Fb", "a/b"),
        (b"a/b", "a/b"),
        (b"/a", "/a"),
        (b"//a", "//a"),
        (b"a//b/", "a//b/"),
        (b"a/", "a/"),
        (b"/", "/"),
        (b"../a", "../a"),
        (b"a/../b/./c", "a/../b/./c"),
        (b"%2e%2e/a", "../a"),
        (b"..", ".."),
        (b".", "."),
        (b"a+b", "a+b"),
        (b"a%20b", "a b"),
        (b"a%2520b", "a%20b"),
        (b"%25", "%"),
        (b"%3F%23%26", "?#&"),
        (b"a;b=c", "a;b=c"),
        (b"a%0Ab", "a\nb"),
        (b"%0A", "\n"),
        (b"%0D%0A", "\r\n"),
        (b"%E2%80%A8", "\u2028"),
        (b"a%00b", "a\0b"),
        (b"%7F", "\x7f"),
        (b"%F0%9F%98%80", "😀"),
        (b"e%CC%81", "e\u0301"),
        (b"%EF%BB%BFa", "\ufeffa"),
        (b"<x>", "<x>"),
        (b'"quoted"\\\'', '"quoted"\\\''),
        (b"__proto__", "__proto__"),
        (b"kv/kv", "kv/kv"),
    ],
)
async def test_a_key_is_kept_as_it_is(leader: Client, raw: bytes, key: str) -> None:
    written = await leader.ask("PUT", b"/kv/" + raw, b'{"value": "v"}')
    assert written.status == 200, written
    assert written.json()["key"] == key
    assert (await leader.get(b"/kv/" + raw))["key"] == key
    assert await leader.get("/dump") == {KEPT: 1, key: "v"}


async def test_an_escaped_slash_is_a_slash_and_a_double_slash_is_two(leader: Client) -> None:
    await leader.put("a/b", 1)
    await leader.put("/a", 2)
    await leader.put("a", 3)
    assert (await leader.get("/kv/a%2Fb"))["value"] == 1
    assert (await leader.get("/kv/%2Fa"))["value"] == 2
    assert (await leader.get("/kv//a"))["value"] == 2
    assert (await leader.get("/kv/a"))["value"] == 3


@pytest.mark.parametrize(
    "target",
    [
        "/%6Bv/a",
        "/kv%2Fa",
        "/%6B%76%2Fa",
        "//kv/a",
        "/KV/a",
        "/x/../kv/a",
        "*",
        "/kva",
        "/dump/",
        "//dump",
        "/health/x",
        "/admin",
        "/admin/",
        "/admin/quorum/",
        "/replicate/",
        "/favicon.ico",
        "/nowhere%0A",
        "/static/x",
    ],
)
async def test_an_unknown_route_is_no_such_route(leader: Client, target: str) -> None:
    for method, body in (("GET", b""), ("PUT", b'{"value": 1}'), ("POST", b"{}")):
        await refused(leader, method, target, body, status=404, code="no_such_route")


@pytest.mark.parametrize("host", ["", "a b", "[", "9" * 400, "a..b", "h:port"])
async def test_the_host_that_a_client_names_does_not_matter(leader: Client, host: str) -> None:
    answer = await leader.ask("GET", f"/kv/{KEPT}", headers={"host": host})
    assert answer.status == 200


async def test_an_absolute_target_is_taken_for_its_path(leader: Client) -> None:
    answer = await leader.ask("PUT", "http://any.host:1/kv/a%2Fb?trace=false", b'{"value": 1}')
    assert answer.json()["key"] == "a/b"


# -- methods and parameters -----------------------------------------------------------------------------

METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW")
ALLOWED = {
    path: {route.method for route in ROUTES if route.path == path}
    for path in {route.path for route in ROUTES}
}


@pytest.mark.parametrize(
    ("path", "method"),
    [
        (path, method)
        for path, allowed in sorted(ALLOWED.items())
        for method in METHODS
        if method not in allowed and not (method == "HEAD" and "GET" in allowed)
    ],
)
async def test_a_wrong_method_is_refused_and_the_right_ones_are_named(
    leader: Client, path: str, method: str
) -> None:
    target = path.replace("{key}", KEPT)
    problem = await refused(leader, method, target, b"", status=405, code="method_not_allowed")
    answer = await leader.ask(method, target)
    named = set(answer.headers["allow"].split(", "))
    assert named - {"HEAD"} == ALLOWED[path]
    assert method in problem["detail"]


@pytest.mark.parametrize("path", sorted(path for path, m in ALLOWED.items() if "GET" in m))
async def test_head_answers_as_get_does(leader: Client, path: str) -> None:
    target = path.replace("{key}", KEPT).replace("{file}", "app.js")
    answered = await leader.ask("HEAD", target)
    expected = 307 if path == "/" else 200
    assert answered.status == (await leader.ask("GET", target)).status == expected


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("PUT", "/kv/k", b'{"value": 1}'),
        ("GET", "/kv/kept", b""),
        ("GET", "/dump", b""),
        ("GET", "/replica", b""),
        ("GET", "/replica/records", b""),
        ("GET", "/admin/replica-status", b""),
        ("POST", "/admin/quorum", b'{"write_quorum": 0}'),
        ("POST", "/admin/lag", b'{"min_delay_ms": 0, "max_delay_ms": 0}'),
    ],
)
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("trce=true", "trce"),
        ("=1", ""),
        ("%00=1", "\0"),
        ("a=1&a=1", "a"),
        ("a=%FF", "query"),
        ("%C3=1", "query"),
    ],
)
async def test_a_bad_query_is_refused(
    leader: Client, method: str, target: str, body: bytes, query: str, field: str
) -> None:
    problem = await refused(
        leader, method, f"{target}?{query}", body, status=422, code="invalid_parameter"
    )
    assert problem["field"] == field


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/kv/k?trace", b'{"value": 1}'),
        ("GET", "/health?ready", b""),
        ("GET", "/admin/replica-status?data", b""),
    ],
)
@pytest.mark.parametrize("given", ["", "=", "=1", "=yes", "=TRUE", "=true%20", "=%FF%FE", "=null"])
async def test_a_flag_is_true_or_false(
    leader: Client, method: str, path: str, body: bytes, given: str
) -> None:
    name = path.partition("?")[2]
    problem = await refused(
        leader, method, path + given, body, status=422, code="invalid_parameter"
    )
    if "FF" not in given:
        assert problem["field"] == name
        assert "true or false" in problem["detail"]


@pytest.mark.parametrize(
    "limit",
    [
        "0",
        "-1",
        "2001",
        "1.0",
        "",
        "%20",
        "%C2%B2",
        "9" * 5000,
        "0" * 9 + "3",
        "000000002000",
        "0x10",
        "1e3",
    ],
)
async def test_a_limit_is_a_whole_number_within_bounds(leader: Client, limit: str) -> None:
    problem = await refused(
        leader,
        "GET",
        f"/replica/records?limit={limit}",
        status=422,
        code="invalid_parameter",
        field="limit",
    )
    assert "from 1 to 2000" in problem["detail"]


@pytest.mark.parametrize(
    "after", ["", "1", "1.a", "1.a-", "1.A-1", "-1.a-1", "1.a-1%0A", "x" * 9000]
)
async def test_a_place_to_go_on_from_is_a_version(leader: Client, after: str) -> None:
    problem = await refused(
        leader,
        "GET",
        f"/replica/records?after={after}",
        status=422,
        code="invalid_parameter",
        field="after",
    )
    assert "a version like" in problem["detail"]
    assert len(problem["detail"]) < 1000


# -- sizes ----------------------------------------------------------------------------------------------


async def test_a_value_of_exactly_the_bound_is_taken_and_one_byte_more_is_not(
    leader: Client,
) -> None:
    fits = "v" * (MAX_VALUE_BYTES - 2)
    assert (await leader.put("k", fits)).status == 200
    body = json.dumps({"value": fits + "v"}).encode()
    problem = await refused(
        leader, "PUT", "/kv/k", body, status=413, code="too_large", field="value"
    )
    assert f"{MAX_VALUE_BYTES}" in problem["detail"]
    assert f"{MAX_VALUE_BYTES + 1}" in problem["detail"]


async def test_a_value_is_measured_in_bytes_of_its_stored_form(leader: Client) -> None:
    fits = "é" * ((MAX_VALUE_BYTES - 2) // 2)
    # Escaped and spaced out it is three times as long on the way, and still fits.
    body = b'{"value":' + b" " * 100 + json.dumps(fits, ensure_ascii=True).encode() + b"}"
    assert len(body) > 3 * MAX_VALUE_BYTES
    assert (await leader.ask("PUT", "/kv/k", body)).status == 200
    body = json.dumps({"value": fits + "é"}, ensure_ascii=False).encode()
    await refused(leader, "PUT", "/kv/k", body, status=413, code="too_large", field="value")


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("PUT", "/kv/a", b'{"value":[%b[]]}'),
        ("PUT", "/kv/a", b'{"value" : {"[":[%b[]]}}'),
        ("POST", "/batch", b'{"operations":[{"op":"put","key":"a","value":[%b[]]}]}'),
    ],
)
async def test_a_value_that_is_too_large_for_certain_is_refused_before_it_is_decoded(
    leader: Client, method: str, target: str, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded it would be objects of fifty times its size, all in memory at once."""
    bodies: list[bytes] = []
    monkeypatch.setattr("trikv.protocol.requests.json_value.decode", bodies.append)
    lists = MAX_VALUE_BYTES if method == "PUT" else MAX_BATCH_BYTES // 2
    field = "value" if method == "PUT" else "operations"
    sent = body % (b"[]," * lists)
    await refused(leader, method, target, sent, status=413, code="too_large", field=field)
    assert not bodies


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_past_its_routes_bound_is_refused(leader: Client, chunked: bool) -> None:
    body = b'{"value":' + b" " * (7 * MAX_VALUE_BYTES + 1024) + b"1}"
    chunks = [body[i : i + 500] for i in range(0, len(body), 500)]
    await refused(
        leader,
        "PUT",
        "/kv/k",
        chunks if chunked else body,
        status=413,
        code="too_large",
        field="body",
    )


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/admin/quorum"),
        ("POST", "/admin/lag"),
        ("GET", "/dump"),
        ("GET", "/kv/kept"),
        ("GET", "/health"),
    ],
)
async def test_every_route_bounds_its_body(leader: Client, method: str, target: str) -> None:
    body = b" " * (65 * 1024)
    await refused(leader, method, target, body, status=413, code="too_large", field="body")


async def test_a_body_is_refused_by_its_announced_length_before_it_comes(follower: Client) -> None:
    headers = {"content-length": str(MAX_REPLICATE_BODY_BYTES + 1)}
    await refused(
        follower, "POST", "/replicate", b"{", headers=headers, status=413, code="too_large"
    )


async def test_a_body_that_never_ends_times_out(leader: Client, autojump_clock: MockClock) -> None:
    before = trio.current_time()
    answer = await leader.ask("PUT", "/kv/k", b'{"value"', stalls=True)
    assert (answer.status, answer.json()["code"]) == (408, "request_timeout")
    assert trio.current_time() - before == pytest.approx(30)
    check_problem(answer)


# -- /replicate -----------------------------------------------------------------------------------------


def batch_body(**changes: Any) -> bytes:
    batch = {"leader": {"node_id": "boss"}, "epoch": EPOCH, "records": [], **changes}
    return json.dumps({name: value for name, value in batch.items() if value is not ...}).encode()


def plain_body(**changes: Any) -> bytes:
    plain = {"key": "k", "value": 1, "timestamp": 1.5, **changes}
    return json.dumps({name: value for name, value in plain.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    "timestamp",
    [True, None, "1", [], {}, -1, -0.001, 1e300, 10**400, MAX_TIMESTAMP_US / 1e6 + 1],
    ids=repr,
)
async def test_a_plain_timestamp_is_seconds_since_1970(follower: Client, timestamp: Any) -> None:
    await refused(
        follower,
        "POST",
        "/replicate",
        plain_body(timestamp=timestamp),
        status=422,
        code="invalid_body",
        field="timestamp",
    )


@pytest.mark.parametrize("timestamp", ["NaN", "Infinity", "-Infinity"])
async def test_a_plain_timestamp_that_is_no_number_is_not_json(
    follower: Client, timestamp: str
) -> None:
    body = f'{{"key": "k", "value": 1, "timestamp": {timestamp}}}'.encode()
    await refused(follower, "POST", "/replicate", body, status=400, code="malformed_json")


@pytest.mark.parametrize("timestamp", ["1e999", "1e-999"])
async def test_a_plain_timestamp_that_overflows_is_refused(
    follower: Client, timestamp: str
) -> None:
    body = f'{{"key": "k", "value": 1, "timestamp": {timestamp}}}'.encode()
    await refused(follower, "POST", "/replicate", body, status=422, code="invalid_body", field="$")


@pytest.mark.parametrize(
    ("changes", "status", "code", "field"),
    [
        ({"key": ...}, 422, "invalid_body", "key"),
        ({"value": ...}, 422, "invalid_body", "value"),
        ({"key": 1}, 422, "invalid_body", "key"),
        ({"key": None}, 422, "invalid_body", "key"),
        ({"key": True}, 422, "invalid_body", "key"),
        ({"key": ""}, 400, "invalid_key", "key"),
        ({"key": "k" * 513}, 400, "invalid_key", "key"),
        ({"key": "é" * 257}, 400, "invalid_key", "key"),
        ({"key": "\0reserved"}, 400, "invalid_key", "key"),
        ({"key": "\ud800"}, 400, "invalid_key", "key"),
        ({"value": "\ud800"}, 422, "invalid_body", "value"),
        ({"deleted": True}, 422, "invalid_body", "deleted"),
        ({"epoch": EPOCH}, 422, "invalid_body", "epoch"),
    ],
    ids=repr,
)
async def test_a_bad_plain_record_is_refused(
    follower: Client, changes: Mapping[str, Any], status: int, code: str, field: str
) -> None:
    await refused(
        follower,
        "POST",
        "/replicate",
        plain_body(**changes),
        status=status,
        code=code,
        field=field,
    )


GOOD_RECORD = {"key": "k", "version": f"{EPOCH}-7", "value": 1}


def record_with(**changes: Any) -> Any:
    record = {**GOOD_RECORD, **changes}
    return {name: value for name, value in record.items() if value is not ...}


def short_with(**changes: Any) -> Any:
    short = {"version": f"{EPOCH}-7", "values": {"a": 1, "b": 2}, **changes}
    return {name: value for name, value in short.items() if value is not ...}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"leader": ...}, "leader"),
        ({"epoch": ...}, "epoch"),
        ({"records": ...}, "records"),
        ({"leader": None}, "leader"),
        ({"leader": "boss"}, "leader"),
        ({"leader": True}, "leader"),
        ({"leader": {}}, "leader.node_id"),
        ({"leader": {"node_id": 1}}, "leader.node_id"),
        ({"leader": {"node_id": ""}}, "leader.node_id"),
        ({"leader": {"node_id": "\ud800"}}, "leader.node_id"),
        ({"leader": {"node_id": "x" * 64}}, "leader.node_id"),
        ({"leader": {"node_id": "boss\n"}}, "leader.node_id"),
        ({"leader": {"node_id": "boss", "url": 1}}, "leader.url"),
        ({"leader": {"node_id": "boss", "url": "\ud800"}}, "leader.url"),
        ({"leader": {"node_id": "boss", "url": "javascript:alert(1)"}}, "leader.url"),
        ({"leader": {"node_id": "boss", "url": "http://" + "x" * 1000}}, "leader.url"),
        ({"epoch": None}, "epoch"),
        ({"epoch": 5}, "epoch"),
        ({"epoch": True}, "epoch"),
        ({"epoch": ""}, "epoch"),
        ({"epoch": "5"}, "epoch"),
        ({"epoch": "5."}, "epoch"),
        ({"epoch": "5.B"}, "epoch"),
        ({"epoch": "05.b"}, "epoch"),
        ({"epoch": "-5.b"}, "epoch"),
        ({"epoch": "5.b-1"}, "epoch"),
        ({"epoch": " 5.b"}, "epoch"),
        ({"epoch": "5.b\n"}, "epoch"),
        ({"epoch": "٥.b"}, "epoch"),
        ({"epoch": "5.\ud800"}, "epoch"),
        ({"epoch": "0.b"}, "epoch"),
        ({"epoch": "2147483648.b"}, "epoch"),
        ({"epoch": "5." + "b" * 33}, "epoch"),
        ({"epoch": "5" * 5000}, "epoch"),
        ({"records": None}, "records"),
        ({"records": {}}, "records"),
        ({"records": "[]"}, "records"),
        ({"records": [None]}, "records[0]"),
        ({"records": [[]]}, "records[0]"),
        ({"records": [GOOD_RECORD, 1]}, "records[1]"),
        ({"records": [record_with(key=...)]}, "records[0].key"),
        ({"records": [record_with(version=...)]}, "records[0].version"),
        ({"records": [record_with(value=...)]}, "records[0]"),
        ({"records": [record_with(deleted=True)]}, "records[0]"),
        ({"records": [record_with(value=..., deleted=False)]}, "records[0]"),
        ({"records": [record_with(deleted=1)]}, "records[0].deleted"),
        ({"records": [record_with(deleted=None)]}, "records[0].deleted"),
        ({"records": [record_with(key=1)]}, "records[0].key"),
        ({"records": [record_with(version=7)]}, "records[0].version"),
        ({"records": [record_with(version="7")]}, "records[0].version"),
        ({"records": [record_with(version=f"{EPOCH}-")]}, "records[0].version"),
        ({"records": [record_with(version=f"{EPOCH}--1")]}, "records[0].version"),
        ({"records": [record_with(version=f"{EPOCH}-1.5")]}, "records[0].version"),
        ({"records": [record_with(version=f"{EPOCH}-{2**53}")]}, "records[0].version"),
        ({"records": [record_with(version="9" * 5000)]}, "records[0].version"),
        ({"records": [GOOD_RECORD, record_with(value="\ud800")]}, "records[1].value"),
        ({"records": [GOOD_RECORD, record_with(value={"\ud800": 1})]}, "records[1].value"),
        ({"records": [short_with(version=...)]}, "records[0].version"),
        ({"records": [GOOD_RECORD, short_with(version="7")]}, "records[1].version"),
        ({"records": [short_with(key="c")]}, "records[0]"),
        ({"records": [short_with(value=1)]}, "records[0]"),
        ({"records": [GOOD_RECORD, short_with(deleted=True)]}, "records[1]"),
        ({"records": [short_with(values=...)]}, "records[0].key"),
        ({"records": [short_with(values=None)]}, "records[0].values"),
        ({"records": [short_with(values=[])]}, "records[0].values"),
        ({"records": [GOOD_RECORD, short_with(values={})]}, "records[1].values"),
        ({"records": [short_with(values={"a": 1, "b": "\ud800"})]}, "records[0].values"),
        ({"records": [short_with(values={"a": 1, "b": {"\ud800": 1}})]}, "records[0].values"),
    ],
    ids=lambda case: repr(case)[:60],
)
async def test_a_bad_batch_is_refused_whole(
    follower: Client, changes: Mapping[str, Any], field: str
) -> None:
    await refused(
        follower,
        "POST",
        "/replicate",
        batch_body(**changes),
        status=422,
        code="invalid_body",
        field=field,
    )
    # Nor was anything promised: the plain form is still taken.
    assert (await follower.ask("POST", "/replicate", plain_body())).status == 200


@pytest.mark.parametrize("key", ["", "k" * 513, "\ud800"])
async def test_a_batch_with_a_bad_key_is_refused_whole(follower: Client, key: str) -> None:
    for bad, field in (
        (record_with(key=key), "records[1].key"),
        (short_with(values={"a": 1, key: 1}), "records[1].values"),
    ):
        await refused(
            follower,
            "POST",
            "/replicate",
            batch_body(records=[GOOD_RECORD, bad]),
            status=400,
            code="invalid_key",
            field=field,
        )
    assert (await follower.ask("POST", "/replicate", plain_body())).status == 200


async def test_a_batch_may_hold_fields_of_a_newer_version(follower: Client) -> None:
    body = batch_body(watermark="5.b-1", floor=None, records=[record_with(more=[1])])
    assert (await follower.ask("POST", "/replicate", body)).status == 200


@pytest.mark.parametrize("epoch", ["4.b", "4.zzz", "5.a", "1.b"])
async def test_a_lower_epoch_is_refused_and_the_promise_is_named(
    led_follower: Client, epoch: str
) -> None:
    problem = await refused(
        led_follower,
        "POST",
        "/replicate",
        batch_body(epoch=epoch, records=[GOOD_RECORD]),
        status=409,
        code="stale_epoch",
    )
    assert problem["promised"] == EPOCH
    assert EPOCH in problem["detail"]
    assert (await led_follower.get("/health"))["epoch"] == EPOCH


async def test_the_plain_form_is_refused_once_there_is_a_leader(led_follower: Client) -> None:
    problem = await refused(
        led_follower, "POST", "/replicate", plain_body(), status=409, code="has_leader"
    )
    assert problem["promised"] == EPOCH


# -- the wrong node -------------------------------------------------------------------------------------

LEADERS_ONLY = [
    ("PUT", "/kv/k", b'{"value": 1}'),
    ("POST", "/admin/quorum", b'{"write_quorum": 0}'),
    ("POST", "/admin/lag", b'{"min_delay_ms": 0, "max_delay_ms": 0}'),
    ("GET", "/admin/replica-status", b""),
]


@pytest.mark.parametrize(("method", "target", "body"), LEADERS_ONLY)
async def test_a_follower_refuses_what_is_the_leaders(
    follower: Client, method: str, target: str, body: bytes
) -> None:
    problem = await refused(follower, method, target, body, status=403, code="not_leader")
    assert problem["leader"] is None


@pytest.mark.parametrize(("method", "target", "body"), LEADERS_ONLY)
async def test_a_follower_names_the_leader_once_it_knows_it(
    follower: Client, method: str, target: str, body: bytes
) -> None:
    known = {"node_id": "boss", "url": "http://boss:8000"}
    answer = await follower.ask("POST", "/replicate", batch_body(leader=known))
    assert answer.status == 200
    problem = await refused(follower, method, target, body, status=403, code="not_leader")
    assert problem["leader"] == known
    assert "boss" in problem["detail"]


@pytest.mark.parametrize("body", [batch_body(records=[GOOD_RECORD]), plain_body()])
async def test_a_leader_takes_no_records(leader: Client, body: bytes) -> None:
    await refused(leader, "POST", "/replicate", body, status=403, code="not_follower")


# -- whatever comes -------------------------------------------------------------------------------------

printable = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
targets = st.one_of(
    st.sampled_from([route.path for route in ROUTES]),
    st.text(printable, min_size=1).map("/".__add__),
    st.text(printable).map("/kv/".__add__),
    st.tuples(st.sampled_from([route.path for route in ROUTES]), st.text(printable)).map("?".join),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
field_names = st.sampled_from(
    [*LAG, *GOOD_RECORD, "write_quorum", "follower", "timestamp", "leader", "epoch", "records"]
)
bodies = st.one_of(
    st.binary(),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(field_names, json_values).map(lambda value: json.dumps(value).encode()),
)


@given(
    role=st.sampled_from(["leader", "follower"]),
    method=st.sampled_from(METHODS),
    target=targets,
    body=bodies,
)
def test_no_request_whatever_is_answered_with_500(
    role: Any, method: str, target: str, body: bytes
) -> None:
    async def main() -> None:
        async with open_client(role) as client:
            answer = await client.ask(method, target, body)
            assert answer.status != 500
            if answer.status >= 400:
                check_problem(answer)
            assert (await client.get("/health"))["status"] == "ok"

    trio.run(main, clock=MockClock(autojump_threshold=0))


# -- what no leader sends -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"watermark": "3"}, 422, "watermark"),
        ({"watermark": "4.b-5"}, 422, "watermark"),
        ({"established": True}, 422, "watermark"),
        ({"floor": "x"}, 422, "floor"),
        ({"confirmed": "4.b-5"}, 422, "confirmed"),
        ({"confirmed": "x"}, 422, "confirmed"),
        ({"established": True, "watermark": "5.b-5", "floor": "5.b-6"}, 422, "floor"),
        ({"epoch": "2147483647.b"}, 422, "epoch"),
        ({"follower": "somebody"}, 409, None),
        ({"records": [{"key": "k", "version": "6.a-1", "value": 1}]}, 422, "records[0].version"),
    ],
)
async def test_a_batch_that_no_leader_sends_changes_nothing(
    fields: dict[str, Any], status: int, field: str | None, autojump_clock: MockClock
) -> None:
    async with open_client("follower") as client:
        batch = {"leader": {"node_id": "boss"}, "epoch": "5.b", "records": [], **fields}
        before = client.node.store.state
        answer = await client.post("/replicate", batch)
        assert (answer.status, answer.json().get("field")) == (status, field)
        assert client.node.store.state == before


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"epoch": "0.a"}, 422, "epoch"),
        ({"epoch": "x"}, 422, "epoch"),
        ({"epoch": "1000001.a"}, 422, "epoch"),
        ({"instance": ""}, 422, "instance"),
        ({"instance": "É"}, 422, "instance"),
        ({"cluster": "A"}, 422, "cluster"),
        ({"leader": {"node_id": "a b"}}, 422, "leader.node_id"),
        ({"leader": {"node_id": "follower"}}, 409, None),
        ({"leader": None}, 422, "leader"),
    ],
)
async def test_a_bad_request_for_a_promise_changes_nothing(
    fields: dict[str, Any], status: int, field: str | None, autojump_clock: MockClock
) -> None:
    async with open_client("follower") as client:
        asked = {"leader": {"node_id": "boss"}, "instance": "i", "cluster": "", "epoch": "1.i"}
        before = client.node.store.state
        answer = await client.post("/replica/promise", {**asked, **fields})
        assert (answer.status, answer.json().get("field")) == (status, field), answer.json()
        assert client.node.store.state == before
        assert (await client.post("/replica/promise", asked)).status == 200


async def test_records_are_listed_for_the_promised_epoch_only(autojump_clock: MockClock) -> None:
    async with open_client("follower") as client:
        asked = {"leader": {"node_id": "boss"}, "instance": "i", "cluster": "", "epoch": "3.i"}
        await client.post("/replica/promise", asked)
        for epoch, code in (("2.i", "stale_epoch"), ("4.i", "wrong_node")):
            answer = await client.ask("GET", f"/replica/records?epoch={epoch}")
            assert (answer.status, answer.json()["code"]) == (409, code)
        assert (await client.ask("GET", "/replica/records?epoch=3.i")).status == 200
        answer = await client.ask("GET", "/replica/records?epoch=x")
        assert answer.json()["field"] == "epoch"


@pytest.mark.parametrize(
    "body", [b"5", b'"hello"', b"[1]", b"null", b"hello", b"{'value': 1}", b""]
)
async def test_a_body_that_is_none_is_answered_with_what_one_looks_like(
    body: bytes, autojump_clock: MockClock
) -> None:
    async with clients(0) as c:
        answer = await c.leader.ask("PUT", "/kv/k", body)
        assert answer.status in (400, 422)
        assert 'expected {"value": …}' in answer.json()["detail"]
        answer = await c.leader.ask("POST", "/batch", body)
        assert 'expected {"operations": …}' in answer.json()["detail"]
        answer = await c.leader.ask("POST", "/admin/quorum", body)
        assert 'expected {"write_quorum": …}' in answer.json()["detail"]
