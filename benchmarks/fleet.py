"""The processes of one system: started here, watched here, and ended here, whatever happens.

    log     each logs straight into a file beside its data; a node that dies is shown with its end
    CPU     utime + stime from /proc, of a process and of the children that it has waited for
    end     SIGTERM to all, the last started first; who does not end in time is killed; then the
            directory is removed

Only what `spawn` started is ever signalled, by its process id. Each node is in a session of its own,
so that a terminal's Ctrl-C reaches us alone. Cleanup is not interrupted by signals (`interrupts`),
and is bounded.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.errors import BenchmarkError, NodeDied
from benchmarks.interrupts import held

HOST = "127.0.0.1"
DIRECTORY_PREFIX = "trikv-benchmark-"

#: Six interpreters start at once on a small machine.
START_S = 60.0
#: What is measured is this checkout, whatever else is installed.
ROOT = Path(__file__).parents[1]

#: trikv takes at most ten seconds for what is in flight; the load generator stops a cluster of it.
STOP_S = 20.0
KILL_S = 5.0
POLL_S = 0.02
LOG_TAIL_LINES = 8

CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Process:
    """One node's process, and where it logs: behind what an earlier start of it has logged."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    log_begins: int = 0

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def is_up(self) -> bool:
        return self.popen.poll() is None

    def log_text(self) -> str:
        """All that the process has logged so far."""
        with self.log.open("rb") as stream:
            stream.seek(self.log_begins)
            return stream.read().decode("utf-8", errors="replace")

    def log_tail(self) -> str:
        """The end of the log, set apart for an error message."""
        lines = self.log_text().splitlines()[-LOG_TAIL_LINES:]
        return "".join(f"\n    {line}" for line in lines) or "\n    (it logged nothing)"

    def cpu_s(self) -> float:
        """Seconds of CPU that it has used since its start."""
        return cpu_of_stat(Path(f"/proc/{self.pid}/stat").read_text()) / CLOCK_TICKS_PER_S

    def resident_mb(self) -> float:
        """Memory that it holds (VmRSS), in MB of 10^6 bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        if found is None:
            raise BenchmarkError(f"{self.name}: /proc tells no VmRSS")
        return int(found[1]) * 1024 / 1e6


def cpu_of_stat(line: str) -> int:
    """Clock ticks in a line of /proc/PID/stat: user and system, and those of ended children."""
    # The name, in parentheses, may hold spaces and parentheses; what follows is all numbers.
    after_name = line.rpartition(")")[2].split()
    return sum(int(ticks) for ticks in after_name[11:15])


@dataclass(slots=True)
class Fleet:
    """The processes of one system, and the directory that holds their data and logs."""

    directory: Path
    processes: list[Process] = field(default_factory=list)

    def spawn(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> Process:
        """Start a process. `name` may be that of one that has ended: it goes on with its log."""
        log = self.directory / f"{name}.log"
        begins = log.stat().st_size if log.exists() else 0
        with held(), log.open("ab") as stream:
            popen = subprocess.Popen(
                command,
                env=dict(env),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
            process = Process(name, popen, log, begins)
            self.processes = [one for one in self.processes if one.name != name]
            self.processes.append(process)
        return process

    def check(self) -> None:
        """Raises NodeDied if a process has ended."""
        for process in self.processes:
            if not process.is_up:
                raise NodeDied(
                    f"{process.name} ended by itself with exit code {process.popen.returncode}; "
                    f"last lines of its log:{process.log_tail()}"
                )

    def until(self, true: Callable[[], object], what: str, timeout_s: float = START_S) -> None:
        """Look again and again. Raises BenchmarkError, which says what was waited for."""
        deadline = time.monotonic() + timeout_s
        while not true():
            self.check()
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{what}: not within {timeout_s:g} s")
            time.sleep(POLL_S)

    def cpu_s(self) -> float:
        """Seconds of CPU that all processes together have used."""
        return sum(process.cpu_s() for process in self.processes)

    def end(self, process: Process, *, kill: bool = False) -> None:
        """End one process, gently or at once, and wait for it."""
        if process.is_up:
            process.popen.kill() if kill else process.popen.terminate()
        try:
            process.popen.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.popen.kill()
            process.popen.wait(KILL_S)

    def close(self) -> None:
        """End all that is left."""
        left = [process for process in reversed(self.processes) if process.is_up]
        for process in left:
            process.popen.terminate()
        deadline = time.monotonic() + STOP_S
        for process in left:
            try:
                process.popen.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait(KILL_S)


@contextmanager
def open_fleet(parent: Path | None = None) -> Iterator[Fleet]:
    """A fleet without processes; afterwards none is left, nor the directory.

    `parent` is where the directory is made: the system's place for temporary files by default. The disk
    has nothing left to write, nor to clear away of a fleet before, when this one begins.
    """
    os.sync()
    fleet = Fleet(Path(tempfile.mkdtemp(prefix=DIRECTORY_PREFIX, dir=parent)))
    try:
        yield fleet
    finally:
        with held():
            try:
                fleet.close()
            finally:
                shutil.rmtree(fleet.directory, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports of loopback on which nothing listens now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def plain_environment() -> dict[str, str]:
    """This process's environment, without what would reach into a node's settings."""
    strays = ("_proxy", "etcd_", "uvicorn_")
    env = {k: v for k, v in os.environ.items() if not any(s in k.lower() for s in strays)}
    return {**env, "PYTHONPATH": str(ROOT)}
