"""One reference of a walk: an entry read through the caches, or from the entry-style cache, and flags set in it."""

from __future__ import annotations

import numpy as np

from vmsim.jit import leaf, routine
from vmsim.machine.caches import Served, of_node, of_peer, reference, reference_called
from vmsim.machine.copies import has_copies, place_of, seen_in_copy, set_in_copy
from vmsim.machine.formats import ACCESSED, DIRTY, TWO_LEVEL
from vmsim.machine.layout import Count
from vmsim.machine.memory import read_entry, set_entry
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


@leaf
def _seen(core, vm, memory, hpa, entry, nested, width):
    """Return an entry as the copy of the core's node has it."""
    if not has_copies(memory):
        return entry
    accessed, dirty = (np.int64(ACCESSED), np.int64(DIRTY)) if nested == 0 else (vm.nested_accessed, vm.nested_dirty)
    return seen_in_copy(core, memory, hpa, entry, accessed, dirty, width)


@routine
def fetch_kept(core, llc, vm, memory, hpa, present, level, guest, nested):
    """Return the entry at `hpa` as `fetch` does, from the entry-style cache if it is there, and note it in the log."""
    own = place_of(core, memory, hpa) if has_copies(memory) else hpa
    cached = core.pwc_style == PwcStyle.ENTRY and level >= (core.pwc_lowest if nested == 0 else core.pwc_nested_lowest)
    tag = _tag(vm, own)
    index = np.uint64(tag & (len(core.pwc) - 1))
    served = np.int64(Served.PWC)
    entry = np.int64(MISS)
    if len(core.pwc) > 0 and cached:
        entry = lookup(core.pwc[index], tag)
        vm.pwc[GUEST if nested == 0 else NESTED, level, np.uint64(entry != MISS)] += 1
    if entry == MISS:
        width = width_of_guest(vm) if nested == 0 else nested_width_of(vm)
        entry = _seen(core, vm, memory, hpa, read_entry(memory, hpa, width), nested, width)
        served = np.int64(reference_called(core, llc, vm, own, core.walker_enters))
        if len(core.pwc) > 0 and cached and entry & present:
            fill(core.pwc[index], tag, entry)
    vm.refs[guest, nested, served] += 1
    vm.walk_cycles += core.pwc_cycles if served == Served.PWC else core.latency[served]
    if served == Served.DRAM and core.nodes > 0:
        vm.walk_cycles += of_node(core, vm, own, np.int64(nested > 0))
    if served == Served.LLC:
        vm.walk_cycles += of_peer(core, llc, vm, np.int64(nested > 0))
    _note(vm, own, guest, nested, served)
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
    entry = _seen(core, vm, memory, hpa, entry, nested, width)
    if has_copies(memory):
        hpa = place_of(core, memory, hpa)
    served = np.uint64(reference(core, llc, vm, hpa, core.walker_enters))
    vm.refs[np.uint64(guest), np.uint64(nested), served] += 1
    vm.walk_cycles += core.latency[served]
    if served == np.uint64(Served.DRAM) and core.nodes > 0:
        vm.walk_cycles += of_node(core, vm, hpa, np.int64(nested > 0))
    if served == np.uint64(Served.LLC):
        vm.walk_cycles += of_peer(core, llc, vm, np.int64(nested > 0))
    return entry


@routine
def set_flags(core, vm, memory, hpa, marks, width):
    """Set accessed or dirty flags in the entry at `hpa`; what the entry-style cache keeps of it follows.

    Of a table with copies they are set in that of the core's node.
    """
    entry = read_entry(memory, hpa, width)
    set_entry(memory, hpa, entry | marks, width)
    own = hpa
    if has_copies(memory):
        entry = set_in_copy(core, memory, hpa, entry, marks, width)
        own = place_of(core, memory, hpa)
    else:
        entry |= marks
    vm.counters[Count.AD_UPDATES] += 1
    vm.walk_cycles += core.ad_cycles
    tag = _tag(vm, own)
    if len(core.pwc) > 0:
        kept = core.pwc[np.uint64(tag & (len(core.pwc) - 1))]
        for way in range(len(kept.tag)):
            if kept.tag[way] == tag:
                kept.value[way] = entry
