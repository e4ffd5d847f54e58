"""Is the table read as it stands, and does each first write and each split cost what it should?"""

import pytest

from vmsim.scenario import load_cpu
from vmsim.validation import eager_split
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
    table = COST.violation_pool + COST.table_page + COST.zero_page
    assert none.split == pytest.approx(table, rel=0.2)  # and the last reading's kick
    assert fitted() == pytest.approx((1.55 * 2.1e9 / 49152 - none.split) / 512, abs=1)


def test_each_first_write_is_a_violation_unless_the_processor_notes_it() -> None:
    """But for those that split a large page, which are few, and one vCPU, whose lines are its own."""
    fault = COST.vm_exit + COST.violation_walk + COST.violation_entry + COST.violation_rmap + COST.violation_resume
    one, eager = logged("one", 20, 1, 128), logged("eager", 20, 1, 128)
    assert one.faults == pytest.approx(PAGES * fault, rel=0.03)
    assert eager.faults < one.faults / 50
    assert one.writing > one.faults
    assert one.split == 0


def test_vcpus_wait_for_the_locks_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice each for every write, and the line serves one at a time: that is what makes the row."""
    there = measured()["s", "split on fault"] * 2.1e9
    assert abs(logged("one", 127).writing / there - 1) < 0.3
    many = logged("one", 127, 64).writing
    assert many == pytest.approx(PAGES * 2 * 64 * COST.line_transfer, rel=0.15)
    monkeypatch.setattr(eager_split, "_CPU", "sandy-bridge")  # for whose lines there is no figure
    assert logged("one", 126, 64).writing < many / 3
