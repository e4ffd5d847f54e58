"""A host and its VMs, as a policy knows them that says how much memory each VM has."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import Any

import simpy

from vmsim.contracts import DaemonHost, Flush, LiveVm, Steps, Vcpu
from vmsim.machine.layout import Count

__all__ = ["Sharer", "SharingHost"]

_WAIT = "host_wait"  # the cause of the time for which a VM's vCPUs are kept from running


class SharingHost:
    """The host.

    Parameters
    ----------
    host : DaemonHost
        As its daemons know it.
    """

    def __init__(self, host: DaemonHost) -> None:
        self._host = host

    @property
    def now(self) -> int:
        """The cycle."""
        return self._host.env.cycle

    @cached_property
    def size(self) -> int:
        """All memory, in pages."""
        return int(self._host.host.size)

    @property
    def free(self) -> int:
        """Pages that nobody has."""
        return int(self._host.host.free)

    @property
    def swaps(self) -> bool:
        """Whether pages can be taken to a swap device."""
        return self._host.host.shrinker is not None

    @property
    def merger(self) -> Any:
        """The daemon ksmd; None: there is none."""
        return self._host.daemons.get("ksm")


class Sharer:
    """A VM; see `vmsim.contracts.SharingVm`.

    Parameters
    ----------
    vm : LiveVm
        As daemons know it; it has memory of its own.
    patience : int
        Cycles for which its balloon may lack pages and not grow before other means are used.

    Attributes
    ----------
    counts : Counter
        `asked`, how often the size of its balloon was set; `swapped`, pages that were taken to the swap device;
        `blocked`, how often its vCPUs were kept from running; `stuck`, looks at which its balloon lacked pages and had
        not grown for long; `spared`, how often no pages were taken, for it had used none since the last time; and what
        a policy counts.
    """

    def __init__(self, vm: LiveVm, patience: int) -> None:
        self.vm = vm
        self.memory = vm.pages
        self.owner = vm.spec.index
        self.shares = vm.spec.shares
        self.size = vm.spec.pages
        balloon, memory, shared = vm.spec.balloon, vm.spec.virtio_mem, vm.spec.bilateral
        self.told = vm.balloon.device if vm.balloon else None
        self.device, of_device = self.told, balloon
        if memory and memory.most:
            self.device, of_device = vm.virtio_mem.device, memory
        if shared and shared.most:
            self.device, of_device = vm.bilateral.device, shared
        self.most = of_device.most if of_device and of_device.driver else 0
        self.counts: Counter[str] = Counter(dict.fromkeys(("asked", "swapped", "blocked"), 0))
        self._gate: simpy.Event | None = None
        self._patience = patience
        self._grown = 0, 0  # pages in its balloon, and since when it has not grown though it was to
        self._seen = -1, 0  # its accesses, and pages that had come back, when pages were last taken
        vm.ledger.counters("overcommit", lambda: self.counts)

    @property
    def running(self) -> bool:
        """Whether its pages may be taken."""
        return self.vm.able

    @property
    def resident(self) -> int:
        """Pages that lie in the host's memory."""
        return int(self.memory.host.count(self.owner)["guest"]) + len(self.memory.shared())

    @property
    def away(self) -> int:
        """Pages that are on the host's swap device."""
        return int(self.memory.swapped.count) if self.memory.swapped else 0

    @property
    def target(self) -> int:
        """Pages that are to be in its balloon."""
        return self.device.target if self.device else 0

    @property
    def balloon(self) -> int:
        """Pages that are in it."""
        return self.device.actual if self.device else 0

    def look(self) -> None:
        """Find out whether its balloon grows as it is to."""
        now = self.vm.env.cycle
        if self.balloon != self._grown[0] or self.balloon >= self.target:
            self._grown = self.balloon, now
        self.counts.update({"stuck": 1} if self.stuck else {})

    @property
    def stuck(self) -> bool:
        """Whether its balloon lacks pages, and has not grown for long: its guest has none, or refuses."""
        return self.balloon < self.target and self.vm.env.cycle - self._grown[1] >= self._patience

    @property
    def statistics(self) -> Any:
        """What its guest has last said of its memory."""
        return self.told.statistics if self.told else None

    def forget(self, flush: Flush, *, times: int) -> int:
        """Have its processors forget; return the cycles that this takes."""
        return self.vm.forget(flush, times=times)

    def ask(self, pages: int) -> None:
        """Ask for so many pages to be in its balloon."""
        pages = max(0, min(pages, self.most))
        if self.device is not None and pages != self.device.target:
            self.counts["asked"] += 1
            self.device.set_target(pages)

    def swap(self, pages: int) -> tuple[int, int]:
        """Take about so many pages to the swap device; return how many, and the cycles of it.

        None while the VM has brought pages back since the last time and made no access: whoever looks more often than
        pages come back would take them again and again, and the VM never get any further.
        """
        seen = _accesses(self.vm), self.memory.returned
        if seen[0] == self._seen[0] and seen[1] != self._seen[1]:
            self.counts["spared"] += 1
            return 0, 0
        self._seen = seen
        taken, cycles = self.memory.host.shrinker.shrink(self.memory.owner, pages)
        self.counts["swapped"] += max(taken, 0)
        return max(taken, 0), cycles

    @property
    def blocked(self) -> bool:
        """Whether its vCPUs are kept from running."""
        return self._gate is not None

    def block(self) -> None:
        """Keep its vCPUs from running, from their next exit on."""
        if not self.vm.alive:
            self.unblock()  # it is to end
        if self._gate is not None or not self.vm.alive:
            return
        gate = self._gate = self.vm.env.event()
        self.counts["blocked"] += 1

        def wait(vcpu: Vcpu) -> Steps[None]:
            if not gate.triggered:
                yield from vcpu.wait(gate, _WAIT)

        for vcpu in self.vm.vcpus:
            vcpu.interrupt(wait)

    def unblock(self) -> None:
        """Let them run."""
        if self._gate is not None:
            self._gate.succeed()
            self._gate = None


def _accesses(vm: LiveVm) -> int:
    return sum(int(vcpu.registers["counters"][..., Count.ACCESSES].sum()) for vcpu in vm.vcpus)
