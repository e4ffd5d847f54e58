"""The host's side of memory that a guest plugs and unplugs: a virtio-mem device (QEMU, hw/virtio/virtio-mem.c).

A guest that plugs blocks may use their memory, which has no frames before it is touched. The memory of blocks that it
unplugs is discarded, those of one request by one call (virtio_mem_set_block_state, ram_block_discard_range).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import simpy

from vmsim.base.clock import Clock
from vmsim.contracts import Steps
from vmsim.host.device_thread import DeviceThread, Forget
from vmsim.host.guest_memory import GuestMemory
from vmsim.machine.formats import ENTRIES
from vmsim.scenario.cpu import Cost
from vmsim.scenario.virtio_mem import VirtioMemSpec
from vmsim.tables.backing import BALLOONED, count_leaves

__all__ = ["VirtioMem"]


class VirtioMem(DeviceThread):
    """The device of one VM. Frames of its region that are not plugged are marked as those in a balloon.

    Parameters
    ----------
    env : Clock
        Simulated time.
    spec : VirtioMemSpec
        What it is told.
    costs, memory, forget, horizon, log
        As of `DeviceThread`.

    Attributes
    ----------
    requested, plugged : int
        Pages of 4 KiB of the region that the guest is to have, and that it has.
    counts : Counter
        Besides those of `DeviceThread`, requests to `plug` and to `unplug`, and pages of 4 KiB in all of these
        (`pages_plugged`, `pages_unplugged`); frames that were `freed`.
    """

    statistics = None  # of the guest's memory: it tells none

    def __init__(
        self,
        env: Clock,
        spec: VirtioMemSpec,
        costs: Cost,
        *,
        memory: GuestMemory,
        forget: Forget,
        horizon: int,
        log: Callable[[str, int], None],
    ) -> None:
        thread: dict[str, Any] = {"memory": memory, "forget": forget, "horizon": horizon, "log": log}
        super().__init__(env, costs, message=costs.hotplug_message, **thread)
        self.spec = spec
        self.requested = self.plugged = spec.steps[0][1]
        self.counts.update(dict.fromkeys(("plug", "unplug", "pages_plugged", "pages_unplugged", "freed"), 0))
        memory.backing[spec.first + self.plugged :] = BALLOONED

    def run(self) -> Steps[None]:
        """Ask for the sizes of the schedule, each at its time from now on."""
        return self._ask_each(self.spec.steps[1:], self.request)

    def request(self, pages: int) -> None:
        """Ask the guest to have so many pages of 4 KiB of the region; its driver is told by an interrupt."""
        pages = pages // self.spec.block * self.spec.block
        if pages != self.requested:
            self.requested = pages
            self._tell()

    # ---- for a policy of the host's that knows how much a VM is to do without

    @property
    def target(self) -> int:
        """Pages that the guest is to do without."""
        return self.spec.pages - self.requested

    @property
    def actual(self) -> int:
        """Pages that it does without."""
        return self.spec.pages - self.plugged

    def set_target(self, pages: int) -> None:
        """Ask the guest to do without so many pages, in whole blocks."""
        self.request(self.spec.pages - pages)

    # ---- MemoryDevice

    def plug(self, first: int, count: int) -> simpy.Event:
        """Let the guest have frames; return the event that this has been acknowledged."""
        return self._begin(self._plug(first, count))

    def unplug(self, first: int, count: int) -> simpy.Event:
        """Take the memory of frames."""
        return self._begin(self._unplug(first, count))

    def _plug(self, first: int, count: int) -> Steps[None]:
        self.memory.allow(first, count)
        self.plugged += count
        self.counts["plug"] += 1
        self.counts["pages_plugged"] += count
        self.log("plug", 0)
        return
        yield

    def _unplug(self, first: int, count: int) -> Steps[None]:
        before, costs, spent, times = self.memory.taken, self.costs, self.costs.discard_call, 1
        for start, part in self._parts(first, count):
            spent += costs.discard_page * int(count_leaves(self.memory.backing, start, part))
            flush = self.memory.discard(start, part, BALLOONED)
            if flush.nested or flush.linear:
                spent += self.forget(flush, times=times)
                times = 0  # the range is one call's: vCPUs leave the guest once for it
            yield self._spend(spent)
            spent = 0
            if self._over:
                return
        self.plugged -= count
        self.counts["unplug"] += 1
        self.counts["pages_unplugged"] += count
        self.counts["freed"] += self.memory.taken - before
        self.log("unplug", self.memory.taken - before)

    def _parts(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """Yield parts of a range that are discarded in about the time of the horizon; none is part of a large page."""
        most = max(1, self.horizon // max(1, self.costs.discard_page))
        for start in range(first, first + count, ENTRIES):
            size = min(ENTRIES, first + count - start)
            leaves = int(count_leaves(self.memory.backing, start, size))
            step = size if leaves <= most else most
            for at in range(start, start + size, step):
                yield at, min(step, start + size - at)
