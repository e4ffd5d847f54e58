"""A synthetic program that reads and writes a file. Randomness is as in `generators`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vmsim.workloads.generators import random_source, raw_words
from vmsim.workloads.powers import zipf_cumulative
from vmsim.workloads.programs import Program, Step, touch
from vmsim.workloads.stream import PAGE, Addresses, Kind, Op

__all__ = ["Files"]

_INIT = 1  # the process that a stream starts in
_FILE = 0  # the number of its file
_ADDRESS, _WRITE_OR_READ, _CHOICE, _ORDER, _WRITTEN = range(5)  # uses of randomness


@dataclass(frozen=True, kw_only=True)
class Files(Program):
    """A program that reads or writes `runs` blocks (key `operations`) of a file, and works on each.

    A block is read into the program's buffer, of whose pages each is then written, as the kernel does that copies to
    them; or each page of the buffer is read and the block written. `work` accesses to any word of the region follow.
    Each thread has a buffer of its own, the first ones of the region; in sequential order it begins at its part of the
    file.

    Parameters
    ----------
    data : int
        Bytes of the file: whole pages. What is left over behind the last whole block is not used.
    burst : int
        Bytes of a block (key `block`): whole pages.
    order : str
        "sequential" or "random".
    exponent : float
        Of Zipf's law, by which random blocks are chosen; a seeded shuffle says which block has which rank.
    written : float
        Share of the operations that write.
    synced : int
        Operations of a thread after each of which it waits until the disk has what was written; 0: never.
    drop : bool
        Whether the program says after each operation that it wants the block no more.
    work : int
        Accesses after each operation.
    """

    data: int
    burst: int
    order: str = "sequential"
    exponent: float = 0.0
    written: float = 0.0
    synced: int = 0
    drop: bool = False
    work: int = 0

    name = "files"
    runs_key = "operations"
    one_thread = ""

    def _check(self) -> None:
        self._check_blocks("block", self.burst)
        self._positive(data=self.data)
        self._whole_pages(data=self.data)
        if self.burst > self.data:
            self._refuse("block", self.burst, f"at most the file ({self.data} bytes)")
        if self.order not in ("sequential", "random"):
            self._refuse("order", self.order, '"sequential" or "random"')
        if not 0 <= self.exponent <= 8:
            self._refuse("exponent", self.exponent, "a number from 0 to 8")
        if not 0 <= self.written <= 1:
            self._refuse("written", self.written, "a fraction from 0 to 1")
        for key, value in (("work", self.work), ("synced", self.synced)):
            if value < 0:
                self._refuse(key, value, "a number that is not negative")

    @property
    def accesses(self) -> int:
        """Accesses in the whole stream."""
        return self.runs * (self.burst // PAGE + self.work)

    @property
    def blocks(self) -> int:
        """Blocks of the file."""
        return self.data // self.burst

    @cached_property
    def ranking(self) -> Addresses:
        """The file's blocks by rank, int64[blocks]."""
        words = raw_words(random_source(self.seed, _ORDER), self.blocks)
        return np.argsort(words, kind="stable").astype(np.int64)

    def _steps(self, thread: int) -> Iterator[Step]:
        address, write, written = (
            random_source(self.seed, use, thread) for use in (_ADDRESS, _WRITE_OR_READ, _WRITTEN)
        )
        buffer = self.base + thread * self.burst
        threshold = round(self.written * (1 << 32))
        yield Op.OPEN_FILE, _INIT, 0, self.data, _FILE
        for turn, block in enumerate(self._chosen(thread), 1):
            where = block * self.burst
            if int(written.random_raw()) >> 32 < threshold:
                yield touch(buffer, self.burst, Kind.READ)
                yield Op.WRITE_FILE, _INIT, where, self.burst, _FILE
            else:
                yield Op.READ_FILE, _INIT, where, self.burst, _FILE
                yield touch(buffer, self.burst, Kind.WRITE)
            if self.drop:
                yield Op.DROP_FILE, _INIT, where, self.burst, _FILE
            if self.synced and turn % self.synced == 0:
                yield Op.SYNC_FILE, _INIT, 0, 0, _FILE
            for _, runs in self._sizes(self.work):
                yield self._scattered(address, runs, self.base, self.size), self._kinds(write, runs)

    def _chosen(self, thread: int) -> Iterator[int]:
        """Give the numbers of the blocks of a thread's operations."""
        count = self._part(self.runs, thread)
        if self.order == "sequential":
            first = self.blocks * thread // self.threads
            yield from ((first + turn) % self.blocks for turn in range(count))
            return
        source = random_source(self.seed, _CHOICE, thread)
        cumulative = zipf_cumulative(self.blocks, self.exponent)
        total = int(cumulative[-1])
        for _, runs in self._sizes(count):
            draws = [int(word) * total >> 64 for word in raw_words(source, runs)]
            ranks = np.searchsorted(cumulative, np.array(draws, np.uint64), side="right")
            yield from self.ranking[ranks].tolist()
