"""Real nodes: processes on loopback that a test starts, asks, kills and starts again.

Each logs to a file beside its data, which lies in the test's own directory. Whoever starts a node ends
it: `open_nodes` kills, by their ids, whatever is left of its own when its block is left.

`loadgen.cluster` brings up six nodes and takes the death of one for the end of the run; here deaths are
what is tested.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from trikv.config import SETTINGS

#: Six interpreters start at once on a small, busy machine.
START_S = 60.0

#: A node that is told to stop has at most this long: container engines kill after 10 s.
STOP_S = 10.0

#: What moves with the leadership.
LEADER_SETTINGS = (
    "WRITE_QUORUM",
    "MIN_DELAY_MS",
    "MAX_DELAY_MS",
    "REQUEST_TIMEOUT",
    "WRITE_TIMEOUT",
)

_STARTED = re.compile(r" node\.started .*\burl=(\S+)")


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with a node's settings in it, and no others of a node's."""
    ours = {setting.name for setting in SETTINGS}
    return {**{k: v for k, v in os.environ.items() if k.upper() not in ours}, **settings}


def run_to_the_end(
    *arguments: str, timeout_s: float = 30, **settings: str
) -> subprocess.CompletedProcess[str]:
    """`python -m trikv`, for runs that end by themselves."""
    return subprocess.run(
        [sys.executable, "-m", "trikv", *arguments],
        env=environment({"HOST": "127.0.0.1", "PORT": "0", **settings}),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def until(true: Callable[[], object], what: str, timeout_s: float = 30) -> None:
    """Look again and again. Raises TimeoutError, which says what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.02)


class NodeProcess:
    """One node, through however many starts; always the same data directory and, once known, port."""

    def __init__(self, directory: Path, name: str, **settings: str) -> None:
        self.name = name
        self.data_dir = directory / name
        self.log_path = directory / f"{name}.log"
        self.settings = {"HOST": "127.0.0.1", "PORT": "0", "NODE_ID": name, **settings}
        self.url = ""
        self.code: Path | None = None
        """The checkout whose code it runs, if it is another one."""
        self.client = httpx.Client(timeout=30, trust_env=False)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_starts = 0

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def start(self) -> None:
        """Start the process; `wait_started` waits for it."""
        settings = {"DATA_DIR": str(self.data_dir), **self.settings}
        self._log_starts = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trikv"],
                env=environment(settings),
                cwd=self.code,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_started(self) -> None:
        """Until the node says that it has started, and where."""
        until(
            lambda: self._said_started() or self.process.poll() is not None,
            f"{self.name} starts",
            START_S,
        )
        started = self._said_started()
        assert started is not None, f"{self.name} ended: {self.log()}"
        self.url = started[1]
        self.settings["PORT"] = str(self.address[1])

    def _said_started(self) -> re.Match[str] | None:
        return _STARTED.search(self.log()[self._log_starts :])

    def log(self) -> str:
        """All that the node has written, through all its starts."""
        return self.log_path.read_text(encoding="utf-8")

    def kill(self) -> None:
        """SIGKILL: the node gets no chance to do anything."""
        self.process.kill()
        self.process.wait(STOP_S)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to stop; its exit code."""
        self.process.send_signal(how)
        return self.process.wait(STOP_S)

    def empty(self) -> None:
        """Remove the data of a node that is down."""
        shutil.rmtree(self.data_dir)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Whatever state it is in: no process afterwards."""
        self.client.close()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(STOP_S)

    def ask(self, method: str, path: str, content: Any = None) -> httpx.Response:
        """One request on a connection that is kept; not for more than one thread at a time."""
        return self.client.request(method, self.url + path, json=content)

    def get(self, path: str) -> Any:
        """The JSON of a GET that must succeed."""
        answer = self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def put(self, key: str, value: Any) -> httpx.Response:
        return self.ask("PUT", f"/kv/{key}", {"value": value})


class Nodes:
    """A leader and its followers."""

    def __init__(self, leader: NodeProcess, followers: Sequence[NodeProcess]) -> None:
        self.leader = leader
        self.followers = list(followers)

    @property
    def all(self) -> list[NodeProcess]:
        return [self.leader, *self.followers]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for node in self.all:
            node.close()

    def start(self) -> None:
        """Followers first, all at once; then the leader, until every link is live."""
        for node in self.followers:
            node.start()
        for node in self.followers:
            node.wait_started()
        self.leader.settings["FOLLOWER_URLS"] = ",".join(node.url for node in self.followers)
        self.leader.start()
        self.leader.wait_started()
        self.wait_live(len(self.followers))

    def wait_live(self, links: int, timeout_s: float = 30) -> None:
        def is_live() -> bool:
            told = self.leader.get("/health")
            return bool(told["leads"]) and told["live_links"] == links

        until(is_live, f"{links} live links of a leader that leads", timeout_s)

    def statuses(self) -> list[str]:
        """match, mismatch or unreachable, for each follower."""
        return [told["status"] for told in self.leader.get("/admin/replica-status")["followers"]]

    def wait_match(self) -> Any:
        """Until every follower holds what the leader holds; the replica status then."""
        all_match = ["match"] * len(self.followers)
        until(lambda: self.statuses() == all_match, "all replicas match")
        return self.leader.get("/admin/replica-status")

    def restart(self, *nodes: NodeProcess) -> None:
        """Start nodes that are down, all at once, and wait for each."""
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait_started()

    def promote(self, node: NodeProcess) -> None:
        """Make a follower that is down the leader, and the leader a follower; neither is started."""
        old = self.leader
        self.followers = [old, *(other for other in self.followers if other is not node)]
        self.leader = node
        old_settings = {k: old.settings.pop(k) for k in LEADER_SETTINGS if k in old.settings}
        node.settings |= {**old_settings, "ROLE": "leader"}
        node.settings["FOLLOWER_URLS"] = ",".join(other.url for other in self.followers)
        old.settings["ROLE"] = "follower"

    def check_logs(self) -> None:
        """Nobody has met anything that nobody foresaw."""
        for node in self.all:
            assert "Traceback" not in node.log(), node.log()
            assert " ERROR " not in node.log(), node.log()


@contextmanager
def open_nodes(
    directory: Path, followers: int = 5, *, write_quorum: int = 3, **leader_settings: str
) -> Iterator[Nodes]:
    """A cluster that is up inside, and gone afterwards."""
    settings = {
        "ROLE": "leader",
        "WRITE_QUORUM": str(write_quorum),
        "MAX_DELAY_MS": "0",
        **leader_settings,
    }
    with Nodes(
        NodeProcess(directory, "leader", **settings),
        [NodeProcess(directory, f"follower{i + 1}", ROLE="follower") for i in range(followers)],
    ) as nodes:
        nodes.start()
        yield nodes
        nodes.check_logs()
