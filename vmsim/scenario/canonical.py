"""What decides a scenario's results, as one text: two ways of writing the same thing are the same text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from vmsim import plugins
from vmsim.base.units import Duration
from vmsim.scenario.daemons import host_daemons, policies
from vmsim.scenario.modes import paging_modes
from vmsim.scenario.vm import Vm
from vmsim.scenario.workload import TURN

if TYPE_CHECKING:
    from vmsim.scenario.model import Scenario
    from vmsim.scenario.workload import Workload

__all__ = ["canonical"]

_APART: Final = frozenset(
    {"index", "group", "bare", "becomes_guest", "own", "dirty_log", "kernel_accesses", "nx_split", "vcpus", "pv_flush"}
)
"""What of a `Vm` is no cause of results, follows from the rest, or means something in some modes only."""

_OF_SHOOTDOWNS: Final = ("ipi_", "invlpg", "interrupts", "invlpgb")
"""Figures of a CPU, and what the names of its costs begin with, that matter where processors interrupt others."""


def canonical(scenario: Scenario) -> str:
    """Return what decides the results, as JSON with sorted keys; see `Scenario.canonical`."""
    cpu = scenario.cpu.canonical()
    used = {vm.paging.costs for vm in scenario.vms}
    unused = tuple(mode.costs for mode in paging_modes().values() if mode.costs and mode.costs not in used)
    if not scenario.daemons and all(vm.vcpus == 1 for vm in scenario.vms):
        unused += _OF_SHOOTDOWNS  # nobody interrupts anybody
        cpu = {name: value for name, value in cpu.items() if name not in _OF_SHOOTDOWNS}
    cpu["cost"] = {name: cost for name, cost in cpu["cost"].items() if not name.startswith(unused)}
    host = {
        "cpu": cpu,
        "cores": scenario.host.cores,
        "memory": scenario.host.memory,
        "quantum": scenario.quantum,
        "horizon": scenario.horizon,
        "data_caches": scenario.host.data_caches,
        "what_if": scenario.host.what_if,
        "watermarks": scenario.watermarks,
    }
    if scenario.host.fragmentation:
        host["fragmentation"] = scenario.host.fragmentation
    host |= _daemons(scenario)
    vms = [
        {name: getattr(vm, name) for name in Vm.__slots__ if name not in _APART}
        | ({"dirty_log": vm.dirty_log} if vm.dirty_log.method != "none" else {})
        | ({"kernel_accesses": vm.kernel_accesses} if vm.kernel_accesses != "free" else {})
        | ({"nx_split": vm.nx_split} if vm.nx_split else {})
        | ({"vcpus": vm.vcpus} if vm.vcpus > 1 else {})
        | ({"pv_flush": True} if vm.pv_flush else {})
        | {"pool": dict(vm.pool), "workload": _of_workload(vm.workload)}
        | vm.paging.canonical(vm.own)
        | _by(vm)
        for vm in scenario.vms
    ]
    tables = {"seed": scenario.seed, "warmup": scenario.warmup, "host": host, "vms": vms}
    return json.dumps(tables, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_plain)


def _of_workload(workload: Workload) -> dict[str, Any]:
    """Return the keys of a workload; those of threads only where they are not the usual ones."""
    usual = {"threads": 1, "turn": TURN}
    return {key: value for key, value in workload if usual.get(key) != value}


def _daemons(scenario: Scenario) -> dict[str, Any]:
    """Return what daemons that run are told, they and their policies, and which packages they come from."""
    found: dict[str, Any] = {}
    origins = []
    for name in scenario.daemons:
        daemon, table = host_daemons()[name], scenario.host.part(name)
        found[name] = daemon.canonical(table)
        origins.append(plugins.origin("daemons", name))
        for policy in daemon.policies(table):
            origins.append(plugins.origin("policies", policy))
            if own := policies()[policy].canonical(scenario.host.part(policy)):
                found[policy] = own
    packages = sorted({f"{each.package} {each.version}" for each in origins if each})
    return found | ({"packages": packages} if packages else {})


def _by(vm: Vm) -> dict[str, Any]:
    """Return the packages that a VM's paging mode and workload come from, where they are not vmsim's own."""
    origins = (plugins.origin("modes", vm.mode), plugins.origin("workloads", vm.workload.kind))
    packages = sorted({f"{each.package} {each.version}" for each in origins if each})
    return {"packages": packages} if packages else {}


def _plain(value: object) -> str:
    """Return a time that is no figure of the CPU, such as a device's: its one way of being written."""
    if isinstance(value, Duration):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no canonical text")
