"""How a guest's kernel reaches its page tables and its processor's MMU.

Every load and store of an entry, every MOV to CR3 and every INVLPG goes through an `Mmu`: on hardware that walks the
guest's own tables (bare, EPT, NPT) they are plain instructions, under a shadow monitor some of them trap. The kernel's
own translations (its direct map of memory) are not simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.guest.frames import Vcpu
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.machine.layout import guest_width
from vmsim.machine.memory import clear_frame
from vmsim.tables.edit import host_address, load_entries, store_entries

__all__ = ["NO_PCID", "HardwareMmu", "LoggedMmu", "Mmu", "Spaces"]

Process: TypeAlias = Generator[simpy.Event, Any, None]
Words: TypeAlias = NDArray[np.int64]

NO_PCID = -1


class Spaces(Protocol):
    """The address spaces of a VM as its processor's TLBs tell them apart."""

    def load(self, space: int, *, keep: bool = False) -> None:
        """Load CR3 with another space; forget what is cached of it, unless it is to be kept and can be told apart."""

    def invalidate(self, first: int, last: int) -> None:
        """Forget the pages that touch [first, last] of the current space."""

    def flush(self) -> None:
        """Forget the current space."""

    def release(self, space: int) -> None:
        """Forget a space that is gone."""


class Mmu(Protocol):
    """What a guest's kernel does to page tables and to the processor's MMU.

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
    def memory_root(self) -> tuple[int, int]:
        """Root (hpa) and levels of the tables that say where guest memory lies; (0, 0) if gpas are hpas."""
        ...

    def read(self, vcpu: Vcpu, places: Words) -> Generator[simpy.Event, Any, Words]:
        """Load the entries at `places` (int64[n], gpas, in the order of the loads); return their values, int64[n].

        Accessed and dirty flags are in them as bare hardware would have set them by now.
        """
        ...

    def write(self, vcpu: Vcpu, places: Words, values: Words) -> Process:
        """Store `values` (int64[n]) at `places` (int64[n], gpas), one entry after the other."""
        ...

    def clear(self, vcpu: Vcpu, gpa: int, order: int, *, table: bool) -> Process:
        """Write over 2**order frames from `gpa`, which the kernel has just allocated: it zeroes or copies to them.

        A frame for a table is zero afterwards. Contents of other frames are not simulated, but where one was a table
        that a monitor still guards, these are stores to it.
        """
        ...

    def load_root(self, vcpu: Vcpu, root: int, space: int, *, keep: bool) -> Process:
        """MOV to CR3: `root` is the gpa of a root table, `space` its PCID, from 0; always 0 without PCIDs.

        `keep` leaves what the processor has cached of the space (bit 63 of the operand); without it the space is
        forgotten. The first load of all keeps: there is nothing yet.
        """
        ...

    def invalidate(self, vcpu: Vcpu, first: int, last: int, *, order: int = 0) -> Process:
        """INVLPG for each 2**order pages of [first, last] (gvas) of the current space, where no page is smaller."""
        ...

    def flush(self, vcpu: Vcpu) -> Process:
        """Forget the current space: CR3 loaded with what it holds."""
        ...

    def release(self, vcpu: Vcpu, root: int, space: int) -> Process:
        """Note that the kernel frees the root of a space that is loaded nowhere; `space` is its PCID or NO_PCID.

        No instruction tells hardware. The tables below the root have been cleared and freed already.
        """
        ...


class HardwareMmu:
    """The processor's own MMU, which walks the guest's tables: bare, under EPT and under NPT.

    Nothing here waits and nothing costs: the instructions are in the kernel's own figures (the CPU's [cost]).

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    spaces : Spaces
        What the TLBs keep of the VM.
    registers : record[1]
        The VM's register file: cr3 is set; nested_root and nested_levels say where guest memory lies.
    """

    traps = False
    loads_trap = False
    known = True

    def __init__(self, memory: Words, spaces: Spaces, registers: NDArray[Any]) -> None:
        self.memory = memory
        self.spaces = spaces
        self.registers = registers
        self._width = guest_width(registers)

    @cached_property
    def memory_root(self) -> tuple[int, int]:
        """EPTP or nCR3, which stay what they are when the guest boots."""
        registers = self.registers[0]
        return int(registers["nested_root"]), int(registers["nested_levels"])

    def read(self, vcpu: Vcpu, places: Words) -> Generator[simpy.Event, Any, Words]:
        """Load entries."""
        values = np.empty(len(places), np.int64)
        load_entries(self.memory, *self.memory_root, places, values, self._width)
        return values
        yield

    def write(self, vcpu: Vcpu, places: Words, values: Words) -> Process:
        """Store entries."""
        store_entries(self.memory, *self.memory_root, places, values, self._width)
        return
        yield

    def clear(self, vcpu: Vcpu, gpa: int, order: int, *, table: bool) -> Process:
        """Zero a frame that becomes a table."""
        if table:
            clear_frame(self.memory, host_address(self.memory, *self.memory_root, gpa))
        return
        yield

    def load_root(self, vcpu: Vcpu, root: int, space: int, *, keep: bool) -> Process:
        """Point CR3 to `root`; where PDPTEs of PAE are kept in registers, that loads them."""
        self.registers["cr3"] = root
        if self.registers["levels"] == 2 and self._width == 9:  # PAE, not 32-bit paging
            self.registers["pdpte"] = yield from self.read(vcpu, root + 8 * np.arange(4))
        self.spaces.load(space, keep=keep)
        return
        yield

    def invalidate(self, vcpu: Vcpu, first: int, last: int, *, order: int = 0) -> Process:
        """Forget the pages of a range."""
        self.spaces.invalidate(first, last)
        return
        yield

    def flush(self, vcpu: Vcpu) -> Process:
        """Forget the current space."""
        self.spaces.flush()
        return
        yield

    def release(self, vcpu: Vcpu, root: int, space: int) -> Process:
        """Keep nothing under the number."""
        if space != NO_PCID:
            self.spaces.release(space)
        return
        yield


class LoggedMmu(HardwareMmu):
    """The processor's own MMU where a monitor logs writes: a store may find its frame protected, and exit.

    Parameters are as of `HardwareMmu`, with whom to tell of the gfns that the kernel stores to, before it does.
    """

    traps = True
    known = False

    def __init__(
        self,
        memory: Words,
        spaces: Spaces,
        registers: NDArray[Any],
        *,
        wrote: Callable[[Vcpu, Words], Process],
    ) -> None:
        super().__init__(memory, spaces, registers)
        self.wrote = wrote

    def write(self, vcpu: Vcpu, places: Words, values: Words) -> Process:
        """Store entries."""
        yield from self.wrote(vcpu, places >> PAGE_SHIFT)
        yield from super().write(vcpu, places, values)

    def clear(self, vcpu: Vcpu, gpa: int, order: int, *, table: bool) -> Process:
        """Write over frames."""
        yield from self.wrote(vcpu, (gpa >> PAGE_SHIFT) + np.arange(1 << order))
        yield from super().clear(vcpu, gpa, order, table=table)
