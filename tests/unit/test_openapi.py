"""The description of the API: valid, complete, and what the handlers do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from openapi_spec_validator import validate
from trio.testing import MockClock

from tests.answers import check_answer
from tests.support import call, open_cluster, read_body
from tests.unit.test_docs import API, NEVER_ANSWERED, errors, text_of
from trikv.protocol import messages, requests
from trikv.web.described import DESCRIBED
from trikv.web.exchange import Answer, answer
from trikv.web.openapi import document, encoded, refusals
from trikv.web.routes import ROUTES, Route

NAMES = [f"{route.method} {route.path}" for route in ROUTES]


def test_it_is_valid() -> None:
    validate(json.loads(encoded()))


def subschemas(part: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object within a part of the description, with its place in it."""
    if isinstance(part, dict):
        yield place, part
        for name, value in part.items():
            yield from subschemas(value, f"{place}/{name}")
    elif isinstance(part, list):
        for index, value in enumerate(part):
            yield from subschemas(value, f"{place}/{index}")


KEPT = {"Cache-Control": "no-store"}
SCHEMAS = document()["components"]["schemas"]


def test_every_component_is_used_and_every_reference_leads_to_one() -> None:
    """A generator makes a class of each; one that nothing uses is one more that may not compile."""
    used = {part["$ref"] for _, part in subschemas(document()) if "$ref" in part}
    assert used == {f"#/components/schemas/{name}" for name in SCHEMAS}


def test_every_object_with_fields_has_a_name() -> None:
    """Generators number those that have none, in an order that the next version may change."""
    places = {place for place, part in subschemas(document()) if "properties" in part}
    assert places == {f"/components/schemas/{name}" for name in SCHEMAS} & places


def test_every_constant_and_choice_names_its_type() -> None:
    kinds = {"string": str, "integer": int}
    for place, part in subschemas(document()):
        values = part.get("enum", [part["const"]] if "const" in part else [])
        for value in values:
            assert type(value) is kinds[part["type"]], place  # no booleans: see schemas.TRUE


def test_headers_have_no_constants() -> None:
    """openapi-python-client leaves out the whole operation then."""
    for operation in (op for path in document()["paths"].values() for op in path.values()):
        for parameter in operation["parameters"]:
            assert "const" not in parameter["schema"], parameter["name"]


def test_problems_of_one_status_are_told_apart_by_their_code() -> None:
    unions = [part for _, part in subschemas(document()) if "discriminator" in part]
    for union in unions:
        assert union["discriminator"]["propertyName"] == "code"
        mapping = union["discriminator"]["mapping"]
        assert list(mapping.values()) == [one["$ref"] for one in union["oneOf"]]
        for code, target in mapping.items():
            fields = SCHEMAS[target.rpartition("/")[2]]["properties"]
            assert fields["code"] == {"type": "string", "const": code}
    problems = [
        response["content"]["application/problem+json"]["schema"]
        for path in document()["paths"].values()
        for operation in path.values()
        for response in operation["responses"].values()
        if "application/problem+json" in response["content"]
    ]
    assert all("$ref" in one or "discriminator" in one for one in problems)


