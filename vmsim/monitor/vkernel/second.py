"""What the host does to the entries of a vkernel's maps by guest frames: the verbs of `SecondMmu`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Flush, Leaf, Words
from vmsim.machine.formats import ACCESSED, DIRTY, FRAME, PAGE_SHIFT, PRESENT, WRITE
from vmsim.monitor.runs import ByRuns
from vmsim.monitor.vkernel.entries import MapTables, change_entries

__all__ = ["MapEntries"]


class MapEntries(ByRuns):
    """Entries of the maps of one vkernel."""

    backing: Words
    entries: MapTables

    def zap(self, first: int, count: int) -> Flush:
        """Clear what maps the frames, in every map. The host does it, and pays."""
        return Flush(linear=bool(self._change(first, count, PRESENT, -1).any()))

    def protect(self, first: int, count: int) -> Flush:
        """Take the right to write from what maps the frames."""
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
        for gfn in np.flatnonzero(self.entries.heads).tolist():
            writable = bool(self._change(gfn, 1, WRITE, 0).any())
            yield Leaf(gfn, int(self.backing[gfn] & FRAME) >> PAGE_SHIFT, 0, writable)

    def _change(self, first: int, count: int, mark: int, gone: int) -> NDArray[np.bool_]:
        """Take bits from the entries that map frames and have a flag; return which frames had such, bool[count]."""
        return self._change_each(np.arange(first, first + count), mark, gone)

    def _change_each(self, gfns: Words, mark: int, gone: int) -> NDArray[np.bool_]:
        """Do the same to some frames, int64[n]; return bool[n]."""
        found = np.zeros(len(gfns), np.bool_)
        change_entries(self.entries, gfns, mark, gone, found)
        return found
