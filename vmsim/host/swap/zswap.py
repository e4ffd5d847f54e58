"""Compressed memory in front of a swap device (Linux 6.8, mm/zswap.c).

A page that is swapped out is compressed first, as in zram, and stays in memory; its frame is free at once. When all
compressed pages take `max_pool_percent` of the host's memory no more are taken, and go to the device, until they take
less than `accept_threshold_percent` of that (zswap_check_limits); meanwhile those that came first are decompressed and
written to the device (shrink_worker, zswap_writeback_entry). A page that is wanted is decompressed and is here no more
(exclusive loads): its slot is free.

The time of writing back is nobody's: a worker of the host has a core of its own. Reading ahead leaves out what is
compressed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import simpy

from vmsim.contracts import Steps, Words
from vmsim.frames.records import State
from vmsim.host.memory import HOST, HostMemory
from vmsim.host.swap.area import SwapArea
from vmsim.host.swap.compressed import CompressedMemory

__all__ = ["Zswap"]

BATCH = 32  # pages that are written back at a time (SWAP_CLUSTER_MAX)


class Zswap:
    """Pages, compressed, of which the oldest make room.

    Parameters
    ----------
    host : HostMemory
        Whose frames it takes.
    area : SwapArea
        What each slot holds.
    memory : CompressedMemory
        Where they lie.
    submit : callable
        Has the device write pages: slots, and the frames that they lie in.
    most, least : int
        Frames at which no more pages are taken, and below which they are again.

    Attributes
    ----------
    full : bool
        Whether no more are taken.
    counts : dict
        Pages `stored`, `loaded`, refused because it was full (`limit_hit`), and `written_back`.
    """

    def __init__(
        self,
        host: HostMemory,
        area: SwapArea,
        memory: CompressedMemory,
        submit: Callable[[Words, Words], None],
        *,
        most: int,
        least: int,
    ) -> None:
        self.host = host
        self.area = area
        self.memory = memory
        self.submit = submit
        self.most = most
        self.least = least
        self.full = False
        self.counts = dict.fromkeys(("stored", "loaded", "limit_hit", "written_back"), 0)
        self._slots: dict[int, None] = {}  # those that came first before the others
        self._worker: simpy.Process | None = None

    def __contains__(self, slot: int) -> bool:
        return slot in self._slots

    def store(self, slot: int) -> int | None:
        """Compress a page; return the cycles, or None where it is to go to the device."""
        self.drop(slot)
        if self.memory.frames >= self.most:
            self.full = True
        elif self.memory.frames < self.least:
            self.full = False
        if self.full:
            self.counts["limit_hit"] += 1
            self._make_room()
            return None
        cycles = self.memory.store(slot, self.area.holding(slot))
        if cycles is not None:
            self._slots[slot] = None
            self.counts["stored"] += 1
        return cycles

    def load(self, slot: int) -> int:
        """Decompress a page that is wanted, which is here no more; return the cycles."""
        cycles = self.memory.load(slot)
        self.counts["loaded"] += 1
        self.drop(slot)
        return cycles

    def drop(self, slot: int) -> None:
        """Forget a page."""
        if slot in self._slots:
            del self._slots[slot]
            self.memory.drop(slot)

    def figures(self) -> dict[str, int]:
        """Return what it has done, and what it holds."""
        held = {name: self.memory.counts()[name] for name in ("bytes", "frames", "most_frames", "zeros")}
        return {f"zswap_{name}": value for name, value in (*self.counts.items(), *held.items())}

    def _make_room(self) -> None:
        if self._worker is None or self._worker.triggered:
            self._worker = self.host.env.process(self._write_back())

    def _write_back(self) -> Steps[None]:
        """Write those that came first to the device, until more are taken again."""
        while self._slots and self.memory.frames >= self.least:
            slots = np.array([slot for slot, _ in zip(self._slots, range(BATCH), strict=False)])
            pfns = self.host.take(HOST, len(slots), State.HOST)
            if not len(pfns):
                return
            slots, cycles = slots[: len(pfns)], 0
            for slot in slots.tolist():
                cycles += self.memory.load(slot)
                self.drop(slot)
            self.counts["written_back"] += len(slots)
            self.submit(slots, pfns)
            yield self.host.env.after(max(1, cycles))
        self.full = self.memory.frames >= self.least
