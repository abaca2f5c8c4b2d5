"""The story of one write, for those who want to see it: its commit, its quorum, its acknowledgements."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class FollowerTrace:
    """What happened to one write on its way to one follower; times in ms since the write began."""

    url: str
    node_id: str | None
    lag_ms: float
    ack_ms: float | None = None


@dataclass
class Trace:
    """A write's story: times in milliseconds since it began; None: not yet, or never."""

    commit_ms: float | None = None
    quorum_ms: float | None = None
    followers: list[FollowerTrace] = field(default_factory=list)
