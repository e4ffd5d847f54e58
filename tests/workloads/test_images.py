"""Does a recording have what execve and valgrind do, and not what is valgrind's own?"""

from __future__ import annotations

import os
import struct
from io import BytesIO
from pathlib import Path

import numpy as np

from vmsim.workloads import Chunk, Event, Kind, Op
from vmsim.workloads.images import Start, _cleared, _linker, started
from vmsim.workloads.readers import lackey
from vmsim.workloads.stream import PAGE

STACK = 0x1F_FF00_0000
LIBRARY = (
    "SYSCALL[7,1](257) sys_openat ( 4294967196, 0x5000(/usr/libexec/valgrind/vgpreload_core-amd64-linux.so), 524288 )"
    " --> [async] ... \n"
    "SYSCALL[7,1](257) ... [async] --> Success(0x4) \n"
    "SYSCALL[7,1](9) sys_mmap ( 0x0, 16400, 1, 2050, 4, 0 ) --> [pre-success] Success(0x4837000) \n"
    "SYSCALL[7,1](9) sys_mmap ( 0x483a000, 8192, 3, 2066, 4, 8192 ) --> [pre-success] Success(0x483a000) \n"
    "SYSCALL[7,1](3) sys_close ( 4 )[sync] --> Success(0x0) \n"
    " L 4837010,8\n S 483b000,8\n"
    "SYSCALL[7,1](10) sys_mprotect ( 0x483a000, 4096, 1 )[sync] --> Success(0x0) \n"
    "SYSCALL[7,1](257) sys_openat ( 4294967196, 0x5000(/lib/libc.so.6), 524288 )[sync] --> Success(0x4) \n"
    "SYSCALL[7,1](9) sys_mmap ( 0x0, 8192, 1, 2, 4, 0 ) --> [pre-success] Success(0x4900000) \n"
    " L 4900010,8\n"
)


def parsed(text: str, fetch: lackey.Fetch = "none") -> tuple[list[tuple[int, int]], list[Event]]:
    chunks = list(lackey.parse(BytesIO(text.encode()), "text", fetch=fetch))
    runs = [pair for each in chunks for pair in zip(each.address.tolist(), each.kind.tolist(), strict=True)]
    return runs, [event for each in chunks for event in each.events]


def test_the_first_fetch_of_a_page_is_kept_and_again_when_it_is_mapped_anew() -> None:
    code = "I  10000,4\nI  10004,4\nI  11000,4\nI  10008,4\n"
    again = "SYSCALL[7,1](9) sys_mmap ( 0x10000, 4096, 5, 18, 3, 0 ) --> [pre-success] Success(0x10000) \n"
    runs, _ = parsed(code + again + code, "first")
    assert [address & -PAGE for address, kind in runs if kind == Kind.FETCH] == [0x10000, 0x11000, 0x10000]
    assert len(parsed(code, "all")[0]) == 3  # runs: both pages, and the first again
    assert parsed(code + " L 0,8\n")[0] == [(0, Kind.READ)]


def test_the_library_that_valgrind_preloads_is_left_out() -> None:
    runs, events = parsed(LIBRARY)
    assert [address & -PAGE for address, _ in runs] == [
        0x5000,
        0x490_0000,
    ]  # the paths, which the kernel reads, and the C library
    assert [(event.op, event.address) for event in events] == [(Op.MAP, 0x490_0000)]


def test_what_execve_wrote_comes_before_the_programs_first_access() -> None:
    """The page of data that ends in cleared data; the stack from the first store up, and a page more; the vDSO."""
    chunk = Chunk(
        np.array([0x1000, STACK - PAGE + 8], np.int64),
        np.array([3, 1], np.int32),
        np.array([Kind.READ, Kind.WRITE], np.uint8),
        (Event(1, Op.BRK, 1, 0x9000, 0, 0),),
    )
    mapped = Event(0, Op.MAP, 1, 0x1000, PAGE, 19)
    start = Start((mapped,), ((0x2000, 0x3000),), ((0x7000, 0x8000), (STACK - 2 * PAGE, STACK)))
    whole = start.before(chunk, PAGE)
    assert whole.address.tolist() == [0x2000, STACK - PAGE, STACK, STACK + 2 * PAGE, 0x1000, STACK - PAGE + 8]
    assert whole.count.tolist() == [64, 64, 64, 1, 3, 1]
    assert whole.kind.tolist() == [1, 1, 1, 0, 0, 1]
    assert [(event.position, event.op) for event in whole.events] == [(0, Op.MAP), (0, Op.MAP), (5, Op.BRK)]
    assert len(start.before(chunk, 64).address) == 3 * 64 + 1 + 2
    assert Start().before(chunk, PAGE) is chunk


def test_the_headers_of_a_program_say_what_is_cleared_and_which_linker_it_has(tmp_path: Path) -> None:
    """Data of 0x2310 bytes in the file and 0x25f8 in memory from 0x2b0 on, mapped at 0x5000: cleared from 0x75c0."""
    header = bytearray(64)
    header[:5] = b"\x7fELF\x02"
    struct.pack_into("<Q", header, 32, 64)
    struct.pack_into("<HH", header, 54, 56, 2)
    data = struct.pack("<IIQQQQQQ", 1, 6, 0x2B0, 0x2B0, 0x2B0, 0x2310, 0x25F8, 0x1000)
    name = b"/lib/ld.so\0"
    linker = struct.pack("<IIQQQQQQ", 3, 4, 176, 176, 176, len(name), len(name), 1)
    path = tmp_path / "program"
    path.write_bytes(bytes(header) + data + linker + name)
    assert _cleared(str(path), 0x5000, 0x8000, 0) == [0x7000]
    assert _linker(str(path)) == os.path.realpath("/lib/ld.so")
    path.write_bytes(b"#!/bin/sh\n")
    assert (_cleared(str(path), 0x5000, 0x8000, 0), _linker(str(path))) == ([], "")


def test_a_process_that_is_not_there_has_started_nothing() -> None:
    assert started(-1) == Start()
