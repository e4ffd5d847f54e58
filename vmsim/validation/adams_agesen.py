"""Shadow paging on the first machines with VT (Adams & Agesen, ASPLOS 2006): single operations, and forkwait.

A guest makes each operation under a shadow monitor, with the exit and entry costs of the paper's table 1; of figure 4,
only the native page fault goes into them. Forkwait is measured 40,000 times; what is simulated is the cycles that the
monitor adds to one fork, and those of the native run are the measured ones.

What is fitted, on the Pentium 4 alone, is how many stores to a table the monitor emulates before it gives up the
table's shadow (`write_flood`), and with it the exits of a fork. The same events then predict the Core 2: its exits,
entries, VMREADs and VMWRITEs cost what table 1 says, and what a monitor does besides takes it as many fewer cycles
than the Pentium 4 as the native run does.

Three operations of figure 4 make no exit under a monitor with VT: a system call, a division by zero, whose exception is
the guest's own, and a write to CR8, which goes to the virtual APIC's page (SDM vol. 3C, TPR shadow). They are predicted
to take what they take natively. An `in` is an exit, after which the monitor emulates the instruction and its device.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np

from vmsim.contracts import Exit, Steps
from vmsim.engine.run import simulate
from vmsim.engine.simulation import Simulation
from vmsim.engine.warm import warm
from vmsim.machine.formats import PAGE_SHIFT, PRESENT
from vmsim.machine.vcpu import Reason, run
from vmsim.scenario import Scenario, load_cpu
from vmsim.validation.report import Claim, Fit, Report

__all__ = ["ACCESSES", "FORKS", "Fork", "Nanobench", "forkwait", "measured", "operations", "predict", "scaled_costs"]


FORKS: Final = 40_000
ACCESSES: Final = {"violation_resume": (12, 6), "inject": (1, 2), "decode": (4, 3)}
"""VMREADs and VMWRITEs in a monitor's steps, counted in Linux 2.6.20 drivers/kvm: what the presets rest on."""
_SOFTWARE: Final = (
    *("violation_walk", "violation_pool", "violation_entry", "violation_rmap", "violation_resume", "decode"),
    *("emulate", "guest_walk_level", "table_page", "shadow_drop", "ad_sync", "resync_entry"),
)
_UNTRAPPED: Final = ("syscall", "cr8write", "divzero")
_PRESETS: Final = {"P4-672": "p4-672", "Core2": "core2"}
_BAND: Final = 0.3
_WARM: Final = 8  # forks before those that count
_ROUNDS: Final = 8  # of each single operation, on a page of its own
_TRIES: Final = (1, 512)  # stores to a table between which the fit is sought: a table has so many entries


def measured() -> dict[tuple[str, str], dict[str, float]]:
    """Return the published numbers, by machine and operation and by column; what was not measured is left out."""
    text = files("vmsim.validation").joinpath("data/adams_agesen06.csv").read_text()
    columns = ("native", "binary_translation", "shadow_vt")
    return {
        (row["machine"], row["operation"]): {name: float(row[name]) for name in columns if row[name]}
        for row in csv.DictReader(text.splitlines())
    }


def _scenario(**settings: Any) -> Scenario:
    text = files("vmsim.validation").joinpath("adams_agesen.toml").read_text()
    return Scenario.from_toml(text, source="adams_agesen.toml").replace(**settings)


