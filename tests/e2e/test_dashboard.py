"""The dashboard in a real browser, at real nodes: what a person sees and does there."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from tests.e2e.browser import Page, needs_chromium, open_page
from tests.e2e.cluster import Nodes, open_nodes, until
from tests.e2e.fake_feed import BusyFeed, fake_node
from trikv.counters import LATENCY_MS

pytestmark = needs_chromium

REFUSED = "the server responded with a status of"


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with open_page() as page:
        yield page


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with open_nodes(tmp_path_factory.mktemp("nodes"), WRITE_TIMEOUT="2") as nodes:
        yield nodes


@pytest.fixture
def nodes(cluster: Nodes) -> Nodes:
    """The cluster with all as it was at its start: whole wires, quorum 3, no lag."""
    leader = cluster.leader
    for follower in cluster.followers:
        leader.ask("POST", "/admin/partition", {"follower": follower.url, "cut": False})
    leader.ask("POST", "/admin/lag", {"min_delay_ms": 0, "max_delay_ms": 0})

    def is_set() -> bool:  # links go down for a moment when a leader wakes that was paused
        cluster.wait_live(5)
        return leader.ask("POST", "/admin/quorum", {"write_quorum": 3}).status_code == 200

    until(is_set, "a quorum of 3")
    return cluster


@pytest.fixture
def page(browser: Page, nodes: Nodes) -> Page:
    """The leader's page, 1280 pixels wide."""
    browser.resize(1280)
    browser.prefer()
    browser.open(nodes.leader.url)
    browser.until(lambda: browser.count(".card-of[data-state='live']") == 5, "five live wires")
    return browser


def set_lag(nodes: Nodes, low: int, high: int) -> None:
    content = {"min_delay_ms": low, "max_delay_ms": high}
    assert nodes.leader.ask("POST", "/admin/lag", content).status_code == 200


def cut(nodes: Nodes, *names: str) -> None:
    for name in names:
        answer = nodes.leader.ask("POST", "/admin/partition", {"follower": name, "cut": True})
        assert answer.status_code == 200


def write(page: Page, key: str, value: str) -> None:
    page.fill("#write-key", key)
    page.fill("#write-value", value)
    page.click("#write-put")


def row(key: str) -> str:
    """The row of the last write of a key in the waterfall, as a selector."""
    return f".write[aria-label^='write {key}:']"


def test_the_leader_and_its_followers_are_seen(page: Page, nodes: Nodes) -> None:
    assert page.text("#node-id") == "leader"
    assert page.text("#node-role") == "leader"
    assert page.text("#node-ready") == "ready"
    assert page.text("#node-epoch") == nodes.leader.get("/health")["epoch"]
    names = page.js(
        "return [...document.querySelectorAll('.card-of .name')].map(e => e.textContent)"
    )
    assert names == [f"follower{number}" for number in range(1, 6)]
    assert page.text("#topology-summary").startswith("5 of 5 wires live")
    page.check()


def test_the_quorum_is_changed(page: Page, nodes: Nodes) -> None:
    page.click("#quorum-more")
    page.until(lambda: page.text("#quorum-value") == "4", "quorum 4 is shown")
    assert nodes.leader.get("/health")["write_quorum"] == 4
    page.until(lambda: "write quorum 4, it was 3" in page.text("#results"), "it is announced")
    page.click("#quorum-less")
    page.until(lambda: page.text("#quorum-value") == "3", "quorum 3 is shown")
    page.check()


def test_a_quorum_that_is_refused_can_be_forced(page: Page, nodes: Nodes) -> None:
    cut(nodes, "follower1", "follower2", "follower3")
    page.until(lambda: page.count(".card-of[data-state='cut']") == 3, "three cut wires")
    page.click("#quorum-less")
    page.until(lambda: page.shown("#quorum-force"), "force is offered")
    assert page.text("#quorum-problem").startswith("2 of 3 required followers")
    assert page.text("#quorum-value") == "3"
    page.click("#quorum-force")
    page.until(lambda: page.text("#quorum-value") == "2", "quorum 2 is shown")
    page.check(REFUSED)


