"""One reference of a walk: an entry read through the caches, or from the entry-style cache, and flags set in it."""

from __future__ import annotations

import numpy as np

from vmsim.jit import leaf, routine
from vmsim.machine.caches import Served, of_node, reference, reference_called
from vmsim.machine.formats import TWO_LEVEL
from vmsim.machine.layout import Count
from vmsim.machine.memory import read_entry, write_entry
from vmsim.machine.pwc import GUEST, NESTED, PwcStyle
from vmsim.machine.sets import MISS, fill, lookup

__all__ = ["fetch", "fetch_kept", "nested_width_of", "set_flags", "width_of_guest"]


@leaf
def width_of_guest(vm):
    """Return how many bits of a gva each of the guest's tables translates, which the compiler knows."""
    return 9 + len(vm.two_level)


@leaf
def nested_width_of(vm):
    """Return the same of nested tables, whose format is 32-bit paging's for guests of that alone."""
    return 10 if len(vm.two_level) > 0 and vm.nested_levels == TWO_LEVEL else 9


@leaf
def _note(vm, hpa, guest, nested, served):
    """Write a reference into the VM's log while it keeps one (`vmsim explain`)."""
    if vm.logging and vm.logged < len(vm.log):
        line = vm.log[vm.logged]
        line[0] = hpa
        line[1] = guest << 8 | nested
        line[2] = served
        vm.logged += 1


@leaf
def _tag(vm, hpa):
    """Return the tag of the entry at `hpa` in the entry-style cache: its word, and which half if words may have two."""
    return hpa >> 3 | ((hpa & 4) << 44 if len(vm.two_level) > 0 else 0)


@routine
def fetch_kept(core, llc, vm, memory, hpa, present, level, guest, nested):
    """Return the entry at `hpa` as `fetch` does, from the entry-style cache if it is there, and note it in the log."""
    cached = core.pwc_style == PwcStyle.ENTRY and level >= (core.pwc_lowest if nested == 0 else core.pwc_nested_lowest)
    tag = _tag(vm, hpa)
    index = np.uint64(tag & (len(core.pwc) - 1))
    served = np.int64(Served.PWC)
    entry = np.int64(MISS)
    if len(core.pwc) > 0 and cached:
        entry = lookup(core.pwc[index], tag)
        vm.pwc[GUEST if nested == 0 else NESTED, level, np.uint64(entry != MISS)] += 1
    if entry == MISS:
        entry = read_entry(memory, hpa, width_of_guest(vm) if nested == 0 else nested_width_of(vm))
        served = np.int64(reference_called(core, llc, vm, hpa, core.walker_enters))
        if len(core.pwc) > 0 and cached and entry & present:
            fill(core.pwc[index], tag, entry)
    vm.refs[guest, nested, served] += 1
    vm.walk_cycles += core.pwc_cycles if served == Served.PWC else core.latency[served]
    if served == Served.DRAM and core.nodes > 0:
        vm.walk_cycles += of_node(core, vm, hpa, np.int64(nested > 0))
    _note(vm, hpa, guest, nested, served)
    return entry


@leaf
def fetch(core, llc, vm, memory, plain, hpa, present, level, guest, nested):
    """Return the entry at `hpa`: one reference of a walk, at its position (guest level, nested level).

    Level 0 of the guest stands for the data page, level 0 of the other dimension for the guest's own entry. `plain`
    says that there is neither an entry-style cache nor a log.
    """
    if not plain:
        return fetch_kept(core, llc, vm, memory, hpa, present, level, guest, nested)
    width = width_of_guest(vm) if nested == 0 else nested_width_of(vm)
    entry = read_entry(memory, hpa, width)  # before the caches are searched, behind which the load's latency hides
    served = np.uint64(reference(core, llc, vm, hpa, core.walker_enters))
    vm.refs[np.uint64(guest), np.uint64(nested), served] += 1
    vm.walk_cycles += core.latency[served]
    if served == np.uint64(Served.DRAM) and core.nodes > 0:
        vm.walk_cycles += of_node(core, vm, hpa, np.int64(nested > 0))
    return entry


@routine
def set_flags(core, vm, memory, hpa, marks, width):
    """Set accessed or dirty flags in the entry at `hpa`; a copy that the entry-style cache keeps follows."""
    entry = read_entry(memory, hpa, width) | marks
    write_entry(memory, hpa, entry, width)
    vm.counters[Count.AD_UPDATES] += 1
    vm.walk_cycles += core.ad_cycles
    tag = _tag(vm, hpa)
    if len(core.pwc) > 0:
        kept = core.pwc[np.uint64(tag & (len(core.pwc) - 1))]
        for way in range(len(kept.tag)):
            if kept.tag[way] == tag:
                kept.value[way] = entry