class Nanobench:
    """A guest whose kernel makes single operations, and what each costs.

    Parameters
    ----------
    cpu : str
        A preset.
    **settings
        Of the scenario, by dotted key.
    """

    def __init__(self, cpu: str, **settings: Any) -> None:
        simulation = Simulation(_scenario(**{"host.cpu": cpu}, **settings))
        self._env, self._hardware = simulation.env, simulation.hardware
        self._costs = simulation.scenario.cpu.cost
        self._vm = simulation.vms[0]
        self._vm.populate()
        self._first = int(self._vm.stream.footprint()[0][0])
        self._beyond = self._first + int(self._vm.stream.footprint()[1][0])  # a page that the guest does not map
        self._monitor = self._vm.monitor
        self._monitor.deliver = self._return_at_once
        self._natively = {name: round(measured()["P4-672", name]["native"]) for name in _UNTRAPPED}

    def cycles(self) -> dict[str, float]:
        """Return the mean cycles of each operation, by the paper's names."""
        spent: dict[str, list[int]] = {}
        self._env.run(until=self._env.process(self._rounds(spent)))
        return {name: sum(each) / len(each) for name, each in spent.items()}

    def _rounds(self, spent: dict[str, list[int]]) -> Steps[None]:
        yield from self._vm.vcpu.enter()
        for number in range(_ROUNDS):
            page = self._first + (number << PAGE_SHIFT)
            yield from self._access(page)
            entry = yield from self._vm.kernel.tables.find(self._vm.vcpu, self._vm.kernel.root, page)
            gone = entry.value & ~PRESENT
            operations = {
                "pgfault_true": self._access(self._beyond),
                "ptemod_unchanged": self._store(entry.place, entry.value),
                "ptemod_P_to_NP": self._store(entry.place, gone),
                "ptemod_NP_to_P": self._store(entry.place, entry.value),
                "in": self._read_port(),
            }
            operations |= {name: self._compute(native) for name, native in self._natively.items()}
            for name, operation in operations.items():
                yield from self._access(self._first + (_ROUNDS << PAGE_SHIFT))  # the table is one that is in use
                start = self._vm.vcpu.now
                yield from operation
                spent.setdefault(name, []).append(self._vm.vcpu.now - start)

    def _access(self, gva: int) -> Steps[None]:
        """Read a word; a page fault that the guest gets is handled and not tried again."""
        vm, hardware = self._vm, self._hardware
        stream = np.array([gva]), np.ones(1, np.int32), np.zeros(1, np.uint8)
        true_faults = self._monitor.exits["TRUE_FAULT"]
        reason: int = Reason.GUEST_FAULT
        while reason == Reason.GUEST_FAULT and self._monitor.exits["TRUE_FAULT"] == true_faults:
            reason, _, cycles, _, _, code = run(
                hardware.cores, 0, hardware.llc, vm.registers, hardware.memory, *stream, 0, 1, 1
            )
            vm.vcpu.owed += cycles
            if reason == Reason.GUEST_FAULT:
                yield from self._monitor.handle(vm.vcpu, Exit(reason, gva, 0, code))

    def _store(self, place: int, value: int) -> Steps[None]:
        """Store an entry of the guest's tables."""
        yield from self._vm.kernel.mmu.write(self._vm.vcpu, np.array([place]), np.array([value]))

    def _compute(self, cycles: int) -> Steps[None]:
        """Work that makes no exit."""
        self._vm.vcpu.owe("compute", cycles)
        return
        yield

    def _read_port(self) -> Steps[None]:
        """Read a port of a device that the monitor emulates; the exit itself says which, nothing is decoded."""
        costs = self._costs
        self._vm.vcpu.owe("exit", costs.page_fault_exit + costs.vm_entry + costs.violation_resume + costs.emulate)
        return
        yield

    def _return_at_once(self, vcpu: Any, gva: int, code: int) -> Steps[None]:
        """Handle a page fault as the paper's handler does."""
        vcpu.owe("guest_fault", self._costs.fault_delivery)
        return
        yield


@dataclass(frozen=True, slots=True)
class Fork:
    """What shadow paging adds to one fork and wait: cycles, and exits by reason."""

    cycles: float
    exits: dict[str, float]


@cache
def forkwait(cpu: str, flood: int, costs: tuple[tuple[str, int], ...] = ()) -> Fork:
    """Simulate forks natively and under a monitor that emulates `flood` stores to a table before it gives it up.

    Parameters
    ----------
    costs : tuple of (str, int)
        Costs in place of those of the preset.
    """
    scenario = _scenario(
        **{"host.cpu": cpu, "vm.shadow.write_flood": flood},
        **{f"host.cpu_override.cost.{key}": value for key, value in costs},
    )
    workload: Any = scenario.vms[0].workload
    pages = workload.footprint + _WARM * (workload.child + workload.parent) >> PAGE_SHIFT
    scenario = scenario.replace(warmup=pages)
    shadow, native = (simulate(scenario.with_mode(mode)).vms[0] for mode in ("shadow", "native"))
    forks = workload.forks - _WARM
    return Fork(
        (shadow.finish - shadow.start - native.finish + native.start) / forks,
        {reason: count / forks for reason, (count, _) in shadow.exits.items()},
    )


