"""What single operations of the kernel and of memory take on this machine, in ns."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from vmsim.calibration.kernels import follow, spin
from vmsim.calibration.memory import PAGE, Memory, each

__all__ = ["ABOUT", "operations"]

ABOUT: Final = {
    "page_fault": "a first touch of a 4 KiB page: the fault, and clearing the page",
    "munmap": "unmapping a touched page",
    "mprotect": "taking or giving the right to write, a page",
    "discard": "MADV_DONTNEED of a touched page",
    "fork_page": "a touched page more in a process that forks",
    "fork": "fork of this process, in the parent",
    "ipi": "an interrupt to another CPU by membarrier, less membarrier alone",
    "zero": "clearing 4 KiB that the caches have",
    "copy": "copying 4 KiB that the caches have",
    "compare": "comparing two equal pages, as KSM does last",
    "compress": "compressing 4 KiB of a program with zstd, level 1",
    "decompress": "decompressing it",
    "cycle": "a cycle of the core's own clock, by a chain of shifts and xors",
}
_PAGES: Final = 2048
_SPINS: Final = 1 << 18
_RING: Final = np.roll(np.arange(64, dtype=np.int64), -1)
_HOT: Final = 32  # pages: 128 KiB
_MEMBARRIER: Final = 324  # x86-64
_REGISTER, _EXPEDITED = 16, 8  # MEMBARRIER_CMD_(REGISTER_)PRIVATE_EXPEDITED


def operations(repeats: int, cpus: list[int]) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Measure all; return samples by name, and why what is missing could not be measured.

    Parameters
    ----------
    repeats : int
        Samples of each.
    cpus : list of int
        That this process may run on; the first is where this thread is.
    """
    found: dict[str, list[float]] = {}
    skipped = {"ksm_checksum": "KSM's xxhash of a page runs in the kernel's thread alone; no program can time it"}
    for name, sample in _all(cpus, skipped):
        values = [sample() for _ in range(repeats)]
        found[name] = [value for value in values if np.isfinite(value)]
    return found, skipped


def _all(cpus: list[int], skipped: dict[str, str]) -> Iterator[tuple[str, Callable[[], float]]]:
    spin(1)
    yield "cycle", lambda: each(lambda: spin(_SPINS), 6 * _SPINS)
    yield "page_fault", _page_fault
    yield "munmap", _munmap
    yield "mprotect", _mprotect
    yield "discard", _discard
    yield "fork", lambda: _fork(0)
    yield "fork_page", lambda: max(0.0, (_fork(4 * _PAGES) - _fork(0)) / (4 * _PAGES))
    yield from _interrupts(cpus, skipped)
    system: Any = ctypes.CDLL(None)
    one, two = (ctypes.create_string_buffer(_HOT * PAGE) for _ in range(2))
    for name, call in (
        ("zero", lambda: system.memset(one, 0, _HOT * PAGE)),
        ("copy", lambda: system.memcpy(two, one, _HOT * PAGE)),
        ("compare", lambda: system.memcmp(two, one, _HOT * PAGE)),
    ):
        yield name, lambda call=call: each(lambda: [call() for _ in range(16)], 16 * _HOT)  # type: ignore[misc]
    yield from _compression()


def _page_fault() -> float:
    with Memory(_PAGES * PAGE, huge=False) as memory:
        first = each(memory.fill, _PAGES)
        return first - each(memory.fill, _PAGES)


def _munmap() -> float:
    memory = Memory(_PAGES * PAGE, huge=False)
    memory.fill()
    return each(memory.close, _PAGES)


def _mprotect() -> float:
    with Memory(_PAGES * PAGE, huge=False) as memory:
        memory.fill()
        taken = each(lambda: memory.protect(mmap.PROT_READ), _PAGES)
        return (taken + each(lambda: memory.protect(mmap.PROT_READ | mmap.PROT_WRITE), _PAGES)) / 2


def _discard() -> float:
    with Memory(_PAGES * PAGE, huge=False) as memory:
        memory.fill()
        return each(memory.discard, _PAGES)


def _fork(pages: int) -> float:
    """Return the ns of a fork with so many touched pages more, in the parent."""
    with Memory(max(1, pages) * PAGE, huge=False) as memory, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, none of which the child needs
        memory.fill()
        begun = time.thread_time_ns()
        child = os.fork()
        if child == 0:
            os._exit(0)
        taken = time.thread_time_ns() - begun
        os.waitpid(child, 0)
        return taken


def _interrupts(cpus: list[int], skipped: dict[str, str]) -> Iterator[tuple[str, Callable[[], float]]]:
    """Yield the interrupt, unless nobody is there to take it or the kernel does not send it."""
    system: Any = ctypes.CDLL(None, use_errno=True)
    if len(cpus) < 2:
        skipped["ipi"] = "this process may run on one CPU alone, which has nobody to interrupt"
        return
    if os.uname().machine != "x86_64" or system.syscall(_MEMBARRIER, _REGISTER, 0) != 0:
        skipped["ipi"] = "the kernel refuses membarrier (PRIVATE_EXPEDITED)"
        return

    def calls() -> float:
        return each(lambda: [system.syscall(_MEMBARRIER, _EXPEDITED, 0) for _ in range(64)], 64)

    def sample() -> float:
        alone = calls()
        there, over = threading.Event(), threading.Event()

        def run() -> None:
            os.sched_setaffinity(0, {cpus[1]})
            there.set()
            while not over.is_set():
                follow(_RING, 0, 1 << 20)  # without the interpreter's lock

        other = threading.Thread(target=run, daemon=True)
        other.start()
        there.wait()
        time.sleep(0.001)
        try:
            return calls() - alone
        finally:
            over.set()
            other.join()

    follow(_RING, 0, 1)  # compiled before it is timed
    yield "ipi", sample


def _compression() -> Iterator[tuple[str, Callable[[], float]]]:
    import zstandard

    data = Path(sys.executable).resolve().read_bytes()
    middle = len(data) // 2 // PAGE * PAGE
    pages = [data[at : at + PAGE] for at in range(middle, min(len(data) - PAGE, middle + _HOT * PAGE), PAGE)] or [
        bytes(range(256)) * 16
    ]
    packer, unpacker = zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor()
    packed = [packer.compress(page) for page in pages]
    yield "compress", lambda: each(lambda: [packer.compress(page) for page in pages], len(pages))
    yield "decompress", lambda: each(lambda: [unpacker.decompress(page) for page in packed], len(packed))
