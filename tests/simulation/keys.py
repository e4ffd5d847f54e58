"""For every key of a scenario and of a CPU: a small scenario in which it matters, and two values that differ there.

Those of a CPU are in cpu_keys.py and cost_keys.py, of nodes and large pages in numa_keys.py and huge_keys.py, and what
they run is in key_worlds.py.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from tests.simulation.key_worlds import (
    BUSY,
    CACHED,
    CHURN,
    COMPILE,
    CROWD,
    DISK,
    FORKS,
    HOARD,
    HOARDERS,
    KSMD,
    LARGE,
    LOG,
    MANY,
    MANY_LINES,
    PLEX86,
    READS,
    REPORTING,
    SEQUENTIAL,
    SHARERS,
    SPILLS,
    STANDS,
    STUCK,
    SWITCHER,
    TINY_CACHES,
    UNIFORM,
    UNPLUGS,
    WIDE,
    Row,
    advised,
    ballooned,
    filed,
    plugged,
    shared,
    short,
    tight,
    vm,
    world,
)
from vmsim.base.errors import InputError
from vmsim.engine.simulation import Simulation
from vmsim.record.tables import TABLES, rows
from vmsim.scenario import Scenario


def _swap_rows() -> dict[str, Row]:
    return {
        "device": Row(short(), "nvme", "sata"),
        "size": Row(short(), "512KiB", "8MiB"),
        "policy": Row(short(), "two-list", "random"),
        "page_cluster": Row(short(), 0, 4),
        "read": Row(short(), "", "exponential 1ms"),
        "write": Row(short(), "", "exponential 1ms"),
        "channels": Row(short(device="hdd"), 0, 4),
        "write_channels": Row(short(), 0, 1),
        "ratio": Row(short(device="zram"), 1.0, 8.0),
        "zswap": Row(short(), False, True),
        "zswap_max_pool_percent": Row(short(zswap=True), 20, 3),
        "zswap_accept_threshold_percent": Row(short(zswap=True, zswap_max_pool_percent=8), 90, 20),
        "read_errors": Row(short(), 0.0, 0.5),
        "write_errors": Row(short(), 0.0, 0.5),
    }


def overcommitted(policy: str, *vms: dict[str, Any], swap: bool = False, **keys: Any) -> dict[str, Any]:
    """Return an idle and a busy VM that have been promised more than their host has, and a policy for it."""
    balloon = {
        "max": "1500KiB",
        "statistics": "50us" if policy == "mom" else "0s",
        "message": 16,
        "deflate_on_oom": True,
    }
    table = {"policy": policy, "every": "50us"}
    given = {"memory": "4400KiB", "cores": 2, "pool": {"min": 4, "max": 16, "batch": 8}, "overcommit": table}
    given |= {policy: keys} if keys else {}
    given |= {"swap": {"device": "nvme"}} if swap else {}
    slow = {**BUSY, "footprint": "640KiB", "accesses": 400, "compute": 10_000}
    works = ({**BUSY, "footprint": "1MiB"}, slow)
    both = [vm(workload=work, balloon=dict(balloon), memory="2MiB", populate="eager") for work in works]
    return world(*(vms or both), **given, cpu_override={"cost": {"balloon_message": 20_000}})


SAMPLED = {"sample_period": "100us", "sample_pages": 64, "high": 50.0, "soft": 45.0}


def _overcommit_rows() -> dict[str, Row]:
    def esx(swap: bool = True, **keys: Any) -> dict[str, Any]:
        return overcommitted("esx", swap=swap, **{**SAMPLED, **keys})

    mom = overcommitted("mom")
    return {
        "host.overcommit.policy": Row(overcommitted("prorata"), "prorata", "esx"),
        "host.overcommit.every": Row(overcommitted("prorata", free=30.0), "50us", "300us"),
        "host.overcommit.patience": Row(esx(hard=0.0, low=0.0, high=80.0, soft=79.0), "0s", "1s"),
        "host.prorata.free": Row(overcommitted("prorata"), 5.0, 40.0),
        "host.mom.pressure": Row(mom, 0.2, 0.9),
        "host.mom.critical": Row(overcommitted("mom", pressure=0.95, max_change=1.0), 0.05, 0.95),
        "host.mom.guest_free": Row(overcommitted("mom", pressure=0.95, max_change=1.0), 0.2, 0.6),
        "host.mom.max_change": Row(overcommitted("mom", pressure=0.95), 0.05, 0.5),
        "host.mom.min_change": Row(overcommitted("mom", pressure=0.95), 0.0025, 1.0),
        "host.mom.samples": Row(overcommitted("mom", pressure=0.95), 1, 10),
        "host.esx.high": Row(esx(), 50.0, 80.0),
        "host.esx.soft": Row(esx(), 45.0, 2.0),
        "host.esx.hard": Row(esx(), 2.0, 40.0),
        "host.esx.low": Row(esx(hard=45.0), 1.0, 45.0),
        "host.esx.margin": Row(esx(high=46.0), 10.0, 0.0),
        "host.esx.idle_tax": Row(esx(), 75.0, 0.0),
        "host.esx.sample_pages": Row(esx(), 64, 8),
        "host.esx.sample_period": Row(esx(), "100us", "300us"),
        "host.esx.sample_slow": Row(esx(sample_fast=0.1), 0.1, 1.0),
        "host.esx.sample_fast": Row(esx(), 0.5, 1.0),
    }


ROWS: Final[dict[str, Row]] = {
    **_overcommit_rows(),
    "seed": Row(world(), 1, 2),
    "warmup": Row(world(), "0%", "50%"),
    "host.cpu": Row(world(), "yardstick", "skylake-x"),
    "host.cores": Row(world(vm(), vm()), 1, 2),
    "host.memory": Row(world(vm(workload=SEQUENTIAL)), "32MiB", "2MiB"),
    "host.quantum": Row(world(vm(), vm()), "1ms", "10us"),
    "host.horizon": Row(world(vm(), vm(), cores=2), "20us", "1us"),
    "host.samples": Row(world(), "0s", "10us"),
    "host.scheduler": Row(
        world(vm(workload=DISK), vm(workload={**UNIFORM, "compute": 50_000})), "round-robin", "credit"
    ),
    "host.oom": Row(short(size="128KiB"), "largest", "none"),
    "host.data_caches": Row(world(), False, True),
    "host.overlap": Row(world(cpu="skylake-x"), False, True),
    "host.fragmentation": Row(world(vm("paired")), 0.0, 1.0),
    "host.table_span": Row(world(vm("native", LARGE, memory="16MiB"), **CACHED), 0, "16MiB"),
    "vm.table_span": Row(world(vm(workload=LARGE, memory="16MiB"), memory="64MiB", **CACHED), 0, "8MiB"),
    "vm.fragmentation": Row(world(vm(workload=LARGE, memory="32MiB"), memory="64MiB"), 0.0, 1.0),
    "host.reclaim.rate": Row(world(), 0, 100_000),
    "host.reclaim.batch": Row(world(reclaim={"rate": 100_000}), 1, 4),
    "host.reclaim.policy": Row(world(reclaim={"rate": 100_000}), "random", "clock"),
    **{f"host.swap.{key}": row for key, row in _swap_rows().items()},
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
    "host.pool.supply": Row(world(pool={}), "grant", "fault"),
    "host.pool.refill": Row(world(), "batch", "predictive"),
    "host.proportional.percent": Row(world(pool={"min": 4, "max": 64, "refill": "proportional"}), 10, 90),
    "host.predictive.percent": Row(world(pool={"min": 4, "max": 64, "batch": 16, "refill": "predictive"}), 100, 1000),
    "host.spares": Row(world(*HOARDERS, **HOARD), "largest", "fair"),
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
    "vm.pool.supply": Row(world(pool={}), "grant", "fault"),
    "vm.shares": Row(world(*HOARDERS, spares="shares", **HOARD), 1000, 1, "vm.a0.shares"),
    "vm.pool.refill": Row(world(), "batch", "predictive"),
    "vm.pool.min": Row(world(), 1, 30),
    "vm.pool.max": Row(world(), 8, 64),
    "vm.pool.batch": Row(world(), 1, 16),
    "vm.memory_high": Row(world(vm(workload=CROWD), swap={"device": "nvme"}), "4MiB", "256KiB"),
    "vm.memory_max": Row(world(vm(workload=CROWD), swap={"device": "nvme"}), "4MiB", "256KiB"),
    "vm.content.image": Row(world(*SHARERS, ksm=KSMD), "", "x"),
    "vm.content.image_share": Row(world(vm(workload=READS, content={"image": "x"}), ksm=KSMD), 0.0, 1.0),
    "vm.content.unique_share": Row(world(*SHARERS, ksm=KSMD), 0.0, 0.8),
    "vm.content.volatile": Row(world(*SHARERS, ksm=KSMD | {"smart_scan": False}), 0.0, 1.0),
    "vm.balloon.size": Row(world(vm(workload=BUSY)), 0, "1MiB"),
    "vm.balloon.schedule": Row(world(vm(workload=BUSY)), [], [["100us", "1MiB"]]),
    "vm.balloon.max": Row(overcommitted("prorata", free=60.0), "512KiB", "1500KiB"),
    "vm.balloon.page": Row(world(vm(workload=BUSY, memory="16MiB", balloon={"size": "4MiB"})), "4K", "2M"),
    "vm.balloon.message": Row(world(ballooned()), 8, 256),
    "vm.balloon.retry": Row(
        world(vm(workload=BUSY, memory="16MiB", balloon={"size": "15MiB", "page": "2M"})), "1us", "1s"
    ),
    "vm.balloon.deflate_on_oom": Row(
        world(vm(workload={**BUSY, "footprint": "1MiB"}, balloon={"size": "4000KiB", "message": 1024})), False, True
    ),
    "vm.balloon.driver": Row(world(ballooned()), True, False),
    "vm.balloon.refuses": Row(world(ballooned()), "2MiB", "64KiB"),
    "vm.balloon.statistics": Row(world(vm(workload=BUSY)), "0s", "100us"),
    "vm.balloon.reporting": Row(world(vm(workload=BUSY)), False, True),
    "vm.balloon.reporting_order": Row(world(vm(workload=BUSY, populate="eager", balloon=REPORTING)), 0, 2),
    "vm.balloon.reporting_delay": Row(world(vm(workload=BUSY, populate="eager", balloon=REPORTING)), "50us", "300us"),
    "vm.balloon.hinting": Row(world(vm(workload=BUSY, memory="16MiB", dirty_log=LOG)), False, True),
    "vm.files.disk": Row(world(filed()), "nvme", "sata"),
    "vm.files.read_ahead": Row(world(filed()), 0, 32),
    "vm.files.dirty_background": Row(world(filed({"written": 1.0})), 0, 20),
    "vm.files.dirty": Row(world(filed({"written": 1.0}, dirty_background=0)), 0, 20),
    "vm.files.dirty_expire": Row(world(filed({"written": 0.5}, writeback_every="100us")), "50us", "30s"),
    "vm.files.writeback_every": Row(world(filed({"written": 0.5}, dirty_expire="10us")), "50us", "5s"),
    "vm.virtio_mem.region": Row(world(vm(workload=BUSY, memory="12MiB")), 0, "4MiB"),
    "vm.virtio_mem.size": Row(world(plugged()), "8MiB", "4MiB"),
    "vm.virtio_mem.schedule": Row(world(plugged()), [], [["100us", "4MiB"]]),
    "vm.virtio_mem.max": Row(
        world(
            plugged(max="4MiB"),
            memory="16MiB",
            overcommit={"policy": "prorata", "every": "50us"},
            prorata={"free": 60.0},
        ),
        "2MiB",
        "8MiB",
    ),
    "vm.virtio_mem.block": Row(world(plugged(**UNPLUGS)), "2MiB", "4MiB"),
    "vm.virtio_mem.retry": Row(world(STUCK), "20us", "50s"),
    "vm.virtio_mem.driver": Row(world(plugged(**UNPLUGS)), True, False),
    "vm.bilateral.size": Row(world(shared(soft=True, every="20us")), 0, "4MiB"),
    "vm.bilateral.schedule": Row(world(shared(soft=True, every="20us")), [], [["10us", "4MiB"]]),
    "vm.bilateral.max": Row(
        world(
            vm(workload=BUSY, memory="12MiB", populate="eager", bilateral={"max": "4MiB"}),
            memory="16MiB",
            overcommit={"policy": "prorata", "every": "50us"},
            prorata={"free": 60.0},
        ),
        "2MiB",
        "8MiB",
    ),
    "vm.bilateral.soft": Row(world(shared(size="2MiB", every="20us")), False, True),
    "vm.bilateral.every": Row(world(shared(soft=True)), "20us", "1s"),
    "vm.reclaim.policy": Row(world(filed({"data": "8MiB", "operations": 400})), "none", "two-list"),
    "vm.reclaim.swappiness": Row(world(tight(files={"disk": "nvme"}, workload=SPILLS)), 0, 200),
    "vm.reclaim.swap": Row(world(tight()), "nvme", "sata"),
    "vm.reclaim.swap_size": Row(world(tight()), "64KiB", "8MiB"),
    "vm.reclaim.page_cluster": Row(world(tight()), 0, 5),
    "vm.dirty_log.method": Row(world(), "none", "write-protect"),
    "vm.dirty_log.every": Row(world(vm(dirty_log=LOG)), "20us", "50us"),
    "vm.dirty_log.stop": Row(world(vm(dirty_log=LOG)), "0s", "50us"),
    "vm.dirty_log.split": Row(world(vm(dirty_log=LOG, populate="eager", **WIDE)), "lazy", "eager"),
    "vm.dirty_log.split, one": Row(
        world(vm(dirty_log=LOG, populate="eager", **WIDE)), "lazy", "one", "vm.dirty_log.split"
    ),
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
    "vm.llc_ways": Row(
        world(vm(workload=MANY_LINES), cpu="skylake-x", data_caches=True, cpu_override=TINY_CACHES), "0-10", "0"
    ),
    "vm.pv_flush": Row(
        world(vm(workload={**CHURN, "rounds": 60, "burst": "16KiB", "threads": 2}, vcpus=2), quantum="10us"),
        False,
        True,
    ),
    "vm.tdp_mmu": Row(world(vm("ept", {**UNIFORM, "threads": 2}, vcpus=2), cores=2), True, False),
    "vm.vcpus": Row(world(vm(workload={**UNIFORM, "threads": 2}), cores=2), 1, 2),
    "vm.workload.compute": Row(world(), 1, 9),
    "vm.workload.instructions": Row(world(cpu="skylake-x", overlap=True), 1, 100),
    "vm.workload.dependent": Row(world(cpu="skylake-x", overlap=True), False, True),
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
    "vm.workload.data": Row(world(filed({"order": "random"})), "1MiB", "2MiB"),
    "vm.workload.operations": Row(world(filed()), 40, 41),
    "vm.workload.written": Row(world(filed()), 0.0, 0.5),
    "vm.workload.synced": Row(world(filed({"written": 1.0})), 0, 3),
    "vm.workload.drop": Row(world(filed()), False, True),
    "vm.workload.region_exponent": Row(world(vm(workload=STANDS, memory="12MiB")), 0.0, 2.0),
    "vm.workload.page_exponent": Row(world(vm(workload=STANDS, memory="12MiB")), 0.0, 2.0),
    "vm.workload.reuse": Row(world(vm(workload=STANDS, memory="12MiB")), 0.0, 0.9),
    "vm.workload.recent": Row(world(vm(workload={**STANDS, "reuse": 0.9}, memory="12MiB")), 1, 200),
    "vm.workload.lines": Row(world(vm(workload=STANDS, memory="12MiB")), 1, 8),
    "vm.workload.large": Row(world(vm(workload=STANDS, memory="12MiB", thp={"enabled": "madvise"})), 0.0, 1.0),
    "vm.workload.edits": Row(world(vm(workload=STANDS, memory="12MiB")), 0.0, 5000.0),
    "vm.workload.edit": Row(world(vm(workload={**STANDS, "edits": 5000.0}, memory="12MiB")), "map", "protect"),
    "vm.workload.spaces": Row(world(vm(workload=SWITCHER)), 2, 3),
    "vm.workload.every": Row(world(vm(workload=SWITCHER)), 40, 50),
}


def scenario_of(row: Row, key: str, value: Any, folder: str = ".") -> Scenario:
    """Return the scenario of a row with a value of its key."""
    try:
        base = Scenario.from_tables(row.tables, folder=folder)
    except InputError:  # it needs the value
        return Scenario.from_tables(json.loads(json.dumps(row.tables)), folder=folder)
    return base.replace(**{row.key or key: value})


_digests: dict[str, str] = {}  # by what was run: many rows have one world, and a value that it has anyway


def measured(row: Row, key: str, value: Any, folder: str = ".") -> str:
    """Return a digest of all tables of a run with a value, one run for a scenario; why, where it is refused."""
    try:
        scenario = scenario_of(row, key, value, folder)
    except InputError as error:
        return f"refused: {error}"
    text = scenario.model_dump_json()
    if text not in _digests:
        outcome = Simulation(scenario).run()
        _digests[text] = hashlib.sha256(json.dumps([rows(name, outcome) for name in TABLES]).encode()).hexdigest()
    return _digests[text]


def effect(row: Row, key: str, folder: str = ".") -> bool:
    """Whether a run, or whether there is one, differs between the two values of a row."""
    one, other = (measured(row, key, value, folder) for value in (row.one, row.other))
    assert not (one.startswith("refused") and other.startswith("refused")), (one, other)
    return one != other
