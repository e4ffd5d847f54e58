"""Does a process that becomes a VM while it runs go on as it was, and pay what its layout says?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle.paired import table_pages
from tests.simulation.small import READ, WRITE, Script, Step, run, scenario, time_adds_up, touches, vm
from vmsim.base.errors import InputError
from vmsim.contracts import Moment
from vmsim.engine.simulation import Simulation
from vmsim.monitor.paired.guest import PairedGuest

CPUS = [*((layout, "skylake-x") for layout in ("contiguous", "pointer", "separate")), ("shared", "zen4")]
PROGRAM: list[Step] = [
    *touches(range(60), WRITE),
    ("unmap", 5, 20),
    *touches(range(60)),
    ("protect", 10, 10, 1),
    *touches(range(10, 20), WRITE),
    *touches([600, 1200, 9000], WRITE),
    ("unmap", 0, 60),
    *touches(range(8), WRITE),
]
AT = 100


def made(layout: str, cpu: str, program: list[Step] = PROGRAM, **paired: object):  # type: ignore[no-untyped-def]
    table = vm(mode="paired", memory="16MiB", paired={"layout": layout, **paired})
    return run(scenario(table, memory="64MiB", cpu=cpu), [Script(program)])


@pytest.mark.parametrize(("layout", "cpu"), CPUS)
def test_it_faults_like_the_process_it_was_and_each_fault_since_then_is_an_exit(layout: str, cpu: str) -> None:
    """Its pages stay: of 60 + 20 (touched again) + 10 (read-only) + 3 + 8 faults, the last 21 come after 100 accesses.

    The guest's tables are two pages more: a root, and a table with an entry for its gigabyte. Two system calls follow.
    """
    _, process = made(layout, cpu, guest=False)
    _, outcome = made(layout, cpu, guest_at=AT)
    (ours,), (theirs,) = outcome.vms, process.vms
    reason = "NPF" if cpu == "zen4" else "EPT_VIOLATION"
    assert ours.finished
    assert time_adds_up(outcome)
    assert ours.guest_faults == theirs.guest_faults + 2
    assert ours.exits[reason][0] == 21
    assert ours.exits["VMCALL"][0] == 2
    assert sum(cycles for _, cycles in ours.exits.values()) == ours.cycles["exit"]


@pytest.mark.parametrize(("layout", "cpu"), CPUS)
def test_only_separate_trees_pay_for_the_second_tree_then(layout: str, cpu: str) -> None:
    """Each of its tables is read, and a new one made: 4 on the way to the program, 2 more to the guest's tables."""
    simulation, outcome = made(layout, cpu, [*touches(range(60), WRITE), *touches(range(60))], guest_at=60)
    costs, cache = simulation.scenario.cpu.cost, simulation.scenario.cpu.cache
    exits = outcome.vms[0].exits
    if layout != "separate":
        assert "CREATE" not in exits
        return
    tables = 4 + 2  # a page directory and a page table more: 4 GiB is not in the gigabyte of the program
    entries = 60 + 2 + tables - 1
    assert exits["CREATE"] == (
        1,
        tables * (512 * cache.l2.cycles + costs.table_page + costs.zero_page) + entries * costs.entry_edit,
    )
    assert outcome.vms[0].memory["table"] == table_pages(layout, tables, guest=True)


def test_what_the_guest_wrote_is_dirty_for_the_kernel_that_unmaps_it() -> None:
    """Its KPT has never seen the access: the flag is the EPT's."""
    seen: list[int] = []

    def watch(moment: Moment, simulation: Simulation, whose: Any) -> None:
        monitor = simulation.vms[0].monitor
        assert isinstance(monitor, PairedGuest)
        paired = monitor.paired
        unmap = type(paired).unmap
        if "unmap" not in vars(paired):
            paired.unmap = lambda *where: (gone := unmap(paired, *where), seen.extend(gone.values.tolist()))[0]  # type: ignore[method-assign]

    program = [*touches(range(4), READ), *touches(range(2), WRITE), ("unmap", 0, 4), *touches(range(4))]
    what = scenario(vm(mode="paired", paired={"guest_at": 4}), cpu="skylake-x", memory="64MiB")
    run(what, [Script(program)], check=watch)
    assert [value >> 6 & 1 for value in seen[-4:]] == [1, 1, 0, 0]


@pytest.mark.parametrize("step", [("fork", 2), ("exec", 1), ("switch", 2)])
def test_a_vm_cannot_do_what_a_process_of_one_core_alone_can(step: Step) -> None:
    with pytest.raises(InputError, match=r"after paired\.guest_at has made its process a VM"):
        made("contiguous", "skylake-x", [*touches(range(9)), step, *touches(range(9))], guest_at=5)


@pytest.mark.parametrize(("at", "said"), [(20, "no moment between"), ("0%", "leave guest_at out"), ("x", "a moment")])
def test_a_moment_that_there_is_not_is_refused(at: object, said: str) -> None:
    with pytest.raises(Exception, match=said):
        made("contiguous", "skylake-x", touches(range(20)), guest_at=at)
