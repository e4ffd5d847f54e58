"""Pages of one VM that go to another node together, as Linux's migrate_pages has them go (mm/migrate.c)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vmsim.contracts import NO_FLUSH, Flush, LiveVm, Words
from vmsim.scenario.cpu import Cost

__all__ = ["Moved", "Mover"]


class Moved(NamedTuple):
    """What became of pages that were to go elsewhere.

    Attributes
    ----------
    frames : int
        Frames that went.
    pages : list of int
        Pages that went whole.
    busy, left : list of int
        Those that must stay where they are, and those for which there was no room.
    cycles : int
        What it took.
    """

    frames: int
    pages: list[int]
    busy: list[int]
    left: list[int]
    cycles: int


class Mover:
    """Moves pages of VMs, and of programs on the host, between the nodes of a host.

    The entries of a page are cleared and its processors forget them, of a VM's page by page (KVM's MMU notifier), of a
    program's all at once; it is copied and mapped anew. Nobody has measured the parts: they are those of a page that is
    taken, `host_zap`, an entry that is written, `violation_entry`, and `copy_page` for each 4 KiB.
    """

    def __init__(self, host: Any, costs: Cost) -> None:
        self.host = host
        self.costs = costs

    def move(self, vm: LiveVm, numbers: Words, to: int, *, least: int) -> Moved:
        """Move pages, by their first numbers, int64[n], to a node of which `least` frames stay free.

        Large ones go as a whole or, where there is no such block, in pieces.
        """
        memory, flush = vm.pages, NO_FLUSH
        old, pages, busy, left = list[Words](), list[int](), list[int](), list[int]()
        for number in numbers.tolist():
            if not memory.movable(number):
                busy.append(number)
                continue
            forget, frames, whole = self._move(memory, number, to, least)
            flush += forget
            (pages if whole else left).append(number)
            old.append(frames)
        gone = np.concatenate(old) if old else np.empty(0, np.int64)
        if not len(gone):
            return Moved(0, pages, busy, left, 0)
        calls, costs = len(pages) + len(left), self.costs
        cycles = calls * (costs.host_zap + costs.violation_entry) + len(gone) * costs.copy_page
        if flush != NO_FLUSH:
            cycles += vm.forget(flush, times=max(len(pages), 1) if memory.flushes_each else 1)
        self.host.note_copies(gone, to)
        self.host.give(gone)
        return Moved(len(gone), pages, busy, left, cycles)

    def _move(self, memory: Any, number: int, to: int, least: int) -> tuple[Flush, Words, bool]:
        """Move one; return what is to be forgotten, the frames that it lay in, and whether all of it went."""
        order = memory.order_of(number)
        if order and len(block := self.host.take_on(to, 1, order=order, least=least)):
            first = memory.frame_of(number) & -(1 << order)
            return memory.move_large(number, int(block[0])), np.arange(first, first + (1 << order)), True
        pages = memory.whole_page(number) if order else np.array([number])
        flush, old = NO_FLUSH, []
        frames = self.host.take_on(to, len(pages), least=least)
        for page, frame in zip(pages.tolist(), frames.tolist(), strict=False):
            old.append(memory.frame_of(page))
            flush += memory.move(page, frame)
        return flush, np.array(old, np.int64), len(frames) == len(pages)
