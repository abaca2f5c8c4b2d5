"""What a node tells Prometheus: its state as it is at a scrape, and what its tallies have counted.

Rules
- Nothing is done between scrapes: a gauge is read off the node when it is asked for.
- The names of series are bounded: a follower is named by its URL as it is configured at the leader, so
  that one that comes back under another name is no new series; routes, codes, states and outcomes by
  what is written in the code. Keys and values are nobody's label.
- Base units: seconds and bytes. What is not known is left out, not told as 0.
- A scrape does not hold up the event loop for all its work at once: others get their turn between
  families.

docs/metrics.md says what each one means; the tests hold the two against each other.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

import apsw
import trio
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from trikv import __version__, log
from trikv.counters import Histogram
from trikv.node.node import Node
from trikv.replication.link import Link, LinkState
from trikv.takeover.leadership import Leadership

#: What a scraper may ask for, by name and version; anything else is answered with the plain text format.
_FORMATS = {
    "application/openmetrics-text": ("", "0.0.1", "1.0.0"),
    "text/plain": ("", "0.0.4", "1.0.0"),
}

_END = b"# EOF\n"


async def expose(node: Node, accept: str) -> tuple[bytes, str]:
    """All metrics of a node, in the format that is asked for, and its content type."""
    await node.survey.ask()
    encode, content_type = choose_encoder(_known(accept))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_NodeCollector(node))
    ProcessCollector(registry=registry)
    parts = []
    for family in registry.collect():
        parts.append(encode(_One(family)).removesuffix(_END))
        await trio.lowlevel.checkpoint()
    if content_type.startswith("application/openmetrics-text"):
        parts.append(_END)
    return b"".join(parts), content_type


def _known(accept: str) -> str:
    """What of an Accept header names a format that is known here."""
    kept = []
    for wanted in accept.split(","):
        name, *parameters = (part.strip() for part in wanted.split(";"))
        pairs = [parameter.partition("=") for parameter in parameters]
        version = next((value for name, _, value in pairs if name == "version"), "")
        if version in _FORMATS.get(name, ()):
            kept.append(f"{name};version={version}" if version else name)
    return ",".join(kept)


class _One(Collector):
    """One family alone."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return [self._family]


class _NodeCollector(Collector):
    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        node = self._node
        yield from _node(node)
        yield from _commits(node)
        yield from _store(node)
        if node.leadership is not None:
            yield from _writes(node.leadership)
            yield from _links(node.leadership)
        if node.follower is not None:
            yield from _follower(node)
        yield from _requests(node)


def _node(node: Node) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "trikv_build",
        "What runs here.",
        value={
            "version": __version__,
            "python_version": platform.python_version(),
            "sqlite_version": apsw.sqlite_lib_version(),
        },
    )
    config, state = node.config, node.store.state
    yield InfoMetricFamily(
        "trikv_node",
        "How this node was started, and the cluster that it belongs to.",
        value={
            "node_id": config.node_id,
            "role": config.role,
            "durability": config.durability,
            "cluster": state.cluster,
        },
    )
    yield _gauge("trikv_ready", "Whether the node can do its work.", not node.waiting_for)
    leads = node.leader is not None and node.leader.deposed is None
    yield _gauge("trikv_leads", "Whether it leads: one node of a cluster does.", leads)
    yield _gauge(
        "trikv_promised_epoch", "The number of the epoch that it has promised.", node.epoch.number
    )
    watermark_us = state.watermark.timestamp_us
    if node.leader is not None:
        watermark_us = node.leader.resolved_us
    elif node.follower is not None:
        watermark_us = node.follower.state.watermark.timestamp_us
    yield _gauge(
        "trikv_watermark_timestamp_seconds",
        "The version up to which it holds all that was written, as a time since 1970.",
        watermark_us / 1e6,
    )
    yield _gauge(
        "trikv_floor_timestamp_seconds",
        "The version up to which all members hold all, as a time since 1970.",
        state.floor.timestamp_us / 1e6,
    )
    yield _histogram(
        "trikv_event_loop_delay_seconds",
        "How much later than it asked for a task came to its turn.",
        node.loop_delay.delays_s,
    )
    yield CounterMetricFamily(
        "trikv_log_lines_lost",
        "Log lines that were not written, as standard error was not read.",
        value=log.lost_lines(),
    )
    yield _gauge(
        "trikv_event_loop_delay_max_seconds",
        "The longest such delay of the last 30 to 60 seconds.",
        node.loop_delay.largest_s,
    )


