"""The invariants that hold at every boundary, checked on the whole host.

Conservation, isolation, coherence, composition, contents and pins, each by a way that does not go through the code it
checks: tables are enumerated entry by entry, what the hardware caches is compared with what two plain look-ups give.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Moment
from vmsim.engine.check.coherence import check_coherence
from vmsim.engine.check.contents import contents_problems, pin_problems, remember
from vmsim.engine.check.copies import copy_problems
from vmsim.engine.check.guest import check_guest, count_distinct, gather_all
from vmsim.engine.check.swap import swap_problems
from vmsim.engine.simulation import Simulation
from vmsim.engine.virtual_machine import VirtualMachine
from vmsim.frames.buddy import owned
from vmsim.frames.records import NO_FRAME, State
from vmsim.host.memory import HOST
from vmsim.jit import kernel
from vmsim.machine.formats import FRAME, PAGE_SHIFT, WRITE
from vmsim.machine.memory import width_of
from vmsim.tables.backing import CLEAN, IDENTITY

__all__ = ["BrokenInvariant", "check_host", "check_invariants"]

_WORDS = {
    Moment.STARTED: "the start",
    Moment.SLICE_ENDED: "the end of a time slice of {}",
    Moment.VM_FINISHED: "the end of {}",
    Moment.VM_GONE: "the return of what {} had",
    Moment.MOVING: "a compaction, before it moved any page",
    Moment.MOVED: "a compaction that has moved pages",
}


class BrokenInvariant(AssertionError):  # noqa: N818  (it reads as what it is)
    """Something that must always hold does not; the message says what, where and when."""


@kernel
def _wrongly_listed(zones, frames, listed):  # type: ignore[no-untyped-def]
    """Return a block that a free list holds wrongly, and its order, or NO_FRAME; mark the frames of the others."""
    for at in range(len(zones)):
        heads = zones[at].heads
        for mobility in range(heads.shape[0]):
            for order in range(heads.shape[1]):
                block = heads[mobility, order]
                while block != NO_FRAME:
                    end = block + (1 << order)
                    if block & ((1 << order) - 1) or block < zones[at].first or end > zones[at].frames:
                        return block, order
                    for frame in range(block, end):
                        if listed[frame] or frames[frame].state != State.FREE:
                            return block, order
                        listed[frame] = True
                    block = np.int64(frames[block].next)
    return np.int64(NO_FRAME), 0


class _Checker:
    def __init__(self, simulation: Simulation, where: str) -> None:
        self.simulation = simulation
        self.where = where
        self.host = simulation.host
        self.memory = simulation.hardware.memory

    @cached_property
    def state(self) -> NDArray[Any]:
        """Return the state of each frame, in an array of its own: read over and over, records take much longer."""
        return np.array(self.host.frames["state"])

    @cached_property
    def owner(self) -> NDArray[Any]:
        """Return the owner of each frame, likewise."""
        return np.array(self.host.frames["owner"])

    def fail(self, what: str) -> None:
        cycle = self.simulation.env.cycle
        raise BrokenInvariant(f"{what}. Found at cycle {cycle}, at {self.where}.")

    def conservation(self) -> None:
        """Every frame is free or has an owner; the free lists hold the free ones, once each."""
        frames, zone = self.host.frames, self.host.zone[0]
        free = self.state == State.FREE
        if int(free.sum()) != int(zone["free"]):
            self.fail(f"conservation: {int(free.sum())} frames are marked free, the allocator counts {zone['free']}")
        for node, count in enumerate(self._miscounted(free)):
            if count:
                self.fail(f"conservation: the allocator counts {count} frames of node {node} too many as free")
        listed = np.zeros(len(frames), bool)
        block, order = _wrongly_listed(self.host.zone, frames, listed)
        if block != NO_FRAME:
            self.fail(f"conservation: the free list of order {order} holds frame {block} wrongly")
        if not np.array_equal(listed, free):
            self.fail(f"conservation: {int((free & ~listed).sum())} free frames are on no free list")
        for wrong in self.simulation.page_cache.problems() if self.simulation.page_cache else ():
            self.fail(f"conservation: {wrong}")
        for vm in self.simulation.vms:
            if vm.pool:
                pages = vm.pool.pages.held()
                wrong = (self.state[pages] != State.POOL) | (self.owner[pages] != vm.spec.index)
                if wrong.any() or count_distinct(pages) != len(pages):
                    self.fail(f"conservation: the pool of {vm.spec.name} holds pages that are not its own")

    def _miscounted(self, free: NDArray[np.bool_]) -> list[int]:
        """Return by how much the allocator's count of the free frames of each node is wrong."""
        zones = self.host.zone[1:]
        return [int(zone["free"]) - int(free[zone["first"] : zone["frames"]].sum()) for zone in zones]

    def isolation(self) -> None:
        """A VM's tables reach its own frames only, each from the one entry that its reverse map names.

        A shared frame is reached by those that share it, and only to be read. Where a VM has no tables of gpas, what
        the host says of them stands for what they would map; what a processor walks is looked at in `modes`.
        """
        frames, stable = self.host.frames, np.array(sorted(self.host.shared), np.int64)
        reached_frames: dict[int, int] = {}
        for vm in self.living:
            roots, levels = self._host_roots(vm)
            entries = np.empty((4, 0), np.int64)
            if levels:
                entries = gather_all(self.memory, roots, levels, IDENTITY, vm.monitor.host_slot)
            if len(stable):
                entries = self._without_shared(vm, entries, stable)
            places, values, targets, levels_below = entries
            if vm.slot and len(clean := np.flatnonzero(vm.slot.backing & CLEAN)):
                written = np.isin(targets, (vm.slot.backing[clean] & FRAME) >> PAGE_SHIFT) & (values & WRITE != 0)
                if written[levels_below <= 0].any():
                    self.fail(f"isolation: {vm.spec.name} may write to a page that its host takes for clean")
            if (levels_below < (-1 if levels == 3 else -2)).any():  # an EPT misconfiguration, a reserved bit in NPT
                self.fail(f"isolation: an entry of {vm.spec.name} maps a page size that does not exist")
            of_tables = targets[levels_below > 0]
            backed = (vm.slot.backing[vm.slot.present()] & FRAME) >> PAGE_SHIFT if vm.slot else targets[:0]
            of_pages = self._frames_of_pages(targets, width_of(levels) * -levels_below) if levels else backed
            for reached, state in ((of_tables, State.TABLE), (of_pages, State.GUEST)):
                foreign = self.owner[reached] != vm.spec.index
                if foreign.any():
                    self.fail(
                        f"isolation: {vm.spec.name} reaches frame {int(reached[foreign][0])}, which is not its own"
                    )
                wrong = self.state[reached] != state
                if wrong.any():
                    bad = int(reached[wrong][0])
                    self.fail(f"isolation: frame {bad} of {vm.spec.name} is not in the state its entry implies")
            noted, named = frames["rmap"][targets], places
            if vm.slot:  # a page is found by its guest frame
                gfns = self._guest_frames(entries, roots, levels)
                named = np.where(levels_below > 0, places, gfns + 1)
                if (frames["rmap"][backed] != vm.slot.present() + 1).any():
                    self.fail(f"isolation: the reverse map does not name the guest frame of a page of {vm.spec.name}")
            wrong = noted != named
            if vm.spec.bare and vm.kernel.sharing.used:
                wrong &= noted != 0  # shared pages have no one entry
            if wrong.any():
                bad, what = int(targets[wrong][0]), "guest frame" if vm.slot else "entry"
                self.fail(f"isolation: the reverse map of frame {bad} does not name the {what} that maps it")
            own = vm.kernel.zeros.frames if vm.spec.bare else []  # which need not be mapped
            pages = count_distinct(np.concatenate((of_pages, np.array(own, np.int64))))
            if vm.slot:  # a page that the host has for a VM need not be mapped; one that is mapped it must have
                holding = np.zeros(len(frames), bool)
                holding[backed] = True
                if np.count_nonzero(holding) != len(backed) or not holding[of_pages].all():
                    self.fail(f"isolation: {vm.spec.name} reaches a frame in which its host has no page of it")
                pages = len(backed)
            reached_frames[vm.spec.index] = len(of_tables) + pages + len(roots)
        for vm in self.living:
            if vm.finish is not None:  # nothing is on its way any more
                held = int(((self.owner == vm.spec.index) & (self.state != State.FREE)).sum())
                known = reached_frames[vm.spec.index]
                known += len((vm.pool.pages if vm.pool else vm.frames.ready).held())
                known += vm.monitor.frames_held + vm.parts.copies.held(vm.spec.index)
                if vm.spec.bare and vm.files:
                    known += vm.files.held
                at_work = vm.ending or vm.crew.cut_short  # its kernel was, when memory ran out or the VM was stopped
                if held != known and not (at_work and vm.spec.bare):
                    self.fail(f"conservation: {held - known} frames of {vm.spec.name} are neither mapped nor free")

    def _guest_frames(self, entries: NDArray[np.int64], roots: list[int], levels: int) -> NDArray[np.int64]:
        """Return the first guest frame that each entry of nested tables, as `gather` lists them, has a say in."""
        places, _, targets, below = entries
        width, level = int(width_of(levels)), np.where(below > 0, below + 1, 1 - below)
        tables = np.sort(np.concatenate((np.array(roots, np.int64) >> PAGE_SHIFT, targets[below > 0])))
        first, found = np.zeros(len(tables), np.int64), np.zeros(len(places), np.int64)
        table, index = np.searchsorted(tables, places >> PAGE_SHIFT), (places & 0xFFF) >> PAGE_SHIFT - width
        for at in range(levels, 0, -1):
            here = level == at
            found[here] = first[table[here]] + (index[here] << width * (at - 1))
            first[np.searchsorted(tables, targets[here & (below > 0)])] = found[here & (below > 0)]
        return found

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
        shared = self.host.shared
        marked = np.flatnonzero((self.owner == HOST) & (self.state == State.GUEST))
        if marked.tolist() != sorted(shared):
            self.fail(f"sharing: {len(marked)} frames are marked as shared, the host knows of {len(shared)}")
        for vm in self.living:
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
        used = self.state != State.FREE
        for index in range(HOST, len(self.simulation.vms)):
            theirs = np.flatnonzero(used & (self.owner == index))
            if not np.array_equal(owned(self.host.zone, self.host.frames, index), theirs):
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

    def files(self) -> None:
        """What was last written to each page of a file is in the page cache or on the disk, each page in one frame."""
        for vm in self.living:
            if cache := vm.kernel.files:
                for wrong in cache.lost():
                    self.fail(f"contents: {wrong} of {vm.spec.name}")
                if len(cache.owners) != len(cache.pages):
                    self.fail(f"sharing: a frame of {vm.spec.name} holds two pages of files")

    def copies(self) -> None:
        """Copies of tables are frames of their own, of the tables that there are."""
        for wrong in copy_problems(self.simulation):
            self.fail(wrong)

    def pins(self) -> None:
        """What a device works on stays where it is."""
        for wrong in pin_problems(self.simulation):
            self.fail(wrong)

    def modes(self) -> None:
        """What each paging mode has of its own is as it must be: shadows, maps, pairs of tables."""
        for vm in self.living:
            for wrong in vm.monitor.problems(self.host.frames):
                self.fail(f"{wrong}, in {vm.spec.name}")

    def _frames_of_pages(self, targets: NDArray[np.int64], orders: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return every frame of the pages among the entries (order >= 0), those of large pages written out."""
        if (orders <= 0).all():
            small: NDArray[np.int64] = targets[orders == 0]
            return small
        parts = [
            (targets[orders == order][:, None] + np.arange(1 << order)).ravel()
            for order in sorted({0, *orders[orders >= 0].tolist()})
        ]
        return np.concatenate(parts)

    @cached_property
    def living(self) -> list[VirtualMachine]:
        """Return the VMs that have tables now."""
        return [vm for vm in self.simulation.vms if vm.kernel.root >= 0 and not vm.gone]

    def _host_roots(self, vm: VirtualMachine) -> tuple[list[int], int]:
        """Return the roots of the tables by which a VM reaches host memory, and their levels."""
        if not vm.spec.bare:
            root, levels = vm.monitor.memory_root
            return [root] if levels else [], levels
        return vm.kernel.roots, vm.spec.guest_levels

    def guests(self) -> None:
        """A guest's processes share pages only to read, and its kernel loses no frame."""
        for vm in self.living:
            check_guest(vm, self.memory, self.fail)


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
    check_coherence(simulation, checker.living, checker.fail)
    checker.guests()
    checker.ownership()
    checker.sharing()
    checker.swap()
    checker.files()
    checker.copies()


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
