"""Waits for a node's memory that is asked for more lines at a time than it serves.

Every ten horizons each node with a `bandwidth` is looked at: how many lines it has served since, and how long the cores
that asked took from one to the next. They are a closed queue: each core waits for its line before it asks for another,
after a random time, and each line takes as long as the bandwidth says. What a line takes then is known exactly, by the
busy periods of one repairman who is asked by so many machines (Takács, Introduction to the Theory of Queues, 1962,
chapter 5). With many cores that is M/D/1, and at the limit the bandwidth is used to the full. So long each line takes
more until the next look.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vmsim.base.clock import Clock
from vmsim.base.units import PAGE
from vmsim.contracts import Steps
from vmsim.host.memory import HostMemory
from vmsim.scenario import Scenario

__all__ = ["Bandwidth", "lasts_of"]

_LINE: Final = 64
_HORIZONS: Final = 10  # from one look to the next; vCPUs run as far ahead, so that in one lines come in clusters
_SATURATED: Final = 50.0  # of service over think: more is as good as no time between two lines
_NEVER_IDLE: Final = 1e18  # lines of a busy period
_COPIES: Final = 0.5  # share of the bandwidth that copies of pages have at most, while cores ask too


def lasts_of(cores: int, think: float, service: float) -> float:
    """Return how long a line takes from when it is asked for, its wait and its service, in the unit of the times.

    Parameters
    ----------
    cores : int
        That ask for a line, wait for it, and ask for another.
    think : float
        What passes from when a core has one until it asks for the next.
    service : float
        What the memory takes for a line.
    """
    if not think or service / think > _SATURATED:
        return cores * service
    growth = _exponential(service / think)
    busy = term = power = 1.0  # served in a busy period, on average
    for count in range(1, cores):
        power *= growth
        term *= (cores - count) / count * (power - 1)
        busy += term
        if busy > _NEVER_IDLE:
            break
    return cores * service - think * (1 - 1 / busy)


def _exponential(x: float) -> float:
    """Return e**x, by operations that every platform rounds alike."""
    halvings, power = 0, 1.0
    while x > 0.5:
        x, halvings = x / 2, halvings + 1
    for k in range(15, 0, -1):
        power = power * x / k + 1
    for _ in range(halvings):
        power *= power
    return power


class Bandwidth:
    """What the memory of each node of a host serves in a time.

    Parameters
    ----------
    env : Clock
        Simulated time.
    scenario : Scenario
        Its nodes, cores, and the horizon.
    cores : record[cores]
        Of the hardware: a line of a node takes as long as they are told.
    host : HostMemory
        Whose pages are copied.
    vms : sequence of VirtualMachine

    Attributes
    ----------
    waits : list of int
        What a line of each node takes longer now than from memory that nobody else asks, in cycles.
    """

    def __init__(
        self, env: Clock, scenario: Scenario, cores: NDArray[Any], host: HostMemory, vms: Sequence[Any]
    ) -> None:
        nodes = scenario.host.nodes
        self.env = env
        self.cores = cores
        self.host = host
        self.window = _HORIZONS * scenario.horizon
        self.waits = [0] * len(nodes)
        self._limited = [number for number, node in enumerate(nodes) if node.bandwidth]
        self._service = [_LINE * scenario.cpu.frequency / node.bandwidth if node.bandwidth else 0.0 for node in nodes]
        self._usual = np.array(cores["node_extra"])
        unloaded = scenario.cpu.memory.cycles + self._usual[:, : len(nodes)].min(axis=0)
        self._within = np.minimum(self._service, unloaded).tolist()  # what of the service a load's latency has in it
        self._copies = [0] * len(nodes)
        self._seen = [np.zeros((vm.spec.vcpus, len(nodes)), np.int64) for vm in vms]
        self._waited = [np.zeros(len(nodes), np.int64) for _ in vms]
        self.vms = vms
        for number, vm in enumerate(vms):
            vm.ledger.counters("node_waits", lambda number=number: self._waits_of(number))

    def run(self) -> Steps[None]:
        """Look at each node again and again, from now on."""
        while True:
            yield self.env.background(self.window)
            self._look()

    def _new(self, number: int) -> NDArray[np.int64]:
        """Return the lines that a VM's vCPUs were served since the last look, int64[vcpus, nodes]."""
        served = self.vms[number].registers["node_refs"][:, :, : len(self.waits)].sum(axis=1)
        return np.asarray(served - self._seen[number])

    def _waits_of(self, number: int) -> dict[str, int]:
        """Return the cycles that a VM's vCPUs have waited, by node."""
        waits = self._waited[number] + self._new(number).sum(axis=0) * self.waits
        return {f"node_{node}": int(waits[node]) for node in self._limited}

    def _count(self) -> tuple[list[int], list[int]]:
        """Count what was served since the last look; return how many lines of each node, and how many vCPUs asked."""
        lines, asked = np.zeros((2, len(self.waits)), np.int64)
        for number, (seen, waited) in enumerate(zip(self._seen, self._waited, strict=True)):
            new = self._new(number)
            seen += new
            each = new.sum(axis=0)
            waited += each * self.waits
            lines += each
            asked += (new > 0).sum(axis=0)
        return lines.tolist(), asked.tolist()

    def _look(self) -> None:
        """Have lines of each node wait from now on as long as those served since the last look would have."""
        lines, asked = self._count()
        for node in self._limited:
            service = self._slowed(node, self._service[node])
            cores = min(asked[node], len(self.cores))
            apart = cores * self.window / lines[node] if cores else 0.0
            think = max(apart - self.waits[node] - self._within[node], 0.0)
            self.waits[node] = round(lasts_of(cores, think, service) - self._within[node]) if cores else 0
            self.cores["node_extra"][:, node] = self._usual[:, node] + self.waits[node]

    def _slowed(self, node: int, service: float) -> float:
        """Return what a line takes while pages are copied, from the node or to it."""
        copied, self.host.copied[node] = self.host.copied[node], 0
        self._copies[node] += copied * (PAGE // _LINE)
        able = int(_COPIES * self.window / service)
        made = min(self._copies[node], able)
        self._copies[node] -= made
        return service / (1 - made * service / self.window)
