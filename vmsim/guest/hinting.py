"""Free-page hinting: a guest's kernel tells its host which blocks are free, for whoever copies its memory just now.

Whenever the host asks anew, the driver takes all free blocks of the allocator's largest size (Linux, MAX_PAGE_ORDER)
and tells the host of them in one burst (drivers/virtio/virtio_balloon.c, report_free_page_func, send_free_pages). It
holds them, so that what it said stays true, until the host has no more use for it; a kernel that has no page left takes
some back (virtio_balloon_shrinker_scan). The host keeps their memory.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from vmsim.base.clock import Clock
from vmsim.contracts import BalloonDevice, Steps, Vcpu, Words
from vmsim.frames.records import LARGEST_REPORTED
from vmsim.guest.balloon import BALLOON
from vmsim.guest.device_driver import DeviceDriver
from vmsim.scenario.balloon import BalloonSpec
from vmsim.scenario.cpu import Cost

__all__ = ["HINT_ORDER", "FreePageHinting"]

HINT_ORDER: Final = LARGEST_REPORTED  # VIRTIO_BALLOON_HINT_BLOCK_ORDER


class FreePageHinting(DeviceDriver[BalloonSpec, BalloonDevice]):
    """The kernel's hinting of free pages.

    Parameters
    ----------
    env, spec, costs
        As of `DeviceDriver`.
    **parts
        As of it: frames, device, queue, notify.

    Attributes
    ----------
    blocks : list of int
        First frames of the blocks that it holds.
    held : int
        Frames of these.
    counts : Counter
        `commands` that it has followed; `blocks` that it told the host of, and `pages` in these; blocks that the kernel
        took back because it had no page left (`shrunk`).
    """

    def __init__(self, env: Clock, spec: BalloonSpec, costs: Cost, **parts: Any) -> None:
        super().__init__(env, spec, costs, counted=("commands", "blocks", "pages", "shrunk"), **parts)
        self.blocks: list[int] = []
        self._otherwise = self.frames.spare
        self.frames.spare = self.shrink

    def run(self) -> Steps[None]:
        """Follow what the host asks for, from now on."""
        hints, followed = self.device.hints, 0
        assert hints
        while True:
            changed, command = hints.changed, hints.command
            if command == followed:
                yield changed
                continue
            followed = command
            if command == 0:
                yield from self.queue.run(self._release_all)
                continue
            self.counts["commands"] += 1
            firsts = yield from self.queue.run(self._take)
            if len(firsts):
                yield self.device.hint(firsts, HINT_ORDER, command)

    def _take(self, vcpu: Vcpu) -> Steps[Words]:
        """Take all free blocks, and tell the host of them."""
        firsts = self.frames.reserve(int(self.frames.zone["free"][0]) >> HINT_ORDER, HINT_ORDER)
        if len(firsts):
            self.blocks.extend(firsts.tolist())
            self.held += len(firsts) << HINT_ORDER
            self.counts["blocks"] += len(firsts)
            self.counts["pages"] += len(firsts) << HINT_ORDER
            vcpu.owe(BALLOON, self.costs.balloon_page * len(firsts))
            self.notify(vcpu)
            yield vcpu.settle()
        return firsts

    def _release_all(self, vcpu: Vcpu) -> Steps[None]:
        self._release(vcpu, len(self.blocks))
        return
        yield

    def _release(self, vcpu: Vcpu, count: int) -> None:
        """Give blocks back to the allocator, the last ones first (return_free_pages_to_mm)."""
        firsts = np.array(self.blocks[len(self.blocks) - count :][::-1], np.int64)
        del self.blocks[len(self.blocks) - count :]
        self.held -= count << HINT_ORDER
        self.frames.release(firsts, HINT_ORDER)
        vcpu.owe(BALLOON, self.costs.balloon_release * count)

    def shrink(self, vcpu: Vcpu) -> Steps[bool]:
        """Give one block back to a kernel that has no page left, or have the balloon give some; return whether so."""
        if self.blocks:
            self._release(vcpu, 1)
            self.counts["shrunk"] += 1
            return True
        return self._otherwise is not None and (yield from self._otherwise(vcpu))
