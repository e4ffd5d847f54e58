"""The driver of a virtio-mem device in a guest's kernel (Linux, drivers/virtio/virtio_mem.c, sub-block mode).

The host says how much of the device's region is to be plugged. Memory comes and goes in blocks within *memory blocks*
of 128 MiB, by which Linux hotplugs. To plug, the driver asks for absent blocks from below, those of a memory block that
lie side by side by one request, and gives them to the kernel's allocator when the host has agreed. To unplug, it goes
through the memory blocks from above, those that lack blocks already first. Of one that is whole and not needed it tries
to have all at once, else block by block from above: the kernel empties a block of what is in it (alloc_contig_range),
and the host takes its memory. A block that holds what cannot be moved is left out. Where that leaves too much plugged
the driver tries again after a time that doubles up to six times, or when the host asks for something else.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.base.clock import Clock
from vmsim.contracts import MemoryDevice, Steps, Vcpu
from vmsim.frames.buddy import free_many
from vmsim.frames.isolation import isolate_range
from vmsim.frames.records import MOVABLE, PAGEBLOCK
from vmsim.guest.device_driver import DeviceDriver
from vmsim.guest.migration import Migration
from vmsim.scenario.cpu import Cost
from vmsim.scenario.virtio_mem import MEMORY_BLOCK, VirtioMemSpec

__all__ = ["HOTPLUG", "VirtioMemDriver"]

HOTPLUG: Final = "hotplug"  # the cause of the time that vCPUs use for it
_LONGEST: Final = 6  # times the first wait (VIRTIO_MEM_RETRY_TIMER_MAX_MS is 300 s, the first one 50 s)


class VirtioMemDriver(DeviceDriver[VirtioMemSpec, MemoryDevice]):
    """The driver.

    Parameters
    ----------
    env, spec, costs
        As of `DeviceDriver`.
    migration : Migration
        Empties blocks.
    **parts
        As of `DeviceDriver`: frames, device, queue, notify.

    Attributes
    ----------
    plugged : bool[blocks]
        Which blocks of the region the guest has.
    held : int
        Frames of the others.
    counts : Counter
        Blocks `plugged` and `unplugged`; attempts to empty a block, or a whole memory block, that `failed`; and
        `retries`.
    """

    def __init__(self, env: Clock, spec: VirtioMemSpec, costs: Cost, *, migration: Migration, **parts: Any) -> None:
        super().__init__(env, spec, costs, counted=("plugged", "unplugged", "failed", "retries"), **parts)
        self.migration = migration
        self.plugged: NDArray[np.bool_] = np.zeros(spec.pages // spec.block, np.bool_)
        self.plugged[: self.device.requested // spec.block] = True
        self._group = max(1, MEMORY_BLOCK // spec.block)  # blocks of a memory block
        self._take_away(spec.first + self.device.requested, spec.first + spec.pages)

    def _take_away(self, first: int, limit: int) -> None:
        """Have the allocator not have frames that it has now."""
        taken, frames = np.empty(limit - first, np.int64), self.frames
        count = int(isolate_range(frames.zone, frames.frames, first, limit, frames.owner, taken))
        assert count == limit - first, "something lies in memory that the guest does not have"
        self.held = count
        frames.offline += count

    def run(self) -> Steps[None]:
        """Follow what is requested from now on (virtio_mem_run_wq)."""
        wait = self.spec.retry
        while True:
            changed, blocks = self.device.changed, self.device.requested // self.spec.block
            lacking = blocks - int(self.plugged.sum())
            if lacking == 0:
                yield changed
            elif not (yield from self._work(lacking, changed)) and not changed.triggered:
                self.counts["retries"] += 1
                timer = self.env.background(wait, frees=True)
                yield changed | timer
                wait = min(2 * wait, _LONGEST * self.spec.retry)
                if not changed.triggered:
                    continue
            wait = self.spec.retry

    def _work(self, lacking: int, changed: simpy.Event) -> Steps[bool]:
        """Plug so many blocks, or unplug as many; return whether all are, which ends early where another is asked."""
        if lacking > 0:
            for first, count in [*self._absent(lacking)]:
                if changed.triggered:
                    return False
                yield from self._plug(first, count)
                lacking -= count
            return lacking == 0
        excess = -lacking
        for group in self._groups():
            blocks = group.start + np.flatnonzero(self.plugged[group])
            whole = len(blocks) == self._group <= excess
            if whole and excess and (yield from self._unplug(int(blocks[0]), len(blocks))):
                excess -= len(blocks)
                continue
            for block in blocks[::-1].tolist():
                if not excess or changed.triggered:
                    break
                excess -= yield from self._unplug(block, 1)
        return excess == 0

    def _absent(self, lacking: int) -> Iterator[tuple[int, int]]:
        """Yield runs of absent blocks within a memory block, from below: the first, and how many."""
        absent = np.flatnonzero(~self.plugged)[:lacking]
        ends = np.flatnonzero((np.diff(absent) != 1) | (absent[1:] % self._group == 0)) + 1
        for run in np.split(absent, ends):
            if len(run):
                yield int(run[0]), len(run)

    def _groups(self) -> list[slice]:
        """Return the memory blocks that have blocks, those that lack some first, from above."""
        count = len(self.plugged)
        groups = [slice(at, min(at + self._group, count)) for at in range(0, count, self._group)]
        some = [each for each in groups if self.plugged[each].any()]
        return sorted(some, key=lambda each: (bool(self.plugged[each].all()), -each.start))

    def _plug(self, block: int, count: int) -> Steps[None]:
        """Ask for absent blocks, and give them to the allocator (virtio_mem_sbm_plug_sb, virtio_mem_fake_online)."""
        first, frames = self.spec.first + block * self.spec.block, count * self.spec.block
        yield from self.queue.run(self._tell, interrupt=False)
        yield self.device.plug(first, frames)
        yield from self.queue.run(partial(self._online, first=first, count=frames))
        self.plugged[block : block + count] = True
        self.counts["plugged"] += count

    def _unplug(self, block: int, count: int) -> Steps[bool]:
        """Empty blocks and have the host take their memory; return whether they could be."""
        first, frames = self.spec.first + block * self.spec.block, count * self.spec.block
        if not (yield from self.queue.run(partial(self._offline, first=first, count=frames), interrupt=False)):
            self.counts["failed"] += 1
            return False
        self.plugged[block : block + count] = False
        self.counts["unplugged"] += count
        yield self.device.unplug(first, frames)
        return True

    def _tell(self, vcpu: Vcpu) -> Steps[None]:
        self.notify(vcpu)
        yield vcpu.settle()

    def _online(self, vcpu: Vcpu, *, first: int, count: int) -> Steps[None]:
        frames = self.frames
        frames.frames["mobility"][first : first + count] = MOVABLE
        free_many(frames.zone, frames.frames, PAGEBLOCK, np.arange(first, first + count, 1 << PAGEBLOCK))
        self.held -= count
        frames.offline -= count
        vcpu.owe(HOTPLUG, self.costs.hotplug_page * count)
        return
        yield

    def _offline(self, vcpu: Vcpu, *, first: int, count: int) -> Steps[bool]:
        """Have nothing in frames, tell the host that they can go (virtio_mem_fake_offline)."""
        if not (yield from self.migration.empty(vcpu, first, first + count)):
            return False
        self.held += count
        self.frames.offline += count
        vcpu.owe(HOTPLUG, self.costs.unplug_page * count)
        yield from self._tell(vcpu)
        return True
