"""`.vmtrace` itself, by the readers' interface: it can be coarsened from lines to pages, and fetches left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.workloads.readers.notes import Notes
from vmsim.workloads.runs import RunBuilder, check_granule
from vmsim.workloads.stream import PAGE, Chunk, Kind
from vmsim.workloads.vmtrace import MAGIC, Vmtrace

__all__ = ["ENDINGS", "read", "sniff"]

ENDINGS = (".vmtrace",)  # of files' names


def sniff(head: bytes) -> bool:
    """Return whether a file that begins with `head` is a .vmtrace."""
    return head.startswith(MAGIC)


def read(path: Path, *, granule: int = PAGE, fetch: bool = False, notes: Notes | None = None) -> Iterator[Chunk]:
    """Read a .vmtrace, joining its runs anew."""
    check_granule(granule)
    notes = notes or Notes()
    trace = Vmtrace.open(path)
    if granule < trace.granule:
        raise InputError(
            f"{printable(path)}: recorded in blocks of {trace.granule} bytes: cannot be read in blocks of {granule}. "
            f"Record it again with --granule {granule}, or convert the file that it was made from so."
        )
    builder = RunBuilder(granule)
    for chunk in trace.chunks():
        events = list(chunk.events)
        first = 0
        for stop in [*(event.position for event in events), len(chunk.count)]:
            kept = slice(first, stop)
            address, count, kind = chunk.address[kept], chunk.count[kept], chunk.kind[kept]
            if not fetch and trace.totals.get("fetches"):
                data = kind != Kind.FETCH
                notes.drop("fetches", int(count[~data].sum(dtype=np.int64)))
                address, count, kind = address[data], count[data], kind[data]
            yield from builder.add(address, count, kind)
            first = stop
            if events:
                event = events.pop(0)
                builder.event(event.op, event.pid, event.address, event.length, event.argument)
    yield from builder.rest()
