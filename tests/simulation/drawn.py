"""What whole hosts are drawn from, and what must hold of each."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.simulation.small import BASE, PAGE, spoil
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.record.outcome import Outcome
from vmsim.scenario import Scenario

LAYOUTS = ("contiguous", "pointer", "separate", "shared")
RECLAIM: list[dict[str, Any]] = [
    {},
    {"rate": 20_000},
    {"rate": 100_000, "batch": 5},
    {"rate": 50_000, "policy": "clock"},
]
KSM: list[dict[str, Any]] = [
    {},
    {"run": 1, "sleep_millisecs": 0, "pages_to_scan": 40},
    {"run": 1, "sleep_millisecs": 0, "max_page_sharing": 2, "smart_scan": False},
]
SCANS: dict[str, Any] = {"scan_delay": "5us", "scan_period_min": "20us", "scan_period_max": "200us"}
SCANS["scan_size"] = "256KiB"
SAMPLES: dict[str, Any] = {"sample_interval": "5us", "aggr_interval": "20us", "max_nr_regions": 20}
DEMOTES = {"demotion": {"enabled": True, "scale_factor": 0.2}}
MOVES: list[dict[str, Any]] = [
    {},
    {},
    DEMOTES | {"numa_balancing": SCANS | {"mode": "both", "hot_threshold": "1ms"}},
    DEMOTES | {"damon": SAMPLES | {"action": "migrate_hot", "target": 0}},
    {"damon": SAMPLES | {"action": "migrate_cold", "target": 1}, "numa_balancing": SCANS | {"mode": "normal"}},
]
BALLOONS: list[dict[str, Any]] = [
    {},
    {"size": 8 * PAGE, "message": 3},
    {"size": 6 * PAGE, "message": 2, "deflate_on_oom": True, "schedule": [["30us", 0], ["80us", 10 * PAGE]]},
    {"size": 4 * PAGE, "driver": False},
    {"reporting": True, "reporting_order": 0, "reporting_delay": "40us", "statistics": "50us"},
    {"reporting": True, "reporting_order": 1, "reporting_delay": "20us", "size": 5 * PAGE, "retry": "20us"},
]
HOTPLUG = ({}, {}, {}, {"region": "2MiB", "schedule": [["20us", 0], ["90us", "2MiB"]], "retry": "30us"})
SHARED_ALLOCATOR = ({"soft": True, "every": "20us"}, {"size": "2MiB", "schedule": [["60us", 0]], "every": "15us"})
LARGE = 9  # order of a large page
QUICK = {"balloon_message": 20_000, "unplug_page": 2}  # of scripts that last for less than Linux's messages
SWAP: list[dict[str, Any]] = [
    {},
    {},
    {"device": "nvme"},
    {"device": "nvme", "policy": "mglru"},
    {"device": "zram", "size": "2MiB", "ratio": 3.0},
    {"device": "sata", "policy": "clock", "write_errors": 0.1},
    {"device": "nvme", "size": "64KiB", "read_errors": 0.01},
    {"device": "nvme", "zswap": True, "zswap_max_pool_percent": 3, "zswap_accept_threshold_percent": 50},
]
OVERCOMMIT: list[dict[str, Any]] = [
    {},
    {},
    {"high": 60.0, "soft": 50.0},
    {"high": 70.0, "soft": 60.0, "hard": 50.0, "low": 30.0, "sample_pages": 10},
]
QUICK_THP = {"enabled": "always", "scan_sleep_millisecs": 0, "alloc_sleep_millisecs": 0}
LIMITS = {"defrag": "never", "max_ptes_swap": 511, "max_ptes_shared": 511}
THP: list[dict[str, Any]] = [{}] * 3 + [
    QUICK_THP | each for each in ({"pages_to_scan": 512}, {"defrag": "defer"}, LIMITS)
]
GUEST_THP: list[dict[str, Any]] = [
    {"enabled": "always"},  # and others of their own accord alone
    {"enabled": "always", "defrag": "always"},
    {"khugepaged": True, "scan_sleep_millisecs": 0, "alloc_sleep_millisecs": 0, "enabled": "madvise"},
]
FILES: list[dict[str, Any]] = [
    {},
    {},
    {"disk": "nvme", "dirty_background": 0, "dirty": 5},
    {"disk": "sata", "read_ahead": 4, "writeback_every": "30us", "dirty_expire": "10us"},
]
GUEST_RECLAIM: list[dict[str, Any]] = [
    {},
    {},
    {"policy": "two-list"},
    {"policy": "two-list", "swap": "nvme"},
    {"policy": "two-list", "swap": "nvme", "swap_size": "64KiB", "swappiness": 150, "page_cluster": 1},
]
NX: dict[str, Any] = {"nx_split": True, "nx_recovery_period": "20us", "nx_recovery_ratio": 1}
LOG = {"method": "write-protect", "every": "15us", "stop": "50us"}
SCANS: dict[str, Any] = {"scan_delay": "5us", "scan_period_min": "20us", "scan_period_max": "200us"}
SCANS["scan_size"] = "256KiB"
SAMPLES: dict[str, Any] = {"sample_interval": "5us", "aggr_interval": "20us", "max_nr_regions": 20}
DEMOTES = {"demotion": {"enabled": True, "scale_factor": 0.2}}
MOVES: list[dict[str, Any]] = [
    {},
    {},
    DEMOTES | {"numa_balancing": SCANS | {"mode": "both", "hot_threshold": "1ms"}},
    DEMOTES | {"damon": SAMPLES | {"action": "migrate_hot", "target": 0}},
    {"damon": SAMPLES | {"action": "migrate_cold", "target": 1}, "numa_balancing": SCANS | {"mode": "normal"}},
]
FETCH = 2
PAGES = 60  # that a script reaches
MODES: list[dict[str, Any]] = [
    {"mode": "native"},
    {"mode": "ept"},
    {"mode": "npt"},
    {"mode": "npt", "host_page": "2M"},
    {"mode": "ept", "host_page": "2M", "dirty_log": {"method": "write-protect", "every": "20us", "stop": "70us"}},
    {"mode": "ept", "host_page": "2M", **NX},
    {"mode": "ept", "host_page": "2M", **NX, "dirty_log": LOG},
    {"mode": "npt", "host_page": "2M", **NX, "dirty_log": LOG},
    {"mode": "shadow", "guest_page": "2M", "host_page": "2M", **NX},
    {"mode": "shadow", "guest_page": "2M", "host_page": "2M", **NX, "dirty_log": LOG},
    {"mode": "agile", "host_page": "2M", **NX, "agile": {"interval": "10us", "threshold": 1}},
    {"mode": "shadow", "shadow": {"preset": "kvm"}},
    {"mode": "shadow", "shadow": {"preset": "kvm-2007"}},
    {"mode": "shadow", "shadow": {"preset": "plex86", "limit": 16}},
    {"mode": "shadow", "guest_levels": 2},
    {"mode": "shadow", "guest_levels": 3, "shadow": {"preset": "plex86", "fill": "eager"}},
    {"mode": "shadow", "dirty_log": {"method": "write-protect", "every": "20us", "stop": "70us"}},
    {"mode": "agile", "agile": {"interval": "10us", "threshold": 2}},
    {"mode": "agile", "guest_levels": 3, "agile": {"interval": "10us", "threshold": 1}},
    {
        "mode": "agile",
        "agile": {"interval": "10us", "threshold": 2},
        "dirty_log": {"method": "write-protect", "every": "20us", "stop": "70us"},
    },
    {"mode": "vkernel"},
    {"mode": "vkernel", "guest_levels": 2},
    {"mode": "vkernel", "guest_levels": 3},
    *({"mode": "paired", "paired": {"layout": layout, "guest": True}} for layout in LAYOUTS),
    *({"mode": "paired", "paired": {"layout": layout, "guest": False}} for layout in LAYOUTS),
    *({"mode": "paired", "paired": {"layout": layout, "guest": True, "guest_at": 2}} for layout in LAYOUTS),
]


OLD = 0x1000_0000  # where a 32-bit program's addresses start


def base_of(table: dict[str, Any]) -> int:
    """Return where the addresses of a VM's program start."""
    return OLD if table.get("guest_levels", 4) < 4 else BASE


