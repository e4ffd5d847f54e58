"""Pages that one small entry maps, found by the reverse map: those of its programs that a kernel can reclaim."""

from __future__ import annotations

from vmsim.frames.records import State
from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import FRAME, LARGE, PAGE_SHIFT, PRESENT
from vmsim.machine.memory import read_entry
from vmsim.tables.backing import UNBACKED, host_address

__all__ = ["are_mapped", "list_mapped"]


@leaf
def _maps(entry, number):
    """Return whether an entry maps a small page in a frame."""
    return entry & (PRESENT | LARGE) == PRESENT and (entry & FRAME) >> PAGE_SHIFT == number


@routine
def _is_mapped(memory, backing, frames, owner, width, number):
    frame = frames[number]
    place = frame.rmap
    if frame.state != State.GUEST or frame.owner != owner or place <= 0:
        return False
    if frames[place >> PAGE_SHIFT].state != State.TABLE:
        return False
    hpa = host_address(backing, place)
    return hpa != UNBACKED and _maps(read_entry(memory, hpa, width), number)


@kernel
def list_mapped(memory, backing, frames, owner, width, found):
    """List the frames of such pages, ascending; return how many there are.

    A page below a table that lies nowhere just now is left out.

    Parameters
    ----------
    memory, backing : int64[:]
        Host-physical memory, and where the kernel's lies.
    frames : FRAME_RECORD[:]
        The kernel's.
    owner, width : int
        Of its frames, and of its tables (bits of an address that each translates).
    found : int64[frames]
        Filled.
    """
    count = 0
    for number in range(len(frames)):
        if _is_mapped(memory, backing, frames, owner, width, number):
            found[count] = number
            count += 1
    return count


@kernel
def are_mapped(memory, backing, frames, owner, width, numbers, found):
    """Say which of some frames, int64[n], hold such pages: `found`, bool[n]."""
    for at in range(len(numbers)):
        found[at] = _is_mapped(memory, backing, frames, owner, width, numbers[at])
