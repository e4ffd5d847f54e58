"""Which paging mode explains best what translation costs on this machine, and how sure that is.

The chase by pages is simulated in each mode on the proposed CPU, and so is what a page fault takes in a program that
maps, touches and unmaps memory. A shadow is walked as native tables are: from walks alone the two cannot be told, and
the faults decide, which a shadow makes dear. How far a mode is off is a mean square, in which 30 % of a difference (or
8 cycles), and half or twice the cycles of a fault, count as 1.

Sure is what a bootstrap says (Efron, 1979): footprints and the repetitions of each are drawn again, and the share of
draws in which a mode is nearest is given. It knows nothing of what the model leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vmsim.calibration.measured import Measured
from vmsim.engine.run import simulate
from vmsim.engine.simulation import Simulation
from vmsim.scenario import Cpu, Scenario, load_cpu
from vmsim.workloads import Chunk, Kind
from vmsim.workloads.stream import PAGE, Regions

__all__ = ["Explained", "Modelled", "explain", "modelled", "names_of"]

_BAND, _SLACK = 0.3, 8.0
_DRAWS: Final = 2000
_SEED: Final = 1
_BASE: Final = 0x10_0000_0000
_ACCESSES: Final = 1 << 15

Modelled = dict[str, tuple[dict[int, float], float]]
"""By mode: cycles that translation by 4 KiB adds to a load, by pages; and cycles of a page fault."""


@dataclass
class _Chase:
    """A chase through one line of each of some pages, in one random order, round after round."""

    pages: int
    accesses: int
    name: str = "chase"
    threads: int = 1

    def footprint(self) -> Regions:
        return np.array([_BASE], np.int64), np.array([self.pages * PAGE], np.int64)

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        random = np.random.default_rng(_SEED)
        lines = _BASE + PAGE * np.arange(self.pages) + 64 * random.integers(0, PAGE // 64, self.pages)
        order = random.permutation(self.pages)
        address = lines[np.resize(order, self.accesses)]
        yield Chunk(address, np.ones(self.accesses, np.int32), np.full(self.accesses, Kind.READ, np.uint8), ())

    def digest(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Explained:
    """What explains the measurements.

    Attributes
    ----------
    off : dict of str to float
        By mode, the mean square of how far off it is: 1 is the edge of what agrees.
    share : dict of str to float
        By mode, the share of draws in which it is nearest.
    """

    off: dict[str, float]
    share: dict[str, float]

    @property
    def best(self) -> str:
        """The mode that is nearest in most draws."""
        return max(self.share, key=lambda mode: (self.share[mode], -self.off[mode]))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {"best": self.best, "off": self.off, "share": self.share}

    def __str__(self) -> str:
        others = ", ".join(f"{mode} {share:.0%}" for mode, share in self.share.items() if mode != self.best)
        sure = f"{self.best} explains this machine best, in {self.share[self.best]:.0%} of draws ({others})"
        if self.off[self.best] > 1:
            off = self.off[self.best] ** 0.5
            sure += f"; but none explains it well: {self.best} is off by {off:.1f} times what agrees"
        return f"{sure}."


def names_of(cpu: Cpu) -> dict[str, dict[str, str]]:
    """Return, by what they are called, the settings of the modes that are compared."""
    nested = "npt" if "npt" in cpu.modes else "ept"
    return {
        "native": {"vm.mode": "native"},
        "nested": {"vm.mode": nested},
        "nested, host pages of 2M": {"vm.mode": nested, "vm.host_page": "2M"},
        "shadow": {"vm.mode": "shadow"},
    }


def modelled(
    preset: str, figures: Mapping[str, int], pages: list[int], say: Callable[[str], None] = lambda _: None
) -> Modelled:
    """Simulate the chase by pages and page faults on a CPU in each mode.

    Parameters
    ----------
    preset : str
        A CPU.
    figures : mapping of str to int
        Other figures of it, by keys of a scenario.
    pages : list of int
        Pages of the chase.
    say : callable, optional
        Told what is under way.
    """
    made: Modelled = {}
    host = {"host.cpu": preset, **figures}
    for name, mode in names_of(load_cpu(preset)).items():
        settings: dict[str, Any] = {**host, **mode}
        curve = {}
        for count in pages:
            say(f"simulating {count} pages, {name}")
            small, large = (_load(count, settings | {"vm.guest_page": page}) for page in ("4K", "2M"))
            curve[count] = small - large
        made[name] = curve, _fault(settings)
    return made


def _scenario(size: int, settings: dict[str, Any]) -> Scenario:
    """Return a VM that is as large as it needs to be; large pages in the guest are large in the host too."""
    memory = (2 * size + (64 << 20)) >> 21 << 21
    vm = {
        "name": "here",
        "memory": memory,
        "mode": "native",
        "populate": "eager",
        "workload": {"kind": "uniform", "footprint": PAGE, "accesses": 1},
    }
    host = {"cpu": "skylake-x", "memory": 2 * memory + (256 << 20), "data_caches": True}
    scenario = Scenario.from_tables({"seed": 1, "host": host, "vm": [vm]})
    if settings.get("vm.guest_page") == "2M" and settings["vm.mode"] != "native":
        settings = settings | {"vm.host_page": "2M"}
    return scenario.replace(**settings)


def _load(pages: int, settings: dict[str, Any]) -> float:
    """Return the cycles of a load, after a first round that does not count."""
    first = max(2 * pages, 1 << 12)
    scenario = _scenario(pages * PAGE, settings).replace(warmup=first)
    vm = Simulation(scenario, streams=[_Chase(pages, first + max(_ACCESSES, pages))]).run().vms[0]
    return sum(vm.cycles[cause] for cause in ("data", "l2_tlb", "walk_guest", "walk_nested")) / vm.counters["accesses"]


def _fault(settings: dict[str, Any]) -> float:
    """Return the cycles of a page fault in a program that maps, touches and unmaps memory which its host has backed."""
    scenario = _scenario(8 << 20, settings)
    churn = {"kind": "churn", "footprint": "4MiB", "rounds": 40}
    vm = simulate(scenario.replace(**{"vm.workload": churn, "warmup": "50%"})).vms[0]
    spent = vm.cycles["guest_fault"] + vm.cycles["exit"]
    return spent / max(1, vm.guest_faults)


def explain(measured: Measured, models: Modelled) -> Explained:
    """Say which mode is nearest to what was measured, and in what share of draws.

    Parameters
    ----------
    measured : Measured
    models : Modelled
        As of `modelled`, at pages that were measured.
    """
    names = [*models]
    pages = [count for count in measured.difference() if all(count in curve for curve, _ in models.values())]
    small, large = (
        [measured.cycles(1) * np.array(table[count]) for count in pages] for table in (measured.small, measured.large)
    )
    random = np.random.default_rng(_SEED)
    simulated = np.array([[models[name][0][count] for count in pages] for name in names])
    faults = np.array([models[name][1] for name in names])
    taken = np.array(measured.operations.get("page_fault") or [np.nan]) * measured.cycles(1)
    whole = _off(np.array([np.median(one) - np.median(two) for one, two in zip(small, large, strict=True)]), simulated)
    off = whole.mean(axis=1) + _fault_off(float(np.median(taken)), faults)
    points = np.array([_medians(one, random) - _medians(two, random) for one, two in zip(small, large, strict=True)])
    drawn = random.integers(0, len(pages), (_DRAWS, len(pages)))
    squares = np.array([_off(points, curve[:, None]) for curve in simulated])  # modes, pages, draws
    each = squares[:, drawn, np.arange(_DRAWS)[:, None]].mean(axis=2)
    each += np.array([_fault_off(fault, faults) for fault in _medians(taken, random)]).T
    wins = np.bincount(np.argmin(each, axis=0), minlength=len(names))
    return Explained(
        {name: float(value) for name, value in zip(names, off, strict=True)},
        {name: float(value / _DRAWS) for name, value in zip(names, wins, strict=True)},
    )


def _medians(values: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Return, for each draw, the median of as many samples, drawn from these."""
    return np.asarray(np.median(values[random.integers(0, len(values), (_DRAWS, len(values)))], axis=1))


def _off(points: NDArray[np.float64], simulated: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by mode and point the square of how far a mode is off."""
    return np.asarray(((simulated - points) / np.maximum(_SLACK, _BAND * np.abs(points))) ** 2)


def _fault_off(taken: float, simulated: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by mode the square of how far its page fault is off; none where no fault was measured."""
    if not taken > 0:
        return np.zeros(len(simulated))
    return np.asarray(np.log2(np.maximum(simulated, 1) / taken) ** 2)
