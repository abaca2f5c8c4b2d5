"""The table of all routes: method, path, handler, and how large a body may be.

`{key}` stands for the rest of the path, decoded and checked as a key; `{file}` for the rest as it is.
The server binds this table, the in-memory network of the tests looks paths up in it, and the
documentation is tested against it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from trikv.config import Config
from trikv.model.record import MAX_KEY_BYTES
from trikv.node.node import Node
from trikv.protocol.messages import MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, MAX_REPLICATE_BODY_BYTES
from trikv.web import admin, events, kv, manual, pages, peer, telemetry, watch
from trikv.web.exchange import Handler


def _no_body(config: Config) -> int:
    return 64 * 2**10  # none is read; a client that sends a small one is not troubled


def _small_body(config: Config) -> int:
    return 64 * 2**10


def _value_body(config: Config) -> int:
    """One value, at most six times as long with every character escaped, and the frame around it."""
    return 6 * config.max_value_bytes + 1024


def _batch_body(config: Config) -> int:
    """Operations, as long as they may be, and the frame around each."""
    content = max(MAX_BATCH_BYTES, config.max_value_bytes + MAX_KEY_BYTES)
    return 6 * content + MAX_BATCH_OPERATIONS * 256


def _replicate_body(config: Config) -> int:
    return MAX_REPLICATE_BODY_BYTES


def _any_node(node: Node) -> None:
    """Every node does it."""


class Route(NamedTuple):
    method: str
    path: str
    handler: Handler
    max_body_bytes: Callable[[Config], int] = _no_body
    check_role: Callable[[Node], object] = _any_node
    """Raises the error of a node that does not do this; called before a large body is read."""


#: The paths that are asked all the time.
HOT = ("/kv/{key}", "/batch", "/replicate")

#: The paths whose answers come soon and in one piece: with the hot ones, those of the fast lane. Clients
#: ask them on the connections that they write and read on.
SHORT = (
    *("/kv", "/health"),
    *("/admin/quorum", "/admin/lag", "/admin/partition", "/admin/admit"),
)

ROUTES: tuple[Route, ...] = (
    Route("PUT", "/kv/{key}", kv.put_key, _value_body, Node.require_leader),
    Route("GET", "/kv/{key}", kv.get_key),
    Route("DELETE", "/kv/{key}", kv.delete_key),
    Route("GET", "/kv", kv.list_keys),
    Route("POST", "/batch", kv.batch, _batch_body, Node.require_leader),
    Route("GET", "/dump", kv.dump),
    Route("GET", "/watch", watch.watch),
    Route("POST", "/replicate", peer.replicate, _replicate_body, Node.require_follower),
    Route("GET", "/replica", peer.replica),
    Route("GET", "/replica/records", peer.replica_records),
    Route("POST", "/replica/promise", peer.promise, _small_body),
    Route("GET", "/health", admin.health),
    Route("GET", "/metrics", telemetry.metrics),
    Route("POST", "/admin/quorum", admin.set_quorum, _small_body),
    Route("GET", "/admin/replica-status", admin.replica_status),
    Route("POST", "/admin/lag", admin.set_lag, _small_body),
    Route("POST", "/admin/partition", admin.partition, _small_body),
    Route("POST", "/admin/admit", admin.admit, _small_body),
    Route("GET", "/events", events.events),
    Route("GET", "/", pages.root),
    Route("GET", "/ui", pages.page),
    Route("GET", "/ui/{file}", pages.page_file),
    Route("GET", "/openapi.json", manual.openapi),
    Route("GET", "/docs", manual.docs),
)
