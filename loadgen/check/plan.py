"""What a check is to do: its options, and the bounds that make a run worth anything.

fault-free   the first seconds: how many operations a second this machine completes undisturbed
nemesis      the rest of the duration: faults, one after the other and two at a time
heal         as long as it takes: everything up, one leader, all replicas equal; then the verdict
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from loadgen.cluster import FOLLOWERS
from loadgen.theory import UniformLag

#: What can be done to a cluster.
#:
#:     kill        SIGKILL, and a start on what is on disk, in the same role
#:     pause       SIGSTOP, and later SIGCONT
#:     partition   followers are cut off their leader
#:     takeover    another node is started as the leader, the old one being dead, paused or alive
#:     wipe        a kill, and a start on an empty disk
KINDS = ("kill", "pause", "partition", "takeover", "wipe")

#: A fault that was met less often says little.
LEAST_FAULTS = 10

#: Nothing is easier to get right than a cluster that does nothing.
LEAST_RATE = 0.2

DEFAULT_QUORUM = 3

# Enough for ten faults of each kind on a machine of two cores, and some to spare.
DEFAULT_DURATION_S = 150
DEFAULT_CONTAINERS_DURATION_S = 240
DEFAULT_CLIENTS = 8
DEFAULT_KEYS = 10
# Long enough that a crash finds records on their way, short beside the time between faults.
DEFAULT_LAG = UniformLag(0, 50)

# Short, so that much can happen to a cluster in little time; still long beside a request on loopback.
REQUEST_TIMEOUT_S = 1.0
WRITE_TIMEOUT_S = 2.0

#: Between the beginnings of two faults. A container takes longer to come back, and costs more.
BREATH_S = (0.2, 1.4)
CONTAINERS_BREATH_S = (1.0, 4.0)

#: How long the cluster is left alone at first, and what part of a short run that may take.
FAULT_FREE_S = 10.0
FAULT_FREE_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class CheckPlan:
    """The options of a check. No kinds of faults: it is left alone throughout."""

    duration_s: int
    nemesis: tuple[str, ...]
    clients: int
    keys: int
    quorum: int
    lag: UniformLag
    seed: int
    containers: bool = False

    @property
    def fault_free_s(self) -> float:
        return min(FAULT_FREE_S, self.duration_s * FAULT_FREE_SHARE)

    @property
    def breath_s(self) -> tuple[float, float]:
        return CONTAINERS_BREATH_S if self.containers else BREATH_S

    def leader_settings(self, follower_urls: Iterable[str]) -> dict[str, str]:
        """What a node is told that is started to lead."""
        return {
            "FOLLOWER_URLS": ",".join(follower_urls),
            "WRITE_QUORUM": str(self.quorum),
            "MIN_DELAY_MS": f"{self.lag.min_ms:.10g}",
            "MAX_DELAY_MS": f"{self.lag.max_ms:.10g}",
            "REQUEST_TIMEOUT": f"{REQUEST_TIMEOUT_S:g}",
            "WRITE_TIMEOUT": f"{WRITE_TIMEOUT_S + self.lag.max_ms / 1000:.10g}",
        }

    def words(self) -> str:
        """The plan in one line."""
        where = "containers" if self.containers else "processes"
        return (
            f"{1 + FOLLOWERS} {where}, quorum {self.quorum}, lag {self.lag}, "
            f"{self.clients} clients, {self.keys} keys at a time, {self.duration_s} s, "
            f"nemesis {','.join(self.nemesis) or 'none'}, seed {self.seed}"
        )
