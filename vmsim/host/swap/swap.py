"""The host's swap: pages go to a device and come back, by way of the swap cache (Linux mm/swap_state.c, mm/page_io.c).

A page that is taken from a VM is written from its frame, which is free when the device is done. Until then, and again
from when it is read, the page is in the swap cache: whoever wants it takes it from there. A page that came back keeps
its slot as long as no more than half of them are used (mm/memory.c, should_try_to_free_swap): taken again before it is
written to, it need not be written. Compressed memory has no cache: a page is there or in a frame (SWP_SYNCHRONOUS_IO).

A page that cannot be written stays in the cache, and is written again the next time that the host is short of memory
(mm/page_io.c, end_swap_bio_write). One that cannot be read ends its VM (VM_FAULT_SIGBUS).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.base.histogram import Histogram
from vmsim.contracts import PageLists, Steps, Stop, VmStopped
from vmsim.frames.buddy import State
from vmsim.host.limits import LIMIT_WAIT
from vmsim.host.memory import HOST, HostMemory
from vmsim.host.swap.area import NO_SLOT, Holding, SwapArea
from vmsim.host.swap.cache import Around, Back, CachedPage
from vmsim.host.swap.compressed import CompressedMemory
from vmsim.host.swap.device import BlockDevice
from vmsim.host.swap.no_lists import NoLists
from vmsim.host.swap.readahead import MAX_ORDER, Window
from vmsim.scenario.cpu import Cost

__all__ = ["SWAP_WAIT", "Swap"]

SWAP_WAIT = "swap_wait"  # the cause of the time that a vCPU waits for a page to be read

Words = NDArray[np.int64]
_COUNTED = ("swapped_out", "clean", "swapped_in", "major", "minor", "read_ahead", "read_ahead_hits")


class Swap:
    """A host's swap device, its slots and the swap cache.

    Parameters
    ----------
    host : HostMemory
        Whose frames.
    size : int
        Slots.
    device : BlockDevice or CompressedMemory
        Where pages go.
    page_cluster : int
        2**page_cluster pages at most are read at a time (vm.page-cluster).
    costs : Cost
        What the host's work takes.

    Attributes
    ----------
    cache : dict
        By slot, pages in the swap cache, those that came first before the others.
    counts : dict
        By owner, pages swapped out (of them `clean`, which needed no write), in, with (`major`) and without a wait,
        read ahead, and how many of these were wanted.
    latency : dict
        By owner, how many swap-ins took how many cycles.
    awaited : Counter
        By owner, the vCPUs that wait for a page to be read.
    writing : int
        Frames that are free when the device has written them.
    unwritten : set of int
        Slots that the device has not what their pages hold: a write has failed, and there was none since.
    failing : int
        Writes that have failed since the last one that has not.
    progress : Event
        Triggered the next time that the device is done with a frame.
    spent : int
        Cycles of whoever swaps pages out, for compressing them, not yet collected.
    """

    def __init__(
        self, host: HostMemory, size: int, device: BlockDevice | CompressedMemory, page_cluster: int, costs: Cost
    ) -> None:
        self.host = host
        self.env = host.env
        self.area = SwapArea(size)
        self.device = device
        self.costs = costs
        self.lists: PageLists | NoLists = NoLists()
        self.most = 1 << page_cluster
        self.turns = isinstance(device, BlockDevice) and device.turns
        self.cache: dict[int, CachedPage] = {}
        self.counts: dict[int, Counter[str]] = {}
        self.latency: dict[int, Histogram] = {}
        self.awaited: Counter[int] = Counter()
        self.windows: dict[Any, Window] = {}
        self.unwritten: set[int] = set()
        self.writing = self.spent = self.failing = 0
        self.progress = self.env.event()

    def register(self, owner: int) -> None:
        """Count for one more VM."""
        self.counts[owner] = Counter(dict.fromkeys(_COUNTED, 0))
        self.latency[owner] = Histogram()

    # ---- out

    def admit_each(
        self, memory: Any, numbers: Words, identities: Words, words: Sequence[Words | None] | None, old: Words
    ) -> Words:
        """Return slots for pages that are to be taken, int64[n]; NO_SLOT: there is none.

        Parameters
        ----------
        memory : GuestMemory or NativeMemory
            Whose pages.
        numbers, identities : int64[n]
            Which, and what they hold.
        words : sequence, optional
            The same of those that do not hold zeros.
        old : int64[n]
            Slots that they have from before, and that hold something else; NO_SLOT: none.
        """
        area, slots = self.area, old.copy()
        every = words or [None] * len(numbers)
        holdings = [*map(Holding, repeat(memory), numbers.tolist(), every, identities.tolist())]
        for at in np.flatnonzero(old != NO_SLOT).tolist():
            slot = int(old[at])
            if area.users(slot) > 1:
                self.release(slot)
                slots[at] = NO_SLOT
            else:
                area.refill(slot, holdings[at])
        new = np.flatnonzero(slots == NO_SLOT)
        found = area.allocate([holdings[at] for at in new.tolist()] if len(new) < len(slots) else holdings)
        slots[new[: len(found)]] = found
        if isinstance(self.device, CompressedMemory):
            for at in np.flatnonzero(slots != NO_SLOT).tolist():
                cycles = self.device.store(int(slots[at]), holdings[at])
                if cycles is None:
                    self.release(int(slots[at]))
                    slots[at] = NO_SLOT
                else:
                    self.spent += cycles
        self.spent += self.costs.swap_page * int(np.count_nonzero(slots != NO_SLOT))
        return slots

    def write(self, memory: Any, numbers: Words, slots: Words, pfns: Words, *, clean: NDArray[np.bool_]) -> None:
        """Write the pages in frames that were a VM's; a frame is free when that is done. `clean` ones need no write.

        Their words are 0 already; the slots hold what they were.

        Parameters
        ----------
        numbers, slots, pfns : int64[n]
            Numbers of the pages in their memory, where they go, and where they lie.
        clean : bool[n]
            Which the device has.
        """
        counts = self.counts[memory.owner]
        counts["swapped_out"] += len(pfns)
        counts["clean"] += int(np.count_nonzero(clean))
        self.lists.evicted(memory, numbers, slots)
        self.host.frames["rmap"][pfns] = 0
        at_once = np.ones(len(pfns), np.bool_) if isinstance(self.device, CompressedMemory) else clean
        if at_once.any():
            self.host.give(pfns[at_once])
        if at_once.all():
            return
        slots, pfns = slots[~at_once], pfns[~at_once]
        self.host.hand_over(pfns, HOST, State.HOST)
        pages = [*map(CachedPage, slots.tolist(), pfns.tolist())]
        self.cache.update(zip(slots.tolist(), pages, strict=True))
        self._submit(pages)

    def _submit(self, pages: Sequence[CachedPage]) -> None:
        """Have the device write pages; those that it is done with in the same cycle are one event."""
        assert isinstance(self.device, BlockDevice)
        now, write = self.env.cycle, self.device.write
        together: dict[int, list[tuple[CachedPage, bool]]] = {}
        for page in pages:
            page.writing, page.unwritten = True, False
            done, good = write(now, page.slot)
            together.setdefault(done, []).append((page, good))
        self.unwritten.difference_update(page.slot for page in pages)
        self.writing += len(pages)
        for done, written in together.items():
            self._at(done - now, partial(self._written, written))

    def _at(self, delay: int, call: Callable[[], None]) -> None:
        timer = self.env.after(delay)
        assert timer.callbacks is not None
        timer.callbacks.append(lambda _: call())

    def _written(self, pages: Sequence[tuple[CachedPage, bool]]) -> None:
        self.writing -= len(pages)
        freed = []
        for page, good in pages:
            page.writing, page.unwritten = False, not good
            self.failing = 0 if good else self.failing + 1
            if not good and not page.gone:
                self.unwritten.add(page.slot)
            cached = self.cache.get(page.slot) is page
            if page.gone or (good and cached):
                if cached:
                    del self.cache[page.slot]
                freed.append(page.pfn)
        if freed:
            self.host.give(np.array(freed))
        self._tell()

    def _tell(self) -> None:
        done, self.progress = self.progress, self.env.event()
        done.succeed()

    def shrink_cache(self, count: int) -> int:
        """Free up to `count` frames of pages that the device has as well; return how many. Write those it has not."""
        freed: list[int] = []
        if not count or len(self.cache) == self.writing:  # the usual case
            return 0
        for slot, page in [*self.cache.items()]:
            if len(freed) == count:
                break
            if page.unwritten and not page.writing:
                self._submit([page])
            elif not page.busy:
                del self.cache[slot]
                freed.append(page.pfn)
        if freed:
            self.host.give(np.array(freed))
        return len(freed)

    # ---- back

    def bring(
        self, vcpu: Any, memory: Any, find: Callable[[], int | None], around: Around, *, write: bool
    ) -> Steps[Back | None]:
        """Bring a page back that a vCPU waits for.

        Parameters
        ----------
        vcpu : Vcpu
            Which.
        memory : GuestMemory or NativeMemory
            Whose page.
        find : callable
            Returns the slot where the page is now; None: it came back meanwhile.
        around : Around
            Which others are read with it.
        write : bool
            It is about to be written to: the slot is free then.

        Raises
        ------
        VmStopped
            It cannot be read.
        """
        start, waited = vcpu.now, False
        cycles = self.costs.swap_page
        counts = self.counts[memory.owner]
        while (slot := find()) is not None:
            page = self.cache.get(slot)
            if page is None:
                pfn = yield from self._frame(vcpu, memory.owner)
                if find() != slot or slot in self.cache:
                    self.host.give(np.array([pfn]))
                    continue
                page = self.cache[slot] = CachedPage(slot, pfn)
                if isinstance(self.device, CompressedMemory):
                    cycles += self.device.load(slot)
                else:
                    self._read(page)
                    cycles += self._read_ahead(slot, memory, around)
            if page.ready is not None:
                self.awaited[memory.owner] += 1
                try:
                    yield from vcpu.wait(page.ready, SWAP_WAIT)
                finally:
                    self.awaited[memory.owner] -= 1
                waited = True
                continue
            if page.failed:
                raise VmStopped(Stop.SWAP_READ, who="the host")
            counts["swapped_in"] += 1
            counts["major" if waited else "minor"] += 1
            if page.ahead:
                counts["read_ahead_hits"] += 1
                self._window(memory, around).hits += 1
            self.latency[memory.owner].add(vcpu.now - start + cycles)
            return self._hand_over(page, memory, cycles, write=write)
        return None

    def _frame(self, vcpu: Any, owner: int) -> Steps[int]:
        """Return a frame of the host's; the vCPU waits while it has none."""
        yield vcpu.settle()
        limit = self.host.limits.get(owner)
        if limit and not limit.allows(1):
            yield from vcpu.wait(self.env.process(limit.admit(1)), LIMIT_WAIT)
        pfns = self.host.take(HOST, 1, State.HOST, reserve=self.host.marks.min)
        if not len(pfns):
            pfns = yield from vcpu.wait(self.host.request(HOST, 1, State.HOST, asker=owner), "host_wait")
        return int(pfns[0])

    def _read(self, page: CachedPage) -> None:
        assert isinstance(self.device, BlockDevice)
        page.ready = self.env.event()
        now = self.env.cycle
        done, good = self.device.read(now, page.slot)
        self._at(done - now, lambda: self._was_read(page, good=good))

    def _was_read(self, page: CachedPage, *, good: bool) -> None:
        ready, page.ready = page.ready, None
        page.failed = not good
        if page.gone or (page.failed and page.ahead):
            if not page.gone:
                del self.cache[page.slot]
            self.host.give(np.array([page.pfn]))
        assert ready is not None
        ready.succeed()
        self._tell()

    def _window(self, memory: Any, around: Around) -> Window:
        return self.windows.setdefault(self if self.turns else around.key, Window())

    def _read_ahead(self, slot: int, memory: Any, around: Around) -> int:
        """Read others with a page; return the cycles of it."""
        window = self._window(memory, around)
        if self.turns:
            slots = [each for each in window.aligned(slot, self.most) if each in self.area]
        else:
            most = min(self.most, 1 << MAX_ORDER)
            found = [around.slot(number) for number in window.around(around.number, most) if number != around.number]
            slots = [each for each in found if each is not None]
        read = 0
        for each in slots:
            if each in self.cache or each == slot:
                continue
            pfns = self.host.take(HOST, 1, State.HOST, reserve=self.host.marks.low)
            if not len(pfns):
                break
            page = self.cache[each] = CachedPage(each, int(pfns[0]))
            page.ahead = True
            self._read(page)
            read += 1
        self.counts[memory.owner]["read_ahead"] += read
        return read * self.costs.swap_page

    def _hand_over(self, page: CachedPage, memory: Any, cycles: int, *, write: bool) -> Back:
        """Take a page out of the cache for a VM."""
        slot, pfn = page.slot, page.pfn
        holding = self.area.holding(slot)
        del self.cache[slot]
        self.host.hand_over(np.array([pfn]), memory.owner, State.GUEST)
        if holding.words is not None:
            memory.words[pfn << 9 : (pfn + 1) << 9] = holding.words
        full = 2 * self.area.used > self.area.size
        keep = not (write or full or page.unwritten or isinstance(self.device, CompressedMemory))
        return Back(pfn, cycles, slot if keep else NO_SLOT)

    def release(self, slot: int) -> None:
        """Note one user of a slot fewer; the last takes all that there is of it along."""
        if not self.area.free_one(slot):
            return
        if isinstance(self.device, CompressedMemory):
            self.device.drop(slot)
        self.lists.released(slot)
        self.unwritten.discard(slot)
        page = self.cache.pop(slot, None)
        if page is None:
            return
        if page.busy:
            page.gone = True
        else:
            self.host.give(np.array([page.pfn]))

    def collect(self) -> int:
        """Return the cycles of swapping pages out since this was last asked."""
        spent, self.spent = self.spent, 0
        return spent

    def figures(self, owner: int) -> dict[str, int]:
        """Return what was counted for one VM."""
        return dict(self.counts[owner])

    def host_figures(self) -> dict[str, int]:
        """Return what was counted for all."""
        return {
            "slots": self.area.used,
            "most_slots": self.area.most,
            "cached": len(self.cache),
            **self.device.counts(),
        }