def test_the_lag_is_set_for_all_and_for_one(page: Page, nodes: Nodes) -> None:
    page.fill("#lag-min", "1")
    page.fill("#lag-max", "20")
    page.click("#lag-form [type=submit]")
    page.until(lambda: "lag of all followers: 1–20 ms" in page.text("#results"), "lag of all")
    page.js("const s = arguments[0]; s.selectedIndex = 2; s.dispatchEvent(new Event('change'))",
            page.browser.find_element("id", "lag-follower"))  # fmt: skip
    page.fill("#lag-min", "1")
    page.fill("#lag-max", "30")
    page.press(Keys.ENTER)
    page.until(lambda: "lag of follower2: 1–30 ms" in page.text("#results"), "lag of one")
    found = [one["max_delay_ms"] for one in nodes.leader.get("/health")["lag"]["followers"]]
    assert found == [20, 30, 20, 20, 20]
    page.until(lambda: "1–30 ms" in page.text(".wire:nth-of-type(2) .wire-label"), "it is drawn")
    page.check()


def test_a_bad_lag_is_said_beside_the_field(page: Page) -> None:
    page.fill("#lag-min", "soon")
    page.click("#lag-form [type=submit]")
    assert "expected a number" in page.text("#lag-problem")
    assert page.focused() == "lag-min"
    page.fill("#lag-min", "50")
    page.fill("#lag-max", "10")
    page.click("#lag-form [type=submit]")
    said = "expected 0 ≤ from ≤ to ≤ "
    page.until(lambda: said in page.text("#lag-problem"), "the node's words, in the page's names")
    page.check(REFUSED)


def test_a_wire_is_cut_and_healed(page: Page, nodes: Nodes) -> None:
    switch = "#wires li:nth-child(5) button"
    page.click(switch)
    page.until(lambda: page.attribute(switch, "aria-pressed") == "true", "the switch is down")
    page.until(lambda: page.text(".card-of[data-state='cut'] .name") == "follower5", "drawn as cut")
    assert page.text(".card-of[data-state='cut'] .state") == "cut"
    assert nodes.leader.get("/health")["live_links"] == 4
    page.click(switch)
    page.until(lambda: page.count(".card-of[data-state='live']") == 5, "it is healed")
    assert "wire to follower5 healed" in page.text("#results")
    page.check()


def test_a_wire_is_cut_by_a_press_on_it_and_all_are_healed_at_once(page: Page) -> None:
    page.js("document.querySelector('.wire .grip').dispatchEvent(new MouseEvent('click'))")
    page.until(lambda: page.count(".card-of[data-state='cut']") == 1, "it is cut")
    page.click("#heal-all")
    page.until(lambda: page.count(".card-of[data-state='live']") == 5, "it is healed")
    disabled = lambda: page.attribute("#heal-all", "aria-disabled") == "true"  # noqa: E731
    page.until(disabled, "nothing is left to heal")
    page.check()


def test_a_write_is_watched_from_its_start_to_the_late_acknowledgements(
    page: Page, nodes: Nodes
) -> None:
    for index, lag in enumerate((50, 400, 700, 1000, 1300)):
        content = {"min_delay_ms": lag, "max_delay_ms": lag, "follower": f"follower{index + 1}"}
        nodes.leader.ask("POST", "/admin/lag", content)
    write(page, "watched", '{"n": 1}')
    page.until(lambda: page.attribute(row("watched"), "data-outcome") == "pending", "it waits")
    assert page.attribute(f"{row('watched')} .commit", "d")
    assert page.count(".dots circle[visibility='visible']") > 0
    wait = f"{row('watched')} .wait"
    before = float(page.attribute(wait, "width") or 0)
    page.until(lambda: float(page.attribute(wait, "width") or 0) > before, "it grows")
    assert not page.attribute(f"{row('watched')} .quorum", "d")

    page.until(lambda: page.attribute(row("watched"), "data-outcome") == "confirmed", "confirmed")
    assert page.attribute(f"{row('watched')} .quorum", "d")
    assert "3 of 5" in page.text(f"{row('watched')} .outcome")
    assert not page.attribute(f"{row('watched')} .late", "d")

    late = f"{row('watched')} .late"
    page.until(lambda: (page.attribute(late, "d") or "").count("M") == 2, "two late ones")
    assert "5 of 5" in page.text(f"{row('watched')} .outcome")
    names = page.js("return [...document.querySelectorAll('.chip b')].map(e => e.textContent)")
    assert names == [f"follower{number}" for number in range(1, 6)]
    assert page.text(".chip.late").startswith("follower4")
    page.until(lambda: page.count(".dots circle[visibility='visible']") == 0, "nothing travels")
    assert re.search(r"write watched: confirmed after [78]\d\d ms", page.text("#results"))
    page.check()


