"""The invariants that hold at every boundary, checked on the whole host.

Conservation, isolation, coherence, composition, contents and pins, each by a way that does not go through the code it
checks: tables are enumerated entry by entry, what the hardware caches is compared with what two plain look-ups give.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Moment
from vmsim.engine.check.contents import contents_problems, pin_problems, remember
from vmsim.engine.check.guest import check_guest, count_distinct, gather_all, kept_address
from vmsim.engine.check.rights import guest_address, nested_rights, walked_rights
from vmsim.engine.check.swap import swap_problems
from vmsim.engine.simulation import Simulation
from vmsim.engine.virtual_machine import VirtualMachine
from vmsim.frames.buddy import MAX_ORDER, NO_FRAME, State, owned
from vmsim.host.memory import HOST
from vmsim.jit import kernel
from vmsim.machine.formats import DIRTY, FRAME, PAGE_SHIFT, USER, WRITE
from vmsim.machine.memory import width_of
from vmsim.machine.tlb import ASID_SHIFT
from vmsim.monitor.base import table_on_way
from vmsim.tables.backing import IDENTITY, UNBACKED
from vmsim.tables.edit import translate

__all__ = ["BrokenInvariant", "check_host", "check_invariants"]

_WORDS = {
    Moment.STARTED: "the start",
    Moment.SLICE_ENDED: "the end of a time slice of {}",
    Moment.VM_FINISHED: "the end of {}",
    Moment.VM_GONE: "the return of what {} had",
    Moment.MOVING: "a compaction, before it moved any page",
    Moment.MOVED: "a compaction that has moved pages",
}

Holder = tuple[VirtualMachine, int]  # and the vCPU
Holders = dict[int, Holder | None]


class BrokenInvariant(AssertionError):  # noqa: N818  (it reads as what it is)
    """Something that must always hold does not; the message says what, where and when."""


@kernel
def _resolve(memory, root, levels, nested_root, nested_levels, gva):  # type: ignore[no-untyped-def]
    """Return the hpa of `gva` by plain look-ups, host(guest(gva)), or UNBACKED."""
    gpa = guest_address(memory, root, levels, nested_root, nested_levels, gva)
    return UNBACKED if gpa == UNBACKED else translate(memory, nested_root, nested_levels, gpa)


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
        for wrong in self.simulation.page_cache.problems() if self.simulation.page_cache else ():
            self.fail(f"conservation: {wrong}")
        for vm in self.simulation.vms:
            if vm.pool and vm.pool.pages:
                pages = vm.pool.pages.held()
                held = frames[pages]
                wrong = (held["state"] != State.POOL) | (held["owner"] != vm.spec.index)
                if wrong.any() or count_distinct(pages) != len(pages):
                    self.fail(f"conservation: the pool of {vm.spec.name} holds pages that are not its own")

    def isolation(self) -> None:
        """A VM's tables reach its own frames only, each from the one entry that its reverse map names.

        A shared frame is reached by those that share it, and only to be read.
        """
        frames, stable = self.host.frames, np.array(sorted(self.host.shared), np.int64)
        reached_frames: dict[int, int] = {}
        for vm in self._living():
            roots, levels = self._host_roots(vm)
            entries = gather_all(self.memory, roots, levels, IDENTITY, vm.monitor.host_slot)
            if len(stable):
                entries = self._without_shared(vm, entries, stable)
            places, _, targets, levels_below = entries
            if (levels_below < (-1 if levels == 3 else -2)).any():  # an EPT misconfiguration, a reserved bit in NPT
                self.fail(f"isolation: an entry of {vm.spec.name} maps a page of a size that there is not")
            of_tables = targets[levels_below > 0]
            of_pages = self._frames_of_pages(targets, width_of(levels) * -levels_below)
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
            noted = frames[targets]["rmap"]
            wrong = noted != places
            if vm.spec.bare and vm.kernel.sharing.used:
                wrong &= noted != 0  # shared pages have no one entry
            if wrong.any():
                bad = int(targets[wrong][0])
                self.fail(f"isolation: the reverse map of frame {bad} does not name the entry that maps it")
            own = vm.kernel.zeros.frames if vm.spec.bare else []  # which need not be mapped
            pages = count_distinct(np.concatenate((of_pages, np.array(own, np.int64))))
            if vm.slot:  # a page that the host has for a VM need not be mapped; one that is mapped it must have
                backed = (vm.slot.backing[vm.slot.present()] & FRAME) >> PAGE_SHIFT
                if count_distinct(backed) != len(backed) or not np.isin(of_pages, backed).all():
                    self.fail(f"isolation: {vm.spec.name} reaches a frame in which its host has no page of it")
                pages = len(backed)
            reached_frames[vm.spec.index] = len(of_tables) + pages + len(roots)
        for vm in self._living():
            if vm.finish is not None:  # nothing is on its way any more
                held = int(((frames["owner"] == vm.spec.index) & (frames["state"] != State.FREE)).sum())
                known = reached_frames[vm.spec.index]
                known += len(vm.pool.pages) if vm.pool else len(vm.frames.ready)
                known += vm.monitor.frames_held
                if held != known and not (vm.ending and vm.spec.bare):  # its kernel was at work when memory ran out
                    self.fail(f"conservation: {held - known} frames of {vm.spec.name} are neither mapped nor free")

    def _without_shared(self, vm: VirtualMachine, entries: NDArray[np.int64], stable: NDArray[np.int64]) -> Any:
        """Return the entries that lead to no shared frame, those that do having been looked at."""
        shared = np.isin(entries[2], stable) & (entries[3] <= 0)
        for _, value, pfn, below in entries[:, shared].T.tolist():
            if value & WRITE or below:
                self.fail(f"isolation: {vm.spec.name} reaches frame {pfn}, which is shared, and may write to it")
            if all(memory is not vm.pages for memory, _ in self.host.shared.users(pfn)):
                self.fail(f"isolation: {vm.spec.name} reaches frame {pfn}, which others share")
        return entries[:, ~shared]

    def sharing(self) -> None:
        """Each shared frame is the host's, and each page that lies in one is noted there, once."""
        frames, shared = self.host.frames, self.host.shared
        marked = np.flatnonzero((frames["owner"] == HOST) & (frames["state"] == State.GUEST))
        if marked.tolist() != sorted(shared):
            self.fail(f"sharing: {len(marked)} frames are marked as shared, the host knows of {len(shared)}")
        for vm in self._living():
            if not vm.slot:
                continue
            noted = sorted((gfn, pfn) for pfn, gfn in shared.of(vm.spec.index))
            gfns = vm.slot.shared()
            found = [*zip(gfns.tolist(), ((vm.slot.backing[gfns] & FRAME) >> PAGE_SHIFT).tolist(), strict=True)]
            if noted != found:
                said = f"{len(found)} pages of {vm.spec.name} lie in shared frames"
                self.fail(f"sharing: {said}, and not those {len(noted)} that the host knows of")

    def ownership(self) -> None:
        """The list of each owner's frames holds those that name it, and no others."""
        frames = self.host.frames
        used = frames["state"] != State.FREE
        for index in range(HOST, len(self.simulation.vms)):
            theirs = np.flatnonzero(used & (frames["owner"] == index))
            if not np.array_equal(owned(self.host.zone, frames, index), theirs):
                whose = self.simulation.vms[index].spec.name if index != HOST else "the host"
                self.fail(f"conservation: the list of the frames of {whose} is not that of the frames it owns")

    def contents(self) -> None:
        """What is in a page is what was there before some were moved."""
        for wrong in contents_problems(self.simulation):
            self.fail(wrong)

    def swap(self) -> None:
        """What is swapped out is where it is said to be."""
        for wrong in swap_problems(self.simulation):
            self.fail(wrong)

    def pins(self) -> None:
        """What a device works on stays where it is."""
        for wrong in pin_problems(self.simulation):
            self.fail(wrong)

    def modes(self) -> None:
        """What each paging mode has of its own is as it must be: shadows, maps, pairs of tables."""
        for vm in self._living():
            for wrong in vm.monitor.problems(self.host.frames):
                self.fail(f"{wrong}, in {vm.spec.name}")

    def _frames_of_pages(self, targets: NDArray[np.int64], orders: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return every frame of the pages among the entries (order >= 0), those of large pages written out."""
        parts = [
            (targets[orders == order][:, None] + np.arange(1 << order)).ravel()
            for order in sorted({0, *orders[orders >= 0].tolist()})
        ]
        return np.concatenate(parts)

    def coherence(self) -> None:
        """What TLBs, nested TLBs and walk caches give is what the tables give: host(guest(gva))."""
        living = {vm.spec.index: vm for vm in self._living()}
        by_gpa: Holders = {spaces.nested + 1: (vm, 0) for vm in living.values() for spaces in vm.spaces}
        for number, core in enumerate(self.simulation.hardware.cores):
            by_gva = self._holders(number, living)
            for unit in ("l1_tlb0", "l1_tlb1", "l1_tlb2", "l2_tlb0", "l2_tlb1", "l2_tlb2"):
                for vm, cpu, tag, value in self._held(core[unit], by_gva, unit):
                    size = tag & 3
                    gva = tag >> 2 << (PAGE_SHIFT + 9 * size)
                    within = (1 << (PAGE_SHIFT + 9 * size)) - 1
                    loaded = vm.kernel.cpus.loaded[cpu]
                    unflushed = loaded.unflushed if loaded else ""  # what it may keep until it is told
                    if unflushed != "pages" and self._resolve(vm, cpu, gva) != value & FRAME & ~within:
                        self.fail(f"coherence: {unit} gives {vm.spec.name} another frame for gva {gva:#x}")
                    if not unflushed:
                        self._allowed(vm, value, self._walked(vm, cpu, gva), f"{unit}, of gva {gva:#x}")
            for vm, _, tag, value in self._held(core["ntlb"], by_gpa, "ntlb"):
                if translate(self.memory, *vm.monitor.memory_root, tag << PAGE_SHIFT) != value & FRAME:
                    self.fail(f"coherence: the nested TLB gives {vm.spec.name} another frame for gfn {tag:#x}")
                self._allowed(vm, value, self._nested(vm, tag << PAGE_SHIFT), f"the nested TLB, of gfn {tag:#x}")
            for level, name in enumerate(("pde", "pdpte", "pml4e", "pml5e"), start=1):  # of the table that it points to
                for vm, cpu, tag, value in self._held(core[name], by_gva, name):
                    cr3, levels = int(vm.registers["cr3"][cpu]), vm.spec.walked_levels
                    start = tag << PAGE_SHIFT + width_of(levels) * level
                    if vm.monitor.table_on_way(cr3, levels, level, start) != value & FRAME:
                        self.fail(f"coherence: {name} gives {vm.spec.name} another table for {start:#x}")
                nested = f"nested_{name}"
                for vm, _, tag, value in self._held(core[nested], by_gpa, nested):
                    root, levels = vm.monitor.memory_root
                    start = tag << PAGE_SHIFT + width_of(levels) * level
                    if table_on_way(self.memory, (0, 0), root, levels, level, start) != value & FRAME:
                        self.fail(f"coherence: {nested} gives {vm.spec.name} another table for {start:#x}")

    def _walked(self, vm: VirtualMachine, cpu: int, gva: int) -> int:
        """Return the rights that all tables give a gva which the hardware walks for a vCPU now."""
        now = vm.registers[cpu]
        nested = int(now["nested_root"]), int(now["nested_levels"]), int(now["nested_dirty"])
        root, switch = int(now["cr3"]), int(now["switch"])
        return int(walked_rights(self.memory, root, vm.spec.walked_levels, switch, *nested, gva))

    def _nested(self, vm: VirtualMachine, gpa: int) -> int:
        """Return the rights that the nested tables give a gpa."""
        now = vm.registers[0]
        root, levels, dirty = int(now["nested_root"]), int(now["nested_levels"]), int(now["nested_dirty"])
        return int(nested_rights(self.memory, root, levels, dirty, gpa))

    def _allowed(self, vm: VirtualMachine, value: int, given: int, where: str) -> None:
        """See that a kept translation gives no right that the tables have taken away, dirty flags among them.

        A translation that is kept as writable and dirty lets writes through that no walk sees: what tells of writes
        (a protected entry, a cleared flag) must be flushed before it can (SDM vol. 3A §5.10.4.2, vol. 3C §30.3.5 and
        §30.4.3.1). That holds of the guest's entries, the host's, and those that a monitor keeps in their place.
        """
        more = value & (WRITE | USER | DIRTY) & ~given
        if more:
            names = ((WRITE, "writable"), (USER, "a user's, or executable,"), (DIRTY, "dirty"))
            said = ", ".join(name for bit, name in names if more & bit)
            self.fail(f"coherence: {where}, is {said} for {vm.spec.name}, which the tables do not say")

    def _holders(self, core: int, living: dict[int, VirtualMachine]) -> Holders:
        """Return by asid who could hit entries of a gva on a core; None: nobody, or a space whose tables are not up."""
        tags = self.simulation.tags
        holders: Holders = dict.fromkeys(range(1, tags.given + 1))
        vcpus = {vcpu.index: (vm, vcpu) for vm in living.values() for vcpu in vm.vcpus}
        for asid, (index, space) in tags.holders(core).items():
            vm, vcpu = vcpus.get(index, (None, None))
            if vm is None or vcpu is None or vm.monitor.stale(vcpu.number) or vcpu.interrupts:
                continue
            spaces = vcpu.spaces
            if space == spaces.space or (spaces.kernel and (index, space) == spaces.of_kernel()):
                holders[asid] = vm, vcpu.number
        return holders

    def _living(self) -> list[VirtualMachine]:
        """Return the VMs that have tables now."""
        return [vm for vm in self.simulation.vms if vm.kernel.root >= 0 and not vm.gone]

    def _host_roots(self, vm: VirtualMachine) -> tuple[list[int], int]:
        """Return the roots of the tables by which a VM reaches host memory, and their levels."""
        if not vm.spec.bare:
            root, levels = vm.monitor.memory_root
            return [root], levels
        return vm.kernel.roots, vm.spec.guest_levels

    def guests(self) -> None:
        """A guest's processes share pages only to read, and its kernel loses no frame."""
        for vm in self._living():
            check_guest(vm, self.memory, self.fail)

    def _resolve(self, vm: VirtualMachine, cpu: int, gva: int) -> int:
        there = int(
            _resolve(self.memory, vm.monitor.walked_root(cpu), vm.spec.guest_levels, *vm.monitor.memory_root, gva)
        )
        if there != UNBACKED or not vm.slot:
            return there
        root = vm.kernel.root_of(cpu)
        gpa = kept_address(vm.slot, root, vm.spec.guest_levels, gva)  # tables may be unmapped, or elsewhere
        if gpa == UNBACKED or not vm.monitor.nested_rights:  # what no hardware walks need not be mapped
            return vm.slot.address_of(gpa)
        return int(translate(self.memory, *vm.monitor.memory_root, gpa))

    def _held(self, sets: Any, holders: Holders, unit: str) -> list[tuple[VirtualMachine, int, int, int]]:
        """Return (vm, vCPU, tag without asid, value) of what a unit holds and somebody could hit."""
        tags, values = sets["tag"].ravel(), sets["value"].ravel()
        full = tags >= 0
        held = []
        for tag, value in zip(tags[full].tolist(), values[full].tolist(), strict=True):
            asid = tag >> ASID_SHIFT
            if asid not in holders:
                self.fail(f"coherence: {unit} still holds entries of address space {asid}, which is gone")
            holder = holders[asid]
            if holder:
                held.append((*holder, tag & ((1 << ASID_SHIFT) - 1), value))
        return held


def check_host(simulation: Simulation, where: str) -> None:
    """Check everything, where no pages are being moved.

    Raises
    ------
    BrokenInvariant
        With what, where and when.
    """
    checker = _Checker(simulation, where)
    checker.pins()
    checker.conservation()
    checker.isolation()
    checker.modes()
    checker.coherence()
    checker.guests()
    checker.ownership()
    checker.sharing()
    checker.swap()


def check_invariants(what: Moment, host: Simulation, vm: VirtualMachine | None) -> None:
    """Check everything; around a move of pages only what is in them and who has pinned them. An `Observer`.

    Raises
    ------
    BrokenInvariant
        With what, where and when.
    """
    where = _WORDS[what].format(vm.spec.name if vm else "")
    if what is Moment.MOVING:
        remember(host)
    elif what is Moment.MOVED:
        checker = _Checker(host, where)
        checker.pins()
        checker.contents()
    else:
        check_host(host, where)
