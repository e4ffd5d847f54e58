"""A guest kernel's map of all its memory, through which it reaches page tables and new frames.

Linux maps all memory at `page_offset_base` (Documentation/arch/x86/x86_64/mm.rst), for the kernel alone, with the
largest pages that the CPU has and that lie in memory as a whole (arch/x86/mm/init.c, init_memory_mapping). The tables
of the map are made once; the root of every address space points to them (arch/x86/mm/pgtable.c, pgd_ctor).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vmsim.contracts import Backer, Frames, Mmu, Steps, Vcpu, Words
from vmsim.machine.formats import ACCESSED, DIRTY, ENTRIES, LARGE, PAGE_SHIFT, PRESENT, WRITE
from vmsim.machine.memory import entry_at, index_of

__all__ = ["DirectMap", "map_base"]

_TABLE = PRESENT | WRITE | ACCESSED  # no USER: programs may not use what lies below
_PAGE = PRESENT | WRITE | ACCESSED | DIRTY
_BASES = {4: 0xFFFF_8880_0000_0000, 5: 0xFF11_0000_0000_0000}


def map_base(levels: int) -> int:
    """Return where Linux maps all memory, by the levels of its tables, 4 or 5: the bits of the gva that they use."""
    return _BASES[levels] & ((1 << (PAGE_SHIFT + 9 * levels)) - 1)


class DirectMap:
    """The `Mmu` of a kernel whose loads and stores the hardware translates, by a map of all memory.

    Every entry that the kernel loads or stores, and every frame that it clears or copies to, is an access at CPL 0: one
    for each entry, and one for each frame, whose other stores find the translation in the TLB. What finds a frame not
    backed is such an access. Until the first address space is loaded there is no map, and nothing to translate.

    Parameters
    ----------
    mmu : Mmu
        What loads and stores do once they are translated.
    monitor : Backer
        The monitor, which backs what the kernel touches before it has its map.
    reach : callable
        Makes one access of a vCPU to a gpa by the map; the last argument says whether it is a store.
    levels, largest : int
        Of the guest's tables, 4 or 5; the level above which no entry maps a page, 2 or 3.
    frames : int
        Guest memory, in frames.
    """

    traps = loads_trap = True
    unseen = False
    known = False

    def __init__(
        self,
        mmu: Mmu,
        monitor: Backer,
        reach: Callable[[Any, int, bool], Steps[None]],
        *,
        levels: int,
        largest: int,
        frames: int,
    ) -> None:
        self.mmu = mmu
        self.broadcasts = mmu.broadcasts
        self.backing = mmu.backing
        self._monitor = monitor
        self.levels = levels
        self.largest = largest
        self.size = frames
        self.base = map_base(levels)
        self.tables: list[int] = []  # frames of the map's tables
        self._reach = reach
        self._top: dict[int, int] = {}  # entries of a root: offset in it, and value
        self._loaded = False

    def touch(self, vcpu: Vcpu, gfn: int, order: int) -> Steps[None]:
        """Do nothing for frames that were just allocated: the kernel's first store to each finds them not backed."""
        return
        yield

    def read(self, vcpu: Vcpu, places: Words) -> Steps[Words]:
        """Load entries."""
        for place in places.tolist():
            yield from self._access(vcpu, place, write=False)
        return (yield from self.mmu.read(vcpu, places))

    def write(self, vcpu: Vcpu, places: Words, values: Words) -> Steps[None]:
        """Store entries."""
        for number, place in enumerate(places.tolist()):
            yield from self._access(vcpu, place, write=True)
            yield from self.mmu.write(vcpu, places[number : number + 1], values[number : number + 1])

    def took(self) -> None:
        """Do nothing: each of its stores is one by itself."""

    def clear(self, vcpu: Vcpu, gpa: int, order: int, *, table: bool) -> Steps[None]:
        """Write over frames."""
        if not self._loaded:
            yield from self._monitor.touch(vcpu, gpa >> PAGE_SHIFT, order)
        for frame in range(1 << order):
            yield from self._access(vcpu, gpa + (frame << PAGE_SHIFT), write=True)
        yield from self.mmu.clear(vcpu, gpa, order, table=table)

    def load_root(self, vcpu: Vcpu, root: int, space: int, *, keep: bool) -> Steps[None]:
        """MOV to CR3."""
        yield from self.mmu.load_root(vcpu, root, space, keep=keep)
        self._loaded = True

    def invalidate(self, vcpu: Vcpu, first: int, last: int, *, order: int = 0) -> Steps[None]:
        """INVLPG for each page of a range."""
        yield from self.mmu.invalidate(vcpu, first, last, order=order)

    def flush(self, vcpu: Vcpu) -> Steps[None]:
        """Forget the current space."""
        yield from self.mmu.flush(vcpu)

    def release(self, vcpu: Vcpu, root: int, space: int) -> Steps[None]:
        """Note that the root of a space is freed."""
        yield from self.mmu.release(vcpu, root, space)

    def enter(self, vcpu: Vcpu, frames: Frames, root: int) -> Steps[None]:
        """Have a new root point to the map; the first time its tables are made."""
        if not self._top:
            yield from self._make(vcpu, frames)
        places = root + np.array([*self._top], np.int64)
        yield from self.write(vcpu, places, np.array([*self._top.values()], np.int64))

    def _access(self, vcpu: Vcpu, gpa: int, *, write: bool) -> Steps[None]:
        if self._loaded:
            yield from self._reach(vcpu, gpa, write)

    def _make(self, vcpu: Vcpu, frames: Frames) -> Steps[None]:
        """Make the tables of the map, by the early kernel's own, which are not simulated."""
        made: dict[tuple[int, int], int] = {}  # gpa of a table, by its level and the first address that it translates
        gfn = 0
        while gfn < self.size:
            leaf = self.largest
            while gfn + (ENTRIES ** (leaf - 1)) > self.size:
                leaf -= 1
            gva = self.base + (gfn << PAGE_SHIFT)
            table, level = -1, self.levels  # -1: the root, which is still to come
            while level > leaf:
                key = level - 1, gva >> (PAGE_SHIFT + 9 * (level - 1))
                if key not in made:
                    frame = yield from frames.allocate_table(vcpu)
                    yield from self.clear(vcpu, frame << PAGE_SHIFT, 0, table=True)
                    self.tables.append(frame)
                    made[key] = frame << PAGE_SHIFT
                    yield from self._link(vcpu, table, gva, level, made[key] | _TABLE)
                table = made[key]
                level -= 1
            page = gfn << PAGE_SHIFT | _PAGE | (LARGE if leaf > 1 else 0)
            yield from self._link(vcpu, table, gva, leaf, page)
            gfn += ENTRIES ** (leaf - 1)

    def _link(self, vcpu: Vcpu, table: int, gva: int, level: int, entry: int) -> Steps[None]:
        if table < 0:
            self._top[int(index_of(gva, level)) << 3] = entry
            return
        yield from self.mmu.write(vcpu, np.array([entry_at(table, gva, level)]), np.array([entry]))
