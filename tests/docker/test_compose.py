"""The compose file, for real: six containers of the image that is built from this checkout.

Everything is seen from where a user stands: through `docker compose` and the ports it publishes.
The file is used exactly as it is, under a project name of its own, so that a cluster of yours keeps
its volumes; but the host ports are fixed, so it cannot be up at the same time. All waiting is
bounded. Whatever happens, the project is removed at the end, and if a test failed, its logs are
printed first.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE_FILE = REPOSITORY / "docker" / "compose.yml"

LEADER = "http://127.0.0.1:8000"
FOLLOWERS = {f"follower{number}": f"http://127.0.0.1:{8000 + number}" for number in range(1, 6)}
SERVICES = {"leader", *FOLLOWERS}
PORTS = range(8000, 8006)

BUILD_SECONDS = 900.0  # a slow network fetches the base image and the dependencies in this
UP_SECONDS = 120.0  # six first health checks on a small, busy machine
STOP_SECONDS = 60.0  # twice the grace period of the leader and then of the followers, and some
SETTLE_SECONDS = 30.0  # lag, retries and backoff of the deliveries in the background
LOADGEN_SECONDS = 300.0
OFF_SECONDS = 60.0

pytestmark = pytest.mark.timeout(BUILD_SECONDS + LOADGEN_SECONDS)


class Project:
    """One project of the compose file, and what docker knows about it."""

    def __init__(self) -> None:
        self.name = f"trikv-test-{secrets.token_hex(4)}"
        self.is_built = False

    def compose(self, *arguments: str, timeout_seconds: float) -> str:
        """Run `docker compose` on this project; a failure shows all that it printed."""
        return run(
            "docker",
            "compose",
            *("--project-name", self.name, "--file", str(COMPOSE_FILE)),
            *arguments,
            timeout_seconds=timeout_seconds,
        )

    def up(self) -> None:
        """Bring up what is not up, from an image of the code as it is now, and wait for health."""
        if not self.is_built:
            self.compose("build", timeout_seconds=BUILD_SECONDS)
            self.is_built = True
        wait = ("--wait", "--wait-timeout", f"{UP_SECONDS:.0f}")
        self.compose("up", "--detach", *wait, timeout_seconds=UP_SECONDS + 60)

    def down(self) -> None:
        self.compose("down", "--volumes", "--remove-orphans", timeout_seconds=STOP_SECONDS)

    def containers(self) -> dict[str, dict[str, Any]]:
        """What `docker inspect` says of each container of the project, by service."""
        ids = self.compose("ps", "--all", "--quiet", timeout_seconds=30).split()
        found = json.loads(run("docker", "inspect", *ids)) if ids else []
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}

    def leftovers(self) -> dict[str, list[str]]:
        """Whatever carries the project's label, by kind."""
        label = f"label=com.docker.compose.project={self.name}"
        return {
            "containers": run("docker", "ps", "--all", "--quiet", "--filter", label).split(),
            "networks": run("docker", "network", "ls", "--quiet", "--filter", label).split(),
            "volumes": run("docker", "volume", "ls", "--quiet", "--filter", label).split(),
        }


def run(*command: str, timeout_seconds: float = 60.0) -> str:
    """Run a command from the root of the checkout and return what it printed on standard output."""
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout_seconds,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def why_there_is_no_engine() -> str | None:
    """The reason why containers cannot be run here, or None if they can."""
    if shutil.which("docker") is None:
        return "there is no docker command on the PATH"
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            return f"`{' '.join(command)}` does not answer"
        if done.returncode != 0:
            return f"`{' '.join(command)}` failed: {done.stderr.strip()}"
    return None


