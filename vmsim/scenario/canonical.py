"""What decides a scenario's results, as one text: two ways of writing the same thing are the same text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from vmsim import plugins
from vmsim.base.units import Duration
from vmsim.scenario.content import Content
from vmsim.scenario.cpu import Cpu
from vmsim.scenario.daemons import host_daemons, policies
from vmsim.scenario.keys import Pool
from vmsim.scenario.modes import paging_modes
from vmsim.scenario.nodes import latencies
from vmsim.scenario.pools import weighs
from vmsim.scenario.tables import Host
from vmsim.scenario.vm import Marks, Vm
from vmsim.scenario.workload import TURN, Workload

__all__ = ["canonical"]

_APART: Final = frozenset(
    {
        "index",
        "group",
        "bare",
        "becomes_guest",
        "own",
        "content",
        "balloon",
        "virtio_mem",
        "bilateral",
        "thp",
        "host_thp",
        "dirty_log",
        "files",
        "reclaim",
        "kernel_accesses",
        "nx_split",
        "vcpus",
        "pv_flush",
        "cpu_weight",
        "stop",
        "cpu_cap",
        "llc_ways",
        "tdp_mmu",
        "shares",
        "memory_high",
        "memory_max",
        "placement",
        "table_span",
        "fragmentation",
    }
)
"""What of a `Vm` is no cause of results, follows from the rest, or means something in some modes only."""

_SPARES: Final = "largest"
_REFILL: Final = "batch"

_OF_SHOOTDOWNS: Final = ("ipi_", "invlpg", "interrupts", "invlpgb")
"""Figures of a CPU, and what the names of its costs begin with, that matter where processors interrupt others."""
_OF_WINDOWS: Final = ("window", "fill_buffers", "instructions", "dependent")
"""Figures of a CPU and keys of a workload that matter where accesses overlap."""
_OF_BALLOONS: Final = ("balloon_",)
"""What the names of the costs begin with that only VMs with a balloon have."""
_OF_HOTPLUG: Final = ("hotplug_", "unplug_")
"""The same of VMs whose memory can be plugged."""
_OF_BILATERAL: Final = ("bilateral_",)
"""The same of VMs whose allocator the host shares."""
_OF_ANY: Final = ("discard_",)
"""The same of VMs of which the host discards memory in any of these ways."""
_OF_FILES: Final = ("file_",)
"""The same of VMs with a disk."""
_OF_SWAP: Final = ("age_page", "swap_page")
"""The costs that only a host with a swap device has, that demotes or samples, or a guest whose kernel reclaims."""


def canonical(
    seed: int,
    warmup: int | str,
    cpu: Cpu,
    host: Host,
    vms: Sequence[Vm],
    *,
    quantum: int,
    horizon: int,
    watermarks: Marks,
    daemons: Sequence[str],
) -> str:
    """Return what decides the results, as JSON with sorted keys; see `Scenario.canonical`.

    `quantum` and `horizon` are in cycles, and `daemons` are those that run.
    """
    figures = cpu.canonical()
    used = {vm.paging.costs for vm in vms}
    unused = tuple(mode.costs for mode in paging_modes().values() if mode.costs and mode.costs not in used)
    if not any(vm.balloon for vm in vms):
        unused += _OF_BALLOONS
    if not any(vm.virtio_mem for vm in vms):
        unused += _OF_HOTPLUG
    if not any(vm.bilateral for vm in vms):
        unused += _OF_BILATERAL
    if not (gives := any(vm.gives_memory for vm in vms)):
        unused += _OF_ANY
    if not any(vm.files for vm in vms):
        unused += _OF_FILES
    if not {"swap", "demotion", "damon"} & {*daemons} and not any(vm.reclaim for vm in vms):
        unused += _OF_SWAP
    if not (daemons or gives) and all(vm.vcpus == 1 for vm in vms):
        unused += _OF_SHOOTDOWNS  # nobody interrupts anybody
        figures = {name: value for name, value in figures.items() if name not in _OF_SHOOTDOWNS}
    if not host.overlap:
        figures = {name: value for name, value in figures.items() if name not in _OF_WINDOWS}
    figures["cost"] = {name: cost for name, cost in figures["cost"].items() if not name.startswith(unused)}
    of_host: dict[str, Any] = {
        "cpu": figures,
        "cores": host.cores,
        "memory": host.memory,
        "quantum": quantum,
        "horizon": horizon,
        "data_caches": host.data_caches,
        "what_if": host.what_if,
        "watermarks": watermarks,
    }
    if host.overlap:
        of_host["overlap"] = True
    if host.nodes:
        of_host["nodes"] = [(node.memory, node.cpus) for node in host.nodes]
        of_host["loads"] = latencies(host.nodes, cpu.memory.cycles, host.remote_cycles or 0, host.distances)
        if any(node.bandwidth for node in host.nodes):
            of_host["bandwidth"] = [node.bandwidth for node in host.nodes]
        if host.distances:
            of_host["distances"] = host.distances
    if host.samples.amount:
        of_host["samples"] = host.samples.cycles(cpu.frequency)
    if host.fragmentation:
        of_host["fragmentation"] = host.fragmentation
    if host.table_span:
        of_host["table_span"] = host.table_span
    scheduled = host.scheduler != "round-robin"
    if scheduled:
        of_host["scheduler"] = host.scheduler
    if host.spares != _SPARES:
        of_host["spares"] = host.spares
    weighed = weighs(
        {host.spares, *(each for name in daemons for each in host_daemons()[name].policies(host.part(name)))}
    )
    if host.oom not in (None, "none") and "swap" not in daemons:
        of_host["oom"] = host.oom
    refills = {vm.pool.refill for vm in vms if vm.pooled}
    of_host |= _daemons(host, daemons, sorted({host.spares, *refills} - {_SPARES, _REFILL}))
    if "swap" in daemons:
        of_host["swap"]["oom"] = host.oom or "largest"
    of_vms = [
        {name: getattr(vm, name) for name in Vm.__slots__ if name not in _APART}
        | ({"content": vm.content.model_dump()} if vm.content != Content() and {"ksm", "swap"} & {*daemons} else {})
        | ({"balloon": vm.balloon.canonical} if vm.balloon else {})
        | ({"virtio_mem": vm.virtio_mem} if vm.virtio_mem else {})
        | ({"bilateral": vm.bilateral} if vm.bilateral else {})
        | ({"files": vm.files} if vm.files else {})
        | ({"thp": vm.thp} if vm.thp else {})
        | ({"reclaim": vm.reclaim} if vm.reclaim else {})
        | ({"placement": vm.placement.canonical} if vm.placement else {})
        | ({"table_span": vm.table_span} if vm.table_span else {})
        | ({"fragmentation": vm.fragmentation} if vm.fragmentation else {})
        | ({"memory_high": vm.memory_high} if vm.memory_high else {})
        | ({"memory_max": vm.memory_max} if vm.memory_max else {})
        | ({"dirty_log": vm.dirty_log} if vm.dirty_log.method != "none" else {})
        | ({"kernel_accesses": vm.kernel_accesses} if vm.kernel_accesses != "free" else {})
        | ({"nx_split": vm.nx_split} if vm.nx_split else {})
        | ({"vcpus": vm.vcpus} if vm.vcpus > 1 else {})
        | ({"pv_flush": True} if vm.pv_flush else {})
        | ({"stop": vm.stop} if vm.stop is not None else {})
        | ({"cpu_weight": vm.cpu_weight, "cpu_cap": vm.cpu_cap} if scheduled else {})
        | ({"llc_ways": vm.llc_ways} if vm.llc_ways else {})
        | ({} if vm.tdp_mmu else {"tdp_mmu": False})
        | ({"shares": vm.shares} if weighed else {})
        | {"pool": _of_pool(vm.pool), "workload": _of_workload(vm.workload, overlap=host.overlap)}
        | vm.paging.canonical(vm.own)
        | _by(vm)
        for vm in vms
    ]
    tables = {"seed": seed, "warmup": warmup, "host": of_host, "vms": of_vms}
    return json.dumps(tables, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_plain)


def _of_workload(workload: Workload, *, overlap: bool) -> dict[str, Any]:
    """Return the keys of a workload; those of threads only where they are not the usual ones."""
    usual = {"threads": 1, "turn": TURN}
    unused = () if overlap else _OF_WINDOWS
    return {key: value for key, value in workload if usual.get(key) != value and key not in unused}


def _daemons(host: Host, names: Sequence[str], choosing: Sequence[str]) -> dict[str, Any]:
    """Return what daemons that run are told, they and their policies, and which packages they come from.

    `choosing` are policies that choose for no daemon.
    """
    found: dict[str, Any] = {}
    origins = []
    for name in names:
        daemon, table = host_daemons()[name], host.part(name)
        found[name] = daemon.canonical(table)
        origins.append(plugins.origin("daemons", name))
        for policy in daemon.policies(table):
            origins.append(plugins.origin("policies", policy))
            if own := policies()[policy].canonical(host.part(policy)):
                found[policy] = own
    for policy in choosing:
        origins.append(plugins.origin("policies", policy))
        if own := policies()[policy].canonical(host.part(policy)):
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


def _of_pool(pool: Pool) -> dict[str, Any]:
    """Return what matters of where a monitor's pages are from."""
    if pool.supply == "fault":
        return {"supply": pool.supply}
    usual = {"supply": "grant", "refill": _REFILL}
    return {key: value for key, value in dict(pool).items() if usual.get(key) != value}
