"""From measurements to figures of a CPU: latencies, what the TLBs reach, what a walk adds, costs of operations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vmsim.base.errors import InputError
from vmsim.calibration.measured import Measured, robust
from vmsim.scenario import Cpu, load_cpu

__all__ = ["Found", "Reaches", "derive", "overrides", "reaches", "toml_of"]

Numbers = NDArray[Any]
_SLACK: Final = 1.5  # cycles that two levels of a curve differ by at least


@dataclass(frozen=True, slots=True)
class Found:
    """One figure that was measured.

    Attributes
    ----------
    key : str
        Of a CPU file, dotted.
    value, preset : int
        Measured, and what the nearest preset has.
    deviation : float
        Of what was measured, in the same unit.
    source : str
        How it was measured.
    """

    key: str
    value: int
    preset: int
    deviation: float
    source: str

    def to_json(self) -> dict[str, Any]:
        """Return the figure as JSON types."""
        told = {"key": self.key, "value": self.value, "preset": self.preset}
        return told | {"deviation": round(self.deviation, 2), "source": self.source}


@dataclass(frozen=True, slots=True)
class Reaches:
    """Where a curve over pages leaves one level of the TLB for the next.

    Attributes
    ----------
    first, second : (int, int)
        The largest number of pages that the level holds, and the next that was measured. (0, 0): no such knee.
    hit : float
        Cycles that a hit in the second level adds.
    walk : float
        Cycles that translation adds at the largest number of pages.
    """

    first: tuple[int, int]
    second: tuple[int, int]
    hit: float
    walk: float


def reaches(curve: dict[int, float], second: int = 0) -> Reaches:
    """Find the knees of what translation adds to a load.

    The curve is taken for two levels and a line over the logarithm of the pages: hits in the first TLB, hits in the
    second, walks. Of all ways to cut it in three (or two, where there is no second level) the one with the least
    squares is taken.

    Parameters
    ----------
    curve : dict of int to float
        Cycles by pages, in ascending order. Heights are compared by their logarithm.
    second : int, optional
        Entries that the second TLB is thought to have. A first knee at half of them or beyond is the second's: on some
        processors a chase pays nothing for hits in the second TLB.

    Raises
    ------
    InputError
        There are too few points.
    """
    counts, cycles = np.array([*curve]), np.array([*curve.values()])
    if len(counts) < 6:
        raise InputError(f"The curve of translation has {len(counts)} points; expected 6 at least.")
    octave, height = np.log2(counts), np.log2(1 + np.maximum(cycles, 0))  # so that walks do not outweigh all else
    best, cut = np.inf, (0, 0)
    for one, two in combinations(range(2, len(counts) - 1), 2):
        levels = [float(np.median(part)) for part in (cycles[:one], cycles[one:two], cycles[two:])]
        if levels[1] < levels[0] + _SLACK or levels[2] < levels[1] + _SLACK:
            continue
        parts = height[:one], height[one:two], height[two:]
        line = np.polynomial.Polynomial.fit(octave[two:], parts[2], 1)(octave[two:]) if len(parts[2]) > 2 else parts[2]
        square = sum(float(((part - part.mean()) ** 2).sum()) for part in parts[:2]) + float(
            ((parts[2] - line) ** 2).sum()
        )
        if square < best:
            best, cut = square, (one, two)
    if not np.isfinite(best):
        return Reaches((0, 0), (0, 0), 0.0, float(cycles[-1]))
    one, two = cut
    if second and 2 * counts[one - 1] >= second:
        return _one_knee(counts, cycles, height)
    pairs = [(int(counts[at - 1]), int(counts[at])) for at in cut]
    return Reaches(pairs[0], pairs[1], float(np.median(cycles[one:two])), float(cycles[-1]))


def _one_knee(counts: Numbers, cycles: Numbers, height: Numbers) -> Reaches:
    """Cut the curve in two: nothing, and walks."""

    def square(at: int) -> float:
        line = np.polynomial.Polynomial.fit(np.log2(counts[at:]), height[at:], 1)(np.log2(counts[at:]))
        return float(((height[:at] - height[:at].mean()) ** 2).sum() + ((height[at:] - line) ** 2).sum())

    at = min(range(2, len(counts) - 2), key=square)
    return Reaches((0, 0), (int(counts[at - 1]), int(counts[at])), float(np.median(cycles[:at])), float(cycles[-1]))


def derive(measured: Measured) -> tuple[list[Found], Reaches]:
    """Return the figures of a CPU that the measurements give, beside the nearest preset's."""
    cpu = load_cpu(measured.preset)
    array = cpu.tlb.l2["4K"]
    curve = {pages: cycles for pages, (cycles, _) in measured.difference().items()}
    knees = reaches(curve, array.entries if array else 0)
    found = [*_latencies(measured, cpu), *_tlbs(measured, cpu, knees), *_costs(measured, cpu)]
    return found, knees


def _latencies(measured: Measured, cpu: Cpu) -> list[Found]:
    """Return cycles of a load by where it is served: footprints well within a cache, and beyond the one before."""
    sizes = [*((f"cache.{name}.cycles", size) for name, size in measured.caches.items()), ("memory.cycles", 0)]
    found, below = [], 0
    for key, size in sizes:
        low, high = 1.5 * below, 0.75 * size if size else float("inf")
        if not size:
            low = 3 * below
        samples = [values for kib, values in measured.loads.items() if low <= kib << 10 <= high]
        below = size
        if samples:
            values, deviations = zip(*(robust(each) for each in samples), strict=True)
            middle = float(np.median(values)) if size else values[-1]
            cycles = measured.cycles(middle)
            preset = int(_figure(cpu, key))
            source = f"a chase through all lines, {len(samples)} footprints"
            found.append(
                Found(key, max(1, round(cycles)), preset, measured.cycles(float(np.median(deviations))), source)
            )
    return found


