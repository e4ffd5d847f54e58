"""How a stream uses its pages again: LRU stacks of all of them, or of a sample chosen by hash.

C. A. Waldspurger, N. Park, A. Garthwaite, I. Ahmad, "Efficient MRC construction with SHARDS", FAST 2015: a page is
followed if the hash of its number is below a threshold, so all its accesses are or none, and the stack of the sample
is that of the stream at a scale.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vmsim.workloads.lru_stack import LruStack
from vmsim.workloads.stream import PAGE, Addresses, Chunk, Counts, Event, Op

__all__ = ["Reuse", "Sample"]

_PAGES = 44  # bits of a page number in a user space of 56 bits
_WHOLE = 1 << _PAGES
_SCALE = 1 << 24  # the paper's P: thresholds are out of it


class Sample:
    """The LRU stack of the pages whose hash lies in [low, high) of 2**24.

    Attributes
    ----------
    rate : float
        Share of all pages that is expected to be in it.
    accesses : int
        Accesses to them.
    stack : LruStack
    """

    def __init__(self, low: int = 0, high: int = _SCALE) -> None:
        self._low, self._high = low, high
        self.rate = (high - low) / _SCALE
        self.accesses = 0
        self.stack = LruStack()

    def use(self, pages: Addresses, count: Counts, hashed: NDArray[np.uint32] | None) -> None:
        """Take runs of accesses; without hashes, all of them are in the sample."""
        if hashed is not None:
            chosen = (hashed >= self._low) & (hashed < self._high)
            pages, count = pages[chosen], count[chosen]
        self.accesses += int(count.sum(dtype=np.int64))
        self.stack.use(pages, count)


class Reuse:
    """What is said of a stream's reuse of pages; a page of 4 KiB is of one process's address space.

    What a fork shares counts for parent and child each, and a page that is given back leaves a free frame.

    Parameters
    ----------
    rate : float
        Share of the pages that is followed, 2**-24 to 1.
    parts : int
        Into how many disjoint samples of equal rate those are divided as well, to see by how much samples differ.

    Attributes
    ----------
    accesses : int
        Accesses of the whole stream.
    sample : Sample
    parts : list of Sample
    """

    def __init__(self, rate: float = 1.0, parts: int = 0) -> None:
        most = max(1, round(rate * _SCALE))
        ends = [most * part // parts for part in range(parts + 1)] if parts else []
        self.accesses = 0
        self.sample = Sample(0, most)
        self.parts = [Sample(low, high) for low, high in pairwise(ends)]
        self._spaces: dict[int, int] = {}  # of a process
        self._opened = 0
        self._heaps: dict[int, int] = {}  # the end of a space's heap
        self._parents: dict[int, int] = {}
        self._running = 1

    def add(self, chunks: Iterable[Chunk]) -> None:
        """Read chunks of one thread, in their order."""
        for chunk in chunks:
            first = 0
            for event in (*chunk.events, None):
                last = event.position if event else len(chunk.address)
                if last > first:
                    self._use(chunk.address[first:last], chunk.count[first:last])
                first = last
                if event:
                    self._operate(event)

    @property
    def _samples(self) -> list[Sample]:
        return [self.sample, *self.parts]

    def _use(self, address: Addresses, count: Counts) -> None:
        pages = (address >> 12) + self._space(self._running) * _WHOLE
        hashed = None if self.sample.rate == 1 and not self.parts else _hashed(pages)
        self.accesses += int(count.sum(dtype=np.int64))
        for sample in self._samples:
            sample.use(pages, count, hashed)

    def _space(self, pid: int) -> int:
        if pid not in self._spaces:
            self._spaces[pid] = self._opened
            self._opened += 1
        return self._spaces[pid]

    def _operate(self, event: Event) -> None:
        """Follow an operation; `Event` says what its fields mean."""
        pid = event.pid
        match event.op:
            case Op.SWITCH:
                self._running = pid
            case Op.FORK:
                self._parents[event.argument] = pid
            case Op.SHARE:
                self._parents[event.argument] = pid
                self._spaces[event.argument] = self._space(pid)
            case Op.MAP | Op.UNMAP:
                self._forget(pid, event.address, event.length)
            case Op.DISCARD if event.argument == 0:
                self._forget(pid, event.address, event.length)
            case Op.BRK:
                space = self._space(pid)
                before = self._heaps.get(space, 0)
                if event.address < before:
                    self._forget(pid, event.address, before - event.address)
                self._heaps[space] = event.address
            case Op.MOVE:
                start, pages = self._space(pid) * _WHOLE, event.length // PAGE
                for sample in self._samples:
                    sample.stack.rename(start + event.address // PAGE, start + event.argument // PAGE, pages)
            case Op.EXEC:
                self._leave(pid)
            case Op.EXIT:
                self._leave(pid)
                if pid == self._running:
                    self._running = self._parents.get(pid, pid)

    def _forget(self, pid: int, address: int, length: int) -> None:
        """Forget the whole pages of a region."""
        first, last = -(-address // PAGE), -(-(address + length) // PAGE)
        start = self._space(pid) * _WHOLE
        for sample in self._samples:
            sample.stack.forget(start + first, last - first)

    def _leave(self, pid: int) -> None:
        """Have a process leave its address space; the last to do so takes its pages along."""
        space = self._space(pid)
        del self._spaces[pid]
        if space not in self._spaces.values():
            self._heaps.pop(space, None)
            for sample in self._samples:
                sample.stack.forget(space * _WHOLE, _WHOLE)


def _hashed(pages: Addresses) -> NDArray[np.uint32]:
    """Return 24 bits that depend on all of a page's number (the finalizer of splitmix64)."""
    mixed = pages.astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(40)).astype(np.uint32)
