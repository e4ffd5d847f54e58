"""Is the table read as it stands, and does a batch make one interrupt of many?"""

import pytest

from vmsim.host.native_memory import NativeMemory
from vmsim.validation.migrate_pages import BATCH, measured, migrated

PAGES = 1024


def test_the_table_is_read_as_it_stands() -> None:
    assert (measured(), BATCH) == (-99.1, 512)


def test_all_pages_go_and_processors_are_interrupted_once_a_batch() -> None:
    one, many = migrated(1, PAGES), migrated(BATCH, PAGES)
    assert one.pages == many.pages == PAGES
    assert one.interrupts % PAGES == 0
    assert many.interrupts * BATCH == one.interrupts > 0
    assert many.cycles < one.cycles


def test_a_mover_that_flushes_each_page_of_a_batch_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NativeMemory, "flushes_each", True)
    one, many = (migrated.__wrapped__(batch, PAGES).interrupts for batch in (1, BATCH))
    there = measured()
    assert abs(100 * (many / one - 1) - there) > 0.2 * abs(there)
