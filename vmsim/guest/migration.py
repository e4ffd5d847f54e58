"""How a guest's kernel empties a range of its memory: what is free is isolated, and pages are moved elsewhere.

Linux: mm/page_alloc.c, alloc_contig_range, with mm/page_isolation.c. Where something stays (guest/moving.py) nothing is
isolated any more, though some pages may have moved.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Steps, Vcpu, Words
from vmsim.frames.buddy import free_many, use
from vmsim.frames.isolation import isolate_range
from vmsim.frames.records import State
from vmsim.guest.moving import PageMover

__all__ = ["Migration"]

_PASSES = 5  # over a range of which something is left


class Migration(PageMover):
    """Moves pages out of the way, with the parameters of `PageMover`.

    Attributes
    ----------
    held : int
        Frames of the range that is being emptied that nobody has any more.
    counts : Counter
        Pages `moved`, large ones `moved_large` or `split`; ranges that failed because of what cannot be moved
        (`unmovable`), or could not just then (`busy`).
    """

    def __init__(self, *parts: Any, **more: Any) -> None:
        super().__init__(*parts, **more)
        self.counts.update(dict.fromkeys(("moved", "moved_large", "split", "unmovable", "busy"), 0))
        self._first = 0
        self._mine: NDArray[np.bool_] = np.empty(0, np.bool_)  # of the range: frames that nobody has any more

    @property
    def held(self) -> int:
        """Frames of the range that is being emptied that nobody has any more."""
        return int(self._mine.sum())

    def empty(self, vcpu: Vcpu, first: int, limit: int) -> Steps[bool]:
        """Have the frames of [first, limit) be the kernel's own, with nothing in them; return whether they are."""
        self._first, self._mine = first, np.zeros(limit - first, np.bool_)
        vcpu.owe(self.cause, self.costs.log_scan * (limit - first))
        self._isolate()
        for _ in range(_PASSES):
            left = first + np.flatnonzero(~self._mine)
            if not len(left):
                break
            why = self._obstacle(left)
            before = len(left)
            if not why:
                yield from self._move(vcpu, left)
                self._isolate()
            if why or np.count_nonzero(~self._mine) == before:
                self.counts[why or "busy"] += 1
                break
        emptied = bool(self._mine.all())
        if not emptied:
            free_many(self.frames.zone, self.frames.frames, 0, first + np.flatnonzero(self._mine))
        self._mine = np.empty(0, np.bool_)
        return emptied

    def _isolate(self) -> None:
        self.frames.drain()
        taken = np.empty(len(self._mine), np.int64)
        frames, limit = self.frames, self._first + len(self._mine)
        count = int(isolate_range(frames.zone, frames.frames, self._first, limit, frames.owner, taken))
        self._mine[taken[:count] - self._first] = True

    def _obstacle(self, left: Words) -> str:
        """Return why the pages in some frames cannot be moved; empty: they can (has_unmovable_pages)."""
        states, clutter = self.frames.frames["state"][left], self.frames.clutter[left]
        if ((states != State.GUEST) & ~clutter).any():
            return "unmovable"
        movable = self.pages.holds_each(left) | self._in_large(left) | self._in_files(left) | clutter
        return "" if movable.all() and not any(map(self.pinned, left.tolist())) else "busy"

    def _move(self, vcpu: Vcpu, left: Words) -> Steps[None]:
        """Move what can be moved now."""
        large = left[self._in_large(left)]
        for head in np.unique(large & -self._large).tolist():
            yield from self._move_large(vcpu, head)
        small = left[self.pages.holds_each(left)]
        yield from self._move_programs(vcpu, small)
        for gfn in left[self._in_files(left)].tolist():
            yield from self._move_cached(vcpu, gfn)
        yield from self._move_clutter(vcpu, left[self.frames.clutter[left]])
        yield vcpu.settle()

    def _find(self, most: int, order: int) -> Words:
        """Take up to so many blocks of 2**order frames elsewhere, int64[n]."""
        found = self.frames.reserve(most, order)
        limit = self._first + len(self._mine)
        inside = (found < limit) & (found + (1 << order) > self._first)
        if order:
            self.frames.release(found[inside], order)
        else:
            self._mine[found[inside] - self._first] = True
        found = found[~inside]
        use(self.frames.frames, (found[:, None] + np.arange(1 << order)).ravel(), int(State.GUEST))
        return found

    def _keep(self, gfns: Words) -> None:
        """Have frames that nobody uses any more: those of the range stay isolated, others are free."""
        inside = (gfns >= self._first) & (gfns < self._first + len(self._mine))
        use(self.frames.frames, gfns[inside], int(State.HOST))
        self._mine[gfns[inside] - self._first] = True
        self.frames.give_tables(gfns[~inside])
