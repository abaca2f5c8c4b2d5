"""What the figures depend on besides the code: the machine, the versions, the commit, the day."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import apsw

from benchmarks.fleet import ROOT
from benchmarks.load import missing

PACKAGES = ("trio", "hypercorn", "quart", "quart-trio", "httpx", "httptools", "msgspec")
SYNCS = 50


def facts(directory: Path | None) -> dict[str, Any]:
    """All that there is to say of the machine; `directory` is where the nodes' data will be."""
    return {
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_name(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "kernel": platform.release(),
        "system": _system_name(),
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "file_system": _file_system(directory or Path(tempfile.gettempdir())),
        "fsync_ms": round(fsync_ms(directory), 3),
        "niceness": os.nice(0),
        "load_average": round(os.getloadavg()[0], 2),
    }


def packages() -> dict[str, str]:
    """Versions of what trikv runs on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if missing("wrk") is None:
        ran = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)
        found["wrk"] = (ran.stdout + " unknown").split()[1]
    return found


def commit() -> dict[str, Any]:
    """What was measured, as git knows it; empty outside a checkout."""
    try:
        found = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--", "trikv")
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": found, "trikv_changed_since": bool(changed)}


def now() -> str:
    """The time, as it is written into results."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def fsync_ms(directory: Path | None) -> float:
    """What one small append with fsync takes, where the nodes' data will be: the median of some."""
    took = []
    with tempfile.NamedTemporaryFile(dir=directory) as stream:
        for _ in range(SYNCS):
            stream.write(b"x" * 4096)
            stream.flush()
            began = time.perf_counter()
            os.fsync(stream.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


def busy_s() -> float:
    """Seconds of CPU that everything on this machine has used."""
    ticks = [int(one) for one in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, soft, steal = ticks
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def _git(*arguments: str) -> str:
    ran = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    return ran.stdout.strip()


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _system_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _file_system(directory: Path) -> str:
    """The type of the file system that a directory is on: tmpfs would make fsync free."""
    found, longest = "unknown", -1
    resolved = directory.resolve()
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mounted_at, kind, *_ = line.split()
        if resolved.is_relative_to(mounted_at) and len(mounted_at) >= longest:
            found, longest = kind, len(mounted_at)
    return found