def _commits(node: Node) -> Iterator[Metric]:
    tally = node.committer.tally
    yield _histogram(
        "trikv_group_commit_seconds",
        "How long a transaction took, its fsync included.",
        tally.took_s,
    )
    yield _histogram(
        "trikv_group_commit_changes",
        "Changes that were committed in one transaction.",
        tally.changes,
    )
    yield CounterMetricFamily(
        "trikv_commit_failures", "Changes that the disk refused.", value=tally.failures
    )
    yield _gauge(
        "trikv_commits_failing",
        "Whether a commit failed, and none has succeeded since.",
        node.disk.problem is not None,
    )


def _store(node: Node) -> Iterator[Metric]:
    survey = node.survey
    if survey.records is not None:
        yield _gauge(
            "trikv_store_records",
            "Records in the map, tombstones included, when they were last counted.",
            survey.records,
        )
        yield _gauge(
            "trikv_store_tombstones",
            "Tombstones among them.",
            survey.tombstones,
        )
        yield _gauge(
            "trikv_store_count_age_seconds", "How long ago they were counted.", survey.count_age_s
        )
    if survey.file_bytes:
        files = GaugeMetricFamily(
            "trikv_store_file_bytes", "The size of a file of the store.", labels=["file"]
        )
        for name, size in survey.file_bytes.items():
            files.add_metric([name], size)
        yield files
    if survey.free_bytes is not None:
        yield _gauge(
            "trikv_store_free_bytes", "What is free on the store's disk.", survey.free_bytes
        )


def _writes(leadership: Leadership) -> Iterator[Metric]:
    leader, change = leadership.leader, leadership.reconfiguration
    tally = leader.tally
    writes = CounterMetricFamily(
        "trikv_writes",
        "Writes that came to the leader, by what became of them.",
        labels=["outcome"],
    )
    for outcome, count in tally.outcomes.items():
        writes.add_metric([outcome], count)
    yield writes
    operations = CounterMetricFamily(
        "trikv_operations", "Operations of writes that were confirmed.", labels=["op"]
    )
    for op, count in tally.operations.items():
        operations.add_metric([op], count)
    yield operations
    yield _histogram(
        "trikv_write_commit_seconds",
        "From the begin of a write to its commit at the leader.",
        tally.commit_ms,
        per_second=1000,
    )
    yield _histogram(
        "trikv_write_quorum_seconds",
        "From the begin of a write to the moment when it was confirmed.",
        tally.quorum_ms,
        per_second=1000,
    )
    yield _gauge(
        "trikv_writes_in_flight", "Writes whose outcome is not known yet.", leader.inflight_writes
    )
    yield _gauge("trikv_write_quorum", "The write quorum in force.", leader.write_quorum)
    pending = leader.write_quorum if change.pending is None else change.pending
    yield _gauge(
        "trikv_pending_write_quorum",
        "The write quorum that was asked for last: another one than in force while that is pending.",
        pending,
    )
    yield _gauge(
        "trikv_configuration_settled",
        "Whether the last change of the quorum or of the members is over.",
        change.settled,
    )
    yield _gauge("trikv_followers", "Followers that are configured.", len(leader.links))
    yield _gauge("trikv_live_links", "Followers whose acknowledgements count.", leader.live_links)


def _links(leadership: Leadership) -> Iterator[Metric]:
    leader = leadership.leader
    links = leader.links
    infos = InfoMetricFamily(
        "trikv_link", "Which node answers at a follower's URL.", labels=["follower"]
    )
    states = GaugeMetricFamily(
        "trikv_link_state", "1 for the state that the link is in.", labels=["follower", "state"]
    )
    simulated = GaugeMetricFamily(
        "trikv_simulated_lag_seconds",
        "The range from which the simulated lag of a record is drawn.",
        labels=["follower", "bound"],
    )
    for link in links:
        infos.add_metric([link.url], {"node_id": link.node_id or ""})
        for state in LinkState:
            states.add_metric([link.url, state], link.state is state)
        lag = leader.lag.of[link.url]
        simulated.add_metric([link.url, "min"], lag.min_delay_ms / 1000)
        simulated.add_metric([link.url, "max"], lag.max_delay_ms / 1000)
    yield from (infos, states, simulated)
    yield _of_links(
        "trikv_link_lag_seconds",
        "How long the oldest record on its way has been on it, or how long the link is not live.",
        links,
        lambda link: link.lag_ms / 1000,
    )
    yield _of_links(
        "trikv_link_watermark_lag_seconds",
        "How far the follower's watermark is behind the leader's, in the time of versions.",
        [link for link in links if link.watermark_us is not None],
        lambda link: max(leader.resolved_us - (link.watermark_us or 0), 0) / 1e6,
    )
    yield _of_links(
        "trikv_link_outbox_records",
        "Records on their way.",
        links,
        lambda link: link.outbox.records,
    )
    yield _of_links(
        "trikv_link_outbox_bytes", "Bytes of them.", links, lambda link: link.outbox.size
    )
    for name, text, count in _LINK_COUNTS:
        counter = CounterMetricFamily(name, text, labels=["follower"])
        for link in links:
            counter.add_metric([link.url], count(link))
        yield counter
    for name, text, histogram, per_second in _LINK_HISTOGRAMS:
        family = HistogramMetricFamily(name, text, labels=["follower"])
        for link in links:
            _add(family, [link.url], histogram(link), per_second)
        yield family


