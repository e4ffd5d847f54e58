"""One page walk, reference by reference: the real walker on real tables, cold and then warm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from vmsim.base.errors import InputError
from vmsim.base.units import PAGE, PAGE_ORDER, PageSize
from vmsim.engine.hardware import Hardware
from vmsim.machine.caches import Served
from vmsim.machine.formats import (
    ACCESSED,
    DIRTY,
    EPT,
    FRAME,
    NPT,
    PRESENT,
    SWITCH,
    TWO_LEVEL,
    USER,
    WRITE,
    NestedFormat,
    reach,
)
from vmsim.machine.layout import Count, make_vm
from vmsim.machine.sets import EMPTY
from vmsim.machine.tlb import ASID_SHIFT
from vmsim.machine.vcpu import Reason, run
from vmsim.observe.mapping import large_bit, map_leaf
from vmsim.scenario import Cpu
from vmsim.scenario.levels import level_problems
from vmsim.scenario.modes import mode_named

__all__ = ["Extra", "Reference", "Walk", "WalkMode", "explain", "references_of"]

WalkMode = Literal["native", "ept", "npt", "agile"]

_GVA: Final = 0x0055_2A6D_89AB_7000  # a user's address under 4 and 5 levels; each level's index differs
_NAMES: Final = {1: "PTE", 2: "PDE", 3: "PDPTE", 4: "PML4E", 5: "PML5E"}
_SPREAD: Final = 73 << 30 | 146 << 21 | 219 << 12  # times a number: indices that differ from level to level
_FRAMES: Final = 1 << 23  # 32 GiB of addresses; only the few tables in it take memory
_FOREVER: Final = 1 << 60
_RIGHTS: Final = PRESENT | WRITE | USER | ACCESSED
_TLBS: Final = tuple(f"{level}_tlb{number}" for level in ("l1", "l2") for number in range(3))


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference of a walk.

    Attributes
    ----------
    position : int
        From 1, in the order that the walker makes them.
    guest_level, nested_level : int
        Where in the walk: (4, 0) is the entry of the guest's root table, (4, 3) the nested level-3 entry read to find
        that table, (0, 3) the one read to find the data page. Native tables count as the guest's.
    hpa : int
        Host-physical address of the entry.
    served : str
        L1, L2, LLC, DRAM; or PWC: a page walk cache held the entry, and memory was not asked.
    cycles : int
        What it took.
    shadow : bool
        The entry is in a shadow table, which stands for the guest's of its level.
    """

    position: int
    guest_level: int
    nested_level: int
    hpa: int
    served: str
    cycles: int
    shadow: bool = False

    def reads(self, *, nested: bool) -> str:
        """Say what is read; `nested` tells a guest's entry from a native one."""
        name = _NAMES[self.nested_level or self.guest_level]
        if not self.nested_level:
            return f"{'s' if self.shadow else 'g' if nested else ''}L{self.guest_level} entry ({name})"
        target = f"gL{self.guest_level} table" if self.guest_level else "data page"
        return f"nL{self.nested_level} entry for the {target}"


@dataclass(frozen=True, slots=True)
class Extra:
    """What a walk's time goes to besides its references.

    Attributes
    ----------
    what : str
        `walk start` (what each walk takes), `nested TLB look-up`, `A/D flag` (set).
    count, cycles : int
        How often, and what that took in all.
    """

    what: str
    count: int
    cycles: int


@dataclass(frozen=True, slots=True)
class Walk:
    """One walk.

    Attributes
    ----------
    references : tuple of Reference
        In order, look-ups that a page walk cache served included.
    extras : tuple of Extra
        What else took cycles.
    cycles : int
        Of the walk in all: the sum over references and extras.
    pwc_hits, ntlb_hits : int
        Look-ups that the page walk caches and the nested TLB served.
    """

    references: tuple[Reference, ...]
    extras: tuple[Extra, ...]
    cycles: int
    pwc_hits: int
    ntlb_hits: int

    @property
    def count(self) -> int:
        """References to memory."""
        return sum(reference.served != Served.PWC.name for reference in self.references)


