"""A process that becomes a VM while it runs: its program goes on in Ring 0 of VMX non-root, at the same addresses.

Akaros shows a process the same address space in Ring 3 and in a VM ("Ring V"). Its library maps each address to itself
by pages of 1 GiB (user/vmm/pagetables.c), and the tables for that are memory of the process like any other. An EPT
violation is then a page fault of the process, and what was a system call is an exit. What Akaros lets a process of one
core do alone, fork and exec (kern/src/syscall.c), a VM cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vmsim.base.errors import InputError
from vmsim.contracts import Exit, Resume, Steps, Vcpu
from vmsim.frames.records import State
from vmsim.machine.formats import CODE_PRESENT, CODE_WRITE, FRAME, LARGE, PAGE_SHIFT, PRESENT, USER, WRITE
from vmsim.machine.layout import set_nested
from vmsim.machine.memory import clear_frame, entry_at
from vmsim.machine.vcpu import Reason
from vmsim.monitor.paired.layout import price
from vmsim.monitor.paired.process import PairedMmu, PairedProcess
from vmsim.scenario.cpu import Cost
from vmsim.scenario.share import share_of
from vmsim.tables.backing import UNBACKED
from vmsim.tables.edit import translate

__all__ = ["PairedGuest"]

Regions = tuple[NDArray[np.int64], NDArray[np.int64]]

_HOME: Final = 0x1_0000_0000  # where Akaros asks for the guest's tables (PAGE_TABLE_ROOT_START)
_ROOM: Final = 513  # pages that it asks for: a root, and a table for each of its entries
_GIGABYTE: Final = 30
_LEAF: Final = 3  # level of an entry that maps 1 GiB
_FORBIDDEN: Final = ("fork", "share", "exec", "switch")  # of a VM, which has one process
_BITS: Final = PRESENT | WRITE | USER


class PairedGuest(PairedProcess):
    """What makes a process a VM, and its exits from then on.

    Parameters
    ----------
    name : str
        Of the process.
    paired : PairedMmu
        How the kernel below it edits both tables.
    registers : record[1]
        Its register file.
    enter : callable
        Has the processor tell its entries from others' as a VM's; what it keeps of it so far is forgotten.
    levels : int
        Of KPT, EPT and the guest's tables, 4 or 5.
    reason : str
        Of the exits that map pages.
    costs : Cost
        Cycles of exits.
    at : int or str
        After how many accesses, or which share of them, it becomes a VM.
    regions : tuple
        Starts and lengths of what the program touches, int64[n] each.
    exited : callable
        Called with the vCPU at each exit.

    Attributes
    ----------
    running : bool
        It has become a VM.
    root : int
        gpa of the root of the guest's tables.
    """

    def __init__(
        self,
        name: str,
        paired: PairedMmu,
        registers: NDArray[Any],
        *,
        enter: Callable[[], None],
        levels: int,
        reason: str,
        costs: Cost,
        at: int | str,
        regions: Regions,
        exited: Callable[[Vcpu], None],
    ) -> None:
        super().__init__(paired)
        self.name = name
        self.registers = registers
        self.enter = enter
        self.at = at
        self.levels = levels
        self.reason = reason
        self.costs = costs
        self.regions = regions
        self.exited = exited
        self.running = False
        self.root = 0
        self.exits[reason] = self.exit_cycles[reason] = 0
        self._tables: dict[tuple[int, int], int] = {}  # gpa of a table by its level and which part of space it maps
        self._pages: set[int] = set()  # gpas of those that have been made
        self._mapped: set[int] = set()  # gigabytes

    def walked_root(self, cpu: int) -> int:
        """The root of the guest's own tables, once it is a VM."""
        return self.root if self.running else self.kernel.root_of(cpu)

    @property
    def memory_root(self) -> tuple[int, int]:
        """The nested tables, once it is a VM."""
        return int(self.registers["nested_root"][0]), int(self.registers["nested_levels"][0])

    def pauses(self, accesses: int) -> list[tuple[int, Callable[[Any], Steps[None]]]]:
        """Return when it becomes a VM."""
        return [(share_of(self.at, accesses), self.become_vm)]

    def handle(self, vcpu: Vcpu, exit: Exit) -> Steps[Resume]:
        """Handle an exit of the VM, or a page fault of the process."""
        if exit.reason == Reason.VIOLATION:
            yield from self.violation(vcpu, exit.gpa, exit.code)
        elif self.running:
            yield from self.page_fault(vcpu, exit.gva)
        else:
            yield from self.deliver(vcpu, exit.gva, exit.code)
        return Resume.RETRY

    def become_vm(self, vcpu: Vcpu) -> Steps[None]:
        """Make the process a VM: make the guest's tables, and what there is to make of the EPT, and enter it.

        Raises
        ------
        InputError
            The workload has other processes now.
        """
        if len(self.kernel.processes) > 1:
            raise InputError(
                f"VM {self.name}: its workload has {len(self.kernel.processes)} processes where paired.guest_at makes "
                f"one of them a VM. Expected a moment at which there is one."
            )
        starts, lengths = self.regions
        self._find_home(starts, lengths)
        yield from self._map_to_itself(vcpu, _gigabytes(starts, lengths))
        work = self.paired.work
        before = work.copy()
        nested = self.paired.become_guest(self.kernel.root_of(0), (yield from self._frames(vcpu)))
        if cycles := price(work - before, self.paired.shared.costs):
            self._spend(vcpu, "CREATE", cycles)
        set_nested(self.registers, self.paired.form, self.levels, nested)
        self.registers["cr3"] = self.root
        self.enter()
        self.running = True

    def violation(self, vcpu: Vcpu, gpa: int, code: int = 0) -> Steps[None]:
        """Handle an EPT violation or NPF: a page fault of the process, delivered by an exit."""
        self._expect_tables(gpa)
        start = vcpu.now
        before, vcpu.kind = vcpu.kind, 0
        self.exited(vcpu)
        yield from self._in_exit(vcpu, self.reason, gpa, code & (CODE_PRESENT | CODE_WRITE))
        self.latency.note(vcpu, start, before)

    def page_fault(self, vcpu: Vcpu, gva: int) -> Steps[None]:
        """Handle a page fault of the guest: the program touches a gigabyte that its tables lack."""
        vcpu.owe("guest_fault", self.costs.fault_delivery)
        yield from self._map_to_itself(vcpu, [gva >> _GIGABYTE])

    def system_call(self, vcpu: Vcpu, name: str, pid: int) -> None:
        """Pay for a system call of the program, which is an exit of a VM.

        Raises
        ------
        InputError
            A VM cannot do that.
        """
        if not self.running or (name == "switch" and pid == self.kernel.current[vcpu.number].pid):
            return
        if name in _FORBIDDEN:
            raise InputError(
                f"VM {self.name}: its workload has a {name} after paired.guest_at has made its process a VM. On Akaros "
                f"a process of one core alone can do that, and a VM is none. Expected a later moment, or none."
            )
        self.exited(vcpu)
        self._spend(vcpu, "VMCALL", self.costs.vm_exit + self.costs.violation_resume)

    def _in_exit(self, vcpu: Vcpu, reason: str, gpa: int, code: int) -> Steps[None]:
        """Have the kernel handle a page fault at which the processor has left the guest."""
        cycles = self.costs.vm_exit + self.costs.violation_resume
        if code & CODE_PRESENT:
            self._spend(vcpu, reason, cycles)
        else:
            with vcpu.first():
                self._spend(vcpu, reason, cycles)
        bits = 12 + 9 * self.levels
        gva = gpa - (1 << bits) if gpa >> bits - 1 else gpa
        yield from self.kernel.page_fault(vcpu, gva, code, delivered=False)

    def _spend(self, vcpu: Vcpu, reason: str, cycles: int) -> None:
        vcpu.owe("exit", cycles)
        self.exits[reason] += 1
        self.exit_cycles[reason] += cycles

    def _expect_tables(self, gpa: int) -> None:
        """Refuse to go on where the program has moved the pages of its own page tables away."""
        if (page := gpa & -(1 << PAGE_SHIFT)) in self._pages:
            raise InputError(
                f"VM {self.name}: its workload moves the page at {page:#_x} away, where a page table of its guest lies "
                f"(paired.guest_at)."
            )

    def _find_home(self, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        """Choose where the guest's tables lie: the first place from 4 GiB on that the program does not touch."""
        home, size = _HOME, _ROOM << PAGE_SHIFT
        for start, length in sorted(zip(starts.tolist(), lengths.tolist(), strict=True)):
            if start < home + size and home < start + length:
                home = -(-(start + length) >> PAGE_SHIFT) << PAGE_SHIFT
        self.paired.kept = home, home + size
        self.root = home

    def _map_to_itself(self, vcpu: Vcpu, gigabytes: Iterable[int]) -> Steps[None]:
        """Have the guest's tables map gigabytes of its address space to themselves."""
        for gigabyte in gigabytes:
            if gigabyte in self._mapped:
                continue
            self._mapped.add(gigabyte)
            gva = gigabyte << _GIGABYTE
            table = yield from self._table(vcpu, self.levels, 0)
            for level in range(self.levels, _LEAF, -1):
                below = yield from self._table(vcpu, level - 1, gva >> (3 + 9 * level))
                self._store(vcpu, entry_at(table, gva, level), below | _BITS)
                table = below
            page = gva & FRAME & ((1 << 12 + 9 * self.levels) - 1)
            self._store(vcpu, entry_at(table, gva, _LEAF), page | LARGE | _BITS)

    def _table(self, vcpu: Vcpu, level: int, number: int) -> Steps[int]:
        """Return the gpa of a table of the guest's; a new one is memory that the program touches now."""
        key = level, number
        if key not in self._tables:
            if len(self._tables) == _ROOM:
                raise InputError(f"VM {self.name}: it touches more of its address space than {_ROOM} tables map.")
            gpa = self._tables[key] = self.root + (len(self._tables) << PAGE_SHIFT)
            if self._hpa(gpa) == UNBACKED:
                if self.running:
                    self.exited(vcpu)
                    yield from self._in_exit(vcpu, self.reason, gpa, CODE_WRITE)
                else:
                    yield from self.kernel.page_fault(vcpu, gpa, CODE_WRITE)
            clear_frame(self.memory, self._hpa(gpa))
            self._pages.add(gpa)
        return self._tables[key]

    def _store(self, vcpu: Vcpu, gpa: int, value: int) -> None:
        place = self._hpa(int(gpa)) >> 3
        if not self.memory[place]:
            self.memory[place] = value
            vcpu.owe("compute", self.costs.entry_edit)

    def _hpa(self, gpa: int) -> int:
        return int(translate(self.memory, self.kernel.root_of(0), self.levels, gpa))

    def _frames(self, vcpu: Vcpu) -> Steps[list[int]]:
        """Return frames for the tables that becoming a VM makes; wait while the host has no memory for them."""
        if self.paired.tables.layout != "separate":
            return []
        host, owner = self.paired.shared.host, self.paired.owner
        count = len(self.paired.space(self.kernel.root_of(0)).halves())
        yield vcpu.settle()
        frames: list[int] = host.take(owner, count, State.TABLE, reserve=host.marks.min).tolist()
        while len(frames) < count:
            event = host.request(owner, count - len(frames), State.TABLE, asker=owner)
            frames += [int(pfn) for pfn in (yield from vcpu.wait(event, "host_wait"))]
        return frames


def _gigabytes(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[int]:
    """Return the numbers of the gigabytes that regions touch, ascending."""
    first, last = (starts >> _GIGABYTE).tolist(), ((starts + lengths - 1) >> _GIGABYTE).tolist()
    return sorted({number for one, other in zip(first, last, strict=True) for number in range(one, other + 1)})
