"""Small VMs, programs and hosts in which keys matter."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

MIB: Final = 1 << 20
TINY_CACHES: Final = {"cache": {"l1": {"size": "8KiB"}, "l2": {"size": "16KiB", "ways": 4}, "llc": {"size": "55KiB"}}}
CACHED: Final = {"cpu_override": {"cache": {"l1": {"size": "8KiB"}, "l2": {"size": "16KiB", "ways": 4}}}}


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
FILES = {"kind": "files", "footprint": "64KiB", "data": "1MiB", "operations": 40, "block": "16KiB", "work": 20}
SWITCHER = {"kind": "switcher", "footprint": "64KiB", "accesses": 600, "writes": 0.5, "spaces": 4, "every": 40}
STANDS = {"kind": "stand-in", "footprint": "8MiB", "accesses": 1000, "writes": 0.5, "block": "64KiB"}
MANY = {**SWITCHER, "spaces": 8, "accesses": 1200}
MANY_LINES = {**UNIFORM, "footprint": "128KiB", "accesses": 1200}
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


def plugged(**keys: Any) -> dict[str, Any]:
    """Return a VM of 12 MiB with 8 MiB that can be unplugged, while its program runs for a millisecond or so."""
    return vm(workload=BUSY, memory="12MiB", populate="eager", virtio_mem={"region": "8MiB"} | keys)


UNPLUGS = {"schedule": [["50us", 0]]}


def shared(**keys: Any) -> dict[str, Any]:
    """Return a VM of 12 MiB whose allocator the host shares, while its program runs for a millisecond or so."""
    return vm(workload={**BUSY, "footprint": "3MiB"}, memory="12MiB", bilateral=keys)


# Pages of a program lie in the way that its child shares, so the driver tries again.
STUCK = {
    **{"name": "a", "memory": "6MiB", "mode": "ept", "virtio_mem": {"region": "4MiB", "schedule": [["1us", 0]]}},
    "workload": {"kind": "forkwait", "footprint": "3MiB", "forks": 6, "child": "16KiB", "parent": "16KiB"},
}


def filed(workload: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    """Return a VM whose program reads or writes a file."""
    return vm(workload=FILES | (workload or {}), files={"disk": "nvme"} | keys)


SPILLS = {**FILES, "footprint": "3MiB", "data": "4MiB", "operations": 200}


def tight(**keys: Any) -> dict[str, Any]:
    """Return a VM whose program needs all its memory, and whose kernel swaps."""
    everything = {"kind": "sequential", "footprint": "4MiB", "accesses": 2048, "stride": "4KiB", "writes": 1}
    return vm(workload=keys.pop("workload", everything), reclaim={"policy": "two-list", "swap": "nvme"}, **keys)


SHARERS = (vm(workload=READS), vm(workload=READS), vm(workload=READS))


def advised(**keys: Any) -> dict[str, Any]:
    return world(vm(workload=LASTING), vm(workload=LASTING), quantum="1s", cores=2, ksm=ADVISED | keys)


CROWD = {"kind": "uniform", "footprint": "1MiB", "accesses": 1200, "writes": 0.5}
SHORT = {"memory": "1500KiB", "cores": 2, "pool": {"min": 4, "max": 16, "batch": 8}}


def short(*vms: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """Return two VMs on a host that has too little memory for them, and a swap device."""
    return world(*(vms or (vm(workload=CROWD), vm(workload=CROWD))), **SHORT, swap={"device": "nvme"} | keys)
