"""Page tables as text, in the form that the simulators DMT and SagePTE read.

The first line is the number of records, and each record a line ``VA,PE1,PE2,PE3,PE4,PA`` in hexadecimal without 0x: the
address of a 4 KiB page, the frame numbers of the tables that hold its entries from the root to the leaf, and the page's
own. A large page has a record for each 4 KiB of it. In the place of a table that it does not have stands the frame that
such a table's entry would map: for 2 MiB PE4 is the first frame of the page, for 1 GiB PE3 is, and PE4 the first frame
of the 2 MiB around the address. So SagePTE's own dumper of a guest has it (PageTables/Guest/dump_pagetables.c,
handle_normal_page). There are as many PEs as levels, 2 to 5.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vmsim.machine.formats import FRAME, LARGE, PAGE_SHIFT, PRESENT, TWO_LEVEL
from vmsim.machine.memory import width_of
from vmsim.tables.backing import IDENTITY, OWNED, SHARED, UNBACKED
from vmsim.tables.edit import find_address

__all__ = ["backing_records", "table_records", "table_text"]


def table_records(
    memory: NDArray[np.int64],
    root: int,
    levels: int,
    *,
    nested: tuple[int, int, NDArray[np.int64]] = (0, 0, IDENTITY),
    present: int = PRESENT,
    last: int | None = None,
) -> Iterator[str]:
    """Yield the records of all that some tables map, 4 KiB each, by ascending address.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    root, levels : int
        Address of the root table, and how many levels there are.
    nested : tuple, optional
        How these are reached, as `vmsim.tables.edit.find_address` is told; the frames are then the guest's.
    present : int, optional
        An entry is present when any of these bits is set.
    last : int, optional
        Leave out the root's entries from this number on.
    """
    width = width_of(levels)
    words = memory.view(np.uint32) if levels == TWO_LEVEL else memory

    def below(table: int, level: int, start: int, above: str) -> Iterator[str]:
        place = int(find_address(memory, *nested, table))
        if place == UNBACKED:
            return
        entries = words[place // words.itemsize :][: 1 << width][: last if level == levels else None]
        chain, shift = f"{above}{table >> PAGE_SHIFT:x},", PAGE_SHIFT + width * (level - 1)
        for index in np.flatnonzero(entries & present).tolist():
            entry, address = int(entries[index]), start + (index << shift)
            if level == 1 or entry & LARGE:
                frame = (entry & FRAME) >> shift << shift - PAGE_SHIFT
                for part in range(1 << shift - PAGE_SHIFT):
                    yield f"{address + (part << PAGE_SHIFT):x},{chain}{_blocks(frame + part, level)}{frame + part:x}"
            else:
                yield from below(entry & FRAME, level - 1, address, chain)

    def _blocks(frame: int, level: int) -> str:
        """Return what stands for the tables below the entry of `level` that maps a frame."""
        return "".join(f"{frame >> width * below << width * below:x}," for below in range(level - 1, 0, -1))

    return below(root, levels, 0, "")


def backing_records(backing: NDArray[np.int64]) -> Iterator[str]:
    """Yield a record for each guest frame that the host has a frame for, by what the host says: no table is on the way.

    Parameters
    ----------
    backing : int64[frames]
        Where guest memory lies (tables/backing.py).
    """
    for gfn in np.flatnonzero(backing & (OWNED | SHARED)).tolist():
        yield f"{gfn << PAGE_SHIFT:x},{(int(backing[gfn]) & FRAME) >> PAGE_SHIFT:x}"


def table_text(records: list[str]) -> str:
    """Return a whole file."""
    return "\n".join([str(len(records)), *records, ""])
