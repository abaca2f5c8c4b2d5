"""What happens at a node, for those who look at it: frames of its state, and of the last writes.

Rules
- It is sampled. A write carries the times of all that happened to it (see `trace`), so a frame now and
  then shows it exactly, and a thousand writes a second are no more events than ten.
- Where nobody looks nothing is made and nothing is kept: a write pays for a look at `Leader.seen`.
- A frame is made once for all viewers. It is bounded: so many of the writes that changed, the newest,
  and how many others there were. A later frame has these, while they are among the last `RECENT_WRITES`.
- Nobody waits for a viewer. It has room for some frames; one that does not take them loses them, is told
  how many, and is sent the whole state once it takes anything again.
- Nothing is promised here: what programs rely on is the change stream (see `change_stream`).

How it works. One task makes frames while somebody looks, and else waits. A frame is the state, with
those writes that have changed since the last one; with nothing new there is one each `QUIET_S`, which
also tells a dead connection from an idle one.

What it does not know: HTTP, how viewers draw.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from trikv import __version__
from trikv.counters import CONFIRMED, LATENCY_MS
from trikv.errors import Overloaded
from trikv.replication.follower import Follower
from trikv.replication.leader import Leader
from trikv.replication.write import Write
from trikv.takeover.leadership import Leadership

if TYPE_CHECKING:
    from trikv.node.node import Node

#: A frame at most so often: an eye sees no more, and fifty wires' states are 15 KB.
FRAME_S = 0.1

#: With nothing new, one frame so often.
QUIET_S = 1.0

#: People who look at one node; each takes some 100 KB/s of a busy one.
MAX_VIEWERS = 20

#: Frames that wait for a viewer: a second and a half.
VIEWER_FRAMES = 16

#: Writes that are remembered while somebody looks.
RECENT_WRITES = 40

#: Writes in one frame.
FRAME_WRITES = 12

#: What a viewer too many is told: by then another may have left.
RETRY_AFTER_S = 5

#: A viewer's message: the kind of event, and its data as JSON.
Message = tuple[str, str]

#: Confirmed, unconfirmed and refused writes; latencies of commits, of quorums: since the start.
Counts = tuple[list[int], list[int], list[int]]


class _Seen:
    """One write, as far as it was shown."""

    def __init__(self, number: int, write: Write, began_ms: float) -> None:
        self.write = write
        key, value = write.written[0]
        self._facts = {
            "id": number,
            "version": str(write.version),
            "key": key,
            "operations": len(write.written),
            "deleted": value == "",
            "began_ms": began_ms,
        }
        self._shown: tuple[object, ...] = ()
        self.new = True
        """Whether there was no frame since it was seen."""

    @property
    def changed(self) -> bool:
        return self._shown != self._look()

    def _look(self) -> tuple[object, ...]:
        write = self.write
        # The deliveries can have ended before the last acknowledgements are counted.
        decided = write.decided.is_set()
        return (decided, write.quorum_ms, write.deliveries_in_progress, write.acks)

    def in_frame(self) -> dict[str, Any]:
        """Shown to all: it has changed again once it looks different from now."""
        self._shown = self._look()
        return self.show()

    def show(self) -> dict[str, Any]:
        trace = self.write.trace
        confirmed = self.write.confirmed_by is not None
        refused = "unconfirmed" if self.write.decided.is_set() else "pending"
        return {
            **self._facts,
            "commit_ms": _rounded(trace.commit_ms),
            "quorum_ms": _rounded(trace.quorum_ms),
            "outcome": "confirmed" if confirmed else refused,
            "ended": self.write.deliveries_in_progress == 0,
            "followers": [[_rounded(one.lag_ms), _rounded(one.ack_ms)] for one in trace.followers],
        }


class Viewer:
    """One who looks: `next` after `next`, until that is empty."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._frames: deque[str] = deque()
        self._lost = 0
        self._needs_all = True
        self._counted = feed.counted  # what it was told of: frames tell what is more
        self._news = trio.Event()
        self._ended = False

    async def next(self) -> list[Message]:
        """What is new, once there is something; [] after the end."""
        while not self._ended:
            if self._feed.stopping:
                self._ended = True
                return [("end", '{"reason":"this node is stopping"}')]
            if self._needs_all:
                lost, self._lost, self._needs_all = self._lost, 0, False
                told = [("lost", f'{{"frames":{lost}}}')] if lost else []
                state = self._feed.state(self._counted)
                self._counted = self._feed.counted
                return [*told, ("state", state)]
            if self._frames:
                frames = [("frame", frame) for frame in self._frames]
                self._frames.clear()
                self._counted = self._feed.counted
                return frames
            self._news = trio.Event()
            await self._news.wait()
        return []

    def offer(self, frame: str) -> None:
        """A frame more, or one more that it has lost. Waits for nothing."""
        if self._needs_all:
            self._lost += 1
        elif len(self._frames) < VIEWER_FRAMES:
            self._frames.append(frame)
        else:
            self._lost = len(self._frames) + 1
            self._frames.clear()
            self._needs_all = True
        self.wake()

    def wake(self) -> None:
        self._news.set()


