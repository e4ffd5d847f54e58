"""What all monitors have in common whose own tables the hardware walks, in place of the guest's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from vmsim.contracts import Mmu, Steps, Vcpu, Words
from vmsim.contracts.commit import make_bill
from vmsim.frames.records import State
from vmsim.machine.formats import CODE_PRESENT, CODE_WRITE, PAGE_SHIFT
from vmsim.monitor.backing.commit import NestedMode
from vmsim.monitor.backing.pages import HostPages
from vmsim.monitor.backing.touching import Touching
from vmsim.monitor.base import table_on_way
from vmsim.tables.backing import SHARED

__all__ = ["TableKeeper"]


class TableKeeper(Touching, ABC):
    """A monitor that gets every page fault first, and keeps tables from gva to hpa; the guest's `Mmu` as well.

    Attributes
    ----------
    host_pages : HostPages
        Where the pages of guest memory come from.
    """

    host_pages: HostPages
    backing: Words
    _finding = 0  # cycles of finding the host's page of a guest frame
    _touched = 0, 0  # cycles of an exit at a frame that the kernel writes to, before it has a page and since

    def exited(self, vcpu: Vcpu) -> None:
        """Forget nothing: the host's page faults leave no guest in the processor's sense."""

    def start_bills(self, vcpus: int) -> None:
        """Have nothing on the bills of so many vCPUs."""
        self.bills = make_bill(vcpus)
        self._spent = self.bills["spent"]  # cycles of the exit under way, by vCPU

    def price_touches(self, before: int, after: int, reason: int) -> None:
        """Say what an exit costs at a frame that the guest's kernel writes to, before it has a page and since."""
        self._touched = before, after
        self.host_pages.price_touches(before=before + self._finding, after=after, reason=reason)

    def plain_mmu(self, hardware: Mmu) -> Mmu:
        """Return itself: it is how the guest's kernel reaches its tables."""
        return self  # type: ignore[return-value]  # each of its kinds is one

    def prepare(self, take: Callable[[int, State], list[int]]) -> None:
        """Back all guest memory before the clock starts, and take what it needs at hand."""
        self.host_pages.prepare(take)
        self.provide(take(self.first_frames, State.POOL))

    @abstractmethod
    def provide(self, frames: list[int]) -> None:
        """Take `first_frames` of the host's frames, before the clock starts."""

    def create(self, vcpu: Vcpu) -> Steps[None]:
        """Take from the pool what no guest can start without."""
        yield from self.host_pages.create(vcpu)

    @property
    def unfinished_cycles(self) -> int:
        """Cycles of exits that are not over, and so in none of the exits' figures yet."""
        return int(self._spent.sum())

    def frames_of(self, gfns: Words) -> Words:
        """Return the host's frames that hold guest frames, int64[n]; each must be backed."""
        return self.host_pages.frames_of(gfns)

    def brought(self) -> None:
        """Have the host note what compiled code has brought back."""
        self.host_pages.brought()

    def forget(self) -> None:
        """Forget the exits so far: they were made before the clock started."""
        self.exits.clear()
        self.exit_cycles.clear()

    def took(self) -> None:
        """Do nothing: where stores trap, each is made by itself."""

    def table_on_way(self, table: int, level: int, wanted: int, gva: int) -> int:
        """Return the hpa of a table of its own, which the hardware walks and finds by its hpa."""
        return table_on_way(self.memory, (0, 0), table, level, wanted, gva)

    def memory_pages(self, vcpu: Vcpu) -> NestedMode | None:
        """Return the pages of guest memory as compiled code takes them."""
        return self.host_pages.nested if self.compiled else None

    def touch_one(self, vcpu: Vcpu, gfn: int) -> Steps[None]:
        """Handle the exit at one frame that the guest's kernel writes to."""
        start, (entry, after) = vcpu.now, self._touched
        before, vcpu.kind = vcpu.kind, 0
        self.exited(vcpu)
        with vcpu.first():
            self._spend(vcpu, entry)
            yield from self._back(vcpu, gfn)
            self._spend(vcpu, after)
        self._count(vcpu, "HOST_FAULT")
        self.latency.note(vcpu, start, before)

    def back_one(self, vcpu: Vcpu, gfn: int) -> Steps[int]:
        """Back a frame in an exit that another counts; its own tables map it when it is accessed."""
        cycles = self._finding + (yield from self.host_pages.back(vcpu, gfn << PAGE_SHIFT, CODE_WRITE))
        vcpu.owe("exit", cycles)
        return cycles

    def _back(self, vcpu: Vcpu, gfn: int, code: int = CODE_WRITE) -> Steps[None]:
        """Have the host back a guest frame, to be written to unless the error code says otherwise.

        One that may be read already is wanted for more.
        """
        self._spend(vcpu, self._finding)
        if self.backing[gfn] & SHARED:
            code |= CODE_WRITE
        cycles = yield from self.host_pages.back(vcpu, gfn << PAGE_SHIFT, code)
        self._spend(vcpu, cycles)

    def _hand_over(self, vcpu: Vcpu, reason: str, code: int) -> None:
        """End the exit under way, which hands a page fault with its error code to the guest's kernel."""
        if not code & CODE_PRESENT:
            vcpu.first_touch["exit"] += int(self._spent[vcpu.number])
        self._count(vcpu, reason)

    def _spend(self, vcpu: Vcpu, cycles: int) -> None:
        """Use cycles in the exit under way."""
        vcpu.owe("exit", cycles)
        self._spent[vcpu.number] += cycles

    def _count(self, vcpu: Vcpu, reason: str, count: int = 1) -> None:
        """End exits of a kind."""
        self.exits[reason] += count
        self._close(vcpu, reason)

    def _close(self, vcpu: Vcpu, reason: str) -> None:
        """Give what the exit under way has cost to a reason."""
        if spent := int(self._spent[vcpu.number]):
            self.exit_cycles[reason] += spent
            self._spent[vcpu.number] = 0
