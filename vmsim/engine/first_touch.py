"""Memory of VMs whose vCPUs run on several sockets: a page lies where the vCPU runs that touches it first.

Linux asks the node first that runs whoever faults (MPOL_LOCAL, mm/mempolicy.c), and has free frames of each node in
lists of their own (pcp). Here the policy of the VM, and the frames that stand ready for it, are those of the node of
the vCPU that goes on. A monitor's pool is one for all of its vCPUs: its pages come from the sockets in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

from vmsim.engine.vcpu_time import VcpuTime
from vmsim.frames.nodes import set_policy
from vmsim.frames.stack import NodeStack
from vmsim.host.bare import BareFrames
from vmsim.host.supply import Supply
from vmsim.scenario import Vm
from vmsim.scenario.nodes import INTERLEAVED, TOUCHED

__all__ = ["FirstTouch", "place"]


class FirstTouch:
    """What follows the vCPUs of a VM from node to node.

    Parameters
    ----------
    zones : ZONE[1 + nodes]
        Of the host.
    spec : Vm
        With a placement.
    """

    def __init__(self, zones: NDArray[Any], spec: Vm) -> None:
        assert spec.placement
        self.zones = zones
        self.spec = spec
        self.place = spec.placement
        self._node = -1
        self._ready: NodeStack | None = None
        self.turn(self.place.node)

    def turn(self, node: int) -> None:
        """Have pages, and tables, be of a node from now on."""
        if node == self._node:
            return
        self._node = node
        pages, tables = (node if each == TOUCHED else each for each in (self.place.pages, self.place.tables))
        if self.place.pages == TOUCHED and self.spec.pooled:
            pages = INTERLEAVED
        set_policy(self.zones, self.spec.index, pages=pages, tables=tables, among=self.place.some)
        if self._ready is not None:
            self._ready.turn(node)

    def follow(self, vcpus: Sequence[VcpuTime], memory: Supply | BareFrames | None) -> None:
        """Turn to the node of each vCPU when it goes on; of `memory` are the frames that stand ready."""
        if self.place.pages == TOUCHED and not self.spec.pooled:
            self._ready = NodeStack(self.zones["frames"][1:])
            if isinstance(memory, Supply):
                memory.pages = self._ready
            elif memory:
                memory.ready = self._ready
        for number, vcpu in enumerate(vcpus):
            vcpu.resumed = partial(self._resumed, self.place.node_of(number, self.spec.vcpus))
            vcpu.follows = True

    def _resumed(self, node: int, _: Any) -> None:
        self.turn(node)


def place(zones: NDArray[Any], spec: Vm) -> FirstTouch | None:
    """Say which nodes are asked first for a VM's memory; return what follows its vCPUs, if they are on several."""
    if spec.placement is None:
        return None
    if spec.placement.sockets > 1:
        return FirstTouch(zones, spec)
    set_policy(zones, spec.index, pages=spec.placement.pages, tables=spec.placement.tables)
    return None
