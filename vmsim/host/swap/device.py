"""A swap device at work: when a page that is read or written is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from vmsim.host.swap.queue import DeviceQueue
from vmsim.host.swap.service import drawer
from vmsim.host.swap.spec import SwapDevice
from vmsim.scenario.service import parse_service

__all__ = ["BlockDevice"]

Words = NDArray[np.int64]


class BlockDevice:
    """A disk or an SSD: two queues, or one where reads and writes wait for the same.

    Parameters
    ----------
    spec : SwapDevice
        What it is.
    seed : int
        Of the times that are drawn, and of errors.
    frequency : int
        Cycles in a second.
    folder : Path
        Which paths of files are relative to.
    read_errors, write_errors : float
        How likely it is that a page cannot be read, or written.

    Attributes
    ----------
    reads, writes : DeviceQueue
        Its queues; the same one where they are not apart.
    steady : int or None
        How long reading a page takes, where it always takes as long and never fails; None: that varies.
    failed_reads, failed_writes : int
        Pages that could not be read, or written.
    """

    def __init__(
        self,
        spec: SwapDevice,
        *,
        seed: int,
        frequency: int,
        folder: Path,
        read_errors: float = 0.0,
        write_errors: float = 0.0,
    ) -> None:
        self.random = Random(seed)
        self.reads = DeviceQueue(spec.channels)
        self.writes = DeviceQueue(spec.write_channels) if spec.write_channels else self.reads
        self._read = drawer(parse_service(spec.read), self.random, frequency, folder)
        self._write = drawer(parse_service(spec.write), self.random, frequency, folder)
        self._constant = {
            draw: draw()
            for draw, text in ((self._read, spec.read), (self._write, spec.write))
            if parse_service(text).kind == "constant" and not spec.rotation
        }
        self._errors = read_errors, write_errors
        self.steady = None if read_errors else self._constant.get(self._read)
        self._rotation = spec.rotation * frequency / 1e9
        self._following = round(spec.following * frequency / 1e9)
        self._last = -2  # the slot before which nothing has to turn or move
        self.failed_reads = self.failed_writes = 0
        self.count_reads = self.count_writes = 0

    @property
    def turns(self) -> bool:
        """Whether something turns, so that slots that follow one another are read at once."""
        return self._rotation > 0

    def read(self, now: int, slots: Words) -> tuple[Words, NDArray[np.bool_] | None]:
        """Read pages, int64[n]; return the cycle at which each is over, int64[n], and which could be read, bool[n].

        None stands for all.
        """
        self.count_reads += len(slots)
        done, good = self._submit(self.reads, now, slots, self._read, self._errors[0])
        self.failed_reads += 0 if good is None else int(np.count_nonzero(~good))
        return done, good

    def write(self, now: int, slots: Words) -> tuple[Words, NDArray[np.bool_] | None]:
        """Write pages; return the same of them."""
        self.count_writes += len(slots)
        done, good = self._submit(self.writes, now, slots, self._write, self._errors[1])
        self.failed_writes += 0 if good is None else int(np.count_nonzero(~good))
        return done, good

    def _submit(
        self, queue: DeviceQueue, now: int, slots: Words, draw: Callable[[], int], likely: float
    ) -> tuple[Words, NDArray[np.bool_] | None]:
        if not likely:
            if (constant := self._constant.get(draw)) is not None:
                return queue.submit(now, np.full(len(slots), constant)), None
            return queue.submit(now, np.array([self._cycles(slot, draw) for slot in slots.tolist()], np.int64)), None
        random = self.random.random
        drawn = [(self._cycles(slot, draw), random() >= likely) for slot in slots.tolist()]
        return queue.submit(now, np.array([cycles for cycles, _ in drawn])), np.array([good for _, good in drawn])

    def _cycles(self, slot: int, draw: Callable[[], int]) -> int:
        if not self._rotation:
            return draw()
        follows = slot == self._last + 1
        self._last = slot
        return self._following if follows else draw() + int(self.random.random() * self._rotation)

    def counts(self) -> dict[str, int]:
        """Return what it has done; cycles that pages waited for a channel, and took in one."""
        queues = (self.reads,) if self.writes is self.reads else (self.reads, self.writes)
        return {
            "reads": self.count_reads,
            "writes": self.count_writes,
            "failed_reads": self.failed_reads,
            "failed_writes": self.failed_writes,
            "waited": sum(queue.waited for queue in queues),
            "served": sum(queue.served for queue in queues),
        }
