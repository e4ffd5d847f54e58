"""A process of a paired kernel that is no VM, in compiled code: each KPTE that its kernel stores has an EPTE beside it.

Faults and system calls that need a new table are left to the kernel's process, as is what lies behind pointers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vmsim.contracts.commit import ROOM, handle, pass_on, store
from vmsim.jit import routine
from vmsim.machine.formats import PAGE_SHIFT, NestedFormat
from vmsim.machine.memory import write_word
from vmsim.monitor.paired.mirror import store_mirrored

__all__ = ["MIRROR", "ProcessMode", "make_process_mode", "steps_of"]

# How KPTEs are mirrored, and what was done to entries since that was last collected.
MIRROR = np.dtype(
    (
        np.record,
        [
            ("two", "i8"),  # 1: tables have a second half, which is the next page
            ("page", "i8"),  # bits of an EPTE that maps a page
            ("accessed", "i8"),
            ("dirty", "i8"),
            ("each", "i8"),  # cycles of an EPTE
            ("walks", "i8"),  # to the tables of ranges
            ("updates", "i8"),  # of entries of ranges
            ("stores", "i8"),
        ],
    )
)


class ProcessMode(NamedTuple):
    """The tables of one process."""

    memory: np.ndarray  # int64[:], host-physical memory
    frames: np.ndarray  # FRAME_RECORD[:], the host's
    mirror: np.ndarray  # MIRROR[1]
    scratch: np.ndarray  # int64[2, ROOM]


def make_process_mode(
    memory: np.ndarray, frames: np.ndarray, form: NestedFormat, *, two: bool, each: int
) -> ProcessMode:
    """Return the state of a process, whose second tables have the format given; the others are fields of MIRROR."""
    mirror = np.zeros(1, MIRROR)
    mirror["two"], mirror["each"] = two, each
    mirror["page"], mirror["accessed"], mirror["dirty"] = form.page, form.accessed, form.dirty
    return ProcessMode(memory, frames, mirror, np.empty((2, ROOM), np.int64))


def steps_of(mode: ProcessMode, levels: int) -> dict[str, int]:
    """Return the steps that compiled code has taken, by their names in `PairedSpace.work`, those that it has."""
    done = mode.mirror[0]
    walks = int(done["walks"])
    steps = {"walks": walks, "load": levels * walks, "store": int(done["stores"]), "updates": int(done["updates"])}
    return {name: count for name, count in steps.items() if count}


handle.register(ProcessMode, pass_on)


@store.register(ProcessMode)
@routine
def _store(mode, bill, places, values):
    """Store entries that map small pages, and what says the same; those of a system call are a range's."""
    mirror, count = mode.mirror[0], len(places)
    if mirror.two:
        twins, links = mode.scratch[0, :count], mode.scratch[1, :count]
        for number in range(count):
            twins[number] = places[number] + (1 << PAGE_SHIFT)
        given = mode.memory, mode.frames, places, values, twins
        store_mirrored(*given, mirror.page, mirror.accessed, mirror.dirty, links)
        cycles = count * mirror.each
        bill.now += cycles
        if bill.calling:
            bill.kernel += cycles
        else:
            bill.guest += cycles
        mirror.stores += count
    else:
        for number in range(count):
            write_word(mode.memory, places[number], values[number])
    if bill.calling:
        mirror.stores += count
        mirror.updates += count
        table = np.int64(-1)
        for number in range(count):
            if places[number] >> PAGE_SHIFT != table:
                table = places[number] >> PAGE_SHIFT
                mirror.walks += 1
