"""A process of a paired kernel that is no VM, or not yet: it runs on its KPT, and pays for EPT halves, used or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vmsim.base.ledger import Ledger
from vmsim.contracts import Frames, Mmu, Steps, Vcpu, Words
from vmsim.machine.copies import wrote
from vmsim.machine.formats import EPT, FRAME, NPT, PAGE_SHIFT, NestedFormat
from vmsim.machine.memory import clear_frame
from vmsim.monitor.native.monitor import NativeMonitor
from vmsim.monitor.paired.check import Pair as Roots
from vmsim.monitor.paired.check import problems_of_pairs, tables_in
from vmsim.monitor.paired.commit import make_process_mode, steps_of
from vmsim.monitor.paired.layout import NO_EPT, PAGE_BYTES, Pair, PairedHost, halves, order_of, price
from vmsim.monitor.paired.mirror import store_mirrored
from vmsim.monitor.paired.mode import Layout
from vmsim.monitor.paired.space import Pages, PairedSpace, beyond, flags_of, mirrored
from vmsim.scenario.cpu import Cpu
from vmsim.tables.backing import IDENTITY
from vmsim.tables.edit import store_entries

__all__ = ["Halves", "PairedMmu", "PairedProcess", "nested_format"]


class LimitedFrames(Frames, Protocol):
    """Where the pages of a bare program come from."""

    def charge(self, frames: int) -> None:
        """Count frames that come from elsewhere, or went back there, towards the limit."""


def nested_format(cpu: Cpu, layout: Layout) -> tuple[NestedFormat, str]:
    """Return the format of the nested tables of paired processes on a CPU, and the reason of the exits that fill them.

    NPT's is that of page tables (AMD APM vol. 2 §15.25.5), EPT's is not (Intel SDM vol. 3C §30.3.2).
    """
    has = {*cpu.modes}
    if layout == "shared" or ("ept" not in has and ("npt" in has or cpu.vendor == "amd")):
        return NPT, "NPF"
    return EPT(ad_bits=cpu.ept_ad), "EPT_VIOLATION"


class Halves:
    """Where the second halves of the tables of a process are, if it has any.

    Attributes
    ----------
    guest : bool
        The process is a VM.
    second : dict
        In separate trees, the frame of each EPT table by that of its KPT table: where a second walk leads.
    """

    def __init__(self, shared: PairedHost, layout: Layout, *, owner: int, levels: int) -> None:
        self.shared = shared
        self.layout: Layout = layout
        self.levels = levels
        self.guest = False
        self.second: dict[int, int] = {}
        self.work = shared.spent(owner)

    @property
    def two(self) -> bool:
        """Whether tables have a second half now."""
        return halves(self.layout, guest=self.guest) == 2

    def of(self, lower: int) -> Pair:
        """Return both halves of a table by the frame of its KPT half."""
        if self.layout == "separate":
            return lower, self.second.get(lower, NO_EPT)
        return self.shared.pair_of(self.layout, lower)

    def moved(self, old: int, new: int) -> None:
        """Note that the half in a frame lies in another."""
        self.shared.moved(self.layout, old, new)
        self.second = {
            new if lower == old else lower: new if upper == old else upper for lower, upper in self.second.items()
        }

    def twins(self, places: Words, work: Counter[str]) -> Words:
        """Return the places of the EPTEs of the KPTEs at `places` (hpas, int64[n]); `work` gets the steps."""
        if self.layout != "separate":
            return self.shared.twins(self.layout, places, work)
        tables, which = np.unique(places >> PAGE_SHIFT, return_inverse=True)
        work["load"] += self.levels * len(tables)
        found = np.array([self.second[table] for table in tables.tolist()], np.int64)
        return np.asarray(found[which] << PAGE_SHIFT | places & (PAGE_BYTES - 1))


class PairedMmu:
    """What a kernel does to KPTEs, done to their EPTEs as well.

    Parameters
    ----------
    inner : Mmu
        The processor's own.
    tables : Halves
        Where the second halves are.
    form : NestedFormat
        Of the EPT, or NPT.
    owner : int
        Number of the process.
    flush_nested : callable
        Makes the processors forget nested translations of the process.
    known : bool, optional
        Compiled code stores entries too: of a process that never is a VM, unless its halves lie behind pointers.

    Attributes
    ----------
    kept : tuple of int
        Addresses [first, limit) that are neither unmapped nor protected with what is around them: a guest's tables.
    """

    traps = True  # every load and store of an entry comes through here
    loads_trap = True
    unseen = False
    broadcasts = False

    def __init__(
        self,
        inner: Mmu,
        tables: Halves,
        form: NestedFormat,
        *,
        owner: int,
        flush_nested: Callable[[], None],
        known: bool = False,
    ) -> None:
        self.inner = inner
        self.tables = tables
        self.shared = tables.shared
        self.memory = self.shared.memory
        self.frames = self.shared.host.frames
        self.form = form
        self.owner = owner
        self.flush_nested = flush_nested
        self.work = tables.work
        self.kept = 0, 0
        self.known = known

    @property
    def backing(self) -> Words:
        """Nothing lies between the process's tables and memory."""
        return self.inner.backing

    def read(self, vcpu: Any, places: Words) -> Steps[Words]:
        """Load KPTEs; accessed and dirty are in them if the EPTE has the flag. Of a process that is no VM none has.

        It costs nothing more: the step `store` is an entry loaded and stored.
        """
        values: Words = self.memory[places >> 3]
        if self.tables.guest and self.tables.two and len(places):
            eptes = self.memory[self.tables.twins(places, Counter()) >> 3]
            values |= np.where(values != 0, flags_of(eptes, self.form), 0)
        return values
        yield

    def write(self, vcpu: Any, places: Words, values: Words) -> Steps[None]:
        """Store KPTEs, and the EPTEs that say the same."""
        if not self.tables.two:
            store_entries(self.memory, IDENTITY, places, values, 9)
        elif len(places):
            twins, links, form = self._twins(vcpu, places), np.empty(len(places), np.int64), self.form
            given = self.memory, self.frames, places, values, twins
            count = store_mirrored(*given, form.page, form.accessed, form.dirty, links)
            for index in links[:count].tolist():  # tables, that point to the other half
                half = self.tables.of(int(values[index] & FRAME) >> PAGE_SHIFT)[1]
                self.memory[twins[index] >> 3] = half << PAGE_SHIFT | form.table
            self.work["store"] += len(places)
            vcpu.owe("guest_fault", len(places) * self.shared.costs["store"])
        return
        yield

    def took(self) -> None:
        """Do nothing: each store comes through `write`."""

    def clear(self, vcpu: Any, gpa: int, order: int, *, table: bool) -> Steps[None]:
        """Zero both halves of a frame that becomes a table."""
        if table:
            for frame in self.tables.of(gpa >> PAGE_SHIFT):
                if frame != NO_EPT:
                    clear_frame(self.memory, frame << PAGE_SHIFT)
        return
        yield

    def load_root(self, vcpu: Any, root: int, space: int, *, keep: bool) -> Steps[None]:
        """Point CR3 to a KPT."""
        yield from self.inner.load_root(vcpu, root, space, keep=keep)

    def invalidate(self, vcpu: Any, first: int, last: int, *, order: int = 0) -> Steps[None]:
        """Forget the pages of a range; of a VM, all of its nested translations (Akaros ept_inval_addr: INVEPT)."""
        yield from self.inner.invalidate(vcpu, first, last, order=order)
        if self.tables.guest:
            self.flush_nested()

    def flush(self, vcpu: Any) -> Steps[None]:
        """Forget the current space."""
        yield from self.inner.flush(vcpu)
        if self.tables.guest:
            self.flush_nested()

    def release(self, vcpu: Any, root: int, space: int) -> Steps[None]:
        """Keep nothing under the number."""
        yield from self.inner.release(vcpu, root, space)

    def space(self, root: int) -> PairedSpace:
        """Return both tables of the address space whose KPT has its root at hpa `root`."""
        space = PairedSpace(
            self.shared,
            self.form,
            owner=self.owner,
            levels=self.tables.levels,
            layout=self.tables.layout,
            guest=self.tables.guest,
            whole=True,
        )
        space.work = self.work
        space.kpt, space.ept = (frame << PAGE_SHIFT for frame in self.tables.of(root >> PAGE_SHIFT))
        return space

    def unmap(self, vcpu: Any, root: int, first: int, limit: int) -> Pages:
        """Unmap the pages of [first, limit) in both tables; return the entries, with the flags of either."""
        space, before = self.space(root), self.work.copy()
        gone = Pages.of(space.unmap(*part) for part in self._around_kept(first, limit))
        self._pay(vcpu, before)
        return gone

    def protect(self, vcpu: Any, root: int, first: int, limit: int, new: Callable[[Pages], Words]) -> Pages:
        """Give the pages of [first, limit) other entries in both tables; return those that they had."""
        space, before = self.space(root), self.work.copy()
        seen = Pages.of(space.protect(*part, new) for part in self._around_kept(first, limit))
        self._pay(vcpu, before)
        return seen

    @property
    def walked(self) -> bool:
        """Whether processors walk the second halves: the process is a VM."""
        return self.tables.guest

    def follow(self, places: Words) -> None:
        """Have EPTEs say what the KPTEs at some places (hpas, int64[n]) say, which the host has changed."""
        if self.tables.two and len(places):
            twins = self.tables.twins(places, Counter()) >> 3
            self.memory[twins] = mirrored(self.memory[places >> 3], self.memory[twins], self.form)
            wrote(self.memory, twins << 3)

    def accessed(self, places: Words, *, clear: bool) -> NDArray[np.bool_]:
        """Return which EPTEs, those of KPTEs at some places, have the flag accessed, bool[n]; take it if asked to."""
        if not (self.tables.guest and self.tables.two) or not len(places):
            return np.zeros(len(places), np.bool_)
        twins = self.tables.twins(places, Counter()) >> 3
        found = np.asarray(self.memory[twins] & self.form.accessed != 0)
        if clear:
            self.memory[twins] &= ~self.form.accessed
            wrote(self.memory, twins << 3)
        return found

    def become_guest(self, root: int, frames: list[int]) -> int:
        """Make the process with this root a VM, with `frames` for new tables; return the root of its nested tables."""
        space = self.space(root)
        self.tables.second = space.become_guest(frames)
        self.tables.guest = True
        return space.ept or space.kpt

    def _around_kept(self, first: int, limit: int) -> list[tuple[int, int]]:
        """Return the parts of [first, limit) without what is kept."""
        parts = (first, min(limit, self.kept[0])), (max(first, self.kept[1]), limit)
        return [part for part in parts if part[0] < part[1]]

    def _pay(self, vcpu: Any, before: Counter[str]) -> None:
        """Pay for what ranges took beyond what the kernel counts: a walk of each table and a store of each entry."""
        vcpu.owe("guest_fault", price(beyond(self.work - before, self.tables.levels), self.shared.costs))

    def _twins(self, vcpu: Any, places: Words) -> Words:
        if self.tables.layout == "contiguous":  # of one size and known: it takes no steps
            return self.tables.twins(places, self.work)
        before = self.work.copy()
        twins = self.tables.twins(places, self.work)
        vcpu.owe("guest_fault", price(self.work - before, self.shared.costs))
        return twins


