"""Does a scan of page tables load each entry once, as a kernel's nested loops do?"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import numpy as np
import pytest

from tests.machine.worlds import memory
from tests.oracle.bits import ADDRESS, PS, span
from tests.oracle.tables import load, place_of
from vmsim.frames.buddy import make_zone
from vmsim.machine.formats import reach
from vmsim.tables.backing import IDENTITY
from vmsim.tables.edit import map_pages
from vmsim.tables.listing import scan_entries

FRAMES = 4096
BITS = 0x67
ROOT = 1 << 12
ROOM = {2: 1030, 3: 518, 4: 518, 5: 518}  # the least that a scan wants


class Words:
    """The memory as the plain reader wants it."""

    def get(self, hpa: int, default: int = 0) -> int:
        return int(memory()[hpa >> 3])


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    memory()[: FRAMES << 9] = 0


def build(levels: int, pages: list[tuple[int, int]]) -> None:
    """Map pages, each a gva and the level of its entry, in tables of so many levels whose root lies in frame 1."""
    _, frames = make_zone(FRAMES)
    free = 2
    for gva, level in pages:
        large = np.array([1024 if level > 1 else 7])  # data has no contents, and need not exist
        tables = np.arange(free, free + 4)
        free += int(map_pages(memory(), frames, ROOT, levels, level, IDENTITY, gva, large, tables, BITS, BITS))


def loops(levels: int, table: int, level: int, start: int, first: int, limit: int, every: bool) -> Iterator[int]:
    """Yield where a kernel loads entries: one loop a level, as mm/pagewalk.c has them."""
    width = 10 if levels == 2 else 9
    size = span(level, width)
    for gva in range(max(start, first // size * size), min(start + 2**width * size, limit), size):
        place = place_of(table, levels, level, gva)
        entry = load(Words(), place, levels)
        if entry or every:
            yield place
        if entry and level > 1 and not entry & PS:
            yield from loops(levels, entry & ADDRESS, level - 1, gva, first, limit, every)


def scanned(levels: int, first: int, limit: int, every: bool, room: int) -> list[int]:
    found: list[int] = []
    address = first
    while address < limit:
        columns = [np.empty(room, np.int64) for _ in range(4)]
        address, count = scan_entries(memory(), ROOT, levels, IDENTITY, first, address, limit, every, *columns)
        found += columns[0][:count].tolist()
    return found


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(4))
def test_a_scan_loads_what_nested_loops_load_wherever_it_stops_between(levels: int, seed: int) -> None:
    random = Random(seed)
    ends = min(reach(levels), 1 << 47)
    spots = [0, 1 << 21, 1 << 22, 3 << 30, ends - (8 << 20)] + ([] if levels < 4 else [1 << 39, 5 << 40])
    pages = {spot % ends // 4096 * 4096 + 4096 * random.randrange(1500): 1 for spot in random.choices(spots, k=40)}
    large = span(2, 10 if levels == 2 else 9)
    pages = {gva: 1 for gva in pages if gva // large != 9} | {9 * large: 2}
    build(levels, sorted(pages.items()))
    for every in (False, True):
        for first, limit in [(0, 64 << 20), (5 << 12, 300 << 12), (0, ends)][: 2 if every else 3]:
            right = list(loops(levels, ROOT, levels, 0, first, limit, every))
            assert len(right) == len(set(right))
            for room in (ROOM[levels], 2048):
                assert scanned(levels, first, limit, every, room) == right


@pytest.mark.parametrize(("levels", "upper"), [(2, 4 + 1), (3, 2 + 8 + 1), (4, 1 + 2 + 8 + 1), (5, 1 + 1 + 2 + 8 + 1)])
def test_a_fork_scans_the_entries_above_its_pages_once(levels: int, upper: int) -> None:
    """67 pages: 64 of them 256 KiB apart, in the first 16 MiB, and 3 at 1 GiB.

    16 MiB are 4 tables of 4 MiB or 8 of 2 MiB, 1 GiB adds one, and each has an entry; those of 2 MiB lie in two
    directories, whose entries are the root's in PAE; one entry of level 4 leads to both, and one of level 5 to that.
    """
    build(levels, [(n << 18, 1) for n in range(64)] + [((1 << 30) + (n << 12), 1) for n in range(3)])
    assert len(scanned(levels, 0, min(reach(levels), 1 << 47), False, 2048)) == 67 + upper
