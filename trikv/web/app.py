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
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, cast

import trio
from hypercorn.typing import ASGISendCallable, Framework, HTTPScope
from quart import Quart, Response, request
from quart.wrappers.base import BaseRequestWebsocket
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter, MapAdapter

from trikv import log
from trikv.budget import FREE_BYTES, HeldBody
from trikv.errors import (
    BadRequest,
    InvalidParameter,
    MethodNotAllowed,
    NoSuchRoute,
    RequestTimeout,
    TooLarge,
    TrikvError,
)
from trikv.node.node import Node
from trikv.protocol.json_value import clip
from trikv.web import timing
from trikv.web.exchange import Answer, Request, failure, key_of, query_of, refusal
from trikv.web.identity import HEADER, RequestIds
from trikv.web.routes import HOT, ROUTES, Route

#: A client that takes longer to send a body has left, or means harm.
BODY_TIMEOUT_S = 30.0


class _RestOfPath(BaseConverter):
    """Whatever follows, slashes and all, nothing included."""

    regex = ".*?"
    part_isolating = False


def create_app(node: Node) -> Framework:
    """The ASGI app of one node."""
    app = _App("trikv", static_folder=None)
    ids = RequestIds()
    app.asgi_http_class = partial(_Connection, ids=ids)  # type: ignore[assignment]
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
    refusals = _Refusals(node)
    app.register_error_handler(TrikvError, refusals.refuse)
    app.register_error_handler(HTTPException, refusals.refuse_http)
    app.register_error_handler(Exception, refusals.give_up)

    @app.after_request
    async def note(response: Any) -> Any:
        return _note(node, ids, response)

    return app


def _view(node: Node, route: Route):  # type: ignore[no-untyped-def]  # noqa: ANN202 - Quart's own
    most = route.max_body_bytes(node.config)
    rest_of = _rest_reader(route)

    async def view(_: str = "") -> Response:
        if (bad_id := _arrival().bad_id) is not None:
            raise bad_id
        key = rest_of(_path(request.scope["raw_path"]))
        query = query_of(request.query_string)
        with node.bodies.hold() as held:
            body = await _read_body(most, held, partial(route.check_role, node))
            return _respond(await route.handler(node, Request(key, query, _headers(), body)))

    return view


def _headers() -> dict[str, str]:
    """The present request's headers; what comes more than once is one list (RFC 9110, 5.3)."""
    found: dict[str, list[str]] = {}
    for name, value in request.headers.items():
        found.setdefault(name.lower(), []).append(value)
    return {name: ", ".join(values) for name, values in found.items()}


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
    """One request, shown to Quart with its raw path, when it came, and its id."""

    def __init__(self, app: Quart, scope: HTTPScope, ids: RequestIds) -> None:
        name = HEADER.lower().encode()
        sent = [value.decode("latin-1") for header, value in scope["headers"] if header == name]
        bad_id = ids.begin(", ".join(sent) if sent else None)
        shown = {
            **scope,
            "path": _shown_path(scope["raw_path"]),
            "trikv.arrival": _Arrival(time.perf_counter(), bool(sent), bad_id),
        }
        super().__init__(app, cast(HTTPScope, shown))

    async def _send_response(self, send: ASGISendCallable, response: Any) -> None:
        # If the client has hung up, this task is cancelled and ends here. Some versions of Quart would
        # raise an error instead, as if somebody had to know.
        await trio.lowlevel.checkpoint()
        await super()._send_response(send, response)


def _shown_path(target: bytes) -> str:
    path = _path(target).decode("ascii", "replace")
    if path.startswith("//"):  # Werkzeug drops slashes there, and //kv/a is not /kv/a
        path = f"/%2F{path[2:]}"
    elif not path.startswith(("/", "*")):  # and adds one here, and batch is not /batch
        path = f"/%2F{path}"
    return path


