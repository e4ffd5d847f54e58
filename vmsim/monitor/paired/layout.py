"""Where the two halves of a paired page table lie, who provides them, and what handling them costs.

Akaros (x86: EPT and KPT are contiguous, 2015) keeps for every process a kernel page table (KPT) and an EPT of the same
mappings. Four layouts are told apart: both halves in one block of order 1, so that an EPTE is its KPTE plus a page;
any two pages and a pointer for each page frame of the host; two trees, of which the EPT comes when the process
becomes a VM; and, where nested tables have the format of page tables, one tree that is both. The kernel's own boot
tables have one half only.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, cast

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.contracts import Steps, VmStopped
from vmsim.frames.records import NO_FRAME, State
from vmsim.machine.formats import ENTRIES, LARGE, PAGE_SHIFT, PRESENT, WRITE
from vmsim.machine.memory import clear_frame
from vmsim.monitor.paired.mode import Layout
from vmsim.scenario.cpu import Cpu, Figure

__all__ = [
    "NO_EPT",
    "PAGE_BYTES",
    "POINTER_BYTES",
    "HostFrames",
    "Pair",
    "PairedHost",
    "figures",
    "halves",
    "order_of",
    "price",
]

PAGE_BYTES: Final = 1 << PAGE_SHIFT
POINTER_BYTES: Final = 8
NO_EPT: Final = 0
"""Stands for no EPT half. Frame 0 is never one: the allocator gives it to a table last of all."""

_KERNEL = -1  # owner of what belongs to no process

Pair = tuple[int, int]
Waiting = Callable[[simpy.Event, str], Steps[Any]]


class HostFrames(Protocol):
    """What is asked of the host's memory."""

    zone: NDArray[Any]
    frames: NDArray[Any]
    unpinned: simpy.Event  # of the next time that pages are pinned no more
    marks: Any
    failures: Counter[tuple[int, int]]

    def take(self, owner: int, count: int, state: State, *, reserve: int = 0) -> NDArray[np.int64]:
        """Return up to `count` frames at once."""
        ...

    def take_block(self, owner: int, order: int, state: State, *, held: int = 0) -> int:
        """Return 2**order frames, or NO_FRAME; `held` frames are going to be given back for them."""
        ...

    def give_block(self, pfn: int, order: int) -> None:
        """Take back 2**order frames."""

    def request(self, owner: int, count: int, state: State, *, asker: int) -> simpy.Event:
        """Return an event that gives 1 to `count` frames."""
        ...

    def withdraw(self, event: simpy.Event) -> None:
        """Undo a request that nobody waits for any more."""

    def hand_over(self, pfns: NDArray[np.int64], owner: int, state: State) -> None:
        """Give frames to another owner for another use."""

    def give(self, pfns: NDArray[np.int64], order: int = 0) -> None:
        """Take back blocks."""


class Compactor(Protocol):
    """Who moves pages so that two frames side by side come free."""

    done: dict[int, Counter[str]]  # by who asked, the steps that it took

    def pair(self, owner: int, spare: list[int], work: Counter[str]) -> int | None:
        """Return the first of two frames side by side, made of `spare` ones, or None."""
        ...


def figures(cpu: Cpu) -> dict[str, Figure]:
    """Return the cycles of one step each of handling paired tables, by its name, with source and confidence."""
    cost, cache = cpu.cost, cpu.cache
    known = {
        "load": (cache.l2.cycles, "[cache] l2: an entry on the way down, used at the last update too", "guess"),
        "store": (cost.entry_edit, "[cost] entry_edit: one entry loaded and stored", "derived"),
        "dereference": (
            cache.llc.cycles,
            "[cache] llc: the pointer of a table's frame lies among those of the host's other frames, away from all "
            "else that the update touches; nobody has measured it",
            "guess",
        ),
        "table": (cost.table_page, "[cost] table_page: a block of order 0 or 1 from the allocator", "derived"),
        "zero": (cost.zero_page, "[cost] zero_page: each page of a new table", "derived"),
        "scan": (cost.entry_edit, "[cost] entry_edit: compaction looks at one page frame's state", "guess"),
        "copy": (cost.copy_page, "[cost] copy_page: compaction moves one page", "derived"),
        "shootdown": (
            1,
            "[cost] ipi_send, ipi_latency, ...: until those that run the page's VM have left the guest",
            "derived",
        ),
    }
    return {name: Figure(f"paired.{name}", value, source, sure) for name, (value, source, sure) in known.items()}


