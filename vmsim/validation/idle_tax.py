"""Figure 7 of Waldspurger (OSDI 2002): two VMs of 256 MB with equal shares, of which one is idle, on an ESX host.

All of it is simulated at a scale of 1 to 32 of the memory, and of 1 to 1000 of the policy's time. Both programs write
to all of their memory; then the idle one uses 10 MB of it, the other one any page, so many in a sampling period that
the policy finds 198.1 MB in use: both are the paper's. The host has room for both parts together, as the paper has
them, with `host.esx.high` percent free, and takes what balloons cannot have (neither guest has free pages) to a device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np

from vmsim.engine.simulation import Simulation
from vmsim.scenario import Scenario
from vmsim.workloads import Chunk, Event, Kind, Op
from vmsim.workloads.stream import PAGE, Regions

__all__ = ["Allotted", "Using", "allotted"]

_MB: Final = 8  # pages that stand for one
_VM: Final = 256 * _MB
_KEPT: Final = 8 * _MB  # of a VM, which its program does not use
_OTHER: Final = 30  # frames of the host for page tables and pools
_FREE: Final = 6.0
_STEPS: Final = 160_000
_COMPUTE: Final = 19_000  # cycles between accesses: 1.6 for each page in a period, which finds four fifths of them
_BASE: Final = 0x10_0000_0000


@dataclass
class Using:
    """A program that writes to all of its pages once, and then to any of the first of them."""

    pages: int
    used: int
    steps: int
    seed: int
    threads: int = 1
    name: str = "using"

    @property
    def accesses(self) -> int:
        """Writes."""
        return self.pages + self.steps

    def footprint(self) -> Regions:
        """Return a page: none is written to before the start."""
        return np.array([_BASE], np.int64), np.array([PAGE], np.int64)

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        """Read the writes."""
        drawn = np.random.Generator(np.random.PCG64(self.seed)).integers(0, self.used, self.steps)
        page = np.concatenate([np.arange(self.pages), drawn])
        address = (_BASE + PAGE * page).astype(np.int64)
        start = (Event(0, Op.MAP, 1, _BASE, self.pages * PAGE, 3),)
        yield Chunk(address, np.ones(len(page), np.int32), np.full(len(page), Kind.WRITE, np.uint8), start)

    def digest(self) -> str:
        """Return nothing: it is no workload of a scenario."""
        return ""


class Allotted(NamedTuple):
    """What the idle and the busy VM have while both run, in MB, and what the policy thinks is in use at the end."""

    idle: float
    busy: float
    idle_used: float
    busy_used: float


@cache
def allotted(tax: float, idle_uses: float, total: float) -> Allotted:
    """Simulate both VMs on a host with room for so many MB of them, at a tax in percent.

    Parameters
    ----------
    tax : float
    idle_uses : float
        MB that the idle VM uses.
    total : float
    """
    names = ("idle", "busy")
    vms: list[dict[str, Any]] = [
        {
            "name": name,
            "memory": _VM * PAGE,
            "mode": "ept",
            "balloon": {"max": (_VM - 16) * PAGE, "retry": "1ms", "message": 32, "deflate_on_oom": True},
            "workload": {"kind": "uniform", "footprint": PAGE, "accesses": 1, "compute": _COMPUTE},
        }
        for name in names
    ]
    host = {
        "cpu": "cascade-lake",
        "cores": len(vms) + 1,
        "memory": round((total * _MB + _OTHER) / (1 - _FREE / 100)) * PAGE,
        "pool": {"min": 2, "max": 8, "batch": 4},
        "overcommit": {"policy": "esx", "every": "1ms", "patience": "2ms"},
        "esx": {"high": _FREE, "soft": _FREE - 0.1, "margin": 0.0, "idle_tax": tax, "sample_period": "30ms"},
        "swap": {"device": "nvme", "policy": "random"},
        "samples": "1ms",
    }
    whole = _VM - _KEPT
    streams = [Using(whole, used, _STEPS, seed) for seed, used in enumerate((round(idle_uses * _MB), whole))]
    done = Simulation(Scenario.from_tables({"host": host, "vm": vms}), streams=streams).run()
    end = min(vm.finish for vm in done.vms)
    parts = [
        np.mean([each.resident for each in done.samples[name] if 0.9 * end < each.time <= end]) / _MB for name in names
    ]
    active = [vm.figures.named("overcommit")["active"] / _MB for vm in done.vms]
    return Allotted(float(parts[0]), float(parts[1]), active[0], active[1])
