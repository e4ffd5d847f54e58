"""Entries of page tables written by hand, one leaf at a time: for a walk to be shown, not for a guest's work."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vmsim.machine.formats import FRAME, LARGE, PRESENT
from vmsim.machine.memory import entry_at, read_entry, width_of, write_entry

__all__ = ["large_bit", "map_leaf"]


def large_bit(order: int) -> int:
    """Return the bit of an entry that maps 2**order frames."""
    return LARGE if order else 0


def map_leaf(
    memory: NDArray[np.int64],
    tables: tuple[int, int, int],
    address: int,
    entry: int,
    table_bits: int,
    new_table: Callable[[], int],
    hpa: Callable[[int], int],
) -> None:
    """Write the leaf `entry` for `address`, with the tables above it.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    tables : (root, levels, leaf_level)
        The root table, its level, and the level of the entry to write.
    address, entry, table_bits : int
        What is mapped, its entry, and the bits of entries that point to tables.
    new_table, hpa : callable
        Give the address of a new table, and where in host memory an address is.
    """
    table, levels, leaf = tables
    width = width_of(levels)
    for level in range(levels, leaf - 1, -1):
        place = hpa(int(entry_at(table, address, level, width)))
        if level == leaf:
            write_entry(memory, place, entry, width)
            return
        if not read_entry(memory, place, width):
            below = new_table() | (PRESENT if level == 3 == levels else table_bits)  # PAE's have no rights
            write_entry(memory, place, below, width)
        table = int(read_entry(memory, place, width)) & FRAME
