"""The client through a takeover under load, on trio, on asyncio, and without async; its guide, run."""

from __future__ import annotations

import ast
import re
import sys
import threading
from codeop import CommandCompiler
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import iscoroutine
from pathlib import Path
from types import FunctionType
from typing import Any

import anyio
import pytest
import trio

from tests.e2e.cluster import Nodes, open_nodes, until
from trikv.client import Client, ClientError, SyncClient, Written

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


async def paste(source: str, names: dict[str, Any]) -> int:
    """Type a block into a console like `python -m asyncio`, and compare what that shows of its
    expressions with what stands behind them; how many."""
    compiler = CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compared = 0
    typed: list[str] = []
    for line in [*source.splitlines(), ""]:
        typed.append(line)
        code = compiler("\n".join(typed), str(GUIDE), "single")
        if code is None:  # it wants more
            continue
        shown: list[object] = []
        with displaying(shown.append):
            result = FunctionType(code, names)()
            if iscoroutine(result):
                await result
        shown = [one for one in shown if one is not None]
        _, told, expected = "\n".join(typed).strip().rpartition("  # ")
        assert len(shown) < 10, f"a loop floods the console: {shown}"
        if shown and told:
            assert [without_versions(repr(one)) for one in shown] == [without_versions(expected)], (
                source
            )
            compared += 1
        typed.clear()
    assert not typed, f"a line is missing at the end of {source}"
    return compared


@contextmanager
def displaying(show: Callable[[object], object]) -> Iterator[None]:
    """Have a console show what an expression gives."""
    before = sys.displayhook
    sys.displayhook = show
    try:
        yield
    finally:
        sys.displayhook = before


@pytest.mark.parametrize("run", [trio.run, lambda f: anyio.run(f, backend="asyncio")])
def test_the_examples_of_the_guide_do_what_they_show_when_they_are_pasted_twice(
    tmp_path: Path, run: Callable[[Any], None]
) -> None:
    with open_nodes(tmp_path, 2, write_quorum=1) as nodes:

        async def all_blocks() -> None:
            names: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
            compared = 0
            for block in blocks():
                for number, node in enumerate(nodes.all):
                    block = block.replace(f"http://127.0.0.1:{8000 + number}", node.url)
                compared += await paste(block, names)
            await names["client"].aclose()
            assert compared > 10

        for _ in range(2):
            run(all_blocks)
