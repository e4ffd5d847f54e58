"""How much memory long streams and large guests take; each is measured in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator

from benchmarks.table import Row, child

__all__ = ["measure"]

MIB = 1 << 20
ACCESSES = 1_000_000_000
LONG = """
[host]
cpu = "skylake-x"
memory = "2GiB"
[[vm]]
name = "long"
memory = "1GiB"
mode = "native"
populate = "eager"
workload = {{ kind = "sequential", footprint = "256MiB", stride = "8B", accesses = {accesses} }}
"""
LARGE = """
[host]
cpu = "skylake-x"
memory = "72GiB"
[[vm]]
name = "large"
memory = "64GiB"
mode = "ept"
populate = "eager"
guest_page = "4K"
host_page = "4K"
workload = { kind = "gups", footprint = "60GiB", updates = 1000 }
"""
COMPILE = """
from vmsim.scenario import Cpu, load_cpu
from vmsim.engine.warm import warm
warm(load_cpu("skylake-x"))
"""
# Prints seconds of the whole and of the part after populating, and the peak resident set in bytes.
RUN = """
import json, sys, time
from vmsim.scenario import Scenario
from vmsim.engine.simulation import Simulation
from vmsim.engine.warm import warm
scenario = Scenario.from_toml(sys.argv[1])
warm(scenario.cpu)
start = time.perf_counter()
outcome = Simulation(scenario).run()
seconds = time.perf_counter() - start
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) * 1024  # getrusage would count the parent's too
assert outcome.ending is None, outcome.ending.message
print(json.dumps({"seconds": seconds, "running": outcome.wall_seconds, "peak": peak}))
"""


def measure(accesses: int = ACCESSES) -> Iterator[Row]:
    """Yield the peak memory of a long run, and time and peak memory of populating a large guest."""
    child("-c", COMPILE)  # compiling takes more memory than running
    found = _run(LONG.format(accesses=accesses))
    yield Row(
        f"peak memory, {accesses:,} accesses",
        found["peak"] / MIB,
        "MiB",
        1024,
        note=f"{found['running']:.0f} s, {accesses / found['running'] / 1e6:.0f} M accesses/s",
    )
    found = _run(LARGE)
    yield Row("populating 64 GiB of 4 KiB pages", found["seconds"] - found["running"], "s", 20)
    yield Row("peak memory, 64 GiB guest", found["peak"] / MIB, "MiB", 1536)


def _run(scenario: str) -> dict[str, float]:
    result: dict[str, float] = json.loads(child("-c", RUN, scenario))
    return result
