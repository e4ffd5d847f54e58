"""What the host does to the entries of a vkernel's maps by guest frames: the verbs of `SecondMmu`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Flush, Leaf, Words
from vmsim.machine.formats import ACCESSED, DIRTY, FRAME, PAGE_SHIFT, PRESENT, WRITE
from vmsim.monitor.tdp.monitor import Tdp
from vmsim.monitor.vkernel.tables import change_pages
from vmsim.tables.backing import SHARED

__all__ = ["MapEntries"]


class MapEntries:
    """Entries of the maps of one vkernel."""

    memory: Words
    backing: Words
    host_tables: Tdp
    levels: int
    maps: dict[int, int]  # gpa of the guest's root table: hpa of the map's

    def zap(self, first: int, count: int) -> Flush:
        """Clear what maps the frames, in every map. The host does it, and pays."""
        flush = Flush(linear=bool(self._change(first, count, PRESENT, -1).any()))
        self.host_tables.zap(first, count)
        return flush

    def protect(self, first: int, count: int) -> Flush:
        """Take the right to write from what maps the frames."""
        self.host_tables.protect(first, count)
        return Flush(linear=bool(self._change(first, count, WRITE, WRITE).any()))

    def age(self, first: int, count: int, *, clear: bool) -> NDArray[np.bool_]:
        """Return which frames were accessed, by the A flags of the maps' entries."""
        return self._change(first, count, ACCESSED, ACCESSED if clear else 0)

    def age_each(self, numbers: Words, *, clear: bool) -> NDArray[np.bool_]:
        """Return which of some frames, int64[n], were accessed, bool[n], as `age` does."""
        return self._change_each(numbers, ACCESSED, ACCESSED if clear else 0)

    def mapped(self, first: int, count: int) -> NDArray[np.bool_]:
        """Return which frames an entry maps, bool[count]."""
        return self._change(first, count, PRESENT, 0)

    def dirty(self, first: int, count: int, *, clear: bool) -> NDArray[np.bool_]:
        """Return which frames were written to, by the D flags of the maps' entries."""
        return self._change(first, count, DIRTY, DIRTY if clear else 0)

    def leaves(self) -> Iterator[Leaf]:
        """Yield the entries of all maps that lead to guest memory."""
        for gfn in np.flatnonzero(self.backing & (PRESENT | SHARED)).tolist():
            for mark, writable in ((WRITE, True), (PRESENT, False)):
                if self._change(gfn, 1, mark, 0).any():
                    yield Leaf(gfn, int(self.backing[gfn] & FRAME) >> PAGE_SHIFT, 0, writable)
                    break

    def _change(self, first: int, count: int, mark: int, gone: int) -> NDArray[np.bool_]:
        """Take bits from the entries that map frames and have a flag; return which frames had such, bool[count]."""
        return self._change_each(np.arange(first, first + count), mark, gone)

    def _change_each(self, gfns: Words, mark: int, gone: int) -> NDArray[np.bool_]:
        """Do the same to some frames, int64[n]; return bool[n]."""
        found = np.zeros(len(gfns), np.bool_)
        there = np.flatnonzero(self.backing[gfns] & (PRESENT | SHARED))
        pfns = (self.backing[gfns[there]] & FRAME) >> PAGE_SHIFT
        order = np.argsort(pfns)
        for root in self.maps.values():
            seen = np.zeros(len(pfns), np.bool_)
            change_pages(self.memory, root, self.levels, pfns[order], mark, gone, seen)
            found[there[order][seen]] = True
        return found
