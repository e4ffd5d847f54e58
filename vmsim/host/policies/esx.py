"""VMware ESX's memory policy (C. Waldspurger, Memory Resource Management in VMware ESX Server, OSDI 2002).

Shares (§5.1, §5.2). Memory is taken from the VM with the fewest shares for a page, S / (P (f + k (1 - f))): S shares,
P pages that it has, f the part of them in use, and k = 1 / (1 - t) what an idle page costs at an idle memory tax of t.
Here that is solved at once: with A pages in use, P (f + k (1 - f)) is P up to A and A + k (P - A) beyond, and all VMs
get as much as costs the same for their shares, between what must not be in a balloon and what they can use.

States (§6.3). Below `soft` percent of free memory balloons are inflated, and VMs without one, or whose guests do not
fill it ("paging only in cases where ballooning is not possible"), have pages taken; below
`hard` pages are taken from all that have more than their part; below `low` these do not run either until there is more.
A host that is less short again has to have `margin` more than the next threshold. All reclaim aims at `high`.

What the paper leaves open is decided here: a VM whose balloon is empty, and has no pages on the swap device, can use
what it has, any other all its memory; with enough free memory balloons shrink and none grows; the pages that are taken
are those that `host.swap.policy` says (ESX drew them).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from vmsim.contracts import SharedHost, SharingVm
from vmsim.host.daemons.parts import DaemonParts
from vmsim.host.working_set import SampledWorkingSet

__all__ = ["Claim", "Esx", "State", "allot", "build", "next_state"]

_STEPS = 100  # of a bisection, far more than a double has bits


class State(IntEnum):
    """How short the host is."""

    HIGH = 0
    SOFT = 1
    HARD = 2
    LOW = 3


class Claim(NamedTuple):
    """What speaks for a VM.

    Attributes
    ----------
    shares : int
        Of it.
    active : float
        Pages in use.
    least, most : int
        Pages that it must have, and that it can use.
    """

    shares: int
    active: float
    least: int
    most: int

    def pages(self, price: float, idle: float) -> float:
        """Return how many pages it may have at a price for a share, if an idle page costs as much as `idle` others."""
        paid = self.shares * price
        wanted = paid if paid <= self.active else self.active + (paid - self.active) / idle
        return min(max(wanted, self.least), self.most)


def allot(claims: Sequence[Claim], pages: int, tax: float) -> list[int]:
    """Return how many of so many pages each VM has, with a tax of 0 to 100 percent on idle ones."""
    if not claims or sum(claim.most for claim in claims) <= pages:
        return [claim.most for claim in claims]
    idle = 100 / (100 - tax)
    low, high = 0.0, max(claim.most * idle / claim.shares for claim in claims)
    for _ in range(_STEPS):
        price = (low + high) / 2
        if sum(claim.pages(price, idle) for claim in claims) > pages:
            high = price
        else:
            low = price
    return [int(claim.pages(low, idle)) for claim in claims]


def next_state(state: State, free: float, table: Any) -> State:
    """Return how short a host is that was so short before, with so many percent of its memory free.

    Parameters
    ----------
    table : Esx
        The thresholds.
    """
    below = (table.soft, table.hard, table.low)  # below which it becomes SOFT, HARD, LOW
    reached = State(sum(free < limit for limit in below))
    if reached >= state:
        return reached
    back = (table.high, table.soft, table.hard)  # that it must exceed to be less than SOFT, HARD, LOW
    while state > reached and free > back[state - 1] * (1 + table.margin / 100):
        state = State(state - 1)
    return state


class Esx:
    """The policy.

    Parameters
    ----------
    table : Esx
        What the scenario says.
    seed : int
        Of the pages that are watched.
    frequency : int
        Cycles in a second.
    each : int
        Cycles to unmap a page.

    Attributes
    ----------
    state : State
        How short the host is.
    counts : Counter
        Looks in each state.
    """

    def __init__(self, table: Any, *, seed: int, frequency: int, each: int) -> None:
        self.table = table
        self.state = State.HIGH
        self.counts: Counter[str] = Counter(dict.fromkeys((state.name.lower() for state in State), 0))
        self._seed = seed
        self._period = max(1, table.sample_period.cycles(frequency))
        self._each = each
        self._sets: dict[int, SampledWorkingSet] = {}

    def figures(self) -> dict[str, int]:
        """Return what is counted for the host."""
        return dict(self.counts)

    def turn(self, host: SharedHost, vms: Sequence[SharingVm]) -> int:
        """Look at the host, and have each VM have its part."""
        running = [vm for vm in vms if vm.running]
        spent = sum(self._watch(vm, host.now) for vm in running)
        self.state = next_state(self.state, 100 * host.free / host.size, self.table)
        self.counts[self.state.name.lower()] += 1
        resident = {vm.owner: vm.resident for vm in running}
        claims = [self._claim(vm, resident[vm.owner]) for vm in running]
        there = sum(resident.values()) + host.free - int(host.size * self.table.high / 100)
        for vm, claim, part in zip(running, claims, allot(claims, there, self.table.idle_tax), strict=True):
            over = resident[vm.owner] - part
            self._ask(vm, claim, part)
            taken = 0
            paging = self.state >= State.HARD or (self.state == State.SOFT and (vm.stuck or not vm.most))
            if over > 0 and host.swaps and paging:
                taken, cycles = vm.swap(over)
                spent += cycles
            if self.state == State.LOW and taken:
                vm.block()
            else:
                vm.unblock()
        return spent

    def _watch(self, vm: SharingVm, now: int) -> int:
        table, found = self.table, self._sets.get(vm.owner)
        if found is None:
            seed = self._seed + vm.owner
            parts = {"pages": table.sample_pages, "period": self._period, "each": self._each}
            found = SampledWorkingSet(vm, seed=seed, slow=table.sample_slow, fast=table.sample_fast, **parts)
            self._sets[vm.owner] = found
        cycles = found.turn(now)
        vm.counts["active"] = round(found.share * vm.size)
        vm.counts["periods"] = found.periods
        return cycles

    def _claim(self, vm: SharingVm, resident: int) -> Claim:
        held = bool(vm.target or vm.balloon)
        away = vm.away
        most = vm.size if held or away else resident
        return Claim(
            vm.shares, self._sets[vm.owner].share * vm.size, min(vm.size - vm.most, most) if vm.most else 0, most
        )

    def _ask(self, vm: SharingVm, claim: Claim, part: int) -> None:
        """Set the size of a VM's balloon; one that is not held to its part has none."""
        if part >= claim.most and not vm.target:
            return
        wanted = vm.size - part
        vm.ask(min(wanted, vm.target) if self.state == State.HIGH else wanted)


def build(parts: DaemonParts) -> Esx:
    """Return the policy."""
    return Esx(parts.table, seed=parts.seed, frequency=parts.frequency, each=parts.costs.host_zap)
