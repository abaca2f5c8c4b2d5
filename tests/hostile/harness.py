"""One attack beside a client that writes every 50 ms: what it felt, and what is true afterwards.

Two real nodes on loopback, a leader and a follower, both of which every write needs. The attack runs in
a process of its own, so that what it costs is not the client's. Times are shown and never asserted: they
depend on the machine.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.e2e.cluster import NodeProcess, Nodes, until
from tests.hostile.attacks import Attack

#: Between the beginnings of two writes of the client; one that takes longer delays the next.
EVERY_S = 0.05

#: The client's patience with one write.
WRITE_S = 100.0

#: The nodes are themselves again so long after an attack.
RECOVERY_S = 60.0

#: What was held for the attack must have gone by then.
SETTLED_S = 5.0


@dataclass
class Outcome:
    """One row of the table."""

    attack: str
    took_ms: list[float] = field(default_factory=list)
    """Of each write that was confirmed."""
    failures: list[str] = field(default_factory=list)
    """Of each that was not: the status, or the error."""
    peak_mb: float = 0.0
    """The most memory that either node had at any time."""
    after_mb: float = 0.0
    """What the larger one has some seconds after the attack."""
    log_lines: int = 0
    """What both nodes have logged from the attack's begin on."""
    wrong: list[str] = field(default_factory=list)
    """What should be true, and is not."""

    def row(self) -> str:
        """The row, in Markdown."""
        took = sorted(self.took_ms)
        p99 = took[int(0.99 * len(took))] if took else float("nan")
        most = took[-1] if took else float("nan")
        cells = [
            *(self.attack, str(len(took)), str(len(self.failures)), f"{p99:.0f}", f"{most:.0f}"),
            *(f"{self.peak_mb:.0f}", f"{self.after_mb:.0f}", str(self.log_lines)),
            "; ".join(self.wrong) or "nothing",
        ]
        return f"| {' | '.join(cells)} |"


HEADINGS = """\
| attack | writes | failed | p99 (ms) | max (ms) | peak (MB) | after (MB) | log lines | wrong |
|---|---:|---:|---:|---:|---:|---:|---:|---|"""


def run_attack(attack: Attack, directory: Path, code: Path | None = None) -> Outcome:
    """Run one attack on nodes of their own; `code` is the checkout whose nodes are attacked."""
    outcome = Outcome(attack.name)
    with _nodes(attack, directory, code) as nodes:
        written: dict[str, int] = {}
        logged = _log_lines(nodes)
        with _process(attack, nodes) as process:
            deadline = time.monotonic() + attack.seconds
            _write(nodes, outcome, written, lambda: _goes_on(process, deadline))
            if process.poll() is None and not attack.endless:
                outcome.wrong.append(f"not answered within {attack.seconds:g} s")
            if process.poll() not in (None, 0):
                assert process.stderr is not None
                said = process.stderr.read().decode().strip().splitlines()
                outcome.wrong.append(f"answer: {said[-1].strip(' |+-')[:150] if said else '?'}")
        _check_afterwards(nodes, attack, outcome, written)
        outcome.log_lines = _log_lines(nodes) - logged
        if any("Traceback" in node.log() for node in nodes.all):
            outcome.wrong.append("a traceback in the log")
    return outcome


@contextmanager
def _nodes(attack: Attack, directory: Path, code: Path | None) -> Iterator[Nodes]:
    common = {"MAX_DELAY_MS": "0", **attack.settings}
    leader = NodeProcess(directory, "leader", ROLE="leader", WRITE_QUORUM="1", **common)
    follower = NodeProcess(directory, "follower", ROLE="follower", **attack.settings)
    leader.code = follower.code = code
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Nodes(leader, [follower]) as nodes:
        if attack.descriptors is not None:  # a child has its parent's limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (attack.descriptors, before[1]))
        try:
            nodes.start()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        yield nodes


@contextmanager
def _process(attack: Attack, nodes: Nodes) -> Iterator[subprocess.Popen[bytes]]:
    ports = (str(node.address[1]) for node in nodes.all)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hostile.attacks", attack.name, *ports],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _goes_on(process: subprocess.Popen[bytes], deadline: float) -> bool:
    return process.poll() is None and time.monotonic() < deadline


def _write(
    nodes: Nodes, outcome: Outcome, written: dict[str, int], goes_on: Callable[[], bool]
) -> None:
    """Write every 50 ms while the attack goes on, each on the same connection where it is kept."""
    count = 0
    with httpx.Client(base_url=nodes.leader.url, timeout=WRITE_S, trust_env=False) as client:
        while goes_on():
            key, began = f"w{count % 100}", time.monotonic()
            count += 1
            try:
                answer = client.put(f"/kv/{key}", json={"value": count})
            except httpx.HTTPError as error:
                outcome.failures.append(type(error).__name__)
                written.pop(key, None)  # it may have been written, or not
            else:
                if answer.status_code == 200:
                    outcome.took_ms.append((time.monotonic() - began) * 1000)
                    written[key] = count
                else:
                    outcome.failures.append(str(answer.status_code))
                    written.pop(key, None)
            time.sleep(max(0.0, began + EVERY_S - time.monotonic()))


def _check_afterwards(
    nodes: Nodes, attack: Attack, outcome: Outcome, written: dict[str, int]
) -> None:
    """The nodes live, take a write, hold what was confirmed, and no memory of the attack."""
    for node in nodes.all:
        if node.process.poll() is not None:
            outcome.wrong.append(f"the {node.name} ended")
            return
    try:
        until(lambda: _confirms(nodes), "a write after the attack", RECOVERY_S)
    except TimeoutError as error:
        outcome.wrong.append(str(error))
        return
    lost = [
        key for key, value in written.items() if nodes.leader.get(f"/kv/{key}")["value"] != value
    ]
    if lost:
        outcome.wrong.append(f"lost: {', '.join(lost)}")
    time.sleep(SETTLED_S)
    outcome.peak_mb = max(_memory_mb(node, "VmHWM") for node in nodes.all)
    outcome.after_mb = max(_memory_mb(node, "VmRSS") for node in nodes.all)
    if outcome.peak_mb > attack.max_rss_mb:
        outcome.wrong.append(f"more than {attack.max_rss_mb:g} MB")


def _confirms(nodes: Nodes) -> bool:
    try:
        return nodes.leader.put("after", 1).status_code == 200
    except httpx.HTTPError:
        return False


def _memory_mb(node: NodeProcess, field: str) -> float:
    status = Path(f"/proc/{node.process.pid}/status").read_text(encoding="ascii", errors="replace")
    (line,) = (line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1000


def _log_lines(nodes: Nodes) -> int:
    return sum(node.log().count("\n") for node in nodes.all)
