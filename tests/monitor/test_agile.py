"""When does a table change sides under agile paging, and what exits then, and what does not?"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from tests.monitor.agile_world import ENDS, AgileWorld
from tests.oracle.bits import RW, SWITCH, US, A, D, P, span
from vmsim.machine.layout import Count
from vmsim.monitor.agile.mode import AgileSpec

ROOT, UPPER, MIDDLE, TABLE, OTHER, TWIN = (gfn << 12 for gfn in (8, 9, 10, 11, 12, 13))
OPEN = P | RW | US
ELSEWHERE = span(2)  # a gva that OTHER maps
COUNTS = Path(__file__).parents[2] / "vmsim/validation/data/reference_counts.csv"


def world(threshold: int = 2, *, back: str = "clean", **rest: int) -> AgileWorld:
    """Return four levels of tables, with two of the last; each maps two pages, and all have been read."""
    made = AgileWorld(AgileSpec(threshold=threshold, back=back, root_cache=rest.pop("root_cache", 0)), pcid=True)  # type: ignore[arg-type]
    made.store((ROOT, UPPER | OPEN), (UPPER, MIDDLE | OPEN), (MIDDLE, TABLE | OPEN), (MIDDLE + 8, OTHER | OPEN))
    made.store(*((table + 8 * n, (600 + n) << 12 | OPEN) for table in (TABLE, OTHER) for n in range(2)))
    made.load_root(ROOT)
    for gva in (0, 4096, ELSEWHERE, ELSEWHERE + 4096):
        assert made.access(gva) is None
    made.tick()
    made.shadow.forget()
    return made


def page(number: int, bits: int = OPEN | A) -> int:
    return number << 12 | bits


def test_a_table_goes_over_with_the_store_that_reaches_the_threshold() -> None:
    guest = world(threshold=3)
    guest.store((TABLE, page(700)), (TABLE, page(701)))
    assert not guest.nested
    guest.store((TABLE, page(702)), (TABLE, page(703)), (TABLE + 8, page(704)))
    assert guest.nested == {TABLE >> 12: 1}
    assert guest.exits == {"PT_WRITE": 3}
    guest.invalidate(0, ENDS)
    assert guest.access(0) is None
    assert guest.translate(0) == guest.host_of(0)
    assert guest.exits == {"PT_WRITE": 3, "SHADOW_FILL": 1}  # the entry that switches
    guest.audit()
    guest.conserved()


def test_stores_to_two_tables_are_counted_apart() -> None:
    guest = world(threshold=2)
    guest.store((TABLE, page(700)), (OTHER, page(701)))
    assert not guest.nested


def test_what_hangs_below_goes_along_and_nobody_sees_it_edited() -> None:
    guest = world()
    guest.store((MIDDLE + 16, TWIN | OPEN), (MIDDLE + 24, TWIN | OPEN))
    assert guest.nested == {MIDDLE >> 12: 2}
    guest.shadow.forget()
    guest.store((TABLE, page(700)), (OTHER, 0), (TWIN, page(701)))
    guest.conserved()
    assert not {TABLE >> 12, OTHER >> 12} & set(guest.guarded_frames())
    guest.invalidate(0, ENDS)
    assert [guest.access(gva) for gva in (0, ELSEWHERE, 2 * ELSEWHERE)] == [None, 4, None]
    assert guest.exits == {"SHADOW_FILL": 1}  # the fault at ELSEWHERE went to the guest at once
    guest.audit()
    guest.conserved()


def test_below_a_nested_table_a_first_write_is_no_exit() -> None:
    nested, shadowed = world(), world()
    nested.store((TABLE, page(700)), (TABLE, page(600)))
    for guest in (nested, shadowed):
        guest.invalidate(0, ENDS)
        assert guest.access(0) is None
        guest.shadow.forget()
        assert guest.access(0, write=True) is None
        assert guest.load(TABLE) == [page(600, OPEN | A | D)]
    assert (nested.exits, shadowed.exits) == ({}, {"SHADOW_FILL": 1})


def test_a_clean_table_goes_back_when_the_interval_ends_and_a_dirty_one_stays() -> None:
    guest = world()
    guest.store((TABLE, page(700)), (TABLE, page(701)), (OTHER, page(702)), (OTHER, page(703)))
    guest.invalidate(0, ENDS)
    assert [guest.access(gva) for gva in (0, ELSEWHERE)] == [None, None]  # the shadow switches to both
    guest.tick()
    assert guest.nested == {TABLE >> 12: 1, OTHER >> 12: 1}  # they were stored to in the interval that has ended
    guest.store((OTHER, page(704)))
    guest.tick()
    assert guest.nested == {OTHER >> 12: 1}
    guest.audit()
    guest.shadow.forget()
    guest.store((TABLE, page(705)))
    assert guest.exits == {}  # its shadow comes with the next access
    guest.invalidate(0, ENDS)
    assert guest.access(0) is None
    guest.store((TABLE, page(706)))
    assert guest.exits == {"SHADOW_FILL": 1, "PT_WRITE": 1}
    guest.tick()
    assert guest.exits["AGILE_SCAN"] == 1
    assert not guest.nested
    guest.audit()
    guest.conserved()


def test_with_back_all_dirty_tables_go_back_too() -> None:
    guest = world(back="all")
    guest.store((OTHER, page(702)), (OTHER, page(703)), (OTHER, page(704)))
    guest.invalidate(0, ENDS)
    assert guest.access(ELSEWHERE) is None
    guest.tick()
    assert not guest.nested
    guest.audit()


def test_of_a_part_that_goes_back_what_is_dirty_stays() -> None:
    guest = world()
    guest.store((UPPER + 8, 0), (UPPER + 8, 0))
    assert guest.access(0) is None
    guest.tick()
    guest.store((TABLE, page(700)))
    assert guest.nested == {UPPER >> 12: 3}
    guest.tick()
    assert guest.nested == {TABLE >> 12: 1}
    guest.invalidate(0, ENDS)
    assert [guest.access(gva) for gva in (0, ELSEWHERE)] == [None, None]
    guest.audit()
    guest.conserved()


def test_an_interval_forgets_the_stores_of_the_one_before() -> None:
    guest = world()
    guest.store((TABLE, page(700)))
    guest.tick()
    guest.store((TABLE, page(701)))
    assert not guest.nested
    guest.store((TABLE, page(702)))
    assert guest.nested


def test_a_table_written_over_begins_in_the_shadow() -> None:
    guest = world()
    guest.store((TABLE, page(700)), (TABLE, page(701)))
    guest.invalidate(0, ENDS)
    assert guest.access(0) is None
    guest.clear(TABLE >> 12)
    assert not guest.nested
    guest.audit()
    guest.flush()
    assert guest.access(0) == 4
    guest.audit()
    guest.conserved()


def test_the_root_may_go_over_and_come_back() -> None:
    guest = world()
    guest.store((ROOT + 8, 0), (ROOT + 8, 0))
    assert guest.nested == {ROOT >> 12: 4}
    assert int(guest.registers["cr3"][0]) & SWITCH
    guest.shadow.forget()
    assert [guest.access(gva) for gva in (0, ELSEWHERE)] == [None, None]
    assert guest.exits == {}
    guest.conserved()
    guest.tick()
    guest.tick()
    assert not int(guest.registers["cr3"][0]) & SWITCH
    assert guest.access(0) is None
    assert guest.audit() == 1
    guest.conserved()


def test_a_switch_to_a_nested_root_points_to_the_guests_own_table() -> None:
    guest = world()
    guest.store((ROOT + 8, 0), (ROOT + 8, 0), (TWIN, UPPER | OPEN))
    guest.load_root(TWIN)
    assert not int(guest.registers["cr3"][0]) & SWITCH
    assert guest.access(0) is None
    guest.load_root(ROOT)
    assert guest.access(0) is None
    guest.audit()
    guest.conserved()


@pytest.mark.parametrize(("remembered", "exits"), [(0, 4), (1, 4), (2, 0)])
def test_hardware_that_remembers_roots_loads_them_without_exits(remembered: int, exits: int) -> None:
    guest = world(root_cache=remembered)
    guest.store((TWIN, UPPER | OPEN))
    for root in (TWIN, ROOT):
        guest.load_root(root)
        assert guest.access(0) is None
    guest.shadow.forget()
    for root in (TWIN, ROOT, TWIN, ROOT):
        guest.load_root(root)
        assert guest.access(0) is None
    assert guest.exits.get("CR3", 0) == exits


def cold_references(guest: AgileWorld) -> int:
    guest.flush()
    guest.cores["pde"]["tag"] = guest.cores["pdpte"]["tag"] = -1
    for unit in ("nested_pde", "nested_pdpte", "nested_pml4e"):
        guest.cores[unit]["tag"] = -1
    before = guest.registers["refs"].sum()
    walks = int(guest.registers["counters"][0, Count.WALKS])
    assert guest.access(0) is None
    assert int(guest.registers["counters"][0, Count.WALKS]) == walks + 1
    return int(guest.registers["refs"].sum() - before)


def test_a_walk_is_longer_for_each_level_that_is_nested_as_the_paper_counts() -> None:
    with COUNTS.open() as file:
        rows = [row for row in csv.DictReader(file) if row["case"].startswith("agile")]
    table_6 = {int(re.findall(r"\d", row["case"])[0]): int(row["references"]) for row in rows}
    seen = {}
    for nested, edited in enumerate((None, TABLE, MIDDLE, UPPER, ROOT)):
        guest = world()
        if edited:
            guest.store((edited + 24, 0), (edited + 24, 0))
        assert guest.access(0) is None
        seen[nested] = cold_references(guest)
    assert seen == {number: table_6[number] for number in seen} == {0: 4, 1: 8, 2: 12, 3: 16, 4: 20}
