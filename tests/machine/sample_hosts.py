"""Whole hosts, with every mechanism there is, for the sample that compiles every kernel."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from tests.machine.geometries import PREFIX
from tests.simulation.drawn import FETCH
from tests.simulation.huge_keys import HUGE_ROWS
from tests.simulation.keys import ROWS, scenario_of
from tests.simulation.numa_keys import NUMA_ROWS
from tests.simulation.small import WRITE, Script, digest, scenario, touches, vm
from vmsim.base.errors import InputError
from vmsim.engine.hardware import Hardware
from vmsim.engine.nodes import copied_vms
from vmsim.engine.simulation import Simulation
from vmsim.machine.layout import make_cores, make_llc
from vmsim.machine.memory import physical_memory
from vmsim.scenario import Scenario

__all__ = ["hosts"]

KEYS = {key: row for key, row in (ROWS | HUGE_ROWS | NUMA_ROWS).items() if "trace" not in str(row.tables)}


def features() -> list[Scenario]:
    """Return hosts whose VMs of all modes are short of memory, have nodes, copies of tables, huge pages."""
    work = {"kind": "uniform", "footprint": 90 << 12, "accesses": 700, "writes": 0.5, "compute": 300}
    compile_ = {"kind": "compile", "footprint": "64KiB", "processes": 3, "text": "32KiB", "parent": "32KiB", "work": 20}
    code = {"workload": compile_}
    disk = {"kind": "files", "footprint": "64KiB", "data": "1MiB", "operations": 40, "block": "16KiB", "work": 20}
    split: dict[str, Any] = {"nx_split": True, "nx_recovery_period": "50us", "nx_recovery_ratio": 1, "host_page": "2M"}
    log = {"method": "write-protect", "every": "50us", "stop": "500us"}
    keys = {"native": {}, "shadow": {"shadow": {"preset": "plex86"}, "software_tlb": {"entries": 64}}, "vkernel": {}}
    content = {"image": "x", "image_share": 0.6, "unique_share": 0.2, "volatile": 0.5}
    long = {"workload": {**work, "accesses": 3000}, "content": content}
    ksm = {"run": 1, "sleep_millisecs": 1, "pages_to_scan": 100}
    every = [vm(f"{mode}-vm", mode=mode, memory="2MiB", **more) | long for mode, more in keys.items()]
    marks = {"min": "64KiB", "low": "96KiB", "high": "128KiB"}
    short: dict[str, Any] = {"memory": 230 << 12, "watermarks": marks, "pool": {"min": 2, "max": 8, "batch": 4}}
    found = [
        scenario(*every, **short, cores=3, ksm=ksm, swap={"device": "nvme", "policy": policy}, what_if=True)
        for policy in ("mglru", "clock")
    ]
    large = {"memory": "8MiB", "thp": {"enabled": "always"}}
    wide = {"workload": {**work, "footprint": "3MiB"}}
    thp = {"enabled": "always", "scan_sleep_millisecs": 0, "alloc_sleep_millisecs": 0}
    huge = [vm(f"{mode}-vm", mode=mode, **large) | wide for mode in ("ept", "shadow", "agile")]
    found.append(
        scenario(*huge, memory="40MiB", cores=2, thp=thp, fragmentation=0.6, reclaim={"rate": 20_000}, what_if=True)
    )
    hard = {"memory": "16MiB", "guest_page": "2M", **split}
    guest = {"files": {"disk": "nvme"}, "reclaim": {"policy": "two-list", "swap": "nvme"}, "memory": "1MiB"}
    balloon = {"size": "256KiB", "reporting": True, "reporting_order": 0, "reporting_delay": "20us"}
    other = [
        vm("a", mode="shadow", **hard) | {"workload": {**compile_, "processes": 12}},
        vm("b", mode="shadow", shadow={"preset": "plex86", "fill": "eager"}, dirty_log=log, **hard) | code,
        vm("c", mode="npt", dirty_log=log, **hard) | code,
        vm("d", **guest) | {"workload": disk},
        vm("e", balloon=balloon, memory="2MiB", kernel_accesses="direct-map") | {"workload": work},
    ]
    nodes = [{"memory": "48MiB", "cpus": 1}, {"memory": "48MiB", "cpus": 1}]
    found.append(scenario(*other, memory="96MiB", cores=2, nodes=nodes, remote_cycles=100, what_if=True))
    numa = {"memory": "interleave", "tables": "replicate"}
    copied = [vm(f"{mode}-vm", mode=mode, memory="2MiB", numa=numa) | {"workload": work} for mode in ("paired", "ept")]
    found.append(scenario(*copied, memory="96MiB", cores=2, nodes=nodes, remote_cycles=100, what_if=True))
    locked = vm("vm", memory="2MiB", vcpus=2) | {"workload": {**work, "threads": 2, "accesses": 3000}}
    lines = {
        "cpu_override": {"cost": {"line_transfer": 100}},
        "pool": {"supply": "fault"},
        "cores": 2,
        "memory": 120 << 12,
    }
    found.append(scenario(locked, **(short | lines), swap={"device": "nvme"}, what_if=True))
    return found


def scripted() -> list[tuple[Scenario, list[Script]]]:
    """Return hosts with their programs: one frees pages that MGLRU has seen, one has code in large pages."""
    steps: list[Any] = []
    for _ in range(6):
        steps += [*touches(range(150), WRITE), ("discard", 0, 60), ("compute", 300_000)]
        steps += [*touches(range(200, 290), WRITE), ("discard", 200, 90)]
    marks = {"min": "64KiB", "low": "96KiB", "high": "128KiB"}
    swap = {"device": "zram", "policy": "mglru"}
    short: dict[str, Any] = {"memory": 160 << 12, "watermarks": marks, "swap": swap, "cores": 2, "what_if": True}
    split = {
        "nx_split": True,
        "nx_recovery_period": "1ms",
        "nx_recovery_ratio": 1,
        "host_page": "2M",
        "guest_page": "2M",
    }
    code = [*touches(range(20), FETCH), *[("compute", 900_000)] * 3, *touches(range(20), WRITE)]
    hard = scenario(vm("vm", mode="shadow", memory="16MiB", **split), memory="40MiB", what_if=True)
    return [(scenario(vm(mode="native", memory="2MiB"), **short), [Script(steps)]), (hard, [Script(code)])]


def hosts() -> list[Any]:
    """Run whole hosts, with every mechanism there is: those above, and what shows that each key has an effect."""
    every: list[tuple[Scenario, list[Script] | None]] = [(what, None) for what in features()] + [*scripted()]
    for key, row in KEYS.items():
        for value in (row.one, row.other):
            with suppress(InputError):  # one of the two may be refused
                every.append((scenario_of(row, key, value), None))
    out = []
    for what, streams in every:
        memory = physical_memory(what.host.memory >> 12, len(what.host.nodes), copied_vms(what))
        hardware = Hardware(make_cores(PREFIX, what.host.cores), make_llc(PREFIX), memory)
        simulation = Simulation(what, streams=streams, hardware=hardware)
        out.append([digest(simulation.run()), simulation.env.cycle])
    return out
