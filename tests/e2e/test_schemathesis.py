"""Schemathesis, which knows nothing of trikv but `/openapi.json`, against real nodes.

It makes requests that the description allows and some that it does not, and checks each answer: status,
type, shape and headers are described, what is not allowed is refused, other methods are not taken. Two
of its checks are left out: that a 5xx is always a bug (ours are described, and say what may have
happened; that none is a 500 is seen in the nodes' logs), and that whatever has the right shape is taken
(a follower's name is a text, but not every text is a follower's name).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.cluster import open_nodes

LEFT_OUT = ("not_a_server_error", "positive_data_acceptance")

#: They have no end.
STREAMS = ("/watch", "/events")


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_the_description_holds(tmp_path: Path, role: str) -> None:
    with open_nodes(tmp_path, 2, write_quorum=1, WRITE_TIMEOUT="1") as nodes:
        node = nodes.leader if role == "leader" else nodes.followers[0]
        with httpx.Client(trust_env=False) as http:
            written = http.put(f"{nodes.leader.url}/kv/a", json={"value": 1}).json()
            described = http.get(f"{node.url}/openapi.json").json()
        never_waits(described, written["version"])
        path = tmp_path / "openapi.json"
        path.write_text(json.dumps(described), encoding="utf-8")
        command = [sys.executable, "-m", "schemathesis.cli", "run", str(path), "--url", node.url]
        command += ["--exclude-checks", ",".join(LEFT_OUT), "--phases", "coverage,fuzzing"]
        command += ["--max-examples", "5", "--seed", "1", "--request-timeout", "20", "--no-color"]
        command += [option for stream in STREAMS for option in ("--exclude-path", stream)]
        command += ["--continue-on-failure"]
        run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=110)
        assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
        tested = len([path for path in described["paths"] if path not in STREAMS])
        assert f"Tested: {tested + 2}" in run.stdout, run.stdout  # /kv/{key} has three methods
        for one in (nodes.leader, *nodes.followers):
            assert "request.failed" not in one.log_path.read_text(encoding="utf-8")


def never_waits(described: dict[str, Any], version: str) -> None:
    """Let reads wait for no version but one that is there."""
    for path in described["paths"].values():
        for operation in path.values():
            for parameter in operation["parameters"]:
                if parameter["name"] == "min_version":
                    parameter["schema"] = {"type": "string", "enum": [version]}