class Feed:
    """All who look at one node."""

    def __init__(self, node: Node, now_us: Callable[[], int]) -> None:
        self._node = node
        self._now_us = now_us
        self._viewers: set[Viewer] = set()
        self._wanted = trio.Event()
        self._numbers = count(1)
        self._recent: deque[_Seen] = deque()
        self._new = 0  # writes since the last frame
        self.counted: Counts | None = None
        """What had been counted at the last frame."""
        self._last: dict[str, Any] = {}
        self._last_at = 0.0

    @property
    def stopping(self) -> bool:
        return self._node.stopping.is_set()

    def check_room(self) -> None:
        """Raises Overloaded."""
        if len(self._viewers) >= MAX_VIEWERS:
            raise Overloaded(
                f"{MAX_VIEWERS} viewers look at this node already", retry_after_s=RETRY_AFTER_S
            )

    @contextmanager
    def viewing(self) -> Iterator[Viewer]:
        """One viewer more, inside."""
        self._look()
        viewer = Viewer(self)
        self._viewers.add(viewer)
        self._wanted.set()
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)

    def wake(self) -> None:
        """Let all viewers look again: the node stops."""
        for viewer in self._viewers:
            viewer.wake()

    async def run(self) -> None:
        """Make frames while somebody looks. Runs until it is cancelled."""
        while True:
            await self._wanted.wait()
            while self._viewers:
                await trio.sleep(FRAME_S)
                self._look()
                self._tell()
            self._wanted = trio.Event()
            self._look_away()

    def _look(self) -> None:
        """See the writes of this node from now on, if it leads by now."""
        leader = self._node.leader
        if leader is not None and leader.seen is None:
            leader.seen = self._saw
            self.counted = _counts(leader)

    def _look_away(self) -> None:
        if self._node.leader is not None:
            self._node.leader.seen = None
        self._recent.clear()
        self._new = 0

    def _saw(self, write: Write) -> None:
        """The leader has committed a write."""
        if len(self._recent) >= RECENT_WRITES:
            self._recent.popleft()
        self._new += 1
        began_ms = self._now_us() / 1000 - write.elapsed_ms()
        self._recent.append(_Seen(next(self._numbers), write, began_ms))

    def state(self, counted: Counts | None) -> str:
        """All that there is to see, encoded, for one who knows of what was counted up to then."""
        writes = [seen.show() for seen in self._recent]
        news = {"writes": writes, "writes_left_out": 0} | _told(counted, self.counted)
        return _encoded(self._facts() | news)

    def _tell(self) -> None:
        """A frame for all, if there is anything new or it was quiet for long."""
        changed = [seen for seen in self._recent if seen.changed]
        shown = changed[-FRAME_WRITES:]
        left_out = self._new - sum(seen.new for seen in shown)
        self._new = 0
        for seen in self._recent:
            seen.new = False
        facts = self._facts()
        before, self.counted = self.counted, _counts(self._node.leader)
        now = trio.current_time()
        quiet = not changed and not left_out and before == self.counted
        if quiet and _lasting(facts) == self._last and now - self._last_at < QUIET_S:
            return
        self._last, self._last_at = _lasting(facts), now
        writes = [seen.in_frame() for seen in shown]
        news = {"writes": writes, "writes_left_out": left_out} | _told(before, self.counted)
        frame = _encoded(facts | news)
        for viewer in self._viewers:
            viewer.offer(frame)

    def _facts(self) -> dict[str, Any]:
        node = self._node
        waiting_for = node.waiting_for
        return {
            "at_ms": self._now_us() / 1000,
            "node": {
                "node_id": node.config.node_id,
                "url": node.url,
                "role": node.config.role,
                "software_version": __version__,
                "cluster": node.store.state.cluster or None,
                "epoch": str(node.epoch),
                "ready": not waiting_for,
                "waiting_for": waiting_for,
            },
            "leader": None if node.leadership is None else _leader(node.leadership),
            "follower": None if node.follower is None else _follower(node.follower),
        }


