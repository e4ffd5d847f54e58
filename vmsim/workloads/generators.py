"""Synthetic workloads: streams made from a few parameters and a seed.

Every random choice starts from raw 64-bit words of a `numpy.random.PCG64` bit generator, whose output numpy keeps
from version to version (its distributions it does not), and goes on in integer arithmetic: one seed gives one stream
on every platform. Addresses are multiples of 8. A run is one access, except in `Gups`.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vmsim.base.errors import InputError, nearest
from vmsim.workloads.powers import zipf_cumulative
from vmsim.workloads.stream import PAGE, USER_END, Addresses, Chunk, Counts, Kind, Kinds, Regions

__all__ = [
    "BASE",
    "Chase",
    "Generator",
    "Gups",
    "Sequential",
    "Uniform",
    "WorkingSet",
    "Zipf",
    "random_source",
    "ranks_of",
    "raw_words",
]

BASE = 0x10_0000_0000
WORD = 8

Words = NDArray[np.uint64]

# Each use of randomness has its own generator, so that none depends on how many words another has drawn.
ADDRESS, WRITE, DETAIL, ORDER = range(4)


def random_source(seed: int, use: int, thread: int = 0) -> np.random.PCG64:
    """Return the bit generator of one use of randomness in one thread."""
    return np.random.PCG64(np.random.SeedSequence([seed, use, thread] if thread else [seed, use]))


def raw_words(source: np.random.PCG64, count: int) -> Words:
    """Return `count` raw words, uint64."""
    return np.asarray(source.random_raw(count), np.uint64)


@dataclass(frozen=True, kw_only=True)
class Generator(ABC):
    """What all generators share: `runs` runs over a region of `size` bytes from gva `base`, by `threads` threads.

    The threads share the runs as evenly as can be, the first of them one more where there is a remainder. Each makes
    random choices of its own.

    Parameters
    ----------
    size : int
        The footprint in bytes (key `footprint`).
    runs : int
        Runs in the stream, one access each (key `accesses`).
    writes : float
        The part of the accesses that write, 0 to 1; each access is drawn by itself.
    base : int
        gva where the footprint starts, a multiple of 4096.
    seed : int
        Not negative.
    threads : int
        At most as many as there are runs, and one where `one_thread` says why.
    chunk : int
        Runs in a chunk; it does not change the stream.

    Raises
    ------
    InputError
        A parameter is zero, negative or does not fit the others; the message names its key.
    """

    size: int
    runs: int
    writes: float = 0.0
    base: int = BASE
    seed: int = 1
    threads: int = 1
    chunk: int = 1 << 16  # fits the cache, and the allocator gives the same memory again: 2.5 times as fast as 2**18

    name: ClassVar[str]
    runs_key: ClassVar[str] = "accesses"
    each: ClassVar[int] = 1  # accesses in a run
    one_thread: ClassVar[str] = ""  # why there cannot be several threads

    def __post_init__(self) -> None:
        self._positive(
            **{"footprint": self.size, self.runs_key: self.runs, "threads": self.threads, "chunk": self.chunk}
        )
        if self.size < WORD:
            self._refuse("footprint", self.size, f"at least {WORD} bytes")
        if not 0 <= self.writes <= 1:
            self._refuse("writes", self.writes, "a fraction from 0 to 1")
        if self.base < 0 or self.base % PAGE or self.base + self.size > USER_END:
            self._refuse("base", self.base, "a multiple of 4096 with the whole footprint below 2**47")
        if self.seed < 0:
            self._refuse("seed", self.seed, "a number that is not negative")
        if self.threads > 1 and self.one_thread:
            self._refuse("threads", self.threads, f"1: {self.one_thread}")
        if self.threads > self.runs:
            self._refuse("threads", self.threads, f"at most as many as {self.runs_key} ({self.runs})")
        self._check()

    def _check(self) -> None:
        """Check what only this generator has."""
        return

    def _refuse(self, key: str, found: object, expected: str) -> None:
        raise InputError(f"workload {self.name}: {key} = {found!r}: expected {expected}.")

    def _positive(self, **values: int) -> None:
        for key, value in values.items():
            if value < 1:
                self._refuse(key, value, "a number above zero")

    def _check_stride(self, stride: int) -> None:
        self._positive(stride=stride)
        if stride % WORD or stride > self.size:
            self._refuse("stride", stride, f"a multiple of {WORD}, at most the footprint ({self.size} bytes)")

    @property
    def accesses(self) -> int:
        """Accesses in the whole stream."""
        return self.runs * self.each

    def footprint(self) -> Regions:
        """Return the one region that the parameters declare, in whole pages."""
        return np.array([self.base], np.int64), np.array([-(-self.size // PAGE) * PAGE], np.int64)

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        """Read a thread's stream from its start."""
        source = random_source(self.seed, WRITE, thread)
        for addresses in self._blocks(thread):
            yield Chunk(addresses, self._counts(len(addresses)), self._kinds(source, len(addresses)), ())

    def digest(self) -> str:
        """Return the SHA-256 of the parameters; the chunk size is not one."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "chunk"}
        if self.threads == 1:
            del values["threads"]
        text = json.dumps({"kind": self.name, "version": 1} | values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @abstractmethod
    def _blocks(self, thread: int) -> Iterator[Addresses]:
        """Give a thread's addresses, at most `chunk` at a time."""

    def _part(self, whole: int, thread: int) -> int:
        """Return a thread's part of what the threads share evenly."""
        return whole // self.threads + (thread < whole % self.threads)

    def _sizes(self, runs: int) -> Iterator[tuple[int, int]]:
        """Give (first run, number of runs) of the blocks of `runs` runs."""
        for first in range(0, runs, self.chunk):
            yield first, min(self.chunk, runs - first)

    def _counts(self, runs: int) -> Counts:
        return np.full(runs, self.each, np.int32)

    def _kinds(self, source: np.random.PCG64, runs: int) -> Kinds:
        threshold = round(self.writes * (1 << 32))  # exact: the factor is a power of two
        if threshold in (0, 1 << 32):
            return np.full(runs, Kind.WRITE if threshold else Kind.READ, np.uint8)
        from vmsim.workloads.kernels import mark_writes

        kinds = np.empty(runs, np.uint8)
        mark_writes(raw_words(source, runs), np.uint64(threshold), kinds)
        return kinds

    def _scattered(self, source: np.random.PCG64, runs: int, origin: int, size: int) -> Addresses:
        """Return `runs` uniformly chosen words of the `size` bytes from `origin`."""
        from vmsim.workloads.kernels import scatter

        out = np.empty(runs, np.int64)
        scatter(raw_words(source, runs), np.uint64(size // WORD), np.uint64(WORD), np.uint64(origin), out)
        return out


class Uniform(Generator):
    """Every 8-byte word of the footprint is equally likely, at every access."""

    name = "uniform"

    def _blocks(self, thread: int) -> Iterator[Addresses]:
        source = random_source(self.seed, ADDRESS, thread)
        for _, runs in self._sizes(self._part(self.runs, thread)):
            yield self._scattered(source, runs, self.base, self.size)


class Gups(Uniform):
    """RandomAccess of the HPC Challenge: updates of uniformly chosen words of a table.

    An update reads a word and writes it back. It is one run of kind WRITE and count 2: both accesses need the same
    translation, with the right to write.
    """

    name = "gups"
    runs_key = "updates"
    each = 2

    def _kinds(self, source: np.random.PCG64, runs: int) -> Kinds:
        return np.full(runs, Kind.WRITE, np.uint8)


def ranks_of(count: int, exponent: float) -> tuple[Words, Addresses, np.uint64]:
    """Return what `kernels.zipf` draws a rank of `count` by: cumulative weights, its guide to them, and a shift."""
    cumulative = zipf_cumulative(count, exponent)
    total = int(cumulative[-1])
    shift = max(0, total.bit_length() - 16)
    marks = np.arange((total >> shift) + 2, dtype=np.uint64) << np.uint64(shift)
    guide = np.minimum(np.searchsorted(cumulative, marks, side="right"), count - 1).astype(np.int64)
    return cumulative, guide, np.uint64(shift)


@dataclass(frozen=True, kw_only=True)
class Zipf(Generator):
    """Pages chosen by Zipf's law: rank k with a probability proportional to k**-exponent, k = 1 … pages.

    A seeded shuffle says which page has which rank, the same for all threads. The word within the page is uniform.
    Ranks are drawn by inverting the exact table of integer weights; tables take 16 bytes a page.
    """

    exponent: float = 0.99

    name = "zipf"

    def _check(self) -> None:
        if not 0 <= self.exponent <= 8:
            self._refuse("exponent", self.exponent, "a number from 0 to 8")
        if self.size % PAGE:
            self._refuse("footprint", self.size, "whole pages of 4096 bytes")

    @cached_property
    def ranking(self) -> Addresses:
        """The pages' addresses by rank, int64[pages]."""
        pages = np.argsort(raw_words(random_source(self.seed, ORDER), self.size // PAGE), kind="stable").astype(
            np.int64
        )
        pages *= PAGE
        pages += self.base
        return pages

    def _blocks(self, thread: int) -> Iterator[Addresses]:
        from vmsim.workloads.kernels import zipf

        pages = self.ranking
        table = ranks_of(len(pages), self.exponent)
        source, detail = (random_source(self.seed, use, thread) for use in (ADDRESS, DETAIL))
        for _, runs in self._sizes(self._part(self.runs, thread)):
            out = np.empty(runs, np.int64)
            zipf(raw_words(source, runs), raw_words(detail, runs), *table, pages, out)
            yield out


@dataclass(frozen=True, kw_only=True)
class Sequential(Generator):
    """One address after another, `stride` bytes apart, from the start again when the footprint is through.

    Of n threads, thread t begins at slot t/n of them.
    """

    stride: int = WORD

    name = "sequential"

    def _check(self) -> None:
        self._check_stride(self.stride)

    def _blocks(self, thread: int) -> Iterator[Addresses]:
        slots = self.size // self.stride
        start = slots * thread // self.threads
        for begun, runs in self._sizes(self._part(self.runs, thread)):
            first = start + begun
            yield np.arange(first, first + runs, dtype=np.int64) % slots * self.stride + self.base


@dataclass(frozen=True, kw_only=True)
class Chase(Generator):
    """A chase along pointers `stride` bytes apart: each round visits every slot once, in one pseudo-random order.

    With `order = "full"` the order is over all slots; with "page" it is over the slots of a page, page after page, as
    the two pointer chases of InstLatx64 tell the TLBs' share from the caches'. Of n threads, thread t begins at step
    t/n of the round.
    """

    stride: int = 64
    order: str = "full"

    name = "chase"

    def _check(self) -> None:
        self._check_stride(self.stride)
        if self.order not in ("full", "page"):
            self._refuse("order", self.order, f'"full" or "page". {nearest(self.order, ("full", "page"))}')
        if self.order == "page" and (PAGE % self.stride or self.size % PAGE):
            self._refuse("stride", self.stride, 'with order = "page": a power of two up to 4096, and whole pages')

    def _blocks(self, thread: int) -> Iterator[Addresses]:
        from vmsim.workloads.kernels import choose, shuffle

        slots = self.size // self.stride
        each = PAGE // self.stride
        bits = (slots - 1).bit_length() if self.order == "full" else each.bit_length() - 1
        keys = _keys(self.seed, bits)
        start = slots * thread // self.threads
        for begun, runs in self._sizes(self._part(self.runs, thread)):
            first = start + begun
            out = np.empty(runs, np.int64)
            if self.order == "full":
                choose(np.uint64(first), np.uint64(slots), np.uint64(bits), keys, out)
            else:
                shuffle(np.uint64(first), np.uint64(slots), np.uint64(bits), keys, out)
            yield out * self.stride + self.base


def _keys(seed: int, bits: int) -> Words:
    """Return addends and odd multipliers by turns for the kernels' mixing, and a 32-bit salt at the end.

    A multiplier has at most 64 - bits bits, so that no product passes 2**64.
    """
    raw = raw_words(random_source(seed, ORDER), 9)
    keys = raw & np.uint64((1 << bits) - 1)
    keys[1::2] = (raw[1::2] >> np.uint64(max(32, bits))) | np.uint64(1)
    keys[8] = raw[8] >> np.uint64(32)
    return keys


@dataclass(frozen=True, kw_only=True)
class WorkingSet(Generator):
    """Phases of `phase` accesses, each uniform over a window of `window` bytes.

    The window moves on by `step` bytes from phase to phase, round the end of the footprint. Each thread has a window
    of its own, which starts where all do and moves with the thread's accesses.
    """

    window: int
    phase: int
    step: int

    name = "working-set"

    def _check(self) -> None:
        self._positive(window=self.window, phase=self.phase, step=self.step)
        for key, value in (("footprint", self.size), ("window", self.window), ("step", self.step)):
            if value % WORD or value > self.size:
                self._refuse(key, value, f"a multiple of {WORD}, at most the footprint ({self.size} bytes)")

    def _blocks(self, thread: int) -> Iterator[Addresses]:
        source = random_source(self.seed, ADDRESS, thread)
        for first, runs in self._sizes(self._part(self.runs, thread)):
            phases = np.arange(first, first + runs, dtype=np.int64) // self.phase
            # steps * phases could pass 2**63 only after 2**63 / footprint phases; the remainder comes first
            starts = phases % self.size * self.step % self.size
            yield (self._scattered(source, runs, 0, self.window) + starts) % self.size + self.base