class PairedProcess(NativeMonitor):
    """A process that is no VM: its kernel handles its page faults, and keeps a second half of each of its tables.

    Parameters
    ----------
    paired : PairedMmu
        How the kernel edits both.
    """

    def __init__(self, paired: PairedMmu) -> None:
        super().__init__(paired.memory)
        self.paired = paired
        self.compiled = paired.known
        two, each = paired.tables.two, paired.shared.costs["store"]
        self._process = make_process_mode(paired.memory, paired.frames, paired.form, two=two, each=each)
        self.table_order = order_of(paired.tables.layout)

    def table_moved(self, old: int, new: int) -> None:
        """Have the other half find it."""
        self.paired.tables.moved(old, new)

    def fast(self, vcpu: Vcpu) -> Any:
        """Return its state as compiled code handles page faults with it."""
        return self._process if self.compiled else None

    def register(self, ledger: Ledger) -> None:
        """Say what it counts, and what was done to its tables."""
        super().register(ledger)
        ledger.counters("paired", self._work)

    def _work(self) -> Counter[str]:
        """Return the steps so far, those of compiled code among them."""
        work = self.paired.work.copy()
        work.update(steps_of(self._process, self.paired.tables.levels))
        return work

    @property
    def pairs(self) -> list[Roots]:
        """Both tables of each address space, if there are two."""
        tables = self.paired.tables
        if tables.layout == "shared" or not tables.two:
            return []
        roots = {process.space.root for process in self.kernel.processes.values()}
        halves = [tables.of(root >> PAGE_SHIFT) for root in sorted(roots)]
        end = 1 << (PAGE_SHIFT + 9 * tables.levels)
        return [(kpt << PAGE_SHIFT, ept << PAGE_SHIFT, tables.levels, end) for kpt, ept in halves]

    @property
    def frames_held(self) -> int:
        """Second halves of tables, of which there are as many as first ones."""
        return tables_in(self.memory, self.pairs)

    def problems(self, frames: NDArray[Any]) -> Iterable[str]:
        """Yield what KPTs and EPTs do not have in common."""
        return problems_of_pairs(self.memory, self.pairs, nested="NPT" if self.paired.form == NPT else "EPT")
