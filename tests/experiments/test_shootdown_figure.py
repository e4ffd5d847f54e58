"""Does the shootdown figure's message hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

from vmsim.scenario.cpu_files import load_cpu

COST = load_cpu("skylake-x").cost
EXIT = COST.vm_exit + COST.violation_resume
PAGES = 16  # of 64 KiB


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("shootdown").data()
    return made.set_index(["paging", "work", "vcpus"]).sort_index()


def test_each_point_is_there_and_one_cpu_interrupts_nobody(table: pd.DataFrame) -> None:
    assert len(table) == 4 * 2 * 5
    alone = table.xs(1, level="vcpus")
    assert not alone[["cost", "shootdown", "interrupts", "merged", "kicks"]].to_numpy().any()


def test_the_cost_grows_with_the_cpus_but_for_a_vkernels(table: pd.DataFrame) -> None:
    for paging in ("native", "ept", "shadow"):
        for _, line in table.loc[paging, "cost"].groupby(level="work"):
            assert line.is_monotonic_increasing
    assert not table.loc["vkernel", ["cost", "interrupts"]].to_numpy().any()


def test_on_two_cpus_each_interrupt_costs_what_its_steps_sum_to(table: pd.DataFrame) -> None:
    """The sender sends and waits for the answer; the other answers: 16 pages, below the ceiling of 33."""
    answer = COST.ipi_handle + PAGES * COST.invlpg
    two = table.xs(2, level="vcpus").loc["native"]
    each = COST.ipi_send + COST.ipi_latency + 2 * answer
    assert two["shootdown"].to_numpy() == pytest.approx((two["interrupts"] * each).to_numpy(), rel=0.02)


def test_in_a_vm_whose_cpu_posts_interrupts_each_that_is_sent_is_an_exit(table: pd.DataFrame) -> None:
    for work in (200, 20_000):
        ept = table.loc["ept", work]
        added = ept["exits"] - ept["exits"][1]
        assert added.to_numpy() == pytest.approx(ept["interrupts"].to_numpy(), rel=0.01)
        lines = ept["exit_cycles"] - ept["exit_cycles"][1] - EXIT * ept["interrupts"]  # of mmu_lock, by each violation
        assert (lines[2:] / ept["exits"][1] / COST.line_transfer).between(0.95, 4).all()


def test_under_a_shadow_every_page_that_a_cpu_invalidates_is_an_exit(table: pd.DataFrame) -> None:
    """An exit to send, 16 to invalidate, and for most a kick: of each CPU that is asked, by an interrupt of its own.

    A CPU that is asked again before it has answered is two requests behind, and flushes all at once instead of page by
    page (Linux arch/x86/mm/tlb.c, flush_tlb_func, mm_tlb_gen): up to one in five here.
    """
    shadow = table.loc["shadow"].xs(16, level="vcpus")
    alone = table.loc["shadow"].xs(1, level="vcpus")
    asked = shadow["interrupts"] + shadow["merged"]
    added = (shadow["exits"] - alone["exits"] - shadow["interrupts"] - shadow["kicks"]) / asked
    assert (shadow["merged"] < asked / 5).all()
    assert (added > PAGES / 2).all()
    assert (added < PAGES + 1).all()
    assert (shadow["kicks"] > 0.5 * asked).all()
    ratio = (table.loc["shadow", "cost"] / table.loc["ept", "cost"]).dropna()
    assert len(ratio) == 8
    assert ratio.between(3.5, 6.5).all()


def test_an_interrupt_that_is_on_its_way_serves_other_senders_too(table: pd.DataFrame) -> None:
    merged = table.loc["native", 200]["merged"]
    assert merged[2] == 0
    assert merged.is_monotonic_increasing
    assert merged[16] > 0
