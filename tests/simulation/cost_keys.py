"""As keys.py, for the costs of a CPU."""

from __future__ import annotations

from typing import Any, Final

from tests.simulation.key_worlds import (
    CHURN,
    COMPILE,
    DISK,
    FORKS,
    HUNGRY,
    KVM,
    LOG,
    MANY,
    OLD,
    PLEX86,
    PRESSURE,
    STEPS,
    SWITCHER,
    UNIFORM,
    UNPLUGS,
    WIDE,
    Row,
    ballooned,
    filed,
    plugged,
    shared,
    short,
    vm,
    world,
)


def of_cpu(tables: dict[str, Any], one: Any, other: Any, key: str) -> Row:
    return Row(tables, one, other, f"host.cpu_override.{key}")


# ---- costs: each is raised in a scenario in which it is paid

TOGETHER = {**CHURN, "rounds": 16, "burst": "16KiB", "threads": 4}
SMP = world(vm(workload=TOGETHER, vcpus=4), cores=4)
_PAID: Final[dict[str, dict[str, Any]]] = {
    **dict.fromkeys(
        ("vm_exit", "guest_fault", "zero_page", "table_page", "grant_fixed", "grant_page", "host_zero", "message"),
        world(),
    ),
    **dict.fromkeys(
        (f"violation_{part}" for part in ("walk", "pool", "entry", "rmap", "resume")),
        world(),
    ),
    "fault_delivery": world(),
    "ad_assist": world(vm("native", {**UNIFORM, "writes": 0.5})),
    "entry_edit": world(vm(workload=COMPILE, nx_split=True, **WIDE)),
    "fork_page": world(vm(workload=FORKS)),
    "unmap_page": world(vm(workload=CHURN)),
    "copy_page": world(vm(workload=FORKS)),
    "fork": world(vm(workload=FORKS)),
    "exit": world(vm(workload=FORKS)),
    "exec": world(vm(workload=COMPILE)),
    "process_switch": world(vm(workload=SWITCHER)),
    "context_switch": world(vm(), vm(), quantum="10us"),
    "pin_page": world(vm(workload=DISK)),
    **dict.fromkeys(("file_call", "file_page"), world(filed())),
    **dict.fromkeys(("age_page", "swap_page"), short()),
    **dict.fromkeys(("ipi_send", "ipi_latency", "ipi_handle", "invlpg", "line_transfer"), SMP),
    "invlpgb": world(vm("native", TOGETHER, vcpus=4), cores=4, cpu_override={"invlpgb": True}),
    **dict.fromkeys(("balloon_page", "balloon_message", "balloon_entry"), world(ballooned())),
    **dict.fromkeys(("discard_call", "discard_page"), world(ballooned())),
    **dict.fromkeys(("hotplug_message", "unplug_page"), world(plugged(**UNPLUGS))),
    **dict.fromkeys(("bilateral_frame", "bilateral_install"), world(shared(soft=True, every="20us"))),
    "hotplug_page": world(plugged(size=0, schedule=[["10us", "4MiB"]])),
    "balloon_release": world(ballooned(message=8, schedule=[["200us", 0]])),
    "log_page": world(vm(dirty_log=LOG)),
    "log_scan": world(vm(dirty_log=LOG | {"method": "ad-scan"})),
    "log_entry": world(vm(dirty_log=LOG | {"method": "pml"}), cpu="cascade-lake"),
    "reclaim_fixed": world(*HUNGRY, **PRESSURE),
    "reclaim_page": world(*HUNGRY, **PRESSURE),
    "host_fault": world(pool={"supply": "fault"}),
    "host_zap": world(reclaim={"rate": 1_000_000}),
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
COST_ROWS: Final = {f"cost.{cost}": of_cpu(tables, 100, 7777, f"cost.{cost}") for cost, tables in _PAID.items()}
