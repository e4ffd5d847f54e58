"""Do regions say of every page what was last said of it, in as few pieces as can be?"""

from __future__ import annotations

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from vmsim.guest.regions import Regions

PAGES = 24
SPAN = st.tuples(st.integers(0, PAGES), st.integers(0, PAGES)).map(lambda ends: (min(ends), max(ends)))
STEPS = st.lists(st.tuples(SPAN, st.sampled_from([None, 0, 1, 3])), max_size=25)


@given(STEPS)
def test_every_page_has_the_protection_last_given_to_it(steps: list[tuple[tuple[int, int], int | None]]) -> None:
    regions, pages = Regions(), [None] * PAGES
    for (start, end), rights in steps:
        if rights is None:
            regions.remove(start, end)
        else:
            regions.declare(start, end, rights)
        pages[start:end] = [rights] * (end - start)  # type: ignore[list-item]
        assert [regions.at(page) for page in range(PAGES)] == pages
        runs = [(rights, len(list(group))) for rights, group in groupby(pages)]
        assert [rights for _, _, rights in regions] == [rights for rights, _ in runs if rights is not None]


@given(STEPS, SPAN)
def test_the_parts_within_a_range_are_cut_to_it(
    steps: list[tuple[tuple[int, int], int | None]], span: tuple[int, int]
) -> None:
    regions = Regions()
    for (start, end), rights in steps:
        regions.declare(start, end, rights or 0)
    parts = regions.within(*span)
    told = {page: rights for start, end, rights in parts for page in range(start, end)}
    assert told == {page: regions.at(page) for page in range(*span) if regions.at(page) is not None}


def test_a_copy_is_its_own() -> None:
    regions = Regions()
    regions.declare(0, 10, 3)
    copy = regions.copy()
    copy.remove(2, 4)
    assert list(regions) == [(0, 10, 3)]
    assert list(copy) == [(0, 2, 3), (4, 10, 3)]
