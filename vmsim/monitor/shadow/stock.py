"""Frames that a shadow monitor has at hand for shadow pages, taken from the pool of its VM.

Each vCPU has its own, as in KVM (`kvm_vcpu_arch.mmu_shadow_page_cache`, arch/x86/include/asm/kvm_host.h).
"""

from __future__ import annotations

from vmsim.contracts import Pool, Steps, Vcpu, Words
from vmsim.monitor.shadow.account import Account
from vmsim.monitor.shadow.records import SPARE

__all__ = ["MOST", "Stock"]

MOST = 4 * SPARE  # frames at hand above which the rest go back to the pool


class Stock(Account):
    """The frames at hand of the vCPUs of one VM, and what it costs to take them."""

    pool: Pool
    _stocked: Words  # int64[vCPUs], how many each has

    @property
    def frames_held(self) -> int:
        """Host frames that are shadow pages, or at hand to become some."""
        return int(self.state["used"][0] + self._stocked.sum() + (self.cpus["pae_root"] >= 0).sum())

    def _restock(self, vcpu: Vcpu) -> Steps[None]:
        """Fill the stock of frames for shadow pages; where the pool has too few, the vCPU is suspended."""
        count = 2 * SPARE - int(self._stocked[vcpu.number])
        if count <= 0:
            return
        pages = yield from self.host_pages.take(vcpu, count)
        self._put(vcpu.number, pages)
        self._spend(vcpu, self.costs.violation_pool)

    def unstock(self, vcpu: Vcpu) -> Steps[None]:
        """Give the pool what the stock has too much of, if it has."""
        if int(self._stocked[vcpu.number]) <= MOST:
            return
        yield vcpu.settle()
        stocked = int(self._stocked[vcpu.number])
        if stocked > 2 * SPARE:
            self._stocked[vcpu.number] = 2 * SPARE
            self.pool.put(self.of[vcpu.number].stock[2 * SPARE : stocked])

    def _put(self, number: int, frames: list[int]) -> None:
        """Have a vCPU have more frames at hand."""
        stocked = int(self._stocked[number])
        self.of[number].stock[stocked : stocked + len(frames)] = frames
        self._stocked[number] = stocked + len(frames)
