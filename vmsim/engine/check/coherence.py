"""What processors have cached is what the tables give: TLBs, nested TLBs and walk caches, entry by entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmsim.engine.check.guest import kept_address
from vmsim.engine.check.rights import resolve_each, rights_of_each, translate_each, walk_each
from vmsim.engine.simulation import Simulation
from vmsim.engine.virtual_machine import VirtualMachine
from vmsim.machine.formats import DIRTY, FRAME, PAGE_SHIFT, USER, WRITE
from vmsim.machine.memory import width_of
from vmsim.machine.tlb import ASID_SHIFT
from vmsim.monitor.base import table_on_way
from vmsim.tables.backing import UNBACKED
from vmsim.tables.edit import translate

__all__ = ["check_coherence"]

Holder = tuple[VirtualMachine, int]  # and the vCPU
Holders = dict[int, Holder | None]
Column = NDArray[np.int64]
Fail = Callable[[str], None]

_PAGES = tuple(f"{level}_tlb{number}" for level in ("l1", "l2") for number in range(3))
_TABLES = ("pde", "pdpte", "pml4e", "pml5e")  # of the table that they point to: levels 1 to 4
_NESTED_TABLES = tuple(f"nested_{name}" for name in _TABLES)
_WITHOUT_ASID = (1 << ASID_SHIFT) - 1


class _Held(NamedTuple):
    """What units of one core hold for one address space, a column of each: int64[n]."""

    unit: Column  # its place among the names
    tag: Column  # without the address space
    value: Column


def check_coherence(simulation: Simulation, vms: Sequence[VirtualMachine], fail: Fail) -> None:
    """See that what TLBs, nested TLBs and walk caches give is what the tables give: host(guest(gva)).

    Parameters
    ----------
    simulation : Simulation
        The host.
    vms : sequence of VirtualMachine
        Those that have tables now.
    fail : callable
        Told of the first thing that is wrong.
    """
    memory, living = simulation.hardware.memory, {vm.spec.index: vm for vm in vms}
    by_gpa: Holders = {spaces.nested + 1: (vm, 0) for vm in vms for spaces in vm.spaces}
    by_gva = [_holders(simulation, number, living) for number in range(len(simulation.hardware.cores))]
    of_all = [by_gpa] * len(by_gva)
    for (vm, cpu), held in _held(simulation, _PAGES, by_gva, fail):
        _check_pages(memory, vm, cpu, held, fail)
    for (vm, _), held in _held(simulation, ("ntlb",), of_all, fail):
        _check_nested(memory, vm, held, fail)
    for (vm, cpu), held in _held(simulation, _TABLES, by_gva, fail):
        cr3, levels = int(vm.registers["cr3"][cpu]), vm.spec.walked_levels
        for unit, tag, value in np.transpose(held).tolist():
            start = tag << PAGE_SHIFT + width_of(levels) * (unit + 1)
            if vm.monitor.table_on_way(cr3, levels, unit + 1, start) != value & FRAME:
                fail(f"coherence: {_TABLES[unit]} gives {vm.spec.name} another table for {start:#x}")
    for (vm, _), held in _held(simulation, _NESTED_TABLES, of_all, fail):
        root, levels = vm.monitor.memory_root
        for unit, tag, value in np.transpose(held).tolist():
            start = tag << PAGE_SHIFT + width_of(levels) * (unit + 1)
            if table_on_way(memory, (0, 0), root, levels, unit + 1, start) != value & FRAME:
                fail(f"coherence: {_NESTED_TABLES[unit]} gives {vm.spec.name} another table for {start:#x}")


def _holders(simulation: Simulation, core: int, living: dict[int, VirtualMachine]) -> Holders:
    """Return by asid who could hit entries of a gva on a core; None: nobody, or a space whose tables are not up."""
    tags = simulation.tags
    holders: Holders = dict.fromkeys(range(1, tags.given + 1))
    vcpus = {vcpu.index: (vm, vcpu) for vm in living.values() for vcpu in vm.vcpus}
    for asid, (index, space) in tags.holders(core).items():
        vm, vcpu = vcpus.get(index, (None, None))
        if vm is None or vcpu is None or vm.monitor.stale(vcpu.number) or vcpu.interrupts:
            continue
        spaces = vcpu.spaces
        if space == spaces.space or (spaces.kernel and (index, space) == spaces.of_kernel()):
            holders[asid] = vm, vcpu.number
    return holders


def _held(
    simulation: Simulation, names: Sequence[str], holders: list[Holders], fail: Fail
) -> Iterator[tuple[Holder, _Held]]:
    """Yield who could hit entries of units, with those entries: core by core and space by space."""
    cores = simulation.hardware.cores
    columns = []
    for number, name in enumerate(names):
        sets = cores[name]
        tags = sets["tag"]
        core, *where = np.nonzero(tags >= 0)
        if len(core):
            place = core, *where
            columns.append((core, np.full(len(core), number), tags[place], sets["value"][place]))
    if not columns:
        return
    core, unit, tag, value = np.concatenate(columns, axis=1)
    space = core << 32 | tag >> ASID_SHIFT
    for each in np.unique(space).tolist():
        which, asid = each >> 32, each & (1 << 32) - 1
        theirs = space == each
        if asid not in holders[which]:
            name = names[int(unit[theirs][0])]
            fail(f"coherence: {name} still holds entries of address space {asid}, which is gone")
        elif holder := holders[which][asid]:
            yield holder, _Held(unit[theirs], tag[theirs] & _WITHOUT_ASID, value[theirs])


def _check_pages(memory: Column, vm: VirtualMachine, cpu: int, held: _Held, fail: Fail) -> None:
    """See that translations of pages lead where the tables do, and give no right that they do not."""
    loaded = vm.kernel.cpus.loaded[cpu]
    unflushed = loaded.unflushed if loaded else ""  # what it may keep until it is told
    size = held.tag & 3
    gvas = held.tag >> 2 << PAGE_SHIFT + 9 * size
    if unflushed != "pages":
        hpas = held.value & FRAME & -(1 << PAGE_SHIFT + 9 * size)
        levels, monitor, found = vm.spec.guest_levels, vm.monitor, np.empty_like(gvas)
        where = monitor.walked_root(cpu), levels, *monitor.memory_root, monitor.backing
        resolve_each(memory, *where, gvas, found)
        for at in np.flatnonzero(found != hpas).tolist():
            gva = int(gvas[at])
            if int(found[at]) != UNBACKED or _kept(memory, vm, cpu, gva) != hpas[at]:
                fail(f"coherence: {_PAGES[held.unit[at]]} gives {vm.spec.name} another frame for gva {gva:#x}")
    if not unflushed:
        now, given = vm.registers[cpu], np.empty_like(gvas)
        nested = int(now["nested_root"]), int(now["nested_levels"]), int(now["nested_dirty"])
        walk_each(memory, int(now["cr3"]), vm.spec.walked_levels, int(now["switch"]), *nested, gvas, given)
        for at, said in _too_much(held.value, given):
            which = f"{_PAGES[held.unit[at]]}, of gva {int(gvas[at]):#x}"
            fail(f"coherence: {which}, is {said} for {vm.spec.name}, which the tables do not say")


def _check_nested(memory: Column, vm: VirtualMachine, held: _Held, fail: Fail) -> None:
    """See the same of the nested TLB's translations."""
    gpas, found, given = held.tag << PAGE_SHIFT, np.empty_like(held.tag), np.empty_like(held.tag)
    translate_each(memory, *vm.monitor.memory_root, gpas, found)
    for at in np.flatnonzero(found != held.value & FRAME).tolist():
        fail(f"coherence: the nested TLB gives {vm.spec.name} another frame for gfn {int(held.tag[at]):#x}")
    now = vm.registers[0]
    rights_of_each(memory, int(now["nested_root"]), int(now["nested_levels"]), int(now["nested_dirty"]), gpas, given)
    for at, said in _too_much(held.value, given):
        where = f"the nested TLB, of gfn {int(held.tag[at]):#x}"
        fail(f"coherence: {where}, is {said} for {vm.spec.name}, which the tables do not say")


