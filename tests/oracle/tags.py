"""The twin of tags: what each core keeps, as a plain list, and what each event takes out of it, as the manuals say.

Intel SDM vol. 3A §5.10.4.1 (MOV to CR3, INVLPG, INVPCID), vol. 3C §30.4.3 (VM entries and exits, INVVPID, INVEPT);
AMD APM vol. 2 §15.16 (ASIDs, TLB_CONTROL).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

PAGE, TABLE, NESTED = "page", "table", "nested"  # by gva: a translation, a walk cache's prefix; by gpa: anything


class Entry(NamedTuple):
    """What a core keeps; `space` is 0 of what is kept by gpa."""

    core: int
    vm: int
    space: int
    kind: str
    address: int


class Vm(NamedTuple):
    """How a VM's entries are told from others' (None: a bare program), and those of its spaces from each other."""

    tags: str | None
    apart: str | None


class Twin:
    def __init__(self, vms: list[Vm], *, limit: int, amd: bool) -> None:
        self.vms = vms
        self.limit = limit
        self.amd = amd
        self.kept: set[Entry] = set()
        self.where: dict[int, int] = {}  # the core that a VM is on
        self.space = dict.fromkeys(range(len(vms)), 0)
        self.last: dict[int, int] = {}  # the VM that a core ran last
        self.holders: dict[int, list[object]] = {}  # of a core's VPIDs or ASIDs
        self.behind: set[tuple[int, int, int]] = set()  # core, vm, space: changed while it was on another core

    def _remove(self, condition: Callable[[Entry], bool]) -> None:
        self.kept = {entry for entry in self.kept if not condition(entry)}

    def visible(self, vm: int) -> set[tuple[str, int]]:
        """Return what an access of the VM could hit where it is."""
        core = self.where[vm]
        spaces = {PAGE: self.space[vm], TABLE: self.space[vm], NESTED: 0}
        return {(e.kind, e.address) for e in self.kept if (e.core, e.vm, e.space) == (core, vm, spaces[e.kind])}

    def keep(self, vm: int, kind: str, address: int) -> None:
        self.kept.add(Entry(self.where[vm], vm, 0 if kind == NESTED else self.space[vm], kind, address))

    def enter(self, vm: int, core: int) -> None:
        self.where[vm] = core
        tags, apart = self.vms[vm]
        if tags == "none":
            self._untagged(core)
        if tags is None and apart is None and self.last.get(core, vm) != vm:  # another CR3 was loaded meanwhile
            self._remove(
                lambda e: e.core == core and e.kind != NESTED and self._vpid0(e.vm) and not self.vms[e.vm].apart
            )
        self.last[core] = vm
        self._arrive(vm)

    def leave(self, vm: int) -> None:
        if self.vms[vm].tags == "none" and not self.amd:  # AMD: the flush is VMRUN's
            self._untagged(self.where[vm])
        del self.where[vm]

    def exited(self, vm: int) -> None:
        if self.vms[vm].tags == "none":
            self._untagged(self.where[vm])

    def load(self, vm: int, space: int, keep: bool) -> None:
        apart = self.vms[vm].apart
        self.space[vm] = space if apart else 0
        if vm in self.where:
            self._arrive(vm)
        if not keep or not apart:
            self.flush(vm, self.space[vm])

    def flush(self, vm: int, space: int) -> None:
        self._change(vm, space, lambda e: True)

    def flush_all(self, vm: int) -> None:
        for space in range(10):
            self.flush(vm, space)

    def invalidate(self, vm: int, space: int, first: int, last: int) -> None:
        self._change(vm, space, lambda e: e.kind == TABLE or first - 4095 <= e.address <= last)

    def flush_nested(self, vm: int) -> None:
        self._remove(lambda e: e.vm == vm)

    def release(self, vm: int, space: int) -> None:
        if space == self.space[vm]:
            self.flush(vm, space)
        else:
            self._remove(lambda e: e.vm == vm and e.space == space and e.kind != NESTED)

    def _change(self, vm: int, space: int, condition: Callable[[Entry], bool]) -> None:
        """Remove entries of a space from the VM's own core; the other cores will hear of it."""
        here = self.where.get(vm)
        of_space = (vm, space)
        self._remove(lambda e: e.core == here and (e.vm, e.space) == of_space and e.kind != NESTED and condition(e))
        self.behind |= {(core, *of_space) for core in range(4) if core != here}

    def _vpid0(self, vm: int) -> bool:
        return self.vms[vm].tags in (None, "none")

    def _untagged(self, core: int) -> None:
        """Intel: VPID 0 forgets its gvas, of all PCIDs. AMD: a monitor without ASIDs to spare flushes all."""
        self._remove(lambda e: e.core == core and (self.amd or (self._vpid0(e.vm) and e.kind != NESTED)))

    def _arrive(self, vm: int) -> None:
        """Run the current space where the VM is: it needs a tag there, and no entries that are out of date."""
        core, space = self.where[vm], self.space[vm]
        if not self._vpid0(vm):
            holder = (vm, space) if self.vms[vm].apart == "tag" else vm
            holders = self.holders.setdefault(core, [])
            if holder not in holders:
                if len(holders) == self.limit:
                    holders.clear()
                    self._remove(
                        lambda e: e.core == core and (self.amd or (not self._vpid0(e.vm) and e.kind != NESTED))
                    )
                holders.append(holder)
        if (core, vm, space) in self.behind:
            self.behind.discard((core, vm, space))
            self._remove(lambda e: (e.core, e.vm, e.space) == (core, vm, space) and e.kind != NESTED)


def repeated_misses(pages: Sequence[int], tags: str, *, amd: bool) -> int:
    """Return how often a guest whose pages are new to it and its host misses on a page that it had touched before.

    Each first touch makes a VM exit before the next access (an EPT violation, SDM vol. 3C §30.3.3; APM vol. 2 §15.25),
    whatever software makes it: the processor's walk or the guest kernel's store.
    """
    twin = Twin([Vm(tags, None)], limit=100, amd=amd)
    twin.enter(0, 0)
    touched, misses = set[int](), 0
    for page in pages:
        if page not in touched:
            twin.exited(0)
        elif (PAGE, page) not in twin.visible(0):
            misses += 1
        touched.add(page)
        twin.keep(0, PAGE, page)
    return misses
