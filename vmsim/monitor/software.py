"""What all monitors have in common whose own tables the hardware walks, in place of the guest's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from vmsim.contracts import Mmu, Steps, Vcpu, Words
from vmsim.frames.buddy import State
from vmsim.machine.formats import CODE_PRESENT
from vmsim.monitor.backing.pages import HostPages
from vmsim.monitor.base import BaseMonitor, table_on_way

__all__ = ["TableKeeper"]


class TableKeeper(BaseMonitor, ABC):
    """A monitor that gets every page fault first, and keeps tables from gva to hpa; the guest's `Mmu` as well.

    Attributes
    ----------
    host_pages : HostPages
        Where the pages of guest memory come from.
    """

    host_pages: HostPages
    backing: Words
    _bills: list[int]  # cycles of the exit under way, by vCPU

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
        return sum(self._bills)

    def frames_of(self, gfns: Words) -> Words:
        """Return the host's frames that hold guest frames, int64[n]; each must be backed."""
        return self.host_pages.frames_of(gfns)

    def forget(self) -> None:
        """Forget the exits so far: they were made before the clock started."""
        self.exits.clear()
        self.exit_cycles.clear()

    def took(self) -> None:
        """Do nothing: where stores trap, each is made by itself."""

    def table_on_way(self, table: int, level: int, wanted: int, gva: int) -> int:
        """Return the hpa of a table of its own, which the hardware walks and finds by its hpa."""
        return table_on_way(self.memory, (0, 0), table, level, wanted, gva)

    def _hand_over(self, vcpu: Vcpu, reason: str, code: int) -> None:
        """End the exit under way, which hands a page fault with its error code to the guest's kernel."""
        if not code & CODE_PRESENT:
            vcpu.first_touch["exit"] += self._bills[vcpu.number]
        self._count(vcpu, reason)

    def _spend(self, vcpu: Vcpu, cycles: int) -> None:
        """Use cycles in the exit under way."""
        vcpu.owe("exit", cycles)
        self._bills[vcpu.number] += cycles

    def _count(self, vcpu: Vcpu, reason: str, count: int = 1) -> None:
        """End exits of a kind."""
        self.exits[reason] += count
        self._close(vcpu, reason)

    def _close(self, vcpu: Vcpu, reason: str) -> None:
        """Give what the exit under way has cost to a reason."""
        if self._bills[vcpu.number]:
            self.exit_cycles[reason] += self._bills[vcpu.number]
            self._bills[vcpu.number] = 0
