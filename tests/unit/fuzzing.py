"""What strangers send: bytes, JSON that is almost right, names that are almost ours. And how much of it.

Three kinds of bodies are drawn, each good at what the others miss: any bytes; JSON of the right shape
whose fields are missing, doubled, unknown or of the wrong kind; and such JSON with bytes flipped, cut,
doubled or taken from another body. JSON is drawn as text, since what is of interest here cannot be
written from Python's values: names that stand twice, numbers that overflow, halves of surrogate pairs.

`examples` is the number of examples of a test: the nightly profile asks for fifty times as many.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

T = TypeVar("T")

_SCALE = 50 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 1


def examples(count: int) -> settings:
    """So many examples, however slow each is on a busy machine."""
    return settings(
        max_examples=count * _SCALE,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def often(usual: st.SearchStrategy[T], else_: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """Five of six times the first, which is the simpler choice for Hypothesis, too."""
    return st.integers(0, 5).flatmap(lambda n: usual if n < 5 else else_)


# -- texts ------------------------------------------------------------------------------------------

any_text = st.text(st.characters(exclude_categories=()), max_size=30)  # lone surrogates, too

ODD_TEXTS: Sequence[str] = (
    *(
        "",
        " ",
        "\0",
        "\0configuration",
        "a\nb",
        "\r\n",
        "\x7f",
        "\u2028",
        "\ufeff",
        "é",
        "😀",
        "\ud800",
    ),
    *(
        "٣",
        "²",
        "1_0",
        "+1",
        "-1",
        "0",
        "00",
        "1e3",
        "0x10",
        "9" * 400,
        "true",
        "True",
        "null",
        "*",
    ),
    *(
        "a" * 513,
        "x" * 5000,
        "../..",
        "%00",
        "%zz",
        "a`b - at `$.x`",
        '"',
        "\\",
        "'; DROP TABLE records",
    ),
    *("1.a", "1.A", "01.a", "1.a-", "1.a-1", "1.a-01", "0.0-0", "0.plain-1", "2147483648.a"),
    *("2147483647.z-9007199254740991", "1.a-9007199254740992", "٣.a-1", "1.é-1", "1.a-1\n"),
    *("http://a..b", "http://[", "http://[::1", "http://x:99999", "http://\u2100", "javascript:x"),
)
odd_texts = st.sampled_from(ODD_TEXTS) | any_text

_near = st.integers(0, 3)
_far = st.sampled_from([10, 1_000_003, 2**31 - 1, 2**31, 2**53 - 1, 2**53]) | st.integers(0)
epoch_texts = st.builds("{}.{}".format, often(_near, _far), st.sampled_from("ab"))
version_texts = st.builds("{}-{}".format, epoch_texts, often(_near, _far))

# -- JSON, as text ----------------------------------------------------------------------------------

ODD_JSON: Sequence[str] = (
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1e999",
        "1e-400",
        "-0",
        "-0.0",
        "01",
        "+1",
        ".5",
        "1.",
    ),
    *(
        "0",
        "1",
        "-1",
        "2",
        "1.5",
        "true",
        "false",
        "null",
        "nul",
        "9007199254740993",
        "1e300",
        "1E2",
    ),
    *(
        "7" * 400,
        "7" * 4300,
        "7" * 4301,
        "1" + "0" * 400 + ".0",
        '""',
        "[]",
        "{}",
        "[[]]",
        '{"":{}}',
    ),
    *("[" * 64 + "]" * 64, "[" * 65 + "]" * 65, "[" * 3000 + "]" * 3000, "[" * 50_000),
    *(
        '{"a":' * 70 + "1" + "}" * 70,
        '{"a":1,"a":2}',
        '{"a":1,"\\u0061":2}',
        '{"\\ud800":1}',
        "{,}",
    ),
    *(
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"\\ud83d\\ude00"',
        '"\\u0000"',
        '"\\x41"',
        '"\x01"',
        '"',
        "'a'",
    ),
    *('"' + "x" * 2_000 + '"', "{1:2}", '[1,"a",null,{"b":[]}]', "\ufeff1", "/**/1", "1 2", ""),
)


def _object(pairs: Sequence[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}"


json_texts = st.recursive(
    st.sampled_from(ODD_JSON) | odd_texts.map(json.dumps) | st.integers().map(str),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(odd_texts.map(json.dumps), inner), max_size=3).map(_object)
    ),
    max_leaves=6,
)


def quoted(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Texts as JSON."""
    return texts.map(json.dumps)


