"""Tables with copies: each copy is a frame of its own, on a node that the VM runs on, and nothing else has any."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

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
    rows, frames = copies.rows, host.frames
    known = {pfn: (vm, made) for vm in copies.vms.values() for pfn, made in vm.copies.items()}
    if np.flatnonzero(rows[:, 0]).tolist() != sorted(known):
        yield "copies: a table has copies that its host does not know of, or the other way round"
        return
    made = np.array([pfn for _, each in known.values() for pfn in each], np.int64)
    if len(np.unique(made)) != len(made) or np.isin(made, [*known]).any():
        yield "copies: a frame is the copy of two tables, or itself a table"
    for pfn, (vm, each) in known.items():
        if (frames["state"][each] != State.TABLE).any() or (frames["owner"][each] != vm.owner).any():
            yield f"copies: a copy of table {pfn} is not a table of its VM's"
        if not copies.pending and (frames["state"][pfn] != State.TABLE or frames["owner"][pfn] != vm.owner):
            yield f"copies: frame {pfn} has copies, and is a table no more"
        walked, nodes = rows[pfn, 1:], node_of(host.zone, np.array(each, np.int64)).tolist()
        expected = np.full(len(walked), pfn)
        expected[nodes] = each
        if not np.array_equal(walked, expected) or not {*nodes} <= {*vm.nodes}:
            yield f"copies: nodes do not walk their own copies of table {pfn}"
        if rows[pfn, 0] != (each[0] + 1 if each else 0) << OWNER_BITS | vm.owner + 1:
            yield f"copies: table {pfn} has the flags of its copies elsewhere, or another owner"
