"""Shootdowns by threads of one process: what one costs, and how that grows with the threads.

A thread touches a page and discards it (MADV_DONTNEED) in a loop, while the other threads of its process run on other
cores (N. Amit, 2019: Haswell); or 36 threads run will-it-scale's tlb_flush2, which maps 1 MiB, writes, discards and
reads each of its pages, and unmaps it (R. van Riel, 2024: Milan). Both are simulated on the hardware itself with the
presets as they are, but for one number: the cycles of an interrupt between processors (`cost.ipi_send`,
`cost.ipi_latency`, `cost.ipi_handle`), which are scaled together until the two-thread row is met. The one-thread row
and Milan are predicted. A preset has the cycles of an interrupt from the difference of the first two rows, so that the
scale says how well the rest of the row is met.
"""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np

from vmsim.engine.simulation import Simulation
from vmsim.engine.warm import warm
from vmsim.scenario import Scenario, load_cpu
from vmsim.validation.report import Claim, Fit, Report
from vmsim.workloads import Chunk, Event, Kind, Op
from vmsim.workloads.stream import PAGE, Regions

__all__ = [
    "SWEEP",
    "Discarding",
    "FlushLoops",
    "fitted_scale",
    "loop_cycles",
    "measured",
    "nanoseconds",
    "predict",
    "sweep",
]

MADVISE: Final = "MADV_DONTNEED + touch of one page on one thread; other threads of the process run on other cores"
FLUSH2: Final = "will-it-scale tlb_flush2_threads, 36-core AMD Milan"
IPIS: Final = "IPIs; lru_add_drain removed"
SWEEP: Final = (1, 2, 4, 8, 16)
_BAND: Final = 0.2
_BASE: Final = 0x10_0000_0000
_REGION: Final = 256  # pages that tlb_flush2 maps at a time
_ROUNDS: Final = 64
_COSTS: Final = ("ipi_send", "ipi_latency", "ipi_handle")


def measured() -> dict[tuple[str, int, str], float]:
    """Return the published numbers by experiment, threads and variant."""
    text = files("vmsim.validation").joinpath("data/tlb_flush_micro.csv").read_text()
    return {
        (row["experiment"], int(row["threads"]), row["variant"]): float(row["value"])
        for row in csv.DictReader(text.splitlines())
    }


@dataclass
class _Loops(ABC):
    """Threads that go round a loop; `passed` is called as each round of thread 0 begins, and at its end."""

    threads: int
    rounds: int
    passed: Callable[[], None] = lambda: None

    name = "loops"

    @property
    def accesses(self) -> int:
        """Accesses of all threads."""
        return sum(int(chunk.count.sum()) for thread in range(self.threads) for chunk in self._made(thread))

    def footprint(self) -> Regions:
        """Return one region with a part for each thread."""
        return np.array([_BASE], np.int64), np.array([self.threads * _REGION * PAGE], np.int64)

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        """Read a thread's rounds."""
        for chunk in self._made(thread):
            if thread == 0:
                self.passed()
            yield chunk
        if thread == 0:
            self.passed()

    def digest(self) -> str:
        """Return nothing: it is no workload of a scenario."""
        return ""

    @abstractmethod
    def _made(self, thread: int) -> Iterator[Chunk]:
        """Make a thread's rounds."""


class Discarding(_Loops):
    """Thread 0 writes a page and discards it, round after round; the others read pages of their own for longer."""

    def _made(self, thread: int) -> Iterator[Chunk]:
        page = _BASE + thread * _REGION * PAGE
        if thread == 0:
            discard = Event(1, Op.DISCARD, 1, page, PAGE, 0)
            for _ in range(self.rounds):
                yield _chunk([page], [Kind.WRITE], (discard,))
        else:
            yield _chunk([page] * self.rounds, [Kind.READ] * self.rounds, (), count=200_000)


class FlushLoops(_Loops):
    """All threads run tlb_flush2: a round is a page written, discarded and read."""

    def _made(self, thread: int) -> Iterator[Chunk]:
        start = _BASE + thread * _REGION * PAGE
        for number in range(self.rounds):
            page = start + number % _REGION * PAGE
            events = [Event(1, Op.DISCARD, 1, page, PAGE, 0)]
            if number % _REGION == 0:
                events.insert(0, Event(0, Op.MAP, 1, start, _REGION * PAGE, 3))
            if number % _REGION == _REGION - 1:
                events.append(Event(2, Op.UNMAP, 1, start, _REGION * PAGE, 0))
            yield _chunk([page, page], [Kind.WRITE, Kind.READ], tuple(events))


def _chunk(pages: list[int], kinds: list[Kind], events: tuple[Event, ...], count: int = 1) -> Chunk:
    counts = np.full(len(pages), count, np.int32)
    return Chunk(np.array(pages, np.int64), counts, np.array(kinds, np.uint8), events)


