"""What the kernel has done of a program's address space before its first instruction, as a recording has it.

valgrind maps the program and its dynamic linker itself, so that no system call of the program's is there to be seen.
What execve writes to (Linux fs/exec.c, fs/binfmt_elf.c) faults, and counts as the program's: the strings and vectors
at the top of the stack, and the rest of the page in which the data of a file end and its cleared data begin. Between
strings and vectors Linux leaves a gap of up to 8 KiB (arch_align_stack), valgrind none: so there is a page more here.
The vDSO, which Linux maps and whose header the C library reads at the start (glibc
sysdeps/unix/sysv/linux/dl-vdso-setup.h), valgrind hides from its programs.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vmsim.workloads.stream import PAGE, WIDEST_END, Chunk, Event, Kind, Op

__all__ = ["Start", "started"]

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ([r-])([w-])([x-])[ps] ([0-9a-f]+) \S+ (\d+) *(/.*)?")
_FILE = 16  # as of `Event`
_LINE = 64  # bytes that the kernel clears or copies at a time
_READ_EXECUTE = 5
_VDSO = 2 * PAGE  # bytes of the vDSO of x86-64
_LOAD, _INTERPRETER = 1, 3  # PT_LOAD, PT_INTERP


class Start(NamedTuple):
    """What a program finds when it starts.

    Attributes
    ----------
    events : tuple of Event
        Mappings of its files.
    cleared : tuple of (int, int)
        Pages that the kernel has written to by then: [start, end).
    others : tuple of (int, int)
        Memory of no file, in which its stack is: [start, end).
    """

    events: tuple[Event, ...] = ()
    cleared: tuple[tuple[int, int], ...] = ()
    others: tuple[tuple[int, int], ...] = ()

    def before(self, chunk: Chunk, granule: int) -> Chunk:
        """Return a program's first chunk with what is before it.

        The stack that the kernel has filled begins where the program's first store goes, which pushes a return address.
        """
        if not any(self):
            return chunk
        written, library = [*self.cleared], list[int]()
        if len(stores := chunk.address[chunk.kind == Kind.WRITE]):
            first = int(stores[0]) & -PAGE
            stack = [(first, end) for start, end in self.others if start <= first < end]
            written += [(first, end + PAGE) for first, end in stack]
            library = [end + 2 * PAGE for _, end in stack]  # where no program under valgrind has anything
        parts = [np.arange(start, end, granule, dtype=np.int64) for start, end in written]
        filled = sum(map(len, parts))
        address = np.concatenate([*parts, library, chunk.address]).astype(np.int64)
        count, kind = np.ones(len(address), np.int32), np.full(len(address), Kind.READ, np.uint8)
        count[:filled], kind[:filled] = granule // _LINE, Kind.WRITE
        shift = filled + len(library)
        count[shift:], kind[shift:] = chunk.count, chunk.kind
        events = [Event(e.position + shift, e.op, e.pid, e.address, e.length, e.argument) for e in chunk.events]
        maps = [Event(0, Op.MAP, 1, at, _VDSO, _READ_EXECUTE | _FILE) for at in library]
        return Chunk(address, count, kind, (*self.events, *maps, *events))


def started(process: int) -> Start:
    """Return what a program that is about to start finds.

    Parameters
    ----------
    process : int
        Of valgrind, which has loaded the program. What valgrind has mapped for itself is left out. What the program
        has mapped by now is not, which does no harm: an event of its own says so later.

    Returns
    -------
    Start
        Empty where /proc does not say.
    """
    try:
        lines = Path(f"/proc/{process}/maps").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return Start()
    events, cleared, others = list[Event](), list[tuple[int, int]](), list[tuple[int, int]]()
    files = list[str]()  # the program and its dynamic linker
    for line in lines:
        if not (mapping := _MAPPING.fullmatch(line)):
            continue
        start, end, offset = int(mapping[1], 16), int(mapping[2], 16), int(mapping[6], 16)
        rights = sum(1 << bit for bit in range(3) if mapping[3 + bit] != "-")
        path = mapping[8]
        if not rights or start % PAGE or end % PAGE or end > WIDEST_END:
            continue
        if not path:
            others.append((start, end))
            continue
        if not files:  # the program itself lies lowest
            files += [path, _linker(path)]
        if path in files:
            events.append(Event(0, Op.MAP, 1, start, end - start, rights | _FILE))
            if rights & 2:
                cleared += [(at, at + PAGE) for at in _cleared(path, start, end, offset)]
    return Start(tuple(events), tuple(cleared), tuple(others))


class _Segment(NamedTuple):
    """A program header of a file (ELF-64, `Elf64_Phdr`)."""

    kind: int
    flags: int
    offset: int
    address: int
    physical: int
    inside: int  # bytes in the file
    memory: int  # and in memory
    align: int


def _segments(path: str) -> list[_Segment]:
    """Return the program headers of a file; none if it is not one for 64-bit machines."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(64)
            if head[:5] != b"\x7fELF\x02":
                return []
            (table,) = struct.unpack_from("<Q", head, 32)
            size, number = struct.unpack_from("<HH", head, 54)
            file.seek(table)
            headers = file.read(size * number)
            return [_Segment(*struct.unpack_from("<IIQQQQQQ", headers, at * size)) for at in range(number)]
    except (OSError, struct.error):
        return []


def _linker(path: str) -> str:
    """Return the dynamic linker that a program asks for, or nothing."""
    for segment in _segments(path):
        if segment.kind == _INTERPRETER and segment.inside < PAGE:
            with Path(path).open("rb") as file:
                file.seek(segment.offset)
                return os.path.realpath(file.read(segment.inside).rstrip(b"\0").decode(errors="replace"))
    return ""


def _cleared(path: str, start: int, end: int, offset: int) -> list[int]:
    """Return the pages of a writable mapping of a program file that the kernel has cleared in part (padzero)."""
    found = []
    for segment in _segments(path):
        limit = start - offset + segment.offset + segment.inside
        filled = segment.memory > segment.inside and start < limit < end and limit % PAGE
        if segment.kind == _LOAD and filled:
            found.append(limit & -PAGE)
    return found
