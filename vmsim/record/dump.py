"""Page tables as text, in the form that the simulators DMT and SagePTE read.

The first line is the number of records, and each record a line ``VA,PE1,PE2,PE3,PE4,PA`` in hexadecimal without 0x: an
address, the frame numbers of the tables that hold its entries from the root to the leaf, and the frame number of its
page. A page of 2 MiB (1 GiB) is one record at its first address, with 0 for the table (two) that it has not; so is one
of 4 MiB in tables of two levels. There are as many PEs as levels, 2 to 5.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vmsim.machine.formats import FRAME, LARGE, PAGE_SHIFT, PRESENT, TWO_LEVEL
from vmsim.machine.memory import width_of
from vmsim.machine.tables import UNBACKED, host_address

__all__ = ["table_records", "table_text"]


def table_records(
    memory: NDArray[np.int64], root: int, levels: int, *, nested: tuple[int, int] = (0, 0), present: int = PRESENT
) -> Iterator[str]:
    """Yield the records of all that some tables map, by ascending address.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    root, levels : int
        Address of the root table, and how many levels there are.
    nested : tuple of int, optional
        Root and levels of the nested tables through which these are reached; the frames are then the guest's.
    present : int, optional
        An entry is present when any of these bits is set.
    """
    width = width_of(levels)
    words = memory.view(np.uint32) if levels == TWO_LEVEL else memory

    def below(table: int, level: int, start: int, above: str) -> Iterator[str]:
        place = int(host_address(memory, *nested, table))
        if place == UNBACKED:
            return
        entries = words[place // words.itemsize :][: 1 << width]
        chain, shift = f"{above}{table >> PAGE_SHIFT:x},", PAGE_SHIFT + width * (level - 1)
        for index in np.flatnonzero(entries & present).tolist():
            entry, address = int(entries[index]), start + (index << shift)
            if level == 1 or entry & LARGE:
                page = (entry & FRAME) >> shift << shift - PAGE_SHIFT
                yield f"{address:x},{chain}{'0,' * (level - 1)}{page:x}"
            else:
                yield from below(entry & FRAME, level - 1, address, chain)

    return below(root, levels, 0, "")


def table_text(records: list[str]) -> str:
    """Return a whole file."""
    return "\n".join([str(len(records)), *records, ""])
