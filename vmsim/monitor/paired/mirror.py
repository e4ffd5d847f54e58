"""Stores to a KPT, and to the EPT what says the same, entry by entry in one call."""

from __future__ import annotations

import numpy as np

from vmsim.frames.records import State
from vmsim.jit import kernel
from vmsim.machine.formats import ACCESSED, DIRTY, FRAME, LARGE, PAGE_SHIFT, PRESENT, WRITE
from vmsim.machine.memory import read_word, write_word

__all__ = ["store_mirrored"]


@kernel
def store_mirrored(memory, frames, places, values, twins, page, accessed, dirty, links):
    """Store KPTEs in order, then the EPTEs of those that map pages, as `space.mirrored` has them.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    frames : FRAME_RECORD[:]
        The host's.
    places, values, twins : int64[n]
        hpas of the KPTEs, the KPTEs, and the hpas of their EPTEs.
    page, accessed, dirty : int
        Bits of an EPTE that maps a page, and its flags; 0 where it has none.
    links : int64[n]
        Filled: which of them point to tables, whose EPTEs are left to the caller.

    Returns
    -------
    int
        How many do.
    """
    for number in range(len(places)):  # in order: a link, then what is below
        write_word(memory, places[number], values[number])
    found = 0
    for number in range(len(places)):
        value = values[number]
        entry = np.int64(0)
        if value & PRESENT:
            if value & LARGE == 0 and frames[(value & FRAME) >> PAGE_SHIFT].state == State.TABLE:
                links[found] = number
                found += 1
                continue
            entry = (value & (FRAME | LARGE | WRITE)) | (page & ~(accessed | dirty | WRITE))
            before = read_word(memory, twins[number])
            if entry and (before ^ entry) & FRAME == 0:  # the flags stay where the page does and the KPTE has them too
                kept = (accessed if value & ACCESSED else 0) | (dirty if value & DIRTY else 0)
                entry |= before & kept
        write_word(memory, twins[number], entry)
    return found
