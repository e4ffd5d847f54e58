"""Have the simulating machine fetch table entries before a walk needs them.

Half the time of walks all over a large memory is spent waiting for the entries that map pages, which no cache of the
simulating machine holds. The accesses to come are known: after a walk the entries that the next ones will want are
asked for, through tables that each core remembers. Nothing simulated depends on it: a table that is wrong, or is none
any more, has a line fetched that nobody needs.
"""

from __future__ import annotations

import numpy as np

from vmsim.jit import leaf, prefetch, routine
from vmsim.machine.caches import LINE_SHIFT, llc_set
from vmsim.machine.formats import ENTRIES, FRAME, PAGE_SHIFT
from vmsim.machine.layout import TABLES
from vmsim.machine.memory import read_word
from vmsim.machine.pwc import GUEST, NESTED
from vmsim.machine.silicon import fetch_set

__all__ = ["entry_of", "look_ahead", "remember"]

_SHIFT = PAGE_SHIFT + 9  # of what a table of small pages maps
_FAR = 4  # accesses ahead at which a guest's entry is asked for
_LATER = 2  # accesses later the nested one is, for which the guest's must be there


@leaf
def _fetch(core, llc, memory, hpa):
    """Fetch an entry, the set of the LLC that is searched for it, and the one for what will leave the L2."""
    prefetch(memory, np.uint64(hpa >> 3))
    line = hpa >> LINE_SHIFT
    fetch_set(llc[llc_set(core.llc_slices, len(llc), line)])
    if core.llc_victim:
        tags = core.l2[np.uint64(line & (len(core.l2) - 1))].tag
        fetch_set(llc[llc_set(core.llc_slices, len(llc), tags[len(tags) - 1])])


@leaf
def _slot(dimension, address):
    """Return where the table that maps the small pages around `address` is remembered."""
    return np.uint64(2 * (dimension * TABLES + ((address >> _SHIFT) & (TABLES - 1))))


@leaf
def remember(core, dimension, asid, address, table):
    """Remember that the table at hpa `table` maps small pages around `address`."""
    slot = _slot(dimension, address)
    core.tables[slot] = asid | address >> _SHIFT
    core.tables[slot + np.uint64(1)] = table & FRAME


@leaf
def entry_of(core, dimension, asid, address):
    """Return the hpa of the entry that, as far as is remembered, maps the small page of `address`; 0: no idea."""
    slot = _slot(dimension, address)
    if core.tables[slot] != asid | address >> _SHIFT:
        return 0
    return core.tables[slot + np.uint64(1)] + ((address >> PAGE_SHIFT & (ENTRIES - 1)) << 3)


@routine
def look_ahead(core, llc, vm, memory, address, cursor, limit):
    """Fetch what walks for the accesses after `cursor` will read."""
    end = min(cursor + _FAR + 1, limit)
    for place in range(max(vm.ahead, cursor + 1), end):
        hpa = entry_of(core, GUEST, vm.asid, address[np.uint64(place)])
        if hpa:
            _fetch(core, llc, memory, hpa)
    if vm.nested_levels:
        for place in range(max(vm.ahead - _LATER, cursor + 1), end - _LATER):
            hpa = entry_of(core, GUEST, vm.asid, address[np.uint64(place)])
            if hpa:
                hpa = entry_of(core, NESTED, vm.nested_asid, read_word(memory, hpa) & FRAME)
                if hpa:
                    _fetch(core, llc, memory, hpa)
    vm.ahead = end
