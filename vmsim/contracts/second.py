"""What a host does to one VM's memory, and what a paging mode does about it: KVM's memory slot and its MMU notifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts.processor import Vcpu
from vmsim.contracts.steps import Steps, Words

__all__ = ["NO_FLUSH", "Flush", "Leaf", "MapsCached", "MemorySlot", "SecondMmu", "SwapPlace"]


class SwapPlace(IntEnum):
    """Places in the words of a host's swap that compiled code brings pages back by, int64[:]."""

    SIZE = 0  # slots
    USED = 1  # of them
    CYCLES = 2  # of the host's work for a page that comes back
    BROUGHT = 3  # pages that a run has brought back, and nobody has noted yet
    FIRST = 4  # their numbers, from here on


MapsCached = Callable[[int, bool], int]
"""Maps a guest frame to its page in the host's swap cache, to be written to or not; returns the cycles, or -1."""


class Flush(NamedTuple):
    """What processors must forget before pages that were taken away may be used again; flushes add up."""

    nested: bool = False  # what they keep of gpas, alone or combined with gvas
    linear: bool = False  # what they keep of gvas

    def __add__(self, other: Flush) -> Flush:  # type: ignore[override]
        return Flush(self.nested or other.nested, self.linear or other.linear)


NO_FLUSH = Flush()


class Leaf(NamedTuple):
    """An entry through which a processor reaches guest memory."""

    gfn: int
    pfn: int
    order: int
    writable: bool


class SecondMmu(Protocol):
    """One paging mode's entries for the memory of one VM, by guest frames. Nothing here waits or costs time.

    Entries of pages larger than the range count where they map any of it (Linux, arch/x86/kvm/mmu/mmu.c,
    `kvm_unmap_gfn_range`, `kvm_age_gfn`). What was zapped is mapped again at the next access: the frame has not moved.
    """

    def zap(self, first: int, count: int) -> Flush:
        """Clear what maps `count` guest frames from `first` on, so that every next access finds nothing."""
        ...

    def zap_each(self, gfns: Words) -> Flush:
        """Do the same to some frames, int64[n] ascending."""
        ...

    def protect(self, first: int, count: int) -> Flush:
        """Take the right to write from what maps the frames."""
        ...

    def age(self, first: int, count: int, *, clear: bool) -> NDArray[np.bool_]:
        """Return which frames were accessed since their flags were last cleared, bool[count]; `clear` them."""
        ...

    def age_each(self, numbers: Words, *, clear: bool) -> NDArray[np.bool_]:
        """Return which of some frames, int64[n], were accessed, bool[n], as `age` does."""
        ...

    def mapped(self, first: int, count: int) -> NDArray[np.bool_]:
        """Return which frames an entry maps, bool[count]."""
        ...

    def dirty(self, first: int, count: int, *, clear: bool) -> NDArray[np.bool_]:
        """Return which frames were written to since their flags were last cleared, bool[count]; `clear` them."""
        ...

    def leaves(self) -> Iterator[Leaf]:
        """Yield what processors can reach now, for checks and dumps."""
        ...


class MemorySlot(Protocol):
    """The host's truth of one VM's memory, as far as a paging mode needs it."""

    backing: Words  # int64[frames]: where each guest frame lies (tables/backing.py)
    swap: Words  # int64[:], by `SwapPlace`: those of the host's swap; empty: it has none
    collapses: bool  # pages that lie apart may come to lie in one large one
    forget: Callable[[Flush, Vcpu | None], int]  # has the processors forget, a vCPU's own for nothing; the cycles

    def arrived(self, gfn: int, pfn: int, order: int) -> None:
        """Note that 2**order guest frames lie in host frames from now on, and bring back what they held."""

    def away(self, gfn: int) -> bool:
        """Whether a page is on the swap device: it is to be brought back before its frame is backed."""
        ...

    def bring(self, vcpu: Vcpu, gfn: int, *, write: bool, commit: MapsCached | None = None) -> Steps[tuple[int, bool]]:
        """Bring it back, to be written to or not; return the cycles of that, waits apart, and whether it is mapped.

        Once it is in the swap cache `commit` may map it from there.
        """
        ...

    def brought(self) -> None:
        """Note what compiled code has brought back, before anybody else does anything."""

    def clean(self, gfn: int) -> bool:
        """Whether the swap device has what a page holds: it may be read, and `soil` comes before a write."""
        ...

    def soil(self, gfn: int) -> None:
        """Let a clean page be written to: the device has it no more."""

    def unshare(self, vcpu: Vcpu, gfn: int, pfn: int) -> int:
        """Give a guest frame that is shared a page of its own; return the cycles until other processors know of it."""
        ...

    def protect_shared(self) -> None:
        """Take the right to write from all that maps pages which are shared."""
