"""Whether the maps of a vkernel are what they must be, entry by entry: for `--check`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Words
from vmsim.frames.records import State
from vmsim.machine.formats import DIRTY, FRAME, LARGE, PAGE_SHIFT, PRESENT, USER, WRITE
from vmsim.machine.memory import width_of, words_by_frame
from vmsim.monitor.vkernel.entries import MapTables, all_nodes
from vmsim.tables.backing import SHARED, UNBACKED, level_of, shared_frames

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
    entries, shared = _Entries(vkernel), shared_frames(vkernel.backing)
    value, pfn, leaf = entries.value, entries.pfn, entries.level == 1
    common = leaf & np.isin(pfn, [*shared])
    for frame in pfn[common & (value & WRITE != 0)].tolist():
        yield f"isolation: a vkernel's map lets the guest write to frame {frame}, which is shared"
    state = np.where(leaf, int(State.GUEST), int(State.TABLE))
    foreign = (frames["owner"][pfn] != vkernel.owner) | (frames["state"][pfn] != state)
    for frame in pfn[foreign & ~common].tolist():
        yield f"isolation: a vkernel's map reaches frame {frame}, which is not its own"
    in_step = leaf & np.isin(entries.guest, [*roots])
    gvas, value = entries.gva[in_step], value[in_step]
    hpas, rights = _guest(vkernel, entries.guest[in_step], gvas)
    other = (hpas != ELSEWHERE) & (hpas != value & FRAME)
    for gva in gvas[other].tolist():
        yield f"composition: a vkernel's map does not give what guest and host give for gva {gva:#x}"
    more = (value & ~rights & (PRESENT | USER | WRITE) != 0) | (value & WRITE != 0) & (rights & DIRTY == 0)
    for gva in gvas[(hpas == value & FRAME) & more].tolist():
        yield f"coherence: a vkernel's map gives rights for gva {gva:#x} that the guest's tables do not"
    gfns, places, lead_to = all_nodes(vkernel.entries)
    right = lead_to == (vkernel.backing[gfns] & FRAME) >> PAGE_SHIFT
    if len(np.unique(places)) != leaf.sum() or not right.all():
        yield "coherence: the lists of a vkernel's entries by guest frame are not those of its maps"
    tables = len(vkernel.maps) + int((~leaf).sum())
    if tables + len(vkernel.ready) != vkernel.frames_held:
        yield f"conservation: {tables} tables are in a vkernel's maps, which holds {vkernel.frames_held} frames"


class _Entries:
    """The entries in use of all maps, a column of each.

    Attributes
    ----------
    guest : int64[n]
        gpa of the guest's root table whose map it is in.
    gva : int64[n]
        The first that it translates.
    level, value, pfn : int64[n]
        Of its table; what it holds; the host frame that it leads to.
    """

    def __init__(self, vkernel: Vkernel) -> None:
        width = int(width_of(vkernel.levels))
        words = words_by_frame(vkernel.memory)
        guest = np.array([*vkernel.maps], np.int64)
        tables = np.array([*vkernel.maps.values()], np.int64) >> PAGE_SHIFT
        gva, parts = np.zeros_like(guest), []
        for level in range(vkernel.levels, 0, -1):
            held = words[tables] if width == 9 else words[tables].view(np.uint32)
            row, index = np.nonzero(held)
            value = held[row, index].astype(np.int64)
            guest, gva = guest[row], gva[row] + (index << PAGE_SHIFT + width * (level - 1))
            tables = (value & FRAME) >> PAGE_SHIFT
            parts.append((guest, gva, np.full_like(gva, level), value, tables))
        self.guest, self.gva, self.level, self.value, self.pfn = np.concatenate(parts, axis=1)


def _guest(vkernel: Vkernel, roots: Words, gvas: Words) -> tuple[Words, Words]:
    """Return the hpas that guest and host give for pages, UNBACKED if none, and the bits that all entries have.

    ELSEWHERE says that the host has taken a table on the way, whose contents are not in memory now.
    """
    levels, width, backing = vkernel.levels, int(width_of(vkernel.levels)), vkernel.backing
    memory = vkernel.memory if width == 9 else vkernel.memory.view(np.uint32)
    hpas, rights = np.full_like(gvas, UNBACKED), np.full_like(gvas, -1)
    left, tables = np.arange(len(gvas)), roots  # of which pages the walk goes on, and at which tables
    for level in range(levels, 0, -1):
        gfns = tables >> PAGE_SHIFT
        there = gfns < len(backing)
        words = backing[np.where(there, gfns, 0)]
        backed = there & (words & PRESENT != 0)
        hpas[left[there & ~backed]] = ELSEWHERE
        left, words = left[backed], words[backed]
        index = gvas[left] >> PAGE_SHIFT + width * (level - 1) & (1 << width) - 1
        values = memory[((words & FRAME) >> PAGE_SHIFT - width) + index].astype(np.int64)
        if not level == 3 == levels:  # a PDPTE has no rights
            rights[left] &= values | np.where((level > 1) & (values & LARGE == 0), DIRTY, 0)
        page = (values & PRESENT != 0) & ((level == 1) | (values & LARGE != 0))
        within = (1 << PAGE_SHIFT + width * (level - 1)) - 1
        gpas = (values[page] & FRAME & ~within) | (gvas[left[page]] & within)
        gfns = gpas >> PAGE_SHIFT
        words = np.where(gfns < len(backing), backing[np.minimum(gfns, len(backing) - 1)], 0)
        hpas[left[page]] = np.where((words & (PRESENT | SHARED) != 0) & (level_of(words) > 0), words & FRAME, UNBACKED)
        below = (values & PRESENT != 0) & ~page
        left, tables = left[below], values[below] & FRAME
    return hpas, rights
