"""A host's NUMA nodes: which frames, cores and caches each has."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from vmsim.base.clock import Clock
from vmsim.base.ledger import Ledger
from vmsim.engine.hardware import Hardware
from vmsim.frames.nodes import Nodes, marks_of
from vmsim.host.memory import HostMemory
from vmsim.host.run_queues import run_queue
from vmsim.host.scheduler import Scheduler
from vmsim.host.table_copies import NoCopies, TableCopies
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.scenario import Scenario
from vmsim.scenario.nodes import latencies

__all__ = ["copied_vms", "copies_of", "count_nodes", "nodes_of", "schedulers_of"]


def count_nodes(ledger: Ledger, registers: NDArray[Any], count: int) -> None:
    """Register what other cores' L2s served a VM's processors, and what DRAM did by node, if the host has any."""
    kinds, nodes = ("walk_guest", "walk_nested", "data"), [f"node_{number}" for number in range(count)]
    ledger.array("peers", registers["peer_refs"], kinds)
    if not count:
        return
    ledger.array("node_references", registers["node_refs"][:, :, :count], kinds, nodes)
    ledger.array("node_cycles", registers["node_cycles"], kinds)


def copied_vms(scenario: Scenario) -> int:
    """Return the number of VMs whose tables may have copies: all of the host, or 0 if none is to have any."""
    copied = any(vm.placement is not None and vm.placement.copies for vm in scenario.vms)
    return len(scenario.vms) if copied else 0


def copies_of(scenario: Scenario, hardware: Hardware, host: HostMemory) -> TableCopies | NoCopies:
    """Return the tables of a host that have copies."""
    if not copied_vms(scenario):
        return NoCopies()
    return TableCopies(hardware.memory, host, scenario.cpu.cost, _loads(scenario), len(scenario.vms))


def _loads(scenario: Scenario) -> list[list[int]]:
    host = scenario.host
    return latencies(host.nodes, scenario.cpu.memory.cycles, host.remote_cycles or 0, host.distances)


def nodes_of(scenario: Scenario) -> Nodes | None:
    """Return what a host's frames are divided into, if it has nodes; nearest are those whose loads take least."""
    nodes = scenario.host.nodes
    if not nodes:
        return None
    host, everyone = scenario.host, range(len(nodes))
    loads = _loads(scenario)
    far = host.distances or loads
    asked = [sorted(everyone, key=lambda to, of=of: (to != of, far[of][to], loads[of][to], to)) for of in everyone]  # type: ignore[misc]
    sizes = [node.memory >> PAGE_SHIFT for node in nodes]
    marks = [marks_of(size, sum(sizes), *scenario.watermarks) for size in sizes]
    own = [0 if node.cpus else loads[0][number] for number, node in enumerate(nodes)]
    tiers = [sorted({0, *own}).index(each) for each in own]
    return Nodes(sizes, asked, sum(node.cpus > 0 for node in nodes), marks, tiers)


def schedulers_of(env: Clock, scenario: Scenario) -> list[Scheduler]:
    """Return a scheduler for the cores of each node that has some: VMs are not moved between them."""
    sizes = [node.cpus for node in scenario.host.nodes if node.cpus] or [scenario.host.cores]
    firsts = [sum(sizes[:number]) for number in range(len(sizes))]
    return [
        Scheduler(env, cores, run_queue(scenario, cores), first=first)
        for cores, first in zip(sizes, firsts, strict=True)
    ]
