"""Server-sent events, as they are sent:
https://html.spec.whatwg.org/multipage/server-sent-events.html

Data is the text of a JSON value, which has no line breaks, so it is never split. Names and ids are ours.

Pure. The client's half is `trikv.client.sse`.
"""

from __future__ import annotations


def event(name: str, data: str, id: str | None = None) -> bytes:
    """One event; `id` is where to resume for whoever has read up to here."""
    identity = "" if id is None else f"id: {id}\n"
    return f"event: {name}\n{identity}data: {data}\n\n".encode()
