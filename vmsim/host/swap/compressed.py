"""Compressed memory in the place of a device (Linux drivers/block/zram, mm/zsmalloc.c).

A page that is swapped out is compressed at once by whoever swaps it out, and lies in frames of the host from then on. A
page of zeros takes none (zram's same_pages). How far others can be compressed follows from what they hold.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np

from vmsim.base.units import PAGE
from vmsim.frames.records import State
from vmsim.host.identity import ZERO
from vmsim.host.memory import HOST, HostMemory
from vmsim.host.swap.area import Holding
from vmsim.host.swap.service import drawer
from vmsim.host.swap.spec import SwapDevice
from vmsim.scenario.service import parse_service

__all__ = ["CompressedMemory"]


class CompressedMemory:
    """Pages, compressed.

    Parameters
    ----------
    spec : SwapDevice
        How far, and how fast.
    host : HostMemory
        Whose frames it takes, also below the watermarks: who reclaims may (PF_MEMALLOC).

    Attributes
    ----------
    bytes : int
        That the pages take.
    """

    def __init__(self, spec: SwapDevice, host: HostMemory, *, seed: int, frequency: int, folder: Path) -> None:
        random = Random(seed)
        self.host = host
        self.spec = spec
        self._compress = drawer(parse_service(spec.write), random, frequency, folder)
        self._decompress = drawer(parse_service(spec.read), random, frequency, folder)
        self._sizes: dict[int, int] = {}
        self._frames: list[int] = []
        self.bytes = self.zeros = self.count_reads = self.count_writes = self.refused = self.most = 0

    def store(self, slot: int, holding: Holding) -> int | None:
        """Compress a page; return the cycles, or None where there is no frame for it."""
        self.drop(slot)
        size = self._size(holding)
        wanted = -(-(self.bytes + size) // PAGE) - len(self._frames)
        if wanted > 0:
            got = self.host.take(HOST, wanted, State.HOST)
            if len(got) < wanted:
                self.host.give(got)
                self.refused += 1
                return None
            self._frames += got.tolist()
            self.most = max(self.most, len(self._frames))
        self._sizes[slot] = size
        self.bytes += size
        self.zeros += size == 0
        self.count_writes += 1
        return self._compress()

    def load(self, slot: int) -> int:
        """Decompress a page; return the cycles."""
        self.count_reads += 1
        return self._decompress()

    def drop(self, slot: int) -> None:
        """Forget a page."""
        size = self._sizes.pop(slot, None)
        if size is None:
            return
        self.bytes -= size
        self.zeros -= size == 0
        spare = len(self._frames) + -self.bytes // PAGE
        if spare > 0:
            gone, self._frames = self._frames[-spare:], self._frames[:-spare]
            self.host.give(np.array(gone))

    def _size(self, holding: Holding) -> int:
        """Return the bytes that a page takes; a page table is compressed like a page of an image."""
        if holding.words is None and holding.identity == ZERO:
            return 0
        image = holding.identity > ZERO or holding.words is not None
        return min(PAGE, round(PAGE / (self.spec.ratio_image if image else self.spec.ratio_unique)))

    @property
    def frames(self) -> int:
        """Frames that it has now."""
        return len(self._frames)

    def counts(self) -> dict[str, int]:
        """Return what it has done, and what it holds."""
        return {
            "reads": self.count_reads,
            "writes": self.count_writes,
            "refused": self.refused,
            "stored": len(self._sizes),
            "zeros": self.zeros,
            "bytes": self.bytes,
            "frames": len(self._frames),
            "most_frames": self.most,
        }
