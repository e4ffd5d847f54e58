"""What a monitor with nested tables does besides, where it backs a guest frame: an entry maps the page."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Flush, Vcpu
from vmsim.frames.buddy import use
from vmsim.frames.records import NO_FRAME, State
from vmsim.machine.formats import ENTRIES, WRITE, NestedFormat
from vmsim.monitor.backing.pages import HostPages
from vmsim.monitor.features.base import Feature
from vmsim.monitor.features.chain import Featured
from vmsim.monitor.tdp.second import NestedEntries
from vmsim.tables.backing import IDENTITY
from vmsim.tables.dirty import split
from vmsim.tables.edit import missing_tables
from vmsim.tables.ranges import take_empty_table

__all__ = ["NestedBacking"]


class NestedBacking(NestedEntries, HostPages, Featured):
    """Pages of a VM that nested entries map."""

    features: list[Feature]
    form: NestedFormat
    root: int
    levels: int
    large: int
    withheld: int

    def entry_bits(self, order: int, *, only_read: bool) -> int:
        """Return what an entry of its own for a page of 2**order frames has besides the address."""
        return self.large if order else self.form.page & (~WRITE if only_read else -1)

    def has_room(self, gpa: int, order: int) -> bool:
        """Return whether its tables could map a page of 2**order frames around `gpa`."""
        return int(missing_tables(self.memory, self.root, self.levels, order // 9 + 1, IDENTITY, gpa)) >= 0

    def replace_table(self, vcpu: Vcpu, gpa: int) -> int:
        """Make room for a large page where a table maps nothing any more; return the cycles, -1: there is none.

        Processors may have kept where the table is. With a dirty log pages stay small.
        """
        if not self.slot.collapses or self.features:
            return -1
        table = int(take_empty_table(self.memory, self.host.frames, self.root, self.levels, gpa))
        if table == NO_FRAME:
            return -1
        use(self.host.frames, np.array([table]), int(State.POOL))
        cycles = self.costs.violation_entry + self.slot.forget(Flush(nested=True), vcpu)
        self.pool.put([table])
        return cycles

    def split(self, gpa: int, table: int, *, alone: bool = False) -> None:
        """Map by a table of smaller pages, in frame `table`, what a large page maps around `gpa`, or that `alone`."""
        bits = self.form.table, self.withheld
        split(self.memory, self.host.frames, self.root, self.levels, gpa, table, *bits, alone)
        entries = self.memory[table * ENTRIES : (table + 1) * ENTRIES]
        entries[:] = np.where(entries, entries & ~self.form.no_execute | self.form.execute, 0)

    def watch(self, dirty: NDArray[np.bool_], reason: str, cycles: int) -> None:
        """Have compiled code note in `dirty`, bool[frames], what it makes writable while `log_writes` is on.

        Parameters
        ----------
        reason : str
            Of exits at which a protected page is made writable.
        cycles : int
            Of such an exit; 0: compiled code handles none.
        """
        self._mode = self._mode._replace(dirty=dirty)
        self._nested["protected"] = cycles
        self.reasons = (*self.reasons, reason)

    def log_writes(self, *, on: bool) -> None:
        """Begin or end to have what becomes writable noted."""
        self._nested["logging"] = on
