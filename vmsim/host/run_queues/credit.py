"""Xen's credit scheduler (xen/common/sched_credit.c): weights, caps, and a boost for who wakes up.

Running costs credit, a cycle each here. Every 30 ms the cores' time is given out as credit, by the weights of the
vCPUs that were active. With credit a vCPU is UNDER, without it OVER, and OVER runs only where no UNDER waits. Who
wakes up UNDER is BOOSTed: it goes before all others and interrupts one of them, until it has run for a slice. A VM
with a cap is parked once it has used more, until its credit is positive again. There is one queue for all cores,
where Xen has one for each and steals work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from itertools import count
from typing import Final

__all__ = ["Credit"]

PERIOD: Final = 30  # ms: CSCHED_DEFAULT_TSLICE_MS, three ticks


class _Priority(IntEnum):
    BOOST = 0
    UNDER = 1
    OVER = 2


class _Vcpu:
    def __init__(self, vm: int) -> None:
        self.vm = vm
        self.credit = 0
        self.priority = _Priority.UNDER
        self.active = False
        self.parked = False
        self.runs = False
        self.place: int | None = None  # in the queue, by the order of coming


class Credit:
    """A queue by priority, and credit that is given out.

    Parameters
    ----------
    vms : sequence of int
        The VM of each vCPU.
    weights : sequence of int
        Of each VM, at least 1: for each of its vCPUs that is active.
    caps : sequence of int
        Of each VM, in percent of a core; 0: none.
    cores : int
    millisecond : int
        In cycles.
    """

    preempts = True

    def __init__(
        self, vms: Sequence[int], weights: Sequence[int], caps: Sequence[int], *, cores: int, millisecond: int
    ) -> None:
        self._vcpus = [_Vcpu(vm) for vm in vms]
        self._weights, self._caps = weights, caps
        self._period = PERIOD * millisecond
        self._total = self._period * cores
        self._balance = 0
        self._accounted = 0  # when
        self._places = count()

    def add(self, vcpu: int, now: int, *, woken: bool) -> None:
        """Have a vCPU wait."""
        self._account(now)
        each = self._vcpus[vcpu]
        each.active, each.place = True, next(self._places)
        if woken and each.priority is _Priority.UNDER and not each.parked:
            each.priority = _Priority.BOOST

    def take(self, now: int) -> int | None:
        """Return the first of the highest priority that is not parked."""
        self._account(now)
        vcpu = self._first()
        if vcpu is not None:
            self._vcpus[vcpu].place, self._vcpus[vcpu].runs = None, True
        return vcpu

    def charge(self, vcpu: int, cycles: int, now: int) -> None:
        """Take credit for what a vCPU ran."""
        self._account(now)
        each = self._vcpus[vcpu]
        each.credit -= cycles
        each.active = each.active or cycles > 0

    def stop(self, vcpu: int) -> None:
        """Note that a vCPU has no core any more."""
        self._vcpus[vcpu].runs = False

    def passes_on(self, vcpu: int, now: int) -> bool:
        """Return whether one that waits goes before a vCPU that has run for a slice, or that one is parked."""
        self._account(now)
        each = self._vcpus[vcpu]
        if each.priority is _Priority.BOOST:
            each.priority = _Priority.UNDER
        first = self._first()
        return each.parked or (first is not None and self._vcpus[first].priority <= each.priority)

    def victim(self, running: Mapping[int, int], now: int) -> int | None:
        """Return a vCPU of lower priority than one that waits, the lowest."""
        first = self._first()
        if first is None or not running:
            return None
        lowest = max(running, key=lambda vcpu: self._vcpus[vcpu].priority)
        return lowest if self._vcpus[lowest].priority > self._vcpus[first].priority else None

    def next_change(self, now: int) -> int | None:
        """Return when credit is given out next, if somebody is parked who would run."""
        waits = any(each.parked and each.place is not None for each in self._vcpus)
        return self._accounted + self._period if waits else None

    def _first(self) -> int | None:
        waits = [(each.priority, each.place, vcpu) for vcpu, each in enumerate(self._vcpus) if each.place is not None]
        return min((place for place in waits if not self._vcpus[place[2]].parked), default=(0, 0, None))[2]

    def _account(self, now: int) -> None:
        """Give out the credit of the periods that have gone by (csched_acct)."""
        while now - self._accounted >= self._period:
            self._accounted += self._period
            if any(each.active for each in self._vcpus):
                self._give_out()
            else:
                self._accounted = now - now % self._period

    def _give_out(self) -> None:
        vms: dict[int, list[_Vcpu]] = {}
        for each in self._vcpus:
            if each.active:
                vms.setdefault(each.vm, []).append(each)
        left = self._total - min(self._balance, 0)
        weight = sum(self._weights[vm] * len(vcpus) for vm, vcpus in vms.items())
        peaks = {vm: self._peak(vm, len(vcpus)) for vm, vcpus in vms.items()}
        self._balance = 0
        # Who can use the least of its share comes first: what it leaves is for the others.
        for vm in sorted(vms, key=lambda vm: (peaks[vm] / (self._weights[vm] * len(vms[vm])), vm)):
            vcpus = vms[vm]
            own = self._weights[vm] * len(vcpus)
            share = min(peaks[vm], -(-left * own // weight))
            left, weight = max(0, left - share), weight - own
            for each in vcpus:
                self._earn(each, -(-share // len(vcpus)), self._caps[vm] * self._period // 100 // len(vcpus))

    def _peak(self, vm: int, vcpus: int) -> int:
        """Return the most credit that a VM can use in a period."""
        peak = vcpus * self._period
        return min(peak, self._caps[vm] * self._period // 100) if self._caps[vm] else peak

    def _earn(self, each: _Vcpu, credit: int, cap: int) -> None:
        each.credit += credit
        if each.credit < 0:
            each.priority = _Priority.OVER
            each.parked = each.parked or (cap > 0 and each.credit < -cap)
            each.credit = max(each.credit, -self._period)
        else:
            if each.priority is _Priority.OVER:
                each.priority = _Priority.UNDER
            each.parked = False
            if each.credit > self._period:
                each.credit //= 2  # it stops earning, and starts a little ahead when it is active again
                each.active = each.runs or each.place is not None
        self._balance += each.credit
