"""`python -m tests.e2e.pictures [DIRECTORY]`: the pictures of the dashboard, made by itself.

A cluster is started, brought into the state that a picture shows, and photographed in Chromium. They are
for the documentation; a person looks at each before it is committed.
"""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.e2e.browser import Page, open_page
from tests.e2e.cluster import NodeProcess, Nodes
from tests.e2e.fake_feed import BusyFeed, fake_node

IMAGES = Path(__file__).parents[2] / "docs" / "images"


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    with tempfile.TemporaryDirectory() as directory, six_nodes(Path(directory)) as nodes:
        nodes.start()
        with open_page() as page:
            cut_wire(nodes, page, target)
            overview(nodes, page, target)
            waterfall(nodes, page, target)
            follower(nodes, page, target)
    with fake_node(BusyFeed(followers=50, writes=12, rate=1000)) as url, open_page() as page:
        page.open(url)
        time.sleep(4)
        page.picture(target / "ui_fifty.png", clip=".topology")
    for path in sorted(target.glob("ui_*.png")):
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def six_nodes(directory: Path) -> Nodes:
    """A cluster with the names of the tutorial's."""
    settings = {"WRITE_QUORUM": "3", "MAX_DELAY_MS": "0", "WRITE_TIMEOUT": "8"}
    return Nodes(
        NodeProcess(directory, "node1", ROLE="leader", **settings),
        [NodeProcess(directory, f"node{number}", ROLE="follower") for number in range(2, 7)],
    )


def cut_wire(nodes: Nodes, page: Page, target: Path) -> None:
    """A wire that is cut, the keys that its replica lacks, and how it catches up."""
    lag(nodes, 0, 200)
    nodes.leader.put("greeting", "hello again")
    nodes.wait_match()
    page.resize(1280, 900)
    page.open(nodes.leader.url)
    page.js("for (const e of document.querySelectorAll('.side, .waterfall, footer')) e.remove()")
    page.js("document.querySelector('main').style.gridTemplateColumns = '900px'")
    page.js("document.querySelector('main').style.justifyContent = 'center'")
    nodes.leader.ask("POST", "/admin/partition", {"follower": "node5", "cut": True})
    for number in range(1, 4):
        nodes.leader.put(f"color/{number}", "red")
    time.sleep(1.2)
    page.resize(940, 724)
    page.picture(target / "ui_cut.png")
    lag(nodes, 600, 2500)
    nodes.leader.ask("POST", "/admin/partition", {"follower": "node5", "cut": False})
    page.until(lambda: page.count(".card-of[data-state='syncing']") == 1, "it is syncing")
    time.sleep(0.3)
    page.picture(target / "ui_catch_up.png")
    nodes.wait_live(5)


def overview(nodes: Nodes, page: Page, target: Path) -> None:
    """Writes on their way, in light and dark, wide and narrow."""
    lag(nodes, 0, 1000)
    wide, narrow = (1280, 1000), (390, 844)
    for name, size, dark in (
        ("light", wide, False),
        ("dark", wide, True),
        ("narrow", narrow, False),
    ):
        page.resize(*size)
        page.prefer(dark=dark)
        page.open(nodes.leader.url)
        with writing(nodes, 5, 30):
            time.sleep(3.2)
            page.picture(target / f"ui_{name}.png")
    page.prefer()


def waterfall(nodes: Nodes, page: Page, target: Path) -> None:
    """A write that waits above ones with late acknowledgements."""
    page.resize(1280, 1000)
    page.open(nodes.leader.url)
    for number in range(5):
        nodes.leader.put(f"user/{number}", number)
    time.sleep(1.2)
    with writing(nodes, 1, 1):
        time.sleep(0.42)
        page.picture(target / "ui_waterfall.png", clip=".waterfall")


def follower(nodes: Nodes, page: Page, target: Path) -> None:
    """A read that is stale, and one that waits."""
    node = nodes.followers[1]
    nodes.leader.put("greeting", "hello")
    nodes.wait_match()
    slow = {"min_delay_ms": 1500, "max_delay_ms": 1500, "follower": node.name}
    nodes.leader.ask("POST", "/admin/lag", slow)
    page.resize(1280, 700)
    page.open(node.url)
    version = nodes.leader.put("greeting", "hello again").json()["version"]
    page.click("#read-form [type=submit]")
    page.until(lambda: "it may be stale" in page.text("#reads"), "a read")
    page.fill("#read-version", version)
    page.click("#read-form [type=submit]")
    page.until(lambda: "hello again" in page.text("#reads"), "one that waited")
    page.picture(target / "ui_follower.png")


def lag(nodes: Nodes, low: int, high: int) -> None:
    content = {"min_delay_ms": low, "max_delay_ms": high}
    nodes.leader.ask("POST", "/admin/lag", content)


class writing:
    """Writers at work for as long as the block lasts: `at_once` of them, `writes` in all."""

    def __init__(self, nodes: Nodes, at_once: int, writes: int) -> None:
        self._url = nodes.leader.url
        self._pool = ThreadPoolExecutor(at_once)
        self._writes = writes

    def __enter__(self) -> None:
        for number in range(self._writes):
            self._pool.submit(self._write, number)

    def _write(self, number: int) -> None:
        key = ("greeting", "user", "cart")[number % 3] + f"/{number % 7}"
        httpx.put(f"{self._url}/kv/{key}", json={"value": number}, timeout=30, trust_env=False)

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


if __name__ == "__main__":
    main()
