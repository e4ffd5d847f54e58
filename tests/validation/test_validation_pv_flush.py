"""Are the tables read as they stand, and does a record cost its faults, its discard and what is fitted?"""

import pytest

from vmsim.validation.pv_flush import Ebizzy, measured, overcommitted, records

PAGES = 128


def test_the_tables_are_read_as_they_stand() -> None:
    assert measured() == {(1, False): 46799, (1, True): 48670, (2, False): 23962}
    assert overcommitted() == (1700, 1800)


def test_each_record_is_written_and_discarded_by_threads_that_begin_one_after_the_other() -> None:
    stream = Ebizzy(4, 3)
    chunks = [*stream.chunks(2)]
    assert [int(chunk.count.sum()) for chunk in chunks] == [1 + 2 * PAGES // 4, PAGES, PAGES, PAGES]
    (discard,) = chunks[1].events
    assert (discard.position, discard.length) == (PAGES, PAGES * 4096)
    assert discard.address == chunks[1].address[0]
    assert stream.accesses == 4 * 3 * PAGES + sum(1 + thread * PAGES // 4 for thread in range(4))


def test_a_cycle_more_for_each_page_takes_as_many_longer_for_a_record() -> None:
    few, many = (64 * 2.6e9 / records(1, compute, rounds=4) for compute in (20_000, 30_000))
    assert many - few == pytest.approx(10_000 * PAGES, rel=0.02)


def test_two_vms_share_what_one_has() -> None:
    one, two = (records(vms, 20_000, rounds=4) for vms in (1, 2))
    assert two == pytest.approx(one / 2, rel=0.15)
