"""What machines ask in order to watch a node."""

from __future__ import annotations

from trikv.node.node import Node
from trikv.observe.metrics import expose
from trikv.web.exchange import NO_STORE, Answer, Request, parameters


async def metrics(node: Node, request: Request) -> Answer:
    """`GET /metrics`: in the text format of Prometheus, or in OpenMetrics if `Accept` asks for it."""
    parameters(request)
    body, content_type = await expose(node, request.headers.get("accept", ""))
    return Answer(body, headers={"Cache-Control": NO_STORE}, content_type=content_type)
