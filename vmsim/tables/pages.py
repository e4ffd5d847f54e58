"""What is done to many pages at once, each of which lies in a frame of its own."""

from __future__ import annotations

from vmsim.jit import kernel
from vmsim.machine.formats import ENTRIES
from vmsim.machine.memory import write_entry

__all__ = ["clear_entries", "clear_pages", "find_words"]


@kernel
def find_words(memory, pfns, found):
    """Say which of some frames, int64[n], hold anything but zeros: `found`, bool[n]."""
    for at in range(len(pfns)):
        first = pfns[at] * ENTRIES
        found[at] = False
        for word in range(first, first + ENTRIES):
            if memory[word]:
                found[at] = True
                break


@kernel
def clear_pages(memory, pfns):
    """Write zeros to some frames, int64[n]."""
    for at in range(len(pfns)):
        first = pfns[at] * ENTRIES
        memory[first : first + ENTRIES] = 0


@kernel
def clear_entries(memory, places, width):
    """Clear the entries at some places (hpas, int64[n])."""
    for at in range(len(places)):
        write_entry(memory, places[at], 0, width)
