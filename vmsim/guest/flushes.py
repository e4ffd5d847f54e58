"""What a guest's CPUs forget of an address space whose entries have changed (Linux arch/x86/mm/tlb.c).

The CPU that changed them flushes at once. Those that run the space are interrupted (`native_flush_tlb_multi`), and
flush before they make another access; those that do not are told by the space's generation (`tlb_gen`), which they
compare with what they have seen when they next load it. So does one that was interrupted and has meanwhile left.
"""

from __future__ import annotations

from functools import partial

from vmsim.contracts import Mmu, Steps, Vcpu
from vmsim.guest.mmu import NO_PCID
from vmsim.guest.process import Pcids
from vmsim.guest.spaces import Space
from vmsim.machine.formats import PAGE_SHIFT

__all__ = ["Cpus"]


class Cpus:
    """The CPUs of a guest: which address space each has loaded, and what it has seen of others.

    Parameters
    ----------
    mmu : Mmu
        How a CPU loads CR3 and invalidates.
    pcids : int
        That the kernel uses on each CPU; 0: none.
    count : int
        CPUs.

    Attributes
    ----------
    vcpus : list
        By number; None until the CPU is up, and after its last access.
    loaded : list
        The space that each has in CR3; None: none yet.
    """

    def __init__(self, mmu: Mmu, pcids: int, count: int) -> None:
        self.mmu = mmu
        self.vcpus: list[Vcpu | None] = [None] * count
        self.loaded: list[Space | None] = [None] * count
        self._pcids = [Pcids(pcids) for _ in range(count)]

    def load(self, vcpu: Vcpu, space: Space, *, first: bool = False) -> Steps[None]:
        """Load a space into CR3, and forget what this CPU has kept of it unless it has seen all changes.

        `first` says that it is the first of all: nothing is cached yet.
        """
        cpu = vcpu.number
        self.vcpus[cpu] = vcpu
        number, keep = self._pcids[cpu].take(space)
        self.loaded[cpu] = space
        space.applied = space.generation
        yield from self.mmu.load_root(vcpu, space.root, number, keep=keep or first)

    def start(self, vcpu: Vcpu, space: Space) -> Steps[None]:
        """Bring a CPU up in a space, unless it has booted in it."""
        self.vcpus[vcpu.number] = vcpu
        if self.loaded[vcpu.number] is None:
            yield from self.load(vcpu, space, first=True)

    def stop(self, cpu: int) -> None:
        """Note that a CPU makes no more accesses: nobody interrupts it."""
        self.vcpus[cpu] = None

    def running(self, space: Space) -> list[int]:
        """Return the CPUs that have a space in CR3 and may make accesses, ascending (mm_cpumask)."""
        return [cpu for cpu, each in enumerate(self.loaded) if each is space and self.vcpus[cpu] is not None]

    def invalidate(self, vcpu: Vcpu, space: Space, first: int, last: int, order: int) -> Steps[None]:
        """Make all CPUs forget the pages of [first, last] of a space, none of them smaller than 2**order pages."""
        yield from self._shoot_down(vcpu, space, (first, last, order))

    def flush(self, vcpu: Vcpu, space: Space) -> Steps[None]:
        """Make all CPUs forget a space."""
        yield from self._shoot_down(vcpu, space, None)

    def flushed(self, cpu: int, space: Space, times: int) -> None:
        """Note that compiled code has flushed so many times on the one CPU that there is."""
        space.generation += times
        space.applied = space.generation
        self._pcids[cpu].saw(space, space.generation)

    def split(self, vcpu: Vcpu, root: int, first: int, last: int, order: int) -> Steps[None]:
        """Make all CPUs forget a large page that smaller ones map now, of the space with this root."""
        yield from self.mmu.invalidate(vcpu, first, last, order=order)
        if len(self.vcpus) > 1:
            known = {each.root: each for pcids in self._pcids for each in pcids.holders()}
            known |= {each.root: each for each in self.loaded if each}
            if space := known.get(root):
                yield from self._shoot_down(vcpu, space, (first, last, order), done=True)

    def drop(self, vcpu: Vcpu, space: Space) -> list[tuple[Vcpu, int]]:
        """Take the numbers of a space that is gone; return them by CPU, that of `vcpu` first; NO_PCID: it has none."""
        own = vcpu, self._pcids[vcpu.number].drop(space)
        others = [(each, self._pcids[each.number].drop(space)) for each in self.vcpus if each and each is not vcpu]
        return [own, *(pair for pair in others if pair[1] != NO_PCID)]

    def _shoot_down(
        self, vcpu: Vcpu, space: Space, pages: tuple[int, int, int] | None, *, done: bool = False
    ) -> Steps[None]:
        """Flush on the CPU itself, unless that is done, and on all others."""
        space.generation += 1
        targets = self.running(space)
        generation = space.generation
        if vcpu.number in targets or self.loaded[vcpu.number] is space:
            yield from self._apply(vcpu, space, pages, generation, done=done)
            if self.mmu.broadcasts:
                for cpu in targets:
                    self._pcids[cpu].saw(space, generation)
                return
        others = [self.vcpus[cpu] for cpu in targets if cpu != vcpu.number]
        if others:
            work = partial(self._take_interrupt, space=space, pages=pages, generation=generation)
            count = (pages[1] - pages[0] >> PAGE_SHIFT + pages[2]) + 1 if pages else 1
            yield from vcpu.shoot_down(others[:1] if self.mmu.broadcasts else others, work, pages=count)

    def _take_interrupt(
        self, vcpu: Vcpu, space: Space, pages: tuple[int, int, int] | None, generation: int
    ) -> Steps[None]:
        """Flush, unless the CPU has loaded the space anew since, or another one (flush_tlb_func)."""
        cpu = vcpu.number
        if self.loaded[cpu] is space and self._pcids[cpu].seen(space) < generation:
            yield from self._apply(vcpu, space, pages, generation, done=False)
            if self.mmu.broadcasts:
                for each in self.running(space):
                    self._pcids[each].saw(space, generation)

    def _apply(
        self, vcpu: Vcpu, space: Space, pages: tuple[int, int, int] | None, generation: int, *, done: bool
    ) -> Steps[None]:
        missed = self._pcids[vcpu.number].seen(space) < generation - 1  # an interrupt has still to be taken
        self._pcids[vcpu.number].saw(space, generation)
        space.applied = max(space.applied, generation)
        if done and not missed:
            return
        if pages is None or missed:
            yield from self.mmu.flush(vcpu)
        else:
            first, last, order = pages
            yield from self.mmu.invalidate(vcpu, first, last, order=order)
