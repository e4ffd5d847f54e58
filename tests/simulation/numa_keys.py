"""As tests/simulation/keys.py, for the keys of nodes."""

from __future__ import annotations

from typing import Any, Final

from tests.simulation.key_worlds import Row, vm, world

SOCKETS = [{"memory": "8MiB", "cpus": 1}, {"memory": "8MiB", "cpus": 1}]


def sockets(**first: Any) -> list[dict[str, Any]]:
    return [SOCKETS[0] | first, SOCKETS[1]]


def numa(*vms: dict[str, Any], **host: Any) -> dict[str, Any]:
    made = world(*vms, nodes=SOCKETS, remote_cycles=100, **host)
    del made["host"]["memory"]
    return made


TIERED = {"nodes": [{"memory": "2MiB", "cpus": 1}, {"memory": "8MiB", "cycles": 900}]}
WIDE = {"kind": "zipf", "footprint": "3MiB", "accesses": 9000, "compute": 200, "writes": 0.5}
QUICK = {"scan_delay": "20us", "scan_period_min": "100us", "scan_period_max": "1ms", "scan_size": "512KiB"}
HOT = {"mode": "tiering", **QUICK, "hot_threshold": "200us", "promote_rate_limit": "64MiB"}


def tiered(**host: Any) -> dict[str, Any]:
    made = world(vm(workload=WIDE, memory="6MiB"), **TIERED, **host)
    del made["host"]["memory"]
    return made


DEMOTING = {"enabled": True, "scale_factor": 0.1}
BALANCED = tiered(demotion=DEMOTING, numa_balancing=HOT)
FAR = world(nodes=SOCKETS, distances=[[10, 21], [21, 10]])
del FAR["host"]["memory"]
FAR["vm"][0]["numa"] = {"memory": 1}

SAMPLED = {"sample_interval": "20us", "aggr_interval": "200us", "max_nr_regions": 40}
COLD = {"action": "migrate_cold", "target": 1, **SAMPLED}
LIMITED = COLD | {"quota": "64KiB", "quota_interval": "1ms"}


def sampled(**damon: Any) -> dict[str, Any]:
    return tiered(damon=damon)


SLOW = SOCKETS[0] | {"bandwidth": "40MiB"}


def both() -> dict[str, Any]:
    """Return two VMs, on a socket each, whose data is in the memory of one."""
    data = {"kind": "uniform", "footprint": "2MiB", "accesses": 5000, "writes": 0.5}
    return numa(*(vm(numa={"memory": 0}, workload=data) for _ in range(2)), data_caches=True)


NUMA_ROWS: Final = {
    "host.damon.action": Row(sampled(**COLD, min_age=1), "migrate_cold", "migrate_hot"),
    "host.damon.sample_interval": Row(sampled(**COLD), "20us", "30us"),
    "host.damon.aggr_interval": Row(sampled(**COLD), "200us", "300us"),
    "host.damon.min_nr_regions": Row(sampled(**COLD), 10, 20),
    "host.damon.max_nr_regions": Row(sampled(**COLD), 40, 80),
    "host.damon.min_size": Row(sampled(**COLD), "4KiB", "256KiB"),
    "host.damon.min_accesses": Row(sampled(**COLD, max_accesses=10), 0, 1),
    "host.damon.max_accesses": Row(sampled(**COLD), 0, 9),
    "host.damon.min_age": Row(sampled(**COLD), 0, 2),
    "host.damon.target": Row(sampled(**COLD), 1, 0),
    "host.damon.quota": Row(sampled(**LIMITED), "64KiB", "512KiB"),
    "host.damon.quota_interval": Row(sampled(**LIMITED), "1ms", "200us"),
    "host.distances": Row(FAR, [[10, 21], [21, 10]], [[10, 31], [21, 10]]),
    "host.demotion.enabled": Row(tiered(), False, True),
    "host.demotion.scale_factor": Row(tiered(demotion={"enabled": True}), 0.0, 0.1),
    "host.numa_balancing.mode": Row(BALANCED, "tiering", "both"),
    "host.numa_balancing.scan_delay": Row(BALANCED, "20us", "90us"),
    "host.numa_balancing.scan_period_min": Row(BALANCED, "100us", "4ms"),
    "host.numa_balancing.scan_period_max": Row(BALANCED, "1ms", "3ms"),
    "host.numa_balancing.scan_size": Row(BALANCED, "512KiB", "1MiB"),
    "host.numa_balancing.hot_threshold": Row(BALANCED, "200us", "1us"),
    "host.numa_balancing.promote_rate_limit": Row(BALANCED, "64MiB", "8KiB"),
    "host.nodes.memory": Row(numa(), SOCKETS, sockets(memory="1MiB"), "host.nodes"),
    "host.nodes.cpus": Row(numa(vm(), vm(numa={"node": 0})), SOCKETS, sockets(cpus=2), "host.nodes"),
    "host.nodes.cycles": Row(numa(), SOCKETS, sockets(cycles=999), "host.nodes"),
    "host.nodes.bandwidth": Row(both(), [SLOW, SOCKETS[1]], [SLOW | {"bandwidth": "90MiB"}, SOCKETS[1]], "host.nodes"),
    "host.remote_cycles": Row(numa(vm(numa={"memory": 1})), 100, 200),
    "vm.numa.node": Row(numa(), 0, 1),
    "vm.numa.memory": Row(numa(vm(numa={"tables": "replicate"})), "local", "interleave"),
    "vm.numa.tables": Row(numa(vm("native"), numa_balancing={"mode": "normal", **QUICK}), 0, "migrate"),
}
