"""A vCPU and its MMU, as software that runs on them knows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import simpy
from numpy.typing import NDArray

from vmsim.base.clock import Clock
from vmsim.contracts.steps import Steps, Words

__all__ = ["Mmu", "Spaces", "Vcpu"]


class Vcpu(Protocol):
    """What software that runs on behalf of a vCPU needs of it.

    Attributes
    ----------
    number : int
        In its VM, from 0: the guest's CPU.
    registers : record[1]
        Its register file (`vmsim.machine.layout.make_vm`).
    spaces : Spaces
        What processors cache of it.
    """

    env: Clock
    number: int
    registers: NDArray[Any]
    first_touch: Counter[str]  # cycles by cause, of those used so far
    kind: int  # of the fault that it takes, so far (`FaultKind`)
    owed: int  # cycles used and not yet paid in simulated time

    @property
    def spaces(self) -> Any:
        """What processors cache of it: `Spaces`."""
        ...

    @property
    def now(self) -> int:
        """The cycle the vCPU has reached, what it owes included."""
        ...

    def interrupt(self, work: Callable[[Any], Steps[None]]) -> None:
        """Have it do work of its kernel's before it makes another access: what an IPI asks for."""

    def shoot_down(self, others: Sequence[Any], work: Callable[[Any], Steps[None]], *, pages: int) -> Steps[None]:
        """Have other vCPUs of the VM do work before they make another access, and wait until they have.

        Each forgets so many pages in it; 1 for a whole address space.
        """
        ...

    def kick_cycles(self) -> int:
        """Return what `kick_others` would cost now."""
        ...

    def kick_others(self) -> int:
        """Have the VM's other vCPUs leave the guest, for their processors to forget; return the cycles it takes."""
        ...

    def kick(self, vcpus: Sequence[Any], paid: Callable[[Any, int], None]) -> int:
        """Have those vCPUs of the VM that run leave the guest, for the host; return the cycles it takes.

        `paid` is told of each and what its exit took.
        """
        ...

    def owe(self, cause: str, cycles: int) -> None:
        """Use cycles, to be paid in simulated time before anything shared is touched."""

    def first(self) -> AbstractContextManager[None]:
        """Count the cycles of what is done inside as those of a first touch."""
        ...

    @property
    def running(self) -> bool:
        """Whether it has a core: what is to be made to leave the guest at once."""
        ...

    def impose(self, cycles: int) -> None:
        """Have it use cycles for an exit that another makes it take, whatever it is about."""

    def settle(self) -> simpy.Event:
        """Return an event that pays what is owed."""
        ...

    @property
    def left(self) -> int:
        """Cycles that it may still use ahead of simulated time; at 0 or less it is to settle (`host.horizon`)."""
        ...

    def wait(self, event: simpy.Event, cause: str) -> Steps[Any]:
        """Give up the core until `event`; return its value."""
        ...


class Spaces(Protocol):
    """The address spaces of a vCPU as TLBs tell them apart."""

    space: int

    @property
    def apart(self) -> str | None:
        """How its own spaces are told apart; None: not at all."""
        ...

    def exited(self) -> None:
        """A VM exit, and the entry after it."""

    def load(self, space: int, *, keep: bool = False) -> None:
        """Load CR3 with another space; forget what is cached of it, unless it is to be kept and can be told apart."""

    def invalidate(self, first: int, last: int) -> None:
        """Forget the pages that touch [first, last] of the current space."""

    def flush(self) -> None:
        """Forget the current space."""

    def forgot(self) -> None:
        """Have forgotten the current space by compiled code, on the core that it runs on."""

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
    unseen : bool
        Whether loads and stores of tables that no processor has walked yet are plain instructions, where others trap.
    known : bool
        Whether compiled code knows what a store of an entry costs and brings about (engine/serve.py).
    broadcasts : bool
        Whether `invalidate` and `flush` of one CPU act on all that have the same space loaded.
    """

    traps: bool
    loads_trap: bool
    unseen: bool
    known: bool
    broadcasts: bool

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

    def took(self) -> None:
        """Learn that compiled code has taken pages or rights out of tables in place of `write`."""

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
