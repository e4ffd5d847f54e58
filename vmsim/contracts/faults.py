"""Kinds of faults, by what they had to wait for, and how long those of each kind took."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Final

from vmsim.base.histogram import Histogram

__all__ = ["KIND_BITS", "FaultKind", "FaultTimes"]

KIND_BITS: Final = 4


class FaultKind(IntEnum):
    """What a fault had to do; of several the last here. The kernel's own are apart: others may be part of them."""

    ENTRY = 0  # the page was there: it gets an entry, or the entry a right
    ZERO_FILL = 1  # a page that the monitor or its host had at hand
    SWAP_IN_MINOR = 2  # a page of the swap cache, or of compressed memory
    SHARE_BREAK = 3  # a copy of a shared page
    POOL_WAIT = 4  # the monitor's pool had none, and its host some
    DIRECT_RECLAIM = 5  # the host had none above its min watermark, or the VM had reached its limit
    SWAP_IN_MAJOR = 6  # a page that was read from the swap device
    GUEST = 7  # a page fault of the kernel's (in mode native of the host's), all that it had to do included
    GUEST_MAJOR = 8  # the same, for a page that was read from a swap device of the kernel's own

    @property
    def label(self) -> str:
        """As tables have it."""
        return self.name.lower().replace("_", "-")


class FaultTimes:
    """How long the faults of one VM took, by kind."""

    def __init__(self) -> None:
        self._kinds = [Histogram() for _ in FaultKind]

    def add(self, cycles: int, times: int = 1, kind: int = FaultKind.ENTRY) -> None:
        """Note a fault of so many cycles, so many times."""
        self._kinds[kind].add(cycles, times)

    def note(self, vcpu: Any, start: int, before: int) -> None:
        """Note the fault that a vCPU has taken since `start`; its kind is `before` again, of what it is part of."""
        self.add(vcpu.now - start, kind=vcpu.kind)
        vcpu.kind = before

    def copy(self) -> Histogram:
        """Return those of all faults that left the guest, of whichever kind."""
        made = Histogram()
        for histogram in self._kinds[: FaultKind.GUEST]:
            made.merge(histogram)
        return made

    def kinds(self) -> Iterator[tuple[str, Histogram]]:
        """Yield a copy of those of each kind, by its name."""
        for kind in FaultKind:
            yield kind.label, self._kinds[kind].copy()
