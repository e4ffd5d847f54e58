"""Free page reporting: a guest's kernel tells its host of blocks that nobody uses (Linux, mm/page_reporting.c).

Two seconds after a block of some size has become free, a pass goes through the free lists from the smallest such blocks
to the largest. It takes 32 at a time out of the allocator, waits until the host has discarded their memory
(drivers/virtio/virtio_balloon.c, virtballoon_free_page_report), and puts them back at the ends of their lists as
reported. A pass makes one report more than would cover a sixteenth of a list, and another follows as long as there are
more. That a block has become free is looked for 16 times in a delay, so a pass is late by a sixteenth of it at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import isqrt
from typing import Any

import numpy as np

from vmsim.base.clock import Clock
from vmsim.contracts import BalloonDevice, Steps, Vcpu, Words
from vmsim.frames.records import LARGEST_REPORTED, MOVABLE, UNMOVABLE
from vmsim.frames.reported import any_unreported, count_listed, isolate, put_back
from vmsim.guest.balloon import BALLOON
from vmsim.guest.device_driver import DeviceDriver
from vmsim.scenario.balloon import ReportingSpec
from vmsim.scenario.cpu import Cost

__all__ = ["CAPACITY", "FreePageReporting", "min_watermark"]

CAPACITY = 32  # blocks of a report (PAGE_REPORTING_CAPACITY)
_LOOKS = 16  # at the free lists in a delay
_Batch = tuple[Words, Words]


def min_watermark(frames: int) -> int:
    """Return the frames that a kernel with so many keeps free (mm/page_alloc.c, calculate_min_free_kbytes)."""
    return max(128, min(isqrt(16 * 4 * frames), 262144)) // 4


class FreePageReporting(DeviceDriver[ReportingSpec, BalloonDevice]):
    """The kernel's reporting of free pages.

    Parameters
    ----------
    env, spec, costs
        As of `DeviceDriver`.
    **parts
        As of it: frames, device, queue, notify.

    Attributes
    ----------
    held : int
        Frames that are being reported.
    counts : Counter
        `passes`, and those of them that found too `few` frames free; `reports`; `blocks` and `pages` in all of these.
    """

    def __init__(self, env: Clock, spec: ReportingSpec, costs: Cost, **parts: Any) -> None:
        super().__init__(env, spec, costs, counted=("passes", "few", "reports", "blocks", "pages"), **parts)
        self._least = min_watermark(len(self.frames.frames))

    def run(self) -> Steps[None]:
        """Report what is free, from now on."""
        delay, scratch = self.spec.delay, np.empty(1, np.int64)
        look = -(-delay // _LOOKS)
        while True:
            while not any_unreported(self.frames.zone, self.frames.frames, self.spec.order, scratch):
                yield self.env.background(look)
            yield self.env.background(delay, frees=True)
            yield from self._pass()

    def _pass(self) -> Steps[None]:
        """Go through the free lists once (page_reporting_process_zone)."""
        self.counts["passes"] += 1
        if int(self.frames.zone["free"][0]) <= self._least * 5 // 4 + (CAPACITY << self.spec.order):
            self.counts["few"] += 1
            return
        batches, batch, interrupt = self._batches(), None, False
        while batch := (
            yield from self.queue.run(partial(self._next, batches=batches, done=batch), interrupt=interrupt)
        ):
            self.counts["reports"] += 1
            self.counts["blocks"] += len(batch[0])
            self.counts["pages"] += int((1 << batch[1]).sum())
            yield self.device.report(*batch)
            interrupt = True  # the host's, that it is done

    def _next(self, vcpu: Vcpu, *, batches: Iterator[_Batch], done: _Batch | None) -> Steps[_Batch | None]:
        """Put back the blocks that were reported, and take out the next ones; None: that was the last."""
        allocator = self.frames.zone, self.frames.frames
        if done is not None:
            put_back(*allocator, *done)
            self.held -= int((1 << done[1]).sum())
        batch = next(batches, None)
        if batch is not None:
            vcpu.owe(BALLOON, self.costs.balloon_page * len(batch[0]))
            self.notify(vcpu)
            yield vcpu.settle()
        return batch

    def _batches(self) -> Iterator[_Batch]:
        """Yield firsts and orders of blocks that were taken out of the allocator, int64[n] each."""
        held: list[tuple[int, int]] = []
        for order in range(self.spec.order, LARGEST_REPORTED + 1):
            listed = int(count_listed(self.frames.zone, self.frames.frames, order))
            for mobility in (UNMOVABLE, MOVABLE):
                reports = -(-listed // (CAPACITY * _LOOKS))  # what is left of a pass's share
                while True:
                    found = self._isolate(order, mobility, CAPACITY - len(held)) if reports >= 0 else []
                    held += [(first, order) for first in found]
                    if len(held) < CAPACITY:
                        break
                    yield _columns(held)
                    held, reports = [], reports - 1
        if held:
            yield _columns(held)

    def _isolate(self, order: int, mobility: int, most: int) -> list[int]:
        firsts = np.empty(most, np.int64)
        world: Any = self.frames.zone, self.frames.frames
        count = int(isolate(*world, order, mobility, self.frames.owner, self._least + (1 << order), firsts))
        self.held += count << order
        return [int(first) for first in firsts[:count]]


def _columns(blocks: list[tuple[int, int]]) -> _Batch:
    firsts, orders = np.array(blocks, np.int64).T
    return np.ascontiguousarray(firsts), np.ascontiguousarray(orders)