def test_operations_and_tags_have_names_that_clients_can_use() -> None:
    operations = [op for path in document()["paths"].values() for op in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(ROUTES)
    assert all(re.fullmatch("[a-z]+([A-Z][a-z]+)*", name) for name in names)
    assert {"putKey", "getKey", "deleteKey", "listKeys", "setQuorum"} <= set(names)
    tags = [tag["name"] for tag in document()["tags"]]
    assert {tag for operation in operations for tag in operation["tags"]} == set(tags)
    assert all(re.fullmatch("[a-z]+", tag) for tag in tags)


def test_it_says_that_there_is_no_authentication() -> None:
    assert document()["security"] == []


def test_every_route_is_described_and_no_other_in_the_order_of_the_table() -> None:
    assert list(DESCRIBED) == [(route.method, route.path) for route in ROUTES]


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
async def test_every_parameter_of_the_query_is_described(
    route: Route, autojump_clock: MockClock
) -> None:
    """A handler that is asked with an unknown parameter tells those that it knows."""
    if route.path == "/health":  # which ignores unknown ones
        assert [one.name for one in DESCRIBED["GET", "/health"].parameters] == ["ready", "leads"]
        return
    async with open_cluster(1, write_quorum=1) as cluster:
        follower = next(iter(cluster.followers.values()))
        node = follower if route.path == "/replicate" else cluster.node
        given = await call(node, route.method, f"{route.path}?nonsense=1", b"{}", "a")
        problem = json.loads(await read_body(given))
    assert problem["code"] == "invalid_parameter"
    known = problem["detail"].partition("known here: ")[2]
    described = [one.name for one in DESCRIBED[route.method, route.path].parameters]
    in_query = [
        one.name for one in DESCRIBED[route.method, route.path].parameters if one.place == "query"
    ]
    assert sorted(known.split(", ") if known else []) == sorted(in_query)
    assert len(set(described)) == len(described)


def test_every_body_is_the_type_that_decodes_it() -> None:
    taken = {kind for described in DESCRIBED.values() for kind in described.takes}
    assert taken == {
        requests.PutBody,
        requests.OperationsBody,
        messages.BatchBody,
        requests.PlainBody,
        messages.PromiseBody,
        requests.QuorumBody,
        requests.LagBody,
        requests.PartitionBody,
        requests.AdmitBody,
    }
    for (method, _), described in DESCRIBED.items():
        assert not described.takes or method in ("PUT", "POST")


def test_every_error_can_be_answered_by_some_route_or_is_about_none() -> None:
    told = {error.code for described in DESCRIBED.values() for error in refusals(described)}
    missing = {error.code for error in errors()} - told
    assert missing == {"method_not_allowed", *NEVER_ANSWERED}  # the first is about no route


@pytest.mark.parametrize("name", NAMES)
def test_the_errors_that_the_api_page_tells_of_a_route_are_described(name: str) -> None:
    section = re.search(rf"^### {re.escape(name)}\n(.*?)(?=^##)", text_of(API), re.M | re.S)
    assert section is not None
    told = re.search(r"^Errors: (.*?)\n\n", section[1], re.M | re.S)
    assert told is not None
    method, _, path = name.partition(" ")
    codes = {error.code for error in refusals(DESCRIBED[method, path])}
    named = set(re.findall(r"`([a-z_]+)`", told[1])) - {"linearizable", "min_version"}
    assert named <= codes, named - codes


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (answer({"key": "a", "value": 1}), "required"),
        (answer({"key": "a", "value": 1, "version": "x"}), "match"),
        (answer({"key": "a", "value": 1, "version": "1.a-1", "more": 1}), "dditional"),
        (answer({}, 201), "no such status"),
        (Answer(b"x", 200, KEPT, "text/plain"), "promised is"),
        (Answer(b"{}", 404, KEPT, "application/problem+json"), "anyOf|required|not valid"),
        (Answer(b"", 304), "Cache-Control"),
        (Answer(b"{}", 404, {"Cache-Control": "no-cache"}), "Cache-Control"),
        (Answer(b"{}", 503, KEPT), "Retry-After"),
    ],
)
def test_an_answer_that_is_not_as_described_is_found_out(given: Answer, wrong: str) -> None:
    check_answer("GET", "/kv/{key}", answer({"key": "a", "value": 1, "version": "1.a-1"}))
    with pytest.raises(AssertionError, match=wrong):
        check_answer("GET", "/kv/{key}", given)


async def test_it_is_sent_once_to_those_who_have_it(autojump_clock: MockClock) -> None:
    async with open_cluster(1) as cluster:
        first = await call(cluster.node, "GET", "/openapi.json")
        assert (first.status, first.content_type) == (200, "application/json")
        assert json.loads(await read_body(first)) == json.loads(json.dumps(document()))
        tag = first.headers["ETag"]
        again = await call(
            cluster.node, "GET", "/openapi.json", headers={"if-none-match": f'"x", {tag}'}
        )
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
        other = await call(cluster.node, "GET", "/openapi.json", headers={"if-none-match": '"x"'})
        assert other.status == 200


class Page(HTMLParser):
    """What a page links to, what can be linked to, and what it would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: list[str] = []
        self.fetches: list[tuple[str, Any]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag in ("script", "link", "img", "iframe", "object") or "src" in given:
            self.fetches.append((tag, given))
        if tag == "a":
            self.links.append(given["href"] or "")
        if "id" in given:
            self.anchors.append(given["id"] or "")
        assert not any(name.startswith("on") or name == "style" for name in given)


async def test_the_page_tells_every_route_and_asks_for_nothing(autojump_clock: MockClock) -> None:
    async with open_cluster(1) as cluster:
        given = await call(cluster.node, "GET", "/docs")
        text = (await read_body(given)).decode()
    page = Page(text)
    assert page.fetches == []
    assert {link for link in page.links if not link.startswith("#")} == {"/openapi.json"}
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.anchors)
    assert len(set(page.anchors)) == len(page.anchors)
    for method, path in DESCRIBED:
        assert f'<span class="method {method}">{method}</span>{path}' in text
    assert given.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src")
