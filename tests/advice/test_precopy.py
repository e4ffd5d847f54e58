"""Does the arithmetic of pre-copy agree with rounds done by hand?"""

import pytest

from vmsim.advice.precopy import Migration, Written, migrate


def test_rounds_halve_what_is_left_where_half_of_the_link_is_written_to() -> None:
    """1000 bytes at 200 a second, 100 written to in each: 5, 2.5 and 1.25 s leave 500, 250 and 125."""
    found = migrate(1000, lambda seconds: 100 * seconds, 200, 1)
    assert found == Migration(True, 3, 8.75, 125)


def test_what_fits_in_the_downtime_takes_no_round() -> None:
    assert migrate(200, lambda seconds: 1e9, 200, 1) == Migration(True, 0, 0, 200)


def test_who_writes_faster_than_the_link_carries_never_gets_below_its_memory() -> None:
    found = migrate(1000, lambda seconds: min(1000, 300 * seconds), 200, 1)
    assert (found.converges, found.left) == (False, 1000)


def test_a_small_set_of_pages_that_is_always_written_to_converges_if_it_fits_in_the_downtime() -> None:
    """A working set of 150: the first round leaves it, and it takes 0.75 s at 200 a second."""
    assert migrate(1000, lambda seconds: 150, 200, 0.75) == Migration(True, 1, 5, 150)
    never = migrate(1000, lambda seconds: 150, 200, 0.7)
    assert (never.converges, never.left) == (False, 150)


def test_between_readings_it_is_a_power_of_the_time_and_beyond_them_it_has_bounds() -> None:
    written = Written([(1, 100), (4, 200)], memory=450)
    assert written.most(2) == written.least(2) == pytest.approx(100 * 2**0.5)  # 100 t^(1/2)
    assert (written.least(8), written.most(8)) == (200, 400)
    assert written.most(9) == 450  # 200 + 200 + at most 100, of 450 that there are
    assert (written.least(0.5), written.most(0.5)) == (50, 100)
