"""A plain builder and a plain reader of page tables kept as a dict of words by hpa."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.oracle.bits import ADDRESS, PS, P, index, span, width

Words = dict[int, int]


def place_of(table: int, levels: int, level: int, address: int) -> int:
    """Return where the entry for `address` lies in a table of `level`: entries fill 4096 bytes."""
    bits = width(levels)
    return table + 4096 // 2**bits * index(address, level, bits)


def load(words: Words, place: int, levels: int) -> int:
    """Return the entry at `place`: half a word in 32-bit paging (2 levels), little-endian."""
    word = words.get(place // 8 * 8, 0)
    return word >> 8 * (place % 8) & 0xFFFF_FFFF if levels == 2 else word


def store(words: Words, place: int, levels: int, entry: int) -> None:
    """Write the entry at `place`; the other half of its word stays."""
    if levels == 2:
        shift = 8 * (place % 8)
        entry = words.get(place // 8 * 8, 0) & ~(0xFFFF_FFFF << shift) | (entry & 0xFFFF_FFFF) << shift
    words[place // 8 * 8] = entry


def descend(words: Words, root: int, levels: int, address: int) -> Iterator[tuple[int, int, int]]:
    """Yield (level, hpa of the entry, entry) from the root to the leaf or the first absent entry.

    The tables are found where their entries say, so this reads nested and native tables.
    """
    table = root
    for level in range(levels, 0, -1):
        place = place_of(table, levels, level, address)
        entry = load(words, place, levels)
        yield level, place, entry
        if entry == 0 or entry & PS or level == 1:
            return
        table = entry & ADDRESS


def translate(words: Words, root: int, levels: int, address: int) -> tuple[int, int] | None:
    """Return (address in the target space, level of the leaf), or None where there is no mapping."""
    level, _, entry = list(descend(words, root, levels, address))[-1]
    if entry == 0:
        return None
    return within(entry, levels, level, address), level


def within(entry: int, levels: int, level: int, address: int) -> int:
    """Return where `address` lies in the page that an entry of `level` maps."""
    size = span(level, width(levels))
    return (entry & ADDRESS) // size * size + address % size


Kept = Sequence[int]
"""Where a host has each guest frame, in words of its own: bit 0 or 3 where it has one, and the level in bits 4 to 6."""


def translate_nested(
    words: Words, root: int, levels: int, gpa: int, kept: Kept | None = None
) -> tuple[int, int] | None:
    """Return (hpa, level) of a gpa by nested tables, or, where there are none (no levels), as the host says."""
    if levels or kept is None:
        return translate(words, root, levels, gpa)
    word = int(kept[gpa >> 12]) if gpa >> 12 < len(kept) else 0
    return (word & ADDRESS | gpa & 0xFFF, word >> 4 & 7) if word & 0b1001 else None


def translate_guest(
    words: Words,
    root: int,
    levels: int,
    nested_root: int,
    nested_levels: int,
    gva: int,
    kept: Kept | None = None,
) -> tuple[int, int] | None:
    """Return (gpa, level of the guest's leaf) by the guest's own tables, each reached as `translate_nested` says."""
    table = root
    for level in range(levels, 0, -1):
        place = translate_nested(words, nested_root, nested_levels, place_of(table, levels, level, gva), kept)
        if place is None:
            return None
        entry = load(words, place[0], levels)
        if entry == 0:
            return None
        if level == 1 or entry & PS:
            return within(entry, levels, level, gva), level
        table = entry & ADDRESS
    return None


class Frames:
    """Hands out frames one after the other."""

    def __init__(self, first: int) -> None:
        self.next = first

    def take(self) -> int:
        self.next += 1
        return (self.next - 1) << 12


def build(
    words: Words, frames: Frames, root: int, levels: int, address: int, level: int, target: int, table: int, page: int
) -> int:
    """Map the page of `level` that holds `address` to `target`; make the tables that are missing. Return its hpa.

    `table` and `page` are the low bits of new entries; what is mapped already, larger or smaller, stays.
    """
    for at, place, entry in descend(words, root, levels, address):
        if at == level or entry & PS:
            size = span(level, width(levels))
            store(words, place, levels, entry or target // size * size | page | (PS if level > 1 else 0))
            return place
        if entry == 0:
            below = frames.take() | (P if at == levels == 3 else table)  # a PDPTE of PAE has no rights
            store(words, place, levels, below)
            return build(words, frames, root, levels, address, level, target, table, page)
    raise AssertionError("a descent ends at a leaf or at an absent entry")
