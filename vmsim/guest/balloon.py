"""The driver of a virtio balloon in a guest's kernel (Linux, drivers/virtio/virtio_balloon.c).

The host says how much is to be in the balloon. The driver takes pages from the kernel's allocator, which reclaims some
if it does at all, but does not insist (__GFP_NORETRY), tells the host of up to 256 at a time, and waits until it has
acknowledged them; where there is no page left it waits for 200 ms first. Pages leave the balloon in the opposite order,
after the host has been told.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from vmsim.base.clock import Clock
from vmsim.contracts import BalloonDevice, Statistics, Steps, Vcpu, Words
from vmsim.guest.device_driver import DeviceDriver
from vmsim.scenario.balloon import BalloonSpec
from vmsim.scenario.cpu import Cost

__all__ = ["BALLOON", "BalloonDriver"]

BALLOON = "balloon"  # the cause of the time that vCPUs use for it
_COUNTED = ("inflate", "inflated", "deflate", "deflated", "short", "oom", "oom_pages")
_OOM_PAGES = 256  # that leave the balloon when the kernel has no page left (VIRTIO_BALLOON_OOM_NR_PAGES)


class BalloonDriver(DeviceDriver[BalloonSpec, BalloonDevice]):
    """The driver.

    Parameters
    ----------
    env, spec, costs
        As of `DeviceDriver`.
    **parts
        As of it: frames, device, queue, notify.

    Attributes
    ----------
    pages : list of int
        First frames of the blocks in the balloon, the last one put last.
    held : int
        Frames that are in the balloon, or were taken for it.
    counts : Counter
        Messages to `inflate` and to `deflate`, and pages of 4 KiB in all of these; `short`, how often no page was to be
        had; `oom`, how often the kernel had none left and took some out of the balloon, and `oom_pages`; of a guest
        that refuses how often it was asked for more than it gives (`refused`).
    """

    def __init__(self, env: Clock, spec: BalloonSpec, costs: Cost, **parts: Any) -> None:
        super().__init__(env, spec, costs, counted=_COUNTED, **parts)
        self.pages: list[int] = []
        if spec.refuses >= 0:
            self.counts["refused"] = 0
        if spec.deflate_on_oom:
            self.frames.spare = self.deflate_on_oom

    @property
    def size(self) -> int:
        """Pages of 4 KiB in the balloon."""
        return len(self.pages) << self.spec.order

    def run(self) -> Steps[None]:
        """Follow the target from now on (update_balloon_size_func)."""
        asked = -1
        interrupt = False  # the driver has just been started, and looks by itself
        while True:
            target = self.device.target
            if 0 <= self.spec.refuses < target:
                self.counts["refused"] += target != asked
                target = self.spec.refuses
            asked = self.device.target
            lacking = target - self.size
            if lacking > 0:
                yield from self._fill(lacking, interrupt=interrupt)
            elif lacking < 0:
                yield from self._leak(-lacking, interrupt=interrupt)
            else:
                yield self.device.changed
            interrupt = True  # the host has acknowledged a message, or has another target

    def _fill(self, lacking: int, *, interrupt: bool) -> Steps[None]:
        """Put up to a message's pages in the balloon (fill_balloon)."""
        most = min(lacking >> self.spec.order, self.spec.message)
        pages = yield from self.queue.run(partial(self._take, most=most), interrupt=interrupt)
        if len(pages) < most:
            self.counts["short"] += 1
            yield self.env.background(self.spec.retry, frees=True)
            if len(pages):
                yield from self.queue.run(partial(self._send, pages=pages), interrupt=False)
        if len(pages):
            yield self.device.inflate(pages, self.spec.order)

    def _take(self, vcpu: Vcpu, *, most: int) -> Steps[Words]:
        """Take pages from the allocator, and tell the host of them if there are enough."""
        order = self.spec.order
        if self.frames.reclaim:
            yield from self.frames.reclaim.try_once(vcpu, most << order)
        pages = self.frames.reserve(most, order)[::-1]
        self.held += len(pages) << order
        vcpu.owe(BALLOON, self.costs.balloon_page * len(pages))
        if len(pages) == most:
            yield from self._send(vcpu, pages=pages)
        return pages

    def _send(self, vcpu: Vcpu, *, pages: Words) -> Steps[None]:
        self.pages.extend(pages.tolist())
        self.counts["inflate"] += 1
        self.counts["inflated"] += len(pages) << self.spec.order
        self.device.now_has(self.size)
        self.notify(vcpu)
        yield vcpu.settle()

    def _leak(self, over: int, *, interrupt: bool) -> Steps[None]:
        """Take up to a message's pages out of the balloon (leak_balloon)."""
        most = min(-(-over >> self.spec.order), self.spec.message)
        pages = yield from self.queue.run(partial(self._return, most=most), interrupt=interrupt)
        yield self.device.deflate(pages, self.spec.order)
        yield from self.queue.run(partial(self._release, pages=pages))

    def _return(self, vcpu: Vcpu, *, most: int) -> Steps[Words]:
        """Take pages out of the balloon, and tell the host."""
        left = max(0, len(self.pages) - most)
        pages = np.array(self.pages[left:][::-1], np.int64)
        del self.pages[left:]
        self.counts["deflate"] += 1
        self.counts["deflated"] += len(pages) << self.spec.order
        self.device.now_has(self.size)
        self.notify(vcpu)
        yield vcpu.settle()
        return pages

    def _release(self, vcpu: Vcpu, *, pages: Words) -> Steps[None]:
        """Give pages that were in the balloon to the allocator."""
        self.held -= len(pages) << self.spec.order
        self.frames.release(pages, self.spec.order)
        vcpu.owe(BALLOON, self.costs.balloon_release * len(pages))
        return
        yield

    def deflate_on_oom(self, vcpu: Vcpu) -> Steps[bool]:
        """Take pages out of the balloon for a kernel that has none left; return whether there were any.

        Linux: virtio_balloon_oom_notify, which out_of_memory calls before it kills a program. The target stays, and is
        not looked at before it changes.
        """
        if not self.pages:
            return False
        most = max(1, _OOM_PAGES >> self.spec.order)
        pages = yield from self._return(vcpu, most=most)
        self.counts["oom"] += 1
        self.counts["oom_pages"] += len(pages) << self.spec.order
        yield from vcpu.wait(self.device.deflate(pages, self.spec.order), BALLOON)
        yield from self._release(vcpu, pages=pages)
        return True

    def answer(self, faults: int) -> Steps[None]:
        """Tell the host of the guest's memory, which it has asked for (update_balloon_stats)."""

        def collect(vcpu: Vcpu) -> Steps[None]:
            self.notify(vcpu)
            yield vcpu.settle()

        yield from self.queue.run(collect)
        frames = self.frames
        self.device.tell(Statistics(frames.free, len(frames.frames) - frames.offline - self.held, faults))
