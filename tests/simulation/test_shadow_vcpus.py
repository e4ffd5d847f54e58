"""Do several vCPUs share a shadow as KVM's do: one page for a table, roots of their own, and flushes of one another?

What is expected is counted by hand, from Linux arch/x86/kvm/mmu/mmu.c: `root_count` and role.invalid of a page,
`kvm_flush_remote_tlbs` at the end of whatever takes something from the shadow, `mmu_alloc_shadow_roots`.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.small import READ, WRITE, Script, Threads, run, scenario, vm
from vmsim.contracts import Moment
from vmsim.engine.simulation import Simulation
from vmsim.machine.formats import SWITCH
from vmsim.monitor.shadow.check import problems_of

SHADOWS = [{}, {"trap": "emulate", "write_flood": 0}]


def two(first: list[Any], second: list[Any], *, look: Any = None, **keys: Any) -> Any:
    """Run a VM of two vCPUs, each on a core of its own; `look` is given its monitor at the end of the workload."""

    def at_the_end(what: Moment, host: Simulation, machine: Any) -> None:
        if what is Moment.VM_FINISHED:
            look(machine.monitor)

    base = 0x1000_0000 if keys.get("guest_levels", 4) < 4 else 0x10_0000_0000
    streams = [Threads([Script(steps, base=base) for steps in (first, second)])]
    table = vm(vcpus=2, **{"mode": "shadow", "workload": {"base": base}, **keys})
    return run(scenario(table, cores=2), streams, check=at_the_end if look else None)


def kicks(outcome: Any) -> int:
    return int(outcome.vms[0].figures.named("shootdowns")["kicks"])


@pytest.mark.parametrize("shadow", SHADOWS, ids=["unsync", "emulate"])
def test_what_one_vcpu_has_unmapped_the_other_forgets_by_one_kick(shadow: dict[str, Any]) -> None:
    """Of ten pages that are unmapped one by one each takes an entry from the shadow: ten kicks, and none before."""
    touch = [("touch", page, WRITE) for page in range(10)]
    busy = [("touch", 20, READ), ("barrier",), *[("touch", 20, READ, 10_000)] * 40]

    def made(rest: list[Any]) -> int:
        return kicks(two([*touch, ("barrier",), *rest], busy, shadow=shadow)[1])

    before = made([])
    assert made([("unmap", page, 1) for page in range(10)]) - before == 10


def test_who_waits_at_a_barrier_is_not_kicked() -> None:
    idle = [("touch", 20, READ), ("barrier",), ("barrier",)]
    first = [("touch", 0, WRITE), ("barrier",), ("touch", 0, READ, 10_000)]  # until the other waits again
    assert kicks(two([*first, ("unmap", 0, 1), ("barrier",)], idle)[1]) == kicks(two([*first, ("barrier",)], idle)[1])


def test_two_vcpus_of_one_process_have_one_root_and_two_processes_have_two() -> None:
    found: list[list[int]] = []

    def look(monitor: Any) -> None:
        found.append(sorted(monitor.pages["roots"][monitor.pages["roots"] > 0].tolist()))

    two([("touch", 0, WRITE)], [("touch", 1, WRITE)], look=look)
    two([("touch", 0, WRITE)], [("touch", 1, WRITE), ("switch", 2), ("touch", 1, WRITE)], look=look)
    assert found == [[2], [1, 1]]


def test_each_vcpu_has_pdptes_of_its_own() -> None:
    """In 32-bit paging: four pages of level 2 for the root, each led to twice, and two pages of PDPTEs."""

    def look(monitor: Any) -> None:
        assert len({*monitor.cpus["pae_root"].tolist()}) == 2
        assert (monitor.cpus["pae_root"] >= 0).all()
        assert sorted(monitor.pages["roots"][monitor.pages["level"] == 2].tolist()) == [2] * 4
        assert (monitor.registers["pdpte"][0] == monitor.registers["pdpte"][1]).all()

    two([("touch", 0, WRITE)], [("touch", 1, WRITE)], guest_levels=2, look=look)


def test_a_root_that_is_walked_nested_is_so_for_every_vcpu() -> None:
    """The third store to the root (threshold 3) leaves it to nested walks: regions 512 GiB apart, an entry each."""
    far = 1 << 27  # pages
    seen = []

    def look(monitor: Any) -> None:
        seen.append([bool(int(cr3) & SWITCH) for cr3 in monitor.registers["cr3"]])
        assert not monitor.pages["invalid"].any()
        assert not monitor.gfns["tables"][monitor.cr3[0] >> 12]

    first = [("touch", 0, WRITE), *(("touch", far * each, WRITE) for each in range(1, 4)), ("barrier",)]
    second = [("touch", 1, READ, 1000), ("barrier",), ("touch", 1, READ, 1000)]
    two(first, second, mode="agile", agile={"threshold": 3, "interval": "1s"}, look=look)
    assert seen == [[True, True]]


def test_the_checker_counts_roots() -> None:
    def look(monitor: Any) -> None:
        frames = monitor.host_pages.host.frames
        assert not [*problems_of(monitor, frames)]
        monitor.pages["roots"][int(monitor.cpus["roots"][0, 0])] += 1
        assert "root of more or fewer vCPUs" in next(iter(problems_of(monitor, frames)))

    two([("touch", 0, WRITE)], [("touch", 1, WRITE)], look=look)
