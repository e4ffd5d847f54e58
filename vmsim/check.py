"""The invariants that hold at every boundary, checked on the whole host.

Conservation, isolation, coherence and composition, each by a way that does not go through the code it checks: tables
are enumerated entry by entry, what the hardware caches is compared with what two plain look-ups give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmsim.jit import kernel
from vmsim.machine.buddy import MAX_ORDER, NO_FRAME, State
from vmsim.machine.formats import FRAME, LARGE, PAGE_SHIFT, PRESENT
from vmsim.machine.memory import entry_at, read_word
from vmsim.machine.tables import UNBACKED, host_address
from vmsim.machine.tlb import ASID_SHIFT

if TYPE_CHECKING:
    from vmsim.simulation import Simulation, VirtualMachine

__all__ = ["BrokenInvariant", "check_invariants"]


class BrokenInvariant(AssertionError):  # noqa: N818  (it reads as what it is)
    """Something that must always hold does not; the message says what, where and when."""


@kernel
def _gather(memory, root, levels, index, table, places, targets, tables):  # type: ignore[no-untyped-def]
    """List the entries of nested (or native) tables.

    Fills `places` (hpa of each entry), `targets` (the frame it points to) and `tables` (the level of the table there;
    0, -1, -2 for pages of 4K, 2M, 1G); returns how many, or -1 if there is no room. `index` and `table` are scratch,
    int64[6] each.
    """
    count = 0
    index[:] = 0
    level = levels
    table[level] = root
    while level <= levels:
        if index[level] == 512:
            index[level] = 0
            level += 1
            continue
        hpa = table[level] + (index[level] << 3)
        index[level] += 1
        entry = read_word(memory, hpa)
        if entry == 0:
            continue
        if count == len(places):
            return -1
        places[count] = hpa
        targets[count] = (entry & FRAME) >> PAGE_SHIFT
        page = level == 1 or entry & LARGE != 0
        tables[count] = 1 - level if page else level - 1
        count += 1
        if not page:
            level -= 1
            table[level] = entry & FRAME
            index[level] = 0
    return count


@kernel
def _resolve(memory, root, levels, nested_root, nested_levels, gva):  # type: ignore[no-untyped-def]
    """Return the hpa of `gva` by plain look-ups, host(guest(gva)), or UNBACKED."""
    level = levels
    table = root
    while True:
        hpa = host_address(memory, nested_root, nested_levels, entry_at(table, gva, level))
        if hpa == UNBACKED:
            return UNBACKED
        entry = read_word(memory, hpa)
        if entry & PRESENT == 0:
            return UNBACKED
        if level == 1 or entry & LARGE:
            offset = (1 << (3 + 9 * level)) - 1
            return host_address(memory, nested_root, nested_levels, (entry & FRAME & ~offset) | (gva & offset))
        table = entry & FRAME
        level -= 1


class _Checker:
    def __init__(self, simulation: Simulation, where: str) -> None:
        self.simulation = simulation
        self.where = where
        self.host = simulation.host
        self.memory = simulation.hardware.memory

    def fail(self, what: str) -> None:
        cycle = self.simulation.env.cycle
        raise BrokenInvariant(f"{what}. Found at cycle {cycle}, at {self.where}.")

    def conservation(self) -> None:
        """Every frame is free or has an owner; the free lists hold the free ones, once each."""
        frames, zone = self.host.frames, self.host.zone[0]
        free = frames["state"] == State.FREE
        if int(free.sum()) != int(zone["free"]):
            self.fail(f"conservation: {int(free.sum())} frames are marked free, the allocator counts {zone['free']}")
        listed = np.zeros(len(frames), bool)
        for mobility, order in np.ndindex(2, MAX_ORDER + 1):
            block = int(zone["heads"][mobility, order])
            while block != NO_FRAME:
                part = slice(block, block + (1 << order))
                if block % (1 << order) or listed[part].any() or not free[part].all():
                    self.fail(f"conservation: the free list of order {order} holds frame {block} wrongly")
                listed[part] = True
                block = int(frames["next"][block])
        if not np.array_equal(listed, free):
            self.fail(f"conservation: {int((free & ~listed).sum())} free frames are on no free list")
        if (frames["owner"][free] != -1).any():
            self.fail("conservation: a free frame has an owner")
        for vm in self.simulation.vms:
            if vm.pool and vm.pool.pages:
                pages = np.array(vm.pool.pages)
                held = frames[pages]
                wrong = (held["state"] != State.POOL) | (held["owner"] != vm.spec.index)
                if wrong.any() or len(np.unique(pages)) != len(pages):
                    self.fail(f"conservation: the pool of {vm.spec.name} holds pages that are not its own")

    def isolation(self) -> None:
        """A VM's tables reach its own frames only, each from the one entry that its reverse map names."""
        frames = self.host.frames
        reached_frames: dict[int, int] = {}
        for vm in self._living():
            root, levels = self._host_root(vm)
            places, targets, levels_below = self._entries(vm, root, levels)
            of_tables = targets[levels_below > 0]
            of_pages = self._frames_of_pages(targets, levels_below)
            for reached, state in ((of_tables, State.TABLE), (of_pages, State.GUEST)):
                foreign = frames[reached]["owner"] != vm.spec.index
                if foreign.any():
                    self.fail(
                        f"isolation: {vm.spec.name} reaches frame {int(reached[foreign][0])}, which is not its own"
                    )
                wrong = frames[reached]["state"] != state
                if wrong.any():
                    bad = int(reached[wrong][0])
                    self.fail(f"isolation: frame {bad} of {vm.spec.name} is not in the state its entry implies")
            if (frames[targets]["rmap"] != places).any():
                bad = int(targets[frames[targets]["rmap"] != places][0])
                self.fail(f"isolation: the reverse map of frame {bad} does not name the entry that maps it")
            reached_frames[vm.spec.index] = len(of_tables) + len(of_pages) + 1  # the root
        for vm in self._living():
            if vm.finish is not None:  # nothing is on its way any more
                owned = int((frames["owner"] == vm.spec.index).sum())
                known = reached_frames[vm.spec.index]
                known += len(vm.pool.pages) if vm.pool else len(vm.frames.ready)
                if owned != known:
                    self.fail(f"conservation: {owned - known} frames of {vm.spec.name} are neither mapped nor free")

    def _frames_of_pages(self, targets: NDArray[np.int64], levels_below: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return every frame of the pages among the entries, those of large pages written out."""
        orders = -9 * levels_below
        parts = [
            (targets[(levels_below <= 0) & (orders == order)][:, None] + np.arange(1 << order)).ravel()
            for order in (0, 9, 18)
        ]
        return np.concatenate(parts)

    def coherence(self) -> None:
        """What TLBs, nested TLBs and walk caches give is what the tables give: host(guest(gva))."""
        living = {vm.spec.index + 1: vm for vm in self._living()}
        for core in self.simulation.hardware.cores:
            for unit in ("l1_tlb0", "l1_tlb1", "l1_tlb2", "l2_tlb0", "l2_tlb1", "l2_tlb2"):
                for vm, tag, value in self._held(core[unit], living, unit):
                    size = tag & 3
                    gva = tag >> 2 << (PAGE_SHIFT + 9 * size)
                    within = (1 << (PAGE_SHIFT + 9 * size)) - 1
                    if self._resolve(vm, gva) != value & FRAME & ~within:
                        self.fail(f"coherence: {unit} gives {vm.spec.name} another frame for gva {gva:#x}")
            for vm, tag, value in self._held(core["ntlb"], living, "ntlb"):
                if host_address(self.memory, *self._nested(vm), tag << PAGE_SHIFT) != value & FRAME:
                    self.fail(f"coherence: the nested TLB gives {vm.spec.name} another frame for gfn {tag:#x}")
            for name, shift in (("pde", 21), ("pdpte", 30), ("pml4e", 39), ("pml5e", 48)):
                level = (shift - 3) // 9 - 1
                for vm, tag, value in self._held(core[name], living, name):
                    cr3, levels = int(vm.registers["cr3"][0]), vm.spec.guest_levels
                    if self._table(vm, cr3, levels, level, tag << shift) != value & FRAME:
                        self.fail(f"coherence: {name} gives {vm.spec.name} another table for {tag << shift:#x}")
                nested = f"nested_{name}"
                for vm, tag, value in self._held(core[nested], living, nested):
                    root, levels = self._nested(vm)
                    if self._table(None, root, levels, level, tag << shift) != value & FRAME:
                        self.fail(f"coherence: {nested} gives {vm.spec.name} another table for {tag << shift:#x}")

    def _living(self) -> list[VirtualMachine]:
        """Return the VMs that have tables now."""
        return [vm for vm in self.simulation.vms if vm.kernel.root >= 0 and not vm.gone]

    def _host_root(self, vm: VirtualMachine) -> tuple[int, int]:
        return self._nested(vm) if vm.monitor else (vm.kernel.root, vm.spec.guest_levels)

    def _nested(self, vm: VirtualMachine) -> tuple[int, int]:
        registers = vm.registers[0]
        return int(registers["nested_root"]), int(registers["nested_levels"])

    def _entries(self, vm: VirtualMachine, root: int, levels: int) -> tuple[NDArray[np.int64], ...]:
        size = int((self.host.frames["owner"] == vm.spec.index).sum())
        columns = tuple(np.empty(size, np.int64) for _ in range(3))
        scratch = np.empty(6, np.int64), np.empty(6, np.int64)
        count = _gather(self.memory, root, levels, *scratch, *columns)
        if count < 0:
            self.fail(f"isolation: the tables of {vm.spec.name} map more frames than it has")
        return tuple(column[:count] for column in columns)

    def _resolve(self, vm: VirtualMachine, gva: int) -> int:
        return int(_resolve(self.memory, vm.kernel.root, vm.spec.guest_levels, *self._nested(vm), gva))

    def _table(self, vm: VirtualMachine | None, table: int, level: int, wanted: int, address: int) -> int:
        """Return the hpa of the table of level `wanted` on the way to `address`; guest tables are found by gpa."""
        nested = self._nested(vm) if vm else (0, 0)
        while level > wanted:
            place = int(host_address(self.memory, *nested, int(entry_at(table, address, level))))
            table = int(read_word(self.memory, place)) & FRAME
            level -= 1
        return int(host_address(self.memory, *nested, table))

    def _held(self, sets: Any, living: dict[int, VirtualMachine], unit: str) -> list[tuple[VirtualMachine, int, int]]:
        """Return (vm, tag without asid, value) of what a unit holds."""
        tags, values = sets["tag"].ravel(), sets["value"].ravel()
        full = tags >= 0
        held = []
        for tag, value in zip(tags[full].tolist(), values[full].tolist(), strict=True):
            vm = living.get(tag >> ASID_SHIFT)
            if vm is None:
                self.fail(f"coherence: {unit} still holds entries of address space {tag >> ASID_SHIFT}, which is gone")
            else:
                held.append((vm, tag & ((1 << ASID_SHIFT) - 1), value))
        return held


def check_invariants(simulation: Simulation, where: str) -> None:
    """Check everything.

    Raises
    ------
    BrokenInvariant
        With what, where and when.
    """
    checker = _Checker(simulation, where)
    checker.conservation()
    checker.isolation()
    checker.coherence()
