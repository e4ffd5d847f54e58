"""Shares by weight, as Linux's CFS gives them to the groups that VMs are in (kernel/sched/fair.c).

A VM's virtual time is the time that its vCPUs ran, divided by its weight. The VM that is farthest behind has the next
core; its vCPUs take turns. One that slept is put at most half a latency behind the others, so that sleep is no credit
(place_entity with GENTLE_FAIR_SLEEPERS), and interrupts who is ahead of it by more than the wake-up granularity
(wakeup_preempt_entity). There is one queue for all cores, where Linux has one for each and balances them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["Fair"]

LATENCY: Final = 6  # ms, sysctl_sched_latency
GRANULARITY: Final = 1  # ms, sysctl_sched_wakeup_granularity
_SCALE: Final = 1 << 20  # virtual time of a weight of 1; a weight is at most 10,000


class _Vm:
    """A VM's virtual time, and those of its vCPUs that wait."""

    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.time = 0
        self.waiting: deque[int] = deque()
        self.running = 0

    def virtual(self, cycles: int) -> int:
        """Return what so many cycles are worth in virtual time."""
        return cycles * _SCALE // self.weight


class Fair:
    """A queue of VMs by virtual time.

    Parameters
    ----------
    vms : sequence of int
        The VM of each vCPU.
    weights : sequence of int
        Of each VM, at least 1.
    millisecond : int
        In cycles.
    """

    preempts = True

    def __init__(self, vms: Sequence[int], weights: Sequence[int], millisecond: int) -> None:
        self._of = vms
        self._vms = [_Vm(weight) for weight in weights]
        self._millisecond = millisecond
        self._least = 0  # virtual time that no VM is behind any more

    def add(self, vcpu: int, now: int, *, woken: bool) -> None:
        """Have a vCPU wait; a VM that slept comes at most half a latency behind."""
        vm = self._vms[self._of[vcpu]]
        if woken and not vm.waiting and not vm.running:
            bonus = vm.virtual(LATENCY * self._millisecond // 2)
            vm.time = max(vm.time, self._behind() - bonus)
        vm.waiting.append(vcpu)

    def take(self, now: int) -> int | None:
        """Return a vCPU of the VM that is farthest behind."""
        vm = min((vm for vm in self._vms if vm.waiting), key=lambda vm: vm.time, default=None)
        if vm is None:
            return None
        self._behind()
        vm.running += 1
        return vm.waiting.popleft()

    def charge(self, vcpu: int, cycles: int, now: int) -> None:
        """Count what a vCPU ran; it no longer does, or begins a slice anew."""
        vm = self._vms[self._of[vcpu]]
        vm.time += vm.virtual(cycles)

    def stop(self, vcpu: int) -> None:
        """Note that a vCPU has no core any more."""
        self._vms[self._of[vcpu]].running -= 1

    def passes_on(self, vcpu: int, now: int) -> bool:
        """Return whether a VM that waits is behind the vCPU's."""
        own = self._vms[self._of[vcpu]]
        return any(vm.waiting and (vm.time < own.time or vm is own) for vm in self._vms)

    def victim(self, running: Mapping[int, int], now: int) -> int | None:
        """Return the vCPU farthest ahead of one that waits, if it is so by more than the granularity.

        `running` has the vCPUs with a core, and how long each has run since it was charged.
        """
        waits = min((vm for vm in self._vms if vm.waiting), key=lambda vm: vm.time, default=None)
        if waits is None or not running:
            return None
        ahead = {
            vcpu: self._vms[self._of[vcpu]].time + self._vms[self._of[vcpu]].virtual(cycles)
            for vcpu, cycles in running.items()
        }
        first = max(ahead, key=lambda vcpu: ahead[vcpu])
        least = waits.virtual(GRANULARITY * self._millisecond)
        return first if ahead[first] - waits.time > least else None

    def next_change(self, now: int) -> int | None:
        """Return None: whoever waits may run."""
        return None

    def _behind(self) -> int:
        """Return the least virtual time of a VM that runs or waits; it never goes back (update_min_vruntime)."""
        times = [vm.time for vm in self._vms if vm.waiting or vm.running]
        self._least = max(self._least, min(times, default=self._least))
        return self._least
