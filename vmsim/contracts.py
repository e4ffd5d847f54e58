"""What the rooms of vmsim ask of one another: guests, monitors and the host import this, and not each other.

Each Protocol stands here once. A class that keeps one need not name it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from enum import Enum, auto
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.frames.stack import Stack

__all__ = [
    "Alarmed",
    "Backing",
    "Frames",
    "Host",
    "KernelHalf",
    "Mmu",
    "Pool",
    "Spaces",
    "Steps",
    "Stop",
    "Vcpu",
    "VmStopped",
    "Words",
]

_Value = TypeVar("_Value")

Words: TypeAlias = NDArray[np.int64]
Steps: TypeAlias = Generator[simpy.Event, Any, _Value]
"""What takes simulated time: a generator of the events that it waits for, which returns a value."""


class Stop(Enum):
    """Why a VM cannot go on."""

    OUT_OF_MEMORY = auto()  # its kernel has no frame left, or a program of the host's has reached its limit
    NOT_BACKED = auto()  # the host has too little memory for it before the clock starts
    BEYOND_MEMORY = auto()  # its page tables lead to a gpa where it has neither memory nor a device
    RESERVED_BIT = auto()  # an entry of its page tables has a bit that must be 0
    KERNEL_HALF = auto()  # a program has reached for an address that is its kernel's


class VmStopped(Exception):  # noqa: N818  (it reads as what it is)
    """A VM ends here.

    Parameters
    ----------
    what : Stop
        Why.
    who : str, optional
        Who has stopped it: "its kernel", as Linux does (mm/fault.c, pgtable_bad), or "the monitor".
    address : int, optional
        The gpa beyond its memory, the gva whose entry has the bit, or that in the kernel's half.
    """

    def __init__(self, what: Stop, *, who: str = "its kernel", address: int = -1) -> None:
        super().__init__(what, who, address)
        self.what = what
        self.who = who
        self.address = address


class Vcpu(Protocol):
    """What software that runs on behalf of a vCPU needs of it."""

    first_touch: Counter[str]  # cycles by cause, of those used so far

    @property
    def now(self) -> int:
        """The cycle the vCPU has reached, what it owes included."""
        ...

    def owe(self, cause: str, cycles: int) -> None:
        """Use cycles, to be paid in simulated time before anything shared is touched."""

    def first(self) -> AbstractContextManager[None]:
        """Count the cycles of what is done inside as those of a first touch."""
        ...

    def settle(self) -> simpy.Event:
        """Return an event that pays what is owed."""
        ...

    @property
    def slack(self) -> int:
        """Cycles until something else happens; 0 if nothing may be done ahead of simulated time."""
        ...

    def wait(self, event: simpy.Event, cause: str) -> Steps[Any]:
        """Give up the core until `event`; return its value."""
        ...


class Alarmed(Vcpu, Protocol):
    """A vCPU that calls its monitor's `rang` at the cycle `alarm`."""

    alarm: int


class Spaces(Protocol):
    """The address spaces of a VM as its processor's TLBs tell them apart."""

    space: int

    def exited(self) -> None:
        """A VM exit, and the entry after it."""

    def load(self, space: int, *, keep: bool = False) -> None:
        """Load CR3 with another space; forget what is cached of it, unless it is to be kept and can be told apart."""

    def invalidate(self, first: int, last: int) -> None:
        """Forget the pages that touch [first, last] of the current space."""

    def flush(self) -> None:
        """Forget the current space."""

    def flush_all(self) -> None:
        """Forget them all."""

    def release(self, space: int) -> None:
        """Forget a space that is gone."""