def test_a_write_that_is_not_confirmed_says_so(page: Page, nodes: Nodes) -> None:
    set_lag(nodes, 2500, 2500)
    write(page, "unsure", "1")
    page.until(lambda: "waits for 3 followers" in page.text("#results"), "it is said to wait")
    times = f"{row('unsure')} .times"
    large = "1\u2009[0-9]{3} ms"
    page.until(lambda: re.fullmatch(large, page.text(times)), "as all large numbers are written")
    page.until(lambda: "unsure: not confirmed" in page.text("#results"), "its outcome is told")
    assert "503 quorum_not_met" in page.text("#results")
    page.until(lambda: page.attribute(row("unsure"), "data-outcome") == "unconfirmed", "and drawn")
    cut(nodes, "follower1", "follower2", "follower3", "follower4", "follower5")  # it goes nowhere
    page.check(REFUSED)


def test_a_follower_that_is_cut_off_is_not_said_to_be_due(page: Page, nodes: Nodes) -> None:
    set_lag(nodes, 300, 300)
    write(page, "cut", "1")
    page.until(lambda: "due after 300 ms" in page.text("#waterfall-detail"), "it is on its way")
    cut(nodes, "follower1")
    page.until(lambda: "follower1 is cut off" in page.text("#waterfall-detail"), "it is cut off")
    page.until(lambda: page.attribute(row("cut"), "data-outcome") == "confirmed", "confirmed")
    assert "follower1 due" not in page.text("#waterfall-detail")
    page.check()


def test_the_legend_shows_a_cut_wire_as_it_is_drawn(page: Page, nodes: Nodes) -> None:
    cut(nodes, "follower1")
    page.until(lambda: page.count(".wire[data-state='cut']") == 1, "it is drawn")
    style = "const s = getComputedStyle(document.querySelector(arguments[0]));"
    style += "return [s.stroke, s.strokeDasharray, s.strokeWidth]"
    drawn = page.js(style, ".wire[data-state='cut'] .stroke")
    assert page.js(style, ".key.wire-cut path") == drawn
    page.check()


def test_healing_all_moves_nothing_and_touches_nothing(page: Page, nodes: Nodes) -> None:
    top = "return document.querySelector(arguments[0]).getBoundingClientRect().top + scrollY"
    before = page.js(top, "#write-form")
    cut(nodes, "follower1", "follower2")
    page.until(lambda: page.attribute("#heal-all", "aria-disabled") == "false", "it can be healed")
    gap = "const [a, b] = ['#wires', '#heal-all'].map(s => document.querySelector(s));"
    gap += "return b.getBoundingClientRect().top - a.getBoundingClientRect().bottom"
    assert page.js(gap) >= 4
    assert page.js(top, "#write-form") == before
    page.click("#heal-all")
    page.until(lambda: page.count(".card-of[data-state='live']") == 5, "healed")
    assert page.js(top, "#write-form") == before
    page.check()


def test_a_window_that_was_narrow_and_is_wide_again_is_as_before(page: Page, nodes: Nodes) -> None:
    nodes.leader.put("a", 1)
    page.until(lambda: page.count("#histogram svg") == 1, "the histogram is drawn")
    widths = "return ['.topology', '.side', '.controls', '.latency', '#histogram svg', '#rate svg']"
    widths += ".map(s => Math.round(document.querySelector(s).getBoundingClientRect().width))"
    before = page.js(widths)
    for width in (760, 390, 1280):
        page.resize(width)
        page.until(lambda: page.overflow() <= 0, f"it fits {width} px")
    page.until(lambda: page.js(widths) == before, "all is as wide as before")
    page.check()


def test_latency_is_a_linear_histogram_beside_what_theory_expects(page: Page, nodes: Nodes) -> None:
    set_lag(nodes, 0, 300)
    page.click("#burst")
    page.until(lambda: "100 confirmed" in page.text("#burst-result"), "it is over")
    high = "return [...document.querySelectorAll('#histogram rect.quorum')]"
    high += ".filter(e => +e.getAttribute('height') > 0).length"
    page.until(lambda: page.js(high) >= 6, "more than a few bars")
    marks = "return [...document.querySelectorAll('#histogram g text')].map(e => e.textContent)"
    at = [int(text.removesuffix(" ms")) for text in page.js(marks)]
    assert len({later - earlier for earlier, later in itertools.pairwise(at)}) == 1, at
    page.until(lambda: page.attribute("#histogram .theory", "d"), "the curve is drawn")
    points = re.findall(r"[ML]([\d.]+) ([\d.]+)", page.attribute("#histogram .theory", "d") or "")
    peak = min(points, key=lambda point: float(point[1]))
    end = float(points[-1][0])  # 300 ms
    assert float(peak[0]) == pytest.approx(end / 2, rel=0.05)  # of the third of five
    page.check()


