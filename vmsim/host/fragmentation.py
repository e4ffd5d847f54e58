"""A host whose free memory is fragmented when its VMs start: single free pages, each beside a page of the page cache.

How fragmented is the unusable free space index of M. Gorman and A. Whitcroft ("The What, the Why and the Where To of
Anti-Fragmentation", Linux Symposium 2006; Linux mm/vmstat.c, unusable_free_index): the share of free memory that is in
blocks too small for an allocation. Here it is the same for two pages and for all blocks up to 2 MiB, because single
pages lie together in pageblocks of their own, as grouping by mobility strives for, and all else is in whole pageblocks.

The pages in between are the page cache's, which the kernel can move: an index alone points to each, no page table
does. Linux keeps it in xarrays, whose nodes cannot be moved.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import NO_FLUSH, Flush, Leaf, Words
from vmsim.frames.buddy import allocate_many
from vmsim.frames.records import State
from vmsim.frames.uptime import break_up
from vmsim.host.guest_memory import GuestMemory
from vmsim.host.memory import HOST, HostMemory
from vmsim.machine.formats import ENTRIES, FRAME, PAGE_SHIFT, PRESENT
from vmsim.tables.backing import set_backing

__all__ = ["PageCache", "fragment"]


class PageCache(GuestMemory):
    """Pages that the host's kernel keeps, and their index: a word for each, which has its address.

    It is a memory without a guest: no processor has entries that lead to it.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    host : HostMemory
        Whose frames they are.
    index : int64[n]
        Frames of the index.
    pages : int64[m]
        Frames of the pages, at most 512 for each of the index.
    """

    def __init__(self, memory: Words, host: HostMemory, index: Words, pages: Words) -> None:
        super().__init__(host, memory, owner=HOST, pages=len(pages))
        self.memory = memory
        self.second = _NoEntries()
        for place, pfn in enumerate(pages.tolist()):
            set_backing(self.backing, host.frames, place, pfn, 0)
        words = (index[:, None] * ENTRIES + np.arange(ENTRIES)).ravel()
        memory[words] = 0
        self._words = words[: len(pages)]
        memory[self._words] = pages << PAGE_SHIFT | PRESENT

    @property
    def pages(self) -> Words:
        """Frames of the pages, int64[m]."""
        return np.asarray((self.memory[self._words] & FRAME) >> PAGE_SHIFT)

    def move(self, gfn: int, pfn: int) -> Flush:
        """Move a page, by its place in the index, to another frame, and have the index say so."""
        flush = super().move(gfn, pfn)
        word = int(self._words[gfn])
        self.memory[word] = pfn << PAGE_SHIFT | PRESENT
        return flush

    def problems(self) -> Iterator[str]:
        """Yield in what the index, the frames and the reverse map differ."""
        pages = self.pages
        frames = self.host.frames[pages]
        places = 1 + np.arange(len(pages))
        wrong = (frames["owner"] != HOST) | (frames["state"] != State.HOST) | (frames["rmap"] != places)
        for page in pages[wrong].tolist():
            yield f"the page cache has frame {page}, which is not its own or has another place in the reverse map"


class _NoEntries:
    """What processors can reach of the page cache: nothing."""

    def zap(self, first: int, count: int) -> Flush:
        """Clear nothing."""
        return NO_FLUSH

    def zap_each(self, gfns: Words) -> Flush:
        """Do nothing."""
        return NO_FLUSH

    def protect(self, first: int, count: int) -> Flush:
        """Protect nothing."""
        return NO_FLUSH

    def age(self, first: int, count: int, *, clear: bool) -> NDArray[np.bool_]:
        """Find nothing accessed."""
        return np.zeros(count, bool)

    def dirty(self, first: int, count: int, *, clear: bool) -> NDArray[np.bool_]:
        """Find nothing written to."""
        return np.zeros(count, bool)

    def age_each(self, numbers: Words, *, clear: bool) -> NDArray[np.bool_]:
        """Tell of no access."""
        return np.zeros(len(numbers), np.bool_)

    def mapped(self, first: int, count: int) -> NDArray[np.bool_]:
        """Map nothing."""
        return np.zeros(count, np.bool_)

    def leaves(self) -> Iterator[Leaf]:
        """Yield nothing."""
        return iter(())


def fragment(host: HostMemory, memory: Words, share: float, *, seed: int) -> PageCache:
    """Fill memory with the page cache's pages, and give back so many that a share of what is free is in single pages.

    Parameters
    ----------
    host : HostMemory
        Nothing of it is taken yet, but for good.
    memory : int64[:]
        Host-physical memory.
    share : float
        From 0 to 1. The page cache keeps share / (1 + share) of the memory: the least that makes it so.
    seed : int
        Says which pageblocks are in single pages, which page of two is free, and in what order they are handed out.
    """
    index = np.empty(-(-int(share / (1 + share) * host.free) // ENTRIES), np.int64)
    allocate_many(host.zone, host.frames, 0, int(State.TABLE), HOST, index)
    kept = break_up(host.zone, host.frames, HOST, share, np.random.PCG64(seed))
    return PageCache(memory, host, index, kept)