def _too_much(values: Column, given: Column) -> Iterator[tuple[int, str]]:
    """Yield which kept translations give a right that the tables have taken away, dirty flags among them, and which.

    A translation that is kept as writable and dirty lets writes through that no walk sees: what tells of writes (a
    protected entry, a cleared flag) must be flushed before it can (SDM vol. 3A §5.10.4.2, vol. 3C §30.3.5 and
    §30.4.3.1). That holds of the guest's entries, the host's, and those that a monitor keeps in their place.
    """
    more = values & (WRITE | USER | DIRTY) & ~given
    for at in np.flatnonzero(more).tolist():
        names = ((WRITE, "writable"), (USER, "a user's, or executable,"), (DIRTY, "dirty"))
        yield at, ", ".join(name for bit, name in names if more[at] & bit)


def _kept(memory: Column, vm: VirtualMachine, cpu: int, gva: int) -> int:
    """Return the hpa of a gva of which tables may be unmapped, or elsewhere, or UNBACKED."""
    if not vm.slot:
        return UNBACKED
    gpa = kept_address(vm.slot, vm.kernel.root_of(cpu), vm.spec.guest_levels, gva)
    if gpa == UNBACKED or not vm.monitor.nested_rights:  # what no hardware walks need not be mapped
        return vm.slot.address_of(gpa)
    return int(translate(memory, *vm.monitor.memory_root, gpa))
