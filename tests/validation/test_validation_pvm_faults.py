"""Is the table read as it stands, and what grows with the processes?"""

import csv
from pathlib import Path

import pytest

from vmsim.scenario import load_cpu
from vmsim.validation.pvm_faults import Chunks, measured, seconds
from vmsim.workloads import Op

DATA = Path(__file__).parents[2] / "vmsim/validation/data/pvm23_faults.csv"
PAGES = 1 << 20  # of 4 GiB


def test_the_table_is_read_as_it_stands() -> None:
    assert len(measured()) == len(list(csv.DictReader(DATA.open())))
    assert measured()["fig10", "EPT", 4] == 6.9
    assert measured()["fig4", "SPT", 16] == 21.0


def test_each_process_maps_writes_and_unmaps_its_own() -> None:
    first, second = Chunks(2, 2).chunks(1)
    assert [event.op for event in first.events] == [Op.SWITCH, Op.MAP, Op.UNMAP]
    assert {event.pid for event in (*first.events, *second.events)} == {3}
    assert [event.op for event in second.events] == [Op.MAP, Op.UNMAP]
    assert len({*first.address.tolist()}) == 256


def test_one_process_takes_its_fault_under_ept_and_exits_besides_under_a_shadow() -> None:
    cost = load_cpu("cascade-lake").cost
    fault = cost.fault_delivery + 5000 + cost.zero_page + cost.unmap_page
    ept = seconds("ept", 1, 5000, rounds=4)
    assert ept * 2.5e9 / PAGES == pytest.approx(fault, rel=0.05)
    one, two = (seconds("shadow", 1, 5000, scale, rounds=4) - ept for scale in (1.0, 2.0))
    exits = 2 * (cost.page_fault_exit + cost.vm_entry)
    assert one * 2.5e9 / PAGES > exits
    assert one < two < 2 * one  # the hardware's part is not scaled


def test_more_processes_wait_for_one_lock_under_a_shadow_alone() -> None:
    assert seconds("ept", 4, 0, rounds=4) == pytest.approx(seconds("ept", 1, 0, rounds=4), rel=0.02)
    few, many = (seconds("shadow", count, 0, 4.0, rounds=4) for count in (1, 8))
    assert many > 1.2 * few
