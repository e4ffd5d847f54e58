"""The stream of operations that a guest's processor executes, as columns.

A stream is read chunk by chunk. A chunk holds runs, in program order: a run is `count` consecutive accesses of one
kind to one block (a 4 KiB page, or a 64-byte line where a trace was recorded so finely). Everything that is not an
access (a mapping made or undone, a fork, an exit) is an `Event` between two runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CHUNK",
    "PAGE",
    "USER_END",
    "WIDEST_END",
    "Addresses",
    "Chunk",
    "Counts",
    "Event",
    "Kind",
    "Kinds",
    "Op",
    "Place",
    "Regions",
    "Stream",
]

PAGE = 4096
USER_END = 1 << 47  # the first gva that is not user space under 4-level paging
WIDEST_END = 1 << 56  # and under 5-level paging
CHUNK = 1 << 18  # runs in a chunk, unless the caller asks for another number

Addresses: TypeAlias = NDArray[np.int64]
Counts: TypeAlias = NDArray[np.int32]
Kinds: TypeAlias = NDArray[np.uint8]
Regions: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]


class Kind(IntEnum):
    """What a run of accesses does."""

    READ = 0
    WRITE = 1
    FETCH = 2


class Op(IntEnum):
    """What an event does. `Event` says what its address, length and argument are."""

    MAP = 0
    UNMAP = 1
    PROTECT = 2
    BRK = 3
    FORK = 4
    EXEC = 5
    EXIT = 6
    SWITCH = 7
    COMPUTE = 8
    IO = 9
    MOVE = 10
    DISCARD = 11
    POPULATE = 12
    SHARE = 13
    THREAD = 14
    BARRIER = 15
    ADVISE = 16
    OPEN_FILE = 17
    READ_FILE = 18
    WRITE_FILE = 19
    DROP_FILE = 20
    SYNC_FILE = 21


@dataclass(frozen=True, slots=True)
class Event:
    """An operation that is not an access. It happens before run `position` of its chunk; 0 ≤ position ≤ runs.

    | op | address | length | argument |
    |---|---|---|---|
    | MAP | start of the mapping; it replaces what was there | bytes | read 1, write 2, execute 4, shared 8, a file 16 |
    | UNMAP | start | bytes | 0 |
    | PROTECT | start | bytes | protection bits |
    | BRK | the new end of the heap | 0 | 0 |
    | FORK | 0 | 0 | the child's pid |
    | EXEC | 0 | 0 | 0 |
    | EXIT | 0 | 0 | exit status |
    | SWITCH | 0 | 0 | 0; `pid` runs from here on |
    | COMPUTE | 0 | 0 | cycles |
    | IO | start of a buffer | bytes | nanoseconds that a device works on it; the process waits |
    | MOVE | start of the pages (mremap) | bytes | where they go; what is mapped there is unmapped first |
    | DISCARD | start (madvise) | bytes | 0: the pages are freed; 1: they may be, when memory is short (MADV_FREE) |
    | POPULATE | start | bytes | 0; the pages that are not mapped are, without a fault of the processor |
    | ADVISE | start (madvise) | bytes | what children get: 10 nothing, 11 as usual, 18 zeros, 19 what is there;
    | | | | huge pages: 14 wanted, 15 not |
    | OPEN_FILE | 0 | bytes that the file has | its number |
    | READ_FILE | offset in the file | bytes | its number |
    | WRITE_FILE | offset in the file | bytes | its number |
    | DROP_FILE | offset in the file (posix_fadvise) | bytes: they are wanted no more; 0: to its end | its number |
    | SYNC_FILE | 0 | 0 | number of a file whose written pages go to the disk first (fsync) |
    | SHARE | 0 | 0 | the pid of a child that uses the same address space (vfork) until its EXEC or EXIT |
    | THREAD | 0 | 0 | the number of a thread of `pid`, from 0, which runs from here on |
    | BARRIER | 0 | 0 | 0; every thread of the stream comes here before any goes on |

    Processes are numbered from 1 in order of appearance, so that a recording does not depend on the recorder's
    process ids.
    """

    position: int
    op: Op
    pid: int
    address: int
    length: int
    argument: int


class Chunk(NamedTuple):
    """A stretch of a stream. The arrays are C-contiguous and equally long.

    Attributes
    ----------
    address : int64[runs]
        gva of a run's first access, rounded down to the stream's granule.
    count : int32[runs]
        Accesses in the run, at least 1.
    kind : uint8[runs]
        `Kind` of all of them.
    events : tuple of Event
        Sorted by position.
    """

    address: Addresses
    count: Counts  # type: ignore[assignment]  # in the place of tuple.count, which says nothing here
    kind: Kinds
    events: tuple[Event, ...]


class Place(NamedTuple):
    """Where and for whom a stream is opened.

    Attributes
    ----------
    folder : Path
        Relative paths start from it.
    seed : int
        Of everything random in it; another for each VM.
    lines : bool
        The cache lines of data matter: addresses must be exact to 64 bytes.
    end : int
        The first address that is not user space in the guest.
    cpus : int
        Of the guest. With one, the threads of a trace are one stream, in the order in which they were recorded.
    """

    folder: Path
    seed: int
    lines: bool
    end: int
    cpus: int = 1


@runtime_checkable
class Stream(Protocol):
    """A workload, ready to be read any number of times.

    What is said of a stream (accesses, footprint, digest) is of all its threads together. Each thread has its own
    chunks, in the order in which it makes them. Threads keep no order among themselves, but at a BARRIER: each has as
    many of these events as the others.

    One whose footprint is never all mapped at once may have a method ``most_at_once() -> int``: the most bytes that
    are. One that shows a program from its start, all its writes included, may have an attribute ``from_start = True``:
    what it reads without having written to it is zero, and guests map the page of zeros. Else the first access to a
    page stands for the write by which the program filled it before.
    """

    @property
    def name(self) -> str:
        """What to call it in results."""
        ...

    @property
    def threads(self) -> int:
        """Threads, which can run at the same time; at least 1."""
        ...

    @property
    def accesses(self) -> int:
        """Accesses in the whole stream, all repeats included."""
        ...

    def footprint(self) -> Regions:
        """Return starts and lengths in bytes (int64[k] each) of the regions used: sorted, disjoint, page-aligned."""
        ...

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        """Read a thread's part from its start, 0 ≤ thread < threads. Every call gives the same chunks."""
        ...

    def digest(self) -> str:
        """Return a SHA-256 in hexadecimal: of a file's bytes, or of a generator's parameters."""
        ...