def _leader(leadership: Leadership) -> dict[str, Any]:
    leader = leadership.leader
    ranges = leader.lag.of
    return {
        "leads": leader.deposed is None,
        "write_quorum": leader.write_quorum,
        "pending_write_quorum": leadership.reconfiguration.pending,
        "settled": leadership.reconfiguration.settled,
        "inflight_writes": leader.inflight_writes,
        "issued_us": leader.issued_us,
        "lag": leader.lag.default._asdict(),
        "links": [
            {
                "url": link.url,
                "node_id": link.node_id,
                "state": link.state,
                "reason": link.reason,
                "lag_ms": _rounded(link.lag_ms),
                **ranges[link.url]._asdict(),
                "outbox_records": link.outbox.records,
                "outbox_bytes": link.outbox.size,
                "rate_records_s": _rounded(link.rate_records_s),
                "watermark_us": link.watermark_us,
            }
            for link in leader.links
        ],
    }


def _follower(follower: Follower) -> dict[str, Any]:
    state, leader = follower.state, follower.leader
    heard_at = follower.heard_at
    heard_ms = None if heard_at is None else round((trio.current_time() - heard_at) * 1000)
    return {
        "leader": None if leader is None else {"node_id": leader.node_id, "url": leader.url},
        "leader_heard_ms": heard_ms,
        "watermark": str(state.watermark),
        "watermark_us": state.watermark.timestamp_us,
        "established": str(state.established),
        "floor": str(state.floor),
        "records": follower.tally.records,
        "batches": follower.tally.batches,
    }


def _lasting(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts without those that time alone changes."""
    leader, follower = facts["leader"], facts["follower"]
    if leader is not None:
        passing = {"lag_ms": 0, "rate_records_s": 0}
        leader = leader | {"links": [link | passing for link in leader["links"]]}
    if follower is not None:
        follower = follower | {"leader_heard_ms": None}
    return facts | {"at_ms": 0, "leader": leader, "follower": follower}


def _counts(leader: Leader | None) -> Counts | None:
    if leader is None:
        return None
    tally = leader.tally
    confirmed = tally.outcomes[CONFIRMED]
    unconfirmed = tally.outcomes["quorum_not_met"]
    refused = sum(tally.outcomes.values()) - confirmed - unconfirmed
    return (
        [confirmed, unconfirmed, refused],
        tally.commit_ms.counts.copy(),
        tally.quorum_ms.counts.copy(),
    )


def _told(
    before: Counts | None,
    now: Counts | None,
) -> dict[str, Any]:
    """What was counted between the two; without a first one, before the node led, nothing was."""
    nothing = ([0] * 3, [0] * (len(LATENCY_MS) + 1), [0] * (len(LATENCY_MS) + 1))
    now = now or nothing
    before = before or nothing
    outcomes, commit, quorum = (
        [after - earlier for earlier, after in zip(*pair, strict=True)]
        for pair in zip(before, now, strict=True)
    )
    return {
        "counts": dict(zip(("confirmed", "unconfirmed", "refused"), outcomes, strict=True)),
        "histogram": {"bounds_ms": LATENCY_MS, "commit": commit, "quorum": quorum},
    }


def _encoded(told: dict[str, Any]) -> str:
    return msgspec.json.encode(told).decode()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
