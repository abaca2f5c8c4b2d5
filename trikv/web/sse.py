"""Server-sent events, as they are sent:
https://html.spec.whatwg.org/multipage/server-sent-events.html

Data is the text of a JSON value, which has no line breaks, so it is never split. Names and ids are ours.

Pure. The client's half is `trikv.protocol.sse`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from trikv.web.exchange import NO_STORE, Answer

#: A browser that lost a stream opens it again after this time: about as long as a node restarts.
RETRY_MS = 1000

#: The beginning of every stream. With it the head gets through whatever waits for a body, too.
OPENING = f"retry: {RETRY_MS}\n\n".encode()


def stream(events: AsyncIterator[bytes]) -> Answer:
    """The answer that sends these events, each at once: nginx would collect them, but for a header."""
    headers = {"Cache-Control": NO_STORE, "X-Accel-Buffering": "no"}
    return Answer(events, headers=headers, content_type="text/event-stream")


def event(name: str, data: str, id: str | None = None) -> bytes:
    """One event; `id` is where to resume for whoever has read up to here."""
    identity = "" if id is None else f"id: {id}\n"
    return f"event: {name}\n{identity}data: {data}\n\n".encode()
