"""How much of a VM's memory its kernel maps by huge pages, its host has in huge pages, and both.

A TLB can have one entry for 2 MiB only where both have it so: else it has what the smaller page says. The share of
memory that is *well-aligned* is what Gemini raises (W. Jia et al., "Making Dynamic Page Coalescing Effective on
Virtualized Clouds", EuroSys 2023).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vmsim.engine.parts import VmWithDrivers
from vmsim.tables.backing import level_of
from vmsim.tables.listing import mark_huge

__all__ = ["Alignment", "alignment_of"]

_RANGE = 512  # pages


class Alignment(NamedTuple):
    """Pages of 4 KiB: that the guest maps by large pages, that the host has in such pages, and both."""

    guest_huge: int
    host_huge: int
    aligned: int


def alignment_of(vm: VmWithDrivers) -> Alignment:
    """Return what a VM (`VirtualMachine`) has now; a program on the host itself has no host's share."""
    kernel = vm.kernel
    if not (vm.spec.guest_order or vm.spec.host_order):
        return Alignment(0, 0, 0)
    frames = len(vm.slot.backing) if vm.slot else len(kernel.frames.frames)
    by_guest, by_host = np.zeros(-(-frames // _RANGE), np.bool_), np.zeros(-(-frames // _RANGE), np.bool_)
    if vm.spec.guest_order:
        tables = kernel.tables
        for root in kernel.roots:
            if root >= 0:
                mark_huge(kernel.memory, root, tables.levels, tables.backing, tables.end, by_guest)
    if vm.slot:
        whole = frames // _RANGE
        by_host[:whole] = level_of(vm.slot.backing[: whole * _RANGE : _RANGE]) > 1
    counts = (np.count_nonzero(each) * _RANGE for each in (by_guest, by_host, by_guest & by_host))
    return Alignment(*map(int, counts))
