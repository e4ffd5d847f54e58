"""The data caches that table entries (and, by option, data) go through: L1 and L2 of a core, one LLC for all."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from vmsim.jit import leaf, routine
from vmsim.machine.sets import EMPTY, bring, take, touch, touch_shared

__all__ = ["LINE_SHIFT", "Served", "llc_set", "of_node", "reference", "reference_called"]

LINE_SHIFT = 6
_MIX = 0x9E37_79B9_7F4A_7C15 - (1 << 64)  # golden ratio, as int64: spreads lines over LLC slices


class Served(IntEnum):
    """Where a reference was served."""

    L1 = 0
    L2 = 1
    LLC = 2
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
    filled by victims of the L2s. Lines that cores share, which K10's and Zen's may keep, are no exception here,
    and none comes from another core's L2.
    """
    found, gone = bring(core.l2[np.uint64(line & (len(core.l2) - 1))], line)
    if found:
        return np.int64(Served.L2)
    served = np.int64(Served.DRAM)
    if take(llc[llc_set(core.llc_slices, len(llc), line)], line):
        served = np.int64(Served.LLC)
    if gone != EMPTY:
        touch_shared(llc[llc_set(core.llc_slices, len(llc), gone)], gone, vm.llc_ways)
    return served


@leaf
def reference(core, llc, vm, hpa, first):
    """Return where the line of `hpa` is served, looking from cache `first` on; it is in every level from there on."""
    line = hpa >> LINE_SHIFT
    if first == Served.L1 and touch(core.l1[np.uint64(line & (len(core.l1) - 1))], line):
        return Served.L1
    if core.llc_victim:
        return _reference_exclusive(core, llc, vm, line)
    if touch(core.l2[np.uint64(line & (len(core.l2) - 1))], line):
        return Served.L2
    if touch_shared(llc[llc_set(core.llc_slices, len(llc), line)], line, vm.llc_ways):
        return Served.LLC
    return Served.DRAM


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


@routine
def reference_called(core, llc, vm, hpa, first):
    """Return what `reference` does: for where speed counts less, so that not every place repeats the code."""
    return reference(core, llc, vm, hpa, first)