def ports_in_use() -> list[int]:
    taken = []
    for port in PORTS:
        with socket.socket() as probe:
            probe.settimeout(2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                taken.append(port)
    return taken


@pytest.fixture(scope="module")
def project(request: pytest.FixtureRequest) -> Iterator[Project]:
    """A project of its own, gone at the end. Nothing is up yet: see `cluster`."""
    reason = why_there_is_no_engine()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI runs the container test, and {reason}")
        pytest.skip(f"the container test needs a Docker engine with Compose v2: {reason}")
    taken = ports_in_use()
    if taken:
        pytest.fail(
            f"the compose file publishes the ports {PORTS[0]} to {PORTS[-1]} of 127.0.0.1, and "
            f"{taken} are in use. Is a cluster up? `docker compose -f docker/compose.yml stop`"
        )
    failures_before = request.session.testsfailed
    project = Project()
    try:
        yield project
    finally:
        try:
            if request.session.testsfailed > failures_before:
                print(project.compose("ps", "--all", timeout_seconds=30))
                print(project.compose("logs", "--no-color", "--tail", "50", timeout_seconds=30))
        finally:
            project.down()


@pytest.fixture
def cluster(project: Project) -> Project:
    """The project with all six nodes up and healthy, whatever the test before did to it."""
    project.up()
    return project


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    # Nobody's proxy stands between this test and 127.0.0.1.
    with httpx.Client(timeout=30.0, trust_env=False) as client:
        yield client


def eventually(holds: Callable[[], bool], what: str, seconds: float = SETTLE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


def write(http: httpx.Client, key: str, value: object) -> dict[str, Any]:
    answer = http.put(f"{LEADER}/kv/{key}", json={"value": value})
    assert answer.status_code == 200, answer.text
    written: dict[str, Any] = answer.json()
    return written


def read(http: httpx.Client, node: str, key: str) -> object:
    """The value that a node holds, or None if it holds none."""
    answer = http.get(f"{node}/kv/{key}")
    assert answer.status_code in (200, 404), answer.text
    return answer.json()["value"] if answer.status_code == 200 else None


def await_value(http: httpx.Client, follower: str, key: str, value: object) -> None:
    url = FOLLOWERS[follower]
    eventually(lambda: read(http, url, key) == value, f"{follower} holds {value!r} under {key}")


def await_alive(http: httpx.Client, node: str) -> None:
    def is_alive() -> bool:
        try:
            return http.get(f"{node}/health").status_code == 200
        except httpx.TransportError:
            return False

    eventually(is_alive, f"{node} answers")


def follower_statuses(http: httpx.Client) -> list[str]:
    answer = http.get(f"{LEADER}/admin/replica-status")
    assert answer.status_code == 200, answer.text
    return [follower["status"] for follower in answer.json()["followers"]]


def test_six_nodes_are_up_and_healthy(cluster: Project, http: httpx.Client) -> None:
    containers = cluster.containers()
    assert set(containers) == SERVICES
    for service, container in containers.items():
        assert container["State"]["Health"]["Status"] == "healthy", service
        assert container["RestartCount"] == 0, service
    assert http.get(f"{LEADER}/health").json()["role"] == "leader"
    for service, url in FOLLOWERS.items():
        health = http.get(f"{url}/health").json()
        assert (health["role"], health["node_id"]) == ("follower", service)


def test_the_profile_adds_prometheus_and_grafana_and_nothing_else(project: Project) -> None:
    """There may be no registry to fetch them from: what would be run is looked at, not run."""

    def services(*profile: str) -> set[str]:
        told = project.compose(*profile, "config", "--services", timeout_seconds=30)
        return set(told.split())

    assert services() == SERVICES
    assert services("--profile", "monitoring") == SERVICES | {"prometheus", "grafana"}
    told = project.compose(
        *("--profile", "monitoring", "config", "--format", "json"), timeout_seconds=30
    )
    for name in ("prometheus", "grafana"):
        service = json.loads(told)["services"][name]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}
        for volume in service["volumes"]:
            assert Path(volume["source"]).exists(), volume
            assert volume["read_only"] is True


def test_no_node_runs_as_root(cluster: Project) -> None:
    for service in sorted(SERVICES):
        uid = cluster.compose("exec", "-T", service, "id", "-u", timeout_seconds=30).strip()
        assert uid == "10001", service


def test_a_node_can_do_nothing_that_it_need_not(cluster: Project) -> None:
    for service, container in cluster.containers().items():
        host = container["HostConfig"]
        assert host["CapDrop"] == ["ALL"], service
        assert host["ReadonlyRootfs"] is True, service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert 0 < host["Memory"] <= 2 * 2**30, service
        assert 0 < host["PidsLimit"] <= 256, service
        look = (
            "exec 2>&1; grep -E 'CapEff|NoNewPrivs' /proc/1/status; ls -ld /data;"
            " touch /tmp/x /var/tmp/x /opt/x /x; true"
        )
        said = cluster.compose("exec", "-T", service, "sh", "-c", look, timeout_seconds=30)
        assert re.search(r"^CapEff:\t0+$", said, re.MULTILINE), said
        assert "NoNewPrivs:\t1" in said
        assert said.count("Read-only file system") == 4, said
        assert "\ndrwx------" in said


def test_process_1_hears_a_sigterm_as_soon_as_it_is_up(cluster: Project) -> None:
    containers = cluster.containers()
    name = containers["follower5"]["Id"]
    for delay_seconds in (0.2, 0.4, 0.8):
        run("docker", "stop", "--time", "10", name)
        run("docker", "start", name)
        time.sleep(delay_seconds)
        began = time.monotonic()
        run("docker", "stop", "--time", "10", name)
        assert time.monotonic() - began < 9, "it was killed"
        (state,) = json.loads(run("docker", "inspect", name))
        assert state["State"]["ExitCode"] == 0
    run("docker", "start", name)


def test_the_ports_are_published_on_loopback_only(cluster: Project) -> None:
    published = {
        service: container["NetworkSettings"]["Ports"]
        for service, container in cluster.containers().items()
    }
    expected = {
        service: {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(8000 + number)}]}
        for number, service in enumerate(["leader", *FOLLOWERS])
    }
    assert published == expected


