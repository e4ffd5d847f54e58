"""Does the message of the reclaimed-page figure hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

from vmsim.scenario.cpu_files import load_cpu

COST = load_cpu("skylake-x").cost
WALKED = ["ept", "npt", "paired"]  # by the hardware, both tables


@pytest.fixture(scope="module")
def figure(figure_of: Callable[[str], SimpleNamespace]) -> SimpleNamespace:
    return figure_of("reclaimed-page")


@pytest.fixture(scope="module")
def table(figure: SimpleNamespace) -> pd.DataFrame:
    made: pd.DataFrame = figure.data()
    return made.set_index(["vcpus", "paging"])


@pytest.fixture(scope="module")
def total(figure: SimpleNamespace, table: pd.DataFrame) -> pd.Series:
    return table[list(figure.PARTS)].sum(axis=1)


def test_in_each_mode_thousands_of_pages_go_and_come_back(table: pd.DataFrame, figure: SimpleNamespace) -> None:
    assert {paging for _, paging in table.index} == {*figure.MODES}
    assert table["back"].between(7_000, 8_200).all()
    assert (table["taken"] >= table["back"]).all()


def test_what_comes_back_costs_an_exit_and_its_work(table: pd.DataFrame) -> None:
    """By hand. A page that was swapped out comes from the host itself, past the pool: no violation_pool.

    Half of the accesses are reads. A page that comes back by one is mapped to be read, and most of those pages are
    written to before they are taken again: a second violation, which finds the page. Of several vCPUs each of these
    may wait for the lock's cache line twice.
    """
    exit_cycles = COST.vm_exit + COST.violation_walk + COST.violation_entry + COST.violation_rmap
    for vcpus in (1, 4):
        there = table.loc[vcpus]["return"]
        for paging in WALKED:
            back = exit_cycles + COST.violation_resume + COST.swap_page
            written = COST.vm_exit + COST.violation_walk + COST.violation_pool + COST.violation_entry
            written += COST.violation_resume
            lines = 1.5 * 2 * COST.line_transfer if vcpus > 1 and paging != "vkernel" else 0
            assert back + 0.25 * written < there[paging] < back + 0.5 * written + lines
        assert (there[["shadow", "agile"]] > 1.7 * there["ept"]).all()


def test_a_program_on_the_host_pays_a_page_fault_and_waits_for_a_frame(
    table: pd.DataFrame, figure: SimpleNamespace
) -> None:
    """By hand. With four threads some pages are faulted on by two; who finds no free frame waits for the host."""
    runs = figure.EXPERIMENT.table()
    runs = runs[runs["paging"] == "native"].set_index(["vcpus", "memory"])
    for vcpus in (1, 4):
        short, enough = runs.loc[(vcpus, 10 << 20)], runs.loc[(vcpus, 64 << 20)]
        faults, waits = (short[name] - enough[name] for name in ("guest_faults", "host_wait_cycles"))
        hand = faults * (COST.fault_delivery + COST.guest_fault + COST.swap_page) + waits
        assert table.loc[(vcpus, "native"), "return"] == pytest.approx(hand / short["back"], rel=0.002)


def test_with_one_vcpu_kicks_are_few_and_with_four_they_and_the_host_are_most(
    table: pd.DataFrame, total: pd.Series
) -> None:
    share = table["kicks"] / total
    assert (share.loc[1] < 0.25).all()
    assert (share.loc[4, WALKED] > 0.4).all()
    host = table["host"] / total
    assert (host.loc[4, WALKED] > 0.3).all()  # waiting for them, mmu_lock held
    assert ((share + host).loc[4, WALKED] > 0.85).all()


def test_a_vm_pays_four_times_as_much_with_four_vcpus_and_a_program_hardly_more(total: pd.Series) -> None:
    more = total.loc[4] / total.loc[1]
    assert more[WALKED].between(4, 5).all()
    assert more["native"] < 1.2
    assert total.loc[4, "native"] < total.loc[4, "ept"] / 8
    assert (total.loc[4].drop("native") > 5 * total.loc[4, "native"]).all()


def test_walks_for_what_processors_forgot_are_no_part_of_it(table: pd.DataFrame, total: pd.Series) -> None:
    assert (table["walks"] < 0.02 * total).all()
