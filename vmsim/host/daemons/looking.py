"""What a look at a VM's pages costs, and what processors must forget after it."""

from __future__ import annotations

from vmsim.contracts import NO_FLUSH, Flush, Found, LiveVm
from vmsim.scenario.cpu import Cost

__all__ = ["looked"]


def looked(costs: Cost, vm: LiveVm, found: Found) -> int:
    """Return the cycles of a look at pages, and have a VM's processors forget those that were accessed."""
    cycles = found.looked * costs.age_page + found.walked * costs.log_scan + found.walk_young * costs.log_page
    times = found.young + (found.walk_young > 0) if vm.pages.flushes_each else 0
    return cycles + vm.forget(Flush(nested=True, linear=True) if times else NO_FLUSH, times=max(times, 1))
