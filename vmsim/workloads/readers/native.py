"""`.vmtrace` itself, by the readers' interface: it can be coarsened from lines to pages, and fetches left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vmsim.errors import InputError
from vmsim.workloads.runs import RunBuilder, check_granule
from vmsim.workloads.stream import PAGE, Chunk, Kind
from vmsim.workloads.vmtrace import MAGIC, Vmtrace

__all__ = ["read", "sniff"]


def sniff(head: bytes) -> bool:
    """Return whether a file that begins with `head` is a .vmtrace."""
    return head.startswith(MAGIC)


def read(path: Path, *, granule: int = PAGE, fetch: bool = False) -> Iterator[Chunk]:
    """Read a .vmtrace, joining its runs anew."""
    check_granule(granule)
    trace = Vmtrace.open(path)
    if granule < trace.granule:
        raise InputError(f"{path}: recorded in blocks of {trace.granule} bytes: cannot be read in blocks of {granule}.")
    builder = RunBuilder(granule)
    for chunk in trace.chunks():
        events = list(chunk.events)
        first = 0
        for stop in [*(event.position for event in events), len(chunk.count)]:
            kept = slice(first, stop)
            address, count, kind = chunk.address[kept], chunk.count[kept], chunk.kind[kept]
            if not fetch and trace.totals.get("fetches"):
                data = kind != Kind.FETCH
                address, count, kind = address[data], count[data], kind[data]
            yield from builder.add(address, count, kind)
            first = stop
            if events:
                event = events.pop(0)
                builder.event(event.op, event.pid, event.address, event.length, event.argument)
    yield from builder.rest()
