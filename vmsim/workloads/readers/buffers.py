"""What the kernel itself reads and writes of a program's memory in system calls.

A tracer does not see these accesses, but they fault like the program's own: a buffer that read fills is mapped then
(Linux arch/x86/lib/copy_user_64.S; mm_account_fault counts them as the program's). The kernel copies by `rep movs`,
which is an access to each line of 64 bytes (see `strings`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vmsim.workloads.readers.accesses import Accesses
from vmsim.workloads.stream import WIDEST_END, Kind

__all__ = ["Buffer", "accesses", "buffers", "strings_of", "without_strings"]

_LINE = 64
_AT_ONCE = 1 << 20  # lines
_LONGEST = 1 << 31  # bytes that one call can move (MAX_RW_COUNT)
_STRING = re.compile(rb"0x([0-9a-f]{1,16})\(([^)]*)\)")

_RESULT = -1  # as many bytes as the call returns
_READ, _WRITE = Kind.READ, Kind.WRITE
_STAT = (1, 144, _WRITE)  # struct stat, include/uapi/asm/stat.h

# Of each call, which argument is the address of what, how many bytes that is, and what the kernel does to it.
_CALLS: dict[str, tuple[tuple[int, int, Kind], ...]] = {
    "read": ((1, _RESULT, _WRITE),),
    "pread64": ((1, _RESULT, _WRITE),),
    "recvfrom": ((1, _RESULT, _WRITE),),
    "getdents": ((1, _RESULT, _WRITE),),
    "getdents64": ((1, _RESULT, _WRITE),),
    "readlink": ((1, _RESULT, _WRITE),),
    "readlinkat": ((2, _RESULT, _WRITE),),
    "getcwd": ((0, _RESULT, _WRITE),),
    "getrandom": ((0, _RESULT, _WRITE),),
    "write": ((1, _RESULT, _READ),),
    "pwrite64": ((1, _RESULT, _READ),),
    "sendto": ((1, _RESULT, _READ),),
    "newstat": (_STAT,),
    "newlstat": (_STAT,),
    "newfstat": (_STAT,),
    "newfstatat": ((2, 144, _WRITE),),
    "statx": ((4, 256, _WRITE),),
    "statfs": ((1, 120, _WRITE),),
    "fstatfs": ((1, 120, _WRITE),),
    "newuname": ((0, 390, _WRITE),),
    "getrusage": ((1, 144, _WRITE),),
    "getrlimit": ((1, 16, _WRITE),),
    "setrlimit": ((1, 16, _READ),),
    "prlimit64": ((2, 16, _READ), (3, 16, _WRITE)),
    "sysinfo": ((0, 112, _WRITE),),
    "pipe": ((0, 8, _WRITE),),
    "pipe2": ((0, 8, _WRITE),),
    "clock_gettime": ((1, 16, _WRITE),),
    "gettimeofday": ((0, 16, _WRITE),),
    "times": ((0, 32, _WRITE),),
    "wait4": ((1, 4, _WRITE), (3, 144, _WRITE)),
    "rt_sigaction": ((1, 32, _READ), (2, 32, _WRITE)),
    "rt_sigprocmask": ((1, 8, _READ), (2, 8, _WRITE)),
}


class Buffer(NamedTuple):
    """Bytes of a program's memory that the kernel reads or writes."""

    address: int
    length: int
    kind: Kind


def buffers(name: str, numbers: list[int], result: int) -> list[Buffer]:
    """Return what the kernel touched in a call that succeeded, by its name, its arguments and its result."""
    found = []
    for place, size, kind in _CALLS.get(name, ()):
        length = result if size == _RESULT else size
        address = numbers[place] if place < len(numbers) else 0
        if address and 0 < length <= _LONGEST and address + length <= WIDEST_END:
            found.append(Buffer(address, length, kind))
    return found


def strings_of(arguments: bytes) -> list[Buffer]:
    """Return the strings (paths) that the kernel read, which valgrind writes behind their addresses."""
    found = [(int(address, 16), len(text) + 1) for address, text in _STRING.findall(arguments)]
    return [Buffer(address, length, _READ) for address, length in found if address + length <= WIDEST_END]


def without_strings(arguments: bytes) -> bytes:
    """Return arguments without their strings, in which there can be numbers."""
    return _STRING.sub(rb"0x\1", arguments)


def accesses(buffer: Buffer) -> Iterator[Accesses]:
    """Give the kernel's accesses to a buffer, one for each line, a bounded number at a time."""
    address, length, kind = buffer
    first, last = address & -_LINE, (address + length - 1) & -_LINE
    while first <= last:
        stop = min(last + _LINE, first + _AT_ONCE * _LINE)
        lines = np.arange(first, stop, _LINE, dtype=np.int64)
        yield Accesses(lines, np.ones(len(lines), np.int32), np.full(len(lines), kind, np.uint8))
        first = stop
