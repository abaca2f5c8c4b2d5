"""Whom the nemesis may hurt: never more at a time than the promises allow."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice

import pytest

from loadgen.check.plan import KINDS
from loadgen.check.situation import Situation, most_disturbed, rounds

NAMES = ("a", "b", "c", "d", "e", "f")


def situation(quorum: int = 3) -> Situation:
    return Situation(NAMES, quorum, "a")


@pytest.mark.parametrize(("quorum", "most"), [(0, 1), (1, 1), (2, 2), (3, 2), (4, 1), (5, 1)])
def test_so_many_nodes_are_out_of_order_that_writes_are_still_confirmed(
    quorum: int, most: int
) -> None:
    assert most_disturbed(6, quorum) == most


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("quorum", [1, 2, 3, 4])
def test_a_walk_through_all_faults_keeps_the_bounds(quorum: int, seed: int) -> None:
    rng, now = random.Random(seed), situation(quorum)
    met: Counter[str] = Counter()
    under_way: list[tuple[str, ...]] = []
    for kind in islice(rounds(KINDS, rng), 300):
        while not (victims := now.victims(kind, rng)):
            now.disturbed.difference_update(over := under_way.pop(rng.randrange(len(under_way))))
            now.new.difference_update(over)
        assert not now.disturbed & set(victims)
        if kind == "takeover":
            assert now.leader not in now.disturbed
            assert victims[0] not in {now.leader, *now.new}
            victims, now.leader = (now.leader,), victims[0]
        if kind == "wipe":
            assert not now.new
            now.new.update(victims)
        if kind == "partition":
            assert now.leader not in {*victims, *now.disturbed}
        met[kind] += 1
        now.disturbed.update(victims)
        under_way.append(victims)
        # Alone, a partition may leave the leader one follower too few.
        most = most_disturbed(6, quorum)
        assert len(now.disturbed) <= most or (kind == "partition" and len(under_way) == 1)
    assert met == dict.fromkeys(KINDS, 60)


def test_every_node_is_hurt_and_the_leader_more_often_than_another() -> None:
    rng, now = random.Random(1), situation()
    hurt = Counter(now.victims("kill", rng) for _ in range(600))
    assert hurt.keys() == {(name,) for name in NAMES}
    assert hurt["a",] > 1.5 * max(hurt[name,] for name in NAMES[1:])


def test_now_and_then_a_partition_leaves_the_leader_with_too_few_followers() -> None:
    rng, now = random.Random(1), situation()
    sizes = Counter(len(now.victims("partition", rng)) for _ in range(300))
    assert sizes.keys() == {1, 2, 3}
    now.disturbed = {"f"}
    assert {len(now.victims("partition", rng)) for _ in range(100)} == {1}


def test_nothing_is_done_while_the_leader_and_another_are_disturbed() -> None:
    now = situation()
    now.disturbed = {"a", "b"}
    assert [now.victims(kind, random.Random(1)) for kind in KINDS] == [()] * 5


def test_no_kinds_are_no_rounds() -> None:
    assert list(rounds((), random.Random(1))) == []


def test_a_leader_dies_with_so_many_that_just_enough_are_left_to_take_over() -> None:
    rng, now = random.Random(1), situation()
    found = [now.companions("b", rng) for _ in range(100)]
    assert {len(companions) for companions in found} == {0, 2}
    assert {name for companions in found for name in companions} == {"c", "d", "e", "f"}
    assert situation(1).companions("b", rng) == ()


@pytest.mark.parametrize("state", ["disturbed", "new"])
def test_a_leader_dies_alone_while_another_node_is_out_of_order(state: str) -> None:
    now = situation()
    getattr(now, state).add("f")
    assert {now.companions("b", random.Random(seed)) for seed in range(50)} == {()}
