"""The monitor of mode prefault."""

from vmsim.base.ledger import Ledger
from vmsim.contracts import Steps, Vcpu
from vmsim.machine.formats import EPT
from vmsim.monitor.parts import VmParts
from vmsim.monitor.tdp.build import leave_untagged
from vmsim.monitor.tdp.monitor import Tdp


class PrefaultMonitor(Tdp):
    """EPT's monitor, which counts how many windows it has mapped."""

    windows = 0

    def fast(self, vcpu: Vcpu) -> None:
        """Return None: compiled code knows no windows."""
        return

    def violation(self, vcpu: Vcpu, gpa: int, code: int = 0) -> Steps[None]:
        """Map a window around what was touched."""
        yield from super().violation(vcpu, gpa, code)
        self.windows += 1

    def register(self, ledger: Ledger) -> None:
        """Say what it counts."""
        super().register(ledger)
        ledger.counters("prefault", lambda: {"windows": self.windows})


def build(parts: VmParts) -> PrefaultMonitor:
    """Return the monitor, its chunk the window."""
    spec = parts.spec
    return PrefaultMonitor(
        parts.memory,
        parts.registers,
        parts.host,
        parts.pool,
        EPT(ad_bits=parts.cpu.ept_ad),
        parts.slot,
        owner=spec.index,
        levels=spec.host_levels,
        page_order=spec.host_order,
        costs=parts.cpu.cost,
        chunk=spec.own.pages,
        reason="PREFAULT",
        exited=leave_untagged if spec.tags == "none" else None,
    )