def halves(layout: Layout, *, guest: bool) -> int:
    """Return the pages of one table: two, or one where there is no second table (yet), or the first is both."""
    return 1 if layout == "shared" or (layout == "separate" and not guest) else 2


def order_of(layout: Layout) -> int:
    """Return the order of the block that a table lies in: 1 where its halves are side by side."""
    return int(layout == "contiguous")


def price(work: Mapping[str, int], costs: Mapping[str, int]) -> int:
    """Return the cycles of so many steps of each kind; kinds without a figure are counts alone."""
    return sum(count * costs[step] for step, count in work.items() if step in costs)


class PairedHost:
    """What all paired processes of a host share. It is made before anything else has taken memory.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    host : HostFrames
        Where tables come from.
    cpu : Cpu
        Whose costs count.
    compaction : Compactor
        Makes blocks of two frames where there are none.
    pointers : bool
        There is a pointer for each page frame, whether any process needs it or not.

    Attributes
    ----------
    boot : tuple of int
        Frames of the kernel's boot tables, one half each: a root and a table with an entry for each gigabyte.
    pointers : int64[n]
        The frame of the other half, by frame; 0 where there is none. Empty without pointers.
    array : int64[m]
        Frames that the pointers take up.
    """

    def __init__(
        self,
        memory: NDArray[np.int64],
        host: HostFrames,
        cpu: Cpu,
        *,
        compaction: Compactor,
        pointers: bool,
    ) -> None:
        self.memory = memory
        self.host = host
        self.compaction = compaction
        self.costs = {name: cast(int, figure.value) for name, figure in figures(cpu).items()}
        self._spent: defaultdict[int, Counter[str]] = defaultdict(Counter)
        size = len(host.frames)
        root, kernel = (int(pfn) for pfn in host.take(_KERNEL, 2, State.TABLE))
        self.boot = root, kernel
        bits = PRESENT | WRITE
        for frame in self.boot:
            clear_frame(memory, frame << PAGE_SHIFT)
        memory[(root << 9) + ENTRIES // 2] = kernel << PAGE_SHIFT | bits
        gigabytes = np.arange(min(ENTRIES, -(-size >> 18)))
        memory[(kernel << 9) + gigabytes] = gigabytes << 30 | bits | LARGE
        self.array = np.empty(0, np.int64)
        self.pointers = np.empty(0, np.int64)
        if pointers:
            self.array = host.take(_KERNEL, -(-size * POINTER_BYTES // PAGE_BYTES), State.HOST)
            self.pointers = np.zeros(size, np.int64)

    def take(self, owner: int, layout: Layout, *, guest: bool, work: Counter[str]) -> Pair | None:
        """Return (frame of the KPT half, frame of the EPT half) for one new table, or None if there is no memory.

        A table has as many as `halves` says. The frames' contents are undefined; `work` gets
        the steps.
        """
        if layout == "contiguous":
            first = self._block(owner, work)
            return None if first is None else self._made(layout, (first, first + 1), work)
        count = halves(layout, guest=guest)
        got = self.host.take(owner, count, State.TABLE, reserve=self.host.marks.min)
        if len(got) < count:
            self.host.give(got)
            return None
        return self._made(layout, _halves(got.tolist(), count), work)

    def wait(self, wait: Waiting, owner: int, layout: Layout, *, guest: bool, work: Counter[str]) -> Steps[Pair]:
        """Return what `take` does; while there is no memory, wait for it and keep what comes.

        For a block of two frames, pages that no device pins any more are as good as new frames: they can be moved.
        Whenever something has come, a free block is looked for before pages are moved (Linux mm/page_alloc.c,
        __alloc_pages_slowpath: get_page_from_freelist before direct compaction).
        """
        if pair := self.take(owner, layout, guest=guest, work=work):
            return pair
        kept: list[int] = []
        count = halves(layout, guest=guest)
        asked: simpy.Event | None = None
        while True:
            asked = asked or self.host.request(owner, max(1, count - len(kept)), State.TABLE, asker=owner)
            yield from wait(asked | self.host.unpinned if layout == "contiguous" else asked, "host_wait")
            if asked.processed:
                if isinstance(asked.value, VmStopped):
                    raise asked.value
                kept.extend(cast(NDArray[np.int64], asked.value).tolist())
                asked = None
            if len(kept) < count:
                continue
            if layout != "contiguous":
                return self._made(layout, _halves(kept, count), work)
            first = self._for_held(owner, kept, work)
            if first is not None:
                if asked:
                    self.host.withdraw(asked)
                self.host.give(np.array(kept, np.int64))
                return self._made(layout, (first, first + 1), work)

    def give(self, layout: Layout, pair: Pair) -> None:
        """Take a table back, both its halves."""
        lower, upper = pair
        if layout == "contiguous":
            self.host.give(np.array([lower]), 1)
            return
        if layout == "pointer":
            self.pointers[[lower, upper]] = 0
        self.host.give(np.array([frame for frame in pair if frame != NO_EPT]))

    def spent(self, owner: int) -> Counter[str]:
        """Return what was done to the tables of a process that is no VM, to be counted on."""
        return self._spent[owner]

    def compacted(self, owner: int) -> dict[str, int]:
        """Return what was done to make blocks of two frames for the tables of a process, by name.

        `compactions` that made one, `pages_moved` for them, and `cycles`, those of attempts in vain as well.
        """
        done = self.compaction.done.get(owner, Counter())
        return {
            "compactions": done["compactions"],
            "pages_moved": done["moved"],
            "cycles": price(done, self.costs),
        }

    def pair_of(self, layout: Layout, lower: int) -> Pair:
        """Return both halves of a table by the frame of its KPT half; without a second tree's."""
        if layout == "contiguous":
            return lower, lower + 1
        return lower, int(self.pointers[lower]) if layout == "pointer" else NO_EPT

    def moved(self, layout: Layout, old: int, new: int) -> None:
        """Note that the half in a frame lies in another, and have the pointers say so."""
        if layout == "pointer":
            other = int(self.pointers[old])
            self.pointers[old] = 0
            self.pointers[new], self.pointers[other] = other, new

    def twins(self, layout: Layout, places: NDArray[np.int64], work: Counter[str]) -> NDArray[np.int64]:
        """Return the places of the EPTEs of the KPTEs at `places` (hpas, int64[n]), which lie in pairs of pages."""
        if layout == "contiguous":
            return places + PAGE_BYTES
        work["dereference"] += len(np.unique(places >> PAGE_SHIFT))
        return np.asarray(self.pointers[places >> PAGE_SHIFT] << PAGE_SHIFT | places & (PAGE_BYTES - 1))

    def _made(self, layout: Layout, pair: Pair, work: Counter[str]) -> Pair:
        lower, upper = pair
        pages = 1 if upper == NO_EPT else 2
        work["table"] += 1 if layout == "contiguous" else pages
        work["zero"] += pages
        if layout == "pointer":
            self.pointers[lower], self.pointers[upper] = upper, lower
            work["dereference"] += 1
            work["store"] += 2
        return pair

    def _block(self, owner: int, work: Counter[str]) -> int | None:
        """Return the first of two contiguous frames: a free block, or one that compaction makes."""
        first = self.host.take_block(owner, 1, State.TABLE)
        if first != NO_FRAME:
            return first
        if self.host.zone["free"][0] - 2 < self.host.marks.min:
            return None  # too little memory, whatever its shape
        spare = self.host.take(owner, 2, State.TABLE, reserve=self.host.marks.min).tolist()
        made = self.compaction.pair(owner, spare, work) if len(spare) == 2 else None
        self.host.give(np.array(spare, np.int64))
        return made

    def _for_held(self, owner: int, held: list[int], work: Counter[str]) -> int | None:
        """Return the first of two contiguous frames for at least two that are held: a free block, or one made."""
        first = self.host.take_block(owner, 1, State.TABLE, held=len(held))
        return self.compaction.pair(owner, held, work) if first == NO_FRAME else first


def _halves(frames: list[int], count: int) -> Pair:
    """Return the halves of a table from one frame or two, of which an EPT half is not frame 0."""
    if count == 1:
        return frames[0], NO_EPT
    return (frames[1], frames[0]) if frames[1] == NO_EPT else (frames[0], frames[1])
