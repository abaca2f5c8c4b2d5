"""What the compose profile `monitoring` brings: rules, scrape and dashboard, on a real Prometheus.

A leader and three followers run on loopback, and Debian's `prometheus` scrapes them with the project's
own configuration, of which only the addresses and the pace are changed. There is no Grafana here: what
its dashboard asks of Prometheus is asked by the tests, every query of every panel.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.cluster import Nodes, open_nodes, until

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docker" / "monitoring"
RULES = MONITORING / "rules.yml"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "trikv.json"
ALERTS = Path(__file__).with_name("alerts.yml")

pytestmark = pytest.mark.timeout(180)


def need(command: str) -> None:
    """Skip where Debian's `prometheus` is not installed; in CI it has to be."""
    if shutil.which(command) is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI tests the monitoring, and there is no {command} on the PATH")
        pytest.skip(f"there is no {command} on the PATH: Debian's package `prometheus` has it")


def promtool(*arguments: str, given: str | None = None) -> str:
    """Run promtool; what it said. Fails if it found fault."""
    need("promtool")
    done = subprocess.run(
        ["promtool", *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


# -- what needs no cluster --------------------------------------------------------------------------


def test_the_configuration_and_its_rules_are_well_formed() -> None:
    promtool("check", "config", str(MONITORING / "prometheus.yml"))
    promtool("check", "rules", str(RULES))


def test_every_alert_fires_where_it_should_and_only_there() -> None:
    promtool("test", "rules", str(ALERTS))
    alerts = re.findall(r"^ +- alert: (\w+)$", RULES.read_text(), re.MULTILINE)
    assert len(alerts) == len(set(alerts)) >= 15
    tested = ALERTS.read_text()
    assert [alert for alert in alerts if alert not in tested] == []


def test_rules_and_dashboard_ask_for_documented_metrics_only() -> None:
    documented = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs/metrics.md").read_text(), re.M))
    asked = {name for _, _, query in queries() for name in metrics_in(query)}
    asked |= metrics_in(re.sub(r"#.*", "", RULES.read_text()))
    assert {name for name in asked if name not in documented} == set()


def metrics_in(text: str) -> set[str]:
    """The metrics that a query names; parts of a histogram by its own name."""
    named = set(re.findall(r"\b(?:trikv|process)_[a-z0-9_]+", text))
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in named}


def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


def queries() -> list[tuple[str, str, str]]:
    """Every panel's title, the letter of a query, and the query."""
    return [
        (panel["title"], target["refId"], target["expr"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    ]


def test_the_dashboard_is_laid_out_without_gaps_and_overlaps() -> None:
    panels = dashboard()["panels"]
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]
    bottom = max(y for _, y in taken) + 1
    assert len(taken) == 24 * bottom
    assert len({panel["id"] for panel in panels}) == len(panels)
    titles = [panel["title"] for panel in panels]
    assert len(set(titles)) == len(titles)
    for panel in panels:
        if panel["type"] != "row":
            assert panel["description"], panel["title"]
            assert panel["datasource"]["uid"] == "prometheus"


def test_the_profile_scrapes_the_nodes_that_the_compose_file_starts() -> None:
    compose = (ROOT / "docker" / "compose.yml").read_text()
    nodes = set(re.findall(r"^      NODE_ID: (\S+)$", compose, re.MULTILINE))
    scraped = re.findall(r"^ +- (\w+):8000$", (MONITORING / "prometheus.yml").read_text(), re.M)
    assert set(scraped) == nodes
    assert len(scraped) == len(nodes) == 6
    for image in re.findall(r"^    image: (?!trikv)(\S+)$", compose, re.MULTILINE):
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", image), f"{image}: expected a pinned tag"


# -- on a cluster -----------------------------------------------------------------------------------


class Prometheus:
    """Debian's, on loopback, with everything of its own in one directory."""

    def __init__(self, directory: Path, targets: list[str]) -> None:
        config = (MONITORING / "prometheus.yml").read_text()
        for word in ("interval: 5s", "timeout: 4s"):
            config = config.replace(word, word[:-2] + "1s")
        listed = re.compile(r"(?:^ +- \w+:8000\n)+", re.MULTILINE)
        assert len(listed.findall(config)) == 1
        config = listed.sub("".join(f"          - {target}\n" for target in targets), config)
        directory.mkdir()
        (directory / "prometheus.yml").write_text(config)
        shutil.copy(RULES, directory)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log_path = directory / "log"
        self.client = httpx.Client(base_url=self.url, trust_env=False, timeout=10)
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def close(self) -> None:
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log_path.read_text()
        try:
            return self.client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str, **parameters: str) -> Any:
        answer = self.client.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def query(self, query: str) -> list[dict[str, Any]]:
        """The series of an instant query, none of which is only NaN."""
        found: list[dict[str, Any]] = self.get("query", query=query)["result"]
        return [one for one in found if one["value"][1] != "NaN"]

    def value(self, query: str) -> float:
        (one,) = self.query(query)
        return float(one["value"][1])


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    need("prometheus")
    with open_nodes(tmp_path_factory.mktemp("nodes"), 3, write_quorum=2) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def prometheus(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    targets = [node.url.removeprefix("http://") for node in nodes.all]
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus") / "own", targets)
    try:
        until(prometheus.is_ready, "Prometheus is ready")
        until(lambda: prometheus.query("sum(up) == 4"), "all nodes are scraped")
        yield prometheus
    finally:
        prometheus.close()


def use(nodes: Nodes, seconds: float) -> None:
    """Ask everything that the dashboard shows for so long."""
    leader = nodes.leader
    deadline = time.monotonic() + seconds
    number = 0
    while time.monotonic() < deadline:
        number += 1
        assert leader.put(f"key{number % 7}", number).status_code == 200
        leader.get(f"/kv/key{number % 7}")
        leader.ask("DELETE", "/kv/key3")
        leader.ask("GET", "/kv/nothing")
        leader.ask("PUT", "/kv/key1", {"nothing": 1})
        nodes.followers[0].ask("GET", "/kv/key1")
        time.sleep(0.02)


def test_what_a_node_tells_is_clean_for_promtool(nodes: Nodes) -> None:
    for node in nodes.all:
        text = node.client.get(f"{node.url}/metrics").text
        assert promtool("check", "metrics", given=text) == ""


def test_prometheus_takes_every_sample_of_every_node(prometheus: Prometheus) -> None:
    targets = prometheus.get("targets")["activeTargets"]
    assert [one["lastError"] for one in targets] == [""] * 4
    assert {one["health"] for one in targets} == {"up"}
    assert prometheus.value("min(scrape_samples_scraped)") > 100
    assert prometheus.value("max(scrape_samples_scraped)") < 1000
    assert prometheus.value("max(scrape_duration_seconds)") < 1


def test_types_and_helps_arrive(prometheus: Prometheus) -> None:
    told = prometheus.get("metadata")
    assert told["trikv_link_ack_seconds"][0]["type"] == "histogram"
    names = {name for name in told if name.startswith("trikv_")}
    assert len(names) > 40
    assert all(told[name][0]["help"] for name in names)


def test_every_query_of_the_dashboard_is_answered_with_data(
    nodes: Nodes, prometheus: Prometheus
) -> None:
    use(nodes, 8)
    waiting = {(title, letter): query for title, letter, query in queries()}
    deadline = time.monotonic() + 40
    while waiting and time.monotonic() < deadline:
        use(nodes, 1)
        for place, query in list(waiting.items()):
            if prometheus.query(query.replace("$__rate_interval", "10s")):
                del waiting[place]
    assert waiting == {}


def test_every_annotation_of_the_dashboard_is_understood(prometheus: Prometheus) -> None:
    for annotation in dashboard()["annotations"]["list"]:
        prometheus.query(annotation["expr"])


def test_what_is_shown_is_what_was_done(nodes: Nodes, prometheus: Prometheus) -> None:
    def confirmed() -> float:
        return prometheus.value('sum(trikv_writes_total{outcome="confirmed"})')

    use(nodes, 1)
    time.sleep(2.5)  # a scrape after the last write
    before = confirmed()
    for number in range(25):
        nodes.leader.put("counted", number)
    until(lambda: confirmed() == before + 25, "25 writes more are counted")
    assert prometheus.value("sum(trikv_leads)") == 1
    assert prometheus.value("trikv_live_links") == 3
    assert prometheus.value("sum(trikv_ready)") == 4
    digest = nodes.leader.get("/replica")["records"]
    shown = "max(trikv_store_records - trikv_store_tombstones)"
    until(
        lambda: prometheus.value(shown) == digest + 1, "the records are counted"
    )  # one is its own


def test_no_alert_fires_while_all_is_well_and_the_right_ones_wait_when_it_is_not(
    nodes: Nodes, prometheus: Prometheus
) -> None:
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}

    def alerts() -> set[str]:
        # A test machine that is busy, or whose disk is full or slow, is no fault of trikv's.
        of_machine = {f"Trikv{name}" for name in ("LoopBlocked", "DiskNearlyFull", "CommitsSlow")}
        found = prometheus.get("alerts")["alerts"]
        return {one["labels"]["alertname"] for one in found} - of_machine - {"TrikvWritesSlow"}

    assert alerts() == set()
    gone = nodes.followers[1:]
    for node in gone:
        node.kill()
    expected = {"TrikvNodeDown", "TrikvTooFewLiveLinks", "TrikvNodeNotReady"}
    until(lambda: alerts() >= expected, f"{expected} are pending")
    until(
        lambda: prometheus.value("sum(trikv_live_links) - max(trikv_write_quorum)") == -1,
        "no spare follower is shown",
    )
    assert nodes.leader.put("a", 1).status_code == 503
    refused = 'sum(trikv_writes_total{outcome="not_enough_followers"}) > 0'
    until(lambda: prometheus.query(refused), "the refusal is counted")
    nodes.restart(*gone)
    nodes.wait_live(3)
    until(lambda: alerts() == set(), "all is well again")
