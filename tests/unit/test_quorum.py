"""A follower counts once, strangers never, and the quorum is met exactly when enough have counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trikv.model.quorum import AckCount, Voters, default_write_quorum, write_quorum_problem

FIVE = ["f1", "f2", "f3", "f4", "f5"]


def counting(required: int) -> AckCount:
    return AckCount([Voters(frozenset(["leader", *FIVE]), required)], FIVE)


@given(required=st.integers(0, 5), acks=st.lists(st.sampled_from(FIVE)))
def test_the_quorum_is_met_exactly_when_enough_followers_have_acknowledged(
    required: int, acks: list[str]
) -> None:
    count = counting(required)
    assert count.met is (required == 0)
    for index, follower in enumerate(acks):
        count.add(follower)
        assert count.acks == len(set(acks[: index + 1]))
        assert count.met is (count.acks >= required)


def test_a_follower_counts_once_however_often_it_acknowledges() -> None:
    count = counting(2)
    for _ in range(10):
        count.add("f1")
    assert (count.acks, count.met) == (1, False)


def test_a_quorum_stays_met() -> None:
    count = counting(1)
    for follower in FIVE:
        count.add(follower)
        assert count.met
    assert count.acks == 5


def test_a_node_that_is_no_follower_is_refused_by_name() -> None:
    count = counting(1)
    with pytest.raises(ValueError, match="stranger"):
        count.add("stranger")
    assert (count.acks, count.met) == (0, False)


def test_a_count_of_strangers_breaks_the_invariant() -> None:
    count = counting(1)
    count.acked.add("stranger")
    with pytest.raises(AssertionError, match="no follower"):
        count.check_invariants()


@pytest.mark.parametrize(("followers", "quorum"), [(0, 0), (1, 1), (2, 2), (3, 3), (5, 3), (99, 3)])
def test_the_default_is_3_or_all_there_are(followers: int, quorum: int) -> None:
    assert default_write_quorum(followers) == quorum
    assert write_quorum_problem(quorum, followers) is None


@pytest.mark.parametrize(("quorum", "followers"), [(-1, 5), (6, 5), (1, 0), (10**30, 5)])
def test_a_quorum_beyond_the_followers_is_a_problem_that_names_the_range(
    quorum: int, followers: int
) -> None:
    problem = write_quorum_problem(quorum, followers)
    assert problem is not None
    assert f"0 (asynchronous) to {followers}" in problem


def test_a_quorum_that_is_taken_for_met_breaks_the_invariant() -> None:
    count = counting(2)
    count._met = True
    with pytest.raises(AssertionError, match="not"):
        count.check_invariants()


def test_of_each_voters_only_the_members_count() -> None:
    old, new = frozenset(["leader", "f1", "f2"]), frozenset(["leader", *FIVE])
    count = AckCount([Voters(old, 2), Voters(new, 3)], FIVE)
    for follower in ("f3", "f4", "f5", "f1"):
        count.add(follower)
        assert not count.met
    count.add("f2")
    assert count.met
