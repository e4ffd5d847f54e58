"""What decides a scenario's results, as one text: two ways of writing the same thing are the same text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from vmsim.base.units import Duration
from vmsim.scenario.vm import Vm

if TYPE_CHECKING:
    from vmsim.scenario.model import Scenario

__all__ = ["canonical"]

_OF_MODES: Final = (
    "agile",
    "dirty_log",
    "kernel_accesses",
    "nx_split",
    "paired",
    "shadow",
    "software_tlb",
)  # keys that mean something in some modes


def canonical(scenario: Scenario) -> str:
    """Return what decides the results, as JSON with sorted keys; see `Scenario.canonical`."""
    cpu = scenario.cpu.canonical()
    if not any(vm.mode == "vkernel" for vm in scenario.vms):  # no other mode has these costs
        cpu["cost"] = {name: cost for name, cost in cpu["cost"].items() if not name.startswith("vkernel_")}
    host = {
        "cpu": cpu,
        "cores": scenario.host.cores,
        "memory": scenario.host.memory,
        "quantum": scenario.quantum,
        "data_caches": scenario.host.data_caches,
        "what_if": scenario.host.what_if,
        "watermarks": scenario.watermarks,
    } | ({"fragmentation": scenario.host.fragmentation} if scenario.host.fragmentation else {})
    vms = [
        {name: getattr(vm, name) for name in Vm.__slots__ if name not in ("index", "group", *_OF_MODES)}
        | ({"paired": vm.paired.model_dump(exclude_none=True)} if vm.mode == "paired" else {})
        | ({"dirty_log": vm.dirty_log} if vm.dirty_log.method != "none" else {})
        | ({"kernel_accesses": vm.kernel_accesses} if vm.kernel_accesses != "free" else {})
        | ({"nx_split": vm.nx_split} if vm.nx_split else {})
        | {"pool": dict(vm.pool), "workload": dict(vm.workload)}
        | ({"shadow": dict(vm.shadow), "software_tlb": vm.software_tlb} if vm.mode == "shadow" else {})
        | (_of_agile(scenario, vm) if vm.mode == "agile" else {})
        for vm in scenario.vms
    ]
    tables = {"seed": scenario.seed, "warmup": scenario.warmup, "host": host, "vms": vms}
    return json.dumps(tables, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_plain)


def _of_agile(scenario: Scenario, vm: Vm) -> dict[str, Any]:
    """Return what mode agile goes by, of its own keys and of those of mode shadow."""
    interval = vm.agile.interval.cycles(scenario.cpu.frequency)
    return {"agile": dict(vm.agile) | {"interval": interval}, "shadow": {"limit": vm.shadow.limit}}


def _plain(value: object) -> str:
    """Return a time that is no figure of the CPU, such as a device's: its one way of being written."""
    if isinstance(value, Duration):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no canonical text")
