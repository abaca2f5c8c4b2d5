"""The verdict on histories made by hand: each promise once kept and once broken."""

from __future__ import annotations

from typing import Any

import pytest

from loadgen.check import linearizability
from loadgen.check.history import ABSENT, Call, Fault, History, Order, Shown
from loadgen.check.verdict import judge, summary


def v(timestamp_us: int, epoch: int = 1) -> str:
    return f"{epoch}.abc-{timestamp_us}"


def put(begun: float, key: str, value: Any, at: int | None, **more: Any) -> Call:
    """A put that was answered a second later with 200; `at` None: never answered."""
    answered = None if at is None else begun + 1
    told: dict[str, Any] = {"status": 200, "version": v(at)} if at is not None else {}
    fields: dict[str, Any] = {"writes": {key: value}, "answered": answered, **told, **more}
    return Call(0, "leader", "write", begun, **fields)


def refused(begun: float, key: str, value: Any, code: str, **more: Any) -> Call:
    status = 404 if code == "not_found" else 412
    return put(begun, key, value, None, answered=begun + 1, status=status, code=code, **more)


def read(begun: float, key: str, value: Any, at: int | None, **more: Any) -> Call:
    shown = ABSENT if at is None else Shown(value, v(at))
    status, code = (404, "not_found") if at is None else (200, "")
    fields: dict[str, Any] = {
        "answered": begun + 1,
        "status": status,
        "code": code,
        "shown": {key: shown},
        **more,
    }
    return Call(1, "follower1", "read", begun, **fields)


def batch(begun: float, at: int | None, **writes: Any) -> Call:
    return put(begun, "", None, at, writes=writes)


def keys(begun: float, up_to: int, **shown: Shown) -> Call:
    more: dict[str, Any] = {
        "answered": begun + 1,
        "status": 200,
        "min_version": v(up_to),
        "shown": shown,
    }
    return Call(2, "follower1", "list", begun, **more)


LINEARIZABLE = {"linearizable": True}

GOOD: dict[str, list[Call]] = {
    "nothing": [],
    "a write and a read": [put(0, "a", 1, 5), read(2, "a", 1, 5, **LINEARIZABLE)],
    "a stale local read": [put(0, "a", 1, 5), put(2, "a", 2, 6), read(4, "a", 1, 5)],
    "an unknown write that came late": [
        put(0, "a", 1, None),
        read(2, "a", None, None, **LINEARIZABLE),
        read(4, "a", 1, 5, **LINEARIZABLE),
    ],
    "a write that holds what it asked for": [
        put(0, "a", 1, 5),
        put(2, "a", 2, 6, expected={"a": v(5)}),
        refused(
            4, "a", 3, "version_conflict", expected={"a": v(5)}, shown={"a": Shown(None, v(6))}
        ),
        refused(
            6, "a", 3, "version_conflict", expected={"a": None}, shown={"a": Shown(None, v(9))}
        ),
        put(8, "a", None, 7, expected={"a": "*"}),
        refused(10, "a", None, "not_found", expected={"a": "*"}, shown={"a": ABSENT}),
    ],
    "deleted by the very write": [
        put(0, "a", 1, 5),
        put(2, "a", None, 6),
        read(4, "a", 0, None, min_version=v(6)),
    ],
    "perhaps deleted": [
        put(0, "a", 1, 5),
        put(2, "a", None, None),
        read(4, "a", 0, None, min_version=v(5)),
    ],
    "ahead of what was asked": [
        put(0, "a", 1, 5),
        put(2, "a", 2, 6),
        read(4, "a", 2, 6, min_version=v(5)),
    ],
    "not as far as the second": [
        put(0, "a", 1, 5),
        put(2, "a", 2, 6),
        read(4, "a", 1, 5, min_version=v(5)),
    ],
    "a whole batch": [batch(0, 5, a=1, b=2), keys(2, 5, a=Shown(1, v(5)), b=Shown(2, v(5)))],
    "a batch, one key written again": [
        batch(0, 5, a=1, b=2),
        put(2, "b", 3, 6),
        keys(4, 5, a=Shown(1, v(5)), b=Shown(3, v(6))),
    ],
    "a batch with a delete": [
        put(0, "b", 9, 4),
        batch(2, 5, a=1, b=None),
        keys(4, 5, a=Shown(1, v(5))),
    ],
    "a batch that is not asked for yet": [
        put(0, "b", 9, 4),
        batch(2, 5, a=1, b=2),
        keys(4, 4, a=Shown(1, v(5)), b=Shown(9, v(4))),
    ],
    "a batch of unknown outcome, one key perhaps deleted": [
        put(0, "b", 9, 4),
        batch(2, None, a=1, b=2),
        put(3, "b", None, None),
        keys(5, 5, a=Shown(1, v(5))),
    ],
}