def _tlbs(measured: Measured, cpu: Cpu, knees: Reaches) -> list[Found]:
    """Return entries of both TLBs: the preset's where they lie between two measured points, else their middle."""
    found = []
    for name, (holds, beyond) in (("l1", knees.first), ("l2", knees.second)):
        array = getattr(cpu.tlb, name)["4K"]
        if not holds or array is None or not array.entries:
            continue
        source = f"the chase by pages, which holds {holds:,} pages and not {beyond:,}"
        entries, ways = _geometry(array.entries, array.ways, holds, beyond)
        found.append(Found(f"tlb.{name}.4K.entries", entries, array.entries, (beyond - holds) / 2, source))
        if ways != array.ways:
            found.append(Found(f"tlb.{name}.4K.ways", ways, array.ways, 0.0, "its entries: fully associative"))
    if knees.second[0]:
        spread = float(np.median([deviation for _, deviation in measured.difference().values()]))
        source = (
            "what translation adds between both TLBs' reaches"
            if knees.first[0]
            else "what translation adds within the second TLB's reach: no end of the first one's was seen"
        )
        found.append(Found("tlb.l2_cycles", max(0, round(knees.hit)), cpu.tlb.l2_cycles, spread, source))
    return found


def _geometry(entries: int, ways: int, holds: int, beyond: int) -> tuple[int, int]:
    """Return entries and ways of an array that holds so many pages and not so many: the preset's, if it does."""
    if holds <= entries <= beyond:  # at its very size, pages of others push some out
        return entries, ways
    middle = (holds * beyond) ** 0.5
    if ways == entries:
        return round(middle), round(middle)
    return ways << max(0, round(float(np.log2(middle / ways)))), ways  # the sets are a power of two


_COSTS: Final = {
    "zero": "zero_page",
    "copy": "copy_page",
    "munmap": "unmap_page",
    "fork_page": "fork_page",
    "mprotect": "entry_edit",
}


def _costs(measured: Measured, cpu: Cpu) -> list[Found]:
    """Return costs of the kernel's work."""
    taken = {name: robust(values) for name, values in measured.operations.items() if values}
    found = []
    for name, key in _COSTS.items():
        if name in taken:
            middle, deviation = (measured.cycles(each) for each in taken[name])
            found.append(Found(f"cost.{key}", max(0, round(middle)), getattr(cpu.cost, key), deviation, name))
    if "page_fault" in taken and "zero" in taken:
        middle, deviation = (measured.cycles(each) for each in taken["page_fault"])
        rest = middle - cpu.cost.fault_delivery - measured.cycles(taken["zero"][0])
        source = f"page_fault, less its delivery ({cpu.cost.fault_delivery}, the preset's) and clearing the page"
        found.append(Found("cost.guest_fault", max(0, round(rest)), cpu.cost.guest_fault, deviation, source))
    parts = ("ipi_send", "ipi_latency", "ipi_handle")
    if "ipi" in taken:
        middle, deviation = (measured.cycles(each) for each in taken["ipi"])
        whole = sum(getattr(cpu.cost, part) for part in parts)
        for part in parts:
            share = getattr(cpu.cost, part) / whole
            source = "ipi, parted as in the preset"
            value = max(0, round(share * middle))
            found.append(Found(f"cost.{part}", value, getattr(cpu.cost, part), share * deviation, source))
    return found


def _figure(cpu: Cpu, key: str) -> Any:
    return next(figure.value for figure in cpu.figures() if figure.key == key)


def overrides(found: list[Found]) -> dict[str, int]:
    """Return the figures as `Scenario.replace` takes them."""
    return {f"host.cpu_override.{each.key}": each.value for each in found}


def toml_of(measured: Measured, found: list[Found], name: str) -> str:
    """Return a CPU file that inherits the nearest preset, with every figure measured here.

    Parameters
    ----------
    name : str
        Of the CPU.
    """
    where = f"{measured.cpu}, Linux {measured.kernel}" + (", a virtual machine" if measured.virtual else "")
    table: dict[str, Any] = {
        "name": name,
        "description": f"Measured here: {measured.cpu}",
        "inherit": measured.preset,
    }
    for each in found:
        source = f"measured here by {each.source}: {where}; ± {each.deviation:.2g}; the preset has {each.preset}"
        source += f"; disturbed: {measured.disturbed}" if measured.disturbed else ""
        figure = {"value": each.value, "source": source, "confidence": "measured"}
        *path, last = each.key.split(".")
        inside = table
        for key in path:
            inside = inside.setdefault(key, {})
        inside[last] = figure
    head = [f"# Written by vmsim calibrate. Figures that are not here are those of {measured.preset}."]
    if measured.disturbed:
        head += [f"# Disturbed: {measured.disturbed}.", "# Measure again on a quiet machine before you rely on it."]
    return "\n".join([*head, "", *_toml(table, ())]) + "\n"


def _toml(table: dict[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of a table and of those in it; a figure is one line."""
    inside = {key: value for key, value in table.items() if isinstance(value, dict) and "value" not in value}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if key not in inside]
    if lines:
        yield from [*([f"[{'.'.join(map(_key, path))}]"] if path else []), *lines, ""]
    for key, value in inside.items():
        yield from _toml(value, (*path, key))


def _key(key: str) -> str:
    return key if key.replace("_", "").isalnum() and not key[0].isdigit() else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {json.dumps(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)
