"""What the host does to nested entries by guest frames: the verbs of `SecondMmu`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Flush, Host, Leaf, Words
from vmsim.machine.formats import FRAME, PAGE_SHIFT, PRESENT, WRITE, NestedFormat
from vmsim.machine.memory import find_entry, read_entry, width_of
from vmsim.tables.backing import SHARED
from vmsim.tables.dirty import permit_one
from vmsim.tables.ranges import change_each, change_range
from vmsim.tables.words import places_of

__all__ = ["NestedEntries"]


class NestedEntries:
    """Entries of the nested tables of one VM."""

    memory: Words
    host: Host
    form: NestedFormat
    backing: Words
    root: int
    levels: int

    def zap(self, first: int, count: int) -> Flush:
        """Clear the entries that map the frames; combined mappings of them go too (SDM vol. 3C §30.4.3.1, INVEPT)."""
        return Flush(nested=bool(self._change(first, count, -1, -1).any()))

    def zap_each(self, gfns: Words) -> Flush:
        """Do the same to some frames, int64[n]."""
        return Flush(nested=bool(self._change_each(gfns, -1, -1).any()))

    def protect(self, first: int, count: int) -> Flush:
        """Take the right to write from the entries that map the frames."""
        return Flush(nested=bool(self._change(first, count, WRITE, WRITE).any()))

    def permit(self, gpa: int) -> None:
        """Give back the right to write that `protect` has taken."""
        permit_one(self.memory, self.root, self.levels, gpa)

    @property
    def accessed_flags(self) -> bool:
        """Whether entries say what was accessed, so that nothing need be unmapped to find out."""
        return self.form.accessed != 0

    def age(self, first: int, count: int, *, clear: bool) -> NDArray[np.bool_]:
        """Return which frames were accessed, by the A flags.

        Without flags what is mapped counts, and to clear is to zap: the next access violates (arch/x86/kvm/mmu/spte.c,
        `mark_spte_for_access_track`). Whoever clears has the processors forget.
        """
        mark = self.form.accessed
        found = self._change(first, count, mark or -1, mark if clear else 0)
        if clear and not mark:
            self.zap(first, count)
        return found

    def age_each(self, numbers: Words, *, clear: bool) -> NDArray[np.bool_]:
        """Return which of some frames, int64[n], were accessed, bool[n], as `age` does."""
        mark = self.form.accessed
        found = self._change_each(numbers, mark or -1, mark if clear else 0)
        if clear and not mark:
            self.zap_each(numbers[found])
        return found

    def mapped(self, first: int, count: int) -> NDArray[np.bool_]:
        """Return which frames an entry maps, bool[count]."""
        return self._change(first, count, -1, 0)

    def dirty(self, first: int, count: int, *, clear: bool) -> NDArray[np.bool_]:
        """Return which frames were written to, by the D flags; without them, which may be, and to clear protects."""
        mark = self.form.dirty
        found = self._change(first, count, mark or WRITE, mark if clear else 0)
        if clear and not mark:
            self.protect(first, count)
        return found

    def leaves(self) -> Iterator[Leaf]:
        """Yield the entries that map pages."""
        width = width_of(self.levels)
        for gfn in places_of(self.backing, PRESENT | SHARED).tolist():
            place, level = find_entry(self.memory, self.root, self.levels, 1, gfn << PAGE_SHIFT)
            entry, order = int(read_entry(self.memory, place, width)), width * (int(level) - 1)
            if entry and gfn % (1 << order) == 0:
                yield Leaf(gfn, (entry & FRAME) >> PAGE_SHIFT & -(1 << order), order, bool(entry & WRITE))

    def _change_each(self, gfns: Words, mark: int, gone: int) -> NDArray[np.bool_]:
        found = np.zeros(len(gfns), np.bool_)
        change_each(self.memory, self.root, self.levels, gfns, mark, gone, found)
        return found

    def _change(self, first: int, count: int, mark: int, gone: int) -> NDArray[np.bool_]:
        """Take bits from the entries that map frames and have a flag; return which frames had such, bool[count]."""
        found = np.zeros(count, np.bool_)
        change_range(self.memory, self.root, self.levels, first, count, mark, gone, found)
        return found
