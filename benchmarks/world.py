"""vmsim's machine with the yardstick's geometry and tables, and the traces that both run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.reference import Counted
from vmsim.engine.hardware import geometry_of
from vmsim.machine.caches import Served
from vmsim.machine.formats import ACCESSED, DIRTY, EPT, PRESENT, USER, WRITE
from vmsim.machine.layout import Count, make_cores, make_llc, make_vm
from vmsim.machine.memory import physical_memory
from vmsim.machine.tlb import ASID_SHIFT
from vmsim.machine.vcpu import run
from vmsim.scenario.cpu_files import load_cpu
from vmsim.workloads import Stream
from vmsim.workloads.generators import Uniform, Zipf
from vmsim.workloads.trace import BUNDLED, TraceStream

__all__ = ["GIB", "Runs", "World", "real", "uniform", "zipf"]

GIB = 1 << 30
ENTRY = PRESENT | WRITE | USER | ACCESSED | DIRTY
Words = NDArray[np.int64]


@dataclass(frozen=True)
class Runs:
    """A stream in memory: runs of reads of one page each.

    Attributes
    ----------
    address : int64[runs]
    count : int32[runs]
    """

    name: str
    address: Words
    count: NDArray[np.int32]

    @classmethod
    def of(cls, stream: Stream, accesses: int) -> Runs:
        """Take the first `accesses` accesses of a stream; it is read no further."""
        address, count, left = [], [], accesses
        for chunk in stream.chunks():
            total = np.cumsum(chunk.count, dtype=np.int64)
            runs = int(np.searchsorted(total, left)) + 1
            address.append(chunk.address[:runs])
            count.append(chunk.count[:runs])
            left -= int(total[min(runs, len(total)) - 1])
            if left <= 0:
                break
        return cls(stream.name, np.concatenate(address), np.concatenate(count))

    @property
    def accesses(self) -> int:
        """Accesses in all runs."""
        return int(self.count.sum(dtype=np.int64))

    def write(self, path: Path) -> Path:
        """Write them one by one, as the yardstick reads them."""
        np.repeat(self.address, self.count).astype("<u8").tofile(path)
        return path


def uniform(accesses: int) -> Runs:
    """Return uniform reads over 4 GiB."""
    return Runs.of(Uniform(size=4 * GIB, runs=accesses, seed=7), accesses)


def zipf(accesses: int) -> Runs:
    """Return reads over 1 GiB by Zipf's law."""
    return Runs.of(Zipf(size=GIB, runs=accesses, seed=7), accesses)


def real(accesses: int, name: str = "sort") -> Runs:
    """Return the start of a bundled recording, all of it if that is shorter."""
    return Runs.of(TraceStream(BUNDLED / f"{name}.vmtrace"), accesses)


def _numbered(pages: Words, first: int, levels: int = 4) -> tuple[list[tuple[Words, Words]], Words, int]:
    """Number tables and pages as a kernel does that hands frames out in order, on first touch, from the top down.

    Parameters
    ----------
    pages : int64[n]
        Page numbers in the order of their first touch.
    first : int
        The next free frame, after the root's.

    Returns
    -------
    tables, frames, next
        For each level below the root, from the top: the tables' prefixes (page number >> 9 k) and frames. Then the
        frame of each page, and the next free frame.
    """
    new = np.zeros((levels, len(pages)), bool)
    new[-1] = True
    for depth in range(levels - 1):
        prefix = pages >> 9 * (levels - 1 - depth)
        new[depth, ~pd.Series(prefix).duplicated().to_numpy()] = True
    number = (first - 1 + np.cumsum(new.T.ravel())).reshape(new.T.shape)  # the tables of a page come before it
    tables = [(pages[new[depth]] >> 9 * (levels - 1 - depth), number[new[depth], depth]) for depth in range(levels - 1)]
    return tables, number[:, -1], int(number[-1, -1]) + 1