@cache
def loop_cycles(
    cpu: str,
    kind: type[_Loops],
    threads: int,
    scale: float = 1.0,
    mode: str = "native",
    rounds: int = _ROUNDS,
    interrupts: str = "",
    *,
    broadcasts: bool = False,
) -> float:
    """Simulate threads on as many cores; return the cycles of one round of thread 0, once the loop runs steadily.

    Parameters
    ----------
    cpu : str
        A preset.
    kind : type
        Of the stream.
    threads : int
    scale : float
        Of the cycles of an interrupt.
    mode : str
        A paging mode.
    rounds : int
        Half of them before any is counted.
    interrupts : str, optional
        What the CPU does about interrupts of guests, if not what the preset has.
    broadcasts : bool, optional
        Whether a preset's broadcasts of invalidations are used: the kernels measured had none.
    """
    stream = kind(threads, rounds)
    simulation = Simulation(_scenario(cpu, threads, scale, mode, interrupts, broadcasts), streams=[stream])
    moments: list[int] = []
    stream.passed = lambda: moments.append(simulation.vms[0].vcpus[0].now)
    simulation.run()
    half = rounds // 2
    return (moments[-1] - moments[half]) / (rounds - half)


def _scenario(cpu: str, threads: int, scale: float, mode: str, interrupts: str, broadcasts: bool) -> Scenario:
    cost = load_cpu(cpu).cost
    costs: dict[str, Any] = {key: round(scale * getattr(cost, key)) for key in _COSTS}
    text = files("vmsim.validation").joinpath("shootdown.toml").read_text()
    return Scenario.from_toml(text, source="shootdown.toml").replace(
        **{"host.cpu": cpu, "host.cores": threads, "vm.vcpus": threads, "vm.mode": mode},
        **{f"host.cpu_override.cost.{key}": value for key, value in costs.items()},
        **({"host.cpu_override.invlpgb": False} if load_cpu(cpu).invlpgb and not broadcasts else {}),
        **({"host.cpu_override.interrupts": interrupts} if interrupts else {}),
    )


def sweep(cpu: str, mode: str, threads: tuple[int, ...] = SWEEP) -> dict[int, float]:
    """Return the microseconds of one discard and touch by threads, others of which run meanwhile."""
    hertz = load_cpu(cpu).frequency
    return {each: loop_cycles(cpu, Discarding, each, mode=mode) / hertz * 1e6 for each in threads}


def nanoseconds(threads: int, scale: float) -> float:
    """Return what a round takes on Haswell, with so many times the preset's cycles of an interrupt."""
    return loop_cycles("haswell", Discarding, threads, scale) / load_cpu("haswell").frequency * 1e9


def fitted_scale() -> float:
    """Return by how much the cycles of an interrupt are scaled to meet the row of two threads."""
    there = measured()[MADVISE, 2, "local flush after remote"]
    return _fit(lambda scale: nanoseconds(2, scale), there)


def predict() -> Report:
    """Predict the one-thread row on Haswell, and tlb_flush2 on Milan."""
    table = measured()
    one, two = (table[MADVISE, threads, "local flush after remote"] for threads in (1, 2))
    for cpu in ("haswell", "zen3"):
        warm(load_cpu(cpu), ("native",))
    milan = load_cpu("zen3").frequency

    scale = fitted_scale()
    there, broadcast = (loop_cycles("zen3", FlushLoops, 36, scale, broadcasts=on) for on in (False, True))
    none = "no row is at hand"
    cost = load_cpu("haswell").cost
    cycles = scale * sum(getattr(cost, key) for key in _COSTS)
    shown = {mode: sweep("haswell", mode) for mode in ("native", "ept")}
    return Report(
        title="Shootdowns by threads: a page discarded and touched, and tlb_flush2",
        source="N. Amit, RFC 2019 (Haswell); R. van Riel, RFC 2024 (Milan)",
        fitted={
            "one interrupt": Fit(
                round(cycles),
                "cycles on haswell",
                "tlb_flush_micro.csv",
                "the row of two threads",
                f"{scale:.2f} of the preset's: two threads take {nanoseconds(2, scale):.0f} ns, measured {two:.0f}",
            ),
        },
        claims=(
            Claim("Haswell, one thread, ns", nanoseconds(1, scale), one, _BAND),
            *(
                Claim(f"Haswell, {threads} threads, ns", nanoseconds(threads, scale), None, None, note=none)
                for threads in SWEEP[2:]
            ),
            Claim("Milan, 36 threads, 1000 loops/s", 36 * milan / there / 1000, table[FLUSH2, 36, IPIS] / 1000, _BAND),
            Claim("Milan, 36 threads, INVLPGB, 1000 loops/s", 36 * milan / broadcast / 1000, None, None, note=none),
        ),
        details={
            f"haswell, {mode}, us by threads": ", ".join(f"{threads}: {each:.2f}" for threads, each in row.items())
            for mode, row in shown.items()
        }
        | {"zen3": "stands for Milan, whose clock is not given: at 3.4 GHz, without INVLPGB"},
    )


def _fit(of: Callable[[float], float], wanted: float) -> float:
    """Return the scale at which a growing function, a line but for rounding, is what is wanted; at least 0."""
    low, high = of(0.0), of(1.0)
    return max(0.0, (wanted - low) / (high - low))
