"""A vkernel (DragonFly): the guest's kernel is a process of the host, and its page tables are the host's to walk.

The hardware walks the host's map of each of the guest's address spaces, from gva to hpa. What the map lacks, the host
looks up in the guest's tables, entry by entry in software. If they allow the access it enters the page and goes on; if
not, it hands the fault to the guest's kernel: it leaves the address space of the guest's process for that of the
kernel's, and comes back by a system call. So does a system call of a guest's process. The guest's kernel edits its
tables as it likes, nothing traps, and then says what it has taken away, by one more system call
(sys/vm/vm_fault.c, sys/vm/vm_vmspace.c, sys/platform/vkernel64/platform/pmap_inval.c).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.base.ledger import Ledger
from vmsim.contracts import NONE, Exit, Resume, Steps, Vcpu, Words, ensure
from vmsim.contracts.commit import FORGET_SPACE, Collected
from vmsim.frames.buddy import use
from vmsim.frames.records import State
from vmsim.machine.formats import FRAME, PAGE_SHIFT, PRESENT, reach
from vmsim.machine.memory import clear_frame, width_of
from vmsim.machine.vm_spaces import VmSpaces
from vmsim.monitor.backing.pages import HostPages
from vmsim.monitor.shadow.fill import Status
from vmsim.monitor.software import TableKeeper
from vmsim.monitor.vkernel.check import problems_of_maps
from vmsim.monitor.vkernel.commit import PRICES, VkernelMode, advance
from vmsim.monitor.vkernel.commit import Exit as Outside
from vmsim.monitor.vkernel.entries import make_maps, more_room
from vmsim.monitor.vkernel.second import MapEntries
from vmsim.monitor.vkernel.tables import TABLE_ROOM, calls_for, make_walk, remove
from vmsim.scenario.cpu import Cost
from vmsim.tables.backing import host_address
from vmsim.tables.edit import load_entries, store_entries

__all__ = ["Vkernel"]


_CREATE = 4  # system calls that make a space: vmspace_create, vmspace_mmap, and vmspace_mcontrol twice
_DONE, _NEED, _UNBACKED = int(Status.DONE), int(Status.NEED), int(Status.UNBACKED)
_FAULT, _LIMIT = int(Status.FAULT), int(Status.LIMIT)
_NO_TABLES = np.empty(0, np.int64)


class Vkernel(MapEntries, TableKeeper):
    """The host's side of one vkernel, and its guest's `Mmu`.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    registers : record[1]
        The VM's register file; its cr3 is set here, to the root of a map.
    host_pages : HostPages
        Where the pages of the guest's memory come from, which is a file of the vkernel's process.
    costs : Cost
        Cycles of the host's work.
    spaces : VmSpaces
        What processors cache of its vCPUs.
    levels : int
        Of the guest's tables, and of the maps.
    """

    traps = loads_trap = False
    unseen = True
    broadcasts = True
    known = True
    names_entries = False
    reasons = tuple(reason.name for reason in Outside)

    def __init__(
        self,
        memory: Words,
        registers: NDArray[Any],
        host_pages: HostPages,
        *,
        costs: Cost,
        spaces: VmSpaces,
        levels: int,
    ) -> None:
        self.memory = memory
        self.registers = registers
        self.host_pages = host_pages
        self.backing = host_pages.backing
        self.costs = costs
        self.spaces = spaces
        self.owner = host_pages.owner
        self.levels = levels
        self._width = int(width_of(levels))
        self.first_frames = 5 if levels == 3 else 1  # a root, and PAE's four tables below it
        self.exits = Counter()
        self.exit_cycles = Counter()
        self.latency = host_pages.latency
        self.maps: dict[int, int] = {}  # gpa of the guest's root table: hpa of the map's
        self.work: Counter[str] = Counter(dict.fromkeys(("filled", "walked", "zapped", "made", "dropped"), 0))
        self.cr3 = [0] * len(registers)  # the guest's, by vCPU
        self._walk = make_walk(host_pages.pages, self.levels, int(registers["largest"][0]))
        self._frames = host_pages.host.frames
        self.entries = make_maps(memory, host_pages.backing, self._walk, self._frames)
        self.ready: list[int] = []
        self._scratch = np.empty(6, np.int64), np.empty(TABLE_ROOM, np.int64)
        self._end = reach(levels) - 1
        self._entered = costs.violation_entry + costs.violation_rmap
        self._each_table = host_pages.each_table
        self._prices = np.zeros(1, PRICES)
        self._prices["fault"] = costs.vkernel_fault
        self._prices["walk"] = costs.vkernel_walk_level
        self._prices["reflect"] = costs.vkernel_reflect
        self._prices["call"] = costs.vkernel_call
        self._prices["remove"] = costs.vkernel_remove
        self._prices["entered"] = self._entered
        self._prices["each_table"] = self._each_table
        self.compiled = host_pages.compiled
        self._mode: VkernelMode | None = None  # as compiled code had it last
        self._told: tuple[int, ...] = ()  # and what it was told
        self._stale = False
        self.start_bills(len(registers))
        self.price_touches(costs.vkernel_fault, self._entered, Outside.HOST_FAULT)  # the last is its own process's map

    @property
    def frames_held(self) -> int:
        """Host frames that are tables of maps, or at hand for the first."""
        made = self.work["made"] + int(self._prices["made"][0])  # those of compiled code are not counted yet
        return made - self.work["dropped"] + len(self.ready)

    def stale(self, cpu: int) -> bool:
        """Whether the guest's kernel has taken away what it has not told of yet, or goes to another space just now."""
        return self._stale

    def table_moved(self, old: int, new: int) -> None:
        """Have a table of level 1 keep its number."""
        if number := int(self._frames["rmap"][new]):
            self.entries.tables[number - 1] = new << PAGE_SHIFT

    def provide(self, frames: list[int]) -> None:
        """Take the frame of the first map's root."""
        use(self._frames, np.array(frames), int(State.POOL))
        self.ready = frames

    def fast(self, vcpu: Vcpu) -> VkernelMode | None:
        """Return its state as compiled code handles page faults with it."""
        if not self.compiled or self.ready or self.cr3[vcpu.number] not in self.maps:
            return None
        return self.mode_of(vcpu)

    def mode_of(self, vcpu: Vcpu) -> VkernelMode:
        """Return its state as compiled code works with it for a vCPU, whose map there is."""
        cr3, nested = self.cr3[vcpu.number], self.host_pages.nested
        told = 0 if vcpu.spaces.apart else FORGET_SPACE, cr3, self.maps[cr3]
        if told != self._told:
            self._told = told
            self._prices["flushes"], self._prices["cr3"], self._prices["root"] = told
        if self._mode is None or self._mode.nested is not nested or self._mode.maps is not self.entries:
            self._mode = VkernelMode(nested, self.entries, self._prices, *self._scratch)
        return self._mode

    def count(self, vcpu: Vcpu, done: Collected) -> None:
        """Count what is on a bill, and what was done to the maps."""
        super().count(vcpu, done)
        for name in ("filled", "walked", "made", "zapped"):
            self.work[name] += int(self._prices[name][0])
            self._prices[name] = 0

    def handle(self, vcpu: Vcpu, exit: Exit) -> Steps[Resume]:
        """Handle a page fault of the hardware."""
        yield from self.page_fault(vcpu, exit.gva, exit.code, exit.times, exit.status, exit.value, exit.spent)
        return Resume.RETRY

    def page_fault(
        self, vcpu: Vcpu, gva: int, code: int, times: int, status: int = NONE, value: int = 0, spent: int = 0
    ) -> Steps[bool]:
        """Handle a page fault of the hardware: enter the page in the map, or hand the fault to the guest's kernel.

        Parameters are as of `Shadow.page_fault`; it never makes the access itself.
        """
        start = vcpu.now
        before = vcpu.kind if status == NONE else 0
        vcpu.kind = 0 if status == NONE else vcpu.kind  # what compiled code has begun has one already
        self._spend(vcpu, spent)
        tables, begun = _NO_TABLES, status != NONE
        while True:
            if self.cr3[vcpu.number] not in self.maps:  # it has ended on another vCPU, and this one is about to be told
                break
            if status == NONE:
                given = gva, code, begun, tables
                status, value = self.commit(vcpu, advance, self.mode_of(vcpu), *given)
                begun = True
            if status == _LIMIT:
                self.entries = more_room(self.entries)
            elif status == _NEED:  # and more than before, if another vCPU has removed some meanwhile
                more = yield from self._take(vcpu, int(value) - len(tables))
                tables = np.append(tables, more)
            elif status == _UNBACKED:
                yield from self._back(vcpu, int(value), code)
            else:
                break
            status = NONE
        used = int(value) if status == _DONE else 0
        if used < len(tables):  # another vCPU has been faster
            self.host_pages.pool.put(tables[used:].tolist())
        if status == _DONE:
            self.latency.note(vcpu, start, before)
            return False
        vcpu.kind = before
        if status == _FAULT:
            self._reflect(vcpu)
            self._hand_over(vcpu, "REFLECT", int(value))
            yield from self.deliver(vcpu, gva, int(value))
        return False

    def system_call(self, vcpu: Vcpu, name: str, pid: int) -> None:
        """Pay for a system call of the guest's process: the host hands it to the guest's kernel."""
        self._reflect(vcpu)
        self._count(vcpu, "SYSCALL")

    def io_exit(self, vcpu: Vcpu) -> None:
        """Have a device work: the guest's kernel asks the host by a system call."""
        self._spend(vcpu, self.costs.vkernel_call)
        self._count(vcpu, "IO")

    def read(self, vcpu: Vcpu, places: Words) -> Steps[Words]:
        """Load entries: memory of the guest's kernel like any other."""
        yield from ensure(vcpu, self, places >> PAGE_SHIFT)
        values = np.empty(len(places), np.int64)
        load_entries(self.memory, self.backing, places, values, self._width)
        return values

    def write(self, vcpu: Vcpu, places: Words, values: Words) -> Steps[None]:
        """Store entries, of which nobody is told."""
        before = yield from self.read(vcpu, places)
        self._stale = self._stale or bool((before * (before != values)).any())
        store_entries(self.memory, self.backing, places, values, self._width)

    def took(self) -> None:
        """Note that what the maps hold may be out of date until the guest's kernel tells of it."""
        self._stale = True

    def clear(self, vcpu: Vcpu, gpa: int, order: int, *, table: bool) -> Steps[None]:
        """Zero a frame that becomes a table."""
        if table:
            yield from ensure(vcpu, self, np.array([gpa >> PAGE_SHIFT]))
            clear_frame(self.memory, host_address(self.backing, gpa))

    def load_root(self, vcpu: Vcpu, root: int, space: int, *, keep: bool) -> Steps[None]:
        """Run another address space from here on: find or make its map; unless it is kept, all of it goes."""
        self._stale = True
        frames = [] if root in self.maps else (yield from self._take(vcpu, self.first_frames))
        if root in self.maps and frames:  # another vCPU has been faster
            self.host_pages.pool.put(frames)
        if root not in self.maps:
            use(self._frames, np.array(frames), int(State.TABLE))
            self._frames["rmap"][frames] = 0
            for frame in frames:
                clear_frame(self.memory, frame << PAGE_SHIFT)
            table, *below = (frame << PAGE_SHIFT for frame in frames)
            self.memory[table >> 3 : (table >> 3) + len(below)] = [each | PRESENT for each in below]
            self.maps[root] = table
            self.work["made"] += len(frames)
            self._spend(vcpu, _CREATE * self.costs.vkernel_call + len(frames) * self._each_table)
            self._count(vcpu, "VMSPACE")
        elif not keep:
            for number in self._running(root):
                self.spaces[number].flush()
            yield from self._remove(vcpu, root, 0, self._end)
            self._spend(vcpu, self.costs.vkernel_call)
            self._count(vcpu, "INVAL")
        self.cr3[vcpu.number] = root
        vcpu.registers["cr3"] = table = self.maps[root]
        if self.levels == 3:
            vcpu.registers["pdpte"] = self.memory[table >> 3 : (table >> 3) + 4]
        vcpu.spaces.load(space, keep=keep)
        self._stale = False

    def invalidate(self, vcpu: Vcpu, first: int, last: int, *, order: int = 0) -> Steps[None]:
        """Tell the host of each page of a range, and of each whole 2 MiB at once: vmspace_mcontrol(MADV_INVAL)."""
        for number in self._running(self.cr3[vcpu.number]):  # the host tells all processors (pmap_inval)
            self.spaces[number].invalidate(first, last)
        yield from self._remove(vcpu, self.cr3[vcpu.number], first, last)
        self._stale = False
        calls = calls_for(first >> PAGE_SHIFT, (last >> PAGE_SHIFT) + 1, 1 << self._width)
        self._spend(vcpu, calls * self.costs.vkernel_call)
        self._count(vcpu, "INVAL", calls)

    def flush(self, vcpu: Vcpu) -> Steps[None]:
        """Tell the host of the whole space, by one call."""
        for number in self._running(self.cr3[vcpu.number]):
            self.spaces[number].flush()
        yield from self._remove(vcpu, self.cr3[vcpu.number], 0, self._end)
        self._stale = False
        self._spend(vcpu, self.costs.vkernel_call)
        self._count(vcpu, "INVAL")

    def release(self, vcpu: Vcpu, root: int, space: int) -> Steps[None]:
        """Give up the map of a space that is no more: vmspace_destroy."""
        if space >= 0:
            vcpu.spaces.release(space)
        if root not in self.maps:
            return  # it never ran, or another vCPU has said so
        yield from self._remove(vcpu, root, 0, self._end)
        table = self.maps.pop(root)
        below = self.memory[table >> 3 : (table >> 3) + self.first_frames - 1] & FRAME
        frames = [int(each) >> PAGE_SHIFT for each in (table, *below)]
        self.work["dropped"] += len(frames)
        self._frames["state"][frames] = State.POOL
        yield vcpu.settle()
        self.host_pages.pool.put(frames)
        self._spend(vcpu, self.costs.vkernel_call)
        self._count(vcpu, "VMSPACE")

    def problems(self, frames: NDArray[Any]) -> Iterable[str]:
        """Yield what is wrong with the maps, entry by entry."""
        spaces = (process.space for process in self.kernel.processes.values())
        return problems_of_maps(
            self, frames, {space.root for space in spaces if not (space.stale or space.unflushed or self._stale)}
        )

    def register(self, ledger: Ledger) -> None:
        """Say what it counts, and what is done to the maps."""
        super().register(ledger)
        ledger.counters("shadow", lambda: self.work)

    def rehearse(self) -> None:
        """Compile, or load from the cache, the kernels that a run without unmapping does not need."""
        nothing = np.empty(0, np.int64)
        load_entries(self.memory, self.backing, nothing, nothing, self._width)
        store_entries(self.memory, self.backing, nothing, nothing, self._width)
        remove(self.entries, 0, 0, -1, *self._scratch)

    def _remove(self, vcpu: Vcpu, root: int, first: int, last: int) -> Steps[None]:
        """Take pages out of a map, and give its empty tables back to the pool."""
        path, freed = self._scratch
        frames: list[int] = []
        while first <= last:
            first, pages, tables = remove(self.entries, self.maps[root], first, last, path, freed)
            self.work["zapped"] += int(pages)
            self._spend(vcpu, int(pages) * self.costs.vkernel_remove)
            frames += freed[:tables].tolist()
        if frames:
            yield from self._put_away(vcpu, frames)

    def _put_away(self, vcpu: Vcpu, frames: list[int]) -> Steps[None]:
        """Give tables of a map that are none any more to the pool."""
        self.work["dropped"] += len(frames)
        yield vcpu.settle()
        self.host_pages.pool.put(frames)

    def _take(self, vcpu: Vcpu, count: int) -> Steps[list[int]]:
        """Return frames for tables of a map; the vCPU is suspended while the pool has too few."""
        if self.ready:
            taken, self.ready = self.ready[:count], []
            return taken
        return (yield from self.host_pages.take(vcpu, count))

    def _reflect(self, vcpu: Vcpu) -> None:
        """Go to the guest's kernel and back: two loads of CR3, which flush unless PCIDs tell spaces apart."""
        vcpu.spaces.load(vcpu.spaces.space, keep=True)
        self._spend(vcpu, self.costs.vkernel_reflect)

    def _running(self, root: int) -> list[int]:
        """Return the vCPUs that have the address space with this root loaded."""
        return [number for number, each in enumerate(self.cr3) if each == root]
