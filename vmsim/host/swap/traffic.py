"""Requests to the swap device and their ends, by which pages come into the swap cache and leave it (mm/page_io.c).

Pages that are written or read together and lie side by side on the device are one request: the block layer merges them
while whoever submits them plugs it (block/blk-merge.c, blk_attempt_plug_merge; mm/vmscan.c, shrink_lruvec, and
mm/swap_state.c, swap_vma_readahead, plug it). A request is done with all of its pages when it is with the last. How
many pages one has at most the device says in Linux (max_sectors_kb); here it is 128 KiB.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.contracts import Words
from vmsim.host.swap.area import SwapArea
from vmsim.host.swap.cache import AHEAD, BUSY, FAILED, UNWRITTEN, WRITING, SwapCache
from vmsim.host.swap.compressed import CompressedMemory
from vmsim.host.swap.device import BlockDevice
from vmsim.jit import kernel, leaf

__all__ = ["DeviceTraffic", "merge"]

_MOST = 32  # pages of a request: 128 KiB

Good = NDArray[np.bool_]
"""Which pages could be written, or read."""


@leaf
def merge(slots, done):  # type: ignore[no-untyped-def]
    """Have pages of one request, int64[n], be done when its last is; return whether all are `done` in one cycle."""
    first, same = 0, True
    for at in range(1, len(slots) + 1):
        if at == len(slots) or slots[at] != slots[at - 1] + 1 or at - first == _MOST:
            last = done[first]
            for each in range(first, at):
                last = max(last, done[each])
            for each in range(first, at):
                done[each] = last
            same = same and last == done[0]
            first = at
    return same


@kernel
def _merge(slots, done):  # type: ignore[no-untyped-def]
    """Do the same for who calls it from Python."""
    return merge(slots, done)


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
        stamp = int(self.cache.stamps[slot])
        event = self._ready.get(stamp)
        if event is None:
            event = self._ready[stamp] = self.env.event()
        return event

    def submit_writes(self, slots: Words, pfns: Words) -> None:
        """Put pages in the cache, int64[n] each, and have the device write them."""
        self._submit(slots, pfns, self.cache.add(slots, pfns, WRITING))
        self.unwritten.difference_update(slots.tolist() if self.unwritten else ())

    def submit_reads(self, slots: Words, pfns: Words, stamps: Words) -> None:
        """Have the device read pages that are in the cache, int64[n] each."""
        assert isinstance(self.device, BlockDevice)
        done, good = self.device.read(self.env.cycle, slots)
        self._when_done(done, good, self._was_read, (slots, pfns, stamps), same=_merge(slots, done))

    def begin_read(self, begin: Callable[..., tuple[int, bool]], pfns: Words, found: Words) -> int:
        """Have a page be read, and others with it; return how many, -1: none, for it is no more where it was.

        Parameters
        ----------
        begin : callable
            As of `reading.begin_read`, given what says where the page is.
        pfns : int64[n]
            Frames, of which those come back that are not needed.
        found : int64[5, m]
            What is filled in there.
        """
        assert isinstance(self.device, BlockDevice)
        queue = self.device.reads
        read, same = begin(pfns, queue.free, queue.sums, self.env.cycle, self.device.steady, found)
        if read < len(pfns):
            self.host.give(pfns[max(read, 0) :])
        if read >= 0:
            self.device.count_reads += read
            slots, pfns, stamps, done, _ = found[:, :read]
            self._when_done(done, None, self._was_read, (slots, pfns, stamps), same=same)
        return read

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
        cache.write_again(which)
        self.unwritten.discard(slot)
        self._submit(which, cache.pfns[which], cache.stamps[which])

    def _submit(self, slots: Words, pfns: Words, stamps: Words) -> None:
        """Have the device write pages; those that it is done with in the same cycle are one event."""
        assert isinstance(self.device, BlockDevice)
        self.writing += len(slots)
        done, good = self.device.write(self.env.cycle, slots)
        self._when_done(done, good, self._written, (slots, pfns, stamps), same=_merge(slots, done))

    def _when_done(
        self,
        done: Words,
        good: Good | None,
        call: Callable[..., None],
        pages: tuple[Words, Words, Words],
        *,
        same: bool,
    ) -> None:
        """Call with those of some pages that the device is done with at a time, and which of them could be done.

        The pages are their slots, frames and stamps in the cache; `same`: it is done with all at once.
        """
        now, (slots, pfns, stamps) = self.env.cycle, pages
        if same:
            self._at(int(done[0]) - now, pfns, partial(call, slots, pfns, stamps, good))
            return
        for cycle in dict.fromkeys(done.tolist()):
            which = np.flatnonzero(done == cycle)
            some = None if good is None else good[which]
            self._at(cycle - now, pfns[which], partial(call, slots[which], pfns[which], stamps[which], some))

    def _at(self, delay: int, pfns: Words, call: Callable[[], None]) -> None:
        """Call when the device is done with frames, int64[n], after so many cycles."""
        timer = self.env.after(delay)
        assert timer.callbacks is not None
        timer.callbacks.append(lambda _: call())

    def _written(self, slots: Words, pfns: Words, stamps: Words, good: Good | None) -> None:
        self.writing -= len(slots)
        gone = self._were_dropped(stamps) if self._gone else None
        if good is None or good.all():
            self.failing = 0
            freed, whole = self.cache.end_writes(slots, stamps)
        else:
            freed, whole = self._write_failed(slots, stamps, good, gone), False
        if not whole:
            pfns = pfns[freed if gone is None else freed | gone]
        if len(pfns):
            self.host.give(pfns)
        self._tell()

    def _write_failed(self, slots: Words, stamps: Words, good: Good, gone: NDArray[np.bool_] | None) -> Good:
        """Note that not all pages could be written; return those that have been, and are out of the cache now."""
        cache = self.cache
        for each in good.tolist():
            self.failing = 0 if each else self.failing + 1
        cached = cache.stamps[slots] == stamps
        failed = ~good if gone is None else ~good & ~gone
        self.unwritten.update(slots[failed].tolist())
        cache.settle(slots[failed & cached], UNWRITTEN)
        freed: Good = cached & good
        cache.remove(slots[freed])
        return freed

    def _were_dropped(self, stamps: Words) -> NDArray[np.bool_]:
        """Return which of some pages nobody wants any more, bool[n]; that is asked once."""
        gone = [stamp in self._gone for stamp in stamps.tolist()]
        self._gone.difference_update(stamps.tolist())
        return np.array(gone, np.bool_)

    def _tell(self) -> None:
        if self.progress.callbacks:  # somebody waits for it
            done, self.progress = self.progress, self.env.event()
            done.succeed()

    def _was_read(self, slots: Words, pfns: Words, stamps: Words, good: Good | None) -> None:
        cached, whole = self.cache.end_reads(slots, stamps)
        freed = self._were_dropped(stamps) if self._gone else None
        if good is not None and not good.all():
            ahead = self._read_failed(slots[cached & ~good])
            gone = np.isin(slots, ahead) & cached
            freed = gone if freed is None else freed | gone
            cached, whole = cached & good, False
        if freed is not None and freed.any():
            self.host.give(pfns[freed])
        if whole:
            self._say_cached(slots, pfns)
        else:
            self._say_cached(slots[cached], pfns[cached])
        for stamp in stamps.tolist() if self._ready else ():
            if event := self._ready.pop(stamp, None):
                event.succeed()
        self._tell()

    def _read_failed(self, failed: Words) -> Words:
        """Note that pages could not be read; return those that nobody waits for, which leave the cache."""
        cache = self.cache
        cache.flags[failed] |= FAILED
        ahead: Words = failed[cache.flags[failed] & AHEAD != 0]
        cache.remove(ahead)
        return ahead

    def _say_cached(self, slots: Words, pfns: Words) -> None:
        """Tell memories of pages of theirs that are in the cache, and hold zeros."""
        area = self.area
        if not area.all_zeros:
            zeros = area.holds_zeros(slots)
            slots, pfns = slots[zeros], pfns[zeros]
        for memory, which in area.by_memory(slots):
            memory.cached(area.numbers[slots[which]], pfns[which])

    def _forget_cached(self, slots: Words) -> None:
        """Tell memories of pages of theirs that are in the cache no more."""
        for memory, which in self.area.by_memory(slots):
            memory.uncached(self.area.numbers[slots[which]])
