"""A disk, as the kernel knows it whose files are on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import simpy

from vmsim.contracts.processor import Vcpu
from vmsim.contracts.steps import Steps, Words

__all__ = ["Disk", "PageObserver"]


class Disk(Protocol):
    """The disk of one VM."""

    def read(self, vcpu: Vcpu, blocks: Sequence[int], gfns: Words) -> Steps[simpy.Event]:
        """Have blocks of 4 KiB read to frames (int64[n]) that the host backs; return the event that all are there.

        The vCPU tells the device, and is interrupted when it is done.
        """
        ...

    def write(self, vcpu: Vcpu, blocks: Sequence[int], gfns: Words) -> Steps[simpy.Event]:
        """Have blocks written from frames; return the event that the disk has them all."""
        ...


class PageObserver(Protocol):
    """Who keeps the pages of a page cache in an order."""

    def added(self, gfn: int, key: int) -> None:
        """Learn of a page that is new in the cache; `key` stands for its place in its file."""

    def used(self, gfn: int) -> None:
        """Learn that a program has read or written it by a system call (mm/swap.c, mark_page_accessed)."""

    def removed(self, gfn: int) -> None:
        """Learn that it is in the cache no more, and not because it was evicted."""
