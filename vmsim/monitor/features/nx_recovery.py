"""What becomes of pages that were split to be fetched from: now and then those split longest ago are made whole.

KVM's worker, arch/x86/kvm/mmu/mmu.c, `kvm_recover_nx_huge_pages`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from vmsim.contracts import LiveVm, Steps, Vcpu
from vmsim.monitor.features.base import Feature, Monitored
from vmsim.scenario.nx_split import NxSplitSpec

__all__ = ["SPLIT", "NxRecovery"]

SPLIT, _RECOVERY = "NX_SPLIT", "NX_RECOVERY"


class NxRecovery(Feature, ABC):
    """The worker of one VM.

    Parameters
    ----------
    tdp : Monitored
        The monitor.
    spec : NxSplitSpec
        When pages are recovered.
    flush : callable
        Makes the processors forget translations.
    """

    def __init__(self, tdp: Monitored, spec: NxSplitSpec, flush: Callable[[], None]) -> None:
        super().__init__(tdp, SPLIT, _RECOVERY)
        self.spec = spec
        self._flush = flush

    @abstractmethod
    def split_pages(self) -> list[int]:
        """Return the pages that are split now, the first of them longest ago."""

    @abstractmethod
    def clear(self, pages: list[int]) -> int:
        """Take away what maps some of them by small pages; return of how many."""

    def run(self, vm: LiveVm) -> Steps[None]:
        """Recover pages whenever it is time."""
        while True:
            yield vm.env.background(self.spec.period)
            if self.over:
                return
            self.recover(vm.vcpus, vm.env.cycle)

    def recover(self, vcpus: Sequence[Vcpu], now: int) -> None:
        """Recover some of the pages that were split. The host does it on a core of its own.

        A vCPU that runs pays an exit, for its processor has to forget the translations.
        """
        pages = self.split_pages()
        count = -(-len(pages) // self.spec.ratio) if self.spec.ratio else 0
        if count := count and self.clear(pages[:count]):
            self._flush()
            cycles = count * self.costs.violation_entry + self._kick(vcpus, _RECOVERY)
            self.tdp.lock.hold(now, cycles)
