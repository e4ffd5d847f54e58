"""A host under pressure: what a fault costs to simulate beside the same host with memory enough, and scans a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from benchmarks.table import Row

if TYPE_CHECKING:
    from vmsim.scenario import Scenario

__all__ = ["measure", "scenario"]

VMS = 64
PAGES = 65_536  # of each VM: 256 MiB
OVERCOMMIT = 1.5
MOST = 3.0  # times the cost of a fault without pressure
SCANS = 10_000_000  # pages a second
PASSES = 2  # over the memory of each


def scenario(vms: int, pages: int, *, pressed: bool, mode: str = "ept", policy: str = "two-list") -> Scenario:
    """Return VMs that go over their memory again and again, on a host that has it or a part of it, swap, KSM, balloons.

    Parameters
    ----------
    vms, pages : int
        How many, and what each touches.
    pressed : bool
        The host has 1/1.5 of it; else a tenth more than all.
    """
    from vmsim.scenario import Scenario

    memory = pages + pages // 32 + 1024  # of each: a balloon and the kernel's own besides
    wanted = vms * memory
    frames = int(wanted / OVERCOMMIT) if pressed else int(wanted * 1.1) + 4096
    marks = {name: f"{max(frames // part, 16) * 4}KiB" for name, part in (("min", 400), ("low", 200), ("high", 100))}
    host: dict[str, Any] = {
        "cpu": "skylake-x",
        "cores": vms,
        "memory": f"{frames * 4}KiB",
        "watermarks": marks,
        "what_if": True,
        "pool": {"min": 64, "max": 1024, "batch": 256},
        "swap": {"device": "nvme", "size": f"{2 * wanted * 4}KiB", "policy": policy},
        "ksm": {"run": 1, "pages_to_scan": 1000, "sleep_millisecs": 20},
    }
    vm = {
        "name": "vm",
        "count": vms,
        "memory": f"{memory * 4}KiB",
        "mode": mode,
        "balloon": {"size": f"{pages // 32 * 4}KiB"},
        "workload": {
            "kind": "sequential",
            "footprint": f"{pages * 4}KiB",
            "stride": "4KiB",
            "accesses": PASSES * pages,
            "writes": 0.5,
            "compute": 2000,
        },
    }
    return Scenario.model_validate({"seed": 1, "host": host, "vm": [vm]})


def measure(vms: int = VMS, pages: int = PAGES) -> Iterator[Row]:
    """Yield the cost of a fault with pressure over that without, and pages that are scanned a second."""
    calm, _ = _each(scenario(vms, pages, pressed=False))
    pressed, what = _each(scenario(vms, pages, pressed=True))
    note = f"{pressed * 1e6:.1f} us a fault, {calm * 1e6:.1f} without; {what}"
    yield Row(f"a fault of {vms} VMs under pressure", pressed / calm, "x", MOST, note=note)
    yield Row("pages scanned, two lists, ept", _scans(), "/s", SCANS, at_least=True)


def _each(spec: Scenario) -> tuple[float, str]:
    """Return the seconds of processor time of a fault, of the guest or of the host, and what there was."""
    from vmsim.engine.simulation import Simulation
    from vmsim.engine.warm import warm_for

    warm_for(spec)
    Simulation(scenario(2, 512, pressed=True)).run()  # loads what only a host under pressure needs
    simulation = Simulation(spec)
    before = time.process_time()
    outcome = simulation.run()
    seconds = time.process_time() - before
    if outcome.ending is not None:
        raise RuntimeError(outcome.ending.message)
    faults = sum(vm.guest_faults + sum(count for count, _ in vm.exits.values()) for vm in outcome.vms)
    back = sum(vm.figures.named("swap")["swapped_in"] for vm in outcome.vms)
    out = sum(vm.figures.named("swap")["swapped_out"] for vm in outcome.vms)
    return seconds / faults, f"{faults:,} faults and exits, {out:,} pages out, {back:,} back"


def _scans(pages: int = 262_144, rounds: int = 20) -> float:
    """Return how many pages a second kswapd looks at in the lists of one VM, of which all were accessed."""
    from vmsim.engine.simulation import Simulation
    from vmsim.host.policies.two_list import TwoList

    simulation = Simulation(scenario(1, pages, pressed=False))
    vm = simulation.vms[0]
    vm.populate()
    policy, looked = TwoList(), 0
    policy.attach([vm])
    policy.begin()
    best = 0.0
    for _ in range(rounds):
        before = time.process_time()
        found = policy.scan(vm, 2, 1 << 40)
        seconds = time.process_time() - before
        best = max(best, found.looked / seconds if seconds else 0.0)
        for number in found.numbers.tolist():
            policy.keep(vm, number, active=False)
        looked += found.looked
    assert looked
    return best
