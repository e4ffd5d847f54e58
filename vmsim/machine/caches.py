"""The data caches that table entries (and, by option, data) go through: L1 and L2 of a core, one LLC for all."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from vmsim.jit import leaf, routine
from vmsim.machine.held import hold, holds, release
from vmsim.machine.replacement import duels
from vmsim.machine.sets import ANY, EMPTY, bring, bring_by_duel, has, take, touch, touch_shared
from vmsim.machine.silicon import core_after

__all__ = ["LINE_SHIFT", "Served", "llc_set", "of_node", "of_peer", "reference", "reference_called"]

LINE_SHIFT = 6
_MIX = 0x9E37_79B9_7F4A_7C15 - (1 << 64)  # golden ratio, as int64: spreads lines over LLC slices


class Served(IntEnum):
    """Where a reference was served."""

    L1 = 0
    L2 = 1
    LLC = 2  # or, by way of it, another core's L2
    DRAM = 3
    PWC = 4  # no memory reference at all: a page walk cache held the entry


@leaf
def llc_set(slices, sets, line):
    """Return the LLC set of a line; a sliced LLC spreads lines over its slices by a hash (here multiplicative)."""
    if slices == 1:
        return np.uint64(line & (sets - 1))
    per_slice = sets // slices
    piece = (((line * _MIX) >> 40) & 0xFFFF) * slices >> 16
    return np.uint64(piece * per_slice + (line & (per_slice - 1)))


@routine
def _reference_exclusive(core, llc, vm, line):
    """Return where a line is served from the L2 on; what leaves the L2 goes to the LLC, and what it gets leaves that.

    AMD BIOS and Kernel Developer's Guide, family 10h; Software Optimization Guide, families 10h and 17h: the L3 is
    filled by victims of the L2s. A line that another core's L2 has too stays in the LLC if it is there, and comes from
    that L2 if it is not; `of_peer` says what that takes.
    """
    found, gone = bring(core.l2[np.uint64(line & (len(core.l2) - 1))], line, ANY)
    if found:
        return np.int64(Served.L2)
    here = llc[llc_set(core.llc_slices, len(llc), line)]
    served = np.int64(Served.LLC)
    if len(here.notes) > 0 and holds(here.notes, line):
        if has(here, line):
            touch_shared(here, line, vm.llc_ways)
        else:
            vm.from_peer = 1
    elif not take(here, line):
        served = np.int64(Served.DRAM)
    if gone != EMPTY:
        there = llc[llc_set(core.llc_slices, len(llc), gone)]
        if len(there.notes) > 0:
            release(there.notes, gone)
        touch_shared(there, gone, vm.llc_ways)
    if len(here.notes) > 0:
        hold(here.notes, line)
    return served


@routine
def _reference_inclusive(core, llc, vm, line):
    """Return where a line is served from an LLC that has what the L1s and L2s around it have.

    A line that makes room there leaves all of those (SDM vol. 2A, CPUID leaf 4, bit 1 of EDX).
    """
    kept = llc[llc_set(core.llc_slices, len(llc), line)]
    if duels(len(kept.policy)):
        found, gone = bring_by_duel(kept, llc[np.uint64(0)], line, vm.llc_ways)
    else:
        found, gone = bring(kept, line, vm.llc_ways)
    if found:
        return np.int64(Served.LLC)
    if gone != EMPTY:
        for number in range(core.llc_first, core.llc_first + core.llc_cores):
            near = core_after(core, number * core.span)
            take(near.l1[np.uint64(gone & (len(near.l1) - 1))], gone)
            take(near.l2[np.uint64(gone & (len(near.l2) - 1))], gone)
    return np.int64(Served.DRAM)


@leaf
def _touch_llc(core, llc, vm, line):
    """Return whether the LLC had a line; it has it now."""
    kept = llc[llc_set(core.llc_slices, len(llc), line)]
    if duels(len(kept.policy)):
        return bring_by_duel(kept, llc[np.uint64(0)], line, vm.llc_ways)[0]
    return touch_shared(kept, line, vm.llc_ways)


@routine
def _complete(core, llc, vm, line):
    """Bring the other line of a pair that begins at 128 bytes to the L2, which has just got `line`, unless it is there.

    Intel 64 and IA-32 Architectures Optimization Reference Manual, the spatial prefetcher: it completes lines fetched
    to the L2 to pairs. It takes no time here.
    """
    pair = line ^ 1
    kept = core.l2[np.uint64(pair & (len(core.l2) - 1))]
    if has(kept, pair):
        return
    if core.llc_victim:
        from_peer = vm.from_peer  # of the line itself
        _reference_exclusive(core, llc, vm, pair)
        vm.from_peer = from_peer
    elif core.llc_inclusive:
        touch(kept, pair)
        _reference_inclusive(core, llc, vm, pair)
    else:
        touch(kept, pair)
        _touch_llc(core, llc, vm, pair)


@leaf
def reference(core, llc, vm, hpa, first):
    """Return where the line of `hpa` is served, looking from cache `first` on; it is in every level from there on."""
    line = hpa >> LINE_SHIFT
    if first == Served.L1 and touch(core.l1[np.uint64(line & (len(core.l1) - 1))], line):
        return Served.L1
    if core.llc_victim:
        served = _reference_exclusive(core, llc, vm, line)
    elif touch(core.l2[np.uint64(line & (len(core.l2) - 1))], line):
        return Served.L2
    elif core.llc_inclusive:
        served = _reference_inclusive(core, llc, vm, line)
    elif _touch_llc(core, llc, vm, line):
        served = np.int64(Served.LLC)
    else:
        served = np.int64(Served.DRAM)
    if core.l2_pairs and served != Served.L2:
        _complete(core, llc, vm, line)
    return served


@routine
def of_node(core, vm, hpa, what):
    """Return the cycles that the DRAM of a node takes more than is usual; count the reference.

    Parameters
    ----------
    what : int
        0: of a walk, to an entry of the guest's tables; 1: of the nested tables; 2: data.
    """
    node = 0
    while node < core.nodes - 1 and hpa >= core.node_ends[node]:
        node += 1
    vm.node_refs[what, node] += 1
    vm.node_cycles[what] += core.node_extra[node]
    return core.node_extra[node]


@leaf
def of_peer(core, llc, vm, what):
    """Return the cycles that a reference counted as the LLC's took more, if another core's L2 served it; count it.

    Parameters
    ----------
    what : int
        As of `of_node`.
    """
    if len(llc[np.uint64(0)].notes) == 0 or vm.from_peer == 0:
        return 0
    vm.from_peer = 0
    vm.peer_refs[what] += 1
    vm.peer_cycles[what] += core.peer_extra
    return core.peer_extra


@routine
def reference_called(core, llc, vm, hpa, first):
    """Return what `reference` does: for where speed counts less, so that not every place repeats the code."""
    return reference(core, llc, vm, hpa, first)