_LINK_COUNTS: Sequence[tuple[str, str, Callable[[Link], int]]] = (
    (
        "trikv_link_requests",
        "Requests to the follower, heartbeats included.",
        lambda link: link.rounds_begun,
    ),
    ("trikv_link_downs", "How often the link went down.", lambda link: link.tally.downs),
)

_LINK_HISTOGRAMS: Sequence[tuple[str, str, Callable[[Link], Histogram], float]] = (
    (
        "trikv_link_ack_seconds",
        "From the begin of a write to this follower's acknowledgement, simulated lag included.",
        lambda link: link.tally.ack_ms,
        1000,
    ),
    (
        "trikv_link_request_seconds",
        "From a request to its answer, simulated lag not included.",
        lambda link: link.tally.request_s,
        1,
    ),
    (
        "trikv_link_batch_records",
        "Records in a request, heartbeats left out.",
        lambda link: link.tally.batch_records,
        1,
    ),
    (
        "trikv_link_batch_bytes",
        "Bytes in a request, heartbeats left out.",
        lambda link: link.tally.batch_bytes,
        1,
    ),
)


def _follower(node: Node) -> Iterator[Metric]:
    follower = node.require_follower()
    tally = follower.tally
    yield CounterMetricFamily(
        "trikv_merged_records", "Records that the leader sent.", value=tally.records
    )
    yield CounterMetricFamily(
        "trikv_merged_batches", "Requests in which they came.", value=tally.batches
    )
    yield CounterMetricFamily(
        "trikv_heartbeats", "Requests of the leader without records.", value=tally.heartbeats
    )
    if follower.heard_at is not None:
        yield _gauge(
            "trikv_leader_heard_age_seconds",
            "How long ago the leader was last heard.",
            trio.current_time() - follower.heard_at,
        )


def _requests(node: Node) -> Iterator[Metric]:
    tally = node.tally
    requests = CounterMetricFamily(
        "trikv_http_requests",
        "Requests that were answered.",
        labels=["method", "route", "status"],
    )
    took = HistogramMetricFamily(
        "trikv_http_request_seconds",
        "From a request to its answer, or to the begin of one that is streamed.",
        labels=["method", "route"],
    )
    for (method, path), route in tally.routes.items():
        for first_digit, count in enumerate(route.classes):
            if count:
                requests.add_metric([method, path, f"{first_digit}xx"], count)
        _add(took, [method, path], route.took_s)
    yield from (requests, took)
    problems = CounterMetricFamily(
        "trikv_http_problems", "Answers that were problem documents.", labels=["code"]
    )
    for code, count in tally.problems.items():
        problems.add_metric([code], count)
    yield problems
    connections = GaugeMetricFamily(
        "trikv_http_connections", "Open connections, by lane.", labels=["lane"]
    )
    for lane, count in tally.connections.items():
        connections.add_metric([lane], count)
    yield connections
    yield _gauge(
        "trikv_http_body_bytes",
        "Bodies of requests in memory, beyond 64 KiB of each.",
        node.bodies.held_bytes,
    )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _of_links(
    name: str, text: str, links: Sequence[Link], value: Callable[[Link], float]
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["follower"])
    for link in links:
        family.add_metric([link.url], value(link))
    return family


def _histogram(name: str, text: str, histogram: Histogram, per_second: float = 1) -> Metric:
    family = HistogramMetricFamily(name, text, labels=[])
    _add(family, [], histogram, per_second)
    return family


def _add(
    family: HistogramMetricFamily, labels: list[str], histogram: Histogram, per_second: float = 1
) -> None:
    """Add what a histogram has counted, in units of which so many are one of the family's."""
    bounds = [str(float(bound / per_second)) for bound in histogram.bounds]
    counts = list(accumulate(histogram.counts))
    buckets = list(zip([*bounds, "+Inf"], counts, strict=True))
    family.add_metric(labels, buckets, histogram.total / per_second)
