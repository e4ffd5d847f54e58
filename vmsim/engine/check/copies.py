"""Tables with copies: each copy is a frame of its own, on a node that the VM runs on, and nothing else has any."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vmsim.engine.check.guest import count_distinct
from vmsim.engine.simulation import Simulation
from vmsim.frames.nodes import node_of
from vmsim.frames.records import State
from vmsim.host.table_copies import TableCopies
from vmsim.machine.copies import OWNER_BITS

__all__ = ["copy_problems"]


def copy_problems(simulation: Simulation) -> Iterator[str]:
    """Yield what is wrong with the copies of a host's tables.

    Until a vCPU goes on, a table that software has given up may still have some.
    """
    copies, host = simulation.copies, simulation.host
    if not isinstance(copies, TableCopies):
        return
    rows, frames, vms = copies.rows, host.frames, [*copies.vms.values()]
    each = [pfns for vm in vms for pfns in vm.copies.values()]
    tables = np.array([pfn for vm in vms for pfn in vm.copies], np.int64)
    vm_of = np.repeat(np.arange(len(vms)), np.array([len(vm.copies) for vm in vms], np.int64))
    counts = np.array([*map(len, each)], np.int64)
    of, made = np.repeat(np.arange(len(tables)), counts), np.array([pfn for pfns in each for pfn in pfns], np.int64)
    if not np.array_equal(np.flatnonzero(rows[:, 0]), np.sort(tables)):
        yield "copies: a table has copies that its host does not know of, or the other way round"
        return
    if count_distinct(made) != len(made) or np.isin(made, tables).any():
        yield "copies: a frame is the copy of two tables, or itself a table"
    owners = np.array([vm.owner for vm in vms], np.int64)[vm_of]
    foreign = (frames["state"][made] != State.TABLE) | (frames["owner"][made] != owners[of])
    for pfn in tables[np.unique(of[foreign])].tolist():
        yield f"copies: a copy of table {pfn} is not a table of its VM's"
    if not copies.pending:
        for pfn in tables[(frames["state"][tables] != State.TABLE) | (frames["owner"][tables] != owners)].tolist():
            yield f"copies: frame {pfn} has copies, and is a table no more"
    walked, node = rows[tables, 1:], node_of(host.zone, made)
    expected = np.repeat(tables[:, None], walked.shape[1], axis=1)
    expected[of, node] = made
    own = np.zeros((len(vms), walked.shape[1]), bool)
    for number, vm in enumerate(vms):
        own[number, [*vm.nodes]] = True
    elsewhere = (walked != expected).any(axis=1)
    elsewhere[of[~own[vm_of[of], node]]] = True
    for pfn in tables[elsewhere].tolist():
        yield f"copies: nodes do not walk their own copies of table {pfn}"
    first = np.zeros_like(tables)
    first[counts > 0] = made[(np.cumsum(counts) - counts)[counts > 0]] + 1
    for pfn in tables[rows[tables, 0] != (first << OWNER_BITS | owners + 1)].tolist():
        yield f"copies: table {pfn} has the flags of its copies elsewhere, or another owner"