def test_names_over_narrow_columns_stand_upright(page: Page, nodes: Nodes) -> None:
    nodes.leader.put("a", 1)
    page.resize(390)
    page.until(lambda: page.count(".key-table.upright") == 1, "they are turned")
    cut_off = "return [...document.querySelectorAll('.key-table thead span')]"
    cut_off += ".filter(e => e.scrollHeight > e.clientHeight || e.scrollWidth > e.clientWidth + 1)"
    cut_off += ".map(e => e.textContent)"
    assert page.js(cut_off) == []
    page.resize(1280)
    page.until(lambda: page.count(".key-table.upright") == 0, "there is room")
    page.check()


def test_the_root_of_a_node_is_its_dashboard(page: Page, nodes: Nodes) -> None:
    page.browser.get(nodes.leader.url)
    page.until(lambda: page.text("#connection") == "connected", "the page is connected")
    assert page.browser.current_url == f"{nodes.leader.url}/ui"
    page.check()


def test_a_write_that_is_refused_says_why(page: Page, nodes: Nodes) -> None:
    cut(nodes, "follower1", "follower2", "follower3")
    write(page, "refused", "1")
    page.until(lambda: "refused: refused" in page.text("#results"), "it is refused")
    assert "2 of 3 required followers can be reached; nothing was written" in page.text("#results")
    page.check(REFUSED)


def test_bad_json_and_bad_keys_are_said_before_anything_is_sent(page: Page) -> None:
    write(page, "greeting", "hello there")
    assert 'a text needs quotes: "hello there"' in page.text("#value-problem")
    assert page.focused() == "write-value"
    assert page.attribute("#write-value", "aria-invalid") == "true"
    page.press("x")
    assert page.text("#value-problem") == ""
    for key, problem in (("", "at least one character"), ("..", "a step in a path")):
        write(page, key, "1")
        assert problem in page.text("#key-problem")
    assert not any("/kv/" in url for url in page.requests())
    page.check()


def test_keys_with_strange_names_and_large_numbers_arrive_as_they_are(
    page: Page, nodes: Nodes
) -> None:
    write(page, "a/b c%?#ü", "12345678901234567890")
    page.until(lambda: "a/b c%?#ü: " in page.text("#results"), "an answer")
    assert nodes.leader.get("/kv/a%2Fb%20c%25%3F%23%C3%BC")["value"] == 12345678901234567890
    page.check()


def test_a_key_is_deleted(page: Page, nodes: Nodes) -> None:
    nodes.leader.put("gone", 1)
    page.fill("#write-key", "gone")
    page.click("#write-delete")
    page.until(lambda: "delete gone: confirmed" in page.text("#results"), "it is deleted")
    page.click("#write-delete")
    page.until(lambda: "404 not_found" in page.text("#results"), "there is nothing left")
    page.check(REFUSED)


def test_keys_are_red_until_the_replicas_converge(page: Page, nodes: Nodes) -> None:
    page.until(lambda: page.attribute("#keys-differ", "data-differ") == "false", "all the same")
    cut(nodes, "follower5")
    nodes.leader.put("torn", 1)
    page.until(lambda: page.text("#keys-differ") == "1 key differs", "it is said")
    differs = ".key-table .differs"
    page.until(lambda: page.count(differs) == 1, "one cell is red")
    assert page.text(differs) == "≠"
    assert page.text(".row-differs th") == "torn"
    column = page.js("return document.querySelector(arguments[0]).cellIndex", differs)
    assert page.text(f".key-table thead th:nth-child({column + 1})") == "follower5"
    nodes.leader.ask("POST", "/admin/partition", {"follower": "follower5", "cut": False})
    page.until(lambda: page.count(differs) == 0, "it converges")
    page.check()


