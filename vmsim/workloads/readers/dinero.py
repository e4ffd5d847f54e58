"""Dinero's "din" text: `LABEL ADDRESS`, with label 0 read, 1 write, 2 fetch, 3 escape, 4 flush; hexadecimal addresses.

What follows on a line is ignored; escapes and flushes are passed over, since they access nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.workloads.opening import first_lines, opened, shown
from vmsim.workloads.readers.accesses import Batch, lines
from vmsim.workloads.readers.notes import Notes
from vmsim.workloads.stream import PAGE, Chunk, Kind

__all__ = ["ENDINGS", "read", "sniff"]

ENDINGS = (".din", ".dinero")  # of files' names

_RECORD = re.compile(rb"[ \t]*([0-4])[ \t]+(?:0[xX])?([0-9a-fA-F]{1,16})(?:[ \t].*)?", re.DOTALL)
_LEFT_OUT = {3: "escapes", 4: "flushes"}


def sniff(head: bytes) -> bool:
    """Return whether a file that begins with `head` looks like din text."""
    found = first_lines(head)
    return bool(found) and all(_RECORD.fullmatch(line) for line in found)


def read(path: Path, *, granule: int = PAGE, fetch: bool = False, notes: Notes | None = None) -> Iterator[Chunk]:
    """Read din text.

    Raises
    ------
    InputError
        A line is no record, or its address is not canonical; the message has its number.
    """
    name = printable(path)
    notes = notes or Notes()
    batch = Batch(name, granule)
    with opened(path, text=True) as file:
        for number, line in lines(file, name):
            record = _RECORD.fullmatch(line)
            if record is None:
                if not line.strip():
                    continue
                raise InputError(
                    f"{name}: line {number}: {shown(line)}: expected a label from 0 to 4 and a hexadecimal address."
                )
            kind = int(record[1])
            if kind < Kind.FETCH or (kind == Kind.FETCH and fetch):
                yield from batch.add(number, int(record[2], 16), kind)
            else:
                notes.drop(_LEFT_OUT.get(kind, "fetches"))
    yield from batch.flush()
    yield from batch.builder.rest()