def explain(
    cpu: Cpu,
    mode: WalkMode,
    *,
    guest_levels: int = 4,
    host_levels: int = 4,
    guest_page: PageSize = "4K",
    host_page: PageSize = "4K",
    switch: int = 1,
) -> tuple[Walk, Walk]:
    """Walk for one address twice, and say what was read.

    The cold walk finds empty TLBs, page walk caches and caches. For the warm one only the address's own TLB entry is
    gone. The guest's tables lie in distant parts of guest-physical memory, so that nothing the cold walk learns on
    the way serves it again: it makes (g + 1)(h + 1) - 1 references, less those that large pages save. Only a guest of
    two levels has no parts so distant: its 4 GiB share the upper nested tables, whose entries the walk caches hold
    from the first nested walk on. `references_of` gives the number without walk caches.

    Parameters
    ----------
    cpu : Cpu
        Whose TLBs, page walk caches and caches. It need not have the mode or the levels.
    mode : {"native", "ept", "npt", "agile"}
        In native mode, `host_levels` and `host_page` mean nothing.
    guest_levels, host_levels : int, optional
        2 (32-bit paging), 3 (PAE), 4 or 5. A PAE guest's first level is in registers, but for npt, where walks read
        it; nested tables of 2 and 3 levels are npt's alone.
    guest_page, host_page : {"4K", "2M", "4M", "1G"}, optional
        Size of the page that maps the address, in the guest's tables and in the nested ones.
    switch : int, optional
        In agile mode, how many of the guest's levels are walked nested, the levels above being the shadow's: 0 (all
        is shadow) to `guest_levels`, or one more, which is nested paging proper: the root's own gpa is walked for too.
        A PAE guest has two levels then, for its third is in registers.

    Returns
    -------
    cold, warm : Walk

    Raises
    ------
    InputError
        There is no level to switch to, or tables of so many levels cannot do this.
    """
    bare = mode == "native"
    for problem in level_problems(mode_named(mode), guest_levels, host_levels, guest_page, host_page, bare=bare):
        raise InputError(f"{' '.join(map(str, problem.path)).replace('_', ' ')}: {problem.text}.")
    walked = _walked(mode, guest_levels)
    if mode == "agile" and not (switch == 0 or PAGE_ORDER[guest_page] // 9 < switch <= walked + 1):
        lowest = PAGE_ORDER[guest_page] // 9 + 1
        raise InputError(
            f"switch: found {switch}; the guest's tables for a page of {guest_page} have levels {lowest} to "
            f"{walked}. Expected one of them, 0 for none, or {walked + 1} to walk for the root as well."
        )
    machine = _Machine(cpu, guest_levels)
    memory: _Memory = _Memory(machine)
    if mode != "native":
        form = NPT if mode == "npt" or (mode == "agile" and cpu.vendor == "amd") else EPT(ad_bits=cpu.ept_ad)
        memory = _NestedMemory(machine, form, host_levels, host_page, narrow=guest_levels == TWO_LEVEL)
    order = PAGE_ORDER[guest_page]
    gva = _GVA & (reach(guest_levels) - 1)
    root, page = memory.new_page(0), memory.new_page(order, gva)
    machine.vm["levels"], machine.vm["cr3"] = guest_levels, root
    leaf = page | _RIGHTS | DIRTY | large_bit(order)
    map_leaf(machine.memory, (root, guest_levels, order // 9 + 1), gva, leaf, _RIGHTS, memory.new_page, memory.hpa)
    lowest, top = guest_levels + 1, memory.hpa(root)
    if mode == "agile" and switch <= walked:
        lowest = switch + 1
        machine.vm["switch"] = SWITCH
        data = memory.hpa(page | gva & ((PAGE << order) - 1))
        top = _shadow(machine, memory, gva, data, min(order, PAGE_ORDER[host_page]), switch)
        machine.vm["cr3"] = top
    if guest_levels == 3 and mode != "npt":
        machine.vm["levels"] = 2
        machine.vm["pdpte"] = [machine.memory[top // 8 + number] for number in range(4)]
    cold = machine.walk(gva, lowest)
    machine.empty_tlbs()
    return cold, machine.walk(gva, lowest)


def references_of(
    mode: WalkMode, guest_levels: int, host_levels: int, guest_page: PageSize, host_page: PageSize, switch: int = 1
) -> int:
    """Return how many references a walk makes where no cache helps it; arguments are as of `explain`.

    (g + 1)(h + 1) - 1 for g entries of the guest's and h nested ones on the way to each (Bhargava et al., ASPLOS
    2008); under agile paging h for each of those past the switch (Gandhi et al., ISCA 2016, table 2).
    """
    guest = guest_levels - PAGE_ORDER[guest_page] // (10 if guest_levels == TWO_LEVEL else 9)
    if mode == "native":
        return guest - (guest_levels == 3)
    nested = host_levels - PAGE_ORDER[host_page] // (10 if host_levels == TWO_LEVEL else 9)
    guest -= guest_levels == 3 and mode != "npt"  # PDPTEs in registers
    walked = _walked(mode, guest_levels)
    if mode == "agile" and switch == 0:
        return walked - min(PAGE_ORDER[guest_page], PAGE_ORDER[host_page]) // 9
    if mode == "agile" and switch <= walked:
        return guest + (guest - walked + switch) * nested
    return (guest + 1) * (nested + 1) - 1


def _walked(mode: WalkMode, guest_levels: int) -> int:
    """Return how many levels an agile walk can switch at: all but the third of a PAE guest, which is in registers."""
    return guest_levels - (mode == "agile" and guest_levels == 3)


class _Machine:
    """One core, memory, and one VM that keeps a log of its walks."""

    def __init__(self, cpu: Cpu, guest_levels: int) -> None:
        self._hardware = Hardware.of(cpu, cores=1, frames=_FRAMES)
        self.memory = self._hardware.memory
        self.vm = make_vm(guest_levels)
        self.vm["asid"], self.vm["logging"] = 1 << ASID_SHIFT, 1
        core = self._hardware.cores[0]
        self._cycles = (*core["latency"].tolist(), int(core["pwc_cycles"]))
        self._walk_start, self._ntlb_cycles, self._ad_cycles = (
            int(core[name]) for name in ("walk_start", "ntlb_cycles", "ad_cycles")
        )
        self._next = PAGE

    def take(self, order: int = 0) -> int:
        """Return the hpa of 2**order free frames."""
        size = PAGE << order
        hpa = (self._next + size - 1) & ~(size - 1)
        self._next = hpa + size
        return hpa

    def walk(self, gva: int, shadow: int) -> Walk:
        """Access `gva` once and return the walk that this takes; guest levels from `shadow` on are shadow tables."""
        vm = self.vm[0]
        vm["logged"] = 0
        before = self._counts()
        address, count, kind = np.array([gva]), np.ones(1, np.int32), np.zeros(1, np.uint8)
        hardware = self._hardware
        reason = run(hardware.cores, 0, hardware.llc, self.vm, self.memory, address, count, kind, 0, 1, _FOREVER)[0]
        if reason != Reason.DONE:
            raise AssertionError(f"the walk for {gva:#x} ended with {Reason(reason).name}")
        references = tuple(
            Reference(
                number, where >> 8, where & 255, hpa, Served(served).name, self._cycles[served], where >> 8 >= shadow
            )
            for number, (hpa, where, served) in enumerate(vm["log"][: vm["logged"]].tolist(), start=1)
        )
        cycles, pwc, hits, misses, walks, flags = (now - then for now, then in zip(self._counts(), before, strict=True))
        each = (
            ("walk start", walks, self._walk_start),
            ("nested TLB look-up", hits + misses, self._ntlb_cycles),
            ("A/D flag", flags, self._ad_cycles),
        )
        extras = tuple(Extra(what, count, count * price) for what, count, price in each if count * price)
        return Walk(references, extras, cycles, pwc, hits)

    def empty_tlbs(self) -> None:
        """Drop the TLBs' only translation, and nothing else."""
        for name in _TLBS:
            self._hardware.cores[name]["tag"] = EMPTY

    def _counts(self) -> tuple[int, ...]:
        """Return the cycles of walks, hits of walk caches, hits and misses of the nested TLB, walks, flags set."""
        vm = self.vm[0]
        counted = (Count.NTLB_HITS, Count.NTLB_MISSES, Count.WALKS, Count.AD_UPDATES)
        counters = (int(vm["counters"][count]) for count in counted)
        return int(vm["walk_cycles"]), int(vm["pwc"][:, :, 1].sum()), *counters


class _Memory:
    """Where the guest's tables and its page lie: here in host memory itself."""

    def __init__(self, machine: _Machine) -> None:
        self.machine = machine

    def new_page(self, order: int = 0, offset: int = 0) -> int:
        """Return the address of a page of 2**order frames whose frame at `offset` will be used."""
        return self.machine.take(order)

    def hpa(self, address: int) -> int:
        """Return where `address` is in host memory."""
        return address


class _NestedMemory(_Memory):
    """Guest-physical memory, mapped by nested tables as it is used; `narrow`: no more than 4 GiB of it."""

    def __init__(
        self, machine: _Machine, form: NestedFormat, levels: int, page: PageSize, *, narrow: bool = False
    ) -> None:
        super().__init__(machine)
        self._narrow = narrow
        self._form, self._levels, self._order = form, levels, PAGE_ORDER[page]
        self._root = machine.take()
        self._backed: dict[int, int] = {}
        vm = machine.vm
        vm["nested_root"], vm["nested_levels"] = self._root, levels
        vm["nested_present"], vm["nested_needed"] = form.present, form.needed
        vm["nested_accessed"], vm["nested_dirty"] = form.accessed, form.dirty
        vm["table_writes"] = form.dirty != 0

    def new_page(self, order: int = 0, offset: int = 0) -> int:
        # A root entry for each page, in a cache line of its own as far as the 52 bits of a gpa allow that.
        number = len(self._backed) + 1
        shift = 30 if self._narrow else {3: 30, 4: 42, 5: 48}[self._levels]
        size = PAGE << order
        gpa = (number << shift | number * _SPREAD & ((1 << min(shift, 39)) - 1)) & ~(size - 1)
        gpa %= reach(self._levels)  # PAE: a PAE guest has four pages to walk for, and that has four root entries
        used = (gpa | offset & (size - 1)) & ~(PAGE - 1)
        host_size = PAGE << self._order
        hpa = self.machine.take(self._order)
        self._backed[used] = hpa | used & (host_size - 1)
        map_leaf(
            self.machine.memory,
            (self._root, self._levels, self._order // 9 + 1),
            used,
            hpa | self._form.page | large_bit(self._order),
            self._form.table,
            self.machine.take,
            super().hpa,
        )
        return gpa

    def hpa(self, address: int) -> int:
        return self._backed[address & ~(PAGE - 1)] | address & (PAGE - 1)


def _shadow(machine: _Machine, memory: _Memory, gva: int, data: int, order: int, switch: int) -> int:
    """Make shadow tables down to the guest's table of level `switch`, or to `data`; return what CR3 is to hold."""
    levels, table = int(machine.vm["levels"][0]), int(machine.vm["cr3"][0])
    root = machine.take()
    if switch == 0:
        page = data & -(PAGE << order) | _RIGHTS | DIRTY | large_bit(order)
        map_leaf(machine.memory, (root, levels, order // 9 + 1), gva, page, _RIGHTS, machine.take, int)
        return root
    for level in range(levels, switch, -1):
        place = memory.hpa(table + (gva >> (3 + 9 * level) & 511) * 8)
        table = int(machine.memory[place >> 3]) & FRAME
    below = memory.hpa(table) | SWITCH
    if switch == levels:
        return below
    rights = PRESENT if switch + 1 == levels == 3 else _RIGHTS  # a PDPTE has none
    map_leaf(machine.memory, (root, levels, switch + 1), gva, below | rights, _RIGHTS, machine.take, int)
    return root
