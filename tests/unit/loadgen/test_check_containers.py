"""What is laid over the compose file, and machines on which there are no containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadgen.check import containers
from loadgen.check.containers import Containers, check_engine
from loadgen.check.plan import CheckPlan
from loadgen.errors import UsageError
from loadgen.theory import UniformLag

PLAN = CheckPlan(60, (), 2, 10, 3, UniformLag(0, 20), 1, containers=True)


def test_one_node_leads_and_the_others_are_told_nothing_of_followers(tmp_path: Path) -> None:
    services = Containers(PLAN, "project", tmp_path)._override()["services"]
    leader = services["leader"]["environment"]
    assert leader["ROLE"] == "leader"
    assert leader["FOLLOWER_URLS"].split(",") == [f"http://follower{n}:8000" for n in range(1, 6)]
    assert (leader["WRITE_QUORUM"], leader["MAX_DELAY_MS"]) == ("3", "20")
    for number in range(1, 6):
        follower = services[f"follower{number}"]["environment"]
        assert follower == {"ROLE": "follower", "FOLLOWER_URLS": ""}
    # A nemesis must not meet somebody who starts what it has killed.
    assert {service["restart"] for service in services.values()} == {"no"}


def test_an_heir_has_all_the_others_as_followers_the_old_leader_too(tmp_path: Path) -> None:
    system = Containers(PLAN, "project", tmp_path)
    system._leads["leader"], system._leads["follower2"] = False, True
    services = system._override()["services"]
    urls = services["follower2"]["environment"]["FOLLOWER_URLS"].split(",")
    assert sorted(urls) == sorted(
        ["http://leader:8000", *(f"http://follower{n}:8000" for n in (1, 3, 4, 5))]
    )
    assert services["leader"]["environment"]["ROLE"] == "follower"


def test_the_addresses_are_those_that_the_compose_file_publishes(tmp_path: Path) -> None:
    system = Containers(PLAN, "project", tmp_path)
    text = containers.COMPOSE_FILE.read_text(encoding="utf-8")
    for name in system.names:
        port = system.url(name).removeprefix("http://127.0.0.1:")
        assert f'ports: ["127.0.0.1:{port}:8000"]\n    volumes: ["{name}:/data"]' in text


async def test_without_docker_it_is_bad_usage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="expected a docker command on the PATH"):
        await check_engine()


async def test_an_engine_that_does_not_answer_is_bad_usage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "docker"
    fake.write_text("#!/bin/sh\necho no daemon >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"expected a Docker engine.*no daemon"):
        await check_engine()


async def test_without_a_checkout_it_is_bad_usage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(containers, "COMPOSE_FILE", tmp_path / "compose.yml")
    with pytest.raises(UsageError, match="expected a checkout"):
        await check_engine()