def _path(target: bytes) -> bytes:
    """The path in a target; one in absolute form (`http://host/path`) has it after the host."""
    if target.startswith(b"/"):
        return target
    _, absolute, after_scheme = target.partition(b"://")
    return b"/" + after_scheme.partition(b"/")[2] if absolute or not target else target


async def _read_body(most: int, held: HeldBody, check_role: Callable[[], object]) -> bytes:
    """The request's body. Raises TooLarge, RequestTimeout, Overloaded, and what `check_role` raises.

    The role is looked at before a large body is read. A small one is read first, so that its
    connection can be kept.
    """

    def check(size: int) -> None:
        if size > most:
            raise TooLarge(f"body: expected at most {most} bytes", field="body")
        if size > FREE_BYTES:
            check_role()

    check(request.content_length or 0)
    body = bytearray()
    try:
        with trio.move_on_after(BODY_TIMEOUT_S) as patience:
            async for chunk in request.body:
                check(len(body) + len(chunk))
                held.resize(len(body) + len(chunk))
                body += chunk
        if patience.cancelled_caught:
            raise RequestTimeout(f"the body was not complete after {BODY_TIMEOUT_S:g} s")
        return bytes(body)
    except Exception:
        # A client that hung up: some versions of Quart say so, beside cancelling this task.
        await trio.lowlevel.checkpoint()
        raise


def _respond(given: Answer) -> Response:
    body = given.body
    streamed = not isinstance(body, bytes)
    if streamed and request.method == "HEAD":  # a stream may have no end, and nobody would see it
        body = _nothing()
    response = Response(body, given.status, dict(given.headers), content_type=given.content_type)
    if given.status == HTTPStatus.NOT_MODIFIED:  # it speaks of an answer that the client has
        del response.headers["Content-Type"], response.headers["Content-Length"]
    if streamed:
        response.timeout = None  # it takes as long as its client takes it
    return response


async def _nothing() -> AsyncIterator[bytes]:
    """The body of an answer that is not shown."""
    for chunk in tuple[bytes]():
        yield chunk


class _Refusals:
    """Whatever goes wrong, answered with a problem document."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def refuse(self, error: TrikvError) -> Response:
        path = _path(request.scope["raw_path"]).decode("latin-1")
        return _respond(refusal(self._node, error, request.method, path, request.query_string))

    async def refuse_http(self, error: HTTPException) -> Response:
        """What Quart itself refuses, in our words."""
        method, path = request.method, request.path
        match error.code:
            case 404:
                return await self.refuse(NoSuchRoute(f"there is no {clip(path)}"))
            case 405:
                allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
                response = await self.refuse(
                    MethodNotAllowed(f"{clip(path)} takes {allowed}, not {clip(method)}")
                )
                response.headers["Allow"] = allowed
                return response
            case 413:
                return await self.refuse(TooLarge("the body is too large", field="body"))
            case 408:
                return await self.refuse(RequestTimeout("the body took too long"))
        return await self.refuse(BadRequest(error.description or "bad request"))

    async def give_up(self, error: Exception) -> Response:
        return _respond(failure(self._node, error, request.method, request.path))


class _Arrival(NamedTuple):
    """What is known of a request before anything else is."""

    began_s: float
    brought_id: bool
    bad_id: InvalidParameter | None


def _arrival() -> _Arrival:
    """The present request's."""
    arrival: _Arrival = cast(Any, request.scope)["trikv.arrival"]
    return arrival


def _note(node: Node, ids: RequestIds, response: Response) -> Response:
    """Count what is answered, and give it its id, if it is to have one."""
    began_s, brought_id, _ = _arrival()
    rule = request.url_rule  # None: no route of ours; what it names is then nobody's business
    method, path = ("other", "other") if rule is None else rule.endpoint.split(" ")
    node.tally.answered(method, path, response.status_code, time.perf_counter() - began_s)
    of_no_use = path in HOT and response.status_code < 400 and timing.HEADER not in response.headers
    if brought_id or ids.everywhere or not of_no_use:
        response.headers[HEADER] = log.request_id.get()
    return response
