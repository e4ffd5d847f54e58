"""For every key of a scenario and of a CPU: a small scenario in which it matters, and two values that differ there.

Run as a program with keys as arguments, it prints what `effect` says of each: in a process without compilation, where a
geometry of its own costs nothing.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final, NamedTuple

from vmsim.base.errors import InputError
from vmsim.engine.simulation import Simulation
from vmsim.record.tables import TABLES, rows
from vmsim.scenario import Scenario

MIB: Final = 1 << 20


class Row(NamedTuple):
    """A scenario as tables, the dotted key to set in it (its own, unless given), and two values."""

    tables: dict[str, Any]
    one: Any
    other: Any
    key: str = ""


def vm(mode: str = "ept", workload: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    base = {"kind": "uniform", "footprint": "256KiB", "accesses": 300, "writes": 0.5}
    return {"name": "a", "memory": "4MiB", "mode": mode, "workload": workload or base, **keys}


def world(*vms: dict[str, Any], warmup: str = "0%", **host: Any) -> dict[str, Any]:
    marks = {"min": "64KiB", "low": "80KiB", "high": "96KiB"}
    pool = {"min": 4, "max": 64, "batch": 16}
    given = {"cpu": "yardstick", "what_if": True, "memory": "32MiB", "watermarks": marks, "pool": pool}
    tables = [{**each, "name": f"{each['name']}{number}"} for number, each in enumerate(vms or [vm()])]
    return {"seed": 1, "warmup": warmup, "host": given | host, "vm": tables}


UNIFORM = {"kind": "uniform", "footprint": "256KiB", "accesses": 300, "writes": 0.5}
LARGE = {"kind": "uniform", "footprint": "8MiB", "accesses": 400, "writes": 0.5}
CHURN = {"kind": "churn", "footprint": "256KiB", "rounds": 8, "burst": "32KiB", "work": 50, "writes": 0.5}
FORKS = {"kind": "forkwait", "footprint": "64KiB", "forks": 3, "child": "16KiB", "parent": "16KiB"}
COMPILE = {
    **{"kind": "compile", "footprint": "64KiB", "processes": 3, "text": "32KiB", "parent": "32KiB"},
    **{"work": 20, "writes": 0.5},
}
DISK = {"kind": "disk", "footprint": "64KiB", "reads": 4, "block": "16KiB", "work": 20, "writes": 0.5}
SWITCHER = {"kind": "switcher", "footprint": "64KiB", "accesses": 600, "writes": 0.5, "spaces": 4, "every": 40}
MANY = {**SWITCHER, "spaces": 8, "accesses": 1200}
SEQUENTIAL = {"kind": "sequential", "footprint": "2MiB", "accesses": 512, "stride": "4KiB", "writes": 1}
PLEX86 = {"preset": "plex86"}
STEPS = {"preset": "plex86", "step": "debug-register"}
KVM = {"preset": "kvm"}
OLD = {"trap": "emulate", "write_flood": 0}
LOG = {"method": "write-protect", "every": "20us"}
WIDE = {"host_page": "2M", "memory": "16MiB"}
PRESSURE = {"memory": "4MiB", "cores": 2, "pool": {"min": 4, "max": 300, "batch": 64}}
HUNGRY = (vm(workload=SEQUENTIAL), vm(workload={**SEQUENTIAL, "footprint": "1MiB", "accesses": 900}, start="100us"))
# Two VMs whose pools have far more than they need, and one that takes what is left of the host.
IDLE = {"kind": "uniform", "footprint": "64KiB", "accesses": 5000, "compute": 1000}
HOARDERS = (
    vm(workload=IDLE),
    vm(workload=IDLE),
    vm(workload=SEQUENTIAL, start="60us", pool={"min": 4, "max": 32, "batch": 16}),
)
HOARD = {
    "memory": "4MiB",
    "cores": 3,
    "pool": {"min": 4, "max": 300, "batch": 200},
    "watermarks": {"min": "64KiB", "low": "600KiB", "high": "700KiB"},
}

READS = {"kind": "uniform", "footprint": "256KiB", "accesses": 3000, "compute": 10_000, "writes": 0.01}
LASTING = {"kind": "uniform", "footprint": "64KiB", "accesses": 200, "compute": 1_000_000_000, "writes": 0}
KSMD = {"run": 1, "sleep_millisecs": 1, "pages_to_scan": 100}
ADVISED = {"run": 1, "sleep_millisecs": 2000, "advisor_mode": "scan-time", "advisor_min_pages_to_scan": 1}
BUSY = {"kind": "uniform", "footprint": "256KiB", "accesses": 4000, "compute": 1000, "writes": 0.5}
REPORTING = {"reporting": True, "reporting_order": 1, "reporting_delay": "100us"}


def ballooned(**keys: Any) -> dict[str, Any]:
    """Return a VM that is asked for 1 MiB while its program runs for a millisecond or so."""
    return vm(workload=BUSY, populate="eager", balloon={"size": "1MiB"} | keys)


SHARERS = (vm(workload=READS), vm(workload=READS), vm(workload=READS))


def advised(**keys: Any) -> dict[str, Any]:
    return world(vm(workload=LASTING), vm(workload=LASTING), quantum="1s", cores=2, ksm=ADVISED | keys)


ROWS: Final[dict[str, Row]] = {
    "seed": Row(world(), 1, 2),
    "warmup": Row(world(), "0%", "50%"),
    "host.cpu": Row(world(), "yardstick", "skylake-x"),
    "host.cores": Row(world(vm(), vm()), 1, 2),
    "host.memory": Row(world(vm(workload=SEQUENTIAL)), "32MiB", "2MiB"),
    "host.quantum": Row(world(vm(), vm()), "1ms", "10us"),
    "host.horizon": Row(world(vm(), vm(), cores=2), "20us", "1us"),
    "host.scheduler": Row(
        world(vm(workload=DISK), vm(workload={**UNIFORM, "compute": 50_000})), "round-robin", "credit"
    ),
    "host.data_caches": Row(world(), False, True),
    "host.fragmentation": Row(world(vm("paired")), 0.0, 1.0),
    "host.reclaim.rate": Row(world(), 0, 100_000),
    "host.reclaim.batch": Row(world(reclaim={"rate": 100_000}), 1, 4),
    "host.reclaim.policy": Row(world(reclaim={"rate": 100_000}), "random", "clock"),
    "host.ksm.run": Row(world(), 0, 1),
    "host.ksm.pages_to_scan": Row(world(*SHARERS, ksm=KSMD), 10, 100),
    "host.ksm.sleep_millisecs": Row(world(*SHARERS, ksm=KSMD), 1, 2),
    "host.ksm.max_page_sharing": Row(world(*SHARERS, ksm=KSMD), 2, 256),
    "host.ksm.use_zero_pages": Row(world(*SHARERS, ksm=KSMD), False, True),
    "host.ksm.smart_scan": Row(world(*SHARERS, ksm=KSMD), True, False),
    "host.ksm.advisor_mode": Row(world(*SHARERS, ksm={"run": 1, "sleep_millisecs": 1}), "none", "scan-time"),
    "host.ksm.advisor_max_cpu": Row(advised(advisor_target_scan_time=1), 11, 70),
    "host.ksm.advisor_target_scan_time": Row(advised(), 1, 200),
    "host.ksm.advisor_min_pages_to_scan": Row(advised(), 1, 5),
    "host.ksm.advisor_max_pages_to_scan": Row(advised(), 2, 30_000),
    "host.what_if": Row(world(vm("npt"), cpu="skylake-x"), False, True),
    "host.pool.min": Row(world(), 1, 30),
    "host.pool.max": Row(world(), 8, 64),
    "host.pool.batch": Row(world(), 1, 16),
    "host.watermarks.min": Row(world(vm(workload=SEQUENTIAL), memory="2MiB"), "4KiB", "76KiB"),
    "host.watermarks.low": Row(world(*HOARDERS, **HOARD), "400KiB", "690KiB"),
    "host.watermarks.high": Row(world(*HOARDERS, **HOARD), "700KiB", "3MiB"),
    "vm.name": Row(world(), "a", "b"),
    "vm.count": Row(world(), 1, 2),
    "vm.memory": Row(world(vm(workload=SEQUENTIAL)), "4MiB", "2MiB"),
    "vm.mode": Row(world(), "ept", "npt"),
    "vm.guest_page": Row(world(), "4K", "2M"),
    "vm.host_page": Row(world(), "4K", "2M"),
    "vm.populate": Row(world(), "lazy", "eager"),
    "vm.guest_levels": Row(world(), 4, 5),
    "vm.host_levels": Row(world(), 4, 5),
    "vm.tags": Row(world(), "vpid", "none"),
    "vm.pcid": Row(world(vm(workload=SWITCHER)), True, False),
    "vm.paired.layout": Row(world(vm("paired")), "contiguous", "separate"),
    "vm.paired.guest": Row(world(vm("paired")), True, False),
    "vm.paired.guest_at": Row(world(vm("paired")), "30%", "60%"),
    "vm.start": Row(world(), "0s", "10us"),
    "vm.stop": Row(world(), "1ms", "20us"),
    "vm.kernel_accesses": Row(world(), "free", "direct-map"),
    "vm.fill_chunk": Row(world(), 1, 8),
    "vm.pool.min": Row(world(), 1, 30),
    "vm.pool.max": Row(world(), 8, 64),
    "vm.pool.batch": Row(world(), 1, 16),
    "vm.content.image": Row(world(*SHARERS, ksm=KSMD), "", "x"),
    "vm.content.image_share": Row(world(vm(workload=READS, content={"image": "x"}), ksm=KSMD), 0.0, 1.0),
    "vm.content.unique_share": Row(world(*SHARERS, ksm=KSMD), 0.0, 0.8),
    "vm.content.volatile": Row(world(*SHARERS, ksm=KSMD | {"smart_scan": False}), 0.0, 1.0),
    "vm.balloon.size": Row(world(vm(workload=BUSY)), 0, "1MiB"),
    "vm.balloon.schedule": Row(world(vm(workload=BUSY)), [], [["100us", "1MiB"]]),
    "vm.balloon.page": Row(world(vm(workload=BUSY, memory="16MiB", balloon={"size": "4MiB"})), "4K", "2M"),
    "vm.balloon.message": Row(world(ballooned()), 8, 256),
    "vm.balloon.retry": Row(
        world(vm(workload=BUSY, memory="16MiB", balloon={"size": "15MiB", "page": "2M"})), "1us", "1s"
    ),
    "vm.balloon.deflate_on_oom": Row(
        world(vm(workload={**BUSY, "footprint": "1MiB"}, balloon={"size": "4000KiB", "message": 1024})), False, True
    ),
    "vm.balloon.driver": Row(world(ballooned()), True, False),
    "vm.balloon.statistics": Row(world(vm(workload=BUSY)), "0s", "100us"),
    "vm.balloon.reporting": Row(world(vm(workload=BUSY)), False, True),
    "vm.balloon.reporting_order": Row(world(vm(workload=BUSY, populate="eager", balloon=REPORTING)), 0, 2),
    "vm.balloon.reporting_delay": Row(world(vm(workload=BUSY, populate="eager", balloon=REPORTING)), "50us", "300us"),
    "vm.dirty_log.method": Row(world(), "none", "write-protect"),
    "vm.dirty_log.every": Row(world(vm(dirty_log=LOG)), "20us", "50us"),
    "vm.dirty_log.stop": Row(world(vm(dirty_log=LOG)), "0s", "50us"),
    "vm.dirty_log.split": Row(world(vm(dirty_log=LOG, populate="eager", **WIDE)), "lazy", "eager"),
    "vm.nx_split": Row(world(vm(workload=COMPILE, **WIDE)), False, True),
    "vm.nx_recovery_period": Row(
        world(vm(workload=COMPILE, nx_split=True, nx_recovery_ratio=1, **WIDE)), "60s", "20us"
    ),
    "vm.nx_recovery_ratio": Row(world(vm(workload=COMPILE, nx_split=True, nx_recovery_period="20us", **WIDE)), 0, 1),
    "vm.shadow.preset": Row(world(vm("shadow", CHURN)), "kvm", "plex86"),
    "vm.shadow.fill": Row(world(vm("shadow", FORKS)), "lazy", "eager"),
    "vm.shadow.trap": Row(world(vm("shadow", CHURN)), "emulate", "unsync"),
    "vm.shadow.step": Row(world(vm("shadow", CHURN, shadow=PLEX86)), "trap-flag", "debug-register"),
    "vm.shadow.hide": Row(world(vm("shadow", CHURN, shadow=PLEX86)), "user-bit", "present-bit"),
    "vm.shadow.on_cr3": Row(world(vm("shadow", SWITCHER)), "cache", "flush"),
    "vm.shadow.limit": Row(world(vm("shadow", MANY)), 16, 1024),
    "vm.shadow.ad": Row(world(vm("shadow", CHURN, shadow=PLEX86)), "read-sync", "write-protect"),
    "vm.shadow.write_flood": Row(world(vm("shadow", CHURN, shadow={"trap": "emulate"})), 0, 1),
    "vm.agile.threshold": Row(world(vm("agile", CHURN)), 1, 50),
    "vm.agile.interval": Row(world(vm("agile", CHURN)), "1s", "10us"),
    "vm.agile.back": Row(world(vm("agile", CHURN, agile={"interval": "10us"})), "clean", "all"),
    "vm.agile.root_cache": Row(world(vm("agile", SWITCHER)), 0, 4),
    "vm.software_tlb.entries": Row(world(vm("shadow", CHURN, shadow=PLEX86)), 0, 64),
    "vm.cpu_weight": Row(world(vm(), vm(), quantum="10us", scheduler="fair"), 100, 900, "vm.a0.cpu_weight"),
    "vm.cpu_cap": Row(world(vm(workload={**UNIFORM, "compute": 1_000_000}), scheduler="credit"), 0, 20),
    "vm.pv_flush": Row(
        world(vm(workload={**CHURN, "rounds": 60, "burst": "16KiB", "threads": 2}, vcpus=2), quantum="10us"),
        False,
        True,
    ),
    "vm.vcpus": Row(world(vm(workload={**UNIFORM, "threads": 2}), cores=2), 1, 2),
    "vm.workload.compute": Row(world(), 1, 9),
    "vm.workload.threads": Row(world(), 1, 2),
    "vm.workload.turn": Row(world(vm(workload={**SEQUENTIAL, "threads": 2})), 10, 200),
    "vm.workload.kind": Row(world(), "uniform", "sequential"),
    "vm.workload.path": Row(
        world(vm(workload={"kind": "trace", "path": "sort"}, memory="64MiB")), "one.csv", "two.csv"
    ),
    "vm.workload.repeat": Row(world(vm(workload={"kind": "trace", "path": "one.csv"})), 1, 2),
    "vm.workload.format": Row(world(vm(workload={"kind": "trace", "path": "words"})), "u64", "champsim"),
    "vm.workload.footprint": Row(world(), "256KiB", "512KiB"),
    "vm.workload.base": Row(world(), "0x10_0000_0000", "0x10_001f_0000"),
    "vm.workload.accesses": Row(world(), 300, 301),
    "vm.workload.writes": Row(world(), 0.0, 1.0),
    "vm.workload.exponent": Row(world(vm(workload={**UNIFORM, "kind": "zipf"})), 0.5, 2.0),
    "vm.workload.stride": Row(world(vm(workload=SEQUENTIAL)), "4KiB", "8KiB"),
    "vm.workload.order": Row(world(vm(workload={**UNIFORM, "kind": "chase"})), "full", "page"),
    "vm.workload.updates": Row(world(vm(workload={"kind": "gups", "footprint": "256KiB", "updates": 9})), 9, 10),
}
_MOVING = {**UNIFORM, "kind": "working-set", "window": "16KiB", "phase": 50, "step": "16KiB"}
ROWS |= {
    "vm.workload.window": Row(world(vm(workload=_MOVING)), "16KiB", "64KiB"),
    "vm.workload.phase": Row(world(vm(workload=_MOVING)), 50, 100),
    "vm.workload.step": Row(world(vm(workload=_MOVING)), "16KiB", "32KiB"),
    "vm.workload.rounds": Row(world(vm(workload=CHURN)), 8, 9),
    "vm.workload.burst": Row(world(vm(workload=CHURN)), "32KiB", "16KiB"),
    "vm.workload.kept": Row(world(vm(workload=CHURN)), 0.2, 1.0),
    "vm.workload.work": Row(world(vm(workload=CHURN)), 0, 50),
    "vm.workload.filled": Row(world(vm(workload=CHURN)), False, True),
    "vm.workload.forks": Row(world(vm(workload=FORKS)), 3, 4),
    "vm.workload.child": Row(world(vm(workload=FORKS)), "16KiB", "32KiB"),
    "vm.workload.parent": Row(world(vm(workload=FORKS)), "16KiB", "32KiB"),
    "vm.workload.processes": Row(world(vm(workload=COMPILE)), 2, 3),
    "vm.workload.text": Row(world(vm(workload=COMPILE)), "32KiB", "64KiB"),
    "vm.workload.reads": Row(world(vm(workload=DISK)), 4, 5),
    "vm.workload.block": Row(world(vm(workload=DISK)), "16KiB", "32KiB"),
    "vm.workload.device": Row(world(vm(workload=DISK)), "100us", "200us"),
    "vm.workload.spaces": Row(world(vm(workload=SWITCHER)), 2, 3),
    "vm.workload.every": Row(world(vm(workload=SWITCHER)), 40, 50),
}


def _cpu(tables: dict[str, Any], one: Any, other: Any, key: str) -> Row:
    return Row(tables, one, other, f"host.cpu_override.{key}")


# ---- costs: each is raised in a scenario in which it is paid

TOGETHER = {**CHURN, "rounds": 16, "burst": "16KiB", "threads": 4}
_SMP = world(vm(workload=TOGETHER, vcpus=4), cores=4)
_PAID: Final[dict[str, dict[str, Any]]] = {
    **dict.fromkeys(
        ("vm_exit", "guest_fault", "zero_page", "table_page", "grant_fixed", "grant_page", "message"), world()
    ),
    **dict.fromkeys(
        (f"violation_{part}" for part in ("walk", "pool", "entry", "rmap", "resume")),
        world(),
    ),
    "fault_delivery": world(),
    "ad_assist": world(vm("native", {**UNIFORM, "writes": 0.5})),
    "entry_edit": world(vm(workload=FORKS)),
    "copy_page": world(vm(workload=FORKS)),
    "fork": world(vm(workload=FORKS)),
    "exit": world(vm(workload=FORKS)),
    "exec": world(vm(workload=COMPILE)),
    "process_switch": world(vm(workload=SWITCHER)),
    "context_switch": world(vm(), vm(), quantum="10us"),
    "pin_page": world(vm(workload=DISK)),
    **dict.fromkeys(("ipi_send", "ipi_latency", "ipi_handle", "invlpg"), _SMP),
    "invlpgb": world(vm("native", TOGETHER, vcpus=4), cores=4, cpu_override={"invlpgb": True}),
    **dict.fromkeys(("balloon_page", "balloon_message", "balloon_entry"), world(ballooned())),
    **dict.fromkeys(("discard_call", "discard_page"), world(ballooned())),
    "balloon_release": world(ballooned(message=8, schedule=[["200us", 0]])),
    "log_page": world(vm(dirty_log=LOG)),
    "log_scan": world(vm(dirty_log=LOG | {"method": "ad-scan"})),
    "log_entry": world(vm(dirty_log=LOG | {"method": "pml"}), cpu="cascade-lake"),
    "reclaim_fixed": world(*HUNGRY, **PRESSURE),
    "reclaim_page": world(*HUNGRY, **PRESSURE),
    **dict.fromkeys(("page_fault_exit", "vm_entry", "inject", "decode"), world(vm("shadow", CHURN, shadow=OLD))),
    **dict.fromkeys(("emulate", "guest_walk_level"), world(vm("shadow", CHURN, shadow=OLD))),
    **dict.fromkeys(("step_trap_flag", "ad_sync", "map_unmap"), world(vm("shadow", CHURN, shadow=PLEX86))),
    "step_debug_register": world(vm("shadow", CHURN, shadow=STEPS)),
    "resync_entry": world(vm("shadow", CHURN, shadow=KVM)),
    "shadow_drop": world(vm("shadow", MANY, shadow={"limit": 16})),
    "software_tlb_hit": world(vm("shadow", CHURN, shadow=PLEX86, software_tlb={"entries": 64})),
    **dict.fromkeys(
        (f"vkernel_{part}" for part in ("fault", "walk_level", "reflect", "call", "remove")),
        world(vm("vkernel", CHURN)),
    ),
}
ROWS |= {f"cost.{cost}": _cpu(tables, 100, 7777, f"cost.{cost}") for cost, tables in _PAID.items()}

# ---- the rest of a CPU

_ON = {"cpu": "skylake-x", "what_if": False}
_AMD = world(vm("npt", LARGE, memory="16MiB"), cpu="zen4")
_INTEL = world(vm("ept", LARGE, memory="16MiB"), **_ON)
_FIVE = world(vm("ept", LARGE, memory="16MiB", guest_levels=5, host_levels=5), cpu="skylake-x")
_HUGE = world(vm("native", LARGE, memory="16MiB", guest_page="2M"), **_ON)
_AUTO = world(vm("auto", CHURN), **_ON)
_AUTO_AMD = world(vm("auto", CHURN), cpu="zen4", what_if=False)
_REGION = {**UNIFORM, "footprint": "1GiB"}
_GIGA = world(vm("native", _REGION, memory="2GiB", guest_page="1G"), **_ON | {"memory": "4GiB"})
_GIGA_HOST = world(vm("ept", LARGE, memory="2GiB", host_page="1G"), **_ON | {"memory": "4GiB"})
_TLB = world(vm("native", {**SEQUENTIAL, "accesses": 1024, "footprint": "512KiB"}), **_ON)
_SMALL_TLB = {"tlb": {"l1": {"4K": {"entries": 4, "ways": 4}}, "l2": {"4K": {"entries": 48, "ways": 12}}}}
_TLB2 = world(vm("native"), **_ON | {"cpu_override": _SMALL_TLB})
_ENTRY_PWC = {
    **{"style": "entry", "entries": 16, "ways": 4, "cycles": 3, "nested": True, "lowest": 1, "nested_lowest": 1},
}
_SMALL_CACHES = {"l1": {"size": "8KiB"}, "l2": {"size": "16KiB", "ways": 4}, "llc": {"size": "55KiB"}}
_LINES = {**UNIFORM, "footprint": "128KiB", "accesses": 1200}
_CACHED = world(vm("native", _LINES), **_ON | {"data_caches": True, "cpu_override": {"cache": _SMALL_CACHES}})
_SPREAD = {"kind": "sequential", "footprint": "3GiB", "stride": "520MiB", "accesses": 200}

_PAGES_2M = world(
    vm("native", {**UNIFORM, "footprint": "256MiB"}, memory="512MiB", guest_page="2M"), cpu="skylake-x", memory="1GiB"
)
_NATIVE = world(vm("native"), cpu="skylake-x")
_FAR = {"kind": "sequential", "footprint": "6GiB", "stride": "1GiB", "accesses": 60}
_PAGES_1G = world(vm("native", _FAR, memory="8GiB", guest_page="1G"), cpu="skylake-x", memory="16GiB")
_EVEN = {**_FAR, "footprint": "12GiB", "stride": "2GiB"}
_EVEN_1G = world(vm("native", _EVEN, memory="13GiB", guest_page="1G"), cpu="skylake-x", memory="16GiB")
_NO_PWC = {
    f"{nested}{level}": {"entries": 0, "ways": 0}
    for nested in ("", "nested_")
    for level in ("pml5e", "pml4e", "pdpte", "pde")
}
_BARE = world(vm("ept", LARGE, memory="16MiB"), cpu="skylake-x", cpu_override={"pwc": _NO_PWC})
_BARE_5 = world(
    vm("ept", LARGE, memory="16MiB", guest_levels=5, host_levels=5), cpu="skylake-x", cpu_override={"pwc": _NO_PWC}
)


def _array(entries: int, ways: int) -> dict[str, int]:
    return {"entries": entries, "ways": ways}


def _geometry() -> dict[str, Row]:
    """Return the rows of arrays, of which entries and ways are set together where they must fit."""

    def row(tables: dict[str, Any], one: Any, other: Any, key: str) -> tuple[str, Row]:
        return key, _cpu(tables, one, other, key)

    def both(key: str, tables: dict[str, Any], one: dict[str, int], other: dict[str, int]) -> dict[str, Row]:
        made = _cpu(tables, one, other, key)
        return {f"{key}.entries": made, f"{key}.ways": made}

    rows = dict(
        [
            row(_NATIVE, 64, 32, "tlb.l1.4K.entries"),
            row(_STRIDE, 4, 64, "tlb.l1.4K.ways"),
            row(_STRIDE, "modulo", "xor", "tlb.l1.4K.index"),
            row(_TLB, None, "2M", "tlb.l1.4K.shared"),
            row(_PAGES_2M, 32, 8, "tlb.l1.2M.entries"),
            row(_PAGES_2M, 4, 32, "tlb.l1.2M.ways"),
            row(_PAGES_2M, "modulo", "xor", "tlb.l1.2M.index"),
            row(_PAGES_2M, None, "4K", "tlb.l1.2M.shared"),
            row(_PAGES_1G, None, "4K", "tlb.l1.1G.shared"),
            row(_TLB2, 48, 24, "tlb.l2.4K.entries"),
            row(_TLB2, 12, 3, "tlb.l2.4K.ways"),
            row(_TLB2, "modulo", "xor", "tlb.l2.4K.index"),
            row(_TLB2, None, "2M", "tlb.l2.4K.shared"),
            row(_PAGES_2M, "4K", "1G", "tlb.l2.2M.shared"),
            row(_PAGES_1G, None, "4K", "tlb.l2.1G.shared"),
            row(_INTEL, "prefix", "entry", "pwc.style"),
            row(_AMD, 2, 9, "pwc.cycles"),
            row(_AMD, True, False, "pwc.nested"),
            row(_AMD, 2, 3, "pwc.lowest"),
            row(_AMD, 2, 3, "pwc.nested_lowest"),
            *(row(_CACHED, f"{old}KiB", f"{new}KiB", f"cache.{level}.size") for level, old, new in _SIZES),
            *(row(_CACHED, old, new, f"cache.{level}.ways") for level, old, new in _WAYS),
            row(_CACHED, 1, 2, "cache.l1.slices"),
            row(_CACHED, 1, 2, "cache.l2.slices"),
            row(_CACHED, 10, 5, "cache.llc.slices"),
        ]
    )
    rows |= both("tlb.l1.1G", _PAGES_1G, _array(4, 4), _array(8, 8))
    rows |= both("tlb.l2.1G", _PAGES_1G, _array(16, 4), _array(2, 2))
    for key in ("tlb.l2.2M.entries", "tlb.l2.2M.ways", "tlb.l2.2M.index"):
        rows[key] = _cpu(_K10, _array(128, 2), _array(8, 2) | {"index": "xor"}, "tlb.l2.2M")
    for level in ("l1", "l2"):
        one = _array(4, 1) | {"index": "modulo"}
        rows[f"tlb.{level}.1G.index"] = _cpu(_EVEN_1G, one, one | {"index": "xor"}, f"tlb.{level}.1G")
    for level in ("pml4e", "pdpte", "pde"):
        for nested in ("", "nested_"):
            rows |= both(f"pwc.{nested}{level}", _BARE, _array(0, 0), _array(2, 2))
    for nested in ("", "nested_"):
        rows |= both(f"pwc.{nested}pml5e", _BARE_5, _array(0, 0), _array(2, 2))
    rows |= both("pwc", _AMD, _array(64, 64), _array(4, 4))
    return rows | both("ntlb", _AMD, _array(16, 16), _array(0, 0))


_SIZES = (("l1", 32, 16), ("l2", 16, 32), ("llc", 55, 110))
_WAYS = (("l1", 8, 1), ("l2", 4, 1), ("llc", 11, 22))
_STRIDE = world(
    vm("native", {**SEQUENTIAL, "footprint": "2MiB", "stride": "64KiB", "accesses": 200}, memory="4MiB"),
    cpu="skylake-x",
)
_K10 = world(
    vm("native", {**UNIFORM, "footprint": "256MiB"}, memory="512MiB", guest_page="2M"), cpu="k10", memory="1GiB"
)

CPU_ROWS: Final[dict[str, Row]] = {
    **_geometry(),
    "vendor": _cpu(world(vm(tags="vpid"), **_ON), "intel", "amd", "vendor"),
    "frequency": _cpu(world(vm(), vm(), quantum="10us"), "2GHz", "3GHz", "frequency"),
    "modes": _cpu(world(**_ON), ["native", "ept"], ["native"], "modes"),
    "levels": _cpu(world(vm("npt", guest_levels=5), cpu="zen4", what_if=False), [4, 5], [4], "levels"),
    "cpuid.leaf_1_ecx": _cpu(_AUTO, 1 << 5, 0, "cpuid.leaf_1_ecx"),
    "cpuid.leaf_80000001_ecx": _cpu(_AUTO_AMD, 1 << 2, 0, "cpuid.leaf_80000001_ecx"),
    "cpuid.leaf_80000001_edx": _cpu(_GIGA, 1 << 29 | 1 << 26, 1 << 29, "cpuid.leaf_80000001_edx"),
    "cpuid.leaf_8000000a_edx": _cpu(_AUTO_AMD, 1, 0, "cpuid.leaf_8000000a_edx"),
    "cpuid.msr_48b": _cpu(_AUTO, 1 << 33 | 1 << 37, 0, "cpuid.msr_48b"),
    "cpuid.msr_48c": _cpu(_GIGA_HOST, 1 << 6 | 1 << 17 | 1 << 21, 1 << 6 | 1 << 21, "cpuid.msr_48c"),
    "ept_ad": _cpu(world(vm(dirty_log=LOG | {"method": "ad-scan"}), **_ON), True, False, "ept_ad"),
    "walk_start": _cpu(world(), 0, 9, "walk_start"),
    "interrupts": _cpu(_SMP, "exit", "virtual", "interrupts"),
    "invlpgb": _cpu(world(vm("native", TOGETHER, vcpus=4), cores=4), False, True, "invlpgb"),
    "tlb.l2_cycles": _cpu(world(), 7, 9, "tlb.l2_cycles"),
    "tlb.tags": _cpu(world(vm("ept", MANY), vm("ept", MANY), quantum="10us"), 65535, 1, "tlb.tags"),
    "ntlb.cycles": _cpu(world(vm("npt"), cpu="zen4"), 1, 9, "ntlb.cycles"),
    "memory.cycles": _cpu(world(), 200, 300, "memory.cycles"),
    "cache.l1.cycles": _cpu(_CACHED, 4, 5, "cache.l1.cycles"),
    "cache.l2.cycles": _cpu(_CACHED, 12, 13, "cache.l2.cycles"),
    "cache.llc.cycles": _cpu(_CACHED, 50, 60, "cache.llc.cycles"),
    "cache.walker": _cpu(_INTEL, "l1", "l2", "cache.walker"),
}

# What no run reads, and why it is a key all the same.
TOLD: Final[dict[str, str]] = {
    "walkers": "read by `vmsim validate gups`; its description says that runs make one walk at a time",
    "name": "named in messages and by `vmsim cpus`",
    "description": "printed by `vmsim cpus`",
    "cpuid.leaf_7_ecx": "read by `vmsim cpus --detect`: 5-level paging of a preset is its `levels`",
    "cpuid.leaf_8000000a_ebx": "read by `vmsim cpus --detect`: what a preset tells apart is its `tlb.tags`",
    "cache.l1.line": "64 is its only value",
    "cache.l2.line": "64 is its only value",
    "cache.llc.line": "64 is its only value",
}


def measured(row: Row, key: str, value: Any, folder: str = ".") -> str:
    """Return all tables of a run with a value, as text; why, where it is refused."""
    try:
        base = Scenario.from_tables(row.tables, folder=folder)
    except InputError:  # it needs the value
        base = None
    try:
        if base is not None:
            scenario = base.replace(**{row.key or key: value})
        else:
            scenario = Scenario.from_tables(json.loads(json.dumps(row.tables)), folder=folder)
    except InputError as error:
        return f"refused: {error}"
    outcome = Simulation(scenario).run()
    return json.dumps([rows(name, outcome) for name in TABLES])


def effect(row: Row, key: str, folder: str = ".") -> bool:
    """Whether a run, or whether there is one, differs between the two values of a row."""
    one, other = (measured(row, key, value, folder) for value in (row.one, row.other))
    assert not (one.startswith("refused") and other.startswith("refused")), (one, other)
    return one != other


COMPILED: Final = tuple(key for key in CPU_ROWS if ".1G." in key or key in ("cpuid.leaf_80000001_edx", "cpuid.msr_48c"))
"""Rows with pages of 1 GiB, too large for a process without compilation."""


if __name__ == "__main__":
    print(json.dumps({key: effect(CPU_ROWS[key], key) for key in sys.argv[1:]}))
