"""`get`, `put`, `delete`, `list`, `watch`: what is asked, what is printed, which code it ends with."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.unit.cli.console import URLS, Console
from tests.unit.client.fake_watch import event, version
from tests.unit.client.wires import (
    A,
    Asked,
    B,
    Reply,
    always,
    item,
    not_leader,
    problem,
    script,
    written,
)

V1, V2 = version(1), version(2)


# -- get ----------------------------------------------------------------------------------------------


def test_get_prints_the_value_as_json_and_asks_for_a_sure_read(console: Console) -> None:
    ended = console("get", "k", *URLS, answers=always(a=item("k", {"ä": [1, None]}, V1)))
    assert (ended.code, ended.out, ended.err) == (0, '{"ä": [1, null]}\n', "")
    (asked,) = ended.seen
    assert (asked.method, asked.path) == ("GET", "/kv/k")
    assert asked.query["consistency"] == "linearizable"


def test_get_json_has_key_value_and_version(console: Console) -> None:
    ended = console("get", "k", "--json", *URLS, answers=always(a=item("k", "é", V1)))
    assert ended.document == {"key": "k", "value": "é", "version": V1}


@pytest.mark.parametrize(("value", "raw"), [("a\n b", "a\n b\n"), (1.5, "1.5\n"), (None, "null\n")])
def test_get_raw_prints_a_text_as_it_is(console: Console, value: Any, raw: str) -> None:
    ended = console("get", "k", "--raw", *URLS, answers=always(a=item("k", value, V1)))
    assert ended.out == raw


def test_get_of_a_key_that_is_not_there_is_1(console: Console) -> None:
    missing = problem("not_found", 404, key="k")
    ended = console("get", "k", *URLS, answers=always(a=missing))
    assert (ended.code, ended.out, ended.err) == (1, "", "trikv: there is no key 'k'\n")
    ended = console("get", "k", "--json", *URLS, answers=always(a=missing))
    assert (ended.code, ended.out) == (1, "")
    assert ended.error["code"] == "not_found"
    assert ended.error["key"] == "k"
    assert ended.error["exit_code"] == 1


def test_get_takes_a_consistency_and_a_version_to_wait_for(console: Console) -> None:
    ended = console("get", "k", "--consistency", "local", *URLS, answers=always(a=item("k", 1, V1)))
    assert "consistency" not in ended.seen[0].query
    ended = console("get", "k", "--min-version", V1, *URLS, answers=always(a=item("k", 1, V1)))
    assert ended.seen[0].query["min_version"] == V1
    ended = console("get", "k", "--min-version", "7", *URLS)
    assert ended.code == 2
    assert "min_version: a version looks like" in ended.err


def test_get_hints_at_a_local_read_where_a_sure_one_cannot_be(console: Console) -> None:
    refused = problem("invalid_parameter", 422, field="consistency")
    ended = console("get", "k", *URLS, answers=always(a=refused))
    assert ended.code == 2
    assert "--consistency local" in ended.err


def test_what_a_terminal_would_obey_is_shown_and_not_sent_to_it(console: Console) -> None:
    bad = "\x1b[2J\x9b\u202e"
    ended = console("get", "k", *URLS, columns=80, answers=always(a=item("k", bad, V1)))
    assert ended.out == '"\\u001b[2J\\u009b\\u202e"\n'
    assert json.loads(ended.out) == bad
    ended = console("get", "k", "--raw", *URLS, columns=80, answers=always(a=item("k", bad, V1)))
    assert ended.out == "\\u001b[2J\\u009b\\u202e\n"
    page = Reply(200, {"items": [item(bad, bad, V1).document], "next": None})
    ended = console("list", *URLS, columns=80, answers=always(a=page))
    assert "\x1b[2J" not in ended.out
    assert "\x9b" not in ended.out


def test_a_large_value_is_laid_out_in_a_terminal_only(console: Console) -> None:
    value = {"name": "x" * 50, "other": "y" * 50}
    answers = always(a=item("k", value, V1))
    assert len(console("get", "k", *URLS, answers=answers).out.splitlines()) == 1
    assert len(console("get", "k", *URLS, answers=answers, columns=80).out.splitlines()) == 4


# -- put ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["1"], 1),
        (["-1.5e3"], -1500.0),
        (["-7"], -7),
        (['{"a": [true, "ü"]}'], {"a": [True, "ü"]}),
        (["--string", "1"], "1"),
        (["--string", "hello world"], "hello world"),
        (["--string", "--", "--if-absnt"], "--if-absnt"),
        (["null"], None),
    ],
)
def test_put_sends_the_value(console: Console, arguments: list[str], value: Any) -> None:
    ended = console("put", *URLS, "k", *arguments, answers=always(a=written(V1)))
    assert ended.code == 0, ended.err
    assert ended.out == f"written, and confirmed on 2 followers: version {V1}\n"
    assert ended.seen[0].json() == {"value": value}


def test_put_json_says_what_was_written(console: Console) -> None:
    ended = console("put", "k", "1", "--json", *URLS, answers=always(a=written(V1)))
    assert ended.document == {"key": "k", "version": V1, "follower_acks": 2}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("hello", "VALUE is not JSON: Expecting value at line 1 column 1: 'hello'"),
        ("", "VALUE is not JSON"),
        ("NaN", "VALUE: NaN is not JSON"),
        ('{"a":1,"a":2}', "stands twice"),
        ("1e999", "too large"),
        ("[" * 2000, "nest"),
    ],
)
def test_put_of_bad_json_says_so_and_how_to_write_a_text(
    console: Console, value: str, why: str
) -> None:
    ended = console("put", "k", value, *URLS)
    assert (ended.code, ended.out, ended.seen) == (2, "", [])
    assert why in ended.err
    assert "--string" in ended.err
    assert "Traceback" not in ended.err


def test_put_reads_standard_input(console: Console) -> None:
    ended = console("put", "k", "-", *URLS, stdin=b' {"a": 1}\n', answers=always(a=written(V1)))
    assert ended.seen[0].json() == {"value": {"a": 1}}
    ended = console(
        "put", "k", "--string", "-", *URLS, stdin="ü\n".encode(), answers=always(a=written(V1))
    )
    assert ended.seen[0].json() == {"value": "ü\n"}
    for arguments in (["-"], ["-", "--string"]):
        ended = console("put", "k", *arguments, *URLS, stdin=b"\xff")
        assert (ended.code, ended.seen) == (2, [])
        assert "UTF-8" in ended.err


def test_put_takes_one_condition(console: Console) -> None:
    for arguments, header in (
        (["--if-version", V1], ("if-match", f'"{V1}"')),
        (["--if-absent"], ("if-none-match", "*")),
        (["--if-present"], ("if-match", "*")),
    ):
        ended = console("put", "k", "1", *arguments, *URLS, answers=always(a=written(V2)))
        assert ended.seen[0].headers[header[0]] == header[1]
    ended = console("put", "k", "1", "--if-absent", "--if-present", *URLS)
    assert (ended.code, ended.seen) == (2, [])


@pytest.mark.parametrize("typo", ["--if-absnt", "--strin", "-x"])
def test_a_misspelt_option_of_put_is_not_taken_for_a_value(console: Console, typo: str) -> None:
    for arguments in (["k", typo], ["k", "--string", typo], ["k", "1", typo]):
        ended = console("put", *arguments, *URLS)
        assert (ended.code, ended.seen) == (2, [])
        assert f"No such option '{typo}'" in ended.err


def test_put_finds_the_leader(console: Console) -> None:
    ended = console(
        "put", "k", "1", *URLS, "--url", B, answers=script(a=[not_leader(B)], b=[written(V1)])
    )
    assert ended.code == 0
    assert [asked.node for asked in ended.seen] == [A, B]


def test_a_conflict_is_3_and_tells_the_version(console: Console) -> None:
    conflict = problem("version_conflict", 412, key="k", version=V2)
    ended = console("put", "k", "1", "--if-absent", "--json", *URLS, answers=always(a=conflict))
    assert ended.code == 3
    assert ended.error["code"] == "version_conflict"
    assert ended.error["version"] == V2
    assert ended.error["may_have_happened"] is False


def test_a_write_whose_outcome_is_not_known_is_5_and_says_what_to_do(console: Console) -> None:
    unmet = problem("quorum_not_met", 503, version=V1)
    ended = console("put", "k", "1", *URLS, answers=always(a=unmet))
    assert (ended.code, ended.out) == (5, "")
    assert V1 in ended.err
    ended = console("put", "k", "1", *URLS, answers=always(a=Reply(502, "no", "text/html")))
    assert ended.code == 5
    assert "may have happened" in ended.err


def test_nobody_there_is_4_within_the_timeout(console: Console) -> None:
    refused = httpx.ConnectError("nobody listens")
    for arguments in (["get", "k"], ["put", "k", "1"], ["delete", "k"], ["list"]):
        ended = console(*arguments, "--timeout", "2", *URLS, answers=always(a=refused))
        assert (ended.code, ended.out) == (4, ""), arguments
        assert "nobody listens" in ended.err
        assert ("Nothing was written." in ended.err) == (arguments[0] in ("put", "delete"))


def test_where_nobody_answers_at_the_default_url_it_is_said_how_to_name_others(
    console: Console,
) -> None:
    refused = httpx.ConnectError("nobody listens")
    commands = [["get", "k"], ["put", "k", "1"], ["watch"], ["status"], ["quorum"], ["bench"]]
    for arguments in commands:
        ended = console(*arguments, "--timeout", "2", answers=lambda _: refused)
        assert ended.code == 4, arguments
        assert ended.err.endswith(
            "Is a node running at http://127.0.0.1:8000? `trikv cluster` starts some; "
            "TRIKV_URLS or --url names others.\n"
        ), arguments
        ended = console(*arguments, "--timeout", "2", *URLS, answers=always(a=refused))
        assert "trikv cluster" not in ended.err


def test_https_is_said_to_be_what_nodes_do_not_speak(console: Console) -> None:
    ended = console(
        "get",
        "k",
        "--timeout",
        "1",
        "--url",
        "https://h:1",
        answers=lambda _: httpx.ConnectError(""),
    )
    assert "https://h:1: ConnectError (nodes speak no TLS: http:// may be meant)" in ended.err


def test_a_bad_key_is_bad_usage(console: Console) -> None:
    for arguments in (["get", ""], ["put", "k" * 513, "1"], ["delete", "\0"], ["get", "\udcff"]):
        ended = console(*arguments, *URLS)
        assert (ended.code, ended.seen) == (2, []), arguments
        assert ended.err.startswith("trikv: ")


# -- delete -------------------------------------------------------------------------------------------


def test_delete_says_whether_it_was_there(console: Console) -> None:
    ended = console("delete", "k", "--if-version", V1, *URLS, answers=always(a=written(V2)))
    assert ended.out == f"deleted, and confirmed on 2 followers: version {V2}\n"
    assert ended.seen[0].method == "DELETE"
    assert ended.seen[0].headers["if-match"] == f'"{V1}"'
    ended = console("delete", "k", "--json", *URLS, answers=always(a=written(V2)))
    assert ended.document == {"key": "k", "deleted": True, "version": V2, "follower_acks": 2}
    ended = console("delete", "k", *URLS, answers=always(a=problem("not_found", 404, key="k")))
    assert (ended.code, ended.out) == (1, "")


# -- list ---------------------------------------------------------------------------------------------


def keys(asked: Asked) -> Reply:
    """250 keys, in pages of 100."""
    names = [f"k{number:03}" for number in range(250)]
    left = [name for name in names if name > asked.query.get("after", "")]
    page = left[:100]
    items = [{"key": name, "value": name, "version": V1} for name in page]
    return Reply(200, {"items": items, "next": page[-1] if len(left) > 100 else None})


def test_list_in_a_pipe_is_complete(console: Console) -> None:
    for arguments in ([], ["--all"], ["--json"]):
        ended = console("list", *arguments, *URLS, answers=keys)
        assert len(ended.out.splitlines()) == 250
        assert ended.err == ""
    ended = console("list", "--versions", *URLS, answers=keys)
    assert ended.out.startswith(f'k000\t{V1}\t"k000"\nk001\t')


def test_list_ends_at_its_limit_and_says_so(console: Console) -> None:
    ended = console("list", *URLS, columns=80, answers=keys)
    assert len(ended.out.splitlines()) == 100
    assert ended.err == "… and more: --all, or a higher --limit\n"
    assert len(console("list", "--all", *URLS, columns=80, answers=keys).out.splitlines()) == 250
    ended = console("list", "--limit", "249", *URLS, answers=keys)
    assert len(ended.out.splitlines()) == 249
    assert "--all" in ended.err
    ended = console("list", "--limit", "250", *URLS, answers=keys)
    assert (len(ended.out.splitlines()), ended.err) == (250, "")
    ended = console("list", "--limit", "2", "--all", *URLS)
    assert (ended.code, ended.seen) == (2, [])


def test_list_json_is_a_document_a_line(console: Console) -> None:
    ended = console("list", "--limit", "2", "--prefix", "k", "--json", *URLS, answers=keys)
    assert ended.documents == [
        {"key": name, "value": name, "version": V1} for name in ("k000", "k001")
    ]
    assert ended.seen[0].query["prefix"] == "k"
    assert ended.err == ""


def test_list_of_nothing_says_so(console: Console) -> None:
    nothing = always(a=Reply(200, {"items": [], "next": None}))
    assert console("list", "--prefix", "x", *URLS, answers=nothing).err == (
        "no keys that begin with 'x'\n"
    )
    assert console("list", "--json", *URLS, answers=nothing).out == ""


@pytest.mark.parametrize("columns", [80, 120])
def test_list_fits_a_terminal(console: Console, columns: int) -> None:
    value = "ü日本" * 100
    page = Reply(200, {"items": [item("k", value, V1).document], "next": None})
    console.environment["NO_COLOR"] = "1"
    ended = console("list", *URLS, columns=columns, answers=always(a=page))
    assert ended.out.rstrip().endswith("…")
    assert len(ended.out.rstrip()) < columns


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5", "10000000000"])
def test_a_bad_limit_is_bad_usage(console: Console, limit: str) -> None:
    ended = console("list", "--limit", limit, *URLS)
    assert (ended.code, ended.seen) == (2, [])
    assert "expected a whole number from 1 to 1e+09" in ended.err


# -- watch --------------------------------------------------------------------------------------------


def stream(*events: str) -> Reply:
    content = tuple(one.encode() for one in events)
    return Reply(200, content_type="text/event-stream", content=content, hangs=True)


def change(number: int, key: str, value: Any) -> str:
    return event("change", {"key": key, "value": value, "version": version(number)}, number)


def test_watch_prints_changes_as_they_come(console: Console) -> None:
    gone = event("change", {"key": "b", "deleted": True, "version": version(3)}, 3)
    told = stream(change(2, "a", {"x": 1}), event("reset", {"reason": "purged"}), gone)
    ended = console(
        "watch", "--prefix", "p", "--after", V1, "--count", "2", *URLS, answers=always(a=told)
    )
    assert ended.code == 0
    first, reset, last = ended.out.splitlines()
    assert first.split("\t")[1:] == [version(2), "a", '{"x": 1}']
    assert reset == "reset: purged; all keys follow anew"
    assert last.split("\t")[1:] == [version(3), "b", "(deleted)"]
    assert ended.seen[0].path == "/watch"
    assert ended.seen[0].query == {"prefix": "p", "after": V1}


def test_watch_json_tells_where_to_go_on(console: Console) -> None:
    told = stream(
        change(1, "a", 1),
        event("heartbeat", {"version": version(1)}),
        event("reset", {"reason": "purged"}),
        change(2, "b", None),
        change(3, "b", 3),
    )
    ended = console("watch", "--count", "3", "--json", *URLS, answers=always(a=told))
    one = {"type": "change", "deleted": False}
    assert ended.documents == [
        {**one, "key": "a", "value": 1, "version": V1, "resume": V1},
        {"type": "reset", "reason": "purged", "resume": None},
        {**one, "key": "b", "value": None, "version": V2, "resume": V2},
        {**one, "key": "b", "value": 3, "version": version(3), "resume": version(3)},
    ]


def test_watch_goes_on_at_another_node(console: Console) -> None:
    first = stream(change(1, "a", 1), event("heartbeat", {"version": V1}), event("end", {}))
    nodes: list[str] = []

    def answers(asked: Asked) -> Reply:
        nodes.append(asked.node)
        return first if len(nodes) == 1 else stream(change(2, "b", 2))

    ended = console("watch", "--count", "2", *URLS, "--url", B, answers=answers)
    assert [line.split("\t")[2] for line in ended.out.splitlines()] == ["a", "b"]
    assert sorted(nodes) == [A, B]
    assert ended.seen[1].query == {"after": V1}


def test_watch_refused_is_told(console: Console) -> None:
    refused = problem("invalid_parameter", 422, field="after")
    ended = console("watch", *URLS, answers=always(a=refused))
    assert ended.code == 2
    ended = console("watch", "--after", "x", *URLS)
    assert ended.code == 2
    assert "after: a version looks like" in ended.err


# -- habits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("habit", "command"),
    [
        (("set", "k", "1"), ("put", "k", "1")),
        (("del", "k"), ("delete", "k")),
        (("rm", "k"), ("delete", "k")),
        (("ls",), ("list",)),
        (("list", "k/"), ("list", "--prefix", "k/")),
        (("ls", "k/"), ("list", "--prefix", "k/")),
        (("--json", "get", "k"), ("get", "k", "--json")),
        (("--timeout", "3", "--json", "get", "k"), ("get", "k", "--json", "--timeout", "3")),
        (("--timeout=3", "get", "k"), ("get", "k", "--timeout", "3")),
    ],
)
def test_what_people_are_used_to_type_is_taken(
    console: Console, habit: tuple[str, ...], command: tuple[str, ...]
) -> None:
    def answer(asked: Asked) -> Reply:
        if asked.path == "/kv":
            return Reply(200, {"items": [], "next": None})
        return Reply(200, {"key": "k", "value": 1, "version": V1, "follower_acks": 1})

    usual, other = (console(*words, answers=answer) for words in (command, habit))
    assert usual.code == other.code == 0
    assert (other.out, other.err) == (usual.out, usual.err)
    assert [(one.method, one.path, one.query.get("prefix")) for one in other.seen] == [
        (one.method, one.path, one.query.get("prefix")) for one in usual.seen
    ]


def test_a_prefix_is_given_once(console: Console) -> None:
    for command in ("list", "watch"):
        ended = console(command, "a", "--prefix", "b")
        assert (ended.code, ended.seen) == (2, [])
        assert "expected one at most" in ended.err


def test_help_and_version_are_commands_too(console: Console) -> None:
    assert console("version").out == console("--version").out
    assert console("help").out == console("--help").out
    assert console("help", "ls").out == console("list", "--help").out
    assert console("help", "nothing").code == 2


def test_put_without_a_value_reads_standard_input_unless_that_is_a_terminal(
    console: Console,
) -> None:
    ended = console("put", "k", answers=lambda _: written(V1), stdin=b'{"a": 1}\n')
    assert ended.code == 0
    assert ended.seen[0].json() == {"value": {"a": 1}}


def test_an_option_of_serve_that_is_a_setting_says_how_it_is_set(console: Console) -> None:
    for option, name in (("--port", "PORT"), ("--quorum", "WRITE_QUORUM"), ("--role=x", "ROLE")):
        ended = console("serve", option, "8001")
        assert ended.code == 2
        assert f"{name}=… trikv serve" in ended.err
    assert "environment" not in console("serve", "--nonsense").err


def test_a_missing_choice_is_one_line(console: Console) -> None:
    (first, *_) = console("completion").err.splitlines()
    assert first == "trikv: Missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish"


def test_a_watch_with_a_timeout_ends_and_says_where_to_go_on(console: Console) -> None:
    beat = b'event: heartbeat\ndata: {"version":"1.aa-2000"}\n\n'
    stream = Reply(200, content_type="text/event-stream", content=(beat,), hangs=True)
    ended = console("watch", "a", "--timeout", "2", answers=lambda _: stream)
    assert ended.code == 0
    assert "trikv watch --prefix a --after 1.aa-2000" in ended.err


@pytest.mark.parametrize(
    ("more", "until"), [((), "until Ctrl-C"), (("--timeout", "5"), "for 5 s (--timeout)")]
)
def test_a_watch_that_reaches_nobody_says_after_a_moment_that_there_is_no_answer_yet(
    console: Console, more: tuple[str, ...], until: str
) -> None:
    asked = 0

    def nobody(_: Asked) -> Exception:
        nonlocal asked
        asked += 1
        if asked > 20:
            raise KeyboardInterrupt
        return httpx.ConnectError("no")

    ended = console("watch", *more, *URLS, answers=nobody, watched=True)
    assert f"no answer yet; trying {until}" in ended.err


def test_a_watch_that_was_answered_is_silent_until_something_changes(console: Console) -> None:
    beat = b'event: heartbeat\ndata: {"version":"1.aa-2000"}\n\n'
    stream = Reply(200, content_type="text/event-stream", content=(beat,), hangs=True)
    ended = console("watch", "--timeout", "5", answers=lambda _: stream, watched=True)
    assert "no answer yet" not in ended.err


def test_a_watch_with_a_timeout_that_reaches_nobody_is_4(console: Console) -> None:
    ended = console("watch", "--timeout", "2", "--json", answers=lambda _: httpx.ConnectError("no"))
    assert (ended.code, ended.error["code"]) == (4, "unreachable")


def test_a_version_that_does_not_come_is_said_with_the_longest_wait(console: Console) -> None:
    def answer(asked: Asked) -> Reply:
        wait_s = int(asked.query["timeout_ms"]) / 1000
        detail = f"V was not reached within {wait_s:g} s"
        return replace(problem("read_timeout", 504, detail=detail), delay_s=wait_s)

    ended = console("get", "k", "--min-version", V1, "--timeout", "3", answers=answer)
    assert ended.code == 4
    assert "was not reached within 2 s" in ended.err
