"""Text of valgrind's lackey tool: `--trace-mem=yes`; `--trace-syscalls=yes` and `--trace-sched=yes` for the events.

An access is `I  ADDRESS,SIZE` (fetch), ` L …` (load), ` S …` (store) or ` M …` (load, then store of the same place);
the address is hexadecimal, the size decimal. System calls stand where they happened. A modify is taken as two
accesses of kind WRITE; string instructions, which lackey writes element by element, go by cache lines (see `strings`).
Everything else that valgrind says (`==pid==` and such) is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.workloads.opening import first_lines, opened, shown
from vmsim.workloads.readers.buffers import accesses
from vmsim.workloads.readers.notes import Notes
from vmsim.workloads.readers.syscalls import PASSED, Calls
from vmsim.workloads.runs import RunBuilder
from vmsim.workloads.stream import PAGE, Chunk

__all__ = ["ENDINGS", "Fetch", "parse", "read", "sniff"]

ENDINGS = (".lackey",)  # of files' names

Fetch: TypeAlias = Literal["none", "first", "all"]
_BLOCK = 1 << 20
_ACCESS = re.compile(rb"I  [0-9a-f]+,\d+|[ ][LSM] [0-9a-f]+,\d+")


def sniff(head: bytes) -> bool:
    """Return whether a file that begins with `head` looks like lackey's text."""
    lines = [line for line in first_lines(head) if not line.startswith(PASSED)]
    ours = sum(bool(_ACCESS.fullmatch(line)) or line.startswith(b"SYSCALL[") for line in lines)
    return b"== Lackey," in head or (bool(lines) and 10 * ours >= 9 * len(lines))


def read(path: Path, *, granule: int = PAGE, fetch: bool = False, notes: Notes | None = None) -> Iterator[Chunk]:
    """Read a file of lackey's text; see `parse`."""
    with opened(path, text=True) as file:
        yield from parse(file, printable(path), granule=granule, fetch="all" if fetch else "none", notes=notes)


def parse(
    file: BinaryIO,
    name: str,
    *,
    granule: int = PAGE,
    fetch: Fetch = "none",
    complete: bool = True,
    notes: Notes | None = None,
) -> Iterator[Chunk]:
    """Read lackey's text from a file or pipe.

    The last line of a file need not have an end. With `complete = False` such a line is left out: it is that of a
    program that was stopped. Of the instruction fetches all are kept, none, or the first of each page, and of each
    page again that was mapped anew: those that can fault.

    Raises
    ------
    InputError
        A line is of no known form, or its address is not canonical; the message has its number.
    """
    from vmsim.workloads.readers import kernels, strings

    builder = RunBuilder(granule)
    calls = Calls(builder)
    address = np.empty(_BLOCK, np.int64)
    count = np.empty(_BLOCK, np.int32)
    kind = np.empty(_BLOCK, np.uint8)
    state = np.zeros(5, np.int64)  # position in the text, accesses found, lines read, fetches left out, with a size
    instruction = np.zeros(strings.PLACES, np.int64)
    fetched = np.full(kernels.FETCHED, kernels.NO_PAGE, np.int64)
    wanted = np.int64(("none", "first", "all").index(fetch))
    tail = b""
    ended = False
    while not ended:
        block = file.read(_BLOCK)
        if not block:
            if not (tail and complete):
                break
            block, ended = b"\n", True
        whole = block.rfind(b"\n") + 1
        if not whole:
            tail += block
            if len(tail) > _BLOCK:
                raise InputError(f"{name}: line {state[2] + 1} is longer than {_BLOCK} bytes: not lackey's text.")
            continue
        text = tail + block[:whole]
        tail = block[whole:]
        view = np.frombuffer(text, np.uint8)
        state[0] = 0
        code = kernels.FULL
        while code != kernels.DONE:
            state[1] = 0
            code = kernels.lackey(view, wanted, fetched, np.int64(-granule), state, instruction, address, count, kind)
            found, at = int(state[1]), int(state[0])
            yield from builder.add(*calls.seen(address[:found], count[:found], kind[:found]))
            if code in (kernels.OTHER, kernels.BROKEN):
                end = text.index(b"\n", at)
                line = text[at:end].removesuffix(b"\r")
                where = f"{name}: line {state[2] + 1}"
                if code == kernels.BROKEN:
                    raise InputError(
                        f"{where}: {shown(line)}: expected a canonical hexadecimal address, a comma and a size from 1 "
                        "to 4096."
                    )
                used = calls.line(line, where)
                for low, high in calls.changed:
                    fetched[(fetched >= low >> 12) & (fetched < high >> 12)] = kernels.NO_PAGE
                calls.changed.clear()
                for buffer in calls.touched:
                    for part in accesses(buffer):
                        yield from builder.add(*part)
                calls.touched.clear()
                # two processes that share a log can glue an access to the end of a system call's line
                state[0] = at + used if used < len(line) else end + 1
                state[2] += used == len(line)
    if notes:
        notes.drop("fetches", int(state[3]))
        notes.drop("sizes", int(state[4]))
        notes.drop("elements", int(instruction[strings.ELEMENTS]))
    calls.finish()
    yield from builder.rest()
