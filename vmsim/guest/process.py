"""Processes of a guest, and the numbers under which its processor keeps their translations apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vmsim.guest.mmu import NO_PCID
from vmsim.guest.spaces import Space

__all__ = ["LINUX_PCIDS", "Pcids", "Process"]

LINUX_PCIDS = 6  # address spaces that Linux keeps a PCID for on each processor (TLB_NR_DYN_ASIDS)


@dataclass(eq=False, slots=True)
class Process:
    """A process: its number, who forked it (0: nobody), and its address space."""

    pid: int
    parent: int
    space: Space


class Pcids:
    """PCIDs handed out in turn, as Linux does (arch/x86/mm/tlb.c, choose_new_asid).

    Parameters
    ----------
    count : int
        How many there are; 0 if the kernel does not use them: then every space has number 0, and nothing is kept.
    """

    def __init__(self, count: int) -> None:
        self._holders: list[Space | None] = [None] * count
        self._next = 0
        self._seen: dict[Space, int] = {}  # the generation up to which its CPU has flushed a space (tlb_gen)

    def take(self, space: Space) -> tuple[int, bool]:
        """Return the number of a space that is about to be loaded, and whether what is cached under it holds."""
        if not self._holders:
            self._seen = {space: space.generation}
            return 0, False
        if space in self._holders:
            keep = self._seen[space] == space.generation
            self._seen[space] = space.generation
            return self._holders.index(space), keep
        number, self._next = self._next, (self._next + 1) % len(self._holders)
        self._seen.pop(self._holders[number], None)  # type: ignore[arg-type]  # nobody has seen nobody
        self._holders[number] = space
        self._seen[space] = space.generation
        return number, False

    def holders(self) -> Iterator[Space]:
        """Yield the spaces that have numbers."""
        return (space for space in self._holders if space)

    def seen(self, space: Space) -> int:
        """Return the generation up to which the CPU has flushed a space that it has loaded."""
        return self._seen.get(space, 0)

    def saw(self, space: Space, generation: int) -> None:
        """Note that the CPU has flushed a space up to a generation; of one that it does not know it keeps nothing."""
        if space in self._seen:
            self._seen[space] = max(self._seen[space], generation)

    def drop(self, space: Space) -> int:
        """Take the number from a space that is gone; return it, or NO_PCID."""
        self._seen.pop(space, None)
        if space not in self._holders:
            return NO_PCID
        number = self._holders.index(space)
        self._holders[number] = None
        return number
