"""What a paired address space must hold: a dict of pages, and the set of tables that they have needed."""

from __future__ import annotations

from tests.oracle.bits import span

Page = tuple[int, int, bool]  # frame, level, writable


class PairedOracle:
    """Pages by address. A range touches the pages that lie in it wholly; tables are made as needed and stay."""

    def __init__(self, levels: int) -> None:
        self.levels = levels
        self.pages: dict[int, Page] = {}
        self.tables: set[tuple[int, int]] = {(levels, 0)}

    def room(self, address: int, level: int) -> bool:
        """Whether a page of `level` can be mapped: nothing is there, nor a table of smaller pages."""
        taken = any(
            start < address + span(level) and address < start + span(size) for start, (_, size, _) in self.pages.items()
        )
        return not taken and not any(at < level and first // span(level) == address // span(level)
                                     for at, first in self._under(level))  # fmt: skip

    def _under(self, level: int) -> list[tuple[int, int]]:
        """Return (level, first address) of the tables that an entry of `level` would point to."""
        return [(at, number * span(at + 1)) for at, number in self.tables if at == level - 1]

    def map(self, address: int, level: int, frame: int) -> int:
        """Map a page; return how many tables are new."""
        before = len(self.tables)
        self.tables |= {(at, address // span(at + 1)) for at in range(level, self.levels)}
        self.pages[address] = frame, level, True
        return len(self.tables) - before

    def inside(self, first: int, limit: int) -> list[int]:
        return [start for start, (_, level, _) in self.pages.items() if first <= start and start + span(level) <= limit]

    def unmap(self, first: int, limit: int) -> list[tuple[int, int]]:
        return sorted(self.pages.pop(start)[:2] for start in self.inside(first, limit))

    def protect(self, first: int, limit: int, write: bool) -> int:
        inside = self.inside(first, limit)
        for start in inside:
            self.pages[start] = *self.pages[start][:2], write
        return len(inside)


def table_pages(layout: str, tables: int, *, guest: bool) -> int:
    """Return the page frames that so many tables take: one page more for each, but where no second table is made."""
    return tables if layout == "shared" or (layout == "separate" and not guest) else 2 * tables


def pointer_pages(layout: str, frames: int) -> int:
    """Return the page frames of 8 bytes for each frame of the host."""
    return -(-8 * frames // 4096) if layout == "pointer" else 0
