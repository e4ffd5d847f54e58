"""Whether the maps of a vkernel are what they must be, entry by entry: for `--check`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Words
from vmsim.frames.records import State
from vmsim.machine.formats import DIRTY, FRAME, LARGE, PAGE_SHIFT, PRESENT, USER, WRITE
from vmsim.machine.memory import entry_at, read_entry, width_of
from vmsim.monitor.vkernel.entries import MapTables, nodes_of
from vmsim.tables.backing import UNBACKED, host_address, locate_page, shared_frames

__all__ = ["problems_of_maps"]

ELSEWHERE = -2


class Vkernel(Protocol):
    """What is looked at of a vkernel's monitor."""

    memory: Words
    maps: dict[int, int]  # gpa of the guest's root table: hpa of the map's
    levels: int
    owner: int
    ready: list[int]
    backing: NDArray[np.int64]
    entries: MapTables

    @property
    def frames_held(self) -> int:
        """Host frames that are tables of maps, or at hand for the first."""
        ...


def problems_of_maps(vkernel: Vkernel, frames: NDArray[Any], roots: Collection[int]) -> Iterator[str]:
    """Yield what is wrong with a vkernel's maps: whose the frames are, that they are guest∘host, how many there are.

    Parameters
    ----------
    vkernel : Vkernel
        The host's side.
    frames : FRAME_RECORD[:]
        The host's.
    roots : collection of int
        gpas of the guest's root tables whose maps must be in step.
    """
    pages = 0
    tables, width, shared = 0, int(width_of(vkernel.levels)), shared_frames(vkernel.backing)
    for guest, root in vkernel.maps.items():
        tables += 1
        for gva, level, entry in _entries(vkernel.memory, root, vkernel.levels, 0, width):
            reached = frames[(entry & FRAME) >> PAGE_SHIFT]
            state = State.TABLE if level > 1 else State.GUEST
            if level == 1 and (entry & FRAME) >> PAGE_SHIFT in shared:
                if entry & WRITE:
                    pfn = (entry & FRAME) >> PAGE_SHIFT
                    yield f"isolation: a vkernel's map lets the guest write to frame {pfn}, which is shared"
            elif reached["owner"] != vkernel.owner or reached["state"] != state:
                yield f"isolation: a vkernel's map reaches frame {(entry & FRAME) >> PAGE_SHIFT}, which is not its own"
            tables += level > 1
            pages += level == 1
            if level == 1 and guest in roots:
                hpa, rights = _guest(vkernel, guest, gva)
                if hpa == ELSEWHERE:
                    continue
                if hpa != entry & FRAME:
                    yield f"composition: a vkernel's map does not give what guest and host give for gva {gva:#x}"
                elif entry & ~rights & (PRESENT | USER | WRITE) or (entry & WRITE and not rights & DIRTY):
                    yield f"coherence: a vkernel's map gives rights for gva {gva:#x} that the guest's tables do not"
    listed = [each for gfn in np.flatnonzero(vkernel.entries.heads).tolist() for each in _listed(vkernel, gfn)]
    if len({place for place, _ in listed}) != pages or not all(right for _, right in listed):
        yield "coherence: the lists of a vkernel's entries by guest frame are not those of its maps"
    if tables + len(vkernel.ready) != vkernel.frames_held:
        yield f"conservation: {tables} tables are in a vkernel's maps, which holds {vkernel.frames_held} frames"


def _entries(memory: NDArray[np.int64], table: int, level: int, gva: int, width: int) -> Iterator[tuple[int, int, int]]:
    """Yield (gva, level, entry) of all entries in use at `table` and below."""
    entries = memory[table >> 3 : (table >> 3) + 512].view(np.int64 if width == 9 else np.uint32)
    for index in np.flatnonzero(entries).tolist():
        entry, here = int(entries[index]), gva + (index << PAGE_SHIFT + width * (level - 1))
        yield here, level, entry
        if level > 1:
            yield from _entries(memory, entry & FRAME, level - 1, here, width)


def _listed(vkernel: Vkernel, gfn: int) -> Iterator[tuple[int, bool]]:
    """Yield the place of each entry that is said to map a guest frame, and whether it does."""
    frame = (int(vkernel.backing[gfn]) & FRAME) >> PAGE_SHIFT
    for place, leads_to in nodes_of(vkernel.entries, gfn):
        yield place, leads_to == frame


def _guest(vkernel: Vkernel, table: int, gva: int) -> tuple[int, int]:
    """Return the hpa that guest and host give for a page, UNBACKED if none, and the bits that all entries have.

    ELSEWHERE says that the host has taken a table on the way, whose contents are not in memory now.
    """
    rights, level, width = -1, vkernel.levels, int(width_of(vkernel.levels))
    while True:
        place = int(host_address(vkernel.backing, int(entry_at(table, gva, level, width))))
        if place == UNBACKED and table >> PAGE_SHIFT < len(vkernel.backing):
            return ELSEWHERE, 0
        entry = int(read_entry(vkernel.memory, place, width)) if place != UNBACKED else 0
        if not level == 3 == vkernel.levels:  # a PDPTE has no rights
            rights &= entry | (DIRTY if level > 1 and not entry & LARGE else 0)
        if not entry & PRESENT:
            return UNBACKED, 0
        if level == 1 or entry & LARGE:
            within = (1 << PAGE_SHIFT + width * (level - 1)) - 1
            gpa = (entry & FRAME & ~within) | (gva & within)
            hpa, backed, _ = locate_page(vkernel.backing, gpa)
            return int(hpa) if backed else UNBACKED, rights
        table = entry & FRAME
        level -= 1
