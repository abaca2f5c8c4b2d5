"""Every takeover meets every confirmed write; what a change replaces is kept in mind; the difference is
named."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trikv.errors import SettingError
from trikv.model.membership import Configuration, check_change, decode, encode
from trikv.model.quorum import Voters

NAMES = [f"n{i}" for i in range(7)]


def members(count: int) -> dict[str, str | None]:
    return {name: f"http://{name}" for name in NAMES[:count]}


voters = st.integers(1, 7).flatmap(
    lambda n: st.builds(Voters, st.just(frozenset(NAMES[:n])), st.integers(0, n - 1))
)
configurations = st.builds(
    lambda own, previous: Configuration(members(len(own.members)), own.write_quorum, previous),
    voters,
    st.lists(voters, max_size=2).map(tuple),
)


@pytest.mark.parametrize("count", range(2, 7))
def test_any_takeover_quorum_meets_any_confirmed_write_and_one_less_does_not(count: int) -> None:
    everyone = frozenset(NAMES[:count])
    for write_quorum in range(1, count):
        voters = Voters(everyone, write_quorum)
        holders = [set(c) for c in combinations(everyone, write_quorum + 1)]
        enough = [set(c) for c in combinations(everyone, voters.takeover_quorum)]
        assert all(heard & held for heard in enough for held in holders)
        assert all(voters.lacking(heard) == 0 for heard in enough)
        less = [set(c) for c in combinations(everyone, voters.takeover_quorum - 1)]
        assert any(not heard & held for heard in less for held in holders)
        assert all(voters.lacking(heard) == 1 for heard in less)


def test_strangers_do_not_count_and_quorum_zero_needs_nobody() -> None:
    assert Voters(frozenset("abc"), 1).lacking({"x", "y", "z"}) == 2
    assert Voters(frozenset("abc"), 0).lacking(set()) == 0


@given(configurations)
def test_a_configuration_is_read_as_it_was_written(configuration: Configuration) -> None:
    assert decode(encode(configuration)) == configuration
    assert encode(decode(encode(configuration))) == encode(configuration)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "null",
        "[]",
        '{"members":3}',
        '{"write_quorum":1}',
        "x",
        '{"members":{"a":null},"write_quorum":1}',
    ],
)
def test_what_is_no_configuration_is_a_value_error(value: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(value)


@given(old=configurations, promised=st.sets(st.sampled_from(NAMES)), data=st.data())
def test_until_a_change_is_settled_a_takeover_satisfies_old_and_new(
    old: Configuration, promised: set[str], data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, len(old.members) - 1))
    new = old.changed_to(old.members, k, old.all_voters)
    assert set(new.all_voters) == {new.voters, *old.all_voters}
    assert new.lacking(promised) >= old.lacking(promised)
    assert new.lacking(promised) >= new.settled().lacking(promised)
    assert new.settled().all_voters == (new.voters,)


def test_a_change_back_forgets_nothing() -> None:
    three = Configuration(members(6), 3)
    one = three.changed_to(three.members, 1, three.all_voters)
    again = one.changed_to(one.members, 3, one.all_voters)
    assert {v.write_quorum for v in again.all_voters} == {3, 1}


def test_one_member_may_change_and_two_are_named() -> None:
    old = Configuration(members(4), 1)
    check_change(old, {"n0", "n1", "n2", "n3"})
    check_change(old, {"n0", "n1", "n2"})
    check_change(old, {"n0", "n1", "n2", "n3", "x"})
    with pytest.raises(SettingError, match=r"x is new, n3 is missing"):
        check_change(old, {"n0", "n1", "n2", "x"})
