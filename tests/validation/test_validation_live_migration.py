"""Are the tables read as they stand, and is all of a guest's memory zeros, sent or skipped?"""

import pytest

from vmsim.validation.live_migration import Copied, Idle, copied, measured, seconds

MIB = 1 << 20


def test_the_tables_are_read_as_they_stand() -> None:
    table = measured()
    assert (table["rate"], table["total time"], table["idle"]) == (1387941, 3064, 2000)
    assert (table["duplicate (zero) pages"], table["normal pages"]) == (4198330, 283)


def test_a_program_writes_each_page_once_and_then_waits() -> None:
    (chunk,) = Idle(3).chunks()
    assert len({*chunk.address.tolist()}) == 3
    assert chunk.events[0].position == 3


@pytest.mark.parametrize("hinting", [False, True])
def test_all_pages_are_zeros_or_sent_or_hinted(hinting: bool) -> None:
    found = copied(1024 * MIB, 128 * MIB // 4096, hinting=hinting)
    assert sum(found) == 1024 * MIB // 4096
    assert found.normal == pytest.approx(128 * MIB // 4096, rel=0.03)  # and its tables
    assert found.skipped == pytest.approx((896 * MIB // 4096) * hinting, rel=0.1)


def test_a_page_that_takes_twice_as_long_shows() -> None:
    pages = Copied(1000, 100, 10)
    assert seconds(pages, 1e-6, 4096e6) == pytest.approx(1.1e-3)
    assert seconds(pages, 2e-6, 4096e6) == pytest.approx(2.1e-3)
    assert seconds(pages, 1e-6, 2048e6) == pytest.approx(1.2e-3)
