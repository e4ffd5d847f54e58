"""Page tables that are replicated on the nodes of a host: which tables have copies, and what these cost.

Mitosis (Achermann et al., ASPLOS 2020) copies the tables of a process to every node that it runs on, vMitosis (Panwar
et al., ASPLOS 2021) the nested and shadow tables of a VM. Each core walks the copy of its node, and an edit is made in
all of them. What a copy is to hardware is in `vmsim.machine.copies`; here are its frames. A table that an entry leads
to is copied before a vCPU goes on, and its copies are freed when it is a table no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.base.ledger import Ledger
from vmsim.frames.nodes import node_of
from vmsim.frames.records import State
from vmsim.host.memory import HostMemory
from vmsim.machine.copies import JOURNAL, OWNER_BITS, rows_of
from vmsim.machine.formats import ENTRIES, FRAME, PAGE_SHIFT
from vmsim.scenario.cost import Cost

__all__ = ["CopiedTables", "NoCopies", "TableCopies"]

Words = NDArray[np.int64]


class CopiedTables:
    """The tables of one VM that has copies of them.

    Parameters
    ----------
    host : TableCopies
        Of all VMs.
    owner : int
        The VM.
    nodes : sequence of int
        Those that its vCPUs run on.
    halves : bool
        Its tables may have entries of 4 bytes (32-bit paging).

    Attributes
    ----------
    copies : dict
        The frames of a table's copies, by the table's frame.
    counts : Counter
        Copies that were `made`, `freed`, and that `failed` as their node had no frame above its watermark; entries of
        copies that software has written (`writes`) and read (`reads`), and its `cycles` for all of these.
    """

    def __init__(self, host: TableCopies, owner: int, nodes: Sequence[int], *, halves: bool) -> None:
        self.host = host
        self.owner = owner
        self.nodes = nodes
        self.copies: dict[int, list[int]] = {}
        self._made: set[int] = set()
        self.counts: Counter[str] = Counter(dict.fromkeys(("made", "freed", "failed", "writes", "reads", "cycles"), 0))
        self._forms = (np.int64, np.uint32) if halves else (np.int64,)
        self._unpaid = 0

    def register(self, ledger: Ledger) -> None:
        """Say what it counts."""
        ledger.counters("table_copies", lambda: self.counts)

    @property
    def held(self) -> int:
        """Frames of copies."""
        return sum(map(len, self.copies.values()))

    def pay(self, node: int) -> int:
        """Return the cycles of what was done since this was last asked, by a core of a node.

        A table that is copied costs a page for a table and the copying of it; an entry of a copy a load from its node.
        """
        done = self.host.done[:, self.owner]
        cycles, self._unpaid = self._unpaid, 0
        if done.any():
            self.counts["writes"] += int(done[0].sum())
            self.counts["reads"] += int(done[1].sum())
            cycles += int(done.sum(axis=0) @ self.host.loads[node])
            done[:] = 0
        self.counts["cycles"] += cycles
        return cycles

    def load(self, registers: Any) -> None:
        """Have copies of what is reached from a vCPU's registers, record[1]; what holds gpas leads to no host table."""
        now = registers[0]
        roots, switch = [int(now["nested_root"])], int(now["switch"])
        if not now["nested_levels"] or switch & ~int(now["cr3"]):
            roots += [int(now["cr3"]), *now["pdpte"].tolist()]
        for pfn in {(root & FRAME) >> PAGE_SHIFT for root in roots if root}:
            self.reach(pfn)

    def reach(self, pfn: int) -> None:
        """Have copies of the tables from one on that an entry, or a register, leads to."""
        unknown = [pfn]
        while unknown:
            each = unknown.pop()
            if self._lacks(each):
                self._copy(each)
                unknown += self.below(self.host.memory[each * ENTRIES : (each + 1) * ENTRIES])

    def below(self, words: Words) -> list[int]:
        """Return the tables without copies that entries lead to."""
        entries = np.concatenate([words.view(form).astype(np.int64) for form in self._forms])
        pfns = np.unique((entries[entries != 0] & FRAME) >> PAGE_SHIFT)
        return [pfn for pfn in pfns.tolist() if self._lacks(pfn)]

    def _lacks(self, pfn: int) -> bool:
        frames = self.host.host.frames
        return pfn < len(frames) and pfn not in self.copies and pfn not in self._made and self._is_table(pfn)

    def _is_table(self, pfn: int) -> bool:
        frames = self.host.host.frames
        return bool(frames["state"][pfn] == State.TABLE and frames["owner"][pfn] == self.owner)

    def _copy(self, pfn: int) -> None:
        """Copy a table to the nodes that the VM runs on, but for its own."""
        host, row = self.host.host, self.host.rows[pfn]
        home = int(node_of(host.zone, np.array([pfn]))[0])
        made: list[int] = []
        row[1:] = pfn
        for node in self.nodes:
            if node == home:
                continue
            least = int(host.zone["min_mark"][1 + node])
            taken = host.take_on(node, int(host.free > host.marks.min), least=least)
            if not len(taken):
                self.counts["failed"] += 1
                continue
            host.hand_over(taken, self.owner, State.TABLE)
            made.append(int(taken[0]))
            host.frames["rmap"][made[-1]] = 0
            row[1 + node] = made[-1]
        if made:
            self.host.memory[made[0] * ENTRIES : (made[0] + 1) * ENTRIES] = 0
        row[0] = (made[0] + 1 if made else 0) << OWNER_BITS | self.owner + 1
        self.copies[pfn] = made
        self._made.update(made)
        self.counts["made"] += len(made)
        self._unpaid += len(made) * self.host.page_cycles

    def drop_old(self) -> None:
        """Free the copies of what is a table no more."""
        frames = self.host.host.frames
        pfns = np.fromiter(self.copies, np.int64, len(self.copies))
        gone = (frames["state"][pfns] != State.TABLE) | (frames["owner"][pfns] != self.owner)
        for pfn in pfns[gone].tolist():
            self._drop(pfn)

    def _drop(self, pfn: int) -> None:
        self.host.rows[pfn] = 0
        made = self.copies.pop(pfn)
        self._made.difference_update(made)
        self.counts["freed"] += len(made)
        if made:
            self.host.memory[made[0] * ENTRIES : (made[0] + 1) * ENTRIES] = 0
            self.host.host.give(np.array(made))

    def close(self) -> None:
        """Free all copies: the VM is gone."""
        for pfn in list(self.copies):
            self._drop(pfn)