def test_keys_on_their_way_are_no_alarm(page: Page, nodes: Nodes) -> None:
    set_lag(nodes, 1500, 1500)
    nodes.leader.ask("POST", "/admin/quorum", {"write_quorum": 0, "force": True})
    nodes.leader.put("travels", 1)
    page.until(lambda: "on its way" in page.text("#keys-differ"), "it is said")
    assert page.text("#keys-differ") == "1 on its way"
    assert page.attribute("#keys-differ", "data-differ") == "false"
    assert (page.count(".key-table .coming"), page.count(".key-table .differs")) == (5, 0)
    page.until(lambda: page.attribute("#keys-differ", "data-coming") == "false", "it has arrived")
    page.check()


def test_more_keys_than_the_table_has_rows_are_said_to_be_more(page: Page, nodes: Nodes) -> None:
    cut(nodes, "follower5")
    for number in range(32):
        nodes.leader.put(f"many/{number}", 1)
    page.until(lambda: page.text("#keys-differ") == "30 or more keys differ", "it is said")
    page.check()


def test_all_replicas_are_compared(page: Page, nodes: Nodes) -> None:
    nodes.leader.put("torn", 1)
    nodes.wait_match()
    cut(nodes, "follower2")
    page.click("#compare")
    page.until(lambda: "4 of 5 followers match" in page.text("#compared"), "compared")
    assert page.text(".found.unreachable") == "✕ unreachable"
    assert page.count(".found.match") == 4
    assert re.search(r"at \d\d:\d\d:\d\d\. ", page.text("#compared p"))
    page.check()


def test_keys_that_were_there_before_the_page_are_seen(page: Page, nodes: Nodes) -> None:
    nodes.leader.put("early", 1)
    nodes.wait_match()
    page.open(nodes.leader.url)
    page.until(lambda: "early" in page.text(".key-table"), "it is in the table")
    page.check()


def test_a_burst(page: Page, nodes: Nodes) -> None:
    set_lag(nodes, 0, 30)
    page.click("#burst")
    page.until(lambda: page.shown("#burst-progress"), "its progress")
    page.until(lambda: "100 confirmed, none failed" in page.text("#burst-result"), "it is over")
    assert "p50" in page.text("#burst-result")
    assert "p95" in page.text("#burst-result")
    page.until(lambda: "half of them within" in page.text("#latency-summary"), "the histogram")
    page.until(lambda: not page.text("#rate-now").startswith("0.0 "), "the rate")
    assert page.count(".write") == 12
    page.check()


def test_after_a_burst_the_picture_settles_on_the_last_writes(page: Page, nodes: Nodes) -> None:
    page.click("#burst")
    page.until(lambda: "100 confirmed" in page.text("#burst-result"), "it is over")
    texts = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
    newest = nodes.leader.get("/kv?prefix=burst/")["items"]
    newest.sort(key=lambda item: int(item["version"].rpartition("-")[2]), reverse=True)
    keys = [item["key"] for item in newest[:12]]
    page.until(lambda: page.js(texts, ".write .key-name") == keys, "the twelve newest")
    outcomes = ["confirmed, 5 of 5"] * 12
    page.until(lambda: page.js(texts, ".write .outcome") == outcomes, "all acknowledgements")
    assert "due after" not in page.text("#waterfall-detail")
    page.check()


def test_the_picture_of_the_last_writes_can_be_held(page: Page, nodes: Nodes) -> None:
    page.click("#hold")
    nodes.leader.put("unseen", 1)
    page.until(lambda: "unseen" in page.text(".key-table"), "the page knows it")
    assert page.count(row("unseen")) == 0
    page.click("#hold")
    page.until(lambda: page.count(row("unseen")) == 1, "now it is drawn")
    page.check()


def test_a_burst_that_is_refused_says_so_in_words(page: Page, nodes: Nodes) -> None:
    cut(nodes, "follower1", "follower2", "follower3")
    page.click("#burst")
    said = "0 confirmed, 100 refused: too few followers can be reached"
    page.until(lambda: said in page.text("#burst-result"), "it is said")
    page.check(REFUSED)


