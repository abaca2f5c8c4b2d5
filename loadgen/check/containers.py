"""The six containers of docker/compose.yml, killed, paused, taken off their network, emptied, swapped.

The compose file is used as it is, in a project of its own, with a second file laid over it that is
written anew whenever a node changes its role: compose then makes the node's container anew, on its
volume. A node that keeps its role is only started again.

    kill        docker kill, by SIGKILL
    pause       docker pause: all its processes are frozen
    cut         docker network disconnect: neither nodes nor clients reach it, and it may come back with
                another address, or with one that another node had
    wipe        the container and its volume are removed

Every docker command is bounded, and shielded: one that was begun is finished, so that it is known what
there is. The commands are in a session of their own, out of the reach of a terminal's Ctrl-C. Whatever
ends the block, the project is removed with its volumes; logs are kept from before a container goes.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from loadgen.check.plan import CheckPlan
from loadgen.check.system import ask, complaints_in, copy_logs
from loadgen.cluster import FOLLOWERS, START_TIMEOUT_S, make_directory
from loadgen.errors import ClusterError, UsageError

NAMES = ("leader", *(f"follower{number}" for number in range(1, FOLLOWERS + 1)))
COMPOSE_FILE = Path(__file__).resolve().parents[2] / "docker" / "compose.yml"
#: What the compose file publishes, in the order of the names.
FIRST_PORT = 8000
OVERRIDE_FILE = "override.json"

COMMAND_TIMEOUT_S = 60.0
#: A slow network fetches the base image and the dependencies in this.
BUILD_TIMEOUT_S = 900.0
POLL_S = 0.1
#: How often it is looked whether a container has ended by itself.
WATCH_S = 2.0


class Containers:
    """A `System` of containers; made by `open_containers`."""

    def __init__(self, plan: CheckPlan, project: str, directory: Path) -> None:
        self.names = NAMES
        self._plan = plan
        self._project = project
        self._directory = directory
        self._made: dict[str, bool] = {}
        """The containers that there are, and whether they were made to lead."""
        self._leads = {name: name == NAMES[0] for name in NAMES}
        self._up: set[str] = set()
        self._paused: set[str] = set()
        self._cut: set[str] = set()
        self._composing = trio.Lock()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{FIRST_PORT + NAMES.index(name)}"

    async def ask(self, name: str, path: str) -> dict[str, Any]:
        return await ask(self.url(name) + path)

    def is_up(self, name: str) -> bool:
        return name in self._up

    def leads(self, name: str) -> bool:
        return self._leads[name]

    def _container(self, name: str) -> str:
        return f"{self._project}-{name}-1"

    # -- what is done to a node ---------------------------------------------------------------------

    async def start(self, name: str, *, leads: bool) -> None:
        self._leads[name] = leads
        with trio.CancelScope(shield=True):
            if self._made.get(name) == leads:
                await docker("start", self._container(name))
            else:
                await self._keep_log(name)
                await self._compose("up", "--detach", "--no-deps", "--no-build", name)
                self._made[name] = leads
            self._up.add(name)
        with trio.move_on_after(START_TIMEOUT_S):
            while True:
                if await self.ask(name, "/health"):
                    return
                await trio.sleep(POLL_S)
        log = await docker("logs", "--tail", "8", self._container(name))
        raise ClusterError(f"{name} does not start; last lines of its log:\n{log}")

    async def kill(self, name: str) -> None:
        if name not in self._up:
            await trio.lowlevel.checkpoint()
            return
        with trio.CancelScope(shield=True):
            await self.resume(name)  # a frozen process cannot die
            self._up.discard(name)
            await docker("kill", "--signal", "KILL", self._container(name))

    async def pause(self, name: str) -> None:
        with trio.CancelScope(shield=True):
            self._paused.add(name)
            await docker("pause", self._container(name))

    async def resume(self, name: str) -> None:
        with trio.CancelScope(shield=True):
            if name in self._paused:
                await docker("unpause", self._container(name))
                self._paused.discard(name)
        await trio.lowlevel.checkpoint()

    async def wipe(self, name: str) -> None:
        with trio.CancelScope(shield=True):
            await self._keep_log(name)
            await docker("rm", "--force", self._container(name))
            del self._made[name]
            await docker("volume", "rm", f"{self._project}_{name}")

    async def cut(self, name: str, leader: str) -> None:
        with trio.CancelScope(shield=True):
            self._cut.add(name)
            network = f"{self._project}_default"
            await docker("network", "disconnect", network, self._container(name))

    async def reconnect(self, name: str, leader: str) -> None:
        with trio.CancelScope(shield=True):
            if name in self._cut:
                joined = (f"{self._project}_default", self._container(name))
                await docker("network", "connect", "--alias", name, *joined)
                self._cut.discard(name)
        await trio.lowlevel.checkpoint()

    # -- logs, and what ends by itself --------------------------------------------------------------

    async def complaints(self) -> list[str]:
        for name in self.names:
            await self._keep_log(name)
        return await trio.to_thread.run_sync(complaints_in, self._directory)

    async def save_logs(self, folder: Path) -> None:
        await trio.to_thread.run_sync(copy_logs, self._directory, folder)

    async def _keep_log(self, name: str) -> None:
        """What a container has logged goes when it goes."""
        if name in self._made:
            text = await docker("logs", self._container(name), both=True)
            await trio.to_thread.run_sync(append, self._directory / f"{name}.log", text)

    async def watch(self) -> None:
        """Raises ClusterError if a container ends that nobody has ended."""
        label = f"label=com.docker.compose.project={self._project}"
        service = '{{.Label "com.docker.compose.service"}}'
        while True:
            await trio.sleep(WATCH_S)
            should_run = set(self._up)
            ended = await docker(
                *("ps", "--all", "--filter", label, "--filter", "status=exited"),
                *("--format", service),
            )
            # One that was ended, or started, while docker looked, is looked at the next time.
            for name in should_run & self._up & set(ended.split()):
                if await self._has_ended(name):
                    log = await docker("logs", "--tail", "8", self._container(name), both=True)
                    raise ClusterError(f"{name} ended by itself; last lines of its log:\n{log}")

    async def _has_ended(self, name: str) -> bool:
        """Whether it is still down, and still nobody has ended it."""
        state = await docker("inspect", "--format", "{{.State.Status}}", self._container(name))
        return state.strip() == "exited" and name in self._up

    # -- the project --------------------------------------------------------------------------------

    async def make(self) -> None:
        """Build the image from the code as it is, and make what the nodes need."""
        await self._compose("build", timeout_s=BUILD_TIMEOUT_S)
        await self._compose("create", "--no-build")
        self._made = dict(self._leads)

    async def remove(self) -> None:
        """Remove all that carries the project's name."""
        for name in self.names:
            if name in self._made:
                await docker("rm", "--force", "--volumes", self._container(name), is_sure=False)
        await self._compose("down", "--volumes", "--remove-orphans", "--timeout", "0")

    async def _compose(self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        """One at a time: they make networks and volumes that they share."""
        async with self._composing:
            override = self._directory / OVERRIDE_FILE
            await trio.to_thread.run_sync(override.write_text, json.dumps(self._override()))
            await docker(
                *("compose", "--project-name", self._project),
                *("--file", str(COMPOSE_FILE), "--file", str(override)),
                *arguments,
                timeout_s=timeout_s,
            )

    def _override(self) -> dict[str, Any]:
        """What is laid over the compose file: roles, and nothing that watches or restarts nodes."""
        return {"services": {name: self._service(name) for name in self.names}}

    def _service(self, name: str) -> dict[str, Any]:
        others = [f"http://{other}:8000" for other in self.names if other != name]
        environment = {"ROLE": "follower", "FOLLOWER_URLS": ""}
        if self._leads[name]:
            environment = {"ROLE": "leader", **self._plan.leader_settings(others)}
        return {"environment": environment, "restart": "no", "healthcheck": {"disable": True}}


@asynccontextmanager
async def open_containers(plan: CheckPlan) -> AsyncIterator[Containers]:
    """Six containers, made and not started; gone without a trace afterwards.

    Raises ClusterError.
    """
    directory = make_directory()
    try:
        async with trio.open_nursery() as nursery:
            containers = Containers(plan, f"trikv-check-{secrets.token_hex(4)}", directory)
            try:
                await containers.make()
                nursery.start_soon(containers.watch)
                yield containers
            finally:
                with trio.CancelScope(shield=True):  # bounded: each command is
                    await containers.remove()
            nursery.cancel_scope.cancel()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def check_engine() -> None:
    """Raises UsageError if there is no engine, no compose, or no compose file."""
    if not await trio.to_thread.run_sync(COMPOSE_FILE.exists):
        raise UsageError(f"--containers: expected a checkout, with {COMPOSE_FILE}")
    if shutil.which("docker") is None:
        raise UsageError("--containers: expected a docker command on the PATH")
    for command in ("info", "compose version"):
        try:
            await docker(*command.split())
        except ClusterError as error:
            raise UsageError(
                f"--containers: expected a Docker engine with Compose v2: {error}"
            ) from None


async def docker(
    *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S, both: bool = False, is_sure: bool = True
) -> str:
    """Run a docker command; what it printed, with `both` on standard error, too.

    Raises ClusterError if it fails or does not end, unless that is expected.
    """
    with trio.move_on_after(timeout_s):
        done = await trio.run_process(
            ["docker", *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            start_new_session=True,
        )
        out, error = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
        if done.returncode != 0 and is_sure:
            raise ClusterError(f"docker {' '.join(arguments)}: {error.strip() or out.strip()}")
        return out + error if both else out
    raise ClusterError(f"docker {' '.join(arguments)}: not done within {timeout_s:g} s")


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text)
