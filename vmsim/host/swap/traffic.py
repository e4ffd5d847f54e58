"""Requests to the swap device and their ends, by which pages come into the swap cache and leave it (mm/page_io.c).

Pages that are written or read together and lie side by side on the device are one request: the block layer merges them
while whoever submits them plugs it (block/blk-merge.c, blk_attempt_plug_merge; mm/vmscan.c, shrink_lruvec, and
mm/swap_state.c, swap_vma_readahead, plug it). A request is done with all of its pages when it is with the last. How
many pages one has at most the device says in Linux (max_sectors_kb); here it is 128 KiB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.contracts import Words
from vmsim.host.swap.area import SwapArea
from vmsim.host.swap.cache import AHEAD, BUSY, FAILED, READING, UNWRITTEN, WRITING, SwapCache
from vmsim.host.swap.compressed import CompressedMemory
from vmsim.host.swap.device import BlockDevice

__all__ = ["DeviceTraffic"]

_MOST = 32  # pages of a request: 128 KiB


class DeviceTraffic:
    """The swap cache, and the device that writes its pages and reads them.

    Parameters
    ----------
    host : HostMemory
        Whose frames.
    area : SwapArea
        The slots.
    device : BlockDevice or CompressedMemory
        Where pages go; what is compressed is never in the cache.

    Attributes
    ----------
    cache : SwapCache
        Pages in the swap cache.
    writing : int
        Frames that are free when the device has written them.
    unwritten : set of int
        Slots that the device has not what their pages hold: a write has failed, and there was none since.
    failing : int
        Writes that have failed since the last one that has not.
    progress : Event
        Triggered the next time that the device is done with a frame.
    """

    def __init__(self, host: Any, area: SwapArea, device: BlockDevice | CompressedMemory) -> None:
        self.host = host
        self.env = host.env
        self.area = area
        self.device = device
        self.cache = SwapCache(area.size)
        self.unwritten: set[int] = set()
        self.writing = self.failing = 0
        self.progress = self.env.event()
        self._ready: dict[int, simpy.Event] = {}  # by stamp, of pages that are read and that somebody waits for
        self._gone: set[int] = set()  # stamps of pages that nobody wants any more, and that the device works on

    def ready(self, slot: int) -> simpy.Event:
        """Return the event that a page of the cache has been read."""
        return self._ready.setdefault(int(self.cache.stamps[slot]), self.env.event())

    def submit_writes(self, slots: Words, pfns: Words) -> None:
        """Put pages in the cache, int64[n] each, and have the device write them."""
        self._submit(slots, pfns, self.cache.add(slots, pfns, WRITING))
        self.unwritten.difference_update(slots.tolist() if self.unwritten else ())

    def submit_reads(self, slots: Words, pfns: Words, stamps: Words) -> None:
        """Have the device read pages that are in the cache, int64[n] each."""
        assert isinstance(self.device, BlockDevice)
        done = self.device.read(self.env.cycle, slots.tolist())
        self._when_done(done, self._was_read, slots, pfns, stamps)

    def drop(self, slot: int) -> None:
        """Take a page out of the cache that nobody wants any more; its frame is free when the device is done."""
        if self.cache.flags[slot] & BUSY:
            self._gone.add(int(self.cache.stamps[slot]))
        else:
            self.host.give(self.cache.pfns[slot : slot + 1])
        self.cache.remove(np.array([slot]))

    def shrink_cache(self, count: int) -> int:
        """Free up to `count` frames of pages that the device has as well; return how many. Write those it has not."""
        cache, freed = self.cache, list[int]()
        if not count or len(cache) == self.writing:  # the usual case
            return 0
        for slot in cache.oldest():
            if len(freed) == count:
                break
            if cache.flags[slot] & UNWRITTEN:
                self._write_again(slot)
            elif not cache.flags[slot] & BUSY:
                freed.append(slot)
        if freed:
            slots = np.array(freed)
            self._forget_cached(slots)
            cache.remove(slots)
            self.host.give(cache.pfns[slots])
        return len(freed)

    def _write_again(self, slot: int) -> None:
        """Have the device write a page that it could not write."""
        cache, which = self.cache, np.array([slot])
        cache.flags[slot] = WRITING
        del cache.idle[slot]
        self.unwritten.discard(slot)
        self._submit(which, cache.pfns[which], cache.stamps[which])

    def _submit(self, slots: Words, pfns: Words, stamps: Words) -> None:
        """Have the device write pages; those that it is done with in the same cycle are one event."""
        assert isinstance(self.device, BlockDevice)
        self.writing += len(slots)
        done = self.device.write(self.env.cycle, slots.tolist())
        self._when_done(done, self._written, slots, pfns, stamps)

    def _when_done(self, done: Sequence[tuple[int, bool]], call: Callable[..., None], *pages: Words) -> None:
        """Call with those of some pages that the device is done with at a time, and whether it could be done."""
        together: dict[int, list[int]] = {}
        for first, limit in _merged(pages[0].tolist()):
            cycle = max(done[at][0] for at in range(first, limit))
            together.setdefault(cycle, []).extend(range(first, limit))
        now = self.env.cycle
        for cycle, which in together.items():
            good = np.array([done[at][1] for at in which])
            given = pages if len(which) == len(done) else [each[which] for each in pages]
            self._at(cycle - now, given[1], partial(call, *given, good))

    def _at(self, delay: int, pfns: Words, call: Callable[[], None]) -> None:
        """Call when the device is done with frames, int64[n], after so many cycles."""
        timer = self.env.after(delay)
        assert timer.callbacks is not None
        timer.callbacks.append(lambda _: call())

    def _written(self, slots: Words, pfns: Words, stamps: Words, good: NDArray[np.bool_]) -> None:
        self.writing -= len(slots)
        cache = self.cache
        cached = cache.stamps[slots] == stamps
        gone = self._were_dropped(stamps)
        if good.all():
            self.failing = 0
        else:
            for each in good.tolist():
                self.failing = 0 if each else self.failing + 1
            failed = ~good & ~gone
            self.unwritten.update(slots[failed].tolist())
            cache.settle(slots[failed & cached], UNWRITTEN)
        freed = cached & good
        if freed.any():
            cache.remove(slots[freed])
        freed |= gone
        if freed.any():
            self.host.give(pfns[freed])
        self._tell()

    def _were_dropped(self, stamps: Words) -> NDArray[np.bool_]:
        """Return which of some pages nobody wants any more, bool[n]; that is asked once."""
        if not self._gone:
            return np.zeros(len(stamps), np.bool_)
        gone = [stamp in self._gone for stamp in stamps.tolist()]
        self._gone.difference_update(stamps.tolist())
        return np.array(gone, np.bool_)

    def _tell(self) -> None:
        done, self.progress = self.progress, self.env.event()
        done.succeed()

    def _was_read(self, slots: Words, pfns: Words, stamps: Words, good: NDArray[np.bool_]) -> None:
        cache = self.cache
        cached = cache.stamps[slots] == stamps
        freed = self._were_dropped(stamps)
        cache.flags[slots[cached]] &= 255 & ~READING
        if not good.all():
            failed = slots[cached & ~good]
            cache.flags[failed] |= FAILED
            ahead = failed[cache.flags[failed] & AHEAD != 0]
            freed |= np.isin(slots, ahead) & cached
            cache.remove(ahead)
        if freed.any():
            self.host.give(pfns[freed])
        ready = cached & good
        self._say_cached(slots[ready], pfns[ready])
        for stamp in stamps.tolist() if self._ready else ():
            if event := self._ready.pop(stamp, None):
                event.succeed()
        self._tell()

    def _say_cached(self, slots: Words, pfns: Words) -> None:
        """Tell memories of pages of theirs that are in the cache, and hold zeros."""
        for memory, which in self.area.by_memory(slots):
            zeros = which[self.area.holds_zeros(slots[which])]
            memory.cached(self.area.numbers[slots[zeros]], pfns[zeros])

    def _forget_cached(self, slots: Words) -> None:
        """Tell memories of pages of theirs that are in the cache no more."""
        for memory, which in self.area.by_memory(slots):
            memory.uncached(self.area.numbers[slots[which]])


def _merged(slots: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the limit of those of some slots that are one request."""
    first = 0
    for at in range(1, len(slots) + 1):
        if at == len(slots) or slots[at] != slots[at - 1] + 1 or at - first == _MOST:
            yield first, at
            first = at
