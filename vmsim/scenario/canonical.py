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
        "pool",
        "workload",
        "content",
        "balloon",
        "placement",
        "dirty_log",
        "host_thp",
        "cpu_weight",
        "cpu_cap",
        "shares",
    }
)
"""What of a `Vm` is no cause of results, follows from the rest, or is written in its own way."""

_USUAL: Final[dict[str, object]] = {
    "virtio_mem": None,
    "bilateral": None,
    "files": None,
    "thp": None,
    "reclaim": None,
    "nx_split": None,
    "stop": None,
    "table_span": 0,
    "fragmentation": 0,
    "memory_high": 0,
    "memory_max": 0,
    "llc_ways": 0,
    "vcpus": 1,
    "kernel_accesses": "free",
    "pv_flush": False,
    "tdp_mmu": True,
}
"""What of a `Vm` is written only where it is not this."""

_SCHEDULER: Final = "round-robin"
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
    choosing = {host.spares, *(each for name in daemons for each in host_daemons()[name].policies(host.part(name)))}
    refills = {vm.pool.refill for vm in vms if vm.pooled}
    of_host: dict[str, Any] = {
        "cpu": _of_cpu(cpu, host, vms, daemons),
        "quantum": quantum,
        "horizon": horizon,
        "watermarks": watermarks,
    }
    of_host |= _of_host(host, cpu) | _daemons(host, daemons, sorted({host.spares, *refills} - {_SPARES, _REFILL}))
    if "swap" in daemons:
        of_host["swap"]["oom"] = host.oom or "largest"
    elif host.oom not in (None, "none"):
        of_host["oom"] = host.oom
    of_vms = [_of_vm(vm, host, daemons, weighed=weighs(choosing)) for vm in vms]
    tables = {"seed": seed, "warmup": warmup, "host": of_host, "vms": of_vms}
    return json.dumps(tables, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_plain)


def _of_cpu(cpu: Cpu, host: Host, vms: Sequence[Vm], daemons: Sequence[str]) -> dict[str, Any]:
    """Return the figures of a CPU that something in the scenario can meet."""
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
    return figures


def _of_host(host: Host, cpu: Cpu) -> dict[str, Any]:
    """Return the keys of the host itself; most only where they are not the usual ones."""
    found: dict[str, Any] = {name: getattr(host, name) for name in ("cores", "memory", "data_caches", "what_if")}
    if host.overlap:
        found["overlap"] = True
    if host.nodes:
        found["nodes"] = [(node.memory, node.cpus) for node in host.nodes]
        found["loads"] = latencies(host.nodes, cpu.memory.cycles, host.remote_cycles or 0, host.distances)
        if any(node.bandwidth for node in host.nodes):
            found["bandwidth"] = [node.bandwidth for node in host.nodes]
        if host.distances:
            found["distances"] = host.distances
    if host.samples.amount:
        found["samples"] = host.samples.cycles(cpu.frequency)
    if host.fragmentation:
        found["fragmentation"] = host.fragmentation
    if host.table_span:
        found["table_span"] = host.table_span
    if host.scheduler != _SCHEDULER:
        found["scheduler"] = host.scheduler
    if host.spares != _SPARES:
        found["spares"] = host.spares
    return found


def _of_vm(vm: Vm, host: Host, daemons: Sequence[str], *, weighed: bool) -> dict[str, Any]:
    """Return what matters of a VM; `weighed` says that something looks at its shares."""
    found = {name: getattr(vm, name) for name in Vm.__slots__ if name not in _APART}
    found = {name: value for name, value in found.items() if name not in _USUAL or value != _USUAL[name]}
    found |= {"pool": _of_pool(vm.pool), "workload": _of_workload(vm.workload, overlap=host.overlap)}
    if vm.content != Content() and {"ksm", "swap"} & {*daemons}:
        found["content"] = vm.content.model_dump()
    if vm.balloon:
        found["balloon"] = vm.balloon.canonical
    if vm.placement:
        found["placement"] = vm.placement.canonical
    if vm.dirty_log.method != "none":
        found["dirty_log"] = vm.dirty_log
    if host.scheduler != _SCHEDULER:
        found |= {"cpu_weight": vm.cpu_weight, "cpu_cap": vm.cpu_cap}
    if weighed:
        found["shares"] = vm.shares
    return found | vm.paging.canonical(vm.own) | _by(vm)


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
