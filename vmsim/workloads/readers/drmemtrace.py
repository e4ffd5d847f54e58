"""Text of DynamoRIO's drmemtrace `view` tool: one record a line.

    <record> <instruction>: W0.T<thread> read   8 byte(s) @ 0x00007fdf64e2adc8 by PC 0x0000000000404a7e

Older releases print a bare thread number. Markers and other records are passed over; where the workload (W) changes,
another process runs, which is a SWITCH.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from vmsim.errors import InputError
from vmsim.workloads.readers.accesses import Batch, lines
from vmsim.workloads.readers.files import opened, shown
from vmsim.workloads.stream import PAGE, Chunk, Kind, Op

__all__ = ["read", "sniff"]

_RECORD = re.compile(rb"\s*\d+\s+\d+:\s+(?:W(\d{1,9})\.T)?\d+\s+(.*)", re.DOTALL)
_ACCESS = re.compile(rb"(ifetch|read|write)\s+(\d{1,7}) byte\(s\) @ 0x([0-9a-f]{1,16})(?:\s.*)?", re.DOTALL)
# What the tool prints around its records, and the rest of a long instruction's bytes.
_AROUND = re.compile(
    rb"\s*(Output format:|<--record#->|-{10}|View tool results|\d+ : |([0-9a-f]{2}\s+)*$).*", re.DOTALL
)
_KINDS = {b"read": Kind.READ, b"write": Kind.WRITE, b"ifetch": Kind.FETCH}
_LARGEST = 1 << 16  # bytes of one access


def sniff(head: bytes) -> bool:
    """Return whether a file that begins with `head` looks like the view tool's text."""
    found = [line for line in head.split(b"\n")[:-1] if line.strip()]
    ours = sum(bool(_RECORD.fullmatch(line)) for line in found)
    return b"<--record#->" in head or (bool(found) and 10 * ours >= 9 * len(found))


def read(path: Path, *, granule: int = PAGE, fetch: bool = False) -> Iterator[Chunk]:
    """Read the view tool's text.

    Raises
    ------
    InputError
        A line is of no known form, or its address is not canonical; the message has its number.
    """
    batch = Batch(str(path), granule)
    running: int | None = None
    pids: dict[int, int] = {}
    with opened(path) as file:
        for number, line in lines(file, str(path)):
            record = _RECORD.fullmatch(line)
            if record is None:
                if _AROUND.fullmatch(line):
                    continue
                raise _refused(path, number, line)
            if not record[2].startswith(tuple(_KINDS)):
                continue
            access = _ACCESS.fullmatch(record[2])
            if access is None or not 1 <= int(access[2]) <= _LARGEST:
                raise _refused(path, number, line)
            if record[1]:
                pid = pids.setdefault(int(record[1]), len(pids) + 1)
                if running not in (None, pid):
                    yield from batch.flush()
                    batch.builder.event(Op.SWITCH, pid)
                running = pid
            kind = _KINDS[access[1]]
            if kind != Kind.FETCH or fetch:
                yield from batch.add(number, int(access[3], 16), kind, size=int(access[2]))
    yield from batch.flush()
    yield from batch.builder.rest()


def _refused(path: Path, number: int, line: bytes) -> InputError:
    return InputError(
        f"{path}: line {number}: {shown(line)}: expected a record of drmemtrace's view tool, as "
        "'47446 37770: W0.T2765543 read 8 byte(s) @ 0x00007fdf64e2adc8'. Raw traces must go through that tool first."
    )
