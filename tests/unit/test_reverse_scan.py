"""The way back through the map: all of it once, and after every page a state that the map was in."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trikv.storage.reverse_scan
from tests.unit.stored import held, merge, record
from trikv.model.record import Record
from trikv.model.version import NO_VERSION
from trikv.storage.reverse_scan import Place, read_back
from trikv.storage.store import Store

writes = st.lists(st.sets(st.sampled_from("abcdef"), min_size=1, max_size=3), max_size=4)


@given(before=writes, during=st.lists(writes, max_size=8), limit=st.integers(1, 4))
def test_a_follower_holds_after_every_page_what_the_map_held_from_some_version_on(
    before: list[set[str]], during: list[list[set[str]]], limit: int
) -> None:
    issued = 0
    meanwhile = iter(during)
    with (
        pytest.MonkeyPatch.context() as patch,
        closing(Store.open(None)) as leader,
        closing(Store.open(None)) as follower,
    ):
        patch.setattr(trikv.storage.reverse_scan, "MAX_NEWER_PAGES", 1)

        def write(groups: list[set[str]]) -> None:
            nonlocal issued
            for keys in groups:
                issued += 1
                merge(leader, [record(key, issued, f"{issued}") for key in keys])

        write(before)
        place: Place | None = None
        for _ in range(100):
            page = read_back(leader, NO_VERSION, place, limit, 10**6)
            then: list[Record] = held(leader)
            for some in (page.newer, page.older or []):
                merge(follower, some)
            if page.older is not None:
                oldest = min((one.version for one in held(follower)), default=NO_VERSION)
                assert held(follower) == [one for one in then if one.version >= oldest]
                if not page.older:
                    assert held(follower) == held(leader)
                    return
            place = page.place(place)
            write(next(meanwhile, []))
        pytest.fail("it comes to no end")