def scaled_costs(cpu: str, machine: str, ratio: float) -> tuple[tuple[str, int], ...]:
    """Return the costs of a monitor's software on `cpu`, VMREADs and VMWRITEs apart, times `ratio`."""
    table, cost = measured(), load_cpu(cpu).cost
    read, write = (table[machine, f"vmcb_{what}"]["shadow_vt"] for what in ("read", "write"))
    scaled = []
    for key in _SOFTWARE:
        reads, writes = ACCESSES.get(key, (0, 0))
        fixed = reads * read + writes * write
        scaled.append((key, round(fixed + ratio * (getattr(cost, key) - fixed))))
    return tuple(scaled)


def operations(bench: Nanobench) -> tuple[Claim, ...]:
    """Predict single operations on the Pentium 4."""
    table = measured()
    return tuple(
        Claim(f"P4-672 {name}, cycles", cycles, table["P4-672", name]["shadow_vt"], _BAND)
        for name, cycles in bench.cycles().items()
    )


def predict() -> Report:
    """Predict eight single operations on the Pentium 4, and forkwait on the Core 2."""
    table = measured()
    first, other = _PRESETS.values()
    for cpu in (first, other):
        warm(load_cpu(cpu), ("shadow",))
    claims = [*operations(Nanobench(first))]
    hertz = {machine: load_cpu(cpu).frequency for machine, cpu in _PRESETS.items()}
    native = {machine: table[machine, "40000_forks"]["native"] for machine in _PRESETS}
    there = table["P4-672", "40000_forks"]["shadow_vt"]
    flood = _fit((there - native["P4-672"]) * hertz["P4-672"] / FORKS)
    fitted = forkwait(first, flood)
    ratio = native["Core2"] * hertz["Core2"] / (native["P4-672"] * hertz["P4-672"])
    forks = {scale: forkwait(other, flood, scaled_costs(other, "Core2", scale)) for scale in (ratio, 1.0)}
    seconds = {scale: native["Core2"] + FORKS * fork.cycles / hertz["Core2"] for scale, fork in forks.items()}
    claims.append(Claim("Core2 forkwait, s", seconds[ratio], table["Core2", "40000_forks"].get("shadow_vt"), _BAND))
    exits = ", ".join(f"{count:.0f} {reason}" for reason, count in fitted.exits.items() if count)
    again = native["P4-672"] + FORKS * fitted.cycles / hertz["P4-672"]
    return Report(
        title="Shadow paging on a Pentium 4 and a Core 2: single operations, forkwait",
        source="Adams & Agesen, ASPLOS 2006: the hardware VMM (VT)",
        fitted={
            "stores to a table before its shadow goes": Fit(
                flood,
                "stores",
                "adams_agesen06.csv",
                "forkwait on P4-672",
                f"forkwait {again:.1f} s, measured {there}",
            ),
        },
        claims=tuple(claims),
        details={
            "exits of one fork": exits,
            "native forkwait": f"{native['P4-672']} and {native['Core2']} s, as measured",
            "Core2, software of the monitor": f"{ratio:.2f} of the Pentium 4's cycles, as the native run; "
            f"were it as many cycles, forkwait took {seconds[1.0]:.1f} s",
        },
    )


def _fit(cycles: float) -> int:
    """Return after how many stores a shadow must go for a fork on the Pentium 4 to take `cycles` more than natively."""
    low, high = _TRIES
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if forkwait(_PRESETS["P4-672"], middle).cycles < cycles else (low, middle)
    return min(low, high, key=lambda stores: abs(forkwait(_PRESETS["P4-672"], stores).cycles - cycles))
