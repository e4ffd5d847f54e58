"""Pages of a guest's programs that its kernel can reclaim: looked at, unmapped, and brought to the swap device.

These are the small pages of private memory that one entry maps, as the reverse map says (mm/rmap.c); what several
entries map, large pages, and pages of files and of shared memory that are mapped stay. Who reclaims takes no lock for
which it would have to wait (folio_trylock, down_read_trylock): it may hold some itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Frames, Mmu, Steps, SwappedOut, Vcpu, Words
from vmsim.guest.flushes import Cpus
from vmsim.guest.locks import Held
from vmsim.guest.operations import FLUSH_CEILING
from vmsim.guest.regions import KINDS
from vmsim.guest.spaces import Space
from vmsim.machine.formats import ACCESSED, FRAME, LARGE, PAGE_SHIFT, PRESENT
from vmsim.tables.mapped import are_mapped, list_mapped
from vmsim.tables.pages import places_of

__all__ = ["ProgramPages", "maps_small"]

_SMALL = PRESENT | LARGE


class ProgramPages:
    """Such pages of all processes, by frame.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    mmu, frames, cpus
        The kernel's.
    levels, width : int
        Of its tables.
    spaces : callable
        Returns the address spaces.

    Attributes
    ----------
    swap : SwappedOut or None
        Where they go; None: nowhere, so they stay.
    returned : int
        Pages that came back.
    """

    swap: SwappedOut | None = None

    def __init__(
        self,
        memory: Words,
        mmu: Mmu,
        frames: Frames,
        cpus: Cpus,
        *,
        levels: int,
        width: int,
        spaces: Callable[[], list[Space]],
    ) -> None:
        self.memory = memory
        self.mmu = mmu
        self.frames = frames
        self.cpus = cpus
        self.levels = levels
        self.width = width
        self.spaces = spaces
        self.records = frames.frames
        self.owner = frames.owner
        self.numbers = len(frames.frames)
        self.returned = 0

    @property
    def pages(self) -> ProgramPages:
        """What lists know of a VM: itself."""
        return self

    def present(self) -> Words:
        """Return the frames of all such pages, int64[n], ascending."""
        found = np.empty(self.numbers, np.int64)
        where = self.memory, self.mmu.backing, self.records, self.owner, self.width
        return found[: list_mapped(*where, found)]

    def holds_each(self, numbers: Words) -> NDArray[np.bool_]:
        """Return which frames hold such pages, bool[n]."""
        found = np.empty(len(numbers), np.bool_)
        are_mapped(self.memory, self.mmu.backing, self.records, self.owner, self.width, numbers, found)
        return found

    def places_of(self, gfns: Words) -> tuple[Words, Words]:
        """Return where pages are mapped: roots (gpas) and the pages' numbers there, int64[n] each."""
        found: tuple[Words, Words] = places_of(self.records, gfns, self.levels, self.width)
        return found

    def age(self, vcpu: Vcpu, gfns: Words) -> Steps[NDArray[np.bool_]]:
        """Return which pages were accessed, bool[n], and forget it; those that cannot be looked at now count so too.

        No CPU is told to forget anything (arch/x86/mm/pgtable.c, ptep_clear_flush_young).
        """
        young = np.ones(len(gfns), np.bool_)
        for _, held, which, _ in self.by_space(gfns):
            with held:
                places = self.records["rmap"][gfns[which]].astype(np.int64)
                yield from self.frames.ensure(vcpu, np.unique(places >> PAGE_SHIFT))
                values = yield from self.mmu.read(vcpu, places)
                used = maps_small(values, gfns[which]) & (values & ACCESSED != 0)
                young[which] = used
                if used.any():
                    yield from self.mmu.write(vcpu, places[used], values[used] & ~ACCESSED)
        return young

    def take(self, vcpu: Vcpu, gfns: Words) -> Steps[Words]:
        """Have pages go to the swap device; return those that do, int64[n]. Others stay where they are."""
        gone = [gfns[:0]]
        if self.swap is None:
            return gone[0]
        for space, held, which, numbers in self.by_space(gfns):
            with held:
                gone.append((yield from self._take(vcpu, self.swap, space, gfns[which], numbers)))
        return np.concatenate(gone)

    def _take(self, vcpu: Vcpu, swap: SwappedOut, space: Space, gfns: Words, numbers: Words) -> Steps[Words]:
        """Take pages of a space that is locked: entered in the swap cache, unmapped, flushed, written."""
        places = self.records["rmap"][gfns].astype(np.int64)
        yield from self.frames.ensure(vcpu, np.unique(places >> PAGE_SHIFT))
        values = yield from self.mmu.read(vcpu, places)
        private = np.array([not (space.regions.at(at << PAGE_SHIFT) or 0) & KINDS for at in numbers.tolist()], np.bool_)
        good = maps_small(values, gfns) & private
        taken, ticket = swap.admit(gfns[good])
        if not len(taken):
            return taken
        which = np.isin(gfns, taken)
        space.unflushed = "pages"
        yield from self.mmu.write(vcpu, places[which], np.zeros(len(taken), np.int64))
        self.records["rmap"][taken] = 0
        yield from self.flush(vcpu, space, numbers[which] << PAGE_SHIFT)
        space.unflushed = ""
        yield from self.frames.ensure(vcpu, taken)
        swap.write(vcpu, ticket)
        return taken

    def flush(self, vcpu: Vcpu, space: Space, gvas: Words) -> Steps[None]:
        """Have CPUs forget pages: all of the space by one interrupt where others run it (try_to_unmap_flush)."""
        others = [cpu for cpu in self.cpus.running(space) if cpu != vcpu.number]
        if others or len(gvas) > FLUSH_CEILING:
            yield from self.cpus.flush(vcpu, space)
            return
        for gva in gvas.tolist():
            yield from self.cpus.invalidate(vcpu, space, gva, gva + (1 << PAGE_SHIFT) - 1, 0)

    def by_space(self, gfns: Words) -> Iterator[tuple[Space, Held[Any], Words, Words]]:
        """Yield each space that can be locked at once, with its locks; which pages are its, and their numbers there."""
        roots, numbers = self.places_of(gfns)
        for space in self.spaces():
            which = np.flatnonzero(roots == space.root)
            if len(which) and (held := _lock(space)):
                yield space, held, which, numbers[which]

    def locked(self, root: int) -> tuple[Space, Held[Any]] | None:
        """Return the space with a root (gpa), and its locks; None: it cannot be locked at once."""
        for space in self.spaces():
            if space.root == root:
                held = _lock(space)
                return (space, held) if held else None
        return None


def _lock(space: Space) -> Held[Any] | None:
    if not space.lock.take(write=False):
        return None
    if not space.entries.take(write=True):
        space.lock.release()
        return None
    return Held(space, space.entries, space.lock)


def maps_small(values: Words, gfns: Words) -> NDArray[np.bool_]:
    """Return which entries map small pages in the frames given, bool[n]."""
    return np.asarray((values & _SMALL == PRESENT) & ((values & FRAME) >> PAGE_SHIFT == gfns))
