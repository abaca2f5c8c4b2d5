"""`GET /events`: what happens at a node, as server-sent events for those who look at it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from trikv.errors import Overloaded
from trikv.node.node import Node
from trikv.protocol.json_value import encode
from trikv.web import sse
from trikv.web.exchange import Answer, Request, parameters


async def events(node: Node, request: Request) -> Answer:
    """`GET /events`: the state, then frames (see `trikv.observe.dashboard_feed`)."""
    parameters(request)
    node.feed.check_room()
    return sse.stream(_events(node))


async def _events(node: Node) -> AsyncIterator[bytes]:
    try:  # others may have come since it was looked
        node.feed.check_room()
    except Overloaded as error:
        yield sse.event("end", encode({"reason": error.detail}, "event"))
        return
    with node.feed.viewing() as viewer:
        yield sse.OPENING
        while messages := await viewer.next():
            yield b"".join(sse.event(name, data) for name, data in messages)
