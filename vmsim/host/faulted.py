"""Pages that a monitor without a pool has: its host allocates each in a page fault of its own (KVM).

KVM backs a guest frame by `get_user_pages` on the memory of the process that runs the VM, in the exit and on the thread
of the vCPU (virt/kvm/kvm_main.c, hva_to_pfn). The host's kernel finds the mapping, allocates a page, clears it and maps
it as in any page fault (mm/memory.c, do_anonymous_page). Tables are allocated and cleared besides
(kvm_mmu_topup_memory_cache). Nobody sends messages.

Frames come from the host's allocator in batches, as from Linux's lists of free pages by CPU, which hold them
uncleared; while the host is below its min watermark a vCPU waits as one that finds a pool empty does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import NEVER, PagePrices, Steps
from vmsim.frames.records import NO_FRAME, State
from vmsim.host.limits import BATCH
from vmsim.host.memory import HOST
from vmsim.host.supply import Supply
from vmsim.record.messages import Kind

__all__ = ["FaultedPages"]

_BATCH: Final = 64  # frames taken from the buddy allocator at a time, as of a program (host/bare.py)
_MOST: Final = 2 * _BATCH  # frames at hand above which a batch goes back


class FaultedPages(Supply):
    """Frames at hand for page faults that the host makes on a monitor's behalf."""

    least = 0

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        costs = self.costs
        self.floor = 0
        self.prices = PagePrices(
            page=costs.host_fault + costs.host_zero,
            copied=costs.host_fault,
            table=costs.zero_page,
            large=(costs.host_fault, costs.host_zero),
        )

    @property
    def room(self) -> int:
        """None: pages are fetched when they are needed."""
        return 0

    def reach(self, count: int) -> int:
        """Return how many of `count` pages the host can give at once, above its min watermark."""
        self._fetch(count)
        return min(count, len(self.pages))

    def take(self, count: int) -> list[int]:
        """Return `count` pages if the host has them and nobody waits, else none."""
        if self._waiting:
            return []
        self._fetch(count)
        return self.pages.take(count) if len(self.pages) >= count else []

    def take_block(self, order: int) -> int:
        """Return the first frame of a large page of 2**order frames, or NO_FRAME."""
        return self.host.take_block(self.owner, order, State.GUEST) if self.may_take(1 << order) else NO_FRAME

    def put(self, pages: Sequence[int] | NDArray[np.int64]) -> None:
        """Add pages; suspended vCPUs get theirs first, and the host what is more than two batches."""
        if self._waiting:
            self.pages.put(pages)
        else:
            self.pages.put_back(pages)
        self._hand_out()
        self._set_floor()
        if len(self.pages) > _MOST:
            self.host.give(self.pages.drop(len(self.pages) - _BATCH))
        if self.host.starving:
            self.host.call_reclaim()

    def surrender(self, level: int, kind: Kind, *, asked: bool = False) -> Steps[None]:
        """Give the host the pages above `level`, for `reclaim_page` each (Linux drain_all_pages)."""
        self.pages.gather()
        spare = len(self.pages) - level
        if spare <= 0:
            return
        taken = self.pages.drop(spare)
        self.host.hand_over(taken, HOST, State.HOST)
        yield self.env.timeout(spare * self.costs.reclaim_page)
        self.host.give(taken)

    def _fetch(self, count: int) -> None:
        """Have `count` pages at hand if the host has them."""
        if len(self.pages) < count:
            wanted = max(_BATCH, count - len(self.pages))
            if self.limit:
                wanted = self.limit.allows(wanted)
            pfns = self.host.take(self.owner, wanted, State.POOL, reserve=self.host.marks.min)
            self.pages.put(pfns[::-1])

    def _call_host(self) -> None:
        self._set_floor()
        if len(self._waiting) == 1:
            self.env.process(self._wait())

    def _set_floor(self) -> None:
        """Note that somebody waits or nobody does."""
        self.floor = NEVER if self._waiting else 0

    def _wait(self) -> Steps[None]:
        """Bring pages as the host has them until nobody waits."""
        while self._waiting and not self.closed:
            missing = max(1, self.wanted - len(self.pages))
            if self.limit:
                missing = yield from self.limit.admit(max(missing, BATCH))
            self.starved += 1
            granted = yield self.host.request(HOST, missing, State.HOST, asker=self.owner, patient=True)
            if self.closed:
                self.host.give(granted)
                return
            self.host.hand_over(granted, self.owner, State.POOL)
            self.put(granted)
