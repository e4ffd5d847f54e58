"""Do the faults that compiled code handles leave everything as the processes would have left it, byte for byte?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from random import Random
from typing import Any

import pytest
import simpy

from tests.simulation.small import BASE, PAGE, digest, scenario, vm
from vmsim.contracts import Resume, Steps
from vmsim.engine.simulation import Simulation
from vmsim.scenario import Scenario

WORKLOADS: list[dict[str, Any]] = [
    {"kind": "sequential", "footprint": 300 * PAGE, "stride": PAGE, "accesses": 400, "writes": 0.5},
    {"kind": "uniform", "footprint": 700 * PAGE, "accesses": 3000, "writes": 0.2},
    {"kind": "zipf", "footprint": 400 * PAGE, "accesses": 4000, "writes": 0.3, "compute": 50},
    {"kind": "gups", "footprint": 512 * PAGE, "updates": 1000},
    {"kind": "churn", "footprint": 256 * PAGE, "rounds": 12, "burst": 20 * PAGE, "kept": 0.4, "work": 30},
    {"kind": "forkwait", "footprint": 40 * PAGE, "forks": 6, "child": 5 * PAGE, "parent": 3 * PAGE},
    {"kind": "compile", "footprint": 60 * PAGE, "processes": 5, "text": 20 * PAGE, "parent": 8 * PAGE, "work": 200},
    {"kind": "disk", "footprint": 64 * PAGE, "reads": 20, "block": 8 * PAGE, "device": "20us", "work": 30},
    {"kind": "switcher", "footprint": 80 * PAGE, "accesses": 900, "spaces": 4, "every": 40, "writes": 0.4},
]
SHADOWS: list[dict[str, Any]] = [
    {"preset": "kvm"},
    {"preset": "kvm-2007"},
    {"preset": "plex86"},
    {"trap": "unsync", "hide": "user-bit"},
    {"trap": "emulate", "hide": "present-bit", "ad": "read-sync", "limit": 16},
    {"trap": "emulate", "fill": "eager", "write_flood": 2},
]


def tables_of(random: Random, modes: list[str]) -> list[dict[str, Any]]:
    """Draw one to three VMs, most of them plain: it is those whose faults are handled in compiled code."""
    tables = []
    for number in range(random.randint(1, 3)):
        mode = random.choice(modes)
        table = vm(
            f"vm{number}",
            mode=mode,
            memory=random.choice(["4MiB", "8MiB"]),
            populate=random.choice(["lazy", "lazy", "eager"]),
            guest_levels=random.choice([4, 5]),
            guest_page=random.choice(["4K", "4K", "4K", "2M"]),
            start=f"{random.randrange(50_000)} cycles",
        )
        if mode == "paired":
            table["paired"] = {"layout": random.choice(["contiguous", "separate"])}
        table["workload"] = {"base": BASE, **random.choice(WORKLOADS)}
        if mode != "native":
            table["host_levels"] = random.choice([4, 5])
            table["fill_chunk"] = random.choice([1, 1, 1, 4])
        if mode in ("ept", "npt", "shadow"):
            table |= random.choice([{}, {}, {"tags": "none"}])
        if mode in ("ept", "npt"):
            table["host_page"] = random.choice(["4K", "4K", "4K", "2M"])
            table["dirty_log"] = random.choice([{}, {}, {}, {"method": "write-protect", "every": "200us"}])
        if mode == "shadow":
            table["shadow"] = random.choice(SHADOWS)
            table["software_tlb"] = random.choice([{}, {"entries": 7}])
        if mode in ("shadow", "agile"):
            table["dirty_log"] = random.choice([{}, {}, {"method": "write-protect", "every": "200us"}])
        if mode in ("shadow", "vkernel"):  # they have no nested tables
            del table["host_levels"]
        tables.append(table)
    return tables


def drawn(seed: int, modes: list[str]) -> Scenario:
    random = Random(seed)
    least = random.choice([0, 1, 4, 20])
    pool = {"min": least, "max": least + random.choice([1, 10, 60, 1000]), "batch": random.choice([1, 8, 64, 300])}
    keys: dict[str, Any] = {
        "pool": pool,
        "cores": random.choice([1, 2]),
        "quantum": random.choice(["5us", "50us", "1ms"]),
        "memory": random.choice(["10MiB", "20MiB"]),
        "what_if": True,
    }
    return scenario(*tables_of(random, modes), warmup=random.choice(["0%", "20%"]), seed=seed, **keys)


def state_of(simulation: Simulation) -> str:
    """Return a digest of every array: memory with its tables, frames and allocators, registers, TLBs and caches."""
    hardware, found = simulation.hardware, hashlib.sha256()
    arrays = [hardware.memory, hardware.cores, hardware.llc, simulation.host.frames, simulation.host.zone]
    for each in simulation.vms:
        arrays += [each.registers, each.frames.frames, each.frames.zone]
        arrays += [each.frames.ready.held(), each.pool.pages.held() if each.pool else each.frames.ready.held()]
    for array in arrays:
        found.update(array.data)
    return found.hexdigest()


def traced(what: Scenario, *, serve: bool, every: int, streams: Any = None) -> tuple[list[Any], int]:
    """Run; return what was seen every so many cycles and at the end, and how many exits processes have handled.

    It is looked at more and more seldom: twice as many cycles apart after every eight times.
    """
    simulation = Simulation(what, streams=streams, serve=serve)
    env, seen, handled = simulation.env, list[Any](), 0

    def counted(handle: Callable[..., Steps[Resume]]) -> Callable[..., Steps[Resume]]:
        def call(*arguments: Any) -> Steps[Resume]:
            nonlocal handled
            handled += 1
            return handle(*arguments)

        return call

    def look() -> Generator[simpy.Event, Any, None]:
        while env.peek() != float("inf"):
            seen.append((env.cycle, state_of(simulation), [each.vcpu.now for each in simulation.vms]))
            yield env.timeout(every << len(seen) // 8)

    for each in simulation.vms:
        each.monitor.handle = counted(each.monitor.handle)  # type: ignore[method-assign]
    if every:
        env.process(look())
    outcome = simulation.run()
    return [*seen, digest(outcome), state_of(simulation)], handled


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("modes", "every"),
    [
        (["native", "ept", "ept", "npt", "paired"], 700_001),
        (["shadow", "shadow", "shadow", "agile"], 700_001),
        (["agile", "vkernel"], 35_000_001),
    ],
)
def test_nothing_differs(modes: list[str], every: int, seed: int) -> None:
    """Every other host is also looked at now and then on the way."""
    what, every = drawn(seed, modes), 0 if seed % 2 else every
    assert traced(what, serve=True, every=every)[0] == traced(what, serve=False, every=every)[0]


LOGGED = {"populate": "eager", "dirty_log": {"method": "write-protect", "every": "1ms"}}
SERVED: dict[str, dict[str, Any]] = {
    "npt on 2M pages": {"mode": "npt", "host_page": "2M"},  # for each of which the host is asked
    "software tlb": {"mode": "shadow", "shadow": {"preset": "plex86"}, "software_tlb": {"entries": 16}},
    **{f"logged {mode}": {"mode": mode, **LOGGED} for mode in ("ept", "shadow", "agile")},
}


@pytest.mark.parametrize("mode", ["native", "ept", "shadow", "agile", "vkernel", *SERVED])
@pytest.mark.parametrize("vms", [1, 4])
def test_compiled_code_handles_faults_that_wait_for_nothing(mode: str, vms: int) -> None:
    """However many VMs fault at once. Or the test above compares two runs of the same code."""
    keys = SERVED.get(mode, {"mode": mode})
    workload = {"footprint": 900 * PAGE, "accesses": 900, "writes": 1.0}
    tables = [vm(f"vm{number}", memory="8MiB", workload=workload, **keys) for number in range(vms)]
    what = scenario(*tables, pool={"min": 4, "max": 999, "batch": 999}, cores=vms, memory="64MiB", what_if=True)
    (seen, few), (likewise, many) = (traced(what, serve=serve, every=0) for serve in (True, False))
    assert seen == likewise
    assert few < 20 * vms < 900 * vms <= many
