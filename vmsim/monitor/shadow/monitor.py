"""Shadow paging: the monitor keeps real tables from gva to hpa, and the hardware walks those.

The guest's tables are guest memory like any other, but hidden: its stores to them (with some ways of hiding, its
loads too) leave the guest, and the monitor carries them out and keeps the shadow in step. `ShadowSpec` says how; the
two presets are the monitors of plex86 and KVM. What is done to tables is in tables.py and fill.py; here are
the exits, their order and their cost, and the waiting.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.base.errors import InputError
from vmsim.contracts import NONE, Exit, Resume, Steps, Vcpu, Words, ensure
from vmsim.contracts.commit import SPILL, make_bill
from vmsim.frames.buddy import use
from vmsim.frames.records import State
from vmsim.machine.formats import CODE_WRITE, PAGE_SHIFT, PRESENT
from vmsim.machine.memory import clear_frame
from vmsim.machine.vm_spaces import VmSpaces
from vmsim.monitor.backing.pages import HostPages
from vmsim.monitor.shadow.accesses import (
    access_hidden,
    invalidate_pages,
    load_entries,
    note_stores,
    overwrite,
    store_entries,
)
from vmsim.monitor.shadow.check import problems_of
from vmsim.monitor.shadow.commit import advance
from vmsim.monitor.shadow.featured import FeaturedShadow
from vmsim.monitor.shadow.fill import Status
from vmsim.monitor.shadow.guards import is_directory
from vmsim.monitor.shadow.mode import ShadowSpec
from vmsim.monitor.shadow.prices import Exit as ReasonOf
from vmsim.monitor.shadow.records import SPARE, Hide, Work, make_shadow
from vmsim.monitor.shadow.root_loads import RootLoads
from vmsim.monitor.shadow.roots import drop_all
from vmsim.monitor.shadow.state import ShadowMode
from vmsim.monitor.shadow.stock import MOST
from vmsim.monitor.shadow.sweep import sweep, sweep_all
from vmsim.monitor.shadow.traps import resync
from vmsim.scenario.cpu import Cost
from vmsim.scenario.dirty_log import DirtyLogSpec
from vmsim.tables.backing import host_address

__all__ = ["Shadow"]

_HIDE = {"write-protect": Hide.WRITE_PROTECT, "user-bit": Hide.USER_BIT, "present-bit": Hide.PRESENT_BIT}
_DONE, _NEED, _UNBACKED, _FAULT = int(Status.DONE), int(Status.NEED), int(Status.UNBACKED), int(Status.FAULT)
_GUARDED, _APPEARED, _ROOTLESS = int(Status.GUARDED), int(Status.APPEARED), int(Status.ROOTLESS)


class Shadow(FeaturedShadow, RootLoads):
    """The shadow tables of one VM, and the exits that keep them; the guest's `Mmu`.

    Parameters
    ----------
    registers : record[n]
        The register files of its vCPUs; their cr3 is set here, to a shadow root.
    host_pages : HostPages
        Where the pages of guest memory come from.
    spec : ShadowSpec
        How it shadows.
    chunk : int
        Mappings brought in at a fault.
    entries : int
        Of the software TLB.
    spaces : VmSpaces
        What the processors cache of all its vCPUs.
    levels : int
        Of the guest's tables; with 2 and 3 the processor walks PAE's (see quadrants.py).
    log : DirtyLogSpec, optional
        How it is learnt which pages are written to; None: it is not.
    """

    first_frames = 2 * SPARE
    traps = True
    broadcasts = False

    def __init__(
        self,
        memory: Words,
        registers: NDArray[Any],
        host_pages: HostPages,
        *,
        spec: ShadowSpec,
        chunk: int,
        entries: int,
        costs: Cost,
        spaces: VmSpaces,
        levels: int,
        log: DirtyLogSpec | None = None,
    ) -> None:
        self.tables = make_shadow(
            memory,
            host_pages.backing,
            host_pages.host.frames,
            spec.limit,
            levels,
            cpus=len(registers),
            logged=log is not None,
        )
        made = costs.table_page + host_pages.pool.prices.table
        super().__init__(self.tables, spec=spec, costs=costs, spaces=spaces, entries=entries, made=made)
        self.memory = memory
        self.registers = registers
        self.host_pages = host_pages
        self.backing = host_pages.backing
        self.pool, self.owner, self.lock = host_pages.pool, host_pages.owner, host_pages.lock
        self.cr3 = [0] * len(registers)  # the guest's, by vCPU
        self.latency = host_pages.latency
        state, self.pages, self.gfns = self.tables.states, self.tables.pages, self.tables.gfns
        state["largest"] = registers["largest"][0]
        state["hide"] = _HIDE[spec.hide]
        state["sync"] = spec.ad == "read-sync"
        state["unsync"] = spec.trap == "unsync"
        state["eager"] = spec.fill == "eager"
        state["flood"] = 0 if spec.trap == "single-step" else spec.write_flood
        state["chunk"] = chunk
        self._stocked = self.cpus["stock"]
        self._pae = levels < 4
        self.compiled = host_pages.compiled
        self.loads_trap = spec.hide != "write-protect"
        self.features = [self.make_log(log)] if log else []
        self.known = self.compiled and spec.fill == "lazy"
        # Of what maps a page for the guest's kernel, which is the first to write to it: unless a nested entry does.
        entry = 0 if host_pages.levels else int(state["prices"][0, Work.FILLED])
        self.price_touches(self._fault, entry, ReasonOf.HOST_FAULT)
        self.prices["most"] = MOST
        self._modes, self._walked = dict[int, ShadowMode](), -1  # as of the last exit

    @property
    def unseen(self) -> bool:
        """Whether stores to tables that have no shadow yet concern nobody: there is no log of them."""
        return not self.state["logging"][0]

    def provide(self, frames: list[int]) -> None:
        """Take the first of the host's frames for shadow pages, before the clock starts."""
        use(self.host_pages.host.frames, np.array(frames), int(State.POOL))
        self._put(0, frames)

    def touch(self, vcpu: Vcpu, gfn: int, order: int) -> Steps[None]:
        """Write to 2**order guest frames: each that has no host frame exits once and gets one."""
        lacking = self.backing[gfn : gfn + (1 << order)] & PRESENT == 0
        yield from super().touch(vcpu, gfn, order)
        if self.state["logging"][0]:
            self.tables.dirty[gfn : gfn + (1 << order)] |= lacking

    def fast(self, vcpu: Vcpu) -> ShadowMode | None:
        """Return its state as compiled code handles page faults with it."""
        return self.mode_of(vcpu) if self.compiled else None

    def mode_of(self, vcpu: Vcpu) -> ShadowMode:
        """Return its state as compiled code works with it for a vCPU."""
        cpu, nested = vcpu.number, self.host_pages.nested
        mode = self._modes.get(cpu)
        if mode is None or mode.nested is not nested:
            mode = self._modes[cpu] = self._make_mode(cpu)
        if self._walked != self.cr3[cpu]:
            self.prices["cr3"] = self._walked = self.cr3[cpu]
        if len(self.of) > 1:
            self.prices["kick"] = vcpu.kick_cycles()
        return mode

    def _make_mode(self, cpu: int) -> ShadowMode:
        tlb = self.software_tlbs[cpu]
        return ShadowMode(self.of[cpu], self.host_pages.nested, self.prices, tlb.words, tlb.pages)

    def handle(self, vcpu: Vcpu, exit: Exit) -> Steps[Resume]:
        """Handle a page fault of the hardware, or what compiled code has left over of one."""
        if exit.status == SPILL:
            yield from self.unstock(vcpu)
            return Resume.RETRY
        _, gva, _, code, times, _, *left = exit
        return Resume.MADE if (yield from self.page_fault(vcpu, gva, code, times, *left)) else Resume.RETRY

    def page_fault(
        self, vcpu: Vcpu, gva: int, code: int, times: int, status: int = NONE, value: int = 0, spent: int = 0
    ) -> Steps[bool]:
        """Handle a page fault of the hardware: fill the shadow, or hand the fault to the guest's kernel.

        Parameters
        ----------
        gva, code : int
            As the processor gives them.
        times : int
            How often the access is made in a row.
        status, value, spent : int, optional
            What `fill` last said of the fault, if compiled code has begun to handle it, and the cycles that took.

        Returns
        -------
        bool
            Whether the monitor has made these accesses itself; else they are to be made again.
        """
        start = vcpu.now
        before = vcpu.kind if status == NONE else 0
        vcpu.kind = 0 if status == NONE else vcpu.kind  # what compiled code has begun has one already
        vcpu.spaces.exited()
        self._spend(vcpu, spent)
        begun = status != NONE
        while True:
            if status == NONE:
                status, value = self._pay(vcpu, advance, gva, code, begun)
                begun = True
            if status == _DONE:
                break
            if status in (_FAULT, _GUARDED, _ROOTLESS):
                vcpu.kind = before
            if status == _FAULT:
                self._spend(vcpu, self.costs.inject)
                self._hand_over(vcpu, "TRUE_FAULT", int(value))
                yield from self.deliver(vcpu, gva, int(value))
                return False
            if status == _GUARDED:
                self._pay(vcpu, access_hidden, int(value), code & CODE_WRITE != 0, times)
                return True
            if status == _UNBACKED:
                yield from self._back(vcpu, int(value), code)
            elif status == _NEED:
                yield from self._restock(vcpu)
            elif status == _ROOTLESS:
                return False  # to be asked again when it has one
            else:
                few = f"vm.shadow.limit: {self.spec.limit} shadow pages do not suffice"
                raise InputError(f"{few} for one walk of the guest's tables.")
            status = NONE
        yield from self.unstock(vcpu)
        self.latency.note(vcpu, start, before)
        return False

    def kernel_fault(self, vcpu: Vcpu, gva: int, gfn: int, code: int, write: bool) -> Steps[bool]:
        """Handle a page fault of the guest's kernel, by whose map `gva` is in guest frame `gfn`: fill the shadow.

        Returns
        -------
        bool
            Whether the access is to a table that traps it, so that `read` or `write` makes it, as the exit that this
            fault is; else it is to be made again.
        """
        if self._traps(gfn, write):
            return True
        self._by_kernel[1 if not self._shadowed(gfn) else 0] += 1
        self.cpus["supervisor"][vcpu.number] = 1
        try:
            made = yield from self.page_fault(vcpu, gva, code, 1)
        finally:
            self.cpus["supervisor"][vcpu.number] = 0
        return made

    def _shadowed(self, gfn: int) -> bool:
        return int(self.gfns["tables"][gfn]) > 0

    def _traps(self, gfn: int, write: bool) -> bool:
        """Return whether an access to a frame traps: to a guarded table, but none that a store leaves (unsync)."""
        guarded = self.is_guarded(gfn)
        if not guarded or not write:
            return guarded and self.loads_trap
        return not self.state["unsync"][0] or is_directory(self.pages, self.gfns, gfn) > 0

    def io_exit(self, vcpu: Vcpu) -> None:
        """Leave the guest because it has told a device to work."""
        vcpu.spaces.exited()
        self._spend(vcpu, self._other)
        self._count(vcpu, "IO")

    def read(self, vcpu: Vcpu, places: Words) -> Steps[Words]:
        """Load entries; those of tables hidden from loads trap, and have A and D brought up to date first."""
        yield from ensure(vcpu, self, places >> PAGE_SHIFT)
        values = np.empty(len(places), np.int64)
        self._pay(vcpu, load_entries, np.ascontiguousarray(places), values, self._room(len(places)))
        return values

    def write(self, vcpu: Vcpu, places: Words, values: Words) -> Steps[None]:
        """Store entries; those of hidden tables trap."""
        stores = np.ascontiguousarray(places), np.ascontiguousarray(values, np.int64)
        start, trapped = 0, self._room(len(places))
        while True:
            status, start = self._pay(vcpu, store_entries, *stores, start, trapped)
            if status == _APPEARED:
                yield from self._translate(vcpu, int(places[start - 1]))
                self._work(vcpu)
                self._close(vcpu, "PT_WRITE")
            elif status == _UNBACKED:
                yield from self.touch(vcpu, int(places[start]) >> PAGE_SHIFT, 0)
            else:
                break
        yield from self.unstock(vcpu)

    def clear(self, vcpu: Vcpu, gpa: int, order: int, *, table: bool) -> Steps[None]:
        """Write over new frames; what was a table is none any more."""
        gfn = gpa >> PAGE_SHIFT
        if self.state["logging"][0]:
            self._pay(vcpu, note_stores, gpa + (np.arange(1 << order) << PAGE_SHIFT))
        if order or self.gfns["tables"][gfn]:
            self._pay(vcpu, overwrite, gfn, 1 << order, self._stores_until_free())
            self._flush_tlbs(vcpu)
            yield from self.unstock(vcpu)
        if table:
            yield from ensure(vcpu, self, np.array([gfn]))
            clear_frame(self.memory, host_address(self.backing, gpa))

    def load_root(self, vcpu: Vcpu, root: int, space: int, *, keep: bool) -> Steps[None]:
        """MOV to CR3: find or make the shadow of the new root; with on_cr3 = flush all shadows go first."""
        vcpu.spaces.exited()
        self._spend(vcpu, self._other)
        if self.spec.on_cr3 == "flush":
            drop_all(self.of[vcpu.number])
            self._flush_tlbs(vcpu)
            keep = False
        self.cr3[vcpu.number] = root
        self.loading.add(vcpu.number)
        yield from self._load(vcpu, root)
        resync(self.of[vcpu.number])
        self.software_tlbs[vcpu.number].flush()
        vcpu.spaces.load((root if self._pae else int(vcpu.registers["cr3"][0])) >> PAGE_SHIFT, keep=keep)
        self.loading.discard(vcpu.number)
        if not keep:
            self._told(vcpu.number)
        if self.spec.fill == "eager":
            yield from self._translate(vcpu)
        self._work(vcpu)
        self._count(vcpu, "CR3")
        yield from self.unstock(vcpu)

    def invalidate(self, vcpu: Vcpu, first: int, last: int, *, order: int = 0) -> Steps[None]:
        """INVLPG for each page of a range: each is an exit; what is out of step there is brought into step."""
        vcpu.spaces.invalidate(first, last)
        self._told(vcpu.number)
        self._pay(vcpu, invalidate_pages, first, last, order)
        return
        yield

    def flush(self, vcpu: Vcpu) -> Steps[None]:
        """Load CR3 with what it holds."""
        yield from self.load_root(vcpu, self.cr3[vcpu.number], 0, keep=False)

    def release(self, vcpu: Vcpu, root: int, space: int) -> Steps[None]:
        """Learn nothing: the shadows of a dead address space stay until they are recycled or written over."""
        return
        yield

    def rehearse(self) -> None:
        """Compile, or load from the cache, the kernels that a run without unmapping does not need."""
        mode, bill, nothing = self._make_mode(0), make_bill(), np.empty(0, np.int64)
        overwrite(mode, bill, 0, 0, 1)
        load_entries(mode, bill, nothing, nothing, nothing)
        invalidate_pages(mode, bill, 0, -1, 0)

    def problems(self, frames: NDArray[Any]) -> Iterable[str]:
        """Yield what is wrong with the shadow, entry by entry."""
        return problems_of(self, frames)

    def _translate(self, vcpu: Vcpu, gpa: int = -1) -> Steps[None]:
        """Translate an entry that has just appeared at `gpa`, or (-1) the whole address space, and all below."""
        while int(sweep(self.of[vcpu.number], gpa) if gpa >= 0 else sweep_all(self.of[vcpu.number])) == _NEED:
            self._work(vcpu)
            yield from self._restock(vcpu)