class TableCopies:
    """The tables with copies of a host's VMs.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory, with room for what is said of copies (`machine.memory.physical_memory`).
    host : HostMemory
        Who has which frame.
    costs : Cost
        Of a page for a table, and of copying one.
    loads : sequence of sequence of int
        Cycles of a load from each node's cores that the memory of each serves: [of][to].
    owners : int
        VMs.
    """

    def __init__(
        self, memory: Words, host: HostMemory, costs: Cost, loads: Sequence[Sequence[int]], owners: int
    ) -> None:
        self.memory = memory
        self.host = host
        self.loads = np.array(loads, np.int64)
        self.page_cycles = costs.table_page + costs.copy_page
        self.rows, self.done, self._journal = rows_of(memory, host.size, len(loads), owners)
        self.vms: dict[int, CopiedTables] = {}

    def join(self, owner: int, nodes: Sequence[int], *, halves: bool) -> CopiedTables:
        """Have a VM's tables copied to the nodes that its vCPUs run on."""
        self.vms[owner] = made = CopiedTables(self, owner, nodes, halves=halves)
        return made

    def begin(self, owner: int, registers: NDArray[Any]) -> None:
        """Have copies of the tables that a VM starts with, record[n] of its vCPUs: they take no time."""
        self.settle()
        if vm := self.vms.get(owner):
            vm.load(registers)
            vm.pay(vm.nodes[0])
            vm.counts["cycles"] = 0

    def edited(self, owner: int) -> int:
        """Return the cycles of what a daemon of the host's has done to a VM's copies."""
        vm = self.vms.get(owner)
        return vm.pay(vm.nodes[0]) if vm else 0

    @property
    def pending(self) -> bool:
        """Whether software has written to tables and nobody has looked yet."""
        return bool(self._journal[0])

    def held(self, owner: int) -> int:
        """Return how many frames of a VM are copies."""
        vm = self.vms.get(owner)
        return vm.held if vm else 0

    def close(self, owner: int) -> None:
        """Free the copies of a VM that is gone."""
        if vm := self.vms.pop(owner, None):
            vm.close()

    def settle(self) -> None:
        """Look at what software has written to tables: copy those that are new, free the copies of old ones."""
        written = int(self._journal[0])
        if not written:
            return
        self._journal[0] = 0
        for vm in self.vms.values():
            vm.drop_old()
            if written > JOURNAL:
                pages = [np.arange(pfn * ENTRIES, (pfn + 1) * ENTRIES) for pfn in vm.copies]
                places = np.concatenate(pages) if pages else np.empty(0, np.int64)
            else:
                places = np.unique(self._journal[1 : 1 + written] >> 3)
                places = places[np.isin(places // ENTRIES, np.fromiter(vm.copies, np.int64, len(vm.copies)))]
            for pfn in vm.below(self.memory[places]):
                vm.reach(pfn)


class NoCopies:
    """Those of a host none of whose tables has copies."""

    def begin(self, owner: int, registers: NDArray[Any]) -> None:
        """Do nothing."""

    def edited(self, owner: int) -> int:
        """Return 0: nothing was done."""
        return 0

    def held(self, owner: int) -> int:
        """Return 0: there are none."""
        return 0

    def close(self, owner: int) -> None:
        """Do nothing."""
