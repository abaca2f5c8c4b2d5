"""`status`, `quorum`, `lag`, `cut`, `heal`: what is put together, shown, asked, and its exit codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.unit.cli.console import URLS, Console
from tests.unit.client.wires import A, Answers, Asked, B, C, Reply, not_leader, problem
from trikv.cli import survey
from trikv.cli.outcome import ExitCode
from trikv.client import Unavailable

EPOCH = "1.aa"
GONE = httpx.ConnectError("nobody listens")


def leader_health(**more: Any) -> dict[str, Any]:
    return {
        "status": "ok",
        "role": "leader",
        "node_id": "a",
        "url": A,
        "ready": True,
        "waiting_for": [],
        "software_version": "0.1.0",
        "cluster": "c1",
        "epoch": EPOCH,
        "leads": True,
        "write_quorum": 1,
        "pending_write_quorum": None,
        "settled": True,
        "environment_write_quorum": 1,
        "followers": 2,
        "live_links": 2,
        "inflight_writes": 3,
        "lag": {
            "min_delay_ms": 0.0,
            "max_delay_ms": 50.0,
            "followers": [
                {"url": url, "node_id": name, "min_delay_ms": 0.0, "max_delay_ms": 50.0}
                for url, name in ((B, "b"), (C, "c"))
            ],
        },
        **more,
    }


def follower_health(name: str, **more: Any) -> dict[str, Any]:
    return {
        "status": "ok",
        "role": "follower",
        "node_id": name,
        "ready": True,
        "waiting_for": [],
        "software_version": "0.1.0",
        "epoch": EPOCH,
        "leader": {"node_id": "a", "url": A},
        **more,
    }


def follower_status(url: str, name: str, **more: Any) -> dict[str, Any]:
    return {
        "url": url,
        "node_id": name,
        "status": "match",
        "link": "live",
        "link_reason": None,
        "lag_records": 0,
        "lag_ms": 0.0,
        "rate_records_s": 1.5,
        "records": 7,
        "digest": "d",
        "differing_keys": [],
        "differing_keys_total": 0,
        "error": None,
        "data": None,
        **more,
    }


def replicas(*followers: dict[str, Any]) -> dict[str, Any]:
    leader = {"node_id": "a", "epoch": EPOCH, "write_quorum": 1, "records": 7, "digest": "d"}
    return {"leader": leader, "followers": list(followers)}


def nodes(
    *,
    a: Any = None,
    b: Any = None,
    c: Any = None,
    told: Any = None,
    posted: Callable[[Asked], Reply] | None = None,
) -> Answers:
    """A leader at A, followers at B and C: each health may be another, or an exception."""
    healths = {
        A: leader_health() if a is None else a,
        B: follower_health("b") if b is None else b,
        C: follower_health("c") if c is None else c,
    }
    compared = told or replicas(follower_status(B, "b"), follower_status(C, "c"))

    def answers(asked: Asked) -> Reply | Exception:
        health = healths[asked.node]
        if isinstance(health, Exception):
            return health
        if asked.path == "/health":
            return Reply(200, health)
        if health["role"] != "leader":
            return not_leader(A)
        if asked.path == "/admin/replica-status":
            return Reply(200, compared)
        assert posted is not None, asked
        return posted(asked)

    return answers


ALL = ("--url", A, "--url", B, "--url", C)


# -- status -------------------------------------------------------------------------------------------


def test_all_is_well(console: Console) -> None:
    ended = console("status", *ALL, answers=nodes())
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "leader a   quorum 1 of 2   lag 0–50 ms   in flight 3   epoch 1.aa\n"
        "\n"
        "node  role      link  behind  replica  keys  URL\n"
        "a     leader                              7  http://a:1\n"
        "b     follower  live       0  equal       7  http://b:2\n"
        "c     follower  live       0  equal       7  http://c:3\n"
        "\n"
        "all is well\n"
    )


def test_the_document_has_all_that_is_known(console: Console) -> None:
    told = console("status", "--json", *ALL, answers=nodes()).document
    assert told["healthy"] is True
    assert told["problems"] == []
    assert told["leader"] == "a"
    assert told["write_quorum"] == 1
    assert [node["node_id"] for node in told["nodes"]] == ["a", "b", "c"]
    assert told["nodes"][1] == {
        "url": B,
        "node_id": "b",
        "role": "follower",
        "leads": False,
        "reachable": True,
        "ready": True,
        "waiting_for": [],
        "epoch": EPOCH,
        "software_version": "0.1.0",
        "link": "live",
        "link_reason": None,
        "lag_records": 0,
        "lag_ms": 0.0,
        "rate_records_s": 1.5,
        "min_delay_ms": 0.0,
        "max_delay_ms": 50.0,
        "replica": "match",
        "records": 7,
        "differing_keys": [],
        "differing_keys_total": 0,
        "error": None,
    }


def test_one_follower_named_is_enough_to_find_them_all(console: Console) -> None:
    ended = console("status", "--json", "--url", B, answers=nodes())
    assert ended.code == 0
    shown = {node["node_id"]: node["reachable"] for node in ended.document["nodes"]}
    assert shown == {"a": True, "b": True, "c": None}


@pytest.mark.parametrize(
    ("situation", "problems"),
    [
        ({"b": GONE}, ["b cannot be reached: nobody listens"]),
        (
            {"b": follower_health("b", ready=False, waiting_for=["a leader"])},
            ["b waits for a leader"],
        ),
        (
            {"told": replicas(follower_status(B, "b", link="down", link_reason="it is gone"))},
            ["the link to b is down: it is gone"],
        ),
        (
            {"told": replicas(follower_status(B, "b", status="mismatch", differing_keys_total=2))},
            ["b differs from the leader in 2 keys"],
        ),
        (
            {"told": replicas(follower_status(B, "b", status="unreachable", error="too slow"))},
            ["the leader could not compare b: too slow"],
        ),
        (
            {"a": leader_health(ready=False, waiting_for=["2 live links"])},
            ["a waits for 2 live links"],
        ),
    ],
)
def test_what_is_not_well_is_said_and_is_1(
    console: Console, situation: dict[str, Any], problems: list[str]
) -> None:
    ended = console("status", "--json", *ALL, answers=nodes(**situation))
    assert ended.code == 1
    assert ended.document["problems"] == problems
    assert ended.document["healthy"] is False
    ended = console("status", *ALL, answers=nodes(**situation))
    assert f"- {problems[0]}\n" in ended.out


def test_without_a_leader_nothing_is_well(console: Console) -> None:
    ended = console("status", "--json", *ALL, answers=nodes(a=GONE))
    assert ended.code == 1
    assert ended.document["problems"][0] == "no leader can be reached"
    assert ended.document["leader"] is None


def test_a_deposed_leader_is_told_beside_the_one_that_leads(console: Console) -> None:
    deposed = leader_health(node_id="b", leads=False, ready=False, waiting_for=["a restart"])
    ended = console("status", "--json", *ALL, answers=nodes(b=deposed))
    assert ended.document["leader"] == "a"
    assert "b was started to lead, and does not" in ended.document["problems"]


def test_a_leader_that_is_named_by_two_urls_is_one(console: Console) -> None:
    ended = console("status", *ALL, answers=nodes(b=leader_health(), told=replicas()))
    assert ended.code == 0, ended.out


def test_a_leader_that_cannot_be_reached_from_here_is_named(console: Console) -> None:
    ended = console("status", "--json", "--url", B, answers=nodes(a=GONE))
    assert ended.code == 1
    assert ended.document["problems"] == [
        *("no leader can be reached", "http://a:1 cannot be reached: nobody listens")
    ]


def test_of_two_that_believe_to_lead_the_one_with_the_higher_epoch_does() -> None:
    found = {
        A: leader_health(epoch="2.aa"),
        B: leader_health(epoch="10.aa"),
        C: leader_health(epoch="nonsense"),
    }
    assert survey.who_leads(found) == B


def test_nobody_there_is_4(console: Console) -> None:
    ended = console("status", *ALL, answers=nodes(a=GONE, b=GONE, c=GONE))
    assert ended.code == ExitCode.UNAVAILABLE
    assert "no node can be reached" in ended.out


def test_something_else_than_a_node_is_told(console: Console) -> None:
    page = Reply(200, "hello", "text/html")
    ended = console("status", *URLS, answers=lambda _: page)
    assert ended.code == 4
    assert "not as trikv does" in ended.out


def test_replicas_that_cannot_be_compared_are_a_problem() -> None:
    error = Unavailable("too slow", code="no_answer")
    found = survey.put_together({A: leader_health()}, A, error)
    assert found.problems == ["the replicas could not be compared: too slow"]


@pytest.mark.parametrize("columns", [80, 120])
def test_it_fits_a_terminal(console: Console, columns: int) -> None:
    console.environment["NO_COLOR"] = "1"
    reason = "http://follower.example.org:8000/replicate: " + "nobody listens there " * 5
    bad = replicas(
        follower_status(
            "http://follower.example.org:8000",
            "b",
            link="connecting",
            link_reason=reason,
            lag_records=123456,
            lag_ms=123456.7,
            status="mismatch",
            differing_keys_total=12345,
        )
    )
    ended = console("status", *ALL, columns=columns, answers=nodes(told=bad, c=GONE))
    assert max(map(len, ended.out.splitlines())) <= columns


def test_many_problems_are_counted(console: Console) -> None:
    many = replicas(*(follower_status(f"http://x:{n}", f"x{n}", link="cut") for n in range(1, 30)))
    ended = console("status", *URLS, answers=nodes(told=many))
    assert ended.out.splitlines()[-1] == "- and 18 more"
    assert ended.out.count("\n- ") == 12


def test_watch_shows_it_again_and_again(console: Console) -> None:
    looks = 0

    def answers(asked: Asked) -> Reply | Exception:
        nonlocal looks
        looks += asked.path == "/health" and asked.node == A
        if looks == 4:
            raise KeyboardInterrupt
        return nodes()(asked)

    ended = console("status", "--watch", "--json", *ALL, answers=answers)
    assert ended.code == 130
    assert [told["healthy"] for told in ended.documents] == [True] * 3
    looks = 0
    ended = console("status", "--watch", *ALL, columns=100, answers=answers)
    assert ended.out.count("\x1b[H") == 3


# -- quorum, lag --------------------------------------------------------------------------------------


def posts(**documents: Any) -> Callable[[Asked], Reply]:
    def answer(asked: Asked) -> Reply:
        assert asked.method == "POST"
        reply = documents[asked.path.removeprefix("/admin/")]
        return reply if isinstance(reply, Reply) else Reply(200, reply)

    return answer


def test_quorum_is_shown(console: Console) -> None:
    ended = console("quorum", *ALL, answers=nodes())
    assert (ended.code, ended.out) == (0, "quorum 1 of 2 followers\n")
    pending = leader_health(pending_write_quorum=2, environment_write_quorum=2)
    ended = console("quorum", "--json", *ALL, answers=nodes(a=pending))
    assert ended.document == {
        "write_quorum": 1,
        "followers": 2,
        "pending_write_quorum": 2,
        "environment_write_quorum": 2,
        "settled": True,
    }
    ended = console("quorum", *ALL, answers=nodes(a=pending))
    assert "2 is asked for, and not confirmed yet" in ended.out
    ended = console("quorum", *ALL, answers=nodes(a=GONE))
    assert ended.code == 4


def test_quorum_is_changed(console: Console) -> None:
    told = {"write_quorum": 2, "previous_write_quorum": 1}
    ended = console("quorum", "2", *ALL, answers=nodes(posted=posts(quorum=told)))
    assert ended.out == "quorum 2, before 1\n"
    assert ended.seen[-1].json() == {"write_quorum": 2}
    warned = {**told, "warning": "take care"}
    ended = console("quorum", "2", "--force", *ALL, answers=nodes(posted=posts(quorum=warned)))
    assert ended.seen[-1].json() == {"write_quorum": 2, "force": True}
    assert ended.err == "warning: take care\n"
    ended = console("quorum", "2", "--json", *ALL, answers=nodes(posted=posts(quorum=warned)))
    assert ended.document == warned


def test_a_quorum_that_may_come_into_force_is_5(console: Console) -> None:
    for answer in (problem("quorum_not_met", 503), Reply(500, "?", "text/html")):
        ended = console("quorum", "2", *ALL, answers=nodes(posted=posts(quorum=answer)))
        assert ended.code == 5
    refused = problem("invalid_body", 422, field="write_quorum")
    assert console("quorum", "9", *ALL, answers=nodes(posted=posts(quorum=refused))).code == 2


def test_lag_is_shown_and_changed(console: Console) -> None:
    assert console("lag", *ALL, answers=nodes()).out == "lag 0–50 ms\n"
    told = leader_health()["lag"]
    assert console("lag", "--json", *ALL, answers=nodes()).document == told
    own = {
        **told,
        "followers": [*told["followers"][:1], {**told["followers"][1], "max_delay_ms": 300}],
    }
    ended = console(
        "lag", "0", "300", "--follower", "c", *ALL, answers=nodes(posted=posts(lag=own))
    )
    assert ended.seen[-1].json() == {"min_delay_ms": 0.0, "max_delay_ms": 300.0, "follower": "c"}
    assert ended.out == (
        "lag 0–50 ms\nnode       lag  URL\nb      0–50 ms  http://b:2\nc     0–300 ms  http://c:3\n"
    )


def test_setting_a_lag_is_tried_again_after_a_lost_answer(console: Console) -> None:
    answers = iter([Reply(502, "?", "text/html"), Reply(200, leader_health()["lag"])])
    ended = console("lag", "0", "50", *ALL, answers=nodes(posted=lambda _: next(answers)))
    assert ended.code == 0


# -- cut, heal ----------------------------------------------------------------------------------------


def wire(asked: Asked) -> Reply:
    body = asked.json()
    if body["follower"] not in ("b", "c", B, C):
        return problem("invalid_body", 422, field="follower")
    return Reply(200, {"url": B, "node_id": "b", "cut": body["cut"]})


def test_wires_are_cut_and_healed(console: Console) -> None:
    ended = console("cut", "b", *ALL, answers=nodes(posted=wire))
    assert (ended.code, ended.out) == (0, "the wire to b is cut\n")
    ended = console("heal", "b", "c", "--json", *ALL, answers=nodes(posted=wire))
    assert ended.document["followers"] == [{"url": B, "node_id": "b", "cut": False}] * 2


def test_a_follower_that_is_not_known_ends_it(console: Console) -> None:
    ended = console("cut", "b", "x", "c", *ALL, answers=nodes(posted=wire))
    assert (ended.code, ended.out) == (2, "the wire to b is cut\n")
    ended = console("cut", "x", "--json", *ALL, answers=nodes(posted=wire))
    assert (ended.code, ended.out) == (2, "")


def test_heal_all_heals_what_is_cut(console: Console) -> None:
    one_cut = replicas(follower_status(B, "b"), follower_status(C, "c", link="cut"))
    ended = console("heal", "--all", *ALL, answers=nodes(told=one_cut, posted=wire))
    assert ended.seen[-1].json() == {"follower": C, "cut": False}
    ended = console("heal", "--all", *ALL, answers=nodes(posted=wire))
    assert (ended.code, ended.out) == (0, "no wire is cut\n")
    ended = console("heal", "--all", "--json", *ALL, answers=nodes(posted=wire))
    assert ended.document == {"followers": []}
