"""Is the table read as it stands, and does each first write and each split cost what it should?"""

import pytest

from vmsim.scenario import load_cpu
from vmsim.validation.eager_split import fitted, logged, measured

COST = load_cpu("cascade-lake").cost
PAGES = 1 << 18  # of 1 GiB


def test_the_table_is_read_as_it_stands() -> None:
    assert measured() == {
        ("s", "split on fault"): 2.94,
        ("CPU s", "split on fault"): 270,
        ("CPU s", "eager split"): 1.55,
        ("s", "without eager split"): 0.001,
    }


def test_a_split_costs_its_table_and_its_entries() -> None:
    none, one = logged("eager", 0, 2), logged("eager", 1, 2)
    assert one.split - none.split == 512
    assert none.split == pytest.approx(COST.violation_pool + COST.table_page, rel=0.2)  # and the last reading's kick
    assert fitted() == pytest.approx((1.55 * 2.1e9 / 49152 - none.split) / 512, abs=1)


def test_each_first_write_is_a_fault_unless_the_processor_notes_it() -> None:
    fault = COST.vm_exit + COST.violation_walk + COST.violation_entry + COST.violation_resume
    lazy, eager = logged("lazy", 20, 2), logged("eager", 20, 2)
    assert lazy.faults == pytest.approx(PAGES * fault + 512 * 512 * 20, rel=0.03)
    assert eager.faults < lazy.faults / 50
    assert lazy.writing > lazy.faults
    assert lazy.split == 0


def test_faults_that_cost_more_show() -> None:
    more = logged("lazy", 20 + 512, 2, 32).faults - logged("lazy", 20, 2, 32).faults
    assert more == pytest.approx(512 * 512 * 512, rel=0.04)  # and the split of the guest's tables