def test_half_of_the_writes_is_their_median(browser: Page) -> None:
    class Bucket(BusyFeed):
        """All writes are in the bucket from 100 to 250 ms; the page sees `writes` of `counted`."""

        counted = 0

        def __call__(self, number: int) -> dict[str, Any]:
            told = super().__call__(number)
            told["counts"] = dict.fromkeys(told["counts"], 0)
            first = number == 0
            told["writes"] = told["writes"] if first else []
            for index, shown in enumerate(told["writes"]):
                shown.update(outcome="confirmed", ended=True, quorum_ms=140 + index)
            counts = [self.counted * (first and bound == 250) for bound in (*LATENCY_MS, None)]
            told["histogram"] |= {"commit": counts, "quorum": counts}
            return told

    for counted, median in ((12, "146 ms"), (100, "about 175 ms")):
        feed = Bucket(followers=3, writes=12, rate=120)
        feed.counted = counted
        with fake_node(feed) as url:
            browser.open(url)
            browser.until(lambda: " confirmed, " in browser.text("#latency-summary"), "counted")
            assert f"half of them within {median};" in browser.text("#latency-summary")
            assert "half of the commits within about 175 ms" in browser.text("#latency-summary")
            browser.browser.get("about:blank")


def test_all_that_is_shown_of_a_lost_node_looks_old_and_others_are_offered(browser: Page) -> None:
    browser.resize(1280)
    browser.prefer()
    with fake_node(BusyFeed(followers=3, writes=1, rate=10)) as url:
        browser.open(url)
        browser.until(lambda: browser.text("#node-ready") == "ready", "it is ready")
        assert not browser.shown("#notice")
    browser.until(lambda: browser.attribute("#connection", "data-state") == "lost", "it is lost")
    browser.until(lambda: browser.shown("#notice"), "it is said")
    assert re.search(r"as it was at \d\d:\d\d:\d\d", browser.text("#notice"))
    pages = browser.js("return [...document.querySelectorAll('#notice a')].map(e => e.href)")
    assert pages == [f"http://follower{number}:8000/ui" for number in (1, 2, 3)]
    assert browser.text("#node-ready") == "not known; was: ready"
    assert browser.attribute("#node-ready", "data-ready") == "unknown"
    bright = "return arguments[0].filter(s => { for (let e = document.querySelector(s); e;"
    bright += " e = e.parentElement) if (getComputedStyle(e).opacity < 1) return false;"
    bright += " return true; })"
    old = [
        "#node-ready", "#node-role", "#topology-summary", "#topology", ".wire-switch .state",
        "#quorum-value", "#waterfall-summary", "#waterfall", "#waterfall-detail", "#rate-now",
        "#rate", "#histogram", "#latency-summary", "#keys-differ", "#keys",
    ]  # fmt: skip
    time.sleep(0.3)  # the picture pales
    assert browser.js(bright, old) == []
    own = ["#connection", "#notice", "#results"]
    assert browser.js(bright, own) == own
    browser.browser.get("about:blank")
    browser.console()


def test_a_followers_page_is_whole_on_a_phone(page: Page, nodes: Nodes) -> None:
    page.resize(390)
    page.open(nodes.followers[0].url)
    page.until(lambda: page.text(".wire-label").startswith("heard "), "the wire's label")
    covered = "const [label, ...boxes] = [...document.querySelectorAll("
    covered += "'.wire-label, #follower-picture rect')].map(e => e.getBoundingClientRect());"
    covered += "return boxes.some(b => b.left < label.right && label.left < b.right"
    covered += " && b.top < label.bottom && label.top < b.bottom)"
    assert page.js(covered) is False
    lines = "return [...document.querySelectorAll('#read-form label')].map(e => e.offsetHeight)"
    assert len(set(page.js(lines))) == 1, "each label has one line"
    rows = "return [...document.querySelectorAll('.top .facts > div')].map(e => e.offsetTop)"
    first, second, third, fourth = page.js(rows)
    assert (first, third) == (second, fourth), "two beside each other"
    page.check()


def test_a_followers_page(page: Page, nodes: Nodes) -> None:
    version = nodes.leader.put("greeting", "hello").json()["version"]
    nodes.wait_match()
    page.open(nodes.followers[0].url)
    assert page.text("#node-role") == "follower"
    page.until(
        lambda: page.text("#follower-title") == "This node follows leader", "whom it follows"
    )
    assert page.attribute("#leader-page", "href") == f"{nodes.leader.url}/ui"
    assert not page.shown("#controls")
    page.fill("#read-key", "greeting")
    page.click("#read-form [type=submit]")
    page.until(lambda: 'greeting = "hello"' in page.text("#reads"), "the value")
    assert version in page.text("#reads")
    page.fill("#read-key", "nothing")
    page.press(Keys.ENTER)
    page.until(lambda: "nothing: not here" in page.text("#reads"), "it is not here")
    page.fill("#read-version", "soon")
    page.press(Keys.ENTER)
    page.until(lambda: "a version like" in page.text("#read-problem"), "a bad version")
    page.check(REFUSED)


