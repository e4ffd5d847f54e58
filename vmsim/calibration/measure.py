"""Measure this machine, or say why it cannot be."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from vmsim.base.errors import InputError
from vmsim.calibration.disturbance import Disturbance, Reading
from vmsim.calibration.measured import Measured, Samples
from vmsim.calibration.memory import Memory, chase, lines, pages, pinned, timed
from vmsim.calibration.operations import operations
from vmsim.scenario.detect import detect

__all__ = ["measure", "refuse"]

_THP: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_CACHES: Final = Path("/sys/devices/system/cpu/cpu0/cache")
_NAMES: Final = {1: "l1", 2: "l2", 3: "llc"}
_HUGE_ENOUGH: Final = 0.9
_SEED: Final = 1
_QUICK, _WHOLE = 1 << 12, 1 << 16  # pages of the longest chase: 16 and 256 MiB


def refuse(platform: str = sys.platform, thp: str | None = None) -> None:
    """Refuse a machine that cannot be measured.

    Parameters
    ----------
    platform : str, optional
        As of `sys`.
    thp : str, optional
        The kernel's setting of transparent huge pages, with the one that holds in brackets.

    Raises
    ------
    InputError
        It is not Linux, or has no transparent huge pages.
    """
    if platform != "linux":
        raise InputError(f"calibrate measures with calls of Linux; this is {platform}. --from reads measurements.")
    if thp is None:
        try:
            thp = _THP.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"{_THP}: cannot be read: {error.strerror}. Without huge pages there is no 2M curve."
            ) from error
    if "[never]" in thp:
        raise InputError(
            f"{_THP}: transparent huge pages are never made here, and without them there is no 2M curve to compare "
            "with; expected madvise or always."
        )


def measure(*, quick: bool = False, say: Callable[[str], None] = lambda _: None) -> Measured:
    """Measure this machine.

    Parameters
    ----------
    quick : bool, optional
        Shorter chases, fewer repetitions: some seconds.
    say : callable, optional
        Told what is under way.

    Raises
    ------
    InputError
        It cannot be measured (`refuse`), the kernel gives no huge pages, or there is too little memory.
    """
    refuse()
    found = detect()
    allowed = sorted(os.sched_getaffinity(0))
    repeats, longest = (9, _QUICK) if quick else (15, _WHOLE)
    random = np.random.default_rng(_SEED)
    caches = _caches()
    before = Reading.now()
    with pinned(allowed[0]):
        loads: Samples = {}
        small: Samples = {}
        large: Samples = {}
        with Memory(longest * 4096, huge=False) as by_4k, Memory(longest * 4096, huge=True) as by_2m:
            by_4k.fill()
            by_2m.fill()
            if (share := by_2m.huge_share()) < _HUGE_ENOUGH:
                raise InputError(
                    f"The kernel made huge pages of {share:.0%} of the memory that asked for them; expected 90 % at "
                    "least. Free memory is fragmented, or a container forbids them."
                )
            for kib in _steps(8, longest * 4):
                say(f"loads over {kib} KiB")
                loads[kib] = _samples(by_2m, lines(kib << 10), repeats, random, quick=quick)
            for count in _steps(16, longest):
                say(f"translation of {count} pages")
                places = pages(count, random)
                small[count] = _samples(by_4k, places, repeats, random, quick=quick)
                large[count] = _samples(by_2m, places, repeats, random, quick=quick)
        say("operations")
        made, skipped = operations(repeats, allowed)
    identity = found.identity
    return Measured(
        cpu=identity.name,
        kernel=os.uname().release,
        preset=found.preset or "skylake-x",
        hertz=_hertz(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")),
        virtual=identity.hypervisor,
        caches=caches,
        loads=loads,
        small=small,
        large=large,
        operations=made,
        skipped=skipped,
        disturbance=Disturbance.between(before, Reading.now()),
    )


def _samples(
    memory: Memory,
    places: np.ndarray[tuple[int], np.dtype[np.int64]],
    repeats: int,
    random: np.random.Generator,
    *,
    quick: bool,
) -> list[float]:
    """Return the ns of a load, so often; a first time does not count."""
    start = chase(memory.words, places, random)
    steps = max(len(places), 1 << (14 if quick else 17))
    timed(memory.words, start, len(places))
    return [timed(memory.words, start, steps) for _ in range(repeats)]


def _steps(low: int, high: int) -> list[int]:
    """Return numbers from low to high, two to an octave."""
    found, value = [], float(low)
    while value <= high * 1.001:
        found.append(round(value / 8) * 8)
        value *= 2**0.5
    return found


def _caches() -> dict[str, int]:
    """Return the bytes of the data caches by name."""
    found = {}
    for folder in sorted(_CACHES.glob("index*")):
        try:
            kind, level, size = ((folder / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        number = re.fullmatch(r"(\d+)([KM]?)", size)
        if kind != "Instruction" and number and int(level) in _NAMES:
            found[_NAMES[int(level)]] = int(number[1]) << {"": 0, "K": 10, "M": 20}[number[2]]
    return found


def _hertz(cpuinfo: str) -> int:
    """Return the clock that the CPU's name says, which is its TSC's, or the one that the kernel measured."""
    if named := re.search(r"model name.*@ ([\d.]+)GHz", cpuinfo):
        return round(float(named[1]) * 1e9)
    found = re.search(r"cpu MHz\s*: ([\d.]+)", cpuinfo)
    if not found:
        raise InputError("/proc/cpuinfo: it says no clock of the CPU; expected a line cpu MHz.")
    return round(float(found[1]) * 1e6)
