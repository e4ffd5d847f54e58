"""What must not grow with the host: a flush among many cores, a large host's start and records, many VMs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.table import Row, child

__all__ = ["measure"]

CORES = 64
GIB = 1 << 30
VMS = 1000
ACCESSES = 100_000
LARGE = """
[host]
cpu = "skylake-x"
memory = "4TiB"
[[vm]]
name = "large"
memory = "100GiB"
mode = "ept"
populate = "eager"
guest_page = "4K"
host_page = "4K"
workload = { kind = "gups", footprint = "98GiB", updates = 1000 }
"""
MANY = """
[host]
cpu = "skylake-x"
cores = 8
memory = "64GiB"
pool = {{ min = 256, max = 1024, batch = 256 }}
[[vm]]
name = "vm"
count = {vms}
memory = "32MiB"
mode = "ept"
populate = "lazy"
workload = {{ kind = "zipf", footprint = "16MiB", accesses = {accesses} }}
"""
COMPILE = """
from vmsim.engine.warm import warm
from vmsim.scenario import Cpu, load_cpu
warm(load_cpu("skylake-x"))
"""
# Prints processor seconds until the clock starts and of the whole, and the peak resident set in bytes.
RUN = """
import json, sys, time
from vmsim.contracts import Moment
from vmsim.engine.simulation import Simulation
from vmsim.engine.warm import warm
from vmsim.scenario import Scenario
scenario = Scenario.from_toml(sys.argv[1])
warm(scenario.cpu)
started = []
def note(moment, host, vm):
    if moment is Moment.STARTED:
        started.append(time.process_time() - start)
start = time.process_time()
outcome = Simulation(scenario, observers=[note]).run()
seconds = time.process_time() - start
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
assert outcome.ending is None, outcome.ending.message
print(json.dumps({"started": started[0], "seconds": seconds, "peak": int(status["VmHWM"].split()[0]) * 1024}))
"""


def measure(vms: int = VMS) -> Iterator[Row]:
    """Yield the time of a flush, start and memory of a large host, and the time that many VMs take."""
    yield from _flushes()
    child("-c", COMPILE)  # compiling takes more memory than running
    found = _run(LARGE)
    yield Row("start of a host of 4 TiB, 100 GiB in use", found["started"], "s", 3)
    yield Row("peak memory of that", found["peak"] / GIB, "GiB", 4)
    found = _run(MANY.format(vms=vms, accesses=ACCESSES))
    per_thousand = found["seconds"] * 1000 / vms
    yield Row("1,000 VMs of 100,000 accesses", per_thousand, "s", 25, note=f"{vms:,} VMs, processor time")


def _flushes() -> Iterator[Row]:
    from vmsim.engine.hardware import Hardware
    from vmsim.machine.layout import make_vm
    from vmsim.machine.tags import Kind, Tags
    from vmsim.scenario import load_cpu

    platforms: dict[str, Kind] = {"skylake-x": "vpid", "zen2": "asid"}
    for cpu, tag in platforms.items():
        hardware = Hardware.of(load_cpu(cpu), cores=CORES, frames=16)
        tags = Tags(hardware.cores, limit=1 << 15, amd=tag == "asid")
        spaces = [tags.spaces(make_vm(), number, tags=tag, apart="pcid") for number in range(CORES)]
        for core, each in enumerate(spaces):
            each.enter(core)
        flushes: dict[str, Callable[[], None]] = {
            "of an address space": spaces[0].flush,
            "of guest-physical mappings": spaces[0].flush_nested,
            "of 16 pages": partial(spaces[0].invalidate, 0x1000_0000, 0x1000_FFFF),
        }
        for what, flush in flushes.items():
            yield Row(f"a flush {what}, {CORES} cores, {cpu}", _least(flush) * 1e6, "us", 20)


def _least(flush: Callable[[], None], times: int = 200, turns: int = 5) -> float:
    flush()
    found = []
    for _ in range(turns):
        start = time.process_time()
        for _ in range(times):
            flush()
        found.append((time.process_time() - start) / times)
    return min(found)


def _run(scenario: str) -> dict[str, float]:
    result: dict[str, float] = json.loads(child("-c", RUN, scenario))
    return result