BAD: dict[str, tuple[str, list[Call]]] = {
    "never written": ("invented", [read(0, "a", 7, 5)]),
    "refused, and there": (
        "invented",
        [refused(0, "a", 1, "version_conflict"), read(2, "a", 1, 5)],
    ),
    "before it was written": ("invented", [read(0, "a", 1, 5), put(3, "a", 1, 5)]),
    "two values": ("two_values", [put(0, "a", 1, 5), put(0, "a", 2, 6), read(2, "a", 1, 6)]),
    "a version out of order": ("version_order", [put(0, "a", 1, 6), put(2, "b", 2, 5)]),
    "a stale linearizable read": (
        "not_linearizable",
        [put(0, "a", 1, 5), put(2, "a", 2, 6), read(4, "a", 1, 5, **LINEARIZABLE)],
    ),
    "a lost write": (
        "not_linearizable",
        [put(0, "a", 1, 5), read(4, "a", 0, None, **LINEARIZABLE)],
    ),
    "a lost update": (
        "not_linearizable",
        [
            put(0, "a", 1, 5),
            put(2, "a", 2, 6, expected={"a": v(5)}),
            put(4, "a", 3, 7, expected={"a": v(5)}),
        ],
    ),
    "created twice": (
        "not_linearizable",
        [put(0, "a", 1, 5, expected={"a": None}), put(2, "a", 2, 6, expected={"a": None})],
    ),
    "a delete of nothing": ("not_linearizable", [put(0, "a", None, 5, expected={"a": "*"})]),
    "a stale refusal": (
        "not_linearizable",
        [
            put(0, "a", 1, 5),
            put(2, "a", 2, 6),
            refused(4, "a", 3, "version_conflict", shown={"a": Shown(None, v(5))}),
        ],
    ),
    "a refusal that sees nothing": (
        "not_linearizable",
        [put(0, "a", 1, 5), refused(4, "a", None, "not_found", shown={"a": ABSENT})],
    ),
    "a write to what had the version of a delete": (
        "not_linearizable",
        [put(0, "a", 1, 5), put(2, "a", None, 6), put(4, "a", 2, 7, expected={"a": v(6)})],
    ),
    "a refusal that shows the version of a delete": (
        "not_linearizable",
        [
            put(0, "a", 1, 5),
            put(2, "a", None, 6),
            refused(
                4, "a", 3, "version_conflict", expected={"a": v(5)}, shown={"a": Shown(None, v(6))}
            ),
        ],
    ),
    "a version that is not greater than the one it asked for": (
        "version_order",
        [put(0, "a", 1, None), put(0, "a", 2, 6, expected={"a": v(7)})],
    ),
    **{
        f"refused, though it found what it asked for: {asked}": (
            "wrong_refusal",
            [
                put(0, "a", 1, 5),
                put(0, "b", 1, 4),
                refused(
                    2,
                    key,
                    3,
                    "version_conflict",
                    writes={"a": 3, "b": 4, "c": 5},
                    expected={} if asked == "nothing" else {key: asked},
                    shown={key: Shown(None, version) if version else ABSENT},
                ),
            ],
        )
        for key, asked, version in (
            ("a", v(5), v(5)),
            ("a", "*", v(5)),
            ("c", None, None),
            ("b", "nothing", v(4)),
        )
    },
    "not its own write": (
        "not_caught_up",
        [put(0, "a", 1, 5), read(2, "a", 0, None, min_version=v(5))],
    ),
    "older than its own write": (
        "not_caught_up",
        [put(0, "a", 1, 5), put(2, "a", 2, 6), read(4, "a", 1, 5, min_version=v(6))],
    ),
    "back in time": (
        "not_caught_up",
        [
            put(0, "a", 1, 5),
            read(2, "a", 3, 8, **LINEARIZABLE),
            put(2, "a", 3, None),
            read(4, "a", 1, 5, min_version=v(9)),
        ],
    ),
    "a torn batch": (
        "torn_batch",
        [put(0, "b", 9, 4), batch(2, 5, a=1, b=2), keys(4, 5, a=Shown(1, v(5)), b=Shown(9, v(4)))],
    ),
    "a torn batch of unknown outcome": (
        "torn_batch",
        [
            put(0, "b", 9, 4),
            batch(2, None, a=1, b=2),
            keys(4, 5, a=Shown(1, v(5)), b=Shown(9, v(4))),
        ],
    ),
    "a torn batch of unknown outcome, one key missing": (
        "torn_batch",
        [batch(2, None, a=1, b=2), keys(4, 5, a=Shown(1, v(5)))],
    ),
    "a batch without its delete": (
        "torn_batch",
        [
            put(0, "b", 9, 4),
            batch(2, None, a=1, b=None),
            keys(4, 5, a=Shown(1, v(5)), b=Shown(9, v(4))),
        ],
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_nothing_is_wrong_with(name: str) -> None:
    assert judge(History(GOOD[name])).is_clean


@pytest.mark.parametrize("name", BAD)
def test_it_sees(name: str) -> None:
    check, calls = BAD[name]
    assert check in {anomaly.check for anomaly in judge(History(calls)).anomalies}


def test_of_a_refusal_only_what_contradicts_it_is_wrong() -> None:
    """A stale or a wrong refusal is one anomaly, of its kind."""
    for name in BAD:
        check, calls = BAD[name]
        if name.startswith("refused, though"):
            assert [anomaly.check for anomaly in judge(History(calls)).anomalies] == [check]


def test_a_key_that_is_too_hard_is_told_beside_all_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hard = [put(i / 100, "hard", i, i) for i in range(9)] + [
        read(5, "hard", 99, 99, **LINEARIZABLE)
    ]
    lost = [put(0, "lost", 1, 20), read(5, "lost", 0, None, **LINEARIZABLE)]
    checks = {"invented", "not_linearizable"}
    assert {anomaly.check for anomaly in judge(History(hard + lost)).anomalies} == checks
    monkeypatch.setattr(linearizability, "MAX_STATES", 100)
    judged = judge(History(hard + lost))
    assert judged.undecided == ["undecided: key 'hard': more than 100 states"]
    assert {(a.check, a.key) for a in judged.anomalies} == {
        ("invented", "hard"),
        ("not_linearizable", "lost"),
    }
    assert "undecided: key 'hard'" in str(judged)
    assert "not_linearizable: 'lost'" in str(judged)


def test_in_the_end_every_confirmed_write_is_on_every_node() -> None:
    calls = [put(0, "a", 1, 5), put(2, "a", 2, 6), put(4, "b", 3, None)]
    new, old = {"a": Shown(2, v(6))}, {"a": Shown(1, v(5))}
    assert judge(History(calls, final={"n0": new, "n1": new})).is_clean
    with_unknown = {**new, "b": Shown(3, v(7))}
    assert judge(History(calls, final={"n0": with_unknown, "n1": with_unknown})).is_clean
    checks = {a.check for a in judge(History(calls, final={"n0": new, "n1": old})).anomalies}
    assert checks == {"not_equal", "not_caught_up", "not_linearizable"}
    checks = {a.check for a in judge(History(calls, final={"n0": {}, "n1": {}})).anomalies}
    assert checks == {"not_caught_up", "not_linearizable"}


def test_a_refused_write_must_not_be_there_in_the_end() -> None:
    final = {"n0": {"a": Shown(1, v(5))}}
    judged = judge(History([refused(0, "a", 1, "version_conflict")], final=final))
    assert "invented" in {anomaly.check for anomaly in judged.anomalies}


def test_a_write_that_was_written_anew_by_a_later_leader_is_no_torn_batch() -> None:
    calls = [batch(0, 5, a=1, b=2), put(2, "b", 3, 6)]
    final = {"n0": {"a": Shown(1, v(9, epoch=2)), "b": Shown(3, v(6))}}
    assert judge(History(calls, final=final)).is_clean


def test_a_summary_is_short() -> None:
    anomalies = judge(History([read(0, "a", i, i) for i in range(30)])).anomalies
    assert summary(anomalies).count("\n") == 10
    assert "and 20 more" in summary(anomalies)


def test_versions_are_ordered_by_epoch_first() -> None:
    texts = ["1.abc-9", "2.aa-1", "2.ab-1", "2.ab-2", "10.aa-1"]
    assert sorted(texts, key=Order.of) == texts


def test_a_history_can_be_kept_in_a_file() -> None:
    calls = [put(0, "a", 1, 5), read(2, "a", 0, None), batch(3, None, a=1, b=None)]
    history = History(calls, [Fault("kill", "n1", 1.0)], {"n0": {"a": Shown(1, v(5))}})
    assert History.from_json(history.to_json()) == history