def test_a_read_waits_for_the_version_that_it_asks_for(page: Page, nodes: Nodes) -> None:
    set_lag(nodes, 3000, 3000)
    nodes.leader.ask("POST", "/admin/quorum", {"write_quorum": 0})
    page.open(nodes.followers[0].url)
    version = nodes.leader.put("late", "new").json()["version"]
    page.fill("#read-key", "late")
    page.fill("#read-version", version)
    page.click("#read-form [type=submit]")
    page.until(lambda: "waits until this node has caught up" in page.text("#reads"), "it waits")
    page.until(lambda: 'late = "new"' in page.text("#reads"), "it has caught up")
    nodes.wait_match()  # the quorum is set back under the same lag
    page.check()


def test_the_page_recovers_when_its_node_is_killed_and_started_again(
    page: Page, nodes: Nodes
) -> None:
    nodes.leader.kill()
    page.until(lambda: page.attribute("#connection", "data-state") == "lost", "it is lost")
    assert "trying again" in page.text("#connection")
    nodes.restart(nodes.leader)
    page.until(lambda: page.text("#connection") == "connected", "it is connected again")
    nodes.wait_live(5)
    page.until(lambda: page.attribute("body", "data-role") == "leader", "and shows that it leads")
    page.until(lambda: page.count(".card-of[data-state='live']") == 5, "and knows all wires")
    assert nodes.leader.put("after", 1).status_code == 200
    page.until(lambda: page.count(row("after")) == 1, "and sees writes")
    page.check("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET")


def test_a_burst_ends_with_its_node_and_pending_writes_are_followed_no_more(
    page: Page, nodes: Nodes
) -> None:
    set_lag(nodes, 1500, 1500)
    page.click("#burst")
    page.until(lambda: page.count(".write[data-outcome='pending']") > 0, "writes wait")
    nodes.leader.kill()
    page.until(lambda: "not sent" in page.text("#burst-result"), "the burst is over")
    said = r"0 confirmed, [1-9]\d* without an answer; the connection was lost, [89]\d not sent"
    assert re.search(said, page.text("#burst-result"))
    page.until(lambda: page.count(".write[data-outcome='pending']") == 0, "nothing waits")
    assert "waits for its quorum" not in page.text("#waterfall-detail")
    assert "not followed to its end" in page.text("#waterfall-detail")
    nodes.restart(nodes.leader)
    page.until(lambda: page.text("#connection") == "connected", "it is connected again")
    nodes.wait_live(5)
    assert "waits for its quorum" not in page.text("#waterfall-detail")
    page.check("net::ERR_", REFUSED)


def test_a_followers_page_says_that_its_leader_is_gone(page: Page, nodes: Nodes) -> None:
    page.open(nodes.followers[0].url)
    page.until(lambda: page.text("#node-ready") == "ready", "it is ready")
    cut(nodes, "follower1")  # for a follower the same as a leader that has died
    page.until(lambda: "has not been heard for" in page.text("#node-ready"), "it says so")
    page.until(lambda: page.attribute(".wire", "data-state") == "down", "and draws it")
    heal = {"follower": "follower1", "cut": False}
    nodes.leader.ask("POST", "/admin/partition", heal)
    page.until(lambda: page.text("#node-ready") == "ready", "it is ready again")
    page.check()


def test_a_node_that_is_silent_is_a_lost_connection(page: Page, nodes: Nodes) -> None:
    nodes.leader.pause()
    page.until(lambda: page.attribute("#connection", "data-state") == "lost", "it is lost")
    nodes.leader.wake()
    page.until(lambda: page.text("#connection") == "connected", "it is connected again")
    page.check()


