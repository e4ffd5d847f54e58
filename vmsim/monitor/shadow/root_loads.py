"""Loads of CR3 under a shadow: which shadow pages a vCPU's CR3 leads to, and its PDPTEs under PAE."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Steps, Vcpu, Words, ensure
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.monitor.shadow.records import SPARE
from vmsim.monitor.shadow.roots import load_root
from vmsim.monitor.shadow.stock import Stock
from vmsim.tables.edit import load_entries

__all__ = ["RootLoads"]


class RootLoads(Stock):
    """The roots of the vCPUs of one VM."""

    memory: Words
    registers: NDArray[Any]
    _pae: bool

    def _load(self, vcpu: Vcpu, root: int) -> Steps[None]:
        """Set CR3, and PDPTEs with it, to the shadow of a root."""
        yield from self._load_pointers(vcpu, root)
        while (hpa := int(load_root(self.of[vcpu.number], root >> PAGE_SHIFT, SPARE))) < 0:
            self._flush_tlbs(vcpu)
            yield from self._restock(vcpu)
        self._point(vcpu.number, hpa)

    def _load_pointers(self, vcpu: Vcpu, root: int) -> Steps[None]:
        """Read a PAE guest's PDPTEs, as its load of CR3 has the processor do."""
        if self.state["levels"][0] == 3:
            places = root + 8 * np.arange(4)
            yield from ensure(vcpu, self, places[:1] >> PAGE_SHIFT)
            load_entries(self.memory, self.backing, places, self.cpus["pdpte"][vcpu.number], 9)

    def _point(self, cpu: int, hpa: int) -> None:
        """Have a vCPU's CR3 hold what `load_root` has said, and its registers the PDPTEs there."""
        self.registers["cr3"][cpu] = hpa
        if self._pae:
            self.registers["pdpte"][cpu] = self.memory[hpa >> 3 : (hpa >> 3) + 4]
