"""First writes of a VM of large pages after its dirty logging was enabled (D. Matlack, KVM: x86/mmu, 2022).

dirty_log_perf_test with 96 vCPUs, each of which writes to 1 GiB of its own, mapped by huge pages, once it is logged.
Large pages are split by the first write to them, or all of them when logging is enabled (`dirty_log.split`). What
splitting a page of 2 MiB takes is fitted to the CPU time of the latter (as `entry_edit`, of 512 entries). What the
writes take, and their faults in all, is predicted from the costs of a violation on `cascade-lake`, and from what the
lock's cache line takes from core to core there, within a socket: the measured machine is not named.

Who splits a page for a write makes one entry of 4 KiB in KVM of then, and leaves the 511 others out
(arch/x86/kvm/mmu/tdp_mmu.c, kvm_tdp_mmu_map): `dirty_log.split = "one"`, so that each first write to a page is a
violation, which holds `mmu_lock` to read. After an eager split the processor's own log notes the writes (PML), as KVM
has it where the CPU does.

A 512th of each vCPU's memory is simulated, one large page.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from vmsim.engine.simulation import Simulation
from vmsim.scenario import Scenario, load_cpu
from vmsim.validation.lock_queue import Writers
from vmsim.validation.report import Claim, Fit, Report
from vmsim.workloads.stream import PAGE

__all__ = ["VCPUS", "Logged", "fitted", "logged", "measured", "predict"]

_FILE: Final = "kvm_dirty_logging.csv"
_CPU: Final = "cascade-lake"
_BAND: Final = 0.3
_LARGE: Final = 2 << 20
_SCALE: Final = 512
_GIB: Final = 1 << 30
VCPUS: Final = 96
_METHODS: Final = {"one": "write-protect", "eager": "pml"}


def measured() -> dict[tuple[str, str], float]:
    """Return the published numbers of the machine with 96 vCPUs, by unit (s, CPU s) and how pages were split."""
    text = files("vmsim.validation").joinpath(f"data/{_FILE}").read_text(encoding="utf-8")
    rows = [row for row in csv.DictReader(text.splitlines()) if row["machine"].startswith("Google")]
    return {(row["unit"], row["config"].removesuffix(" (read lock)")): float(row["value"]) for row in rows}


@dataclass(frozen=True, slots=True)
class Logged:
    """What a VM that is logged from its start takes.

    Attributes
    ----------
    split : float
        Cycles of the host for each large page when logging begins.
    writing : float
        Cycles that a vCPU takes to write to 1 GiB.
    faults : float
        Of those, cycles of the faults.
    """

    split: float
    writing: float
    faults: float


@cache
def logged(split: str, entry_edit: int, vcpus: int = VCPUS, scale: int = _SCALE) -> Logged:
    """Simulate vCPUs that write to their memory once it is logged.

    Parameters
    ----------
    split : str
        one, or eager.
    entry_edit : int
        Cycles of one of the 512 entries of a page that is split.
    vcpus : int, optional
    scale : int, optional
        What part of 1 GiB each writes to.
    """
    pages = _GIB // PAGE // scale
    size = vcpus * pages * PAGE
    memory = size + size // 4 + (64 << 20)
    vm: dict[str, Any] = {
        "name": "vm",
        "memory": memory,
        "mode": "ept",
        "vcpus": vcpus,
        "host_page": "2M",
        "populate": "eager",
        "dirty_log": {"method": _METHODS[split], "every": "1000s", "split": split},
        "workload": {"kind": "uniform", "footprint": PAGE, "accesses": 1},
    }
    host = {
        "cpu": _CPU,
        "memory": 2 * memory + (512 << 20),
        "cores": vcpus,
        "pool": {"supply": "fault"},
        "horizon": "300ns",  # a vCPU that runs ahead has cache lines before its turn
        "cpu_override": {"cost": {"entry_edit": entry_edit}},
    }
    scenario = Scenario.from_tables({"host": host, "vm": [vm]})
    only = Simulation(scenario, streams=[Writers(vcpus, pages)]).run().vms[0]
    enabling = only.exits["DIRTY_LOG"][1] if split == "eager" else 0
    faults = sum(cycles for reason, (_, cycles) in only.exits.items() if reason != "DIRTY_LOG")
    large = memory // _LARGE
    return Logged(enabling / large, scale * (only.finish - only.start - enabling), scale * faults / vcpus)


def fitted() -> int:
    """Return the cycles of an entry with which a split takes the CPU time that was measured of eager ones."""
    there = measured()["CPU s", "eager split"] * load_cpu(_CPU).frequency / (VCPUS * _GIB // _LARGE)
    none = logged("eager", 0).split
    return round((there - none) / (logged("eager", 1).split - none))


def predict() -> Report:
    """Predict what the writes take, and enabling the log."""
    table, hertz = measured(), load_cpu(_CPU).frequency
    entry = fitted()
    lazy, eager = logged("one", entry), logged("eager", entry)
    whole = VCPUS * _GIB // _LARGE / hertz
    none = "no row is at hand"
    return Report(
        title="1 GiB a vCPU written to after logging was enabled, 96 vCPUs: s",
        source="D. Matlack, KVM: x86/mmu: Split huge pages mapped by the TDP MMU when dirty logging is enabled, 2022",
        fitted={
            "an entry of a page that is split": Fit(
                entry, "cycles at 2.1 GHz", _FILE, "CPU time of eager splitting", "31.5 us for each page of 2 MiB"
            )
        },
        claims=(
            Claim(
                "split eagerly, CPU s of splitting",
                eager.split * whole,
                table["CPU s", "eager split"],
                _BAND,
                kind="fit",
            ),
            Claim("split on fault, writes, s", lazy.writing / hertz, table["s", "split on fault"], _BAND),
            Claim("split on fault, CPU s", VCPUS * lazy.faults / hertz, table["CPU s", "split on fault"], _BAND),
            Claim("split on fault, enabling, s", lazy.split * whole, table["s", "without eager split"], _BAND),
            Claim("split eagerly, writes, s", eager.writing / hertz, None, None, note=none),
            Claim("split eagerly, enabling, s", eager.split * whole, None, None, note=none),
        ),
        details={"simulated": f"a {_SCALE}th of the memory of each vCPU, on {_CPU}; the measured CPU is not named"},
    )
