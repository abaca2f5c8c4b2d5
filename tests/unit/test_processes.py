"""Nodes as processes: the small parts; that they really start and stop is the e2e tests' affair."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from trikv import processes
from trikv.config import SETTINGS


@pytest.mark.parametrize(
    ("line", "url"),
    [
        (
            "2026-11-22T12:00:00.123Z INFO node.started role=follower node_id=follower1 "
            "url=http://127.0.0.1:43211 data_dir=/tmp/x",
            "http://127.0.0.1:43211",
        ),
        ('… INFO node.started url="http://[::1]:80" role=leader', "http://[::1]:80"),
        ("INFO node.starting url=http://127.0.0.1:1", None),
        ("INFO node.started role=leader\nINFO other url=http://127.0.0.1:1", None),
    ],
)
def test_a_nodes_url_is_read_from_the_line_that_says_it_has_started(
    line: str, url: str | None
) -> None:
    assert processes.started_url_in(line) == url


async def test_no_setting_of_a_node_leaks_in_and_its_input_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting in SETTINGS:
        monkeypatch.setenv(setting.name, "nonsense")
    monkeypatch.setenv("OTHER", "stays")
    seen: dict[str, Any] = {}

    async def open_process(command: list[str], **options: Any) -> None:
        seen.update(options, command=command)

    monkeypatch.setattr(trio.lowlevel, "open_process", open_process)
    await processes.spawn(tmp_path, "n", {"ROLE": "follower"})
    ours = {name: seen["env"][name] for name in seen["env"] if name in {s.name for s in SETTINGS}}
    assert ours == {
        "ROLE": "follower",
        "NODE_ID": "n",
        "HOST": "127.0.0.1",
        "PORT": "0",
        "DATA_DIR": str(tmp_path / "n"),
        "LOG_LEVEL": "INFO",
    }
    assert seen["env"]["OTHER"] == "stays"
    assert seen["command"] == [sys.executable, "-m", "trikv", "--stop-at-eof"]
    assert seen["stdin"] == subprocess.PIPE


def test_free_ports_are_free_and_different() -> None:
    ports = processes.free_ports(random.Random(1), 20)
    assert len(set(ports)) == 20
    with socket.socket() as taken:
        taken.bind((processes.HOST, ports[0]))
        taken.listen()
        assert ports[0] not in processes.free_ports(random.Random(1), 20)


def test_no_free_ports_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "is_free", lambda port: False)
    with pytest.raises(OSError, match="no 3 free ports"):
        processes.free_ports(random.Random(1), 3)
