"""Tables with copies on several nodes (`vmsim.host.table_copies`), and the vCPUs that walk them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from vmsim.engine.parts import HostParts
from vmsim.engine.vcpu import Vcpu
from vmsim.host.table_copies import CopiedTables, TableCopies
from vmsim.machine.layout import guest_width
from vmsim.scenario import Vm

__all__ = ["copy_tables"]


def copy_tables(host: HostParts, spec: Vm, vcpus: Sequence[Vcpu]) -> CopiedTables | None:
    """Have each vCPU find the copies up to date when it goes on; return those of the VM, if it has any.

    It pays for what software has done to them on its behalf since it went on before.
    """
    if not isinstance(host.copies, TableCopies):
        return None
    tables, place = None, spec.placement
    if place and place.copies:
        nodes = sorted({place.node_of(number, spec.vcpus) for number in range(spec.vcpus)})
        tables = host.copies.join(spec.index, nodes, halves=guest_width(vcpus[0].registers) != 9)
    for vcpu in vcpus:
        node = place.node_of(vcpu.number, spec.vcpus) if place else 0
        vcpu.enters = partial(_enter, host.copies, tables, vcpu, node, "guest_fault" if spec.bare else "exit")
    return tables


def _enter(copies: TableCopies, tables: CopiedTables | None, vcpu: Vcpu, node: int, cause: str) -> None:
    copies.settle()
    if tables:
        tables.load(vcpu.registers)
        if cycles := tables.pay(node):
            vcpu.owe(cause, cycles)