class Mmu(Protocol):
    """What a kernel does to page tables and to the processor's MMU.

    Attributes
    ----------
    traps : bool
        Whether a load or store of an entry can cost more than the instruction. Where none can, the kernel may leave
        out `read` and `clear`, and edit tables by compiled code that does what `write` would do.
    loads_trap : bool
        Whether a load can. Where none can, the kernel may leave out `read`.
    known : bool
        Whether compiled code knows what a store of an entry costs and brings about (engine/serve.py).
    """

    traps: bool
    loads_trap: bool
    known: bool

    @property
    def backing(self) -> Words:
        """Where guest memory lies (tables/backing.py); empty if gpas are hpas."""
        ...

    def read(self, vcpu: Vcpu, places: Words) -> Steps[Words]:
        """Load the entries at `places` (int64[n], gpas, in the order of the loads); return their values, int64[n].

        Accessed and dirty flags are in them as bare hardware would have set them by now.
        """
        ...

    def write(self, vcpu: Vcpu, places: Words, values: Words) -> Steps[None]:
        """Store `values` (int64[n]) at `places` (int64[n], gpas), one entry after the other."""
        ...

    def clear(self, vcpu: Vcpu, gpa: int, order: int, *, table: bool) -> Steps[None]:
        """Write over 2**order frames from `gpa`, which the kernel has just allocated: it zeroes or copies to them.

        A frame for a table is zero afterwards. Contents of other frames are not simulated, but where one was a table
        that a monitor still guards, these are stores to it.
        """
        ...

    def load_root(self, vcpu: Vcpu, root: int, space: int, *, keep: bool) -> Steps[None]:
        """MOV to CR3: `root` is the gpa of a root table, `space` its PCID, from 0; always 0 without PCIDs.

        `keep` leaves what the processor has cached of the space (bit 63 of the operand); without it the space is
        forgotten. The first load of all keeps: there is nothing yet.
        """
        ...

    def invalidate(self, vcpu: Vcpu, first: int, last: int, *, order: int = 0) -> Steps[None]:
        """INVLPG for each 2**order pages of [first, last] (gvas) of the current space, where no page is smaller."""
        ...

    def flush(self, vcpu: Vcpu) -> Steps[None]:
        """Forget the current space: CR3 loaded with what it holds."""
        ...

    def release(self, vcpu: Vcpu, root: int, space: int) -> Steps[None]:
        """Note that the kernel frees the root of a space that is loaded nowhere; `space` is its PCID or NO_PCID.

        No instruction tells hardware. The tables below the root have been cleared and freed already.
        """
        ...


class Frames(Protocol):
    """The frames a kernel allocates from: the guest's own, or the host's where there is no guest."""

    zone: NDArray[Any]
    frames: NDArray[Any]
    owner: int

    @property
    def ready(self) -> Stack:
        """Frames taken from the allocator and not yet handed out."""
        ...

    def allocate(self, vcpu: Vcpu, order: int) -> Steps[int]:
        """Return the first of 2**order frames, ready to be written, or NO_FRAME if there is no such large block."""
        ...

    def allocate_table(self, vcpu: Vcpu) -> Steps[int]:
        """Return a frame for a page table, ready to be written."""
        ...

    def has_block(self, order: int) -> bool:
        """Whether 2**order frames could be had."""
        ...

    def give(self, gfns: Words, order: int) -> None:
        """Take back blocks of 2**order frames."""

    def give_tables(self, gfns: Words) -> None:
        """Take back frames that were tables."""


class KernelHalf(Protocol):
    """What is mapped in every address space for the kernel alone."""

    def enter(self, vcpu: Vcpu, frames: Frames, root: int) -> Steps[None]:
        """Have a new root point to it."""
        ...


class Backing(Protocol):
    """The monitor, as far as guest-physical memory needs it."""

    def touch(self, vcpu: Vcpu, gfn: int, order: int) -> Steps[None]:
        """Write to 2**order frames: whichever lacks a host frame exits and gets one."""
        ...


class Pool(Protocol):
    """The monitor's page pool."""

    pages: Stack

    @property
    def floor(self) -> int:
        """Free pages that may be left for a page to be taken without anybody being called or waited for."""
        ...

    @property
    def level(self) -> int:
        """Free pages in it."""
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


class Host(Protocol):
    """What the monitor asks of the host besides its pool."""

    zone: NDArray[Any]
    frames: NDArray[Any]
    failures: Counter[tuple[int, int]]  # blocks that were wanting, by owner and order

    def give_block(self, pfn: int, order: int) -> None:
        """Take back 2**order frames."""
