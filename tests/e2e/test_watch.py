"""Watching real processes, through restarts, and stops with streams open."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from tests.e2e.browser import needs_chromium, open_page
from tests.e2e.cluster import NodeProcess, Nodes, open_nodes, until
from tests.e2e.test_client import take_over
from tests.e2e.test_nodes import Load
from trikv.client import Client, OutcomeUnknown, Reset, SyncClient
from trikv.model.version import Version


class Curl:
    """`curl -N`, again and again: it knows ids, and which of two versions is the greater."""

    def __init__(self, node: NodeProcess) -> None:
        self.node = node
        self.state: dict[str, Any] = {}
        self.last_id: str | None = None
        self.streams = self.resets = 0
        self.over = threading.Event()
        self.codes: list[str] = []
        self._versions: dict[str, Version] = {}
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.over.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with httpx.Client(trust_env=False, timeout=httpx.Timeout(1, read=11)) as http:
            while not self.over.is_set():
                headers = {} if self.last_id is None else {"last-event-id": self.last_id}
                try:
                    with http.stream("GET", f"{self.node.url}/watch", headers=headers) as answer:
                        if answer.status_code == 200:
                            self.streams += 1
                            self._read(answer)
                except httpx.HTTPError:
                    pass
                time.sleep(0.05)

    def _read(self, answer: httpx.Response) -> None:
        event: dict[str, str] = {}
        for line in answer.iter_lines():
            if self.over.is_set():
                return
            if line:
                name, _, text = line.partition(": ")
                event[name] = text
            else:
                if "data" in event:  # else it says when to come again
                    self._take(event["event"], json.loads(event["data"]), event.get("id"))
                event = {}

    def _take(self, kind: str, data: Any, resume: str | None) -> None:
        if kind == "reset":
            self.state, self._versions = {}, {}
            self.resets += 1
        elif kind == "end":
            self.codes.append(data["code"])
        elif kind == "change":
            key, version = data["key"], Version.parse(data["version"])
            if key not in self._versions or version > self._versions[key]:
                self._versions[key] = version
                if "deleted" in data:
                    self.state.pop(key, None)
                else:
                    self.state[key] = data["value"]
        if resume is not None:
            self.last_id = resume or None


def restart_leader(nodes: Nodes) -> None:
    nodes.leader.kill()
    nodes.restart(nodes.leader)
    nodes.wait_live(len(nodes.followers))


class Writes:
    """Puts and deletes that go on through restarts."""

    def __init__(self, urls: list[str]) -> None:
        self.over = threading.Event()
        self.done = 0
        self._urls = urls
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with SyncClient(self._urls, timeout_s=20) as client:
            while not self.over.is_set():
                key = f"{'ab'[self.done % 2]}/{self.done % 37}"
                self.done += 1
                with suppress(OutcomeUnknown):  # a leader was killed: it is there, or is not
                    if self.done % 5 == 4:
                        client.delete(key)
                    else:
                        client.put(key, self.done)

    def start(self) -> None:
        self._thread.start()

    def goes_on(self, writes: int = 100) -> None:
        before = self.done
        until(lambda: self.done >= before + writes, f"{writes} writes more", 60)

    def stop(self) -> None:
        self.over.set()
        self._thread.join(30)


def test_curl_resumes_without_a_gap_through_restarts_of_the_leader(tmp_path: Path) -> None:
    with open_nodes(tmp_path, 2, write_quorum=1, REQUEST_TIMEOUT="1") as nodes:
        readers = [Curl(node) for node in nodes.all]
        writes = Writes([node.url for node in nodes.all])
        try:
            for start in (*(one.start for one in readers), writes.start):
                start()
            for _ in range(3):
                writes.goes_on()
                restart_leader(nodes)
            writes.goes_on()
            assert nodes.leader.stop() == 0
            nodes.restart(nodes.leader)
            writes.goes_on()
            writes.stop()
            nodes.wait_live(2)
            nodes.wait_match()
            there = nodes.leader.get("/dump")
            for reader in readers:
                until(lambda reader=reader: reader.state == there, "the reader knows all")  # type: ignore[misc]
        finally:
            writes.over.set()
            for stop in (*(one.stop for one in readers), writes.stop):
                stop()
        at_leader, *at_followers = readers
        assert at_leader.streams >= 5
        assert at_leader.codes == ["stopping"]
        for reader in at_followers:
            assert (reader.streams, reader.resets) == (1, 0)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_the_clients_watch_goes_on_through_a_restart_and_a_takeover(
    tmp_path: Path, backend: str
) -> None:
    with open_nodes(tmp_path, 2, write_quorum=1, REQUEST_TIMEOUT="1") as nodes:
        urls = [node.url for node in nodes.all]
        state: dict[str, Any] = {}
        last: dict[str, Version] = {}
        over = threading.Event()
        crashed: list[BaseException] = []

        async def watch() -> None:
            async with Client(urls) as client, client.watch("a/") as changes:
                async for change in changes:
                    if isinstance(change, Reset):
                        state.clear()
                        last.clear()
                        continue
                    assert change.key.startswith("a/")
                    version = Version.parse(change.version)
                    assert change.key not in last or version > last[change.key]
                    last[change.key] = version
                    if change.deleted:
                        state.pop(change.key, None)
                    else:
                        state[change.key] = change.value
                    if over.is_set():
                        return

        def run() -> None:
            try:
                anyio.run(watch, backend=backend)
            except BaseException as error:
                crashed.append(error)

        thread = threading.Thread(target=run)
        writes = Writes(urls)
        try:
            thread.start()
            writes.start()
            writes.goes_on()
            restart_leader(nodes)
            writes.goes_on()
            take_over(nodes)
            writes.goes_on()
            nodes.restart(nodes.followers[0])  # the old leader
            nodes.wait_live(2)
            nodes.followers[1].kill()
            writes.goes_on()
            nodes.restart(nodes.followers[1])
            writes.goes_on()
            writes.stop()
            nodes.wait_match()
            there = {k: v for k, v in nodes.leader.get("/dump").items() if k.startswith("a/")}
            until(lambda: state == there or crashed, "the watch knows all")
        finally:
            writes.stop()
            over.set()
            nodes.leader.put("a/over", 1)
            thread.join(30)
        assert not crashed
        assert not thread.is_alive()


@pytest.mark.parametrize("which", ["leader", "follower"])
def test_a_node_with_open_streams_stops_within_seconds(tmp_path: Path, which: str) -> None:
    with open_nodes(tmp_path, 1, write_quorum=1) as nodes:
        node = nodes.leader if which == "leader" else nodes.followers[0]
        readers = [Curl(node) for _ in range(5)]
        for reader in readers:
            reader.start()
        try:
            until(lambda: all(reader.streams for reader in readers), "all streams are open")
            began = time.monotonic()
            assert node.stop() == 0
            assert time.monotonic() - began < 4
        finally:
            for reader in readers:
                reader.stop()
        assert all("stopping" in reader.codes for reader in readers)


def test_a_reader_that_does_not_read_holds_up_neither_others_nor_a_stop(tmp_path: Path) -> None:
    with open_nodes(tmp_path, 1, write_quorum=1) as nodes:
        for i in range(40):
            nodes.leader.put(f"big/{i}", "x" * 500_000)
        deaf = [socket.create_connection(nodes.leader.address) for _ in range(3)]
        for one in deaf:
            one.sendall(b"GET /watch HTTP/1.1\r\nHost: a\r\n\r\n")
            assert one.recv(1) == b"H"
        reader = Curl(nodes.leader)
        reader.start()
        try:
            until(lambda: len(reader.state) == 40, "one that reads knows all")
            load = Load(nodes.leader.url)
            with load.running():
                load.goes_on(100)
            assert load.refused() == []
            began = time.monotonic()
            assert nodes.leader.stop() == 0
            assert time.monotonic() - began < 7
        finally:
            reader.stop()
            for one in deaf:
                one.close()


class Unavailable(BaseHTTPRequestHandler):
    """Answers whatever it is asked with 503, as a node that starts, or a proxy without one."""

    def do_GET(self) -> None:
        self.send_error(503)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def unavailable(address: tuple[str, int]) -> Iterator[None]:
    server = HTTPServer(address, Unavailable)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@needs_chromium
def test_a_page_goes_on_watching_where_an_eventsource_gives_up(tmp_path: Path) -> None:
    """The script of docs/api.md, in a browser: an EventSource ends at the first 503."""
    api = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```js\n(.*?)^```$", api, re.DOTALL | re.MULTILINE)
    with open_nodes(tmp_path, 0, write_quorum=0) as nodes, open_page() as page:
        node = nodes.leader
        page.open(node.url)
        page.js(
            """window.seen = []; window.ended = 0;
            window.show = (change) => window.seen.push(change.key);
            window.forgetAll = () => window.seen.push("reset");
            const Original = window.EventSource;
            window.EventSource = class extends Original {
              constructor(url) {
                super(url);
                if (!url.startsWith("/watch")) return;  // the dashboard's own
                window.asked = url;
                this.addEventListener("error", () => {
                  if (this.readyState === Original.CLOSED) window.ended += 1;
                });
              }
            };
            window.EventSource.CLOSED = Original.CLOSED;"""
        )
        page.js(script)
        node.put("user/1", 1)
        page.until(lambda: page.js("return seen") == ["user/1"], "the first change")
        node.kill()
        with unavailable(node.address):
            page.until(lambda: page.js("return ended") > 0, "the stream has ended for good")
        nodes.restart(node)
        until(lambda: node.get("/health")["leads"], "the node leads")
        node.put("user/2", 2)
        page.until(lambda: "user/2" in page.js("return seen"), "the next change")
        assert "after=" in page.js("return asked")
        assert "reset" not in page.js("return seen")
