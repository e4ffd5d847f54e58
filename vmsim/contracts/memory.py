"""Who gives frames: a kernel's allocator, a monitor's page pool, the host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.contracts.processor import Vcpu
from vmsim.contracts.steps import Steps, Words
from vmsim.frames.stack import Stack
from vmsim.machine.formats import PRESENT

__all__ = ["Backer", "Frames", "Host", "KernelHalf", "PagePrices", "Pool", "ensure"]


class Frames(Protocol):
    """The frames a kernel allocates from: the guest's own, or the host's where there is no guest."""

    zone: NDArray[Any]
    frames: NDArray[Any]
    owner: int
    batch: int  # that compiled code may take from the allocator when none stands ready; 0: none
    kept: int  # that the kernel has had for itself since before the start

    @property
    def ready(self) -> Stack:
        """Frames taken from the allocator and not yet handed out."""
        ...

    def allocate(self, vcpu: Vcpu, order: int) -> Steps[int]:
        """Return the first of 2**order frames, ready to be written, or NO_FRAME if there is no such large block."""
        ...

    def try_block(self, vcpu: Vcpu, order: int, *, insists: bool) -> Steps[int]:
        """Return the first of 2**order frames, or NO_FRAME; whoever asks can do without them.

        What can be done to have such a block is done for who `insists`.
        """
        ...

    def allocate_cached(self, vcpu: Vcpu) -> Steps[int]:
        """Return a frame of the page cache: what it holds is there already, and the kernel does not touch it."""
        ...

    def allocate_table(self, vcpu: Vcpu) -> Steps[int]:
        """Return a frame for a page table, ready to be written."""
        ...

    def has_block(self, order: int) -> bool:
        """Whether 2**order frames could be had."""
        ...

    @property
    def free(self) -> int:
        """Frames that nobody uses."""
        ...

    @property
    def short(self) -> bool:
        """Whether nobody should take a frame who could do without."""
        ...

    def ensure(self, vcpu: Vcpu, gfns: Words) -> Steps[bool]:
        """Have the host back frames (int64[n]) that software is about to touch; return whether any was not."""
        ...

    def give(self, gfns: Words, order: int) -> None:
        """Take back blocks of 2**order frames."""

    def give_tables(self, gfns: Words) -> None:
        """Take back frames that were tables."""

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for frames that are given back, so that compiled code may not give them."""
        ...

    def gave(self, count: int) -> None:
        """Note that compiled code has given so many frames back to who they were from."""

    def recount(self) -> None:
        """Count what was allocated before the clock started.

        Raises
        ------
        VmStopped
            It is more than there may be.
        """


class KernelHalf(Protocol):
    """What is mapped in every address space for the kernel alone."""

    def enter(self, vcpu: Vcpu, frames: Frames, root: int) -> Steps[None]:
        """Have a new root point to it."""
        ...


class Backer(Protocol):
    """The monitor, as far as guest-physical memory needs it."""

    @property
    def backing(self) -> Words:
        """Where guest memory lies (tables/backing.py)."""
        ...

    def touch(self, vcpu: Vcpu, gfn: int, order: int) -> Steps[None]:
        """Write to 2**order frames: whichever lacks a host frame exits and gets one."""
        ...


class PagePrices(NamedTuple):
    """What a vCPU pays in its exit for a page, wherever its monitor has pages from.

    Attributes
    ----------
    page : int
        Cycles for a page that holds zeros.
    copied : int
        Cycles for one that is about to be written to all over, the copying apart.
    table : int
        Cycles to clear one that is to be a table, taking and making it apart.
    large : tuple of int
        Cycles for a large page that holds zeros: what does not depend on its size, and for each 4 KiB of it.
    """

    page: int
    copied: int
    table: int
    large: tuple[int, int]

    def of_order(self, order: int) -> int:
        """Return the cycles for a page of 2**order pages of 4 KiB."""
        fixed, each = self.large
        return fixed + (each << order) if order else self.page


class Pool(Protocol):
    """Where a monitor has pages from: a pool that the host fills, or the host itself, page by page."""

    pages: Stack
    prices: PagePrices
    starved: int  # requests to the host that had to wait for memory, and are met

    @property
    def floor(self) -> int:
        """Free pages that may be left for a page to be taken without anybody being called or waited for."""
        ...

    @property
    def level(self) -> int:
        """Free pages in it."""
        ...

    def reach(self, count: int) -> int:
        """Return how many of `count` pages can be taken without waiting."""
        ...

    def take(self, count: int) -> list[int]:
        """Return `count` pages, or none."""
        ...

    def request(self, count: int) -> simpy.Event:
        """Return an event that gives `count` pages."""
        ...

    def put(self, pages: Sequence[int] | Words) -> None:
        """Add pages."""

    def take_block(self, order: int) -> int:
        """Return the first frame of a large page of the host's, or NO_FRAME."""
        ...

    def make_room(self, order: int) -> int:
        """Have a block of 2**order frames made where none is free; return the cycles, 0 where that was in vain."""
        ...


class Host(Protocol):
    """What the monitor asks of the host besides its pool."""

    zone: NDArray[Any]
    frames: NDArray[Any]
    failures: Counter[tuple[int, int]]  # failed allocations of blocks, by owner and order

    def give_block(self, pfn: int, order: int) -> None:
        """Take back 2**order frames."""


def ensure(vcpu: Vcpu, backer: Backer, gfns: Words) -> Steps[bool]:
    """Have the host back frames (int64[n]) that software is about to touch; return whether any was not.

    It may wait, and while it does others may take what was there: so it looks again until all is there at once. Frames
    beyond the guest's memory are left out; touching them fails by itself.
    """
    lacking = False
    inside = gfns[gfns < len(backer.backing)]
    while len(absent := inside[backer.backing[inside] & PRESENT == 0]):
        lacking = True
        for gfn in np.unique(absent).tolist():
            yield from backer.touch(vcpu, gfn, 0)
    return lacking
