"""Compaction in a guest's kernel: pages are moved so that what is free comes together (Linux 6.12, mm/compaction.c).

One scanner goes up and finds pages that can be moved, one goes down and finds free frames for them, until a block is
free or they meet (frames/scanners.py). Small pages of programs and pages of files move; page tables, large pages,
pages of a balloon, those that a device works on and those that several processes map after a fork do not (guest/
moving.py). Who waits for a block, at a fault or as khugepaged, does it at once, and leaves out pageblocks with
anything that stays; kcompactd does it on the first CPU that has not ended, when a fault has asked for it.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np

from vmsim.base.clock import Clock
from vmsim.contracts import Steps, Vcpu, Words
from vmsim.frames.buddy import use
from vmsim.frames.records import NO_FRAME, PAGEBLOCK, State
from vmsim.frames.scanners import Scanners
from vmsim.guest.moving import PageMover
from vmsim.guest.workqueue import Workqueue

__all__ = ["COMPACTION", "GuestCompaction"]

COMPACTION: Final = "compaction"  # the cause of the time that CPUs use for it


class GuestCompaction(PageMover):
    """The compaction of one kernel, with the parameters of `PageMover`, but for the cause.

    Parameters
    ----------
    env : Clock
        Simulated time.
    queue : Workqueue
        Where kcompactd works.
    low : int
        Frames that are to be free besides what is being moved (the low watermark).
    """

    def __init__(self, *parts: Any, env: Clock, queue: Workqueue, low: int, **more: Any) -> None:
        super().__init__(*parts, cause=COMPACTION, **more)
        self.env = env
        self.queue = queue
        self.low = low
        self.scanners = Scanners(self.frames.zone, self.frames.frames, self.frames.owner)
        self.counts["moved"] = 0
        self._at_work = False
        self._order = 0
        self._called = env.event()

    @property
    def held(self) -> int:
        """Frames that the free scanner has taken."""
        return self.scanners.spare

    def figures(self) -> dict[str, int]:
        """Return what was done, by the names of /proc/vmstat."""
        return {**self.scanners.counts, "pgmigrate_success": self.counts["moved"]}

    def compact(self, vcpu: Vcpu, order: int, *, direct: bool = True) -> Steps[bool]:
        """Move pages until a block of 2**order frames is free; return whether one is (compact_zone).

        It is put off after failures as on a host (`host.daemons.compaction`). Blocks of more than a pageblock are not
        made: those of 4 MiB, of 32-bit paging, for which Linux has no huge pages by itself.
        """
        scanners = self.scanners
        free = int(self.frames.zone["free"][0])
        if self._at_work or order > PAGEBLOCK or free < self.low + (2 << order) or scanners.deferred():
            return False
        self._at_work = True
        scanners.counts["compact_stall" if direct else "compact_daemon_wake"] += 1
        self.frames.drain()
        made, again = self.frames.has_block(order), scanners.migrate > 0
        while not made:
            if scanners.met:
                scanners.release()
                scanners.restart()
                if not again:
                    break
                again = False
            yield from self._empty(vcpu, direct=direct)
            made = self.frames.has_block(order)
        scanners.release()
        self.frames.drain()
        made = self.frames.has_block(order)
        if direct:
            scanners.counts["compact_success" if made else "compact_fail"] += 1
        scanners.ended(made=made)
        self._at_work = False
        return made

    def wake(self, order: int) -> None:
        """Have memory compacted later (wakeup_kcompactd)."""
        self._order = order
        if not self._called.triggered:
            self._called.succeed()

    def run(self) -> Steps[None]:
        """Compact memory from now on whenever somebody has asked for it."""
        while True:
            yield self._called
            self._called = self.env.event()
            yield from self.queue.run(partial(self.compact, order=self._order, direct=False), interrupt=False)

    def _empty(self, vcpu: Vcpu, *, direct: bool) -> Steps[None]:
        """Move the pages of the next pageblock away, as far as there are frames for them."""
        scanners, states = self.scanners, self.frames.frames["state"]
        block, before = scanners.migrate, self._looked
        gfns = scanners.pages(direct=direct)
        free = np.array([not self.pinned(gfn) for gfn in gfns.tolist()], np.bool_)
        small, cached = self.pages.holds_each(gfns) & free, self._in_files(gfns) & free
        clutter = self.frames.clutter[gfns]
        used = np.count_nonzero(states[block : block + (1 << PAGEBLOCK)] != State.FREE)
        if len(gfns) and not (direct and np.count_nonzero(small | cached | clutter) < used):
            yield from self._move_programs(vcpu, gfns[small])
            for gfn in gfns[cached].tolist():
                yield from self._move_cached(vcpu, gfn)
            yield from self._move_clutter(vcpu, gfns[clutter])
            self.frames.drain()  # what was not used after all
        vcpu.owe(self.cause, (self._looked - before) * self.costs.log_scan)
        yield vcpu.settle()

    @property
    def _looked(self) -> int:
        return self.scanners.counts["compact_migrate_scanned"] + self.scanners.counts["compact_free_scanned"]

    def _find(self, most: int, order: int) -> Words:
        found = list[int]()
        while len(found) < most and (gfn := self.scanners.target()) != NO_FRAME:
            found.append(gfn)
        gfns = np.array(found, np.int64)
        use(self.frames.frames, gfns, int(State.GUEST))
        return gfns

    def _keep(self, gfns: Words) -> None:
        self.frames.give_tables(gfns)
