"""Runs of a VM whose program does nothing until its host has taken memory and given it back, in either way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from vmsim.engine.simulation import Simulation
from vmsim.scenario import Scenario
from vmsim.workloads import Chunk, Event, Kind, Op
from vmsim.workloads.stream import PAGE, Regions

__all__ = ["Inflation", "inflate", "share", "unplug"]

_BASE: Final = 0x10_0000_0000


@dataclass
class _Waits:
    """A program that touches a page, waits for so many ns, and touches pages in order at last."""

    nanoseconds: int
    pages: int
    threads: int = 1
    name: str = "waits"

    @property
    def accesses(self) -> int:
        return 1 + self.pages

    def footprint(self) -> Regions:
        return np.array([_BASE], np.int64), np.array([PAGE], np.int64)  # others are free until it touches them

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        address = _BASE + PAGE * np.arange(1 + self.pages, dtype=np.int64)
        kinds = np.full(len(address), Kind.WRITE, np.uint8)
        wait = Event(1, Op.IO, 1, _BASE, PAGE, self.nanoseconds)
        yield Chunk(address, np.ones(len(address), np.int32), kinds, (wait,))

    def digest(self) -> str:
        return ""


class Inflation(NamedTuple):
    """What taking memory took, in cycles.

    Attributes
    ----------
    taking, giving : int
        Until the first size was reached, and from then on until all was given back.
    violation : float
        Of each page that the program touched at last: the exit, what the host did in it, and waits for memory. Of an
        allocator that the host shares, each request for a huge frame.
    """

    taking: int
    giving: int
    violation: float


def inflate(
    cpu: str,
    *,
    memory: int,
    size: int,
    populate: str = "lazy",
    message: int = 256,
    back: str = "",
    wait: int = 0,
    touched: int = 0,
    page: str = "4K",
    host_page: str = "4K",
) -> Inflation:
    """Have a VM under EPT fill its balloon, and empty it again at a time.

    Parameters
    ----------
    cpu : str
        A preset.
    memory, size : int
        Bytes of the VM, and of the balloon.
    populate, message, page, host_page : optional
        As of a scenario.
    back : str, optional
        When the balloon is to be empty again.
    wait : int, optional
        Nanoseconds that the program waits.
    touched : int, optional
        Pages that it touches then.
    """
    table: dict[str, Any] = {"size": size, "message": message, "page": page}
    if back:
        table["schedule"] = [[back, 0]]
    vm = {
        "name": "vm",
        "memory": memory,
        "mode": "ept",
        "populate": populate,
        "host_page": host_page,
        "balloon": table,
        "workload": {"kind": "uniform", "footprint": PAGE, "accesses": 1},
    }
    host = {"cpu": cpu, "memory": 2 * memory, "cores": 1}
    scenario = Scenario.from_tables({"host": host, "vm": [vm]})
    simulation = Simulation(scenario, streams=[_Waits(wait, touched)])
    outcome = simulation.run()
    times = {what: [each.time for each in outcome.transfers if each.what == what] for what in ("inflate", "deflate")}
    start = scenario.vms[0].balloon.steps[-1][0] if scenario.vms[0].balloon else 0
    only = outcome.vms[0]
    count, cycles = only.exits["EPT_VIOLATION"]
    spent = cycles + sum(only.cycles[cause] for cause in ("pool_wait", "host_wait"))
    return Inflation(
        times["inflate"][-1],
        times["deflate"][-1] - start if times["deflate"] else 0,
        spent / max(1, count),
    )


def unplug(cpu: str, *, memory: int, region: int, back: str, wait: int, touched: int) -> Inflation:
    """Have a VM under EPT, all of it backed by pages of 2 MiB, unplug a region after a microsecond, and plug it again.

    Parameters
    ----------
    cpu : str
        A preset.
    memory, region : int
        Bytes of the VM, and of its virtio-mem device.
    back, wait, touched
        As of `inflate`.
    """
    vm = {
        "name": "vm",
        "memory": memory,
        "mode": "ept",
        "populate": "eager",
        "host_page": "2M",
        "virtio_mem": {"region": region, "schedule": [["1us", 0], [back, region]]},
        "workload": {"kind": "uniform", "footprint": PAGE, "accesses": 1},
    }
    host = {"cpu": cpu, "memory": 2 * memory, "cores": 1, "pool": {"supply": "fault"}}
    scenario = Scenario.from_tables({"host": host, "vm": [vm]})
    outcome = Simulation(scenario, streams=[_Waits(wait, touched)]).run()
    times = {what: [each.time for each in outcome.transfers if each.what == what] for what in ("unplug", "plug")}
    device = scenario.vms[0].virtio_mem
    assert device
    starts = [time for time, _ in device.steps[1:]]
    only = outcome.vms[0]
    count, cycles = only.exits["EPT_VIOLATION"]
    return Inflation(times["unplug"][-1] - starts[0], times["plug"][-1] - starts[1], cycles / max(1, count))


def share(cpu: str, *, memory: int, size: int, back: str, wait: int, touched: int, populate: str) -> Inflation:
    """Have the host take memory of a VM under EPT by pages of 2 MiB from its allocator, and give it back.

    Parameters are as of `inflate`.
    """
    vm = {
        "name": "vm",
        "memory": memory,
        "mode": "ept",
        "populate": populate,
        "host_page": "2M",
        "bilateral": {"schedule": [["1us", size], [back, 0]]},
        "workload": {"kind": "uniform", "footprint": PAGE, "accesses": 1},
    }
    host = {"cpu": cpu, "memory": 2 * memory, "cores": 1, "pool": {"supply": "fault"}}
    scenario = Scenario.from_tables({"host": host, "vm": [vm]})
    outcome = Simulation(scenario, streams=[_Waits(wait, touched)]).run()
    shared = scenario.vms[0].bilateral
    assert shared
    starts = [time for time, _ in shared.steps[1:]]
    times = {each.what: each.time for each in outcome.transfers}  # the last of each
    requests, cycles = outcome.vms[0].exits.get("INSTALL", (0, 0))
    return Inflation(times["reclaim_hard"] - starts[0], times["restore"] - starts[1], cycles / max(1, requests))
