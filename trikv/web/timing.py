"""A write's trace as a `Server-Timing` header, which browsers draw and tools read.

Each metric is a token, with `dur` in milliseconds since the write began, and perhaps `desc` in quotes:
`commit`, `quorum`, and for each follower `ack1`, `ack2`, … in the order in which they are configured,
described by the follower's name; without `dur` as long as it has not acknowledged. Pure.
"""

from __future__ import annotations

import re

from trikv.replication.write import FollowerTrace, Trace

HEADER = "Server-Timing"

#: What may stand in a quoted text as it is; of a follower's URL that is all but what nobody writes.
_UNQUOTABLE = re.compile(r"[^ !#-\[\]-~]")


def server_timing(trace: Trace) -> str:
    """The header's value."""
    parts = [f"{name};{_dur(ms)}" for name, ms in _own(trace) if ms is not None]
    parts += [_ack(place, step) for place, step in enumerate(trace.followers, 1)]
    return ", ".join(parts)


def _own(trace: Trace) -> tuple[tuple[str, float | None], ...]:
    return ("commit", trace.commit_ms), ("quorum", trace.quorum_ms)


def _ack(place: int, step: FollowerTrace) -> str:
    name = _UNQUOTABLE.sub("?", step.node_id or step.url)
    if step.ack_ms is None:
        return f'ack{place};desc="{name}: no ACK yet"'
    return f'ack{place};{_dur(step.ack_ms)};desc="{name}"'


def _dur(ms: float) -> str:
    return f"dur={ms:.3f}"
