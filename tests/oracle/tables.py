"""A plain builder and a plain reader of page tables kept as a dict of words by hpa."""

from __future__ import annotations

from collections.abc import Iterator

from tests.oracle.bits import ADDRESS, PS, P, index, span

Words = dict[int, int]


def descend(words: Words, root: int, levels: int, address: int) -> Iterator[tuple[int, int, int]]:
    """Yield (level, hpa of the entry, entry) from the root to the leaf or the first absent entry.

    The tables are found where their entries say, so this reads nested and native tables.
    """
    table = root
    for level in range(levels, 0, -1):
        place = table + 8 * index(address, level)
        entry = words.get(place, 0)
        yield level, place, entry
        if entry == 0 or entry & PS or level == 1:
            return
        table = entry & ADDRESS


def translate(words: Words, root: int, levels: int, address: int) -> tuple[int, int] | None:
    """Return (address in the target space, level of the leaf), or None where there is no mapping."""
    level, _, entry = list(descend(words, root, levels, address))[-1]
    if entry == 0:
        return None
    return (entry & ADDRESS) // span(level) * span(level) + address % span(level), level


def translate_guest(
    words: Words, root: int, levels: int, nested_root: int, nested_levels: int, gva: int
) -> tuple[int, int] | None:
    """Return (gpa, level of the guest's leaf) by the guest's own tables, each reached through the nested ones."""
    table = root
    for level in range(levels, 0, -1):
        place = translate(words, nested_root, nested_levels, table + 8 * index(gva, level))
        if place is None:
            return None
        entry = words.get(place[0], 0)
        if entry == 0:
            return None
        if level == 1 or entry & PS:
            return (entry & ADDRESS) // span(level) * span(level) + gva % span(level), level
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
            words[place] = entry or target // span(level) * span(level) | page | (PS if level > 1 else 0)
            return place
        if entry == 0:
            words[place] = frames.take() | (P if at == levels == 3 else table)  # a PDPTE of PAE has no rights
            return build(words, frames, root, levels, address, level, target, table, page)
    raise AssertionError("a descent ends at a leaf or at an absent entry")
