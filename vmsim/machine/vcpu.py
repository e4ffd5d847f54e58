"""Run a vCPU until something needs software, as KVM_RUN does."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.jit import caller_of, kernel, leaf, opaque_core, opaque_llc, opaque_records, routine, target_of
from vmsim.machine.caches import Served, of_node, of_peer, reference
from vmsim.machine.flush import forget_faulting
from vmsim.machine.formats import DIRTY, FRAME, PAGE_SHIFT, SIZE_SHIFT, USER, WRITE
from vmsim.machine.layout import Count, Keyed
from vmsim.machine.lookahead import look_ahead
from vmsim.machine.references import nested_width_of, width_of_guest
from vmsim.machine.sets import MISS, fill, lookup
from vmsim.machine.silicon import SILICON, core_of, llc_of, words_of
from vmsim.machine.tlb import drop_page, fill_large, lookup_large, set_at, tag_of
from vmsim.machine.walker import AGAIN, GUEST_FAULT, guest_walk, needed_of
from vmsim.machine.window import drain, pass_through

__all__ = ["Reason", "call", "enter", "prepare", "run"]


class Reason(IntEnum):
    """Why a run ended."""

    DONE = 0  # all accesses asked for were made
    BUDGET = 1  # the time slice is used up
    GUEST_FAULT = 2  # the guest's kernel has a page fault to handle
    VIOLATION = 3  # the nested tables lack a translation: EPT violation or NPF


WRITES = 1  # the kind of access that writes (workloads.Kind.WRITE)
FETCHES = 2


@leaf
def _lacks(translation, access):
    """Return whether a translation does not do for a write or a fetch: `needed_of`, where most are writes."""
    if access == WRITES:
        return translation & (WRITE | DIRTY) != WRITE | DIRTY
    return translation & USER == 0


@routine
def _translate(core, words, llc, vm, memory, gva, access, translation, address, cursor, limit):
    """Return the translation of `gva` where the first probe, `translation`, did not do: from a TLB or by a walk.

    Returns GUEST_FAULT or NESTED_FAULT where there is none. The access is number `cursor` of those at `address`.
    """
    need = needed_of(access)
    vpn = gva >> PAGE_SHIFT
    asid = vm.asid + vm.apart
    tag = tag_of(asid, gva, 0)
    units = core.units
    l2_set = set_at(len(core.l2_tlb0), core.l2_fold, vpn)
    small_l2 = units.home[1, 0] == Keyed.L2_TLB0
    size = 0
    level = 1
    if translation == MISS and units.sizes:
        level, size, translation = lookup_large(words, units, asid, gva)
    if translation == MISS and small_l2:
        level = 2
        translation = lookup(core.l2_tlb0[l2_set], tag)
    usable = translation != MISS and translation & need == need
    if translation == MISS or level == 2:
        vm.counters[Count.L1_TLB_MISSES] += 1
        vm.counters[Count.L2_TLB_CYCLES] += core.l2_tlb_cycles
    if not usable:
        level = 2
        if translation == MISS:
            vm.counters[Count.L2_TLB_MISSES] += 1
        else:  # it does not allow the access, or its page is not yet dirty: the processor walks again
            vm.counters[Count.DIRTY_WALKS] += 1
            drop_page(words, units, asid, gva, size)
        while True:
            translation = guest_walk(core, llc, vm, memory, gva, access)
            if translation != AGAIN:
                break
            widths = width_of_guest(vm), nested_width_of(vm)
            forget_faulting(words, units, vm.asid, vm.nested_asid, gva, vm.fault_gpa, vm.fault_code, *widths)
        look_ahead(core, llc, vm, memory, address, cursor, limit)
        if translation < 0:
            return translation
        size = (translation >> SIZE_SHIFT) & 3
        if size:
            fill_large(words, units, 2, asid, gva, size, translation)
        elif small_l2:
            fill(core.l2_tlb0[l2_set], tag, translation)
    if level == 2:
        if size:
            fill_large(words, units, 1, asid, gva, size, translation)
        else:
            fill(core.l1_tlb0[set_at(len(core.l1_tlb0), core.l1_fold, vpn)], tag, translation)
    return translation


@routine
def _data(core, llc, vm, gva, translation, times):
    """Send a run of accesses to one page through the data caches; return the cycles that takes."""
    within = (1 << (PAGE_SHIFT + 9 * ((translation >> SIZE_SHIFT) & 3))) - 1
    hpa = (translation & FRAME & ~within) | (gva & within)
    served = reference(core, llc, vm, hpa, np.int64(0))
    vm.data_refs[served] += 1
    vm.data_refs[0] += times - 1
    cycles = core.latency[served] + (times - 1) * core.latency[0]
    if served == Served.DRAM and core.nodes > 0:
        cycles += of_node(core, vm, hpa, np.int64(2))
    if served == Served.LLC:
        cycles += of_peer(core, llc, vm, np.int64(2))
    vm.counters[Count.DATA_CYCLES] += cycles
    return cycles


@routine
def _run_ahead(core, words, llc, vm, memory, address, count, kind, cursor, limit, budget):
    """Make accesses as `_run` does, where the window of the core lets several be under way (window.py).

    Returns what `_run` does of the end: (reason, cursor, left, gva).
    """
    mask = (1 << (12 + 9 * vm.levels)) - 1 if vm.levels > 3 else (1 << 32) - 1
    asid = vm.asid
    left = budget
    gva = 0
    if vm.drained:
        drain(vm)
    while cursor < limit:
        place = np.uint64(cursor)
        gva = address[place] & mask
        access = np.int64(kind[place])
        vpn = gva >> PAGE_SHIFT
        translation = lookup(core.l1_tlb0[set_at(len(core.l1_tlb0), core.l1_fold, vpn)], asid | vpn << 2)
        walk = vm.walk_cycles
        look_up = vm.counters[Count.L2_TLB_CYCLES]
        if translation < 0 or (access and _lacks(translation, access)):
            translation = _translate(core, words, llc, vm, memory, gva, access, translation, address, cursor, limit)
        walk = vm.walk_cycles - walk
        look_up = vm.counters[Count.L2_TLB_CYCLES] - look_up
        if translation < 0:
            cycles = pass_through(core, vm, np.int64(1), np.int64(0), look_up, walk, np.int64(0), np.bool_(False))
            vm.hidden += look_up + walk - cycles
            left -= cycles
            vm.drained = 1
            widths = width_of_guest(vm), nested_width_of(vm)
            forget_faulting(words, core.units, vm.asid, vm.nested_asid, gva, vm.fault_gpa, vm.fault_code, *widths)
            return np.int64(Reason.GUEST_FAULT if translation == GUEST_FAULT else Reason.VIOLATION), cursor, left, gva
        times = np.int64(count[place])
        data = np.int64(0)
        load = np.int64(0)
        if core.data_caches:
            data = _data(core, llc, vm, gva, translation, times)
            load = data - times * core.latency[0]  # 0 if L1 has it
            load += core.latency[0] if load else 0
        cycles = pass_through(core, vm, times, vm.compute, look_up, walk, load, access == FETCHES)
        vm.hidden += times * vm.compute + look_up + walk + data - cycles
        left -= cycles
        cursor += 1
        if left <= 0:
            return np.int64(Reason.BUDGET if cursor < limit else Reason.DONE), cursor, left, gva
    return np.int64(Reason.DONE), cursor, left, gva


@routine
def _run(core, llc, vms, memory, address, count, kind, cursor, limit, budget):
    """Make accesses as `run` does; core and LLC are opaque."""
    words = words_of(core)
    llc = llc_of(core, llc)
    core = core_of(core)
    vm = vms[0]
    mask = (1 << (12 + 9 * vm.levels)) - 1 if vm.levels > 3 else (1 << 32) - 1
    asid = vm.asid + vm.apart
    compute = 0 if vm.apart else vm.compute
    data_caches = core.data_caches != 0 and vm.apart == 0
    first = cursor
    left = budget
    vm.ahead = cursor
    reason = np.int64(Reason.DONE)
    gva = 0
    if vm.in_flight and not vm.apart:
        ended = _run_ahead(core, words, llc, vm, memory, address, count, kind, cursor, limit, budget)
        reason, cursor, left, gva = ended
        limit = cursor
    while cursor < limit:  # few variables live from turn to turn: they fit the registers
        place = np.uint64(cursor)
        gva = address[place] & mask
        access = kind[place]
        vpn = gva >> PAGE_SHIFT
        translation = lookup(core.l1_tlb0[set_at(len(core.l1_tlb0), core.l1_fold, vpn)], asid | vpn << 2)
        if translation < 0 or (access and _lacks(translation, access)):
            left += vm.walk_cycles + vm.counters[Count.L2_TLB_CYCLES]
            translation = _translate(
                core, words, llc, vm, memory, gva, np.int64(access), translation, address, cursor, limit
            )
            left -= vm.walk_cycles + vm.counters[Count.L2_TLB_CYCLES]
            if translation < 0:
                widths = width_of_guest(vm), nested_width_of(vm)
                forget_faulting(words, core.units, vm.asid, vm.nested_asid, gva, vm.fault_gpa, vm.fault_code, *widths)
                reason = np.int64(Reason.GUEST_FAULT if translation == GUEST_FAULT else Reason.VIOLATION)
                break
        times = np.int64(count[place])
        left -= times * compute
        if data_caches:
            left -= _data(core, llc, vm, gva, translation, times)
        cursor += 1
        if left <= 0:
            reason = np.int64(Reason.BUDGET if cursor < limit else Reason.DONE)
            break
    if vm.apart:  # what the kernel's accesses cost besides their translation is in its own figures
        return reason, cursor, budget - left, gva, vm.fault_gpa, vm.fault_code
    accesses = 0
    writes = 0
    for number in range(first, cursor):
        place = np.uint64(number)
        times = np.int64(count[place])
        accesses += times
        writes += times if kind[place] == WRITES else 0
    vm.counters[Count.ACCESSES] += accesses
    vm.counters[Count.WRITES] += writes
    vm.counters[Count.COMPUTE_CYCLES] += accesses * compute
    return reason, cursor, budget - left, gva, vm.fault_gpa, vm.fault_code


call = caller_of(_run)


@kernel
def enter(target, core, llc, vms, memory, address, count, kind, cursor, limit, budget):
    """Do what `run` does with one core, an LLC and a VM, all opaque, of the types that `target` is for."""
    return call(target, core, llc, vms, memory, address, count, kind, cursor, limit, budget)


def prepare(cores: NDArray[Any], llc: NDArray[Any], vms: NDArray[Any], memory: NDArray[np.int64]) -> Any:
    """Return the target for a geometry: code compiled for it now, or once and kept."""
    stream = (np.zeros(0, dtype) for dtype in (np.int64, np.int32, np.uint8))
    return target_of(_run, SILICON, cores, llc, vms, memory, *stream, 0, 0, 0)


def run(
    cores: NDArray[Any],
    number: int,
    llc: NDArray[Any],
    vms: NDArray[Any],
    memory: NDArray[np.int64],
    address: NDArray[np.int64],
    count: NDArray[np.int32],
    kind: NDArray[np.uint8],
    cursor: int,
    limit: int,
    budget: int,
) -> tuple[int, int, int, int, int, int]:
    """Make the accesses [cursor, limit) of a stream on one core until one needs software or the budget is used.

    Parameters
    ----------
    cores, llc, vms : record[:]
        From layout.make_cores, make_llc, make_vm; core `number` runs VM 0 of `vms`.
    memory : int64[:]
        Host-physical memory.
    address, count, kind : int64[:], int32[:], uint8[:]
        Runs of accesses to one page each: gva, how many, read (0), write (1) or fetch (2).
    cursor, limit : int
        The first run to make and the first not to.
    budget : int
        Cycles after which to stop; the run under way is finished.

    Returns
    -------
    (reason, cursor, cycles, gva, gpa, code) : tuple of int
        Why it stopped, the next run to make (a faulting one is made again), the cycles used, and of a fault its
        gva, gpa (-1 for a guest's page fault) and error code.
    """
    target = prepare(cores, llc, vms, memory)
    machine = opaque_core(cores[number : number + 1]), opaque_llc(llc), opaque_records(vms)
    return enter(target, *machine, memory, address, count, kind, cursor, limit, budget)  # type: ignore[no-any-return]
