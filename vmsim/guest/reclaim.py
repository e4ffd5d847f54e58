"""Reclaim by a guest's kernel: kswapd, and whoever needs a page when there is none (Linux mm/vmscan.c).

kswapd is a thread of the kernel, which runs on the first CPU that has not ended. It is woken when an allocation finds
free memory below the low watermark, and works until as much is free, or on its way to the swap device, as the high one
says. Below the min watermark who allocates takes pages itself, 32 at a time; page tables may use what is left. When
that was in vain sixteen times the kernel asks the balloon's driver for pages, and then gives up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from vmsim.base.clock import Clock
from vmsim.contracts import ScannedLists, Steps, SwappedOut, Vcpu
from vmsim.guest.file_pages import FilePages
from vmsim.guest.frames import GuestFrames
from vmsim.guest.program_pages import ProgramPages
from vmsim.guest.reporting import min_watermark
from vmsim.guest.workqueue import Workqueue
from vmsim.scenario.cpu import Cost
from vmsim.scenario.vm import Marks

__all__ = ["GUEST_SWAP_WAIT", "RECLAIM", "Reclaim", "Sizes", "scan_counts", "watermarks"]

RECLAIM = "reclaim"  # the cause of the time that CPUs use for it
GUEST_SWAP_WAIT = "guest_swap_wait"  # and of waits for the guest's swap device

_PRIORITY = 12  # one page in 2**12 is looked at first (DEF_PRIORITY)
_CLUSTER = 32  # SWAP_CLUSTER_MAX
_RETRIES = 16  # MAX_RECLAIM_RETRIES
_INACTIVE, _ACTIVE = 0, 1


def watermarks(frames: int) -> Marks:
    """Return the watermarks of a kernel with so many frames (mm/page_alloc.c, __setup_per_zone_wmarks).

    low and high are further from min than a quarter of it where 10 of 10,000 frames are more (watermark_scale_factor).
    """
    least = min_watermark(frames)
    step = max(least >> 2, frames * 10 // 10_000)
    return Marks(least, least + step, least + 2 * step)


class Sizes(NamedTuple):
    """Pages on each list."""

    anon_inactive: int
    anon_active: int
    file_inactive: int
    file_active: int


def scan_counts(
    sizes: Sizes,
    *,
    priority: int,
    swappiness: int,
    swaps: bool,
    costs: tuple[int, int],
    free: int,
    high: int,
    deactivates: tuple[bool, bool],
) -> Sizes:
    """Return how many pages of each list are looked at (mm/vmscan.c, get_scan_count and prepare_scan_control).

    Parameters
    ----------
    sizes : Sizes
        Pages on the lists.
    priority : int
        One page in 2**priority of what is looked at.
    swappiness : int
        0 to 200.
    swaps : bool
        Whether there is a swap device with room.
    costs : (int, int)
        What pages of programs, and of files, that were taken have cost so far, in requests of the devices.
    free, high : int
        Free frames, and the high watermark.
    deactivates : (bool, bool)
        Whether active pages of programs, and of files, may become inactive.
    """
    anon, file = 1, 1
    total = 1
    tiny = sizes.file_inactive + sizes.file_active + free <= high
    if not swaps:
        anon = 0
    elif priority == 0 and swappiness:
        pass  # all of both
    elif tiny and not deactivates[0] and sizes.anon_inactive >> priority:
        file = 0
    elif sizes.file_inactive >> priority and not deactivates[1]:
        anon = 0
    else:
        of_both = sum(costs)
        anon = swappiness * (3 * of_both + 1) // (of_both + costs[0] + 1)
        file = (200 - swappiness) * (3 * of_both + 1) // (of_both + costs[1] + 1)
        total = anon + file
    shares = (anon, anon, file, file)
    return Sizes(*((size >> priority) * share // total for size, share in zip(sizes, shares, strict=True)))


class Reclaim:
    """The reclaim of one kernel.

    Parameters
    ----------
    env : Clock
        Simulated time.
    costs : Cost
        What its steps take.
    frames : GuestFrames
        Of which it frees some.
    swappiness : int
        As of `scan_counts`.
    queue : Workqueue
        Where kswapd runs.
    anon, file : ScannedLists
        Pages of programs, and of files.
    programs, files
        Whose pages these are; no files: there is no page cache.
    swap : SwappedOut or None
        Where programs' pages go.

    Attributes
    ----------
    counts : Counter
        Pages `scanned` and `stolen` by kswapd, and the same by those who allocate (`direct_`); `wakes` of kswapd, and
        `stalls` of those; `failed`, allocations for which nothing could be freed.
    """

    def __init__(
        self,
        env: Clock,
        costs: Cost,
        *,
        frames: GuestFrames,
        swappiness: int,
        queue: Workqueue,
        anon: ScannedLists,
        file: ScannedLists,
        programs: ProgramPages,
        files: FilePages | None,
        swap: Any | None,
    ) -> None:
        self.env = env
        self.costs = costs
        self.frames = frames
        self.marks = watermarks(len(frames.frames))
        self.swappiness = swappiness
        self.queue = queue
        self.lists = anon, file
        self.programs = programs
        self.files = files
        self.swap: SwappedOut | None = swap
        self.shrink_cache: Callable[[int], int] = swap.shrink_cache if swap else lambda count: 0
        names = ("scanned", "stolen", "direct_scanned", "direct_stolen", "wakes", "stalls", "failed")
        self.counts: Counter[str] = Counter(dict.fromkeys(names, 0))
        self._costs = [0, 0]  # of the devices' requests for pages of programs, and of files
        self._at_work: set[int] = set()  # CPUs that reclaim, and so use what is left
        self._failures = 0
        self._called = env.event()

    # ---- for those who allocate

    def make_room(self, vcpu: Vcpu, frames: int) -> Steps[None]:
        """Have so many frames be free above the min watermark, if that can be."""
        if self._free - frames >= self.marks.low:
            return
        self._wake()
        if self._free - frames >= self.marks.min or vcpu.number in self._at_work:
            return
        self.frames.drain()
        if self._free - frames >= self.marks.min:
            return
        self.counts["stalls"] += 1
        vain = 0
        while self._free - frames < self.marks.min and vain < _RETRIES:
            stolen = yield from self._directly(vcpu)
            if self._free - frames >= self.marks.min:
                return
            if progress := self._under_way():
                yield from vcpu.wait(progress, GUEST_SWAP_WAIT)
                vain = 0
            elif stolen:
                vain = 0
            else:
                vain += 1
                yield vcpu.settle()
        if self._free - frames < self.marks.min:
            self.counts["failed"] += 1
            yield from self.frames.give_up(vcpu)

    def try_once(self, vcpu: Vcpu, frames: int) -> Steps[None]:
        """Do the same for who can do without, as long as each try finds something (__GFP_NORETRY)."""
        while self._free - frames < self.marks.low:
            self._wake()
            if self._free - frames >= self.marks.min or vcpu.number in self._at_work:
                return
            self.frames.drain()
            before = self._free
            yield from self._directly(vcpu)
            if self._free <= before:
                return

    def last_resort(self, vcpu: Vcpu) -> Steps[bool]:
        """Take pages for who has found none at all; return whether some are free now."""
        self._wake()
        if vcpu.number in self._at_work:
            return False
        before = self._free
        yield from self._directly(vcpu)
        while self._free <= before and (progress := self._under_way()):
            yield from vcpu.wait(progress, GUEST_SWAP_WAIT)
        return self._free > before

    # ---- kswapd

    def run(self) -> Steps[None]:
        """Take pages whenever memory is short, from now on."""
        while True:
            yield self._called
            self.counts["wakes"] += 1
            yield from self._balance()
            self._called = self.env.event()

    def _wake(self) -> None:
        if self._failures < _RETRIES and not self._called.triggered:
            self._called.succeed()

    @property
    def _lacking(self) -> bool:
        return self._free + (self.swap.writing if self.swap else 0) < self.marks.high

    def _balance(self) -> Steps[None]:
        """Take pages until enough is free, or it is of no use (balance_pgdat)."""
        goal = max(self.marks.high, _CLUSTER)
        while self._lacking and self._failures < _RETRIES and self.queue.alive:
            priority, total = _PRIORITY, 0
            while priority >= 1 and self._lacking:
                work = partial(self._scan, priority=priority, goal=goal)
                stolen, scanned = yield from self.queue.run(work, interrupt=False)
                total += stolen
                self.counts["scanned"] += scanned
                self.counts["stolen"] += stolen
                if scanned < goal or not stolen:
                    priority -= 1
            self._failures = 0 if total else self._failures + 1
            if not total and (progress := self._under_way()):
                yield progress
                self._failures = 0

    # ---- for both

    @property
    def _free(self) -> int:
        return int(self.frames.zone["free"][0])

    def _under_way(self) -> Any:
        """Return an event of progress where frames are being written; None: none is."""
        if self.swap and self.swap.writing:
            return self.swap.progress
        if self.files and self.files.cache.writing:
            return self.files.cache.progress
        return None

    def _directly(self, vcpu: Vcpu) -> Steps[int]:
        """Take about 32 pages (do_try_to_free_pages); return how many."""
        total = 0
        for priority in range(_PRIORITY, -1, -1):
            stolen, scanned = yield from self._scan(vcpu, priority=priority, goal=_CLUSTER)
            total += stolen
            self.counts["direct_scanned"] += scanned
            if total >= _CLUSTER:
                break
        self.counts["direct_stolen"] += total
        if total:
            self._failures = 0
        return total

    def _scan(self, vcpu: Vcpu, *, priority: int, goal: int) -> Steps[tuple[int, int]]:
        """Look at some pages of all lists, and take some (shrink_node); return how many were taken, and looked at."""
        self._at_work.add(vcpu.number)
        anon, file = self.lists
        stolen = scanned = self.shrink_cache(goal)
        for lists in self.lists:
            lists.begin()
        anon.renew(self.programs)
        counts = self._counts(priority)
        whole = sum(counts) or 1
        kinds = ((0, anon, self.programs, counts[:2]), (1, file, self.files, counts[2:]))
        for number, lists, pages, (inactive, active) in kinds:
            if pages is None or not (inactive or active):
                continue
            inactive, asked = lists.ask(pages, inactive, active)
            young = yield from pages.age(vcpu, asked)
            lists.answer(pages, asked, young)
            found = lists.shrink(pages, inactive, active, max(1, goal * (inactive + active) // whole))
            vcpu.owe(RECLAIM, found.looked * self.costs.age_page)
            taken = yield from pages.take(vcpu, found.numbers)
            for left in np.setdiff1d(found.numbers, taken, assume_unique=True).tolist():
                lists.keep(pages, left, active=number == 0)
            writes = len(taken) if number == 0 else 0
            vcpu.owe(RECLAIM, len(taken) * self.costs.reclaim_page)
            self._note_cost(number, writes * _CLUSTER + found.looked - len(taken))
            stolen += len(taken)
            scanned += found.looked
        if self.swap and not (counts.anon_inactive or counts.anon_active):
            yield from self._rebalance(vcpu, anon)
        for lists in self.lists:
            lists.end()
        self._at_work.discard(vcpu.number)
        yield vcpu.settle()
        return stolen, scanned

    def _rebalance(self, vcpu: Vcpu, anon: ScannedLists) -> Steps[None]:
        """Look at some active pages of programs where few are inactive, though none is to be taken."""
        _, asked = anon.ask(self.programs, 0, 0)
        young = yield from self.programs.age(vcpu, asked)
        anon.answer(self.programs, asked, young)
        anon.rebalance(self.programs)

    def _counts(self, priority: int) -> Sizes:
        anon, file = self.lists
        return scan_counts(
            Sizes(anon.size(_INACTIVE), anon.size(_ACTIVE), file.size(_INACTIVE), file.size(_ACTIVE)),
            priority=priority,
            swappiness=self.swappiness,
            swaps=bool(self.swap and self.swap.room),
            costs=(self._costs[0], self._costs[1]),
            free=self._free,
            high=self.marks.high,
            deactivates=(anon.deactivates, file.deactivates),
        )

    def refaulted(self) -> None:
        """Note that a page of a program was read from the swap device (lru_note_cost_refault)."""
        self._note_cost(0, _CLUSTER)

    def _note_cost(self, kind: int, cost: int) -> None:
        """Note what taking pages of a kind has cost; old costs count for less (lru_note_cost)."""
        self._costs[kind] += max(0, cost)
        size = sum(lists.size(which) for lists in self.lists for which in (_INACTIVE, _ACTIVE))
        if sum(self._costs) > size // 4:
            self._costs = [each // 2 for each in self._costs]
