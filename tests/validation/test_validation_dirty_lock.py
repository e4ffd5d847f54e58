"""Is the table read as it stands, and do vCPUs queue for the lock as a formula says?"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from vmsim.validation.dirty_lock import measured
from vmsim.validation.lock_queue import Writers, page_cycles

DATA = Path(__file__).parents[2] / "vmsim/validation/data/arm64_dirty_log22.csv"


def test_the_table_is_read_as_it_stands() -> None:
    rows = list(csv.DictReader(DATA.open()))
    assert len(measured()) == 2 * len(rows)
    assert [measured()["alone", vcpus] for vcpus in (1, 2, 4)] == [926, 1189, 2503]
    assert [measured()["read", vcpus] for vcpus in (1, 2, 4)] == [803, 843, 942]


def test_each_vcpu_writes_once_to_every_page_of_its_own() -> None:
    stream = Writers(2, 3)
    made = [[chunk.address.tolist() for chunk in stream.chunks(thread)] for thread in (0, 1)]
    first = stream.footprint()[0][0]
    assert made == [[[first + 4096 * page for page in pages]] for pages in ((0, 1, 2), (3, 4, 5))]


@pytest.mark.parametrize(
    ("vcpus", "held", "apart"), [(1, 2000, 1000), (2, 2000, 1000), (2, 1000, 3000), (4, 2000, 1000)]
)
def test_who_holds_it_alone_waits_for_the_others(vcpus: int, held: int, apart: int) -> None:
    """A closed queue of equal times: a page takes held + apart, or as long as the lock is held for all of them."""
    page = max(held + apart, vcpus * held)
    assert page_cycles("alone", vcpus, held, apart, 256) == pytest.approx(page, rel=0.07)


def test_who_holds_it_to_read_waits_for_nobody() -> None:
    one, four = (page_cycles("read", vcpus, 2000, 1000, 256) for vcpus in (1, 4))
    assert four == pytest.approx(one, rel=0.01)


@pytest.mark.parametrize("vcpus", [1, 2, 4, 16])
def test_readers_wait_for_cache_lines(vcpus: int) -> None:
    """A page takes one for the process's lock and one or two for the VM's, or two for every vCPU: one line is full."""
    line = 300
    alone, page = (page_cycles("read", count, 2000, 1000, 256, line=line) for count in (1, vcpus))
    assert alone == pytest.approx(2000 + 1000, rel=0.07)
    if vcpus == 1:
        assert page == alone
    elif 2 * vcpus * line < alone:
        assert alone + 2 * line < page < alone + 4 * line
    else:
        assert page == pytest.approx(2 * vcpus * line, rel=0.1)