def times_add_up(outcome: Outcome, what: Scenario) -> bool:
    """Whether a VM's cycles by cause are its time, to the cycle; of several vCPUs each may live a part of it.

    Both are 0 where the warm-up ends with the run that the last access is in. One vCPU ends it, and what the others did
    by then is known when they settle, also where it is the VM's last moment: a horizon later at most, or a step of the
    guest's kernel, of which clearing a large page is the longest.
    """
    late = 0 if what.warmup in (0, "0%") else what.horizon
    total = [(sum(each.cycles.values()), each.finish - each.start) for each in outcome.vms]
    steps = [what.cpu.cost.zero_page << LARGE if spec.thp and late else 0 for spec in what.vms]
    counts = [spec.vcpus for spec in what.vms]
    return all(
        used == time
        if count == 1
        else used <= count * (time + late + step) and (used > 0 or not time) and (time > 0 or late > 0 or not used)
        for (used, time), count, step in zip(total, counts, steps, strict=True)
    )


def conserved(simulation: Simulation) -> None:
    """Assert that free, pool, guest, table and host frames are all frames; no pool is over its maximum."""
    host = simulation.host
    owned = sum(sum(host.count(each.spec.index).values()) for each in simulation.vms)
    states = np.bincount(host.frames["state"], minlength=len(State))
    hosts_own = int(((host.frames["owner"] == -1) & (host.frames["state"] != State.FREE)).sum())
    assert host.free + owned + hosts_own == host.size == states.sum()
    for each in simulation.vms:
        if each.pool and each.pool.spec.supply == "grant":
            assert each.pool.level <= each.pool.spec.max + each.pool.wanted
    assert states[State.FREE] == host.free


def conserved_spoilt(simulation: Simulation) -> None:
    """Do what `conserved` does, and have free frames hold what nobody may rely on."""
    conserved(simulation)
    spoil(simulation)
