"""What a monitor's features add to it: any number of them, in a chain."""

from __future__ import annotations

from collections.abc import Sequence

from vmsim.base.ledger import Ledger
from vmsim.contracts import Mmu, Steps, Vcpu, Worker
from vmsim.monitor.base import BaseMonitor
from vmsim.monitor.features.base import Feature
from vmsim.record.log import Log
from vmsim.record.outcome import DirtyRound

__all__ = ["Featured"]


class Featured(BaseMonitor):
    """A monitor with features, in the order in which they were added."""

    features: list[Feature]

    def add(self, feature: Feature) -> None:
        """Have a feature handle exits before itself, after those that were added before."""
        self.features.append(feature)

    @property
    def workers(self) -> Sequence[Worker]:
        """Its features, which have something to do now and then."""
        return self.features

    def guest_mmu(self, hardware: Mmu) -> Mmu:
        """Return how the guest's kernel reaches its tables, where features watch what it stores."""
        hardware = super().guest_mmu(hardware)
        for feature in self.features:
            hardware = feature.guest_mmu(hardware)
        return hardware

    def begin(self, vcpu: Vcpu) -> Steps[None]:
        """Begin what its features do."""
        for feature in self.features:
            yield from feature.begin(vcpu)

    def finish(self, vcpu: Vcpu) -> None:
        """End what its features do."""
        for feature in self.features:
            feature.finish(vcpu)

    @property
    def rounds(self) -> Log[DirtyRound]:
        """Readings of a dirty log."""
        return next((feature.rounds for feature in self.features if feature.rounds is not None), super().rounds)

    def register(self, ledger: Ledger) -> None:
        """Say what it counts, and what its features do."""
        super().register(ledger)
        for feature in self.features:
            feature.register(ledger)
