"""What the host does to a shadow's entries by guest frames: the verbs of `SecondMmu`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Flush, Leaf, Words
from vmsim.machine.formats import ACCESSED, DIRTY, FRAME, PAGE_SHIFT, SWITCH, WRITE
from vmsim.monitor.runs import ByRuns
from vmsim.monitor.shadow.ranges import change_each_frame, change_frames, recover, zap_frames
from vmsim.monitor.shadow.records import ShadowTables

__all__ = ["ShadowEntries"]


class ShadowEntries(ByRuns):
    """The shadow's entries, found by the frames that they map."""

    memory: Words
    tables: ShadowTables
    of: list[ShadowTables]
    state: NDArray[Any]
    cpus: NDArray[Any]
    pages: NDArray[Any]
    gfns: NDArray[Any]

    @property
    def late_flags(self) -> bool:
        """Whether the shadow's entries have flags that the guest's do not have yet."""
        return bool(self.state["sync"][0])

    def zap(self, first: int, count: int) -> Flush:
        """Clear what maps the frames, and drop the shadows of those that are tables. The host does it, and pays."""
        with self.by_host():
            zapped = zap_frames(self.of[0], first, count)
        return Flush(linear=bool(zapped > 0))

    @contextmanager
    def by_host(self) -> Iterator[None]:
        """Do something by the tables of the first vCPU; no vCPU owes anything for it, or has to invalidate."""
        own = [(each[name], each[name].copy()) for each, name in self._guests]
        yield
        for field, value in own:
            field[:] = value

    @property
    def _guests(self) -> tuple[tuple[NDArray[Any], str], ...]:
        """What kernels leave behind for the guest to pay and to flush."""
        return (self.state, "flush"), (self.state, "remote"), (self.cpus, "due"), (self.cpus, "stale")

    def protect(self, first: int, count: int) -> Flush:
        """Take the right to write from what maps the frames."""
        return Flush(linear=bool(self._change(first, count, WRITE, WRITE).any()))

    def protect_logged(self, first: int, count: int) -> Flush:
        """Have the next write to each of the frames be noticed."""
        return self.protect(first, count)

    def note_unprotected(self) -> None:
        """Note nothing: every write can be noticed."""

    def recover(self) -> int:
        """Have large pages that were split for a dirty log come back large; return how many there were."""
        with self.by_host():
            return int(recover(self.of[0]))

    def age(self, first: int, count: int, *, clear: bool) -> NDArray[np.bool_]:
        """Return which frames were accessed, by the A flags of the shadow's entries."""
        return self._change(first, count, ACCESSED, ACCESSED if clear else 0)

    def age_each(self, numbers: Words, *, clear: bool) -> NDArray[np.bool_]:
        """Return which of some frames, int64[n], were accessed, bool[n], as `age` does."""
        found = np.zeros(len(numbers), np.bool_)
        change_each_frame(self.of[0], numbers, ACCESSED, ACCESSED if clear else 0, found)
        return found

    def mapped(self, first: int, count: int) -> NDArray[np.bool_]:
        """Return which frames an entry maps, bool[count]."""
        return self._change(first, count, -1, 0)

    def dirty(self, first: int, count: int, *, clear: bool) -> NDArray[np.bool_]:
        """Return which frames were written to, by the D flags of the shadow's entries."""
        return self._change(first, count, DIRTY, DIRTY if clear else 0)

    def leaves(self) -> Iterator[Leaf]:
        """Yield the shadow's entries that map pages."""
        for gfn in np.flatnonzero(self.gfns["leaves"]).tolist():
            node = int(self.gfns["leaves"][gfn])
            while node:
                page, index = node - 1 >> 9, node - 1 & 511
                entry = int(self.memory[(int(self.pages["hpa"][page]) >> 3) + index])
                order = 9 * (int(self.pages["level"][page]) - 1)
                if not entry & SWITCH:
                    yield Leaf(gfn, (entry & FRAME) >> PAGE_SHIFT & -(1 << order), order, bool(entry & WRITE))
                node = int(self.tables.links["next"][node - 1])

    def _change(self, first: int, count: int, mark: int, gone: int) -> NDArray[np.bool_]:
        """Take bits from the entries that map frames and have a flag; return which frames had such, bool[count]."""
        found = np.zeros(count, np.bool_)
        change_frames(self.of[0], first, count, mark, gone, found)
        return found
