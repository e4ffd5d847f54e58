"""How a guest's kernel reaches its page tables and its processor's MMU.

Every load and store of an entry, every MOV to CR3 and every INVLPG goes through an `Mmu`: on hardware that walks the
guest's own tables (bare, EPT, NPT) they are plain instructions, under a shadow monitor some of them trap. The kernel's
own translations (of its map of all memory) are simulated where its Mmu is a `DirectMap`.
"""

from __future__ import annotations

import numpy as np

from vmsim.contracts import Backer, Steps, Stop, Vcpu, VmStopped, Words, ensure
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.machine.memory import clear_frame
from vmsim.tables.backing import IDENTITY, UNBACKED, host_address
from vmsim.tables.edit import load_entries, store_entries

__all__ = ["NO_PCID", "HardwareMmu"]


NO_PCID = -1


class HardwareMmu:
    """The processor's own MMU, which walks the guest's tables: bare, under EPT and under NPT.

    Nothing here waits and nothing costs: the instructions are in the kernel's own figures (the CPU's [cost]).

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    width : int
        Bits of an address that each of the guest's tables translates, 9 or 10.
    host : Backer, optional
        The monitor, where guest memory is not the host's own.
    """

    traps = False
    loads_trap = False
    unseen = True
    known = True
    broadcasts = False

    def __init__(self, memory: Words, width: int = 9, host: Backer | None = None) -> None:
        self.memory = memory
        self.backing = host.backing if host else IDENTITY
        self.host = host
        self._width = width

    def read(self, vcpu: Vcpu, places: Words) -> Steps[Words]:
        """Load entries."""
        values = np.empty(len(places), np.int64)
        while not load_entries(self.memory, self.backing, places, values, self._width):
            yield from self._bring(vcpu, places)
        return values

    def write(self, vcpu: Vcpu, places: Words, values: Words) -> Steps[None]:
        """Store entries."""
        while not store_entries(self.memory, self.backing, places, values, self._width):
            yield from self._bring(vcpu, places)

    def took(self) -> None:
        """Do nothing: the kernel says itself what the processor is to forget."""

    def clear(self, vcpu: Vcpu, gpa: int, order: int, *, table: bool) -> Steps[None]:
        """Zero a frame that becomes a table."""
        if table:
            while (hpa := host_address(self.backing, gpa)) == UNBACKED:
                yield from self._bring(vcpu, np.array([gpa]))
            clear_frame(self.memory, hpa)

    def _bring(self, vcpu: Vcpu, gpas: Words) -> Steps[None]:
        """Have the monitor back what the host has taken meanwhile: the kernel's own accesses violate.

        Raises
        ------
        VmStopped
            Some of it is beyond the guest's memory.
        """
        if not self.host or not (yield from ensure(vcpu, self.host, gpas >> PAGE_SHIFT)):
            raise VmStopped(Stop.BEYOND_MEMORY, address=int(gpas.max()))

    def load_root(self, vcpu: Vcpu, root: int, space: int, *, keep: bool) -> Steps[None]:
        """Point CR3 to `root`; where PDPTEs of PAE are kept in registers, that loads them."""
        vcpu.registers["cr3"] = root
        if vcpu.registers["levels"][0] == 2 and self._width == 9:  # PAE, not 32-bit paging
            vcpu.registers["pdpte"] = yield from self.read(vcpu, root + 8 * np.arange(4))
        vcpu.spaces.load(space, keep=keep)
        return
        yield

    def invalidate(self, vcpu: Vcpu, first: int, last: int, *, order: int = 0) -> Steps[None]:
        """Forget the pages of a range."""
        vcpu.spaces.invalidate(first, last)
        return
        yield

    def flush(self, vcpu: Vcpu) -> Steps[None]:
        """Forget the current space."""
        vcpu.spaces.flush()
        return
        yield

    def release(self, vcpu: Vcpu, root: int, space: int) -> Steps[None]:
        """Keep nothing under the number."""
        if space != NO_PCID:
            vcpu.spaces.release(space)
        return
        yield