def test_a_write_at_the_leader_reaches_every_follower(cluster: Project, http: httpx.Client) -> None:
    key, value = f"compose/{secrets.token_hex(4)}", {"text": "naïve", "list": [1, 2.5, None, True]}
    written = write(http, key, value)
    assert written["quorum_met"] is True
    assert 3 <= written["follower_acks"] <= 5
    assert read(http, LEADER, key) == value
    for service in FOLLOWERS:
        await_value(http, service, key, value)


def test_a_follower_refuses_a_write(cluster: Project, http: httpx.Client) -> None:
    key = f"refused/{secrets.token_hex(4)}"
    for service, url in FOLLOWERS.items():
        answer = http.put(f"{url}/kv/{key}", json={"value": 1})
        assert (answer.status_code, answer.json()["code"]) == (403, "not_leader"), service
    assert read(http, LEADER, key) is None


def test_the_replicas_match_once_it_is_quiet(cluster: Project, http: httpx.Client) -> None:
    for number in range(20):
        write(http, f"parity/{number % 5}", number)
    eventually(lambda: follower_statuses(http) == ["match"] * 5, "all five followers match")
    held = http.get(f"{LEADER}/dump").json()
    assert [held[f"parity/{number}"] for number in range(5)] == [15, 16, 17, 18, 19]
    for service, url in FOLLOWERS.items():
        assert http.get(f"{url}/dump").json() == held, service


def test_writes_go_on_without_two_followers_and_those_catch_up(
    cluster: Project, http: httpx.Client
) -> None:
    away = ("follower4", "follower5")
    cluster.compose("stop", *away, timeout_seconds=STOP_SECONDS)
    key = f"away/{secrets.token_hex(4)}"
    assert write(http, key, "written meanwhile")["follower_acks"] == 3
    cluster.up()
    for service in away:
        await_value(http, service, key, "written meanwhile")


def test_a_follower_that_is_off_its_network_for_a_minute_catches_up(
    cluster: Project, http: httpx.Client
) -> None:
    container = cluster.containers()["follower2"]
    (network,) = container["NetworkSettings"]["Networks"]
    run("docker", "network", "disconnect", network, container["Id"])
    try:
        key = f"off/{secrets.token_hex(4)}"
        began = time.monotonic()
        while time.monotonic() - began < OFF_SECONDS:
            written = write(http, key, f"after {time.monotonic() - began:.0f} s")
            assert 3 <= written["follower_acks"] <= 4
            last = written["value"]
            time.sleep(1)
        assert sorted(follower_statuses(http)) == ["match"] * 4 + ["unreachable"]
    finally:
        run("docker", "network", "connect", "--alias", "follower2", network, container["Id"])
    eventually(lambda: follower_statuses(http) == ["match"] * 5, "all five followers match")
    await_value(http, "follower2", key, last)


def test_all_stop_with_exit_code_0_and_start_again_with_their_data(
    cluster: Project, http: httpx.Client
) -> None:
    key, value = f"kept/{secrets.token_hex(4)}", secrets.token_hex(8)
    write(http, key, value)
    eventually(lambda: follower_statuses(http) == ["match"] * 5, "all five followers match")

    cluster.compose("stop", timeout_seconds=STOP_SECONDS)
    states = {service: one["State"] for service, one in cluster.containers().items()}
    assert {service: state["ExitCode"] for service, state in states.items()} == dict.fromkeys(
        SERVICES, 0
    )
    assert not any(state["Running"] or state["OOMKilled"] for state in states.values())

    # The followers first, and without their leader: what they hold now comes from their own disks.
    cluster.compose("start", *FOLLOWERS, timeout_seconds=STOP_SECONDS)
    for service, url in FOLLOWERS.items():
        await_alive(http, url)
        assert read(http, url, key) == value, service
    cluster.up()
    assert read(http, LEADER, key) == value
    assert write(http, key, "and it can be written on")["quorum_met"] is True


def test_the_load_generator_drives_the_cluster(cluster: Project, tmp_path: Path) -> None:
    """Its exit code is 0 only if every write was confirmed and all replicas matched at the end."""
    printed = run(
        *(sys.executable, "-m", "loadgen", "--leader", LEADER, "--quick"),
        *("--output", str(tmp_path)),
        timeout_seconds=LOADGEN_SECONDS,
    )
    print(printed)
    for name in ("summary.json", "quorum_vs_latency.png", "report.md"):
        assert (tmp_path / name).stat().st_size > 0, name


def test_down_with_volumes_leaves_nothing_behind(cluster: Project) -> None:
    assert {kind: len(ids) for kind, ids in cluster.leftovers().items()} == {
        "containers": 6,
        "networks": 1,
        "volumes": 6,
    }
    cluster.down()
    assert cluster.leftovers() == {"containers": [], "networks": [], "volumes": []}
    assert ports_in_use() == []
