"""Which vCPU has the next core: one file for each way."""

from __future__ import annotations

from vmsim.host.run_queues.credit import Credit
from vmsim.host.run_queues.fair import Fair
from vmsim.host.run_queues.queue import RunQueue
from vmsim.host.run_queues.round_robin import RoundRobin
from vmsim.scenario.model import Scenario

__all__ = ["run_queue"]


def run_queue(scenario: Scenario, cores: int) -> RunQueue:
    """Return the run queue that a scenario names, for the vCPUs of its VMs in their order, on so many cores."""
    vms = [vm.index for vm in scenario.vms for _ in range(vm.vcpus)]
    weights = [vm.cpu_weight for vm in scenario.vms]
    millisecond = scenario.cpu.frequency // 1000
    match scenario.host.scheduler:
        case "fair":
            return Fair(vms, weights, millisecond)
        case "credit":
            caps = [vm.cpu_cap for vm in scenario.vms]
            return Credit(vms, weights, caps, cores=cores, millisecond=millisecond)
        case _:
            return RoundRobin()
