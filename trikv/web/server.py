"""The listening socket, and on each connection the fast lane, then Hypercorn's protocol.

Rules
- A connection begins in the fast lane (see `fastlane`), unless that is turned off, and goes on with
  Hypercorn at the first request that is not plain.
- The socket is bound before anything else of the node is opened: a port in use is a setting to mend, and
  a node that cannot be reached must not begin an epoch.
- What goes wrong on a connection ends that connection and nothing else.
- A stop accepts no more, ends streams and idle connections at once, lets requests in flight finish
  within `GRACE_S`, then cuts the rest.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast
from urllib.parse import unquote

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    ConnectionState,
    Framework,
    Scope,
)
from hypercorn.utils import parse_socket_addr, wrap_app

from trikv import log
from trikv.config import Config
from trikv.errors import SettingError
from trikv.network.socket_stream import ByteStream
from trikv.node.node import Node
from trikv.web.app import create_app
from trikv.web.exchange import Answer
from trikv.web.fastlane import AccessLog, FastLane
from trikv.web.http11 import Connection, PatientStream
from trikv.web.listener import Doorkeeper, max_connections
from trikv.web.plain import MAX_HEAD_BYTES, Head

#: Requests in flight at a stop get this long; with `DRAIN_S` still below the engines' 10 s.
GRACE_S = 4.0

#: Connections that wait to be accepted: a burst of clients, not a crowd.
BACKLOG = 1024

#: Where the system is to choose a port that is free at several addresses, so many are tried.
PORT_TRIES = 20

#: How long a connection may be idle: longer than nginx and load balancers keep one (60 s), and our own
#: clients (30 s), so that whoever uses one again does not race its closing here.
KEEPALIVE_S = 90


async def listen(config: Config) -> tuple[list[trio.SocketListener], int]:
    """Listeners on HOST and PORT, and the port (which the system chose if PORT is 0).

    Raises SettingError, which names the variable, if the address cannot be had.
    """
    try:
        listeners = await _open_listeners(config)
    except OSError as error:
        if error.errno == errno.EADDRINUSE or isinstance(error, PermissionError):
            why = "is in use" if error.errno == errno.EADDRINUSE else "is not ours to listen on"
            raise SettingError(
                f"PORT='{config.port}': expected a free port, but {config.host}:{config.port} {why}"
            ) from None
        raise SettingError(
            f"HOST={config.host!r}: expected a host name or an address of this machine: {error}"
        ) from None
    return listeners, _port_of(listeners[0])


async def _open_listeners(config: Config) -> list[trio.SocketListener]:
    """One for each address that the host has, all on one port. Raises OSError."""
    open_tcp = partial(trio.open_tcp_listeners, host=config.host, backlog=BACKLOG)
    listeners = await open_tcp(config.port)
    tries = 0
    while len({_port_of(one) for one in listeners}) > 1:
        # Each was given a free port of its own. That of the first may be free for the others, too.
        port = _port_of(listeners[0])
        for listener in listeners:
            await listener.aclose()
        tries += 1
        try:
            listeners = await open_tcp(port)
        except OSError:
            if tries == PORT_TRIES:
                raise
            listeners = await open_tcp(0)
    return listeners


def _port_of(listener: trio.SocketListener) -> int:
    return cast(int, listener.socket.getsockname()[1])


async def serve(
    node: Node,
    listeners: list[trio.SocketListener],
    stopped: Callable[[], Awaitable[object]],
    *,
    measure_delay: bool = False,
) -> None:
    """Serve the node until `stopped` returns, then end in order.

    `measure_delay`: how late tasks come to their turn, which takes a wake-up every now and then, and
    makes no sense in simulated time.
    """
    config = _hypercorn_config()
    wrapped = wrap_app(_sends_are_whole(create_app(node)), config.wsgi_max_body_size, "asgi")
    context = WorkerContext(None)
    lane = FastLane(node, keepalive_s=config.keep_alive_timeout, access_log=_access_log(config))
    streams: set[trio.SocketStream] = set()
    open_in = node.tally.connections

    async def connection(stream: trio.SocketStream) -> None:
        unread: bytes | None = b""
        try:
            if node.config.fast_lane:
                quick = ByteStream.take(stream)
                open_in["fast"] += 1
                try:
                    unread = await lane.run(quick)
                finally:
                    open_in["fast"] -= 1
                    stream = quick.give()
            if unread is not None:
                patient = PatientStream(stream)
                server = Connection(wrapped, config, context, ConnectionState({}), patient)  # type: ignore[arg-type]
                server.unread, unread = unread, b""
                streams.add(stream)
                open_in["hypercorn"] += 1
                try:
                    await server.run()
                finally:
                    open_in["hypercorn"] -= 1
        except* Exception as errors:
            log.event(logging.DEBUG, "connection.failed", error=repr(errors.exceptions[0]))
        finally:
            streams.discard(stream)
            await trio.aclose_forcefully(stream)

    door = Doorkeeper(max_connections(len(node.config.follower_urls)), connection, lane.close_idle)

    async def cut(connections: trio.Nursery) -> None:
        """What is not done within the grace has had its chance."""
        await trio.sleep(GRACE_S)
        connections.cancel_scope.cancel()
        for stream in streams:  # Hypercorn shields its sends: only a closed socket ends them
            stream.socket.close()

    async with trio.open_nursery() as stopping:
        stopping.start_soon(lane.look_after)
        if measure_delay:
            stopping.start_soon(node.loop_delay.run)
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(door.run, listener, connections)
                await stopped()
                node.begin_stop()
                accepting.cancel_scope.cancel()
            await context.terminated.set()
            lane.end()
            stopping.start_soon(cut, connections)
        stopping.cancel_scope.cancel()


def _hypercorn_config() -> HypercornConfig:
    config = HypercornConfig()
    config.keep_alive_timeout = KEEPALIVE_S
    config.keep_alive_max_requests = 2**31  # closing under a busy client gains nothing
    config.h11_max_incomplete_size = MAX_HEAD_BYTES
    config.include_server_header = False
    config.errorlog = logging.getLogger("trikv.http")
    config.accesslog = config.errorlog if log.logger.isEnabledFor(logging.DEBUG) else None
    return config


def _access_log(config: HypercornConfig) -> AccessLog | None:
    """Hypercorn's, with what it has to know of a request; None if there is none."""
    log = config.log
    logger = log.access_logger
    if logger is None:
        return None

    def note(stream: ByteStream, head: Head, answer: Answer, took_s: float) -> None:
        length = str(len(answer.body)).encode() if isinstance(answer.body, bytes) else b"-"
        request = {
            "type": "http",
            "http_version": "1.1",
            "method": head.method,
            "scheme": "http",
            "path": unquote(head.path.decode("ascii")),
            "query_string": head.query_string,
            "headers": [(name.encode(), value.encode()) for name, value in head.headers.items()],
            "client": parse_socket_addr(stream.socket.family, stream.socket.getpeername()),
        }
        response = {"status": answer.status, "headers": [(b"content-length", length)]}
        logger.info(log.access_log_format, log.atoms(request, response, took_s))  # type: ignore[arg-type]

    return note


def _sends_are_whole(app: Framework) -> ASGIFramework:
    """Let each send end, whatever becomes of the task that sends.

    Quart-Trio cancels a request's tasks once its answer is complete, which happens inside the last
    send: without a shield Hypercorn would not come to closing or recycling the connection.
    """

    async def shielded(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def send_whole(message: ASGISendEvent) -> None:
            # No deadline here, where Hypercorn's own shield would hide it: `_Stream` has one.
            with trio.CancelScope(shield=True):
                await send(message)

        await cast(ASGIFramework, app)(scope, receive, send_whole)

    return shielded
