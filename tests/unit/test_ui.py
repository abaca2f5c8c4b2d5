"""The dashboard's files: served as they are, complete, and in need of nobody but their node."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import trikv.web
from tests.support import call, open_cluster
from trikv.web.exchange import Answer
from trikv.web.pages import FILES

UI = Path(trikv.web.__file__).parent / "ui"

#: Names, not addresses: nobody is asked for what they stand for.
NAMESPACES = {"http://www.w3.org/2000/svg"}


def text_of(name: str) -> str:
    return (UI / name).read_text(encoding="utf-8")


def body_of(answer: Answer) -> bytes:
    assert isinstance(answer.body, bytes)
    return answer.body


def test_every_file_of_the_page_is_served() -> None:
    assert set(FILES) == {path.name for path in UI.iterdir()}


@pytest.mark.parametrize("name", FILES)
async def test_a_file_is_served_as_it_is(name: str) -> None:
    async with open_cluster(1) as cluster:
        given = await call(cluster.node, "GET", "/ui/{file}", key=name)
    assert given.status == 200
    assert body_of(given) == (UI / name).read_bytes()
    kind = {".html": "text/html", ".css": "text/css", ".svg": "image/svg+xml"}
    assert given.content_type.startswith(kind.get(Path(name).suffix, "text/javascript"))


async def test_the_page_is_the_index_at_a_leader_and_at_a_follower() -> None:
    async with open_cluster(1) as cluster:
        for node in (cluster.node, *cluster.followers.values()):
            given = await call(node, "GET", "/ui")
            assert given.status == 200
            assert body_of(given) == (UI / "index.html").read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_a_browser_may_load_nothing_else_and_asks_again_each_time(name: str) -> None:
    headers = FILES[name].headers
    assert headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-cache"


def test_no_two_files_have_the_same_tag() -> None:
    tags = [answer.headers["ETag"] for answer in FILES.values()]
    assert len({*tags}) == len(tags)
    assert all(re.fullmatch(r'"[0-9a-f]{32}"', tag) for tag in tags)


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
async def test_what_a_browser_has_already_is_not_sent_again(form: str) -> None:
    tag = FILES["app.js"].headers["ETag"]
    async with open_cluster(1) as cluster:
        headers = {"if-none-match": form.format(tag)}
        given = await call(cluster.node, "GET", "/ui/{file}", key="app.js", headers=headers)
    assert (given.status, given.body) == (304, b"")
    assert given.headers["ETag"] == tag


@pytest.mark.parametrize("form", ["", '"other"', "app.js"])
async def test_what_a_browser_has_of_another_version_is_sent(form: str) -> None:
    async with open_cluster(1) as cluster:
        headers = {"if-none-match": form}
        given = await call(cluster.node, "GET", "/ui/{file}", key="app.js", headers=headers)
    assert given.status == 200


@pytest.mark.parametrize(
    "name", ["", "x", "app", "../pages.py", "%2e%2e/pages.py", "/etc/passwd", "a/b", "app.js/", "é"]
)
async def test_a_file_that_is_not_there_is_no_route(name: str) -> None:
    async with open_cluster(1) as cluster:
        given = await call(cluster.node, "GET", "/ui/{file}", key=name)
    assert given.status == 404
    assert b'"code":"no_such_route"' in body_of(given)


async def test_the_page_takes_no_parameters() -> None:
    async with open_cluster(1) as cluster:
        given = await call(cluster.node, "GET", "/ui?dark=true")
    assert given.status == 422
    assert b'"code":"invalid_parameter"' in body_of(given)


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_anybody_else(name: str) -> None:
    found = {*re.findall(r"https?://[\w.-]+[^\s\"'`)]*", text_of(name))} - NAMESPACES
    assert found == set()
    assert "//cdn" not in text_of(name)
    assert "@import" not in text_of(name)
    assert "url(" not in text_of(name)


def test_every_file_that_is_named_is_there_and_every_one_is_named() -> None:
    named = set(re.findall(r'(?:href|src)="ui/([^"]+)"', text_of("index.html")))
    for name in FILES:
        if name.endswith(".js"):
            named |= set(re.findall(r'from "\./([^"]+)"', text_of(name)))
    assert named | {"index.html"} == set(FILES)


def test_the_page_has_no_script_or_style_of_its_own() -> None:
    index = text_of("index.html")
    assert re.findall(r"<script(?![^>]*\bsrc=)", index) == []
    assert "<style" not in index
    assert re.findall(r"\s(?:style|on\w+)=", index) == []
    for name in FILES:
        assert not re.search(
            r"\beval\(|new Function|innerHTML|insertAdjacentHTML|outerHTML", text_of(name)
        )


def test_every_id_that_a_script_looks_for_is_on_the_page_and_only_once() -> None:
    there = re.findall(r'\bid="([^"]+)"', text_of("index.html"))
    assert len(there) == len({*there})
    for name in FILES:
        if name.endswith(".js"):
            wanted = set(re.findall(r'\$\("([^"]+)"\)', text_of(name)))
            assert wanted - {*there} == set(), name


def test_every_class_that_is_named_is_styled_or_looked_for() -> None:
    """A misspelt class styles nothing, and nobody sees it."""
    styled = set(re.findall(r"\.([a-z][\w-]*)", text_of("style.css")))
    index = set(" ".join(re.findall(r'class="([^"]+)"', text_of("index.html"))).split())
    plain = {"follower", "keys", "latency", "topology", "wide"}
    assert index - styled - plain == set()


def test_colours_are_told_once() -> None:
    """Rules name the palette; what a colour means is said in one place."""
    style = text_of("style.css")
    palette, _, rules = style.partition("[data-theme=")
    assert "light-dark(" in palette
    for line in rules.splitlines():
        for colour in re.findall(r"#[0-9a-f]{3,8}\b", line):
            assert "light-dark(" in line, f"{colour} in {line!r} has no dark form"


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_the_scripts_are_well_formed(name: str, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node.js to parse scripts; the tests in a browser run them")
    copy = tmp_path / (Path(name).stem + ".mjs")
    copy.write_text(text_of(name), encoding="utf-8")
    subprocess.run([node, "--check", copy], check=True, timeout=30)


def contrast(one: str, other: str) -> float:
    """WCAG's contrast of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_every_ground(scheme: str) -> None:
    colours = {
        name: (light if scheme == "light" else dark)
        for name, light, dark in re.findall(
            r"--([a-z-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", text_of("style.css")
        )
    }
    pairs = [
        *((text, ground) for text in ("ink", "soft") for ground in ("ground", "card", "sunk")),
        *((text, "card") for text in ("leader", "ack", "quorum", "behind", "amber")),
        *((f"{name}", f"{name}-wash") for name in ("leader", "ack", "behind", "amber")),
        ("ink", "ack-wash"),
        ("ink", "behind-wash"),
        ("behind", "sunk"),
        ("soft", "leader-wash"),
    ]
    poor = {pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in poor.items() if ratio < 4.5} == {}
    marks = {name: contrast(colours[name], colours["card"]) for name in ("edge", "focus", "late")}
    assert {name for name, ratio in marks.items() if ratio < 2} == set()
    assert marks["edge"] >= 3
    assert marks["focus"] >= 3


async def test_the_root_leads_to_the_dashboard_by_a_relative_path() -> None:
    async with open_cluster(1) as cluster:
        given = await call(cluster.node, "GET", "/")
    assert (given.status, given.headers["Location"]) == (307, "ui")
