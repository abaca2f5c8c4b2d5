"""The Quart-Trio app: binds the table of routes to its handlers.

Rules
- Quart finds the route, reads the body and notices a client that leaves; a handler does the rest.
- Routes and keys are found in the raw path: Quart's own view of a path is decoded, and would bend them.
- A body is read within its route's bound and a deadline; what is refused is refused before it is read
  in full.
- Whatever goes wrong is answered with a problem document. An error that nobody foresaw is a bug: it is
  logged with its traceback and answered with 500, and the node goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import trio
from hypercorn.typing import ASGISendCallable, Framework, HTTPScope
from quart import Quart, Response, request
from quart.wrappers.base import BaseRequestWebsocket
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter, MapAdapter

from trikv.errors import (
    BadRequest,
    MethodNotAllowed,
    NoSuchRoute,
    RequestTimeout,
    TooLarge,
    TrikvError,
)
from trikv.jsonvalue import clip
from trikv.node import Node
from trikv.web.exchange import Answer, Request, failure, key_of, problem, query_of
from trikv.web.routes import ROUTES, Route

#: A client that takes longer to send a body has left, or means harm.
BODY_TIMEOUT_S = 30.0


class _RestOfPath(BaseConverter):
    """Whatever follows, slashes and all, nothing included."""

    regex = ".*?"
    part_isolating = False


def create_app(node: Node) -> Framework:
    """The ASGI app of one node."""
    app = _App("trikv", static_folder=None)
    app.asgi_http_class = _Connection
    app.config["MAX_CONTENT_LENGTH"] = max(r.max_body_bytes(node.config) for r in ROUTES)
    app.url_map.merge_slashes = False  # /kv//a and /kv/a are two keys
    app.url_map.converters["rest"] = _RestOfPath
    for route in ROUTES:
        rule = re.sub(r"\{\w+\}$", "<rest:_>", route.path)
        app.add_url_rule(
            rule,
            f"{route.method} {route.path}",
            _view(node, route),
            methods=[route.method],
            provide_automatic_options=False,
        )
    app.register_error_handler(TrikvError, _refuse)
    app.register_error_handler(HTTPException, _refuse_http)
    app.register_error_handler(Exception, _give_up)
    return app


def _view(node: Node, route: Route):  # type: ignore[no-untyped-def]  # noqa: ANN202 - Quart's own
    most = route.max_body_bytes(node.config)
    rest_of = _rest_reader(route)

    async def view(_: str = "") -> Response:
        given = Request(
            key=rest_of(_path(request.scope["raw_path"])),
            query=query_of(request.query_string),
            headers={
                name.lower(): ", ".join(request.headers.getlist(name))
                for name in set(request.headers.keys())
            },
            body=await _read_body(most),
        )
        return _respond(await route.handler(node, given))

    return view


def _rest_reader(route: Route) -> Callable[[bytes], str]:
    """What takes from a raw path the key, or the file, that the route's path ends with."""
    if route.path.endswith("{key}"):
        return partial(key_of, prefix=route.path.removesuffix("{key}").encode())
    if route.path.endswith("{file}"):
        prefix = route.path.removesuffix("{file}").encode()
        return lambda path: path.removeprefix(prefix).decode("ascii", "replace")
    return lambda path: ""


class _App(QuartTrio):
    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """What finds a request's route: by method and path, whatever host the client names."""
        if request is None:
            return super().create_url_adapter(None)
        return self.url_map.bind(
            "trikv",
            url_scheme=request.scheme,
            default_method=request.method,
            path_info=request.path,
        )


class _Connection(TrioASGIHTTPConnection):
    """One request, shown to Quart with its raw path."""

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        super().__init__(app, {**scope, "path": _shown_path(scope["raw_path"])})

    async def _send_response(self, send: ASGISendCallable, response: Any) -> None:
        # If the client has hung up, this task is cancelled and ends here. Some versions of Quart would
        # raise an error instead, as if somebody had to know.
        await trio.lowlevel.checkpoint()
        await super()._send_response(send, response)


def _shown_path(target: bytes) -> str:
    path = _path(target).decode("ascii", "replace")
    if path.startswith("//"):  # Werkzeug drops slashes there, and //kv/a is not /kv/a
        path = f"/%2F{path[2:]}"
    return path


def _path(target: bytes) -> bytes:
    """The path in a target; one in absolute form (`http://host/path`) has it after the host."""
    if target.startswith(b"/"):
        return target
    _, _, after_scheme = target.partition(b"://")
    return b"/" + after_scheme.partition(b"/")[2]


async def _read_body(most: int) -> bytes:
    """The request's body. Raises TooLarge, RequestTimeout."""
    refusal = TooLarge(f"body: expected at most {most} bytes", field="body")
    if (request.content_length or 0) > most:
        raise refusal
    body = bytearray()
    with trio.move_on_after(BODY_TIMEOUT_S) as patience:
        try:
            async for chunk in request.body:
                body += chunk
                if len(body) > most:
                    raise refusal
        except Exception:
            # A client that hung up: some versions of Quart say so, beside cancelling this task.
            await trio.lowlevel.checkpoint()
            raise
    if patience.cancelled_caught:
        raise RequestTimeout(f"the body was not complete after {BODY_TIMEOUT_S:g} s")
    return bytes(body)


def _respond(given: Answer) -> Response:
    return Response(given.body, given.status, dict(given.headers), content_type=given.content_type)


async def _refuse(error: TrikvError) -> Response:
    return _respond(problem(error))


async def _refuse_http(error: HTTPException) -> Response:
    """What Quart itself refuses, in our words."""
    method, path = request.method, request.path
    refusal: TrikvError
    match error.code:
        case 404:
            refusal = NoSuchRoute(f"there is no {clip(path)}")
        case 405:
            allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
            refusal = MethodNotAllowed(f"{clip(path)} takes {allowed}, not {clip(method)}")
            response = _respond(problem(refusal))
            response.headers["Allow"] = allowed
            return response
        case 413:
            refusal = TooLarge("the body is too large", field="body")
        case 408:
            refusal = RequestTimeout("the body took too long")
        case _:
            refusal = BadRequest(error.description or "bad request")
    return _respond(problem(refusal))


async def _give_up(error: Exception) -> Response:
    return _respond(failure(error, request.method, request.path))
