"""Is every verb good for every kind of page, of every size, in every mode; and what cell is empty for a reason?

A cell is a mode, a size of pages and a kind of page. In it all verbs are done in turn while two VMs run; that each verb
alone leaves no trace is in test_second_mmu.py, which is slow. What is not there at all is in `EMPTY`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.contract.hosts import MODES, Host, Turns, small, undisturbed
from tests.contract.test_programs import PROGRAMS
from tests.simulation.small import run
from vmsim.contracts import NO_FLUSH
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.host.native_memory import NativeMemory
from vmsim.scenario.modes import paging_modes

SIZES, KINDS = ("4K", "2M", "mixed"), ("data", "table", "shadowed", "root")
SHADOWING = ("shadow", "agile")

EMPTY = {
    ("ept", "shadowed"): "the processor walks the guest's own tables (SDM vol. 3C §30.3)",
    ("npt", "shadowed"): "the processor walks the guest's own tables (APM vol. 2 §15.25)",
    ("vkernel", "shadowed"): "DragonFly's host fills its pmap at faults and keeps no page for a table of the guest's "
    "(sys/vm/vm_fault.c, vm_fault_vpagetable)",
    ("paired", "shadowed"): "the processor walks the guest's own tables, which have its nested ones beside them",
}


def cells() -> list[Any]:
    """Return mode, size, kind of all cells of VMs, of which some are always run."""
    always = {("4K", "table"), ("4K", "shadowed"), ("mixed", "table"), ("mixed", "root")}
    return [
        pytest.param(mode, size, kind, marks=() if (size, kind) in always else pytest.mark.slow)
        for mode in MODES
        for size in SIZES
        for kind in KINDS
        if (mode, kind) not in EMPTY
    ]


@pytest.mark.parametrize(("mode", "size", "kind"), cells())
def test_every_verb_in_its_turn(mode: str, size: str, kind: str) -> None:
    what, turns = small(mode, size), Turns()
    calm, host = undisturbed(what), Host(what, turns, kind, 12_007)
    assert min(turns.done.values()) > 0, turns.done
    assert host.seen == calm.seen
    if size == "4K":
        assert host.faults == calm.faults


@pytest.mark.parametrize("mode", MODES)
def test_every_verb_in_its_turn_where_tables_have_copies(mode: str) -> None:
    """Each vCPU walks tables of its socket, and what is done to pages is done in all copies."""
    what, turns = small(mode, vcpus=2, copied=True), Turns()
    calm, host = undisturbed(what), Host(what, turns, "data", 12_007)
    assert min(turns.done.values()) > 0, turns.done
    assert host.seen.keys() == calm.seen.keys()
    for machine in host.simulation.vms:
        counts = machine.ledger.read().named("table_copies")
        assert counts["made"] == counts["freed"] >= 4  # one of each level
        assert counts["writes"] >= 24  # each page is mapped once at least
        assert counts["reads"] > 0  # to age pages, or to find dirty ones


def test_every_registered_mode_has_its_cells() -> None:
    """Of vmsim's own modes, native's are programs; modes from outside have the suite in tests/plugins."""
    assert {*paging_modes()} - {"prefault"} == {*MODES, "native"}
    assert {mode for mode, _ in EMPTY} | {*SHADOWING} == {*MODES}


@pytest.mark.parametrize("mode", [mode for mode, _ in EMPTY])
def test_who_keeps_no_shadows_has_no_shadowed_table(mode: str) -> None:
    host = Host(small(mode), Turns("age"), "table", 40_009)
    assert not any(hasattr(machine.monitor, "gfns") for machine in host.simulation.vms)


NOT_THEIRS = {
    "zap": "a program's entries are no second ones, behind which the host would still have the page: what is cleared "
    "is taken (mm/memory.c, zap_pte_range; the MMU notifiers are KVM's)",
    "protect": "likewise: who protects a program's pages is its own kernel (mprotect), and the log by it is KVM's",
    "dirty": "likewise: the host asks entries for D where a page is written to the swap device, with `take`",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_on_the_host_have_no_second_entries(program: str) -> None:
    """Not even those of a paired kernel: they mirror the program's own, and follow them."""
    keys = PROGRAMS[program]
    machine = Simulation(small("paired" if keys else "native", populate="lazy", **keys)).vms[0]
    assert isinstance(machine.pages, NativeMemory)
    assert [verb for verb in (*NOT_THEIRS, "age", "take") if hasattr(machine.pages.second, verb)] == ["age", "take"]


def test_large_pages_of_programs_are_left_whole() -> None:
    """No verb is done to a part of one; the host looks for small pages that one entry maps (`NativeMemory`)."""
    looked = []

    def look(simulation: Simulation) -> None:
        for machine in simulation.vms:
            pages = machine.pages
            if not machine.able or not isinstance(pages, NativeMemory):
                continue
            frames = pages.records
            data = np.flatnonzero((frames["owner"] == pages.owner) & (frames["state"] == State.GUEST))
            whole = np.setdiff1d(data, pages.present())
            assert not pages.holds_each(whole).any()
            assert (pages.find(whole) == -1).all()
            assert pages.take_each(whole) == NO_FLUSH
            looked.append(len(whole))

    _, outcome = run(small("native", "2M", populate="lazy", memory="16MiB"), every=40_009, look=look)
    assert outcome.ending is None
    assert max(looked) >= 512
