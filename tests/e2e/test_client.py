"""The client through a takeover under load, on trio, on asyncio, and without async; its guide, run."""

from __future__ import annotations

import ast
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

from tests.e2e.cluster import Nodes, open_nodes, until
from trikv.client import Client, ClientError, SyncClient, Written
from trikv.web.routes import ROUTES

GUIDE = Path(__file__).parents[2] / "docs" / "client.md"


class Load:
    """Writes key after key, counts, and reads its own writes, until it is told to stop."""

    def __init__(self, name: str, urls: list[str]) -> None:
        self.name = name
        self.urls = urls
        self.stopped = threading.Event()
        self.results: dict[str, Written | ClientError] = {}
        self.counted = 0
        self.doubts = 0
        self.crash: BaseException | None = None

    @property
    def confirmed(self) -> int:
        return sum(isinstance(result, Written) for result in list(self.results.values()))

    def run(self) -> None:
        try:
            if self.name == "sync":
                with SyncClient(self.urls, timeout_s=20) as client:
                    self._sync(client)
            else:
                anyio.run(self._async, backend=self.name)
        except BaseException as error:
            self.crash = error
            raise

    async def _async(self) -> None:
        async with Client(self.urls, timeout_s=20) as client:
            session, number = client.session(), 0
            while not self.stopped.is_set():
                number += 1
                key = f"{self.name}/{number:05}"
                try:
                    self.results[key] = await session.put(key, number)
                    got = await session.get(key)
                    assert got is not None, "a session reads its own writes"
                    assert got.value == number
                except ClientError as error:
                    self.results.setdefault(key, error)
                try:
                    count = await client.get(f"count/{self.name}")
                    mine = {"count": count.value["count"] + 1 if count else 1, "number": number}
                    await client.put(
                        f"count/{self.name}",
                        mine,
                        if_version=count.version if count else None,
                        if_absent=count is None,
                        unique_value=True,
                    )
                    self.counted += 1
                except ClientError as error:
                    self.doubts += error.may_have_happened

    def _sync(self, client: SyncClient) -> None:
        session, number = client.session(), 0
        while not self.stopped.is_set():
            number += 1
            key = f"{self.name}/{number:05}"
            try:
                self.results[key] = session.put(key, number)
                got = session.get(key)
                assert got is not None, "a session reads its own writes"
                assert got.value == number
            except ClientError as error:
                self.results.setdefault(key, error)

    def check(self, client: SyncClient) -> None:
        """What it was told is what there is."""
        assert self.crash is None
        there = {item.key: item for item in client.list(f"{self.name}/")}
        for key, result in self.results.items():
            if isinstance(result, Written):
                assert there[key].version == result.version
            elif not result.may_have_happened:
                assert key not in there, result


def goes_on(loads: list[Load], writes: int) -> None:
    """Until each has had so many more confirmed."""
    before = [load.confirmed for load in loads]

    def all_went_on() -> bool:
        return all(
            load.confirmed >= count + writes or load.crash is not None
            for load, count in zip(loads, before, strict=True)
        )

    until(all_went_on, f"{writes} more writes of each client")


def take_over(nodes: Nodes) -> None:
    """The leader dies, and a follower is started in its place."""
    old, heir = nodes.leader, nodes.followers[0]
    old.kill()
    heir.kill()
    nodes.promote(heir)
    nodes.restart(heir)
    until(lambda: heir.get("/health")["ready"], "the new leader is ready")


def test_clients_follow_a_takeover_and_what_they_were_told_is_true(tmp_path: Path) -> None:
    with open_nodes(tmp_path, 2, write_quorum=1, REQUEST_TIMEOUT="1") as nodes:
        urls = [node.url for node in nodes.all]
        loads = [Load(name, urls) for name in ("trio", "asyncio", "sync")]
        threads = [threading.Thread(target=load.run) for load in loads]
        for thread in threads:
            thread.start()
        try:
            goes_on(loads, 30)
            take_over(nodes)
            goes_on(loads, 30)
        finally:
            for load in loads:
                load.stopped.set()
            for thread in threads:
                thread.join(30)
        nodes.restart(nodes.followers[0])
        nodes.wait_live(2)
        nodes.wait_match()
        with SyncClient(urls) as client:
            for load in loads:
                load.check(client)
            for load in loads[:2]:
                count = client.get(f"count/{load.name}")
                assert count is not None
                assert load.counted > 30
                assert load.counted <= count.value["count"] <= load.counted + load.doubts


# -- the guide ----------------------------------------------------------------------------------------


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text("utf-8"), re.DOTALL | re.M)


def without_versions(text: str) -> str:
    return re.sub(r"\d+\.[0-9a-f]{12}-\d{16}", "VERSION", text)


async def run_block(source: str, names: dict[str, Any]) -> int:
    """Run a block, and compare what its expressions give with what stands behind them; how many."""
    compared = 0
    for statement in ast.parse(source).body:
        expression = isinstance(statement, ast.Expr)
        tree: Any = (
            ast.Expression(statement.value)
            if isinstance(statement, ast.Expr)
            else ast.Module([statement], [])
        )
        mode = "eval" if expression else "exec"
        code = compile(tree, str(GUIDE), mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)  # the blocks are ours
        if hasattr(result, "__await__"):
            result = await result
        assert statement.end_lineno is not None
        _, told, shown = source.splitlines()[statement.end_lineno - 1].partition("  # ")
        if expression and told:
            assert without_versions(repr(result)) == without_versions(shown), source
            compared += 1
    return compared


@pytest.mark.parametrize("run", [trio.run, lambda f: anyio.run(f, backend="asyncio")])
def test_the_examples_of_the_guide_do_what_they_show(
    tmp_path: Path, run: Callable[[Any], None]
) -> None:
    watches = any(route.path == "/watch" for route in ROUTES)
    with open_nodes(tmp_path, 2, write_quorum=1) as nodes:
        names: dict[str, Any] = {}

        async def all_blocks() -> None:
            compared = 0
            for block in blocks():
                for number, node in enumerate(nodes.all):
                    block = block.replace(f"http://127.0.0.1:{8000 + number}", node.url)
                if watches or ".watch(" not in block:
                    compared += await run_block(block, names)
            await names["client"].aclose()
            assert compared > 10

        run(all_blocks)
