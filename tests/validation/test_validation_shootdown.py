"""Is the table read as it stands, one number fitted, and does a shootdown grow with the threads as its steps say?"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from vmsim.scenario.cpu_files import load_cpu
from vmsim.validation.shootdown import Discarding, FlushLoops, loop_cycles, measured, sweep
from vmsim.workloads import Op

DATA = Path(__file__).parents[2] / "vmsim/validation/data/tlb_flush_micro.csv"


def test_the_table_is_read_as_it_stands() -> None:
    table = measured()
    assert len(table) == sum(1 for _ in csv.DictReader(DATA.open()))
    assert sorted(table.values()) == [661, 1436, 527_000, 731_000]


def test_the_presets_interrupt_is_the_difference_of_the_two_rows() -> None:
    """775 ns at 3.4 GHz, with the page that is forgotten in it."""
    cost = load_cpu("haswell").cost
    assert cost.ipi_send + cost.ipi_latency + cost.ipi_handle + cost.invlpg == round(0.775 * 3400)


@pytest.mark.parametrize("threads", [2, 4])
def test_one_more_thread_is_one_more_interrupt_to_send(threads: int) -> None:
    """On the hardware: sent to each, and one answer waited for."""
    cost = load_cpu("haswell").cost
    alone = loop_cycles("haswell", Discarding, 1, rounds=16)
    answer = cost.ipi_latency + cost.ipi_handle + cost.invlpg
    more = loop_cycles("haswell", Discarding, threads, rounds=16) - alone
    assert more == pytest.approx((threads - 1) * cost.ipi_send + answer, rel=0.01)


def test_in_a_vm_each_interrupt_is_an_exit_as_well() -> None:
    cost, hertz = load_cpu("haswell").cost, load_cpu("haswell").frequency
    row = sweep("haswell", "ept", (4, 8))
    each = (row[8] - row[4]) / 4 * hertz / 1e6
    assert each == pytest.approx(cost.ipi_send + cost.vm_exit + cost.violation_resume, rel=0.02)


def test_the_loop_is_that_of_tlb_flush2() -> None:
    """Its source: mmap; for each of 256 pages a write, madvise and a read; munmap."""
    stream = FlushLoops(2, 512)
    made = [(event.op, event.length // 4096) for chunk in stream.chunks(1) for event in chunk.events]
    one = [(Op.MAP, 256), *[(Op.DISCARD, 1)] * 256, (Op.UNMAP, 256)]
    assert made == one * 2
    assert stream.accesses == 2 * 2 * 512
