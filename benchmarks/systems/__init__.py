"""Those that are compared, by name; the first is what the others are compared with."""

from __future__ import annotations

from benchmarks.systems.base import System
from benchmarks.systems.etcd import Etcd
from benchmarks.systems.lab import Lab
from benchmarks.systems.redis import Redis
from benchmarks.systems.trikv import Trikv

REFERENCE = "trikv"

SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        Trikv("fsync"),
        Trikv("os"),
        Lab(),
        Lab(standard=True),
        Etcd(),
        Redis(append_only=True),
        Redis(append_only=False),
    )
}

#: Measured unless `--systems` says otherwise.
DEFAULT_SYSTEMS = ("trikv", "trikv-os", "lab", "etcd", "redis")
