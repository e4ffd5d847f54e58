"""Text of DynamoRIO's drmemtrace `view` tool: one record a line.

    <record> <instruction>: W0.T<thread> read   8 byte(s) @ 0x00007fdf64e2adc8 by PC 0x0000000000404a7e

The tool's source says what there is (clients/drcachesim/tools/view.cpp). In 2022 it printed no instruction number
(`<record>: T<thread> …`); other releases print no workload, or a bare thread number. Markers, prefetches and flushes
are passed over. Where the thread changes there is a THREAD event, and before it, where the workload (W) does, a SWITCH:
another process runs. Strings, whose elements are records each, go by cache lines (see `strings`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.workloads.opening import first_lines, opened, shown
from vmsim.workloads.readers.accesses import LARGEST, Batch, lines
from vmsim.workloads.readers.notes import Notes
from vmsim.workloads.stream import PAGE, Chunk, Kind, Op

__all__ = ["ENDINGS", "read", "sniff"]

ENDINGS = (".drmemtrace",)  # of files' names

_RECORD = re.compile(rb"\s*\d+(?:\s+\d+)?:\s+((?:W(\d{1,9})\.)?T?\d+)\s+([a-zA-Z<].*)?", re.DOTALL)
_ACCESS = re.compile(rb"(ifetch|read|write)\s+(\d{1,7}) byte\(s\) @ 0x([0-9a-f]{1,16})(?:\s.*)?", re.DOTALL)
# What the tool prints around its records, and the rest of a long instruction's bytes.
_AROUND = re.compile(
    rb"\s*(Output format:|<-*record#-*>|-{10}|View tool results|\d+ : |([0-9a-f]{2}\s+)*$).*", re.DOTALL
)
_SPILL = re.compile(rb"\s*\d+(?:\s+\d+)?:\s+(?:W\d{1,9}\.)?T?\d+\s+([0-9a-f]{2}\s*)+")
_HEADING = re.compile(rb"<-*record#-*>.*<record details>")
_KINDS = {b"read": Kind.READ, b"write": Kind.WRITE, b"ifetch": Kind.FETCH}
_LEFT_OUT = ((b"<marker", "markers"), (b"pref", "prefetches"), (b"iflush", "flushes"), (b"dflush", "flushes"))


def sniff(head: bytes) -> bool:
    """Return whether a file that begins with `head` looks like the view tool's text."""
    found = [line for line in first_lines(head) if not _AROUND.fullmatch(line)]
    ours = sum(bool(_RECORD.fullmatch(line) or _SPILL.fullmatch(line)) for line in found)
    return bool(_HEADING.search(head)) or (bool(found) and 10 * ours >= 9 * len(found))


def read(path: Path, *, granule: int = PAGE, fetch: bool = False, notes: Notes | None = None) -> Iterator[Chunk]:
    """Read the view tool's text.

    Raises
    ------
    InputError
        A line is of no known form, or its address is not canonical; the message has its number.
    """
    from vmsim.workloads.readers import strings

    name = printable(path)
    notes = notes or Notes()
    batch = Batch(name, granule)
    running: int | None = None
    last = b""
    pids: dict[int, int] = {}
    threads: dict[bytes, list[int]] = {}  # what is known of the instruction that each executes
    with opened(path, text=True) as file:
        for number, line in lines(file, name):
            record = _RECORD.fullmatch(line)
            if record is None:
                if _AROUND.fullmatch(line) or _SPILL.fullmatch(line):
                    continue
                raise _refused(name, number, line)
            thread, workload, what = record[1], record[2], record[3] or b""
            if not what.startswith(tuple(_KINDS)):
                if _SPILL.fullmatch(line):
                    continue
                notes.drop(next((label for start, label in _LEFT_OUT if what.startswith(start)), "other records"))
                continue
            access = _ACCESS.fullmatch(what)
            if access is None or not 1 <= int(access[2]) <= LARGEST:
                raise _refused(name, number, line)
            instruction = threads.setdefault(thread, [0] * strings.PLACES)
            if workload:
                pid = pids.setdefault(int(workload), len(pids) + 1)
                if running not in (None, pid):
                    yield from batch.flush()
                    batch.builder.event(Op.SWITCH, pid)
                running = pid
            if thread != last:
                yield from batch.flush()
                batch.builder.thread(thread, running or 1)
                last = thread
            kind, address, size = _KINDS[access[1]], int(access[3], 16), int(access[2])
            first = address
            if kind != Kind.FETCH:
                first = strings.first_byte(instruction, address, size, kind == Kind.WRITE)
            elif not strings.fetched(instruction, address) or what.rstrip().endswith(b"non-fetched instruction"):
                continue
            elif not fetch:
                notes.drop("fetches")
                continue
            if first < address + size:
                notes.drop("sizes")
                yield from batch.add(number, first, kind, size=address + size - first)
    notes.drop("elements", sum(each[strings.ELEMENTS] for each in threads.values()))
    yield from batch.flush()
    yield from batch.builder.rest()


def _refused(name: str, number: int, line: bytes) -> InputError:
    return InputError(
        f"{name}: line {number}: {shown(line)}: expected a record of drmemtrace's view tool, as "
        "'47446 37770: W0.T2765543 read 8 byte(s) @ 0x00007fdf64e2adc8'. Raw traces must go through that tool first."
    )
