"""The tutorial as a newcomer meets it: blocks pasted at once, on real nodes, show what is printed."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trikv.processes import free_ports, is_free

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="its blocks are those of a POSIX shell"
)

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
#: Printed for programs, or one line for each command; tables and diagrams depend on the moment.
TELLING = re.compile(r"[{]|written|the wire|trikv: not done|exit code|quorum \d+, before|lag ")


def blocks() -> list[tuple[list[str], list[str]]]:
    """Each block of the sections before the dead leader: commands, and what they print.

    A block of both is a console's; one to be pasted is `sh`, and what it prints is the `text` after it.
    """
    text = TUTORIAL.read_text(encoding="utf-8").partition("## 8.")[0]
    found = []
    block = r"^```console\n(.*?)^```$|^```sh\n([^`]*)^```\n[^`]*^```text\n(.*?)^```$"
    for shown, pasted, printed in re.findall(block, text, re.DOTALL | re.MULTILINE):
        lines = shown.replace("\n ", "").splitlines()  # an answer of one line may be laid out
        typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        told = [line for line in lines if TELLING.match(line)]
        found.append((typed + pasted.splitlines(), told + printed.splitlines()))
    return found


def shape(line: str) -> str:
    """A line without what chance and time decide: versions, figures, what a node has not done yet."""
    line = re.sub(r"\d+[.][0-9a-f]+-\d+", "VERSION", line)
    line = re.sub(r"\bnull\b|\d+(?:[.]\d+)?", "N", line)
    return re.sub(r"\s+", "", line)


@contextmanager
def six_nodes(port: int, directory: Path) -> Iterator[None]:
    """The cluster of the first section, without a terminal: it tells what happens line by line."""
    command = [sys.executable, "-m", "trikv.cli", "cluster", "--nodes", "6", "--quorum", "3"]
    command += ["--lag", "0", "1000", "--port", str(port), "--directory", str(directory)]
    cluster = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert cluster.stdout is not None
        while "ready: " not in (line := cluster.stdout.readline()):
            assert line, "it has ended"
        yield
    finally:
        cluster.terminate()
        cluster.communicate(timeout=30)


def test_each_block_pasted_at_once_shows_what_is_printed(tmp_path: Path) -> None:
    port = next(
        port
        for port in free_ports(random.Random(os.urandom(8)), 20)
        if all(is_free(port + n) for n in range(6))
    )
    here = {f"127.0.0.1:{8000 + n}": f"127.0.0.1:{port + n}" for n in range(6)}

    def moved(text: str) -> str:
        return re.sub(r"127\.0\.0\.1:800\d", lambda match: here[match[0]], text)

    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TRIKV_URLS": f"http://127.0.0.1:{port}",
    }
    with six_nodes(port, tmp_path / "cluster"):
        for typed, printed in blocks():
            # curl ends no line: what follows its answer would stand behind it.
            script = "\n".join(
                f"{moved(line)}; echo" if "curl" in line and "WRITTEN=" not in line else moved(line)
                for line in typed
            )
            done = subprocess.run(
                ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60
            )
            shown = [
                line for line in (done.stdout + done.stderr).splitlines() if TELLING.match(line)
            ]
            assert sorted(map(shape, shown)) == sorted(map(shape, map(moved, printed))), script