def test_dark_and_light(page: Page, nodes: Nodes) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = page.js(ground)
    page.prefer(dark=True)
    dark = page.js(ground)
    assert light != dark
    for expected in ("light", "dark"):
        page.click("#theme")
        for name in ("title", "aria-label"):
            assert page.attribute("#theme", name) == f"Colours: {expected}"
        assert page.text("#theme") == expected
        assert page.js(ground) == (light if expected == "light" else dark)
    page.prefer()
    page.open(nodes.leader.url)
    assert page.js(ground) == dark, "what was chosen is remembered"
    page.click("#theme")
    assert page.text("#theme") == "auto"
    assert page.js(ground) == light
    page.check()


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_window(page: Page, nodes: Nodes, width: int) -> None:
    page.resize(width)
    page.open(nodes.leader.url)
    nodes.leader.put("a-rather-long-key/" * 12, 1)
    page.until(lambda: page.count(".write") >= 1, "the write is drawn")
    page.click("#compare")
    page.until(lambda: page.shown("#compared"), "compared")
    assert page.overflow() <= 0
    page.open(nodes.followers[0].url)
    page.until(lambda: page.shown("#read-form"), "a follower's page")
    assert page.overflow() <= 0
    page.check()


def test_all_is_done_with_the_keyboard_alone(page: Page, nodes: Nodes) -> None:
    nodes.leader.put("before", 1)
    nodes.leader.put("and-before", 1)
    page.until(lambda: page.count(".write") >= 2, "two rows")
    page.press(Keys.TAB, Keys.TAB)
    assert page.text(":focus") == "Skip to the controls"
    page.press(Keys.ENTER, Keys.TAB)
    assert page.focused() == "quorum-less"
    outline = page.js("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "what has the focus is seen"
    page.press(Keys.TAB, Keys.SPACE)
    page.until(lambda: page.text("#quorum-value") == "4", "quorum 4")
    assert page.focused() == "quorum-more", "the focus stays"
    seen = []
    while page.focused() != "write-key":
        page.press(Keys.TAB)
        seen.append(page.focused())
        assert len(seen) < 30, seen
    assert seen[:4] == ["lag-follower", "lag-min", "lag-max", ""]
    page.press(Keys.END, "s", Keys.ENTER)
    page.until(lambda: page.count(row("greetings")) == 1, "the write is drawn")
    page.js("document.querySelector(\".write[tabindex='0']\").focus()")
    page.press(Keys.HOME)
    assert page.text(":focus .key-name") == "greetings"
    page.press(Keys.ARROW_DOWN)
    assert page.text(":focus .key-name") == "the configuration", "the quorum is a record, too"
    assert page.text("#waterfall-detail b") == "the configuration"
    page.press(Keys.END)
    assert page.text(":focus .key-name") == page.text(".write:last-child .key-name")
    page.check()


def test_every_control_has_a_name(page: Page) -> None:
    nameless = page.js(
        "return [...document.querySelectorAll('button, input, select, textarea, progress')].filter("
        "e => !(e.hidden || e.ariaLabel || e.labels?.length || e.textContent.trim()))"
        ".map(e => e.outerHTML)"
    )
    assert nameless == []


def test_nothing_moves_for_those_who_want_none_of_it(page: Page, nodes: Nodes) -> None:
    page.prefer(still=True)
    page.open(nodes.leader.url)
    set_lag(nodes, 700, 700)
    write(page, "still", "1")
    page.until(lambda: page.attribute(row("still"), "data-outcome") == "pending", "it waits")
    page.until(lambda: page.text(".wire .load") == "1", "a number in place of a dot")
    assert page.count(".dots circle") == 0
    assert page.js("return document.getAnimations().length") == 0
    page.until(lambda: page.attribute(row("still"), "data-outcome") == "confirmed", "confirmed")
    page.check()


@pytest.mark.parametrize("width", [390, 1280])
def test_fifty_followers_and_a_thousand_writes_a_second(browser: Page, width: int) -> None:
    browser.resize(width)
    browser.prefer()
    with fake_node(BusyFeed(followers=50, writes=12, rate=1000)) as url:
        browser.open(url)
        browser.until(lambda: browser.count(".write") == 12, "the waterfall is full")
        browser.until(lambda: "a sample of " in browser.text("#waterfall-summary"), "the rate")
        assert browser.count(".card-of") == 50
        assert browser.count("*") < 4500
        assert browser.count(".key-table tbody tr") <= 30
        assert browser.overflow() <= 0
        # A click is answered while all that is drawn.
        browser.click("#hold")
        assert browser.attribute("#hold", "aria-pressed") == "true"
        browser.check()
        browser.browser.get("about:blank")


def test_the_cluster_met_nothing_unforeseen(nodes: Nodes) -> None:
    until(lambda: nodes.statuses() == ["match"] * 5, "all replicas match")
    nodes.check_logs()
