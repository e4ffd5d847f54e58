"""Pages of a kernel's page cache that it can reclaim: clean ones are dropped, dirty ones are written first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Frames, ScannedLists, Steps, Vcpu, Words
from vmsim.guest.page_cache import PageCache

__all__ = ["FilePages"]

_NONE = np.empty(0, np.int64)


class FilePages:
    """Such pages, by frame; a `PageObserver` that keeps them on lists.

    Parameters
    ----------
    cache : PageCache
        The kernel's.
    frames : Frames
        Where their frames go.
    lists : ScannedLists
        Where they are listed.
    dirtied : callable
        Called when dirty pages stand in the way.
    """

    def __init__(self, cache: PageCache, frames: Frames, lists: ScannedLists, dirtied: Callable[[], None]) -> None:
        self.cache = cache
        self.frames = frames
        self.lists = lists
        self.dirtied = dirtied
        self.owner = frames.owner
        self.numbers = len(frames.frames)
        self._gone: dict[int, int] = {}  # pages that were evicted, and which of the lists' slots stands for each
        self._free: list[int] = []  # slots that stand for none any more

    @property
    def pages(self) -> FilePages:
        """What lists know of a VM: itself."""
        return self

    def present(self) -> Words:
        """Return none: the lists are told of each."""
        return _NONE

    def holds_each(self, numbers: Words) -> NDArray[np.bool_]:
        """Return which frames hold pages of the cache, bool[n]."""
        owners = self.cache.owners
        return np.array([number in owners for number in numbers.tolist()], np.bool_)

    def age(self, vcpu: Vcpu, gfns: Words) -> Steps[NDArray[np.bool_]]:
        """Return that no entry has been used: none maps them."""
        return np.zeros(len(gfns), np.bool_)
        yield

    def take(self, vcpu: Vcpu, gfns: Words) -> Steps[Words]:
        """Drop clean pages, and free their frames; return those, int64[n]."""
        keys = {gfn: self.cache.owners[gfn].key for gfn in gfns.tolist() if gfn in self.cache.owners}
        gone = np.array([gfn for gfn in keys if self.cache.evict(gfn)], np.int64)
        if len(gone) < len(keys):
            self.dirtied()
        if len(gone):
            self.lists.evicted(self, gone, np.array([self._slot_for(keys[gfn]) for gfn in gone.tolist()]))
            self.frames.give_tables(gone)
        return gone
        yield

    def _slot_for(self, key: int) -> int:
        """Return what stands for a page that is evicted: as a slot of a swap device does for one that goes there."""
        slot = self._gone.get(key)
        if slot is None:
            slot = self._gone[key] = self._free.pop() if self._free else len(self._gone)
        return slot

    def added(self, gfn: int, key: int) -> None:
        """Put a page on a list: on the active one if it was evicted a short time ago (mm/workingset.c)."""
        slot = self._gone.pop(key, None)
        if slot is None:
            self.lists.add(self, gfn)
        else:
            self.lists.returned(self, np.array([gfn]), np.array([slot]))
            self._free.append(slot)

    def used(self, gfn: int) -> None:
        """Note that a program has read or written it."""
        self.lists.use(self, gfn)

    def removed(self, gfn: int) -> None:
        """Take a page that is no more from its list."""
        self.lists.drop(self, np.array([gfn]))
