"""What the host does to the shadow and the nested tables of a VM under agile paging, and where its walks begin."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Flush, Words
from vmsim.machine.formats import PAGE_SHIFT, SWITCH
from vmsim.monitor.shadow.monitor import Shadow
from vmsim.monitor.shadow.nested import unlink_nested
from vmsim.monitor.shadow.quadrants import root_frame
from vmsim.monitor.shadow.roots import load_root
from vmsim.monitor.tdp.monitor import Tdp

__all__ = ["AgileEntries"]


class AgileEntries(Shadow):
    """The verbs of `SecondMmu` on both sets of tables, and on what CR3s and PDPTEs hold.

    A table that is walked nested has no shadow; what leads to it holds its own host address and SWITCH.
    """

    host_pages: Tdp
    _roots: list[OrderedDict[int, None]]  # whose pointers the hardware has, by vCPU

    def zap(self, first: int, count: int) -> Flush:
        """Clear what maps the frames; nested tables among them go back to the shadow, the root in CR3 at once."""
        nested = bool(self.gfns["nested"][first : first + count].any())
        self.host_pages.zap(first, count)
        flush = super().zap(first, count)
        if nested:
            self._forget_pointers()
            self._follow_roots()
        return Flush(nested=True, linear=flush.linear or nested)

    def protect(self, first: int, count: int) -> Flush:
        """Take the right to write from what maps the frames, in the shadow and in the nested tables.

        An entry that switches to a table gives rights to all below, and none to the table, which the processor stores
        flags to: such tables go back to the shadow.
        """
        flush = Flush(nested=True)
        for gfn in np.flatnonzero(self.gfns["nested"][first : first + count]).tolist():
            flush += self.zap(first + gfn, 1)
        self.host_pages.protect(first, count)
        return flush + super().protect(first, count)

    def age(self, first: int, count: int, *, clear: bool) -> NDArray[np.bool_]:
        """Return which frames were accessed, by the A flags of the shadow's entries and of the nested tables'."""
        return super().age(first, count, clear=clear) | self.host_pages.age(first, count, clear=clear)

    def age_each(self, numbers: Words, *, clear: bool) -> NDArray[np.bool_]:
        """Return which of some frames, int64[n], were accessed, bool[n], as `age` does."""
        return super().age_each(numbers, clear=clear) | self.host_pages.age_each(numbers, clear=clear)

    def mapped(self, first: int, count: int) -> NDArray[np.bool_]:
        """Return which frames an entry of either maps, bool[count]."""
        return super().mapped(first, count) | self.host_pages.mapped(first, count)

    def dirty(self, first: int, count: int, *, clear: bool) -> NDArray[np.bool_]:
        """Return which frames were written to, by the D flags of both."""
        return super().dirty(first, count, clear=clear) | self.host_pages.dirty(first, count, clear=clear)

    def protect_logged(self, first: int, count: int) -> Flush:
        """Have the next write to each of the frames be noticed, that of a flag to a table past a switch among them.

        Such tables stay nested. The entries that switch to them go, and come back, noted in the log, when they are next
        walked through: an entry that leads to a table gives no say in what the hardware stores there.
        """
        with self.by_host():
            unlink_nested(self.of[0], first, count)
        self.host_pages.protect(first, count)
        return Flush(nested=True, linear=True) + super().protect(first, count)

    def note_unprotected(self) -> None:
        """Note the nested tables that CR3s lead to: the hardware sets flags there by their own addresses."""
        for number in range(len(self.cr3)):
            for gfn, pointer, _ in self._roots_of(number):
                if pointer & SWITCH:
                    self.tables.dirty[gfn] = True

    @property
    def memory_root(self) -> tuple[int, int]:
        """Root and levels of the nested tables."""
        return self.host_pages.memory_root

    @property
    def _most_roots(self) -> int:
        """Shadow pages that a CR3 leads to."""
        return 4 if self._pae else 1

    def _roots_of(self, cpu: int) -> Iterator[tuple[int, int, int]]:
        """Yield the guest's tables in which a vCPU's walks begin: gfn, what leads to it, its shadow page or NO_PAGE."""
        registers, roots, gfn = self.registers, self.cpus["roots"][cpu].tolist(), self.cr3[cpu] >> PAGE_SHIFT
        if not self._pae:
            yield gfn, int(registers["cr3"][cpu]), roots[0]
            return
        for number, pointer in enumerate(registers["pdpte"][cpu].tolist()):
            table = int(root_frame(self.state[0], self.cpus[cpu], gfn, number))
            if table >= 0:
                yield table, pointer, roots[number]

    def _points_to_root(self, cpu: int) -> bool:
        nested, invalid = self.gfns["nested"], self.pages["invalid"]
        return all(
            bool(nested[gfn]) == bool(pointer & SWITCH) and (page < 0 or not invalid[page])
            for gfn, pointer, page in self._roots_of(cpu)
        )

    def _follow_roots(self) -> None:
        """Point CR3s to the shadow of their root, where that is no nested table any more; or see `reload`."""
        for number, root in enumerate(self.cr3):
            back = any(pointer & SWITCH and not self.gfns["nested"][gfn] for gfn, pointer, _ in self._roots_of(number))
            if back and (hpa := int(load_root(self.of[number], root >> PAGE_SHIFT, self._most_roots))) >= 0:
                self._point(number, hpa)

    def _forget_pointers(self) -> None:
        """Forget which pointers the hardware has."""
        for roots in self._roots:
            roots.clear()
