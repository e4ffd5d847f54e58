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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.base.histogram import Histogram
from vmsim.contracts import PageLists, Steps, Stop, VmStopped
from vmsim.contracts.faults import FaultKind
from vmsim.frames.records import State
from vmsim.host.limits import LIMIT_WAIT
from vmsim.host.memory import HOST
from vmsim.host.swap.area import NO_SLOT, SwapArea
from vmsim.host.swap.cache import AHEAD, FAILED, READING, UNWRITTEN, Around, Back, Fetched
from vmsim.host.swap.compressed import CompressedMemory
from vmsim.host.swap.device import BlockDevice
from vmsim.host.swap.no_lists import NoLists
from vmsim.host.swap.readahead import MAX_ORDER, Window
from vmsim.host.swap.traffic import DeviceTraffic
from vmsim.host.swap.zswap import Zswap
from vmsim.scenario.cpu import Cost

__all__ = ["MAJOR", "MINOR", "SWAP_WAIT", "Swap"]

SWAP_WAIT = "swap_wait"  # the cause of the time that a vCPU waits for a page to be read

MINOR, MAJOR = int(FaultKind.SWAP_IN_MINOR), int(FaultKind.SWAP_IN_MAJOR)

Words = NDArray[np.int64]
_COUNTED = ("swapped_out", "clean", "swapped_in", "major", "minor", "read_ahead", "read_ahead_hits")


