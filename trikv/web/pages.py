"""The dashboard's files, `GET /ui`, to which `GET /` leads: a page that a browser draws, and no
more than its files.

Rules
- The files are read once, when this module is: a fixed table from name to content. What a request names
  is looked up there and never becomes a path.
- The page needs nothing but its node: the policy it is sent with lets a browser load and ask nothing
  else, and run no script that is not one of these files.
- A browser asks each time whether a file is still the same (`ETag`, 304), so that a page never mixes the
  files of two versions of trikv.

It knows nothing of what the page shows: that comes by `GET /events`, and what the page changes goes
through the same routes as from anybody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from trikv.errors import NoSuchRoute
from trikv.node.node import Node
from trikv.protocol.json_value import clip
from trikv.web.exchange import NO_CACHE, Answer, Request, parameters, unless_held

_INDEX = "index.html"

_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"


def _read_files() -> Mapping[str, Answer]:
    """Every file of the page, as it is answered."""
    files = {}
    for path in sorted((Path(__file__).parent / "ui").iterdir()):
        if (content_type := _CONTENT_TYPES.get(path.suffix)) is not None:
            content = path.read_bytes()
            headers = {
                "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
                "Cache-Control": NO_CACHE,
                "Content-Security-Policy": _POLICY,
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
            }
            files[path.name] = Answer(content, 200, headers, content_type)
    return files


FILES = _read_files()


async def root(node: Node, request: Request) -> Answer:
    """`GET /`: to the dashboard. Relative, as the node may be known elsewhere by another path."""
    parameters(request)
    return Answer(
        b"", 307, {"Location": "ui", "Cache-Control": "no-store"}, "text/plain; charset=utf-8"
    )


async def page(node: Node, request: Request) -> Answer:
    """`GET /ui`: the dashboard of this node."""
    return _file(_INDEX, request)


async def page_file(node: Node, request: Request) -> Answer:
    """`GET /ui/{file}`: what the page is made of."""
    return _file(request.key, request)


def _file(name: str, request: Request) -> Answer:
    parameters(request)
    if name not in FILES:
        raise NoSuchRoute(f"there is no {clip(f'/ui/{name}')}")
    return unless_held(request, FILES[name])