def _written(
    memory: Words, pages: Words, root: int, first: int, home: Words | None, bits: int, levels: int = 4
) -> tuple[Words, int]:
    """Write the tables that map `pages`; return the frame of each page and the next free frame.

    `home` says in which host frame each frame of the tables lies; None: in its own.
    """
    tables, frames, after = _numbered(pages, first, levels)
    parents, homes = np.zeros(1, np.int64), np.array([root])  # a 48-bit address has prefix 0 at the root
    for prefixes, numbers in [*tables, (pages, frames)]:
        table = homes[np.searchsorted(parents, prefixes >> 9)]
        place = table if home is None else home[table]
        memory[(place << 9) + (prefixes & 511)] = numbers << 12 | bits
        order = np.argsort(prefixes)
        parents, homes = prefixes[order], numbers[order]
    return frames, after


@cache
def _geometry() -> Any:
    return geometry_of(load_cpu("yardstick"))


class World:
    """Cold cores, a VM and its tables, with frames numbered as the yardstick numbers them.

    Parameters
    ----------
    runs : Runs
        What will be run.
    nested : bool
        In two dimensions.
    """

    def __init__(self, runs: Runs, *, nested: bool) -> None:
        self.vm = make_vm()
        self.cool()
        vm = self.vm[0]
        vm.asid = 1 << ASID_SHIFT
        vm.levels = 4
        page = (runs.address & ((1 << 48) - 1)) >> 12
        pages = page[~pd.Series(page).duplicated().to_numpy()]
        if nested:
            form = EPT(ad_bits=False)
            vm.nested_levels = 4
            vm.nested_present, vm.nested_needed = form.present, form.needed
            *_, guest_next = _numbered(pages, 2)
            gfns = np.arange(1, guest_next)
            *_, host_next = _numbered(gfns, 2)
            self.memory = physical_memory(host_next + 1)
            backing, _ = _written(self.memory, gfns, 1, 2, None, form.page)
            vm.nested_root, vm.cr3 = 1 << 12, 1 << 12
            _written(self.memory, pages, 1, 2, np.concatenate(([0], backing)), ENTRY)
        else:
            *_, host_next = _numbered(pages, 2)
            self.memory = physical_memory(host_next + 1)
            vm.cr3 = 1 << 12
            _written(self.memory, pages, 1, 2, None, ENTRY)

    def cool(self) -> None:
        """Empty the TLBs and caches and zero the counters; the tables stay."""
        self.cores = make_cores(_geometry(), 1)
        self.llc = make_llc(_geometry())
        for name in ("counters", "refs", "pwc", "walk_cycles"):
            self.vm[name] = 0

    def run(self, runs: Runs) -> Counted:
        """Make the accesses; return what was counted."""
        kind = np.zeros(len(runs.address), np.uint8)
        stream = (runs.address, runs.count, kind)
        none = (np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.uint8))
        run(self.cores, 0, self.llc, self.vm, self.memory, *none, 0, 0, 1 << 60)  # compiles, or loads
        start = time.process_time()
        reason, cursor, *_ = run(self.cores, 0, self.llc, self.vm, self.memory, *stream, 0, len(kind), 1 << 60)
        seconds = time.process_time() - start
        if reason or cursor != len(kind):
            raise RuntimeError(f"the run stopped at {cursor} of {len(kind)}, reason {reason}")
        return self._counted(runs.accesses, seconds)

    def _counted(self, accesses: int, seconds: float) -> Counted:
        vm = self.vm[0]
        count = {each: int(vm.counters[each]) for each in Count}
        missed, walked = count[Count.L1_TLB_MISSES], count[Count.L2_TLB_MISSES]
        exact = {
            "tlb1_hits": accesses - missed,
            "tlb1_misses": missed,
            "tlb2_hits": missed - walked,
            "tlb2_misses": walked,
            "walks": count[Count.WALKS] + count[Count.NESTED_WALKS],
        }
        served = vm.refs.sum(axis=(0, 1))
        near = {f"served_{place.name}": int(served[place]) for place in Served if place != Served.PWC}
        near["references"] = sum(near.values())
        near["latency"] = int(vm.walk_cycles)
        for dimension, prefix in enumerate(("psc", "nsc")):
            for level in (2, 3, 4):
                misses, hits = (int(value) for value in vm.pwc[dimension, level])
                near |= {f"{prefix}{level}_hits": hits, f"{prefix}{level}_misses": misses}
        near |= {"ntlb_hits": count[Count.NTLB_HITS], "ntlb_misses": count[Count.NTLB_MISSES]}
        return Counted(exact, near, seconds)
