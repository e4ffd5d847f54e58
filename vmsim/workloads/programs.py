"""Synthetic workloads of processes: streams that allocate, fork, run programs and switch between address spaces.

Their events are what makes a guest's kernel edit page tables. Randomness is as in `generators`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np

from vmsim.workloads.generators import Generator, random_source, raw_words
from vmsim.workloads.stream import PAGE, USER_END, Addresses, Chunk, Event, Kind, Kinds, Op, Regions

__all__ = ["Churn", "Compile", "Disk", "ForkWait", "Program", "Step", "Switcher", "touch"]

_READ, _WRITE, _EXECUTE = 1, 2, 4  # protection bits
_INIT = 1  # the process that a stream starts in
_ADDRESS, _WRITE_OR_READ, _CHOICE = range(3)  # uses of randomness

# An operation (op, pid, address, length, argument), or accesses in order (addresses, kinds).
Step: TypeAlias = tuple[Op, int, int, int, int] | tuple[Addresses, Kinds]


@dataclass(frozen=True, kw_only=True)
class Program(Generator):
    """A stream put together from operations and accesses, step by step."""

    one_thread = "its processes run one after the other"

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        """Read a thread's stream from its start."""
        addresses: list[Addresses] = []
        kinds: list[Kinds] = []
        events: list[Event] = []
        filled = 0
        for step in self._steps(thread):
            if len(step) == 5:
                events.append(Event(filled, *step))
                continue
            done = 0
            while done < len(step[0]):
                part = slice(done, done + self.chunk - filled)
                addresses.append(step[0][part])
                kinds.append(step[1][part])
                done += len(addresses[-1])
                filled += len(addresses[-1])
                if filled == self.chunk:
                    yield self._chunk(addresses, kinds, events)
                    addresses, kinds, events, filled = [], [], [], 0
        if filled or events:
            yield self._chunk(addresses, kinds, events)

    def _chunk(self, addresses: list[Addresses], kinds: list[Kinds], events: list[Event]) -> Chunk:
        address = np.concatenate(addresses or [np.empty(0, np.int64)])
        kind = np.concatenate(kinds or [np.empty(0, np.uint8)])
        return Chunk(address, np.ones(len(address), np.int32), kind, tuple(events))

    @abstractmethod
    def _steps(self, thread: int) -> Iterator[Step]:
        """Give the steps of a thread's stream."""

    def _blocks(self, thread: int) -> Iterator[Addresses]:
        """Give a thread's addresses alone."""
        return (step[0] for step in self._steps(thread) if len(step) == 2)

    def _own(self, blocks: int, thread: int) -> range:
        """Return which of so many blocks are a thread's own."""
        return range(blocks * thread // self.threads, blocks * (thread + 1) // self.threads)

    def _check_blocks(self, key: str, size: int) -> None:
        """Check that blocks of some bytes (a key's) are whole pages, and that there is one for each thread."""
        self._positive(**{key: size})
        self._whole_pages(**{key: size, "footprint": self.size})
        if size > self.size:
            self._refuse(key, size, f"at most the footprint ({self.size} bytes)")
        if self.threads > self.size // size:
            self._refuse("threads", self.threads, f"at most as many as blocks in the footprint ({self.size // size})")

    def _whole_pages(self, **values: int) -> None:
        for key, value in values.items():
            if value < 0 or value % PAGE:
                self._refuse(key, value, "whole pages of 4096 bytes")


def touch(start: int, size: int, kind: Kind = Kind.WRITE) -> Step:
    """Return one access to each page of a range, in order."""
    offsets, kinds = _each_page(size, kind)
    return start + offsets, kinds


@cache
def _each_page(size: int, kind: Kind) -> tuple[Addresses, Kinds]:
    """Return an access to each page of `size` bytes from 0 on: the same again and again, as blocks are of one size."""
    offsets = np.arange(0, size, PAGE, dtype=np.int64)
    return offsets, np.full(len(offsets), kind, np.uint8)


@dataclass(frozen=True, kw_only=True)
class Churn(Program):
    """A process that maps, uses and unmaps blocks of memory: `runs` rounds (key `rounds`).

    The region is `size / burst` blocks. In a round, if as many blocks are mapped as are to be kept, one of them, any,
    is unmapped; then one that is not, any, is mapped and each of its pages written; then come `work` accesses to words
    anywhere in the mapped blocks, of which the part `writes` writes. Each thread has blocks of its own, one part of
    the region, and does so with them.

    Parameters
    ----------
    burst : int
        Bytes of a block: whole pages.
    kept : float
        The part of the blocks that are mapped in the long run, above 0 and at most 1; at least one is.
    work : int
        Accesses between two rounds.
    filled : bool
        Whether as many blocks as are kept are mapped and written before the first round, so that all rounds are alike.
    """

    burst: int
    kept: float = 0.5
    work: int = 0
    filled: bool = False

    name = "churn"
    runs_key = "rounds"
    one_thread = ""

    def _check(self) -> None:
        self._check_blocks("burst", self.burst)
        if not 0 < self.kept <= 1:
            self._refuse("kept", self.kept, "a fraction above 0, to 1")
        if self.work < 0:
            self._refuse("work", self.work, "a number that is not negative")

    @property
    def accesses(self) -> int:
        """Accesses in the whole stream."""
        before = self._mapped if self.filled else 0
        return before * (self.burst // PAGE) + self.runs * (self.burst // PAGE + self.work)

    def most_at_once(self) -> int:
        """Return the most bytes that are mapped at a time."""
        return self._mapped * self.burst

    @property
    def _mapped(self) -> int:
        """Blocks that stay mapped, all threads' together."""
        return sum(self._limit(self._own(self.size // self.burst, thread)) for thread in range(self.threads))

    def _limit(self, blocks: range) -> int:
        """Return how many of some blocks stay mapped."""
        return max(1, round(self.kept * len(blocks)))

    def _steps(self, thread: int) -> Iterator[Step]:
        uses = (_ADDRESS, _WRITE_OR_READ, _CHOICE)
        address, write, choice = (random_source(self.seed, use, thread) for use in uses)
        blocks = self._own(self.size // self.burst, thread)
        limit = self._limit(blocks)
        free, live = list(blocks), list[int]()
        for turn in range(-limit if self.filled else 0, self._part(self.runs, thread)):
            if len(live) == limit:
                block = _draw(choice, live)
                free.append(block)
                yield Op.UNMAP, _INIT, self.base + block * self.burst, self.burst, 0
            block = _draw(choice, free)
            live.append(block)
            start = self.base + block * self.burst
            yield Op.MAP, _INIT, start, self.burst, _READ | _WRITE
            yield touch(start, self.burst)
            for _, runs in self._sizes(self.work if turn >= 0 else 0):
                offset = self._scattered(address, runs, 0, len(live) * self.burst)
                starts = np.array(live, np.int64)[offset // self.burst] * self.burst + self.base
                yield starts + offset % self.burst, self._kinds(write, runs)


def _draw(choice: np.random.PCG64, items: list[int]) -> int:
    """Take any item out of a list."""
    place = int(choice.random_raw()) * len(items) >> 64
    items[place], items[-1] = items[-1], items[place]
    return items.pop()


@dataclass(frozen=True, kw_only=True)
class ForkWait(Program):
    """A process that forks `runs` children (key `forks`), one after the other, and waits for each to exit.

    It has written all of its footprint before. A child writes the first `child` bytes, a word in each page, and exits;
    then the parent writes the first `parent` bytes. This is the forkwait of Adams & Agesen (ASPLOS 2006), whose 40,000
    forks took 6.0 s natively and 106 s under a shadow monitor.
    """

    child: int = 4 * PAGE
    parent: int = 4 * PAGE

    name = "forkwait"
    runs_key = "forks"

    def _check(self) -> None:
        self._whole_pages(footprint=self.size, child=self.child, parent=self.parent)
        for key, value in (("child", self.child), ("parent", self.parent)):
            if value > self.size:
                self._refuse(key, value, f"at most the footprint ({self.size} bytes)")

    @property
    def accesses(self) -> int:
        """Accesses in the whole stream."""
        return (self.size + self.runs * (self.child + self.parent)) // PAGE

    def _steps(self, thread: int) -> Iterator[Step]:
        yield touch(self.base, self.size)
        child, parent = touch(self.base, self.child), touch(self.base, self.parent)
        for _ in range(self.runs):
            yield Op.FORK, _INIT, 0, 0, 2
            yield Op.SWITCH, 2, 0, 0, 0
            yield child
            yield Op.EXIT, 2, 0, 0, 0
            yield parent


@dataclass(frozen=True, kw_only=True)
class Compile(Program):
    """A process that runs `runs` programs (key `processes`), one after the other, as make does.

    It has written its own `parent` bytes before. For each program it forks; the child writes two pages of what it
    shares, replaces itself (exec), maps `text` bytes to read and execute and `size` bytes (key `footprint`) to write,
    touches every page of both, makes `work` accesses to words anywhere in the second, and exits.
    """

    text: int = 256 * PAGE
    parent: int = 256 * PAGE
    work: int = 0

    name = "compile"
    runs_key = "processes"

    def _check(self) -> None:
        self._whole_pages(footprint=self.size, text=self.text, parent=self.parent)
        if self.work < 0:
            self._refuse("work", self.work, "a number that is not negative")
        if self.base + max(self.size + self.text, self.parent) > USER_END:
            self._refuse("base", self.base, "footprint and text, and parent, below 2**47")

    def footprint(self) -> Regions:
        """Return the one region that all processes stay in."""
        return np.array([self.base], np.int64), np.array([max(self.size + self.text, self.parent)], np.int64)

    @property
    def accesses(self) -> int:
        """Accesses in the whole stream."""
        shared = min(2, self.parent // PAGE)
        return self.parent // PAGE + self.runs * (shared + (self.text + self.size) // PAGE + self.work)

    def _steps(self, thread: int) -> Iterator[Step]:
        address, write = random_source(self.seed, _ADDRESS), random_source(self.seed, _WRITE_OR_READ)
        text = self.base + self.size
        if self.parent:
            yield touch(self.base, self.parent)
        for _ in range(self.runs):
            yield Op.FORK, _INIT, 0, 0, 2
            yield Op.SWITCH, 2, 0, 0, 0
            yield touch(self.base, min(2 * PAGE, self.parent))
            yield Op.EXEC, 2, 0, 0, 0
            yield Op.MAP, 2, text, self.text, _READ | _EXECUTE
            yield Op.MAP, 2, self.base, self.size, _READ | _WRITE
            yield touch(text, self.text, Kind.FETCH)
            yield touch(self.base, self.size)
            for _, runs in self._sizes(self.work):
                yield self._scattered(address, runs, self.base, self.size), self._kinds(write, runs)
            yield Op.EXIT, 2, 0, 0, 0


@dataclass(frozen=True, kw_only=True)
class Disk(Program):
    """A process that reads `runs` blocks (key `reads`) from a device and works on each.

    The region is `size / burst` buffers (key `block`). For each read any of them is filled, which takes the device
    `device` nanoseconds while the process waits; then each of its pages is read, and `work` accesses go to any of its
    words. Each thread has buffers of its own.
    """

    burst: int
    device: int = 100_000
    work: int = 0

    name = "disk"
    runs_key = "reads"
    one_thread = ""

    def _check(self) -> None:
        self._check_blocks("block", self.burst)
        for key, value in (("device", self.device), ("work", self.work)):
            if value < 0:
                self._refuse(key, value, "a number that is not negative")

    @property
    def accesses(self) -> int:
        """Accesses in the whole stream."""
        return self.runs * (self.burst // PAGE + self.work)

    def _steps(self, thread: int) -> Iterator[Step]:
        uses = (_ADDRESS, _WRITE_OR_READ, _CHOICE)
        address, write, choice = (random_source(self.seed, use, thread) for use in uses)
        blocks = self._own(self.size // self.burst, thread)
        for _ in range(self._part(self.runs, thread)):
            start = self.base + blocks[int(raw_words(choice, 1)[0]) * len(blocks) >> 64] * self.burst
            yield Op.IO, _INIT, start, self.burst, self.device
            yield touch(start, self.burst, Kind.READ)
            for _, runs in self._sizes(self.work):
                yield self._scattered(address, runs, start, self.burst), self._kinds(write, runs)


@dataclass(frozen=True, kw_only=True)
class Switcher(Program):
    """Processes that run in turn, each in an address space of its own, all at the same addresses.

    Every access goes to any word of the footprint; after each `every` of them the next process runs.
    """

    spaces: int = 2
    every: int = 10_000

    name = "switcher"

    def _check(self) -> None:
        self._positive(spaces=self.spaces, every=self.every)

    def _steps(self, thread: int) -> Iterator[Step]:
        address, write = random_source(self.seed, _ADDRESS), random_source(self.seed, _WRITE_OR_READ)
        for turn, first in enumerate(range(0, self.runs, self.every)):
            yield Op.SWITCH, turn % self.spaces + 1, 0, 0, 0
            for _, runs in self._sizes(min(self.every, self.runs - first)):
                yield self._scattered(address, runs, self.base, self.size), self._kinds(write, runs)