@st.composite
def shaped(draw: st.DrawFn, fields: Mapping[str, st.SearchStrategy[str]]) -> str:
    """An object with these fields, as JSON. In half of them one or two fields are wrong."""
    count = max(0, draw(st.integers(-2, 2)))
    flawed = [draw(st.sampled_from(sorted(fields))) for _ in range(count)]
    pairs = []
    for name, values in fields.items():
        text = json.dumps(name)
        match draw(st.integers(0, 4)) if name in flawed else 5:
            case 0:
                continue
            case 1 | 2:
                pairs.append((text, draw(json_texts)))
            case 3:
                pairs.append((json.dumps(draw(odd_texts)), draw(values)))
            case 4:
                pairs += [(text, draw(values))] * 2
            case _:
                pairs.append((text, draw(values)))
    return _object(draw(st.permutations(pairs)) if flawed else pairs)


def array_of(items: st.SearchStrategy[str], max_size: int = 3) -> st.SearchStrategy[str]:
    return st.lists(items, max_size=max_size).map(lambda texts: f"[{','.join(texts)}]")


# -- bodies -----------------------------------------------------------------------------------------


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@st.composite
def mutated(draw: st.DrawFn, bodies: st.SearchStrategy[bytes]) -> bytes:
    """A body to which something has happened, once or a few times."""
    body = bytearray(draw(bodies))
    for _ in range(draw(st.integers(1, 3))):
        at, to = (draw(st.integers(0, len(body))) for _ in range(2))
        match draw(st.integers(0, 4)):
            case 0 if at < len(body):
                body[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del body[at:]
            case 2:
                body[at:at] = body[min(at, to) : max(at, to)]
            case 3:
                del body[min(at, to) : max(at, to)]
            case _:
                body[at:to] = draw(st.binary(max_size=8) | bodies)
    return bytes(body)


def bodies_like(texts: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    """Bodies like these, spoiled bodies like these, other JSON, any bytes."""
    good = texts.map(as_bytes)
    return st.one_of(
        *[good] * 6, mutated(good), mutated(good), json_texts.map(as_bytes), st.binary(max_size=60)
    )


# -- what is sent, in its right form ----------------------------------------------------------------

key_texts = st.sampled_from(["a", "b", "kept", "\0configuration", "é"])
values = often(st.sampled_from(["1", '"v"', "null", "[1.5,{}]"]), json_texts)
node_ids = often(st.sampled_from(["leader", "boss", "follower1", "follower2", "alone"]), odd_texts)

_configuration = shaped(
    {
        "members": st.sampled_from(['{"leader":null,"follower1":"http://f"}', "{}", '{"a":1}']),
        "write_quorum": st.integers(-1, 3).map(str),
        "previous": st.sampled_from(["[]", '[{"members":["a","a"],"write_quorum":1}]', "[1]"]),
    }
)
_name = shaped({"node_id": quoted(node_ids), "url": often(st.just("null"), quoted(odd_texts))})
_usual_record = shaped(
    {"key": quoted(key_texts), "version": quoted(version_texts), "value": values}
)
_tombstone = shaped(
    {"key": quoted(key_texts), "version": quoted(version_texts), "deleted": st.just("true")}
)
configuration_record = shaped(
    {
        "key": st.just(json.dumps("\0configuration")),
        "version": quoted(version_texts),
        "value": _configuration,
    }
)
record = st.one_of(_usual_record, _tombstone, configuration_record)
_pair = st.builds("{}:{}".format, quoted(key_texts), values)
_short = shaped(
    {
        "version": quoted(version_texts),
        "values": st.lists(_pair, max_size=3).map(lambda pairs: f"{{{','.join(pairs)}}}"),
    }
)

batch = shaped(
    {
        "leader": _name,
        "epoch": quoted(epoch_texts),
        "records": array_of(record | _short),
        "follower": often(st.just("null"), quoted(odd_texts)),
        "watermark": st.just("null") | quoted(version_texts),
        "floor": st.just("null") | quoted(version_texts),
        "established": st.sampled_from(["true", "false"]),
        "confirmed": st.just("null") | quoted(version_texts),
    }
)
plain = shaped(
    {"key": quoted(key_texts), "value": values, "timestamp": st.floats(-1, 1e10).map(repr)}
)
asked_promise = shaped(
    {
        "leader": _name,
        "instance": quoted(st.sampled_from(["a", "b", "0"])),
        "cluster": quoted(st.sampled_from(["", "c"])),
        "epoch": quoted(epoch_texts),
    }
)
operation = shaped(
    {
        "op": st.sampled_from(['"put"', '"delete"']),
        "key": quoted(key_texts),
        "value": values,
        "if_version": st.just("null") | quoted(version_texts),
    }
) | shaped({"op": st.just('"delete"'), "key": quoted(key_texts)})


@st.composite
def facts(
    draw: st.DrawFn,
    promised: st.SearchStrategy[str] = epoch_texts,
    node_id: st.SearchStrategy[str] = node_ids,
) -> dict[str, st.SearchStrategy[str]]:
    """What a node tells of itself, field by field: it need not be true, but most often might be."""
    established = draw(often(st.sampled_from(["0.0", "0.0", "1.b"]), st.just("1.a")))
    reached = 0 if established == "0.0" else draw(st.integers(0, 3))
    told = {
        "node_id": node_id,
        "instance": st.sampled_from(["a", "b"]),
        "cluster": often(st.just(""), st.sampled_from(["c", "d"])),
        "promised": promised,
        "established": st.just(established),
        "led": st.just("0.0"),
        "watermark": st.just(f"{established}-{reached}"),
        "floor": st.just(f"{established}-{draw(st.integers(0, reached))}"),
    }
    if draw(st.integers(0, 2)) == 2:
        told[draw(st.sampled_from(["established", "led"]))] = epoch_texts
        told[draw(st.sampled_from(["watermark", "floor"]))] = version_texts
    return {name: quoted(texts) for name, texts in told.items()}


def promise_answer(
    promised: st.SearchStrategy[str] = epoch_texts, node_id: st.SearchStrategy[str] = node_ids
) -> st.SearchStrategy[str]:
    others = {
        "follows": st.just("true"),
        "configuration": often(st.just("null"), configuration_record),
    }
    return facts(promised, node_id).flatmap(lambda known: shaped({**known, **others}))


replica_answer = facts().flatmap(
    lambda known: shaped(
        {
            **known,
            "records": st.integers(-1, 3).map(str),
            "digest": quoted(often(st.text("09af", min_size=1, max_size=32), odd_texts)),
        }
    )
)
records_answer = shaped(
    {"records": array_of(record), "next": st.just("null") | quoted(version_texts)}
)
replicate_answer = shaped(
    {"status": st.just('"ok"'), "node_id": quoted(node_ids), "epoch": quoted(epoch_texts)}
)
problem = shaped(
    {
        "code": quoted(st.sampled_from(["stale_epoch", "wrong_node", "not_ready"])),
        "promised": quoted(epoch_texts),
        "detail": quoted(odd_texts),
    }
)


def decoded(body: bytes) -> Any:
    """What an answer of ours must be: JSON, and no name twice."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(found)
        assert len(built) == len(found), f"a name stands twice: {body!r}"
        return built

    return json.loads(body.decode("utf-8"), object_pairs_hook=pairs)