class Swap(DeviceTraffic):
    """A host's swap device, its slots and the swap cache.

    Parameters
    ----------
    host : HostMemory
        Whose frames; or a guest's kernel as one (`vmsim.engine.guest_swap`).
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
    counts : dict
        By owner, pages swapped out (of them `clean`, which needed no write), in, with (`major`) and without a wait,
        read ahead, and how many of these were wanted.
    latency : dict
        By owner, how many swap-ins took how many cycles.
    awaited : Counter
        By owner, the vCPUs that wait for a page to be read.
    zswap : Zswap or None
        Compressed memory in front of the device.
    spent : int
        Cycles of whoever swaps pages out, for compressing them, not yet collected.
    """

    cause = SWAP_WAIT
    keeps = True  # pages that came back keep their slots
    who = "the host"

    def __init__(
        self, host: Any, size: int, device: BlockDevice | CompressedMemory, page_cluster: int, costs: Cost
    ) -> None:
        super().__init__(host, SwapArea(size, costs.swap_page), device)
        self.costs = costs
        self.lists: PageLists | NoLists = NoLists()
        self.most = 1 << page_cluster
        self.turns = isinstance(device, BlockDevice) and device.turns
        self.counts: dict[int, Counter[str]] = {}
        self.latency: dict[int, Histogram] = {}
        self.awaited: Counter[int] = Counter()
        self.windows: dict[Any, Window] = {}
        self.spent = 0
        self.zswap: Zswap | None = None

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
        area, slots, again = self.area, old.copy(), old != NO_SLOT
        for at in np.flatnonzero(again).tolist() if again.any() else ():
            if area.users(int(old[at])) > 1:
                self.release(old[at : at + 1])
                slots[at] = NO_SLOT
            else:
                held = words and words[at : at + 1]
                area.refill(slots[at : at + 1], memory, numbers[at : at + 1], identities[at : at + 1], held)
        new = np.flatnonzero(slots == NO_SLOT)
        wanted = words and [words[at] for at in new.tolist()]
        found = area.allocate(memory, numbers[new], identities[new], wanted)
        slots[new[: len(found)]] = found
        there = slots != NO_SLOT
        if isinstance(self.device, CompressedMemory):
            for at in np.flatnonzero(there).tolist():
                cycles = self.device.store(int(slots[at]), area.holding(int(slots[at])))
                if cycles is None:
                    self.release(slots[at : at + 1])
                    slots[at] = NO_SLOT
                else:
                    self.spent += cycles
            there = slots != NO_SLOT
        self.spent += self.costs.swap_page * int(np.count_nonzero(there))
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
        cleans = int(np.count_nonzero(clean))
        counts["clean"] += cleans
        self.lists.evicted(memory, numbers, slots)
        self.host.frames["rmap"][pfns] = 0
        if self.zswap:
            clean = clean | self._compressed(slots, clean)
            cleans = int(np.count_nonzero(clean))
        if isinstance(self.device, CompressedMemory) or cleans == len(pfns):
            self.host.give(pfns)
            return
        if cleans:
            self.host.give(pfns[clean])
            slots, pfns = slots[~clean], pfns[~clean]
        self.host.hand_over(pfns, HOST, State.HOST)
        self.submit_writes(slots, pfns)

    def _compressed(self, slots: Words, clean: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Keep pages in compressed memory in front of the device; return which are kept there, bool[n]."""
        kept = np.zeros(len(slots), np.bool_)
        if self.zswap:
            for at in np.flatnonzero(~clean).tolist():
                cycles = self.zswap.store(int(slots[at]))
                kept[at] = cycles is not None
                self.spent += cycles or 0
        return kept

    # ---- back

    def fetch(self, vcpu: Any, memory: Any, find: Callable[[], int | None], around: Around) -> Steps[Fetched | None]:
        """Have a page that a vCPU waits for be in the swap cache, and read; return None if it came back meanwhile.

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

        Raises
        ------
        VmStopped
            It cannot be read.
        """
        start, waited, cycles, cache = vcpu.now, False, 0, self.cache
        while (slot := find()) is not None:
            if slot not in cache:
                compressed = isinstance(self.device, CompressedMemory) or (self.zswap and slot in self.zswap)
                window = range(0) if compressed else self._around(slot, around)
                count = 1 if compressed else 1 + len(self._near(slot, window, around))
                pfns = yield from self.frames_for(vcpu, memory.owner, count)
                if find() != slot or slot in cache:
                    self.host.give(pfns)
                    continue
                if isinstance(self.device, CompressedMemory):
                    cache.add(np.array([slot]), pfns, 0)
                    cycles += self.device.load(slot)
                elif self.zswap and slot in self.zswap:
                    cache.add(np.array([slot]), pfns, UNWRITTEN)  # it is here alone now, and loses its slot
                    cycles += self.zswap.load(slot)
                else:
                    cycles += self._read(slot, pfns, memory, self._near(slot, window, around))
            flags = int(cache.flags[slot])
            if flags & READING:
                yield from self.await_page(vcpu, memory, slot)
                waited = True
                continue
            if flags & FAILED:
                raise VmStopped(Stop.SWAP_READ, who=self.who)
            vcpu.kind = max(vcpu.kind, MAJOR if waited else MINOR)
            return Fetched(slot, start, waited, cycles)
        return None

    def await_page(self, vcpu: Any, memory: Any, slot: int) -> Steps[None]:
        """Have a vCPU wait until the device has read a page."""
        self.awaited[memory.owner] += 1
        try:
            yield from vcpu.wait(self.ready(slot), self.cause)
        finally:
            self.awaited[memory.owner] -= 1

    def bring(
        self, vcpu: Any, memory: Any, find: Callable[[], int | None], around: Around, *, write: bool
    ) -> Steps[Back | None]:
        """Bring a page back that a vCPU waits for, as `fetch`; if it is about to be written to, its slot is free then.

        Raises
        ------
        VmStopped
            It cannot be read.
        """
        fetched = yield from self.fetch(vcpu, memory, find, around)
        return None if fetched is None else self.take_out(vcpu, memory, fetched, around, write=write)

    def take_out(self, vcpu: Any, memory: Any, fetched: Fetched, around: Around, *, write: bool) -> Back:
        """Take a page out of the cache for a VM, about to be written to or not."""
        ahead = int(self.cache.flags[fetched.slot] & AHEAD != 0)
        self._count_back(memory.owner, 1, ahead, vcpu.now, fetched)
        self.window_of(around.key).found(around.number, ahead, turns=self.turns)
        return self._hand_over(fetched.slot, memory, self.costs.swap_page + fetched.cycles, write=write)

    def _count_back(self, owner: int, count: int, ahead: int, now: int, fetched: Fetched | None) -> None:
        """Count pages that came back, of which so many were read `ahead`; `fetched` is the one waited for, if any."""
        counts = self.counts[owner]
        counts["swapped_in"] += count
        counts["major" if fetched and fetched.waited else "minor"] += count
        counts["read_ahead_hits"] += ahead
        took = self.costs.swap_page + (now - fetched.since + fetched.cycles if fetched else 0)
        self.latency[owner].add(took, count)

    def frames_for(self, vcpu: Any, owner: int, count: int) -> Steps[Words]:
        """Return up to `count` frames of the host's, int64[n]; the vCPU waits while it has none.

        Those for pages that are read ahead may be as many as for any fault (mm/swap_state.c, swap_vma_readahead, which
        allocates by the fault's own gfp_mask): all down to the min watermark.
        """
        yield vcpu.settle()
        limit = self.host.limits.get(owner)
        if limit and not limit.allows(1):
            yield from vcpu.wait(self.env.process(limit.admit(1)), LIMIT_WAIT)
        pfns = self.host.take(HOST, count, State.HOST, reserve=self.host.marks.min)
        if not len(pfns):
            pfns = yield from vcpu.wait(self.host.request(HOST, count, State.HOST, asker=owner), "host_wait")
        return np.asarray(pfns)

    def _read(self, slot: int, pfns: Words, memory: Any, near: Words) -> int:
        """Have the device read a page, and others with it, as far as there are frames; return the cycles of these.

        Nobody waits for the others yet.
        """
        ahead = min(len(near), len(pfns) - 1)
        if ahead + 1 < len(pfns):  # they are not needed after all
            self.host.give(pfns[1 + ahead :])
        slots, pfns = np.empty(1 + ahead, np.int64), pfns[: 1 + ahead]
        slots[0], slots[1:] = slot, near[:ahead]
        stamps = self.cache.begin_reads(slots, pfns)
        self.counts[memory.owner]["read_ahead"] += ahead
        self.submit_reads(slots, pfns, stamps)
        return ahead * self.costs.swap_page

    @property
    def steady(self) -> bool:
        """Whether pages are read as in `vmsim.host.swap.reading`."""
        device = self.device
        return isinstance(device, BlockDevice) and device.steady is not None and self.zswap is None

    def window_of(self, key: Any) -> Window:
        """Return what is remembered for reading ahead: of a memory or address space, or where it turns of all."""
        whose = self if self.turns else key
        window = self.windows.get(whose)
        if window is None:
            window = self.windows[whose] = Window()
        return window

    def _around(self, slot: int, around: Around) -> range:
        """Return what is to be read with a page: slots where the device turns, else pages by their numbers."""
        window = self.window_of(around.key)
        if self.turns:
            return window.aligned(slot, self.most)
        return window.around(around.number, min(self.most, 1 << MAX_ORDER))

    def _near(self, slot: int, window: range, around: Around) -> Words:
        """Return the slots of those of a window that are on the device and not in the cache, but for `slot`."""
        slots = self.area.used_among(window) if self.turns else around.slots(window)
        slots = self.cache.without(slots, slot)
        if zswap := self.zswap:
            return np.array([each for each in slots.tolist() if each not in zswap], np.int64)
        return slots

    def _hand_over(self, slot: int, memory: Any, cycles: int, *, write: bool) -> Back:
        """Take a page out of the cache for a VM."""
        cache, which = self.cache, np.array([slot])
        pfn, unwritten = int(cache.pfns[slot]), bool(cache.flags[slot] & UNWRITTEN)
        cache.remove(which)
        self.host.hand_over(cache.pfns[which], memory.owner, State.GUEST)
        full = 2 * self.area.used > self.area.size
        keep = self.keeps and not (write or full or unwritten or isinstance(self.device, CompressedMemory))
        return Back(pfn, cycles, slot if keep else NO_SLOT)

    def came_back(
        self, memory: Any, numbers: Words, slots: Words, ahead: int, freed: Words, now: int, fetched: Fetched | None
    ) -> None:
        """Note that compiled code has given a VM pages of the cache.

        Parameters
        ----------
        memory : GuestMemory
            Whose pages.
        numbers, slots : int64[n]
            Which, and the slots that they were in.
        ahead, freed : int, int64[m]
            How many of them were read ahead, and slots that are free now.
        now : int
            The cycle that the vCPU has reached.
        fetched : Fetched, optional
            It has waited for one, and this is it.
        """
        self._count_back(memory.owner, len(slots), ahead, now, fetched)
        self.lists.returned(memory, numbers, slots)
        if len(freed):
            self._forget(freed)

    def release(self, slots: Words) -> None:
        """Note one user of each of some slots fewer, int64[n]; the last takes all that there is of a slot along."""
        freed = self.area.free_each(slots)
        if not len(freed):
            return
        self._forget(freed)
        for slot in freed[self.cache.stamps[freed] > 0].tolist() if len(self.cache) else ():
            self.drop(slot)

    def _forget(self, freed: Words) -> None:
        """Forget what there is of slots that are free, int64[n], the swap cache apart."""
        compressed = self.device if isinstance(self.device, CompressedMemory) else self.zswap
        if compressed:
            for slot in freed.tolist():
                compressed.drop(slot)
        self.lists.released(freed)
        if self.unwritten:
            self.unwritten.difference_update(freed.tolist())

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
            **(self.zswap.figures() if self.zswap else {}),
        }
