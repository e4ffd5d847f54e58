"""The dirty log of a VM under agile paging: by the shadow's entries, and past a switch by the nested tables'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Steps, Vcpu
from vmsim.monitor.features.dirty_log import DirtyLog
from vmsim.monitor.features.protect_log import Protected, ProtectLog
from vmsim.monitor.tdp.monitor import Tdp
from vmsim.scenario.dirty_log import DirtyLogSpec

__all__ = ["AgileLog"]


class Switching(Protected, Protocol):
    """A monitor whose walks may switch from a shadow to nested tables."""

    host_pages: Tdp


class AgileLog(ProtectLog):
    """One log that two sets of tables are protected for.

    Parameters
    ----------
    monitor : Switching
        The monitor.
    spec, flush, dirty
        As of `ProtectLog`; both halves note pages in `dirty`.

    Attributes
    ----------
    nested : DirtyLog
        Who handles violations of protected pages, and splits large nested pages; this log is read in its place.
    """

    def __init__(
        self, monitor: Switching, spec: DirtyLogSpec, flush: Callable[[], None], dirty: NDArray[np.bool_]
    ) -> None:
        super().__init__(monitor, spec, flush, dirty)
        tables = monitor.host_pages
        tables.exits, tables.exit_cycles = monitor.exits, monitor.exit_cycles
        self.nested = DirtyLog(tables, spec, flush, dirty)
        tables.add(self.nested)

    def begin(self, vcpu: Vcpu) -> Steps[None]:
        """Start logging: nothing may be written to unnoticed."""
        yield from self.nested.begin(vcpu)
        yield from super().begin(vcpu)

    def end(self) -> None:
        """Stop logging in both."""
        super().end()
        self.nested.end()

    def pieces(self) -> tuple[int, int]:
        """Return how many large pages were split and came back, in the shadow and in the nested tables."""
        return self.splits + self.nested.splits, self.collapses + self.nested.collapses
