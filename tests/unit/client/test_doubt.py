"""What the client claims of a write is true, whatever becomes of requests, answers and leaders."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.client.model import URLS, Model
from tests.unit.client.wires import (
    SHELLS,
    SILENCE,
    FakeClock,
    Reply,
    Shell,
    SyncWire,
    Wire,
    item,
    not_leader,
    play,
    problem,
    script,
    written,
)
from tests.unit.client.wires import SyncClientOnAClock as SyncClient
from trikv.client import Client, ClientError, OutcomeUnknown, Put, Written
from trikv.client.doubt import Doubt, Verdict, judge
from trikv.client.wire import Meaning, Reading
from trikv.model.version import Version


def one_call(seed: int) -> tuple[str, str]:
    """One write under faults. Returns what kind it was, and how it ended; fails if a claim is
    wrong."""
    rng = random.Random(seed)
    model = Model(rng, faults=rng.choice([0.1, 0.4, 0.8]))
    for _ in range(rng.randrange(3)):
        model.somebody()
    wire = Wire(model.answer, clock=FakeClock())
    kind = rng.choice(["plain", "if_version", "if_absent", "if_present", "batch"])
    unique = kind != "batch" and rng.random() < 0.5
    value = {"mine": True}
    if not unique:
        model.others_write += (value,)
    current = model.leader.current("k")
    expected = None if current is None or current.value is None else str(current.version)
    if kind == "if_version" and expected is None:
        kind = "if_absent"
    more: dict[str, Any] = {"unique_value": unique}
    if kind == "if_version":
        more["if_version"] = expected
    elif kind in ("if_absent", "if_present"):
        more[kind] = True
    with SyncClient(URLS, wire.clock, transport=SyncWire(wire)) as client:
        result: Written | ClientError
        try:
            if kind == "batch":
                absent = expected is None
                result = client.batch([Put("k", value, if_version=expected, if_absent=absent)])
            else:
                result = client.put("k", value, **more)
        except ClientError as error:
            result = error
    model.finish()
    assert len(model.written) <= 1, "it was written twice"
    if isinstance(result, Written):
        assert model.written == [result.version], (kind, result)
        return kind, "settled" if result.follower_acks is None else "written"
    if not result.may_have_happened:
        assert model.written == [], (kind, result)
    elif result.version is not None:
        assert model.written in ([], [result.version]), (kind, result)
    return kind, type(result).__name__


@settings(max_examples=1500)
@given(seed=st.integers(0, 2**40))
def test_fuzz_every_claim_about_a_write_is_true(seed: int) -> None:
    one_call(seed)


def test_every_way_to_end_is_met_in_that_test() -> None:
    ends: Counter[str] = Counter()
    for seed in range(1500):
        ends[":".join(one_call(seed))] += 1
    for kind in ("plain", "if_version", "if_absent", "if_present", "batch"):
        for end in ("written", "settled", "OutcomeUnknown"):
            assert ends[f"{kind}:{end}"] >= 3, (kind, end, ends)
    assert ends["if_version:VersionConflict"] >= 3
    assert ends["if_absent:VersionConflict"] >= 3


def doubt_of(*versions: str | None) -> Doubt:
    doubt = Doubt("k")
    for version in versions:
        doubt.add(Reading(Meaning.UNKNOWN, "a", {"version": version}))
    return doubt


HAPPENED, NEVER, UNCLEAR = "happened", "never", "unclear"


@pytest.mark.parametrize(
    ("attempts", "seen", "one_key", "expected"),
    [
        (["2.a-5"], "2.a-5", True, HAPPENED),
        (["2.a-5"], "2.a-5", False, HAPPENED),
        ([None, "2.a-5"], "2.a-5", True, HAPPENED),
        (["2.a-5"], "2.a-6", True, HAPPENED),  # its leader wrote upon it
        (["2.a-5"], "2.a-6", False, UNCLEAR),  # but of a batch the rest may be lost
        (["2.a-5"], "3.b-6", True, UNCLEAR),
        (["2.a-5"], "2.a-4", True, NEVER),
        (["2.a-5"], "1.c-9", True, NEVER),
        (["2.a-5"], "1.c-9", False, UNCLEAR),
        (["2.a-5", "3.a-7"], "1.c-9", True, NEVER),
        (["2.a-5", None], "1.c-9", True, UNCLEAR),  # the other attempt may have that very version
        ([None], "1.c-9", True, UNCLEAR),
        (["2.a-5"], None, True, UNCLEAR),
    ],
)
def test_what_a_version_that_is_read_says_of_a_write(
    attempts: list[str | None], seen: str | None, one_key: bool, expected: str
) -> None:
    shown = None if seen is None else Version.parse(seen)
    verdict = judge(doubt_of(*attempts), shown, one_key=one_key)
    if verdict is None:
        assert expected == UNCLEAR
    else:
        assert expected == (NEVER if verdict == Verdict(None) else HAPPENED)


def quorum_not_met(version: str) -> Reply:
    return problem("quorum_not_met", 503, version=version)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_conditional_write_that_was_confirmed_late_is_found_by_its_version(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        assert await client.put("k", 1, if_version="1.aa-1") == Written("1.aa-2")
        assert await client.put("k", 1, if_absent=True) == Written("1.aa-3")

    wire = Wire(
        script(
            a=[
                quorum_not_met("1.aa-2"),
                problem("version_conflict", 412, key="k", version="1.aa-2"),
                item("k", 1, "1.aa-2"),
                quorum_not_met("1.aa-3"),
                item("k", 1, "1.aa-3"),
            ]
        )
    )
    play(shell, scenario, wire, nodes="a:1")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_conditional_write_that_was_lost_with_its_leader_is_made_again(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        assert await client.put("k", 1, if_present=True) == Written("2.bb-9", 2)

    wire = Wire(script(a=[quorum_not_met("1.aa-5"), item("k", 0, "1.aa-1"), written("2.bb-9")]))
    play(shell, scenario, wire, nodes="a:1")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_write_whose_value_is_unique_is_waited_for_while_it_may_be_on_its_way(
    shell: Shell,
) -> None:
    async def scenario(client: Client) -> None:
        done = await client.put("lock", {"owner": "a1b2"}, if_absent=True, unique_value=True)
        assert done == Written("1.aa-7")

    lost, absent = httpx.ReadError("reset"), problem("not_found", 404)
    wire = Wire(script(a=[lost, absent, absent, absent, item("lock", {"owner": "a1b2"}, "1.aa-7")]))
    play(shell, scenario, wire, nodes="a:1")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_same_value_of_somebody_else_is_not_taken_for_ours(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(OutcomeUnknown) as caught:
            await client.put("lock", "locked", if_version="1.aa-1")
        assert caught.value.may_have_happened
        with pytest.raises(OutcomeUnknown):
            await client.put("flag", True, unique_value=True, if_absent=True)

    wire = Wire(
        script(
            a=[
                httpx.ReadError("reset"),
                problem("version_conflict", 412, key="lock", version="1.aa-2"),
                httpx.ReadError("reset"),
                item("flag", 1, "1.aa-9"),  # 1 is not true
            ]
        )
    )
    play(shell, scenario, wire, nodes="a:1")


@pytest.mark.parametrize("shell", SHELLS)
def test_what_cannot_be_looked_up_stays_unknown(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        for _ in range(2):
            with pytest.raises(OutcomeUnknown) as caught:
                await client.put("k", 1, if_absent=True, timeout_s=3)
            assert caught.value.version == "1.aa-2"

    wire = Wire(
        script(
            a=[
                quorum_not_met("1.aa-2"),
                problem("invalid_parameter", 422, field="consistency"),
                quorum_not_met("1.aa-2"),
                *[httpx.ConnectError("gone")] * 50,
            ]
        )
    )
    play(shell, scenario, wire, nodes="a:1")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_conditional_write_to_a_leader_that_sleeps_is_repeated_at_the_next(shell: Shell) -> None:
    async def scenario(client: Client) -> None:
        assert (await client.put("k", 1, if_version="1.aa-1")).version == "2.bb-2"

    replies = {"a": SILENCE, "b": not_leader("http://c:3"), "c": written("2.bb-2")}
    wire = Wire(lambda asked: replies[asked.node[7]])
    play(shell, scenario, wire)
    assert wire.seen[-1].headers["if-match"] == '"1.aa-1"'
