"""The API for those who have not read the code: `/openapi.json` for programs, `/docs` for people.

The page is made from the document, once, without a script, and asks for nothing outside: its style is in
it, and the only one that its `Content-Security-Policy` lets in.
"""

from __future__ import annotations

import json
from base64 import b64encode
from functools import cache
from hashlib import blake2b, sha256
from html import escape
from typing import Any

from trikv.node.node import Node
from trikv.web.described import DESCRIBED, TAGS, Described
from trikv.web.exchange import NO_CACHE, PROBLEM_JSON, Answer, Request, parameters, unless_held
from trikv.web.openapi import document, encoded
from trikv.web.schemas import Schema

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --paper: #fff; --panel: #f4f6f8;
  --line: #d5dbe1; --accent: #0b5cad; --get: #0b6e4f; --put: #8a4b00;
  --delete: #a4262c; --post: #5b3fa0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa5b1; --paper: #14181d;
  --panel: #1d232a; --line: #343c46; --accent: #7db8f7; --get: #5fd0a5; --put: #f0b061;
  --delete: #f58e92; --post: #bda6f5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 60rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
a { color: var(--accent); }
h1 { margin: 0; } h2 { margin: 3rem 0 1rem; border-bottom: 1px solid var(--line); }
h3 { margin: 0; font-size: 1.05rem; overflow-wrap: anywhere; }
code, pre { font: .9em/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { margin: .75rem 0; padding: .6rem .8rem; background: var(--panel); border-radius: .3rem;
  white-space: pre-wrap; }
nav ul { columns: 18rem; padding: 0; list-style: none; } nav li { break-inside: avoid; }
section.route { margin: 1rem 0; padding: 1rem; border: 1px solid var(--line); border-radius: .5rem; }
.method { display: inline-block; min-width: 4.2em; font-weight: 700; }
.GET { color: var(--get); } .PUT { color: var(--put); }
.DELETE { color: var(--delete); } .POST { color: var(--post); }
dl { display: grid; grid-template-columns: minmax(8rem, auto) 1fr; gap: .25rem 1rem; margin: .5rem 0; }
dt, dd { margin: 0; overflow-wrap: anywhere; }
h4 { margin: 1rem 0 .25rem; color: var(--soft); font-size: .9rem; }
.soft { color: var(--soft); }
.shape { margin: 1.5rem 0; } .shape p { margin: .25rem 0; }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin: 0 0 .5rem; } }
"""


async def openapi(node: Node, request: Request) -> Answer:
    """`GET /openapi.json`"""
    parameters(request)
    return unless_held(request, _openapi())


async def docs(node: Node, request: Request) -> Answer:
    """`GET /docs`"""
    parameters(request)
    return _docs()


@cache
def _openapi() -> Answer:
    tag = f'"{blake2b(encoded(), digest_size=12).hexdigest()}"'
    return Answer(encoded(), headers={"ETag": tag, "Cache-Control": NO_CACHE})


@cache
def _docs() -> Answer:
    style = b64encode(sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    headers = {"Content-Security-Policy": policy, "Cache-Control": NO_CACHE}
    return Answer(page(), headers=headers, content_type="text/html; charset=utf-8")


def page() -> bytes:
    """The whole page, in UTF-8."""
    told = document()
    groups: dict[str, list[tuple[str, str]]] = {}
    for place, described in DESCRIBED.items():
        groups.setdefault(TAGS[described.tag], []).append(place)
    contents = "".join(
        f'<li><a href="#{_anchor(*place)}">{_name(*place)}</a></li>' for place in DESCRIBED
    )
    body = "".join(
        f"<h2>{escape(group)}</h2>" + "".join(_route(told, *place) for place in places)
        for group, places in groups.items()
    )
    schemas = told["components"]["schemas"]
    shapes = "".join(_shape(name, schema) for name, schema in schemas.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>trikv {told['info']['version']}: API</title><style>{_STYLE}</style></head><body>"
        f"<header><h1>trikv <span class=soft>{told['info']['version']}</span></h1>"
        "<p>What this node answers. Every error is a problem document with a stable "
        '<code>code</code>. For programs: <a href="/openapi.json">/openapi.json</a> '
        "(OpenAPI 3.1).</p></header>"
        f'<nav aria-label="Routes"><ul>{contents}</ul></nav><main>{body}'
        f"<h2>Shapes</h2>{shapes}</main></body></html>"
    ).encode()


def _anchor(method: str, path: str) -> str:
    return f"{method.lower()}{path.replace('/', '-').replace('{', '').replace('}', '')}"


def _name(method: str, path: str) -> str:
    return f'<code><span class="method {method}">{method}</span>{escape(path)}</code>'


def _prose(text: str) -> str:
    """A text with code between backticks."""
    parts = [escape(part) for part in text.split("`")]
    return "".join(
        f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts)
    )


def _route(told: dict[str, Any], method: str, path: str) -> str:
    described = DESCRIBED[method, path]
    operation = told["paths"][path][method.lower()]
    parts = [
        f'<section class=route id="{_anchor(method, path)}"><h3>{_name(method, path)}</h3>',
        f"<p>{_prose(described.summary)}.</p>",
        f"<pre>{escape(_curl(method, path, described))}</pre>",
    ]
    if shown := [_parameter(one) for one in operation["parameters"]]:
        parts.append(f"<h4>Parameters</h4><dl>{''.join(shown)}</dl>")
    if "requestBody" in operation:
        (content,) = operation["requestBody"]["content"].items()
        parts.append(f"<h4>Body</h4><p>{_kind(content[1]['schema'])}</p>")
    answers = "".join(_answer(*one) for one in operation["responses"].items())
    parts.append(f"<h4>Answers</h4><dl>{answers}</dl></section>")
    return "".join(parts)


def _curl(method: str, path: str, described: Described) -> str:
    verb = "" if method == "GET" else f" -X {method}"
    stream = " -N" if "text/event-stream" in described.gives else ""
    target = path.replace("{key}", "greeting")
    if described.example.startswith("?"):
        return f"curl{stream}{verb} 'http://127.0.0.1:8000{target}{described.example}'"
    return f"curl{stream}{verb} http://127.0.0.1:8000{target} {described.example}".rstrip()


def _parameter(one: dict[str, Any]) -> str:
    schema = one["schema"]
    limits = [f"{one['in']}", _kind(schema)]
    if "minimum" in schema and "maximum" in schema:
        limits.append(f"{schema['minimum']} to {schema['maximum']}")
    if "default" in schema:
        limits.append(f"default <code>{escape(str(schema['default']))}</code>")
    told = f"{_prose(one['description'])} <span class=soft>({', '.join(limits)})</span>"
    return f"<dt><code>{escape(one['name'])}</code></dt><dd>{told}</dd>"


def _answer(status: str, response: dict[str, Any]) -> str:
    kinds = [
        f"{escape(kind)}: {_kind(content['schema'])}"
        for kind, content in response["content"].items()
        if kind != PROBLEM_JSON
    ]
    problem = response["content"].get(PROBLEM_JSON)
    if problem is not None:
        schemas = problem["schema"].get("oneOf", [problem["schema"]])
        kinds.append(", ".join(_kind(schema) for schema in schemas))
    return f"<dt><code>{status}</code></dt><dd>{'; '.join(kinds)}</dd>"


def _kind(schema: Schema) -> str:
    """What a schema is, in a word or a link."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{escape(name)}">{escape(name.removeprefix("problem_"))}</a>'
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(one))}</code>" for one in schema["enum"])
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    return escape(str(schema.get("type", "any JSON")))


def _shape(name: str, schema: Schema) -> str:
    shown = {name: value for name, value in schema.items() if name not in ("title", "description")}
    text = escape(json.dumps(shown, indent=2, ensure_ascii=False))
    told = escape(name.removeprefix("problem_"))
    meaning = _prose(schema.get("description", ""))
    return (
        f'<section class=shape id="{escape(name)}"><h3><code>{told}</code></h3>'
        f"<p>{meaning}</p><pre>{text}</pre></section>"
    )
