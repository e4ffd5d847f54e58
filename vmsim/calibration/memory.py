"""Anonymous memory by the system's own calls, mapped by 4 KiB or by 2 MiB, and chases through it."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vmsim.base.errors import InputError
from vmsim.calibration.kernels import follow, touch

__all__ = ["HUGE", "PAGE", "Memory", "chase", "each", "lines", "pages", "pinned", "timed"]

PAGE: Final = 4096
HUGE: Final = 2 << 20
_WORDS: Final = PAGE // 8
_LINE: Final = 8  # words
_FAILED: Final = ctypes.c_void_p(-1).value

Words = NDArray[np.int64]


def _system() -> Any:
    system = ctypes.CDLL(None, use_errno=True)
    system.mmap.restype = ctypes.c_void_p
    system.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    for name in ("munmap", "madvise", "mprotect"):
        getattr(system, name).argtypes = [ctypes.c_void_p, ctypes.c_size_t, *([ctypes.c_int] if name[1] != "u" else [])]
    return system


class Memory:
    """Anonymous memory that begins at a multiple of 2 MiB.

    Parameters
    ----------
    size : int
        Bytes.
    huge : bool
        Ask for transparent huge pages; else for none.
    """

    def __init__(self, size: int, *, huge: bool) -> None:
        self.system = _system()
        self._whole = size + HUGE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        start = self.system.mmap(None, self._whole, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        if start in (None, _FAILED):
            raise InputError(f"This machine has no {size >> 20} MiB of memory to measure with.")
        self._start = start
        self.address, self.size = -(-start // HUGE) * HUGE, size
        self.system.madvise(start, self._whole, mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)  # type: ignore[attr-defined,unused-ignore]
        held = (ctypes.c_int64 * (size // 8)).from_address(self.address)
        self.words: Words = np.frombuffer(memoryview(held), np.int64)

    def fill(self) -> None:
        """Touch every page."""
        touch(self.words, _WORDS, self.size // PAGE)

    def discard(self) -> None:
        """Give all pages back to the kernel."""
        self.system.madvise(self.address, self.size, mmap.MADV_DONTNEED)

    def protect(self, rights: int) -> None:
        """Change the rights of all pages."""
        self.system.mprotect(self.address, self.size, rights)

    def close(self) -> None:
        """Unmap it; `words` may not be used any more."""
        self.system.munmap(self._start, self._whole)

    def huge_share(self) -> float:
        """Return the share of it that huge pages map, as ``/proc/self/smaps`` says."""
        found = mine = 0
        for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
            if area := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
                low, high = (int(each, 16) for each in area.groups())
                mine = low < self.address + self.size and self.address < high
            elif mine and line.startswith("AnonHugePages:"):
                found += int(line.split()[1]) << 10
        return found / self.size

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


@contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """Run this thread on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def lines(size: int) -> Words:
    """Return the index of the first word of every line of so many bytes."""
    return np.arange(0, size // 8, _LINE, dtype=np.int64)


def pages(count: int, random: np.random.Generator) -> Words:
    """Return the index of the first word of one line of each of so many pages, whichever line."""
    return np.arange(count, dtype=np.int64) * _WORDS + random.integers(0, _WORDS // _LINE, count) * _LINE


def chase(words: Words, places: Words, random: np.random.Generator) -> int:
    """Link the places into one circle, in random order; return where it begins."""
    order = places[random.permutation(len(places))]
    words[order] = np.roll(order, -1)
    return int(order[0])


def timed(words: Words, start: int, steps: int) -> float:
    """Return the ns of a load of a chase: of this thread's CPU time, which other programs' turns are no part of."""
    begun = time.thread_time_ns()
    follow(words, start, steps)
    return (time.thread_time_ns() - begun) / steps


def each(action: Callable[[], object], count: int) -> float:
    """Return the ns of an action, over so many parts of it: CPU time, as of `timed`."""
    begun = time.thread_time_ns()
    action()
    return (time.thread_time_ns() - begun) / count
