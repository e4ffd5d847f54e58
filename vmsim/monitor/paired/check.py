"""Whether a KPT and its EPT, or NPT, say the same.

A plain reader of both, which shares nothing with the code that writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from vmsim.contracts import Words

__all__ = ["Pair", "difference", "frames_of_tables", "problems_of_pairs", "tables_in"]

Pair = tuple[int, int, int, int]
"""KPT and EPT (hpas of their roots), levels, and the first address that is not mapped twice."""


_FRAME = 0x000F_FFFF_FFFF_F000
_WRITE, _LARGE = 1 << 1, 1 << 7
_KPT_PRESENT, _EPT_PRESENT = 1 << 0, 0b111  # an EPTE is present when it allows anything
_PRESENT = {"KPT": _KPT_PRESENT, "EPT": _EPT_PRESENT, "NPT": _KPT_PRESENT}


def problems_of_pairs(memory: Words, pairs: Iterable[Pair], *, nested: str) -> Iterator[str]:
    """Yield what two tables of one address space do not have in common; `nested` is the format of the second."""
    for pair in pairs:
        if unlike := difference(memory, *pair, nested=nested):
            yield f"pairs: {unlike}"


def tables_in(memory: Words, pairs: Iterable[Pair]) -> int:
    """Return how many tables the KPTs of address spaces have."""
    return sum(len(frames_of_tables(memory, kpt, levels, limit)) for kpt, _, levels, limit in pairs)


def frames_of_tables(memory: Words, root: int, levels: int, limit: int) -> list[int]:
    """Return the frames of the tables that translate addresses below `limit`, the root's (hpa `root`) first."""
    return [table >> 12 for table, *_ in _tables(memory, root, levels, 0, limit)]


def difference(memory: Words, kpt: int, ept: int, levels: int, limit: int, *, nested: str = "EPT") -> str | None:
    """Return the first mapping below `limit` that only one of the tables has, or None.

    Compared are the address, the frame, the size of the page and whether it may be written. `nested` is the format of
    the second table: EPT or NPT.
    """
    ours, theirs = _mappings(memory, kpt, levels, limit, "KPT"), _mappings(memory, ept, levels, limit, nested)
    if np.array_equal(ours, theirs):
        return None
    one, other = ({tuple(row) for row in rows.tolist()} for rows in (ours, theirs))
    address, frame, level, write = min(one ^ other)
    holder = "KPT" if (address, frame, level, write) in one else nested
    size = ("4K", "2M", "1G")[level - 1]
    return f"only the {holder} maps {address:#x} to frame {frame} ({size}, {'writable' if write else 'read-only'})"


def _mappings(memory: Words, root: int, levels: int, limit: int, name: str) -> Words:
    """Return address, frame, level and writability of each page, int64[n, 4], by ascending address."""
    rows = []
    for table, level, base, values in _tables(memory, root, levels, 0, limit):
        del table
        leaf = (values & _PRESENT[name] != 0) & ((values & _LARGE != 0) | (level == 1))
        index = np.flatnonzero(leaf)
        entries = values[index]
        columns = (base + (index << (3 + 9 * level)), (entries & _FRAME) >> 12, np.full_like(index, level))
        rows.append(np.stack([*columns, (entries & _WRITE) >> 1], axis=1))
    all_rows = np.concatenate(rows)
    return all_rows[np.argsort(all_rows[:, 0], kind="stable")]


def _tables(memory: Words, table: int, level: int, base: int, limit: int) -> Iterator[tuple[int, int, int, Words]]:
    """Yield hpa, level, first address and entries (those below `limit`) of a table and of all below it."""
    span = 1 << (3 + 9 * level)
    values = memory[table >> 3 : (table >> 3) + min(512, -(-(limit - base) // span))]
    yield table, level, base, values
    if level > 1:
        for index in np.flatnonzero((values != 0) & (values & _LARGE == 0)).tolist():
            yield from _tables(memory, int(values[index]) & _FRAME, level - 1, base + index * span, limit)
